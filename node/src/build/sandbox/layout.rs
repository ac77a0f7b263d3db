//! What stands in an attempt's folder before its sandbox starts, and the words of the command that starts it.
//!
//! ```text
//! filter       the system calls that are allowed, for bubblewrap
//! refused      those that look unsupported
//! enter        the program that gives up every right and becomes the build
//! ask          a pipe: each line in it asks the helper for a count of the disk
//! environment  -> the lowest layer: a link, because mount options, which a build can read, hold its name only
//! upper/       what the build sees changed: its user, its host's name, its home, /proc's constant files
//! work merged  the overlay's
//! ```
//! Nothing here follows a link that a package of the environment put there: its lists of users and groups are opened below its
//! root without following any. `/etc`, `/dev`, `/proc`, `/run` and `/build` exist in `upper`, where they hide what the
//! environment has in place of them; other folders of it are as they are.

use std::{io, os::unix::fs::PermissionsExt, path::Path};

use rustix::fs::{FileType, Mode};

use super::{
    MIB, Network, Plan, SandboxError,
    cgroup::{Controller, Group},
    outputs::{Leftovers, OutputError},
    proc,
    rig::{Account, Rig},
    rights::Rights,
};
use crate::build::vary::{Kernel, Sh, Variation};

/// The largest list of users or groups that is read from an environment, in bytes.
const NAMES_MAX: u64 = 1 << 20;
/// The build's root file system, seen from the attempt's folder: a path of the machine would stand in bubblewrap's own
/// command line, which a build can read.
const ROOT: &str = "merged";
/// The last step into a sandbox, linked statically; the build script compiles it from `enter.c`.
const ENTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/enter"));

/// Lays out the folder: names for the build user and the host, a home, and the filter of system calls.
pub(super) fn prepare(rig: &Rig, plan: &Plan<'_>) -> Result<(), SandboxError> {
    let base = plan.base.lay_out(rig, plan.folder).map_err(SandboxError::Prepare)?;
    std::os::unix::fs::symlink(&base, plan.folder.join("environment")).map_err(SandboxError::Prepare)?;
    let names = ["passwd", "group"].map(|name| names(&base, name));
    let [passwd, group] = names;
    let (passwd, group) = (passwd?, group?);
    lay_out(rig, plan, passwd, group).map_err(SandboxError::Prepare)
}

/// Reads a list of names that an environment may have.
fn names(environment: &Path, name: &str) -> Result<String, SandboxError> {
    let root = Leftovers::open(environment, NAMES_MAX).map_err(SandboxError::Prepare)?;
    let name = format!("etc/{name}").parse().expect("the names are fixed");
    match root.read_text(&name, NAMES_MAX) {
        Err(OutputError::Missing { .. }) => Ok(String::new()),
        other => other.map_err(SandboxError::Root),
    }
}

