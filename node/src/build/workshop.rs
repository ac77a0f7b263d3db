//! The workshop: where attempts are made, one folder each, and where what a crash left is cleaned up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use protocol::{
    Arch, Timestamp,
    blame::{Blame, Failure, Fault},
    environment::EnvironmentLock,
    job::{BuildLimits, Isolation, JobKind},
    lease::LeaseNumber,
    words::{HostRule, RelativePath},
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{
    Built, Error, LogSink, OutputError, OutputFile, Phase, Rig, RigConfig, Task, command, complaint, deb,
    environment::{Environment, Environments},
    fetch, image, info,
    inputs::{self, Placing, Wanted},
    lint::Lint,
    phases::{Patience, bounded},
    rpm,
    sandbox::{self, Base, Ending, Network, Plan, Ran, outputs::Leftovers, rights::Rights, trace},
    vary::{Variation, variation},
    verdict::{Host, judge},
};

/// Where a workshop keeps its things.
#[derive(Debug, Clone)]
pub struct Config {
    /// Attempts and their outputs: `attempts` and `outputs` below this folder. Nothing here survives a restart.
    pub state_dir: PathBuf,
    /// Environments: `environments` below this folder. Kept.
    pub cache_dir: PathBuf,
    /// What all environments together may take, in bytes; what is in use stays.
    pub environment_bytes_max: u64,
    /// How to find the sandbox's tools.
    pub rig: RigConfig,
    /// Tells the time.
    pub now: fn() -> Timestamp,
}

/// Why a workshop cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WorkshopError {
    /// The machine lacks something.
    #[error("this machine cannot build")]
    Rig(#[from] super::RigError),
    /// A folder cannot be used.
    #[error("cannot use the folder {folder}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The build user cannot get there.
    #[error("the build user cannot enter {folder}: choose another folder, or `chmod o+x` each folder above it")]
    Unreachable {
        /// The folder.
        folder: PathBuf,
    },
    /// The name has characters that mount options cannot carry.
    #[error("the folder {folder} must be absolute and named with A-Z a-z 0-9 . _ + - @ and / only")]
    Name {
        /// The folder.
        folder: PathBuf,
    },
}

/// Makes attempts.
#[derive(Debug)]
pub struct Workshop {
    rig: Arc<Rig>,
    attempts: PathBuf,
    outputs: PathBuf,
    environments: Environments,
    patience: Patience,
    now: fn() -> Timestamp,
    /// Whom fetches may reach.
    reach: Vec<HostRule>,
    /// The lightest isolation that is allowed.
    isolation: Isolation,
}

impl Workshop {
    /// Looks at the machine and makes the folders.
    ///
    /// # Errors
    /// [`WorkshopError`], which says what to do.
    pub fn open(config: Config) -> Result<Self, WorkshopError> {
        let rig = Arc::new(Rig::find(&config.rig)?);
        let attempts = make_folder(&rig, &config.state_dir, "attempts")?;
        let outputs = make_folder(&rig, &config.state_dir, "outputs")?;
        let environments = make_folder(&rig, &config.cache_dir, "environments")?;
        let environments = Environments::new(environments, config.environment_bytes_max, rig.clone(), config.now);
        Ok(Self {
            rig,
            attempts,
            outputs,
            environments,
            patience: Patience::default(),
            now: config.now,
            reach: Vec::new(),
            isolation: Isolation::Rootfs,
        })
    }

    /// Gives a workshop that fetches from these hosts; without, it refuses fetches.
    pub fn reaching(self, reach: Vec<HostRule>) -> Self {
        Self { reach, ..self }
    }

