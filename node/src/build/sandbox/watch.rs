//! Measures a process tree from outside, for machines without writable control groups.
//!
//! Everything below a process counts: what leaves its parent is adopted by the namespace's first process, which is below
//! it too.

use std::{collections::BTreeMap, fs};

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
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let of = |name: &str| text.lines().find(|line| line.starts_with(name)).and_then(kib).unwrap_or(0);
    (of("RssAnon:") + of("RssShmem:") + of("VmSwap:")) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

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
