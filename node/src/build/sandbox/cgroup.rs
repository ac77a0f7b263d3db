//! Control groups of one attempt: memory, processes, CPU. Version 1 and version 2, where this process may write them.
//!
//! Where neither can be written, the sandbox is watched from outside instead ([`super::watch`]), and
//! [`Cgroups::weaknesses`] says so.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use protocol::job::BuildLimits;

use super::{Breach, watch};

const MIB: u64 = 1024 * 1024;
/// Our own processes inside an attempt's group: shell, watchers, bubblewrap twice.
const OWN_PIDS: u32 = 12;
/// How long the kernel may take to empty a group whose processes were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
const CPU_PERIOD_US: u64 = 100_000;
/// A group that was so near to its limit had reached it: the kernel charges memory in batches on each CPU.
const NEAR_LIMIT: u64 = 8 * MIB;

/// The machine's control groups as far as this process may use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) enum Cgroups {
    /// None can be written.
    None,
    /// Version 1: one folder per controller.
    V1(Vec<(Controller, PathBuf)>),
    /// Version 2: one folder below which groups can be made.
    V2(PathBuf),
}

/// A controller of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Controller {
    Memory,
    Pids,
    Cpu,
    CpuAccount,
}

impl Controller {
    const EVERY: [(&'static str, Self); 4] =
        [("memory", Self::Memory), ("pids", Self::Pids), ("cpu", Self::Cpu), ("cpuacct", Self::CpuAccount)];
}

impl Cgroups {
    /// Finds what can be written, by trying.
    pub(in crate::build) fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if let Some(base) = find_v2(&mounts, &own) {
            return Self::V2(base);
        }
        let found: Vec<_> = Controller::EVERY
            .into_iter()
            .filter_map(|(name, controller)| Some((controller, find_v1(&mounts, &own, name)?)))
            .filter(|(_, base)| can_make(base))
            .collect();
        if found.is_empty() { Self::None } else { Self::V1(found) }
    }

    pub(in crate::build) fn weaknesses(&self) -> Vec<String> {
        let has = |wanted: Controller| match self {
            Self::None => false,
            Self::V1(found) => found.iter().any(|(controller, _)| *controller == wanted),
            Self::V2(_) => true,
        };
        let mut weak = Vec::new();
        if !has(Controller::Memory) {
            let what = "no memory cgroup: memory is measured five times a second, not limited by the kernel, and what no \
                        process has mapped is not seen";
            weak.push(what.into());
        }
        if !has(Controller::Pids) {
            weak.push("no pids cgroup: processes are limited by RLIMIT_NPROC".into());
        }
        if !has(Controller::Cpu) {
            weak.push("no cpu cgroup: CPUs are limited by affinity only".into());
        }
        weak
    }

    /// Makes the groups of one attempt and sets their limits.
    pub(in crate::build) fn make(&self, name: &str, limits: &BuildLimits) -> io::Result<Group> {
        let mut group = Group { folders: Vec::new() };
        match self {
            Self::None => {}
            Self::V1(found) => {
                for (controller, base) in found {
                    let folder = base.join(name);
                    make_folder(&folder)?;
                    limit_v1(*controller, &folder, limits)?;
                    group.folders.push((Some(*controller), folder));
                }
            }
            Self::V2(base) => {
                let folder = base.join(name);
                make_folder(&folder)?;
                limit_v2(&folder, limits)?;
                group.folders.push((None, folder));
            }
        }
        Ok(group)
    }
}

/// What the kernel killed in a group for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Killed {
    Nothing,
    /// The group had reached its own limit.
    ByLimit,
    /// The machine had too little.
    ByMachine,
}

/// The groups of one attempt; removed, and what is in them killed, when dropped.
#[derive(Debug)]
pub(in crate::build) struct Group {
    /// Folders, with their controller in version 1.
    folders: Vec<(Option<Controller>, PathBuf)>,
}

