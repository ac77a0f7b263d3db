//! What a build sees of the machine under `/proc`: its own limits instead of the machine's size and load, and nothing that
//! names this machine, this start of it, or its kernel's addresses.
//!
//! Files that have a constant or computed content are written by the layout and mounted over the kernel's. What is left
//! as it is: `uptime` and `version`, which `clock_gettime` and `uname` tell anyway, and `sysinfo`, a system call, whose
//! total memory is the machine's.

use std::path::Path;

/// Where the written files lie in the root file system; `/run` is mounted over it before a build starts.
pub(in crate::build) const FOLDER: &str = "run/artel";
/// Files that look empty: the kernel's symbols, keys, timers and log, the machine's devices, load and start line.
const EMPTY: [&str; 24] = [
    "buddyinfo",
    "cmdline",
    "config.gz",
    "consoles",
    "diskstats",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "locks",
    "modules",
    "partitions",
    "sched_debug",
    "schedstat",
    "softirqs",
    "sysrq-trigger",
    "timer_list",
    "vmstat",
    "zoneinfo",
];
/// Folders that look empty.
const EMPTY_FOLDERS: [&str; 9] = ["acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "tty"];
/// Where a start of the machine has its name.
const BOOT_ID: &str = "sys/kernel/random/boot_id";

/// Gives the files to write into [`FOLDER`], each named like what it is mounted over, slashes as dashes.
pub(in crate::build) fn files(memory_mib: u32, cpus: u32) -> [(&'static str, String); 5] {
    let host = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    [
        ("cpuinfo", cpuinfo(&host, cpus)),
        ("meminfo", meminfo(memory_mib)),
        ("stat", stat(cpus)),
        ("loadavg", "0.00 0.00 0.00 1/1 1\n".to_owned()),
        (BOOT_ID, "00000000-0000-0000-0000-000000000000\n".to_owned()),
    ]
}

/// Gives a file's name in [`FOLDER`].
pub(in crate::build) fn name(file: &str) -> String {
    file.replace('/', "-")
}

/// Gives the words with which bubblewrap mounts all of it over the kernel's files below `at`; `root` is the root file system's
/// folder.
pub(in crate::build) fn mounts(root: &str, at: &str) -> Vec<String> {
    let target = |name: &str| format!("{at}/{name}");
    let exists = |name: &&&str| Path::new("/proc").join(name).exists();
    let empty = EMPTY.iter().filter(exists).map(|name| ["--dev-bind".into(), "/dev/null".into(), target(name)]);
    // An empty folder of the root file system: one from outside would tell its path.
    let folders = EMPTY_FOLDERS.iter().filter(exists);
    let folders = folders.map(|name| ["--ro-bind".into(), format!("{root}/proc"), target(name)]);
    let system = [["--ro-bind".to_owned(), "/proc/sys".to_owned(), target("sys")]];
    let written = files(1, 1).map(|(file, _)| {
        let from = format!("{root}/{FOLDER}/{}", name(file));
        ["--ro-bind".into(), from, target(file)]
    });
    system.into_iter().chain(empty).chain(folders).chain(written).flatten().collect()
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
