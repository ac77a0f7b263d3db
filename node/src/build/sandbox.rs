//! One command in one sandbox, from start to the last process gone.
//!
//! ```text
//! daemon -> sh (enters cgroups) = setpriv (leaves root) = unshare        `=` is exec, the same process
//!             `- sh: pid 1 of the namespaces, root of the mapped range: overlay, limits, watchers
//!                  |- cat: ends when the daemon ends, then kills everything
//!                  |- du: says how much disk is used, every second
//!                  `- bwrap: mounts, network, ipc, uts, pid namespaces
//!                       `- setpriv (becomes the build user, without any capability) = sh = the build
//! ```
//!
//! The build's output comes through stdout; stderr, which the build never gets, carries what the helpers say. When pid 1
//! ends the kernel kills the rest, and `unshare` ends only after that: when it was waited for, nothing is left.
//!
//! This module knows no job: what to run comes as a [`Plan`].

pub(in crate::build) mod cgroup;
pub(in crate::build) mod outputs;
pub(in crate::build) mod rig;
pub(in crate::build) mod rights;
pub(in crate::build) mod watch;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use protocol::job::BuildLimits;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    cgroup::{Controller, Group},
    rig::Rig,
    rights::Rights,
    watch::Usage,
};
use super::{
    log::{LogError, LogSink, Phase},
    vary::{Kernel, Sh, Variation},
};

/// How often limits are checked.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// How long a killed tree may take to end before its first process is killed too.
const END_WITHIN: Duration = Duration::from_millis(1500);
/// What the helpers may say; more is not kept.
const SAID_MAX: usize = 8 * 1024;
const MIB: u64 = 1024 * 1024;
/// The unit in which Linux tells processes' times to programs (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Files of the smallest size take one block each: so many of them fill a MiB.
const INODES_PER_MIB: u64 = 256;
const NAMESPACE: &str = include_str!("sandbox/namespace.sh");

/// A limit that an attempt broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Breach {
    /// More memory than asked for.
    Memory,
    /// More processes.
    Pids,
    /// More disk.
    Disk,
    /// More files than the disk limit has blocks for.
    Inodes,
    /// A longer log.
    Log,
    /// More time.
    Wall,
    /// More time without output.
    Silence,
}

impl Breach {
    /// Names the limit for people.
    pub(in crate::build) fn words(self, limits: &BuildLimits) -> String {
        match self {
            Breach::Memory => format!("memory limit of {} MiB reached", limits.memory_mib),
            Breach::Pids => format!("process limit of {} reached", limits.pids),
            Breach::Disk => format!("disk limit of {} MiB reached", limits.disk_mib),
            Breach::Inodes => {
                format!("file count limit of {} reached", u64::from(limits.disk_mib) * INODES_PER_MIB)
            }
            Breach::Log => format!("log limit of {} KiB reached", limits.log_kib),
            Breach::Wall => format!("time limit of {} s reached", limits.wall_secs),
            Breach::Silence => format!("no output for {} s", limits.silence_secs),
        }
    }
}

/// What to run.
#[derive(Debug)]
pub(in crate::build) struct Plan<'a> {
    /// The attempt's folder; `upper` in it holds the build directory already.
    pub(in crate::build) folder: &'a Path,
    /// The environment's root folder.
    pub(in crate::build) environment: &'a Path,
    /// The circumstances.
    pub(in crate::build) variation: &'a Variation,
    /// What may be used.
    pub(in crate::build) limits: &'a BuildLimits,
    /// More environment variables.
    pub(in crate::build) variables: Vec<(String, String)>,
    /// What the script may do.
    pub(in crate::build) rights: Rights,
    /// What `sh` runs in the build directory.
    pub(in crate::build) script: String,
    /// The script's arguments.
    pub(in crate::build) arguments: Vec<String>,
    /// The attempt's name among control groups.
    pub(in crate::build) name: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Ending {
    /// By itself.
    Exited(i32),
    /// Killed for a broken limit.
    Broke(Breach),
    /// Killed on request.
    Cancelled,
}

/// What a run used.
#[derive(Debug, Clone, Copy)]
pub(in crate::build) struct Ran {
    /// How it ended.
    pub(in crate::build) ending: Ending,
    /// CPU time, where it is known.
    pub(in crate::build) cpu: Option<Duration>,
    /// The most memory at one time, in bytes, where it is known.
    pub(in crate::build) memory_peak: Option<u64>,
}

