//! Whose fault it is that a run in a sandbox ended as it did.

use std::{fs, path::Path};

use protocol::{
    blame::{Blame, Failure, Fault},
    job::BuildLimits,
};

use super::sandbox::{Breach, Ending, Ran, cgroup::Killed};

/// A disk with less left is full: nothing can be written to it that builds write.
const DISK_LEFT_MIN: u64 = 4 << 20;
/// What a shell gives for a process that was killed.
const KILLED: i32 = 128 + 9;

/// What this machine looked like when a run began.
pub(in crate::build) struct Host {
    /// Processes that the kernel had killed for want of memory.
    killed: u64,
}

/// What this machine lacks after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) struct Lack {
    /// Bytes that the disk of the attempts has left.
    disk_left: u64,
    /// Processes that the kernel killed meanwhile for want of memory.
    killed: u64,
}

impl Host {
    /// Looks at the machine.
    pub(in crate::build) fn now() -> Self {
        let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        Self { killed: killed.unwrap_or(0) }
    }

    /// Gives what the machine lacks now; `folder` is on the disk that matters.
    pub(in crate::build) fn since(&self, folder: &Path) -> Lack {
        let disk_left = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
        Lack { disk_left, killed: Self::now().killed.saturating_sub(self.killed) }
    }
}

/// Says whether a run failed because the machine had too little memory. Where the run's own group counts, only that is asked:
/// what else the kernel killed on this machine meanwhile says nothing.
fn starved(ran: &Ran, code: i32, lack: &Lack) -> bool {
    match ran.killed {
        Some(killed) => killed == Killed::ByMachine,
        None => code == KILLED && lack.killed > 0,
    }
}

/// Turns the end of a run into a failure of `step`, unless it is success.
///
/// A run that kept its own limits and failed on a machine whose disk is full, or was killed while the kernel looked for
/// memory, says nothing about the package.
pub(in crate::build) fn judge(step: &str, ran: &Ran, limits: &BuildLimits, lack: &Lack) -> Result<(), Failure> {
    let (blame, what) = match ran.ending {
        Ending::Exited(0) => return Ok(()),
        Ending::Exited(code) if lack.disk_left < DISK_LEFT_MIN => {
            let left = lack.disk_left / 1024;
            (Blame::Builder(Fault::DiskFull), format!("ended with exit code {code}; this disk has {left} KiB left"))
        }
        Ending::Exited(code) if starved(ran, code, lack) => {
            let what = "killed for want of memory, though it kept its limit: this machine has too little".to_owned();
            (Blame::Builder(Fault::Memory), what)
        }
        Ending::Exited(code) if code > 128 => (Blame::Job, format!("killed by signal {}", code - 128)),
        Ending::Exited(code) => (Blame::Job, format!("ended with exit code {code}")),
        Ending::Broke(breach @ (Breach::Wall | Breach::Silence)) => (Blame::Timeout, breach.words(limits)),
        Ending::Broke(Breach::Start) => {
            return Err(Failure::new(Blame::Builder(Fault::Sandbox), "sandbox", Breach::Start.words(limits)));
        }
        // Whose it is nobody here can say: another builder will.
        Ending::Broke(Breach::Hidden) => (Blame::Builder(Fault::DiskFull), Breach::Hidden.words(limits)),
        Ending::Broke(breach) => (Blame::Job, breach.words(limits)),
        Ending::Cancelled => (Blame::Cancelled, "cancelled".to_owned()),
    };
    Err(Failure::new(blame, step, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_the_builders_only_where_the_build_itself_was_hit() {
        let limits = BuildLimits::default();
        let blame = |killed, code, elsewhere| {
            let ran = Ran { ending: Ending::Exited(code), killed, cpu: None, memory_peak: None };
            judge("build", &ran, &limits, &Lack { disk_left: u64::MAX, killed: elsewhere }).unwrap_err().blame
        };
        let builder = Blame::Builder(Fault::Memory);
        assert_eq!(blame(Some(Killed::ByMachine), 2, 0), builder, "a compiler that was killed");
        assert_eq!(blame(Some(Killed::Nothing), KILLED, 3), Blame::Job, "it killed itself while others were starved");
        assert_eq!(blame(None, KILLED, 1), builder, "without a group the machine's own count is all there is");
        assert_eq!(blame(None, 2, 1), Blame::Job);
    }
}
