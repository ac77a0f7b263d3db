//! What differed, or may have, between one attempt and another: a table of keys and values that the builder signs with its
//! attestation, for people who look for the cause of a difference.
//!
//! Most of it is what the *build* saw (its profile); the rest is what no profile can change: the CPU, the memory, the file
//! system. It says nothing that would name the machine or its owner.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use protocol::{Arch, Hash, Timestamp};

use super::{
    environment::Environment,
    lint::Lint,
    sandbox::{Ran, within},
    vary::{Kernel, Sh, Variation},
};

/// The longest value, in bytes, that a statement carries.
const VALUE_MAX: usize = 256;
/// Features of a CPU that programs look for and that change what a careless build makes.
const FEATURES: [&str; 15] = [
    "sse4_2", "avx", "avx2", "avx512f", "fma", "bmi2", "aes", "sha_ni", "rdrand", "vaes", "asimd", "sve", "sve2",
    "crc32", "atomics",
];
/// Variables of a kind of job that are told; a statement carries a limited number of facts.
const VARIABLES_MAX: usize = 10;
/// The steps of an attempt, in order.
const STEPS: [&str; 4] = ["inputs", "environment", "build", "outputs"];

/// Where an attempt ran.
pub(in crate::build) struct Place<'a> {
    pub(in crate::build) variation: &'a Variation,
    pub(in crate::build) environment: &'a Environment,
    /// The variables that the kind of job sets itself.
    pub(in crate::build) variables: &'a [(String, String)],
    /// The folder of all attempts.
    pub(in crate::build) attempts: &'a Path,
    /// How long inputs, environment, build and outputs took.
    pub(in crate::build) steps: [Duration; 4],
}

/// Gives the table of an attempt.
pub(in crate::build) fn table(
    arch: Arch,
    place: &Place<'_>,
    (ran, lint): (&Ran, &Lint),
    started: Timestamp,
) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        let value: String = value.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
        let value = value[..value.len().min(VALUE_MAX)].trim().to_owned();
        if !value.is_empty() {
            table.insert(key.to_owned(), value);
        }
    };
    put("arch", arch.to_string());
    profile(place.variation, started, &mut put);
    for (key, value) in place.variables.iter().take(VARIABLES_MAX) {
        put(key, value.clone());
    }
    for (number, (name, took)) in STEPS.iter().zip(place.steps).enumerate() {
        put(&format!("step_{}_{name}", number + 1), format!("{:.1}", took.as_secs_f64()));
    }
    machine(place, &mut put);
    if let Some(cpu) = ran.cpu {
        put("cpu_seconds", format!("{:.1}", cpu.as_secs_f64()));
    }
    if let Some(bytes) = ran.memory_peak {
        put("memory_peak_mib", bytes.div_ceil(1 << 20).to_string());
    }
    if let Some(summary) = lint.summary() {
        put("lint", summary);
    }
    put("environment_tree", place.environment.tree.clone());
    table
}

/// What the profile made of the circumstances.
fn profile(v: &Variation, started: Timestamp, put: &mut impl FnMut(&str, String)) {
    v.table().into_iter().for_each(|(key, value)| put(&key, value));
    let seconds = i64::try_from(started.as_secs() + v.shift_secs).unwrap_or(i64::MAX);
    put("date", jiff::Timestamp::from_second(seconds).map(|date| date.to_string()).unwrap_or_default());
    put("kernel", kernel(v.system.kernel));
}

/// What no profile can change.
fn machine(place: &Place<'_>, put: &mut impl FnMut(&str, String)) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    put("cpu_model", of("model name").or_else(|| of("CPU part")).unwrap_or_else(|| "unknown".into()));
    put("cpu_vendor", of("vendor_id").or_else(|| of("CPU implementer")).unwrap_or_default());
    let mut flags: Vec<_> =
        of("flags").or_else(|| of("Features")).unwrap_or_default().split(' ').map(str::to_owned).collect();
    flags.sort();
    let digest = Hash::of(flags.join(" ").as_bytes());
    put("cpu_flags", format!("{} flags, {}", flags.len(), digest.short()));
    let known: Vec<_> = FEATURES.iter().copied().filter(|name| flags.iter().any(|flag| flag == name)).collect();
    put("cpu_features", known.join(" "));
    put("cpus_of_machine", super::sandbox::allowed_cpus().len().to_string());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    put("memory_mib_of_machine", kib.map_or_else(String::new, |kib| (kib / 1024).to_string()));
    put("filesystem", filesystem(place.attempts));
    let root = &place.environment.root;
    let own = within::link(root, "bin", "sh").unwrap_or_default();
    put("sh", if place.variation.system.sh == Sh::Bash { "bash".into() } else { own });
    put("usrmerge", if root.join("bin").is_symlink() { "yes".into() } else { "no".into() });
}

/// Gives the kernel's version as the build sees it: with the old personality Linux tells 2.6.(60 + its second number).
fn kernel(kernel: Kernel) -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match kernel {
        Kernel::Own => release,
        Kernel::Old => old(&release),
    }
}

fn old(release: &str) -> String {
    let minor = release.split('.').nth(1).and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    let mut dots = 0;
    let rest = release.find(|c: char| {
        dots += u32::from(c == '.');
        dots >= 3 || !(c == '.' || c.is_ascii_digit())
    });
    format!("2.6.{}{}", minor + 60, &release[rest.unwrap_or(release.len())..])
}

/// Names the file system that a folder lies on.
fn filesystem(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = |line: &str| {
        let mut fields = line.split(' ').skip(1).map(str::to_owned);
        Some((fields.next()?, fields.next()?))
    };
    let above = mounts.lines().filter_map(fields).filter(|(point, _)| folder.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_version_is_what_the_kernel_tells() {
        assert_eq!(old("6.18.44-fc-v669"), "2.6.78-fc-v669");
        assert_eq!(old("6.1.0-32-amd64"), "2.6.61-32-amd64");
        let said = std::process::Command::new("setarch").args(["--uname-2.6", "uname", "-r"]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), kernel(Kernel::Old));
    }

    #[test]
    fn a_folder_has_a_file_system() {
        assert_eq!(filesystem(Path::new("/proc/self")), "proc");
        assert!(!filesystem(Path::new("/")).is_empty());
    }
}
