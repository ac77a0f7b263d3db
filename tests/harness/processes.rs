//! Looks for what attempts leave on a machine: processes and mounts that name a folder.

use std::{fs, path::Path};

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

/// Finds processes whose command line, mounts or working directory name a folder.
pub fn processes_of(folder: &Path) -> Vec<Process> {
    let name = folder.to_string_lossy();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| process(pid, &name)).collect()
}

fn process(pid: u32, name: &str) -> Option<Process> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (command, mounts) = (read("cmdline").replace('\0', " "), read("mountinfo"));
    let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    if !command.contains(name) && !mounts.contains(name) && !place.to_string_lossy().contains(name) {
        return None;
    }
    let status = read("status");
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let users = users.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let ranges = read("uid_map");
    let ranges = ranges.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    Some(Process { pid, users, ranges, command })
}

/// Finds mounts of this machine that name a folder.
pub fn mounts_of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(name.as_ref())).map(str::to_owned).collect()
}