/// What stands in an attempt's folder so that a later daemon can clean up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::build) struct Trace {
    /// The first process and its start time in ticks since boot, once it runs.
    pub(in crate::build) process: Option<(u32, u64)>,
    /// The attempt's control groups.
    pub(in crate::build) groups: Vec<PathBuf>,
}

impl Trace {
    pub(in crate::build) const FILE: &'static str = "trace.json";

    fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        std::fs::write(folder.join(Self::FILE), bytes)
    }
}

/// Why a sandbox did not run: the builder's fault, unless the build got out of it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The attempt's folder cannot be laid out.
    #[error("cannot lay out the attempt's folder")]
    Prepare(#[source] io::Error),
    /// Control groups cannot be made.
    #[error("cannot make control groups")]
    Group(#[source] io::Error),
    /// The first process cannot be started or recorded.
    #[error("cannot start the sandbox")]
    Spawn(#[source] io::Error),
    /// A helper failed before the build's command ran.
    #[error("the sandbox did not start: {said}")]
    Start {
        /// What the helpers said.
        said: String,
    },
    /// The output cannot be read or kept.
    #[error("cannot keep the log")]
    Log(#[source] LogError),
    /// The sandbox cannot be waited for.
    #[error("cannot wait for the sandbox")]
    Wait(#[source] io::Error),
    /// Processes of the build live on though its namespaces are gone: it got out.
    #[error("{count} processes of the build outlived its sandbox")]
    Outlived {
        /// How many.
        count: usize,
    },
}

/// Runs a plan until everything of it is gone. When the future is dropped, the whole tree is killed.
///
/// # Errors
/// [`SandboxError`] when the build's own command never ran.
pub(in crate::build) async fn run(
    rig: &Rig,
    plan: &Plan<'_>,
    log: &LogSink,
    stop: &CancellationToken,
) -> Result<Ran, SandboxError> {
    prepare(rig, plan).map_err(SandboxError::Prepare)?;
    let group = rig.cgroups().make(&plan.name, plan.limits).map_err(SandboxError::Group)?;
    let mut trace = Trace { process: None, groups: group.folders() };
    trace.write(plan.folder).map_err(SandboxError::Spawn)?;
    let mut command = rig.command(&group.folders(), &["--uts"], NAMESPACE);
    command.args(namespace_arguments(rig, plan)).args(inner_command(&group, plan));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(SandboxError::Spawn)?;
    drop(command);
    let mut running = Running::new(child, group, *plan.limits, log.clone());
    trace.process = watch::started(running.pid).map(|started| (running.pid, started));
    trace.write(plan.folder).map_err(SandboxError::Spawn)?;
    let ending = running.until_end(stop).await?;
    running.kill().await?;
    running.nothing_is_left().await?;
    running.finish(ending).await
}

fn namespace_arguments(rig: &Rig, plan: &Plan<'_>) -> Vec<String> {
    let v = plan.variation;
    let modes = match rig.account() {
        rig::Account::Own => "readable",
        rig::Account::Dedicated { .. } => "as-is",
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let domain = v.domain.clone();
    vec![text(plan.folder), text(plan.environment), v.place.clone(), v.uid.to_string(), modes.to_owned(), domain]
}

/// Lays out the overlay's upper folder: names for the build user and the host, and a home.
fn prepare(rig: &Rig, plan: &Plan<'_>) -> io::Result<()> {
    let v = plan.variation;
    let upper = plan.folder.join("upper");
    let folders = [plan.folder.join("work"), plan.folder.join("merged"), upper.join("etc"), upper.join("build/home")];
    folders.iter().try_for_each(|folder| rig.make_folder(folder))?;
    vary_system(rig, v, &upper)?;
    let with = |name: &str, line: String| {
        let known = std::fs::read_to_string(plan.environment.join("etc").join(name)).unwrap_or_default();
        (name.to_owned(), known + &line)
    };
    let files = [
        with("passwd", passwd_line(v)),
        with("group", format!("{}:x:{}:\n", v.user, v.uid)),
        ("hostname".to_owned(), format!("{}\n", v.hostname)),
        (
            "hosts".to_owned(),
            format!("127.0.0.1 localhost\n127.0.1.1 {0}.{1} {0}\n::1 localhost\n", v.hostname, v.domain),
        ),
    ];
    files.iter().try_for_each(|(name, text)| {
        let path = upper.join("etc").join(name);
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

fn inner_command(group: &Group, plan: &Plan<'_>) -> Vec<String> {
    let v = plan.variation;
    // Where a group limits processes it also tells; the resource limit then only stands behind it.
    let spare = if group.limits(Controller::Pids) { 64 } else { 0 };
    let processes = plan.limits.pids.saturating_add(spare);
    let shm = (u64::from(plan.limits.memory_mib) * MIB / 4).max(MIB);
    let mut words = format!("prlimit --core=0 --nproc={processes}:{processes} ");
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
         --new-session --cap-add ALL --clearenv",
    );
    let mut command: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let root = plan.folder.join("merged").to_string_lossy().into_owned();
    command.extend(["--bind".into(), root]);
    let mounts = format!(
        "/ --proc /proc --dev /dev --perms 1777 --size {shm} --tmpfs /dev/shm --perms 0755 --size {} --tmpfs /run \
         --hostname {} --chdir {}",
        16 * MIB,
        v.hostname,
        v.place
    );
    command.extend(mounts.split_whitespace().map(str::to_owned));
    command.extend(plan.rights.mounts(&plan.folder.join("merged"), &v.place));
    for (key, value) in v.variables.iter().chain(&plan.variables) {
        command.extend(["--setenv".into(), key.clone(), value.clone()]);
    }
    command.extend(plan.rights.enter(v.uid).split_whitespace().map(str::to_owned));
    command.push(format!("printf 'artel:started\\n' >&2; exec 2>&1 </dev/null; umask {}\n{}", v.umask, plan.script));
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

struct Running {
    child: Child,
    /// Open for as long as this process lives; its end is the sandbox's signal to die.
    lifeline: Option<ChildStdin>,
    output: ChildStdout,
    control: Lines<BufReader<ChildStderr>>,
    pid: u32,
    group: Group,
    limits: BuildLimits,
    log: LogSink,
    clock: Clock,
    peak: Usage,
    said: String,
}

struct Clock {
    begun: Instant,
    /// When the build's own command started.
    started: Option<Instant>,
    output: Instant,
}

impl Running {
    fn new(mut child: Child, group: Group, limits: BuildLimits, log: LogSink) -> Self {
        let now = Instant::now();
        Self {
            lifeline: child.stdin.take(),
            output: child.stdout.take().expect("stdout is a pipe"),
            control: BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines(),
            pid: child.id().expect("a child that was not waited for has a number"),
            child,
            group,
            limits,
            log,
            clock: Clock { begun: now, started: None, output: now },
            peak: Usage::default(),
            said: String::new(),
        }
    }

    async fn until_end(&mut self, stop: &CancellationToken) -> Result<Ending, SandboxError> {
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; 64 * 1024];
        let (mut output_open, mut control_open) = (true, true);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ending::Cancelled),
                _ = check.tick() => if let Some(breach) = self.check() { return Ok(Ending::Broke(breach)) },
                line = self.control.next_line(), if control_open => match line {
                    Ok(Some(line)) => if let Some(breach) = self.hear(&line) { return Ok(Ending::Broke(breach)) },
                    Ok(None) | Err(_) => control_open = false,
                },
                read = self.output.read(&mut buffer), if output_open => match read {
                    Ok(0) | Err(_) => output_open = false,
                    Ok(count) => if let Some(breach) = self.keep(&buffer[..count])? {
                        return Ok(Ending::Broke(breach));
                    },
                },
                status = self.child.wait() => return Ok(Ending::Exited(code(status.map_err(SandboxError::Wait)?))),
            }
        }
    }

    /// Takes a piece of the build's output.
    fn keep(&mut self, bytes: &[u8]) -> Result<Option<Breach>, SandboxError> {
        self.clock.output = Instant::now();
        let room = (u64::from(self.limits.log_kib) * 1024).saturating_sub(self.log.progress().borrow().bytes);
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        match self.log.append(&bytes[..fits]) {
            Ok(()) => Ok((fits < bytes.len()).then_some(Breach::Log)),
            Err(LogError::Full { .. }) => Ok(Some(Breach::Log)),
            Err(error @ LogError::Write { .. }) => Err(SandboxError::Log(error)),
        }
    }

    /// Takes a line of the helpers.
    fn hear(&mut self, line: &str) -> Option<Breach> {
        let Some(word) = line.strip_prefix("artel:") else {
            if self.said.len() + line.len() < SAID_MAX {
                self.said.push_str(line);
                self.said.push('\n');
            }
            return None;
        };
        if word == "started" {
            let now = Instant::now();
            self.clock.started = Some(now);
            self.clock.output = now;
            self.log.enter(Phase::Build);
            return None;
        }
        let mut numbers = word.split(' ').skip(1).map(|number| number.parse::<u64>().unwrap_or(0));
        let (kib, inodes) = (numbers.next()?, numbers.next()?);
        let disk = u64::from(self.limits.disk_mib);
        if kib > disk * 1024 {
            return Some(Breach::Disk);
        }
        (inodes > disk * INODES_PER_MIB).then_some(Breach::Inodes)
    }

    fn check(&mut self) -> Option<Breach> {
        if self.clock.begun.elapsed() > self.limits.wall() {
            return Some(Breach::Wall);
        }
        if self.clock.output.elapsed() > self.limits.silence() {
            return Some(Breach::Silence);
        }
        if let Some(breach) = self.group.breach() {
            return Some(breach);
        }
        if self.group.limits(Controller::Memory) && self.group.limits(Controller::Pids) {
            return None;
        }
        let now = watch::usage(self.pid);
        self.peak.memory = self.peak.memory.max(now.memory);
        self.peak.ticks = self.peak.ticks.max(now.ticks);
        if now.memory > u64::from(self.limits.memory_mib) * MIB {
            return Some(Breach::Memory);
        }
        (now.threads >= u64::from(self.limits.pids)).then_some(Breach::Pids)
    }

    /// Ends everything, and waits until it is gone.
    async fn kill(&mut self) -> Result<(), SandboxError> {
        self.lifeline.take();
        let below = watch::children(self.pid);
        if below.is_empty() {
            // Nothing below: it ended, or it has not come as far.
            self.child.start_kill().ok();
        }
        for pid in below.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // A process that ended meanwhile is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await.map_err(SandboxError::Wait)?;
        }
        Ok(())
    }

    /// The first process was waited for, so the kernel has killed all that was in its namespaces. Whoever is still in the
    /// control groups after a while got out of them; dropping the groups kills it.
    async fn nothing_is_left(&self) -> Result<(), SandboxError> {
        let begun = Instant::now();
        loop {
            match self.group.members().len() {
                0 => return Ok(()),
                count if begun.elapsed() > END_WITHIN => return Err(SandboxError::Outlived { count }),
                _ => tokio::time::sleep(CHECK_EVERY / 20).await,
            }
        }
    }

    async fn finish(mut self, ending: Ending) -> Result<Ran, SandboxError> {
        let mut ending = ending;
        if let Ending::Exited(_) = ending {
            ending = self.drain().await?.map_or(ending, Ending::Broke);
            ending = self.group.breach().map_or(ending, Ending::Broke);
        }
        if self.clock.started.is_none() && matches!(ending, Ending::Exited(_)) {
            return Err(SandboxError::Start { said: self.said.trim().to_owned() });
        }
        let ticks = Duration::from_secs_f64(self.peak.ticks as f64 / TICKS_PER_SECOND);
        let (cpu, memory) = (self.group.cpu(), self.group.memory_peak());
        Ok(Ran {
            ending,
            cpu: cpu.or((self.peak.ticks > 0).then_some(ticks)),
            memory_peak: memory.or((self.peak.memory > 0).then_some(self.peak.memory)),
        })
    }

    /// Reads what is left in the pipes of a tree that is gone.
    async fn drain(&mut self) -> Result<Option<Breach>, SandboxError> {
        while let Ok(Some(line)) = self.control.next_line().await {
            if let Some(breach) = self.hear(&line) {
                return Ok(Some(breach));
            }
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.output.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => {
                    if let Some(breach) = self.keep(&buffer[..count])? {
                        return Ok(Some(breach));
                    }
                }
            }
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