    /// Gives a workshop that allows an isolation as light as this; without, it refuses light commands.
    pub fn allowing(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// Gives a workshop that waits as long as a test wants.
    #[cfg(test)]
    pub(in crate::build) fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Gives a workshop whose installations may use as much as a test wants.
    #[cfg(test)]
    pub(in crate::build) fn installing_within(self, limits: BuildLimits) -> Self {
        Self { environments: self.environments.installing_within(limits), ..self }
    }

    /// Gives the rig, for what it says about this machine.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// Says whether a lock's environment is installed, so that its packages need not be fetched.
    pub fn has_environment(&self, id: &protocol::Hash) -> bool {
        self.environments.has(id)
    }

    /// Takes a root file system in a tar file as the environment of a lock's id. Nothing is checked against the lock:
    /// for tests, and for an operator who vouches for an image.
    ///
    /// # Errors
    /// [`Error::Environment`].
    pub async fn adopt_environment(&self, id: protocol::Hash, tar: &Path) -> Result<(), Error> {
        self.environments.adopt(id, tar).await.map_err(Error::Environment)
    }

    /// Cleans up after a daemon that was killed: processes, mounts, control groups, folders. Gives the numbers of the
    /// leases whose attempts were interrupted. Call it once, before the first attempt.
    ///
    /// # Errors
    /// When something cannot be removed; blocks until what was killed is gone.
    pub fn sweep(&self) -> io::Result<Vec<LeaseNumber>> {
        let mut interrupted = Vec::new();
        for entry in fs::read_dir(&self.attempts)? {
            let entry = entry?;
            trace::clean(&self.rig, &entry.path())?;
            interrupted.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()).map(LeaseNumber));
        }
        for entry in fs::read_dir(&self.outputs)? {
            self.rig.remove_tree(&entry?.path())?;
        }
        self.environments.sweep()?;
        interrupted.sort();
        if !interrupted.is_empty() {
            tracing::info!(count = interrupted.len(), "interrupted attempts were cleaned up");
        }
        Ok(interrupted)
    }

    /// Makes one attempt. When the future is dropped, everything of it is killed and removed.
    ///
    /// # Errors
    /// [`Error`], with who is at fault.
    pub async fn attempt(&self, task: Task, log: LogSink, stop: CancellationToken) -> Result<Built, Error> {
        let result = self.steps(&task, &log, &stop).await;
        match &result {
            Ok(built) => log.note(&format!("done: {} outputs", built.outputs.len())),
            Err(error) => log.note(&error.failure().to_string()),
        }
        log.enter(Phase::Done);
        result
    }

    /// Removes the outputs of an attempt, when they were taken over.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn discard(&self, built: &Built) -> io::Result<()> {
        self.rig.remove_tree(&built.folder)
    }

    async fn steps(&self, task: &Task, log: &LogSink, stop: &CancellationToken) -> Result<Built, Error> {
        let request = &task.request;
        self.check(task)?;
        let begun = Instant::now();
        let light = !request.isolation().is_rootfs();
        let variation = varied(task);
        log.note(&format!("{}, profile {} ({})", request.title(), variation.profile, variation.name()));
        let folder = AttemptFolder::make(&self.rig, &self.attempts, task.lease.number)?;
        log.enter(Phase::Inputs);
        let packages = image::packages(request, &task.inputs)?;
        let (from, to) = (task.inputs.clone(), folder.upper(&variation));
        let placing = Placing { from, to: to.clone(), epoch: task.lock.epoch, rig: self.rig.clone() };
        bounded(Phase::Inputs, self.patience.inputs, stop, async |halt| {
            let wanted = wanted(&request.kind, packages.as_ref());
            inputs::place_until(wanted, placing, halt).await.map_err(Error::Input)
        })
        .await?;
        if packages.is_some() {
            let laid_out = image::lay_out(&self.rig, &folder.path, &to);
            laid_out.map_err(|source| Error::Folder { folder: folder.path.clone(), source })?;
        }
        let placed = Instant::now();
        log.enter(Phase::Environment);
        let environment = bounded(Phase::Environment, self.patience.environment, stop, async |halt| {
            if light {
                return Ok(Environment::machine());
            }
            self.environments.get(&task.lock, &task.packages, &halt).await.map_err(Error::Environment)
        })
        .await?;
        log.note(&format!("environment {} in {:.1} s", task.lock.id().short(), environment.took.as_secs_f64()));
        let variation = variation.fit(&environment.root);
        log.enter(Phase::Sandbox);
        let (started, sandboxed) = ((self.now)(), Instant::now());
        let host = Host::now();
        let plan = plan(task, packages.as_ref(), &folder, &environment, &variation);
        let plan = Plan { start: self.patience.start, ..plan };
        let ran = match plan.network {
            Network::None => sandbox::run(&self.rig, &plan, log, stop).await.map_err(Error::Sandbox)?,
            Network::Gate => fetch::run(&self.rig, &plan, &self.reach, log, stop).await?,
        };
        let lint = Lint::of(&request.kind, log.path());
        let ran = Ran { ending: lint.forgive(ran.ending), ..ran };
        let judged = judge("build", &ran, &request.limits, &host.since(&self.attempts));
        judged.map_err(|failure| Error::Ended(explained(failure, &ran, log)))?;
        let built = Instant::now();
        log.enter(Phase::Outputs);
        let into = self.outputs.join(task.lease.number.to_string());
        let (outputs, byproducts) = bounded(Phase::Outputs, self.patience.outputs, stop, async |halt| {
            self.collect(task, (&folder.path.join("upper"), &variation.place), &into, halt).await
        })
        .await?;
        let (variables, attempts) = (&plan.variables[..], self.attempts.as_path());
        let steps = [placed - begun, sandboxed - placed, built - sandboxed, built.elapsed()];
        let place = info::Place { variation: &variation, environment: &environment, variables, attempts, steps };
        Ok(Built {
            outputs,
            byproducts,
            folder: into,
            started,
            finished: (self.now)(),
            cpu: ran.cpu,
            memory_peak: ran.memory_peak,
            environment_took: environment.took,
            node_info: info::table(request.arch, &place, (&ran, &lint), started),
        })
    }

    /// Says whether the task is whole, and one that this builder's owner allows.
    fn check(&self, task: &Task) -> Result<(), Error> {
        check(task)?;
        if let JobKind::Fetch(job) = &task.request.kind {
            fetch::check(job, &self.reach)?;
        }
        command::check(task.request.isolation(), self.isolation, &task.lock)
    }

    async fn collect(
        &self,
        task: &Task,
        (upper, place): (&Path, &str),
        into: &Path,
        halt: CancellationToken,
    ) -> Result<(Vec<OutputFile>, Vec<OutputFile>), Error> {
        let disk = |source| Error::Folder { folder: into.to_owned(), source };
        let limit = u64::from(task.request.limits.disk_mib) * 1024 * 1024;
        let leftovers =
            Leftovers::open_place(upper, place, limit).map_err(|source| match Errno::from_io_error(&source) {
                // A build that may move its own directory put a link there.
                Some(Errno::LOOP | Errno::NOTDIR) => {
                    let name = RelativePath::new(place.trim_start_matches('/')).expect("profiles name plain folders");
                    Error::Output(OutputError::Link { name })
                }
                Some(_) | None => disk(source),
            })?;
        self.rig.remove_tree(into).map_err(disk)?;
        fs::create_dir(into).map_err(disk)?;
        let mut leftovers = leftovers.until(halt);
        let (kind, arch, target) = (task.request.kind.clone(), task.request.arch, into.to_owned());
        let work = tokio::task::spawn_blocking(move || match &kind {
            JobKind::Deb(job) => deb::collect(job, arch, &mut leftovers, &target),
            JobKind::Rpm(_) => Ok((rpm::collect(&mut leftovers, &target)?, Vec::new())),
            JobKind::Command(job) => Ok((command::collect(job, &mut leftovers, &target)?, Vec::new())),
            JobKind::Image(job) => Ok((image::collect(job, arch, &mut leftovers, &target)?, Vec::new())),
            JobKind::Fetch(job) => Ok((fetch::collect(job, &mut leftovers, &target)?, Vec::new())),
            // Its environment is none, so it never came so far.
            JobKind::Server(_) => Ok((Vec::new(), Vec::new())),
        });
        let taken = work.await.map_err(|error| disk(io::Error::other(error)))?;
        taken.map_err(|error: OutputError| {
            // What was copied before the refusal is of no use.
            if let Err(error) = self.rig.remove_tree(into) {
                tracing::warn!(%error, "refused outputs left behind");
            }
            Error::Output(error)
        })
    }
}

