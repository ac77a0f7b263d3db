//! Where comparisons are made: a workshop of its own beside the builder's, and the environment that has diffoscope.
//!
//! It is the same sandbox as for builds. Its folders hold one comparison at a time and are emptied before each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    Arch, ChannelName, JobId, NodeId, PackageName,
    environment::EnvironmentLock,
    job::{CommandJob, JobKind, JobRequest, Schedule},
    lease::{Lease, LeaseNumber, Profile},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    build::{self, LogSink, Rig, RigConfig, Task, Workshop, explain},
    clock,
    config::Tools,
    daemon::{Shared, chain, runs::Recorder},
    resolve::{
        archive::{self, Archive, Refresh},
        lock,
    },
};

/// How long a lock of the archive's tools is used before it is made anew.
const LOCK_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Disk for unpacked environments: the tools of today and those of yesterday.
const ENVIRONMENTS_BYTES_MAX: u64 = 4 << 30;
/// How much of the sandbox's log is read.
const SAID_MAX: usize = 64 * 1024;

/// One comparison to make.
pub(super) struct Comparison {
    /// The explanation.
    pub(super) id: JobId,
    /// What to run.
    pub(super) command: CommandJob,
    /// What it may use.
    pub(super) bounds: explain::Bounds,
    /// Who built what is compared.
    pub(super) holders: Vec<NodeId>,
}

/// The environment of comparisons, and its packages by the names that the lock gives them.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    lock: EnvironmentLock,
    files: Vec<PathBuf>,
    made: Instant,
}

/// The place of one node's comparisons.
pub(super) struct Bench {
    workshop: Workshop,
    folder: PathBuf,
    kit: Option<Kit>,
    leases: u64,
}

