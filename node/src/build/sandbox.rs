//! One command in one sandbox, from start to the last process gone.
//!
//! ```text
//! daemon -> bash (closes descriptors, enters cgroups) = setpriv (leaves root) = unshare        `=` is exec, the same process
//!             `- sh: pid 1 of the namespaces, root of the mapped range: overlay, limits, watchers
//!                  |- cat: ends when the daemon ends, then kills everything; passes on what the daemon asks
//!                  |- sh, du: says how much disk is used, when it is asked
//!                  `- bwrap: mounts, network, ipc, uts, pid namespaces
//!                       `- enter: pid 1 of the sandbox, without any capability; waits
//!                            `- enter (becomes the build user, without any capability) = sh = the build
//! ```
//!
//! Everything up to `enter` is this machine's own, and `enter` is linked statically: nothing of the environment runs before the
//! rights are gone. The build's output comes through stdout; stderr, which it never gets, carries what the helpers say. When pid 1
//! ends the kernel kills the rest, and `unshare` ends only after that: when it was waited for, nothing is left.
//!
//! This module knows no job: what to run comes as a [`Plan`].

mod base;
pub(in crate::build) mod cgroup;
mod disk;
mod layout;
pub(in crate::build) mod outputs;
mod proc;
pub(in crate::build) mod rig;
pub(in crate::build) mod rights;
mod seccomp;
pub(in crate::build) mod trace;
pub(in crate::build) mod watch;
pub(in crate::build) mod within;

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use protocol::job::BuildLimits;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

pub(in crate::build) use self::{base::Base, layout::allowed_cpus};
use self::{
    cgroup::{Controller, Group, Killed},
    disk::Disk,
    outputs::OutputError,
    rig::Rig,
    rights::Rights,
    trace::Trace,
    watch::Usage,
};
use super::{
    log::{LogError, LogSink, Phase},
    vary::Variation,
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
    /// More than the disk limit is gone from the disk, and the attempt keeps files that cannot be measured.
    Hidden,
    /// More files than the disk limit has blocks for.
    Inodes,
    /// A longer log.
    Log,
    /// The sandbox did not start in time, which is the builder's fault.
    Start,
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
            Breach::Hidden => format!(
                "more than its disk limit of {} MiB is gone from this disk, and not all of its files can be measured",
                limits.disk_mib
            ),
            Breach::Inodes => {
                format!("file count limit of {} reached", u64::from(limits.disk_mib) * INODES_PER_MIB)
            }
            Breach::Log => format!("log limit of {} KiB reached", limits.log_kib),
            Breach::Start => "the sandbox did not start in time".to_owned(),
            Breach::Wall => format!("time limit of {} s reached", limits.wall_secs),
            Breach::Silence => format!("no output for {} s", limits.silence_secs),
        }
    }
}

/// Whom a script reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Network {
    /// Nobody but itself.
    None,
    /// A socket in the attempt's folder [`Network::FOLDER`], with whoever serves it.
    Gate,
}

impl Network {
    /// The folder with the socket; the script finds it below `/run`.
    pub(in crate::build) const FOLDER: &'static str = "gate";
}

/// What to run.
#[derive(Debug)]
pub(in crate::build) struct Plan<'a> {
    /// The attempt's folder; `upper` in it holds the build directory already.
    pub(in crate::build) folder: &'a Path,
    /// What lies below everything else in its root file system.
    pub(in crate::build) base: Base<'a>,
    /// The circumstances.
    pub(in crate::build) variation: &'a Variation,
    /// What may be used.
    pub(in crate::build) limits: &'a BuildLimits,
    /// How long the sandbox may take to start.
    pub(in crate::build) start: Duration,
    /// More environment variables.
    pub(in crate::build) variables: Vec<(String, String)>,
    /// What the script may do.
    pub(in crate::build) rights: Rights,
    /// Whom the script reaches.
    pub(in crate::build) network: Network,
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
    /// What the kernel killed in it for want of memory, where that is known.
    pub(in crate::build) killed: Option<Killed>,
    /// CPU time, where it is known.
    pub(in crate::build) cpu: Option<Duration>,
    /// The most memory at one time, in bytes, where it is known.
    pub(in crate::build) memory_peak: Option<u64>,
}