/// An attempt's folder; removed with everything in it.
struct AttemptFolder {
    rig: Arc<Rig>,
    path: PathBuf,
}

impl AttemptFolder {
    fn make(rig: &Arc<Rig>, attempts: &Path, number: LeaseNumber) -> Result<Self, Error> {
        let path = attempts.join(number.to_string());
        let made = fs::create_dir(&path)
            .and_then(|()| ["", "upper", "upper/build"].iter().try_for_each(|name| rig.make_folder(&path.join(name))));
        made.map_err(|source| Error::Folder { folder: path.clone(), source })?;
        Ok(Self { rig: rig.clone(), path })
    }

    /// Gives where the build directory lies on this side of the overlay.
    fn upper(&self, variation: &Variation) -> PathBuf {
        self.path.join(format!("upper{}", variation.place))
    }
}

impl Drop for AttemptFolder {
    fn drop(&mut self) {
        if let Err(error) = trace::remove_patiently(&self.rig, &self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "attempt's folder left for the next sweep");
        }
    }
}

fn check(task: &Task) -> Result<(), Error> {
    let refuse = |blame, what: String| Err(Error::Task { what, blame });
    if Arch::native() != Some(task.request.arch) {
        return refuse(
            Blame::Builder(Fault::Other),
            format!("it is for {}, which this machine is not", task.request.arch),
        );
    }
    if task.lock.id() != task.request.environment {
        let what =
            format!("the environment lock is {}, the request names {}", task.lock.id(), task.request.environment);
        return refuse(Blame::InputMismatch, what);
    }
    if task.lock.arch != task.request.arch {
        return refuse(Blame::Job, format!("its environment is for {}", task.lock.arch));
    }
    Ok(())
}