impl Bench {
    /// Opens the workshop; what a killed daemon left in it is removed.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<Self, String> {
        let folder = shared.home.explain();
        let user = shared.config.builder.as_ref().map(|builder| builder.user.clone());
        let rig = user.map_or_else(RigConfig::default, |user| RigConfig { user });
        let config = build::Config {
            state_dir: folder.clone(),
            cache_dir: folder.clone(),
            environment_bytes_max: ENVIRONMENTS_BYTES_MAX,
            rig,
            now: clock::now,
        };
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let opened = tokio::task::spawn_blocking(move || {
            if rustix::process::geteuid().is_root() {
                Rig::prepare_user(&config.rig).map_err(|error| chain(&error))?;
            }
            let workshop = Workshop::open(config).map_err(|error| chain(&error))?;
            workshop.sweep().map_err(|error| error.to_string())?;
            Ok::<_, String>(workshop)
        });
        let workshop = opened.await.map_err(|error| error.to_string())??;
        Ok(Self { workshop, folder, kit: None, leases: 0 })
    }

    /// Gives the environment that the configuration names, locked anew when the archive's lock is old.
    pub(super) async fn tools(&mut self, shared: &Arc<Shared>, record: &Recorder) -> Result<Kit, String> {
        let old = |kit: &Kit| kit.made.elapsed() > LOCK_AGE_MAX;
        if let Some(kit) = self.kit.as_ref().filter(|kit| !old(kit)) {
            return Ok(kit.clone());
        }
        let (tools, state) = (shared.config.explain.environment.clone(), shared.home.archive());
        let made = tokio::task::spawn_blocking(move || match tools {
            Tools::Off => Err("it is switched off".to_owned()),
            Tools::Archive => from_archive(&state),
            Tools::Lock(path) => from_lock(&path, &state),
        });
        let (lock, files) = made.await.map_err(|error| error.to_string())??;
        let version = lock.package("diffoscope-minimal").or_else(|| lock.package("diffoscope"));
        let version = version.ok_or("the environment's lock names no diffoscope")?;
        record.say(&format!("{} {}, environment {}", version.name, version.version, lock.id().short()));
        let kit = Kit { lock, files, made: Instant::now() };
        self.kit = Some(kit.clone());
        Ok(kit)
    }

    /// Brings both sets of outputs here, and lays them out as the sandbox takes them.
    pub(super) async fn lay_out(&self, shared: &Arc<Shared>, comparison: &Comparison) -> Result<(), String> {
        let inputs = self.inputs();
        let failed = |error: std::io::Error| format!("{} cannot be used: {error}", inputs.display());
        self.clear().await;
        let mut from = comparison.holders.clone();
        from.extend(shared.net.peers().into_iter().map(|peer| peer.node).filter(|n| !comparison.holders.contains(n)));
        from.retain(|node| *node != shared.id);
        for file in &comparison.command.inputs {
            let path = inputs.join(file.path.as_str());
            if let Some(parent) = path.parent() {
                tokio::fs::create_dir_all(parent).await.map_err(failed)?;
            }
            let fetched = shared.blobs.fetch(&shared.net, &file.hash, &from, file.size).await;
            fetched.map_err(|error| format!("{} cannot be fetched from its builder: {}", file.path, chain(&error)))?;
            shared.blobs.export(&file.hash, &path).await.map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    /// Compares what is laid out, and gives the folder of what came of it.
    pub(super) async fn compare(
        &mut self,
        shared: &Arc<Shared>,
        (comparison, kit): (&Comparison, &Kit),
        stop: &CancellationToken,
    ) -> Result<PathBuf, String> {
        self.leases += 1;
        let packages = self.packages();
        if !self.workshop.has_environment(&kit.lock.id()) {
            place(kit, &packages).await?;
        }
        let request = request(shared, comparison, kit)?;
        let (job, node, memory_mib) = (comparison.id, shared.id, comparison.bounds.memory_mib);
        let (number, profile) = (LeaseNumber(self.leases), Profile(0));
        let lease = Lease { job, node, number, expires: request.expires, profile, memory_mib };
        let log = LogSink::create(self.log(), u64::from(request.limits.log_kib) * 1024 * 2);
        let log = log.map_err(|error| chain(&error))?;
        let lock = kit.lock.clone();
        let task = Task { job, request, lease, lock, inputs: self.inputs(), packages };
        let built = self.workshop.attempt(task, log, stop.clone()).await;
        self.clear().await;
        Ok(built.map_err(|error| error.failure().what)?.folder)
    }

    /// Gives what the sandbox said in the last comparison.
    pub(super) fn said(&self) -> String {
        let bytes = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID_MAX)..]).into_owned()
    }

    async fn clear(&self) {
        for folder in [self.inputs(), self.packages()] {
            // What cannot be removed shows when it is laid out anew.
            if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
                debug!(%error, "nothing to clear");
            }
        }
    }

    fn inputs(&self) -> PathBuf {
        self.folder.join("inputs")
    }

    fn packages(&self) -> PathBuf {
        self.folder.join("packages")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

/// Removes what came of a comparison.
pub(super) fn discard(folder: &Path) {
    if let Err(error) = build::remove_tree(folder) {
        warn!(%error, "outputs of a comparison not removed; the next start sweeps them");
    }
}

type Locked = (EnvironmentLock, Vec<PathBuf>);

/// Locks the tools as this machine's archive has them now. Blocking: runs apt.
fn from_archive(state: &Path) -> Result<Locked, String> {
    let suite = archive::system_suite().map_err(|error| chain(&error))?;
    let arch = Arch::native().ok_or("dpkg has no name for this machine's architecture")?;
    let archive = Archive::open(state, suite, arch).map_err(|error| chain(&error))?;
    archive.update(clock::now(), Refresh::WhenStale).map_err(|error| chain(&error))?;
    let tools: Vec<PackageName> =
        explain::TOOLS.iter().map(|name| PackageName::new(name).expect("the tools' names are valid")).collect();
    let locked = lock::lock_plain(&archive, &tools).map_err(|error| chain(&error))?;
    Ok((locked.lock, locked.files))
}

/// Reads a lock that was made here before.
fn from_lock(path: &Path, state: &Path) -> Result<Locked, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let lock =
        EnvironmentLock::from_bytes(&bytes).map_err(|error| format!("{} is no lock: {error}", path.display()))?;
    let files = lock::files_of(&lock, state).map_err(|error| chain(&error))?;
    Ok((lock, files))
}

/// Lays the environment's packages out by the names that its lock gives them.
async fn place(kit: &Kit, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} cannot be used: {error}", folder.display());
    tokio::fs::create_dir_all(folder).await.map_err(failed)?;
    for (package, file) in kit.lock.packages.iter().zip(&kit.files) {
        tokio::fs::copy(file, folder.join(package.file.as_str())).await.map_err(failed)?;
    }
    Ok(())
}

/// Words the comparison as a request. Nobody signs it: it never leaves this node.
fn request(shared: &Shared, comparison: &Comparison, kit: &Kit) -> Result<JobRequest, String> {
    let now = clock::now();
    Ok(JobRequest {
        arch: kit.lock.arch,
        kind: JobKind::Command(comparison.command.clone()),
        nonce: vec![0; 16],
        limits: comparison.bounds.limits(),
        channel: ChannelName::new("explain").map_err(|error| error.to_string())?,
        created: now,
        expires: now.after(Duration::from_secs(comparison.bounds.wall_secs.into())),
        network: shared.network,
        schedule: Schedule::default(),
        environment: kit.lock.id(),
    })
}
