//! What a build sees of the machine under `/proc`: its own limits instead of the machine's size and load, and nothing that
//! names this machine, this start of it, or its kernel's addresses.
//!
//! Files that have a constant or computed content are written by the layout and mounted over the kernel's. What is left
//! as it is: `uptime` and `version`, which `clock_gettime` and `uname` tell anyway; `sysinfo`, a system call, whose total
//! memory is the machine's; and counters and names of hardware. What is written under `/proc/sys` belongs to the machine's
//! root, whom no sandbox has, or to the sandbox's own network and message queues, which an installation may set for itself.

use std::{os::unix::fs::PermissionsExt, path::Path};

/// Where the written files lie in the root file system; `/run` is mounted over it before a build starts.
pub(in crate::build) const FOLDER: &str = "run/artel";
/// Files that look empty where anybody may read or write them: the kernel's symbols, keys, timers and log, and the
/// machine's disks and start line. Each costs a fifth of a millisecond, so there are no more than these.
const EMPTY: [&str; 14] = [
    "cmdline",
    "diskstats",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "modules",
    "partitions",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];
/// What others than the owner may do with a file.
const OTHERS: u32 = 0o006;
/// Files that are written: the last is where a start of the machine has its name.
const WRITTEN: [&str; 5] = ["cpuinfo", "meminfo", "stat", "loadavg", "sys/kernel/random/boot_id"];

/// Gives the files to write into [`FOLDER`].
pub(in crate::build) fn files(memory_mib: u32, cpus: u32) -> [(String, String); 5] {
    let host = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let load = "0.00 0.00 0.00 1/1 1\n".to_owned();
    let boot = "00000000-0000-0000-0000-000000000000\n".to_owned();
    let texts = [cpuinfo(&host, cpus), meminfo(memory_mib), stat(cpus), load, boot];
    let mut names = WRITTEN.map(name).into_iter();
    texts.map(|text| (names.next().unwrap_or_default(), text))
}

/// Gives a file's name in [`FOLDER`].
fn name(file: &str) -> String {
    file.replace('/', "-")
}

/// Gives the words with which bubblewrap mounts all of it over the processes at `at`; `root` is the root file system's folder.
pub(in crate::build) fn mounts(root: &str, at: &str) -> Vec<String> {
    let target = |name: &str| format!("{at}/{name}");
    let is_open = |name: &&&str| {
        let found = Path::new("/proc").join(name).metadata();
        found.is_ok_and(|file| file.permissions().mode() & OTHERS != 0)
    };
    let empty = EMPTY.iter().filter(is_open).map(|name| ["--dev-bind".into(), "/dev/null".into(), target(name)]);
    let written = WRITTEN.map(|file| ["--ro-bind".into(), format!("{root}/{FOLDER}/{}", name(file)), target(file)]);
    empty.chain(written).flatten().collect()
}

/// Gives the first CPUs of the machine's, numbered from 0, without what changes from one moment to the next.
fn cpuinfo(host: &str, cpus: u32) -> String {
    let of_cpu = |block: &&str| block.starts_with("processor");
    let blocks = host.split("\n\n").filter(of_cpu).take(cpus as usize).enumerate();
    let lines = |(number, block): (usize, &str)| {
        let rest = block.lines().skip(1).filter(|line| !line.starts_with("cpu MHz"));
        let rest: String = rest.flat_map(|line| [line, "\n"]).collect();
        format!("processor\t: {number}\n{rest}\n")
    };
    blocks.map(lines).collect()
}

fn meminfo(memory_mib: u32) -> String {
    let total = u64::from(memory_mib) * 1024;
    let lines = [
        ("MemTotal", total),
        ("MemFree", total),
        ("MemAvailable", total),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Shmem", 0),
    ];
    lines.iter().map(|(name, kib)| format!("{:<16}{kib:>8} kB\n", format!("{name}:"))).collect()
}

fn stat(cpus: u32) -> String {
    let cpu = |name: &str| format!("{name} 0 0 0 0 0 0 0 0 0 0\n");
    let each: String = (0..cpus).map(|number| cpu(&format!("cpu{number}"))).collect();
    let rest = "intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n";
    format!("{}{each}{rest}", cpu("cpu "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_sees_as_many_cpus_as_it_may_use() {
        let host =
            "processor\t: 3\nmodel name\t: A\ncpu MHz\t: 1\n\nprocessor\t: 4\nmodel name\t: A\n\nHardware\t: B\n";
        assert_eq!(cpuinfo(host, 1), "processor\t: 0\nmodel name\t: A\n\n");
        assert_eq!(cpuinfo(host, 9).matches("processor").count(), 2, "not more than there are");
        assert_eq!(stat(2).lines().filter(|line| line.starts_with("cpu")).count(), 3);
        assert_eq!(meminfo(256).lines().next(), Some("MemTotal:         262144 kB"));
    }
}