/// Why a sandbox did not run: the builder's fault, unless the build got out of it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The attempt's folder cannot be laid out.
    #[error("cannot lay out the attempt's folder")]
    Prepare(#[source] io::Error),
    /// The environment's root folder has something else where its list of users or groups belongs.
    #[error("the environment's root folder")]
    Root(#[source] OutputError),
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

/// Names the control groups of what runs in a folder: several workshops of one machine must not meet in one group.
pub(in crate::build) fn name(folder: &Path) -> String {
    format!("artel-{}", protocol::Hash::of(folder.as_os_str().as_encoded_bytes()).short())
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
    layout::prepare(rig, plan)?;
    let group = rig.cgroups().make(&plan.name, plan.limits).map_err(SandboxError::Group)?;
    let mut trace = Trace { process: None, groups: group.folders() };
    trace.write(plan.folder).map_err(SandboxError::Spawn)?;
    let mut command = rig.command(&group.folders(), &["--uts"], NAMESPACE);
    command.args(layout::namespace_arguments(rig, plan)).args(layout::inner_command(&group, plan));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(SandboxError::Spawn)?;
    drop(command);
    let mut running = Running::new(child, group, plan, log.clone());
    trace.process = watch::started(running.pid).map(|started| (running.pid, started));
    trace.write(plan.folder).map_err(SandboxError::Spawn)?;
    let ending = running.until_end(stop).await?;
    running.kill().await?;
    running.nothing_is_left().await?;
    let ran = running.finish(ending).await?;
    if let Ending::Broke(breach @ (Breach::Disk | Breach::Inodes)) = ran.ending {
        let used = rig.disk_used(&plan.folder.join("upper")).unwrap_or_else(|error| error.to_string());
        log.note(&format!("{}; used when it was stopped: {used}", breach.words(plan.limits)));
    }
    Ok(ran)
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
    start: Duration,
    log: LogSink,
    clock: Clock,
    disk: Disk,
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
    fn new(mut child: Child, group: Group, plan: &Plan<'_>, log: LogSink) -> Self {
        let now = Instant::now();
        Self {
            lifeline: child.stdin.take(),
            output: child.stdout.take().expect("stdout is a pipe"),
            control: BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines(),
            pid: child.id().expect("a child that was not waited for has a number"),
            child,
            group,
            limits: *plan.limits,
            start: plan.start,
            log,
            clock: Clock { begun: now, started: None, output: now },
            disk: Disk::new(&plan.folder.join("upper"), plan.limits),
            peak: Usage::default(),
            said: String::new(),
        }
    }

    async fn until_end(&mut self, stop: &CancellationToken) -> Result<Ending, SandboxError> {
        let mut check = interval(CHECK_EVERY);
        let mut look = interval(disk::LOOK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; 64 * 1024];
        let (mut output_open, mut control_open) = (true, true);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ending::Cancelled),
                _ = check.tick() => if let Some(breach) = self.check() { return Ok(Ending::Broke(breach)) },
                _ = look.tick() => self.ask().await,
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

    /// Asks the helper for a count of the disk when it is time. At most one line is on its way, so this never waits.
    async fn ask(&mut self) {
        if let Some(lifeline) = self.lifeline.as_mut().filter(|_| self.disk.is_due()) {
            // A helper that is gone is seen by its end.
            let _ = lifeline.write_all(b"\n").await;
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
            return (self.clock.begun.elapsed() > self.start).then_some(Breach::Start);
        }
        self.disk.counted(word.strip_prefix("disk ")?)
    }

    fn check(&mut self) -> Option<Breach> {
        match self.clock.started {
            None if self.clock.begun.elapsed() > self.start => return Some(Breach::Start),
            Some(started) if started.elapsed() > self.limits.wall() => return Some(Breach::Wall),
            None | Some(_) => {}
        }
        if self.clock.started.is_some() && self.clock.output.elapsed() > self.limits.silence() {
            return Some(Breach::Silence);
        }
        if let Some(breach) = self.group.breach() {
            return Some(breach);
        }
        if self.disk.is_overdue() {
            return Some(Breach::Hidden);
        }
        // What others write there, the gate of a fetch for instance, is the build's as well.
        if self.log.progress().borrow().bytes > u64::from(self.limits.log_kib) * 1024 {
            return Some(Breach::Log);
        }
        if self.group.limits(Controller::Memory) && self.group.limits(Controller::Pids) {
            return None;
        }
        let mut now = watch::usage(self.pid);
        if now.memory > u64::from(self.limits.memory_mib) * MIB {
            // Processes share pages, and each was asked for itself.
            now.memory = watch::shared_memory(self.pid);
        }
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
            killed: self.group.killed(),
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
