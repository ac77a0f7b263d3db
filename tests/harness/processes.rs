//! Looks for what attempts leave on a machine: processes and mounts that name a folder, and what is below such processes; and
//! for what a process costs.

use std::{collections::BTreeMap, fs, path::Path};

/// A process that has to do with a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its real, effective, saved and file system user, as this machine counts.
    pub users: Vec<u32>,
    /// The first number of this machine in each range of its user namespace.
    pub ranges: Vec<u32>,
    /// Its words.
    pub command: String,
}

/// Finds processes whose command line, mounts or working directory name a folder, and all below them: within a sandbox
/// nothing names it.
pub fn processes_of(folder: &Path) -> Vec<Process> {
    let name = folder.to_string_lossy();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<_, _> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let holders: Vec<_> = parents.keys().copied().filter(|pid| names(*pid, &name)).collect();
    let is_below = |pid: u32| {
        let ancestors = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
        // A longer line of ancestors is a race between reads.
        ancestors.take(parents.len()).any(|pid| holders.contains(&pid))
    };
    parents.keys().copied().filter(|pid| is_below(*pid)).filter_map(process).collect()
}

fn read(pid: u32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parent(pid: u32) -> Option<u32> {
    read(pid, "status").lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn names(pid: u32, name: &str) -> bool {
    let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let command = read(pid, "cmdline").replace('\0', " ");
    command.contains(name) || read(pid, "mountinfo").contains(name) || place.to_string_lossy().contains(name)
}

fn process(pid: u32) -> Option<Process> {
    let status = read(pid, "status");
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let users = users.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let ranges = read(pid, "uid_map");
    let ranges = ranges.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    Some(Process { pid, users, ranges, command: read(pid, "cmdline").replace('\0', " ") })
}

/// Finds mounts of this machine that name a folder.
pub fn mounts_of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(name.as_ref())).map(str::to_owned).collect()
}

/// The memory of a process since somebody began to look, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pid: u32,
    began: u64,
}

impl Memory {
    /// Begins to look.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn of(pid: u32) -> Self {
        // From here on the kernel counts the peak anew.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, began: field(pid, "VmRSS:") }
    }

    /// How much more it had at most since then, in KiB.
    pub fn peak_kib(&self) -> u64 {
        field(self.pid, "VmHWM:").saturating_sub(self.began)
    }

    /// Says it in words.
    pub fn cost(&self) -> String {
        let now = field(self.pid, "VmRSS:");
        format!("RSS {} KiB before and {now} KiB after, at most {} KiB more", self.began, self.peak_kib())
    }
}

fn field(pid: u32, name: &str) -> u64 {
    let status = read(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no process {pid}"));
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