fn lay_out(rig: &Rig, plan: &Plan<'_>, passwd: String, group: String) -> io::Result<()> {
    let v = plan.variation;
    let upper = plan.folder.join("upper");
    let inside = ["etc", "build/home", "dev", "proc", "run", proc::FOLDER].map(|name| upper.join(name));
    let beside = ["work", ROOT].map(|name| plan.folder.join(name));
    inside.iter().chain(&beside).try_for_each(|folder| rig.make_folder(folder))?;
    vary_system(rig, v, &upper)?;
    for (name, filter) in ["filter", "refused"].iter().zip(rig.filters()) {
        std::fs::write(plan.folder.join(name), filter)?;
    }
    std::fs::write(plan.folder.join("enter"), ENTER)?;
    std::fs::set_permissions(plan.folder.join("enter"), std::fs::Permissions::from_mode(0o555))?;
    let ask = plan.folder.join("ask");
    rustix::fs::mknodat(rustix::fs::CWD, &ask, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    rig.give(&ask)?;
    // A build may leave programs that run as their owner: nobody else on this machine gets to them.
    std::fs::set_permissions(plan.folder, std::fs::Permissions::from_mode(0o700))?;
    let etc = |name: &str, text: String| (format!("etc/{name}"), text);
    let own = [
        etc("passwd", passwd + &passwd_line(v)),
        etc("group", format!("{group}{}:x:{}:\n", v.user, v.uid)),
        etc("hostname", format!("{}\n", v.hostname)),
        etc("hosts", format!("127.0.0.1 localhost\n127.0.1.1 {0}.{1} {0}\n::1 localhost\n", v.hostname, v.domain)),
    ];
    let machine = proc::files(plan.limits.memory_mib, v.cpus);
    let machine = machine.map(|(file, text)| (format!("{}/{file}", proc::FOLDER), text));
    own.into_iter().chain(machine).try_for_each(|(name, text)| {
        let path = upper.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
        rig.give(&path)
    })
}

fn passwd_line(v: &Variation) -> String {
    let (user, uid, system) = (&v.user, v.uid, &v.system);
    format!("{user}:x:{uid}:{uid}:{}:/nonexistent/{user}:{}\n", system.gecos, system.login_shell)
}

/// Lays out what a profile changes of the system: another `sh`, and a folder into which the build user compiles a locale.
fn vary_system(rig: &Rig, v: &Variation, upper: &Path) -> io::Result<()> {
    let below = |parts: &[&str]| {
        let folders = parts.iter().scan(upper.to_owned(), |folder, part| {
            folder.push(part);
            Some(folder.clone())
        });
        folders.into_iter().try_for_each(|folder| rig.make_folder(&folder))
    };
    if let Some(locale) = v.system.locale {
        below(&["usr", "lib", "locale", &format!("{locale}.UTF-8")])?;
    }
    if v.system.sh == Sh::Bash {
        below(&["usr", "bin"])?;
        let sh = upper.join("usr/bin/sh");
        std::os::unix::fs::symlink("bash", &sh)?;
        rig.give(&sh)?;
    }
    Ok(())
}

/// Gives the arguments of the namespaces' first process, but for those that [`inner_command`] begins with.
pub(super) fn namespace_arguments(rig: &Rig, plan: &Plan<'_>) -> Vec<String> {
    let v = plan.variation;
    let modes = match (rig.account(), plan.rights) {
        (Account::Own, Rights::Builder) => "readable",
        // What an installation makes belongs to the account already; and it could put a link where the folder was.
        (Account::Own, Rights::Installer) | (Account::Dedicated { .. }, _) => "as-is",
    };
    vec![plan.folder.to_string_lossy().into_owned(), v.place.clone(), v.uid.to_string(), modes.to_owned()]
}

/// Gives how many processes the build may have, its domain, and the command that enters the sandbox and becomes the build.
pub(super) fn inner_command(group: &Group, plan: &Plan<'_>) -> Vec<String> {
    let v = plan.variation;
    // Where a group limits processes it also tells; the resource limit then only stands behind it.
    // An installation shares the resource limit with all that the account runs.
    let shares = group.limits(Controller::Pids) || plan.rights == Rights::Installer;
    let spare = if shares { 64 } else { 0 };
    let processes = plan.limits.pids.saturating_add(spare);
    let shm = (u64::from(plan.limits.memory_mib) * MIB / 4).max(MIB);
    let mut words = format!("{processes} {} ", v.domain);
    if v.nice > 0 {
        words.push_str(&format!("nice -n {} ", v.nice));
    }
    if v.system.kernel == Kernel::Old {
        words.push_str("setarch --uname-2.6 ");
    }
    let allowed = allowed_cpus();
    if (v.cpus as usize) < allowed.len() {
        words.push_str(&format!("taskset -c {} ", affinity(&allowed, v.cpus, &plan.name)));
    }
    words.push_str(
        "bwrap --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try --die-with-parent \
         --new-session --as-pid-1 --cap-add ALL --clearenv --add-seccomp-fd 4 --add-seccomp-fd 6",
    );
    let mut command: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    command.extend(["--bind", ROOT, "/"].map(str::to_owned));
    command.extend(plan.base.mounts());
    command.extend(["--proc", "/proc"].map(str::to_owned));
    let mounts = format!(
        "--dev /dev --perms 1777 --size {shm} --tmpfs /dev/shm --perms 0755 --size {} --tmpfs /run --hostname {} \
         --chdir {}",
        16 * MIB,
        v.hostname,
        v.place
    );
    command.extend(mounts.split_whitespace().map(str::to_owned));
    if plan.network == Network::Gate {
        let inside = format!("/run/{}", Network::FOLDER);
        command.extend(["--ro-bind", Network::FOLDER, &inside].map(str::to_owned));
    }
    command.extend(plan.rights.mounts(Path::new(ROOT), &v.place));
    // Last: the kernel mounts no other /proc where all that are seen are covered in part.
    command.extend(plan.rights.processes(&v.place).iter().flat_map(|at| proc::mounts(ROOT, at)));
    for (key, value) in v.variables.iter().chain(&plan.variables) {
        command.extend(["--setenv".into(), key.clone(), value.clone()]);
    }
    // By its descriptor: the sandbox holds no file of ours that a build could find.
    command.push("/proc/self/fd/5".into());
    command.extend(plan.rights.keep(v.uid));
    command.extend([v.umask, "sh", "-c", &plan.script].map(str::to_owned));
    command.push("artel-build".into());
    command.extend(plan.arguments.iter().cloned());
    command
}

/// Gives the CPUs that this process may use.
pub(in crate::build) fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| rustix::thread::CpuSet::new());
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Gives as many of the allowed CPUs as wanted, as `taskset` writes them; which ones depends on the attempt's name, so that
/// attempts at the same time do not all meet on the first.
fn affinity(allowed: &[usize], wanted: u32, name: &str) -> String {
    let first = name.bytes().map(usize::from).sum::<usize>() % allowed.len().max(1);
    let chosen: Vec<_> = allowed.iter().cycle().skip(first).take(wanted as usize).map(usize::to_string).collect();
    chosen.join(",")
}