/// Gives what an attempt varies: all that its profile says and its job can bear.
fn varied(task: &Task) -> Variation {
    let request = &task.request;
    let variation = variation(task.lease.profile, cpus(&request.limits));
    let variation = if rights(&request.kind) == Rights::Installer { variation.installing() } else { variation };
    if request.isolation().is_rootfs() { variation } else { variation.light() }
}

fn rights(kind: &JobKind) -> Rights {
    match kind {
        JobKind::Image(_) => Rights::Installer,
        JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
            Rights::Builder
        }
    }
}

fn wanted(kind: &JobKind, packages: Option<&EnvironmentLock>) -> Vec<Wanted> {
    match (kind, packages) {
        (JobKind::Deb(job), _) => job.files.iter().map(Wanted::source).collect(),
        (JobKind::Rpm(job), _) => job.files.iter().map(Wanted::source).collect(),
        (JobKind::Command(job), _) => job.inputs.iter().map(Wanted::input).collect(),
        (JobKind::Image(job), Some(packages)) => image::wanted(job, packages),
        (JobKind::Image(_), None) | (JobKind::Server(_) | JobKind::Fetch(_), _) => Vec::new(),
    }
}

fn plan<'a>(
    task: &'a Task,
    packages: Option<&EnvironmentLock>,
    folder: &'a AttemptFolder,
    environment: &'a Environment,
    v: &'a Variation,
) -> Plan<'a> {
    let (arch, epoch) = (task.request.arch, task.lock.epoch);
    let (variables, script, arguments) = match (&task.request.kind, packages) {
        (JobKind::Deb(job), _) => (deb::variables(job, v), deb::script(v, &task.request.limits), deb::arguments(job)),
        (JobKind::Rpm(job), _) => (rpm::variables(v), rpm::script(v, &task.request.limits), rpm::arguments(job, epoch)),
        (JobKind::Command(job), _) => (command::variables(epoch), command::script(v), job.argv.clone()),
        (JobKind::Image(job), Some(packages)) => {
            (image::variables(job, arch, packages), image::script(v), image::arguments(packages))
        }
        (JobKind::Fetch(job), _) => (command::variables(epoch), fetch::SCRIPT.to_owned(), fetch::arguments(job)),
        (JobKind::Image(_), None) | (JobKind::Server(_), _) => {
            (command::variables(epoch), command::script(v), vec!["false".to_owned()])
        }
    };
    Plan {
        rights: rights(&task.request.kind),
        network: if matches!(task.request.kind, JobKind::Fetch(_)) { Network::Gate } else { Network::None },
        folder: &folder.path,
        base: if task.request.isolation().is_rootfs() { Base::Environment(&environment.root) } else { Base::Machine },
        variation: v,
        limits: &task.request.limits,
        start: Patience::default().start,
        variables,
        script,
        arguments,
        name: sandbox::name(&folder.path),
    }
}

/// Adds what the build's own tools complained of first, where it ended by itself.
fn explained(failure: Failure, ran: &Ran, log: &LogSink) -> Failure {
    match (ran.ending, complaint::first(log.path())) {
        (Ending::Exited(_), Some(complaint)) => {
            Failure::new(failure.blame, failure.step, format!("{}; {complaint}", failure.what))
        }
        _ => failure,
    }
}

fn cpus(limits: &BuildLimits) -> u32 {
    let here = u32::try_from(sandbox::allowed_cpus().len()).unwrap_or(u32::MAX).max(1);
    limits.cpu_milli.div_ceil(1000).clamp(1, here)
}

fn make_folder(rig: &Rig, parent: &Path, name: &str) -> Result<PathBuf, WorkshopError> {
    let folder = parent.join(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-@/".contains(c);
    if !folder.is_absolute() || !folder.to_str().is_some_and(|text| text.chars().all(plain)) {
        return Err(WorkshopError::Name { folder });
    }
    fs::create_dir_all(&folder).map_err(|source| WorkshopError::Folder { folder: folder.clone(), source })?;
    if rig.can_reach(&folder) { Ok(folder) } else { Err(WorkshopError::Unreachable { folder }) }
}