impl Group {
    pub(in crate::build) fn folders(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|(_, folder)| folder.clone()).collect()
    }

    fn folder(&self, wanted: Controller) -> Option<&Path> {
        self.folders.iter().find(|(c, _)| c.is_none() || *c == Some(wanted)).map(|(_, folder)| folder.as_path())
    }

    /// Says whether the kernel limits memory and processes here.
    pub(in crate::build) fn limits(&self, what: Controller) -> bool {
        self.folder(what).is_some()
    }

    /// Says which limit the kernel had to enforce.
    pub(in crate::build) fn breach(&self) -> Option<Breach> {
        if self.killed() == Some(Killed::ByLimit) {
            return Some(Breach::Memory);
        }
        let pids = self.folder(Controller::Pids)?;
        (counter(&pids.join("pids.events"), "max") > 0).then_some(Breach::Pids)
    }

    /// Says whether the kernel killed something in the group for want of memory, and whose; nothing where no group counts.
    ///
    /// Both versions count what any search for memory killed, the machine's too. The second version counts the group's own
    /// searches beside it; in the first, a group that never came near its limit did not search.
    pub(in crate::build) fn killed(&self) -> Option<Killed> {
        let folder = self.folder(Controller::Memory)?;
        let events = folder.join("memory.events");
        let (control, own) = if events.exists() {
            let searches = counter(&events, "oom");
            (events, searches > 0)
        } else {
            let read = |name: &str| number(&folder.join(name)).unwrap_or(0);
            let near = read("memory.limit_in_bytes").saturating_sub(NEAR_LIMIT);
            (folder.join("memory.oom_control"), read("memory.max_usage_in_bytes") >= near)
        };
        Some(match (counter(&control, "oom_kill"), own) {
            (0, _) => Killed::Nothing,
            (_, true) => Killed::ByLimit,
            (_, false) => Killed::ByMachine,
        })
    }

    /// Gives the processes in the groups.
    pub(in crate::build) fn members(&self) -> Vec<u32> {
        let read = |folder: &Path| fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let texts: Vec<_> = self.folders.iter().map(|(_, folder)| read(folder)).collect();
        let mut members: Vec<u32> = texts.iter().flat_map(|text| text.lines()).filter_map(|l| l.parse().ok()).collect();
        members.sort_unstable();
        members.dedup();
        // Who ends runs nothing any more, and may wait for the disk as long as that takes.
        members.retain(|pid| !watch::is_ending(*pid));
        members
    }

    /// Gives the CPU time used.
    pub(in crate::build) fn cpu(&self) -> Option<Duration> {
        let folder = self.folder(Controller::CpuAccount)?;
        match number(&folder.join("cpuacct.usage")) {
            Some(nanos) => Some(Duration::from_nanos(nanos)),
            None => Some(Duration::from_micros(counter(&folder.join("cpu.stat"), "usage_usec"))),
        }
    }

    /// Gives the most memory that was in use, page cache included, in bytes.
    pub(in crate::build) fn memory_peak(&self) -> Option<u64> {
        let folder = self.folder(Controller::Memory)?;
        number(&folder.join("memory.max_usage_in_bytes")).or_else(|| number(&folder.join("memory.peak")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (_, folder) in &self.folders {
            if let Err(error) = clear(folder) {
                tracing::warn!(folder = %folder.display(), %error, "control group left behind");
            }
        }
    }
}

/// Kills what is in a group and removes it; a group that is gone is fine.
pub(in crate::build) fn clear(folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => kill_members(folder),
            Ok(()) => return Ok(()),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn kill_members(folder: &Path) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        // A process that ended meanwhile is what we want.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn limit_v1(controller: Controller, folder: &Path, limits: &BuildLimits) -> io::Result<()> {
    let memory = (u64::from(limits.memory_mib) * MIB).to_string();
    match controller {
        Controller::Memory => {
            fs::write(folder.join("memory.limit_in_bytes"), &memory)?;
            // Absent where the kernel counts no swap.
            let swap = folder.join("memory.memsw.limit_in_bytes");
            if swap.exists() { fs::write(swap, &memory) } else { Ok(()) }
        }
        Controller::Pids => fs::write(folder.join("pids.max"), (limits.pids.saturating_add(OWN_PIDS)).to_string()),
        Controller::Cpu => {
            fs::write(folder.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(folder.join("cpu.cfs_quota_us"), quota(limits).to_string())
        }
        Controller::CpuAccount => Ok(()),
    }
}

fn limit_v2(folder: &Path, limits: &BuildLimits) -> io::Result<()> {
    fs::write(folder.join("memory.max"), (u64::from(limits.memory_mib) * MIB).to_string())?;
    let swap = folder.join("memory.swap.max");
    if swap.exists() {
        fs::write(swap, "0")?;
    }
    fs::write(folder.join("pids.max"), (limits.pids.saturating_add(OWN_PIDS)).to_string())?;
    let cpu = folder.join("cpu.max");
    if cpu.exists() { fs::write(cpu, format!("{} {CPU_PERIOD_US}", quota(limits))) } else { Ok(()) }
}

fn quota(limits: &BuildLimits) -> u64 {
    (u64::from(limits.cpu_milli) * CPU_PERIOD_US / 1000).max(1000)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    clear(folder)?;
    fs::create_dir(folder)
}

fn find_v1(mounts: &str, own: &str, name: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let is = fields.get(2) == Some(&"cgroup") && fields.get(3)?.split(',').any(|option| option == name);
        is.then(|| PathBuf::from(fields[1]))
    })?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is = fields.next()?.split(',').any(|controller| controller == name);
        is.then(|| fields.next())?
    })?;
    // Inside a container the path may be the host's: then the mount itself is our group.
    let inside = mount.join(path.trim_start_matches('/'));
    Some(if inside.is_dir() { inside } else { mount })
}

