//! Measures a process tree from outside, for machines without writable control groups.
//!
//! Everything below a process counts: what leaves its parent is adopted by the namespace's first process, which is below
//! it too.

use std::{collections::BTreeMap, fs, path::Path};

/// What a tree uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::build) struct Usage {
    /// Memory that is not backed by files, in bytes.
    pub(in crate::build) memory: u64,
    /// Processes and threads.
    pub(in crate::build) threads: u64,
    /// CPU time of living processes and of children they waited for, in clock ticks.
    pub(in crate::build) ticks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    parent: u32,
    threads: u64,
    ticks: u64,
}

/// Gives what the processes below `root` use, itself not counted.
pub(in crate::build) fn usage(root: u32) -> Usage {
    let processes = processes();
    let mut total = Usage::default();
    for (pid, process) in &processes {
        if *pid == root || !is_below(&processes, *pid, root) {
            continue;
        }
        total.threads += process.threads;
        total.ticks += process.ticks;
        total.memory += memory(*pid);
    }
    total
}

/// Gives the direct children of a process.
pub(in crate::build) fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    match text {
        Ok(text) => text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        Err(_) => processes().into_iter().filter(|(_, p)| p.parent == parent).map(|(pid, _)| pid).collect(),
    }
}

/// Gives when a process started, in ticks since boot: with its number, its identity.
pub(in crate::build) fn started(pid: u32) -> Option<u64> {
    fields(pid)?.get(19)?.parse().ok()
}

/// Says whether all threads of a process are on their way out, or gone: it runs nothing of its own any more.
pub(in crate::build) fn is_ending(pid: u32) -> bool {
    /// See proc(5) and the kernel's `PF_EXITING`.
    const EXITING: u64 = 0x4;
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let flags = stat(&thread.path().join("stat")).and_then(|fields| fields.get(6)?.parse::<u64>().ok());
        flags.is_none_or(|flags| flags & EXITING != 0)
    })
}

/// Gives the memory that the processes below `root` use, in bytes, each page that several share counted once: slower than [`usage`]. Of a
/// process that cannot be looked into, it has what that says.
pub(in crate::build) fn shared_memory(root: u32) -> u64 {
    let processes = processes();
    let below = processes.keys().filter(|pid| **pid != root && is_below(&processes, **pid, root));
    below.map(|pid| proportional(*pid).unwrap_or_else(|| memory(*pid))).sum()
}

fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| kib(&text, name);
    Some((of("Pss_Anon:")? + of("Pss_Shmem:")? + of("SwapPss:").unwrap_or(0)) * 1024)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
}

fn processes() -> BTreeMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: u32) -> Option<Process> {
    let fields = fields(pid)?;
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).filter_map(field).sum();
    Some(Process { parent: u32::try_from(field(1)?).ok()?, threads: field(17)?, ticks })
}

/// Gives the fields of `stat` after the name, which may hold anything; the state is field 0.
fn fields(pid: u32) -> Option<Vec<String>> {
    stat(Path::new(&format!("/proc/{pid}/stat")))
}

fn stat(file: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn is_below(processes: &BTreeMap<u32, Process>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    // A chain longer than this is a race between reads, not a tree.
    for _ in 0..processes.len() {
        match processes.get(&at) {
            Some(process) if process.parent == root => return true,
            Some(process) if process.parent != 0 => at = process.parent,
            Some(_) | None => return false,
        }
    }
    false
}

fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| kib(&text, name).unwrap_or(0);
    (of("RssAnon:") + of("RssShmem:") + of("VmSwap:")) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_several_share_is_counted_once() {
        // A shell that has read 64 MiB, and four more of it that only wait.
        let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); exec 3<&0; for i in 1 2 3 4; do (read -r y <&3) & done; wait";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let this = std::process::id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while children(child.id()).len() < 4 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let below = children(child.id());
        let (summed, shared) = (memory(child.id()) * 5, shared_memory(this));
        for pid in below.iter().chain([&child.id()]) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert_eq!(below.len(), 4);
        assert!(summed >= 5 * (64 << 20) && (64 << 20..3 * (64 << 20)).contains(&shared), "{summed} {shared}");
        assert!(is_ending(child.id()) && !is_ending(this));
    }

    #[test]
    fn a_tree_is_counted_and_strangers_are_not() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 30 & sleep 30 & wait"]).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while usage(child.id()).threads < 2 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let below = children(child.id());
        assert_eq!(usage(child.id()).threads, 2);
        assert!(started(child.id()).is_some());
        for pid in below.into_iter().chain([child.id()]) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
    }
}
