//! Environments on disk: installed once from a lock, kept by the lock's id, shared by every attempt through an overlay.
//!
//! ```text
//! nothing -> new-<id> (packages checked and copied, installed in a sandbox) -> rename -> <id> (complete) -> evicted
//! ```
//! A crash leaves only `new-` folders, which the next start removes. Beside each environment lies `<id>.lock`: locked
//! exclusively while it is installed or evicted, shared while an attempt uses it. So first uses wait for one another and
//! nothing in use is evicted, also when several daemons share one folder; the kernel unlocks when a daemon dies. The
//! least recently used environments go when all together are over the limit.
//!
//! This module does not choose packages: that is the lock's matter.

mod install;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use protocol::{Hash, Timestamp, blame::Failure, environment::EnvironmentLock, job::BuildLimits};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    inputs::InputError,
    sandbox::{SandboxError, rig::Rig, trace},
};

const COMPLETE: &str = "complete.json";
/// How often somebody who waits for another's installation looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a tree may take to be hashed, which is a matter of seconds.
const SEAL_WITHIN: Duration = Duration::from_secs(600);
/// Packages named by one `--include`, so that no argument is too long.
const INCLUDE_AT_ONCE: usize = 200;

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A package is not what the lock names.
    #[error("environment package")]
    Package(#[source] InputError),
    /// The disk does not do its part.
    #[error("cannot {what} in {folder}")]
    Disk {
        /// What was to be done.
        what: &'static str,
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its packages were not installed: how that ended, and the end of what it said.
    #[error("the environment cannot be installed from its lock: {failure}: {said}")]
    Install {
        /// How it ended, and who is at fault.
        failure: Failure,
        /// The end of what it said.
        said: String,
    },
    /// The sandbox of the installation did not run.
    #[error("sandbox of the installation")]
    Sandbox(#[source] SandboxError),
    /// This machine has nothing that installs packages of the lock's family.
    #[error("this machine has no {tool}, which installs environments of RPMs: install the package {tool}")]
    Tool {
        /// The program.
        tool: &'static str,
    },
    /// What its packages made cannot be an environment.
    #[error("the lock's packages make no environment: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// The tree cannot be taken as an environment; the end of what the helpers said.
    #[error("cannot take a tree as an environment: {said}")]
    Seal {
        /// The end of what they said.
        said: String,
    },
    /// Taking it did not end.
    #[error("the environment was not taken within {} s", SEAL_WITHIN.as_secs())]
    Slow,
    /// Cancelled meanwhile.
    #[error("cancelled while the environment was installed")]
    Cancelled,
}

/// What an installation found out about its result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Complete {
    /// SHA-256 of the tree as a sorted tar: the same on every node.
    tree: String,
    kib: u64,
}

/// The environments of a node.
#[derive(Debug)]
pub(in crate::build) struct Environments {
    folder: PathBuf,
    bytes_max: u64,
    rig: Arc<Rig>,
    now: fn() -> Timestamp,
    /// What an installation may use, where a test says so.
    limits: Option<BuildLimits>,
}

/// An environment in use: it is not evicted before this is dropped.
#[derive(Debug)]
pub(in crate::build) struct Environment {
    pub(in crate::build) root: PathBuf,
    pub(in crate::build) tree: String,
    /// How long it took to have it.
    pub(in crate::build) took: Duration,
    /// Locked shared for as long as it is used.
    _lock: Option<File>,
}

impl Environment {
    /// Gives this machine as an environment.
    pub(in crate::build) fn machine() -> Self {
        Self { root: PathBuf::from("/"), tree: "this machine's own".to_owned(), took: Duration::ZERO, _lock: None }
    }
}

impl Environments {
    pub(in crate::build) fn new(folder: PathBuf, bytes_max: u64, rig: Arc<Rig>, now: fn() -> Timestamp) -> Self {
        Self { folder, bytes_max, rig, now, limits: None }
    }

    /// Gives environments whose installations may use as much as a test wants.
    #[cfg(test)]
    pub(in crate::build) fn installing_within(self, limits: BuildLimits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// Removes what a crash left half done.
    pub(in crate::build) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix("new-").unwrap_or(&name).parse::<Hash>();
            let (Ok(id), true) = (id, entry.path().is_dir()) else { continue };
            let half = name.starts_with("new-") || !entry.path().join(COMPLETE).is_file();
            // A locked one is being installed by another daemon.
            let file = self.lock_file(&id)?;
            if half && file.try_lock().is_ok() {
                trace::clean(&self.rig, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Says whether a lock's environment is here already.
    pub(in crate::build) fn has(&self, id: &Hash) -> bool {
        self.folder.join(id.to_string()).join(COMPLETE).is_file()
    }

    /// Gives the environment of a lock; installs it from `packages` if it is not here.
    pub(in crate::build) async fn get(
        &self,
        lock: &EnvironmentLock,
        packages: &Path,
        stop: &CancellationToken,
    ) -> Result<Environment, EnvironmentError> {
        let begun = Instant::now();
        let id = lock.id();
        let folder = self.folder.join(id.to_string());
        let disk = |source| EnvironmentError::Disk { what: "lock an environment", folder: folder.clone(), source };
        let file = self.lock_file(&id).map_err(disk)?;
        loop {
            // Locked before it is looked for, so that it cannot be evicted in between.
            if file.try_lock_shared().is_ok() && self.has(&id) {
                let tree = self.touch(&folder)?.tree;
                return Ok(Environment { root: folder.join("root"), tree, took: begun.elapsed(), _lock: Some(file) });
            }
            file.unlock().map_err(disk)?;
            if file.try_lock().is_ok() {
                if !self.has(&id) {
                    self.install(lock, packages, &folder, stop).await?;
                }
                file.unlock().map_err(disk)?;
                file.try_lock_shared().ok();
                self.evict();
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Err(EnvironmentError::Cancelled),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn lock_file(&self, id: &Hash) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.folder.join(format!("{id}.lock")))
    }

    /// Takes a root file system in a tar file as the environment of a lock. For tests and for rootfs images made
    /// elsewhere: nothing in it is checked against the lock.
    pub(in crate::build) async fn adopt(&self, id: Hash, tar: &Path) -> Result<(), EnvironmentError> {
        let folder = self.folder.join(id.to_string());
        let new = self.begin(&id)?;
        let script = "set -eu; cd \"$1\"; mkdir root; tar -C root -xf \"$2\"; \
                      kib=$(du -sk root); echo artel:tree given; echo artel:kib ${kib%%[!0-9]*}";
        let arguments = [new.path.as_os_str(), tar.as_os_str()].map(|word| word.to_string_lossy().into_owned());
        let complete = self.seal(script, &arguments, &CancellationToken::new()).await?;
        self.end(new, &complete, &folder)
    }

    fn begin(&self, id: &Hash) -> Result<NewFolder<'_>, EnvironmentError> {
        let path = self.folder.join(format!("new-{id}"));
        let disk = |source| EnvironmentError::Disk { what: "make a folder", folder: path.clone(), source };
        self.rig.remove_tree(&path).map_err(disk)?;
        self.rig.make_folder(&path).map_err(disk)?;
        Ok(NewFolder { rig: &self.rig, path })
    }

    fn end(&self, new: NewFolder<'_>, complete: &Complete, folder: &Path) -> Result<(), EnvironmentError> {
        let disk = |source| EnvironmentError::Disk { what: "keep an environment", folder: folder.to_owned(), source };
        self.rig.remove_tree(folder).map_err(disk)?;
        let bytes = serde_json::to_vec(complete).map_err(|error| disk(io::Error::other(error)))?;
        fs::write(new.path.join(COMPLETE), bytes).map_err(disk)?;
        // A power cut must not leave a complete environment with empty files: this node would differ from all others.
        let opened = fs::File::open(&new.path).map_err(disk)?;
        rustix::fs::syncfs(&opened).map_err(|error| disk(error.into()))?;
        fs::rename(&new.path, folder).map_err(disk)
    }

    /// Notes the use of an environment, for eviction.
    fn touch(&self, folder: &Path) -> Result<Complete, EnvironmentError> {
        let path = folder.join(COMPLETE);
        let disk = |source| EnvironmentError::Disk { what: "use an environment", folder: folder.to_owned(), source };
        let complete = serde_json::from_slice(&fs::read(&path).map_err(disk)?);
        let used = SystemTime::UNIX_EPOCH + Duration::from_millis((self.now)().as_millis());
        File::options().write(true).open(&path).and_then(|file| file.set_modified(used)).map_err(disk)?;
        complete.map_err(|error| disk(io::Error::other(error)))
    }

    /// Removes the least recently used environments until the rest fit.
    fn evict(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut all: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let file = entry.path().join(COMPLETE);
                let complete: Complete = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
                let id: Hash = entry.file_name().to_str()?.parse().ok()?;
                Some((fs::metadata(&file).ok()?.modified().ok()?, id, complete.kib * 1024, entry.path()))
            })
            .collect();
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, _, bytes, _)| bytes).sum();
        for (_, id, size, path) in all {
            if bytes <= self.bytes_max {
                return;
            }
            let Ok(lock) = self.lock_file(&id) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            // The marker goes first: half of an environment must not look whole.
            let removed = fs::remove_file(path.join(COMPLETE)).and_then(|()| self.rig.remove_tree(&path));
            match removed {
                Ok(()) => {
                    bytes = bytes.saturating_sub(size);
                    tracing::info!(environment = %id, size, "environment evicted");
                }
                Err(error) => tracing::warn!(environment = %id, %error, "environment not evicted"),
            }
        }
    }
}

/// A folder that is removed unless it was renamed into place.
struct NewFolder<'a> {
    rig: &'a Rig,
    path: PathBuf,
}

impl Drop for NewFolder<'_> {
    fn drop(&mut self) {
        if let Err(error) = trace::remove_patiently(self.rig, &self.path) {
            tracing::debug!(%error, "half an environment is left for the next sweep");
        }
    }
}

/// Gives mmdebstrap's variant for a lock: what it installs by itself.
pub(in crate::build) fn variant(lock: &EnvironmentLock) -> &'static str {
    match (lock.package("apt"), lock.package("build-essential")) {
        (Some(_), Some(_)) => "buildd",
        (Some(_), None) => "apt",
        (None, _) => "essential",
    }
}

/// Gives mmdebstrap's `--include` options for a lock.
pub(in crate::build) fn includes(lock: &EnvironmentLock) -> impl Iterator<Item = String> + '_ {
    lock.packages.chunks(INCLUDE_AT_ONCE).map(|some| {
        let names: Vec<_> = some.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
        format!("--include={}", names.join(","))
    })
}

#[cfg(test)]
mod tests;