fn find_v2(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let base = mount.join(path);
    let controllers = fs::read_to_string(base.join("cgroup.controllers")).ok()?;
    let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
    if !has("memory") || !has("pids") || !can_make(&base) {
        return None;
    }
    let wanted = if has("cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
    let control = base.join("cgroup.subtree_control");
    if fs::write(&control, wanted).is_err() {
        // A group with processes of its own cannot pass controllers on: the daemon moves into a leaf first.
        let leaf = base.join("artel-daemon");
        // Another daemon of this group may be in it.
        fs::create_dir(&leaf).or_else(|error| if leaf.is_dir() { Ok(()) } else { Err(error) }).ok()?;
        let own = std::process::id().to_string();
        fs::write(leaf.join("cgroup.procs"), &own).ok()?;
        if fs::write(&control, wanted).is_err() {
            // Others are in the group, too: what was tried is taken back, as far as it goes.
            let _ = fs::write(base.join("cgroup.procs"), &own).and_then(|()| fs::remove_dir(&leaf));
            return None;
        }
    }
    Some(base)
}

fn can_make(base: &Path) -> bool {
    let probe = base.join(format!("artel-probe-{}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}

fn counter(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_folders_come_from_mounts_and_membership() {
        let mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n";
        let own = "4:cpu,cpuacct:/no/such/folder\n";
        assert_eq!(find_v1(mounts, own, "cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(find_v1(mounts, own, "memory"), None);
    }

    #[test]
    fn who_was_short_of_memory_is_told_from_the_groups_own_counters() {
        let folder = tempfile::tempdir().unwrap();
        let group = Group { folders: Vec::new() };
        assert_eq!(group.killed(), None, "no group, no word");
        // Nothing is removed when it is dropped: these are no real groups.
        let group = std::mem::ManuallyDrop::new(Group { folders: vec![(None, folder.path().to_owned())] });
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("memory.limit_in_bytes", "268435456\n");
        for (used, kills, expect) in
            [("268435456", 0, Killed::Nothing), ("268000000", 1, Killed::ByLimit), ("100000000", 1, Killed::ByMachine)]
        {
            write("memory.max_usage_in_bytes", used);
            write("memory.oom_control", &format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"));
            assert_eq!(group.killed(), Some(expect), "version 1, {used} {kills}");
        }
        for (own, kills, expect) in [(0, 0, Killed::Nothing), (2, 1, Killed::ByLimit), (0, 1, Killed::ByMachine)] {
            write("memory.events", &format!("low 0\nhigh 0\nmax 9\noom {own}\noom_kill {kills}\n"));
            assert_eq!(group.killed(), Some(expect), "version 2, {own} {kills}");
        }
        assert_eq!(group.breach(), None, "the machine's want is no broken limit");
    }

    #[test]
    fn without_groups_every_weakness_is_said() {
        assert_eq!(Cgroups::None.weaknesses().len(), 3);
        assert!(Cgroups::V2("/x".into()).weaknesses().is_empty());
    }
}
