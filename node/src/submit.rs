//! From what a maintainer has at hand to a signed request: source and environment are hashed, put into a node's blob
//! store, and named in the request. It knows nodes only through [`web::Backend`].

pub mod boot;
pub mod environment;
pub mod image;
pub mod variants;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use protocol::{
    ChannelName, FileName, Hash, NetworkId, PackageName, Timestamp,
    envelope::{Record, Signed},
    environment::EnvironmentLock,
    job::{BuildLimits, CommandJob, InputFile, Isolation, JobKind, JobRequest, Schedule},
    limits,
    words::RelativePath,
};
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use web::{
    Backend,
    api::{ApiError, Submitted},
    backend::ByteRange,
};

use crate::{
    bounded,
    keys::{self, Sign},
    resolve::{
        self,
        archive::Archive,
        digest::Digest,
        lock::{self, Locked},
        source::{
            self, SourcePackage,
            rpm::{self, Requires, RpmSourcePackage},
        },
    },
};

/// The Debian package that has rpmbuild.
const RPMBUILD: &str = "rpm";
/// Uploads that run at one time.
const UPLOADS: usize = 4;

/// Why a job could not be prepared or submitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source package is missing or not what it says.
    #[error("the source package cannot be used")]
    Source(#[from] source::Error),
    /// The source of RPMs is missing or not what it says.
    #[error("the source of RPMs cannot be used")]
    Rpm(#[from] rpm::Error),
    /// The environment cannot be locked.
    #[error("the environment cannot be locked")]
    Lock(#[from] lock::Error),
    /// The archive cannot be used.
    #[error("the archive cannot be used")]
    Archive(#[from] resolve::archive::Error),
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A light command asks for packages.
    #[error("{path} has isolation light, which finds the builders' own programs: leave `packages` out")]
    Light {
        /// The file.
        path: PathBuf,
    },
    /// A command file is not valid.
    #[error("{path} is not a valid command file")]
    CommandFile {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A recipe is not valid.
    #[error("{path} is not a valid recipe of an image")]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The request breaks a rule of the protocol.
    #[error("the request is not acceptable: {0}")]
    Request(String),
    /// No random bytes.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// The node refused or cannot be reached.
    #[error(transparent)]
    Node(#[from] ApiError),
}

/// A job whose every input lies on this machine.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What to build.
    pub kind: JobKind,
    /// The environment.
    pub lock: EnvironmentLock,
    /// Every input but the lock itself, by hash.
    pub files: Vec<(Hash, PathBuf)>,
}

/// What the maintainer decides beside the inputs.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The channel.
    pub channel: ChannelName,
    /// What one attempt may use.
    pub limits: BuildLimits,
    /// How long the job may take, waiting included.
    pub lifetime: Duration,
    /// When and where it may run.
    pub schedule: Schedule,
}

/// Words for `DEB_BUILD_OPTIONS` and `DEB_BUILD_PROFILES`.
#[derive(Debug, Clone, Default)]
pub struct DebWords {
    /// `DEB_BUILD_OPTIONS`.
    pub options: Vec<String>,
    /// `DEB_BUILD_PROFILES`.
    pub profiles: Vec<String>,
}

/// Prepares a source package that lies on this machine. Blocking: runs apt.
///
/// # Errors
/// When the source or its environment cannot be had.
pub fn deb(archive: &Archive, source: &SourcePackage, words: &DebWords) -> Result<Prepared, Error> {
    let locked = lock::lock_for_source(archive, source, &words.profiles)?;
    let mut files: Vec<(Hash, PathBuf)> = source.files.iter().map(|f| f.hash).zip(source.paths()).collect();
    files.extend(locked_files(&locked));
    let kind = JobKind::Deb(source.job(words.options.clone(), words.profiles.clone()));
    Ok(Prepared { kind, lock: locked.lock, files })
}

/// Prepares a source of RPMs that lies on this machine; its environment has the packages `with` too. Blocking: runs apt.
///
/// # Errors
/// When a requirement has no Debian package, or the environment cannot be had.
pub fn rpm(
    archive: &Archive,
    source: &RpmSourcePackage,
    macros: &[String],
    requires: &Requires,
    with: &[PackageName],
) -> Result<Prepared, Error> {
    let mut packages = source.packages(requires)?;
    packages.extend(with.iter().cloned());
    packages.insert(PackageName::new(RPMBUILD).expect("a valid name"));
    let locked = lock::lock_plain(archive, &packages.into_iter().collect::<Vec<_>>())?;
    let mut files: Vec<(Hash, PathBuf)> = source.files.iter().map(|f| f.hash).zip(source.paths()).collect();
    files.extend(locked_files(&locked));
    Ok(Prepared { kind: JobKind::Rpm(source.job(macros.to_vec())), lock: locked.lock, files })
}

/// Prepares a source of RPMs for an environment of RPMs: what it requires is that lock's matter.
pub fn rpm_in(lock: &EnvironmentLock, source: &RpmSourcePackage, macros: &[String]) -> Prepared {
    let files = source.files.iter().map(|f| f.hash).zip(source.paths()).collect();
    Prepared { kind: JobKind::Rpm(source.job(macros.to_vec())), lock: lock.clone(), files }
}

impl Prepared {
    /// Takes another environment than the one that was resolved: one that was locked before, from wherever.
    ///
    /// # Errors
    /// When one of its packages is on none of this machine's archives below `state`.
    pub fn with_environment(mut self, lock: EnvironmentLock, state: &Path) -> Result<Self, Error> {
        let files = lock::files_of(&lock, state)?;
        let resolved = self.lock;
        // Each once: an image may name some of them a second time, for itself.
        for package in &resolved.packages {
            if let Some(at) = self.files.iter().rposition(|(hash, _)| *hash == package.hash) {
                self.files.remove(at);
            }
        }
        self.files.extend(lock.packages.iter().map(|p| p.hash).zip(files));
        Ok(Self { lock, ..self })
    }
}

fn locked_files(locked: &Locked) -> impl Iterator<Item = (Hash, PathBuf)> + '_ {
    locked.lock.packages.iter().map(|p| p.hash).zip(locked.files.iter().cloned())
}

/// A command job as people write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandFile {
    /// What the job is called.
    pub name: FileName,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Files that the command must leave.
    #[serde(default)]
    pub outputs: Vec<RelativePath>,
    /// Packages beside the buildd set.
    #[serde(default)]
    pub packages: Vec<PackageName>,
    /// `light` for the builders' own programs instead of packages, where their owners allow it.
    #[serde(default)]
    pub isolation: Isolation,
    /// Input files: where they appear = where they lie, relative to the command file.
    #[serde(default)]
    pub inputs: std::collections::BTreeMap<RelativePath, PathBuf>,
}

/// Prepares a command from its file. Blocking: runs apt.
///
/// # Errors
/// When the file is not valid or an input cannot be had.
pub fn command(archive: &Archive, path: &Path) -> Result<Prepared, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let text = bounded::read_text(path, limits::JOB_MAX as u64).map_err(unreadable(path))?;
    let file: CommandFile = toml::from_str(&text)
        .map_err(|source| Error::CommandFile { path: path.to_owned(), source: Box::new(source) })?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (lock, mut files): (_, Vec<(Hash, PathBuf)>) = match file.isolation {
        Isolation::Light if !file.packages.is_empty() => return Err(Error::Light { path: path.to_owned() }),
        Isolation::Light => (lock::lock_nothing(archive)?, Vec::new()),
        Isolation::Rootfs => {
            let locked = lock::lock_plain(archive, &file.packages)?;
            let files = locked_files(&locked).collect();
            (locked.lock, files)
        }
    };
    let mut inputs = Vec::new();
    for (path, from) in &file.inputs {
        let from = base.join(from);
        let got = Digest::of_file(&from).map_err(unreadable(&from))?;
        inputs.push(InputFile { hash: got.hash, path: path.clone(), size: got.size, sha256: got.sha256 });
        files.push((got.hash, from));
    }
    let mut outputs = file.outputs;
    outputs.sort();
    let (argv, name, isolation) = (file.argv, file.name, file.isolation);
    Ok(Prepared { kind: JobKind::Command(CommandJob { argv, name, inputs, outputs, isolation }), lock, files })
}

impl Prepared {
    /// Puts every input that the node lacks into its store.
    ///
    /// # Errors
    /// When a file cannot be read or the node refuses it.
    pub async fn upload(&self, node: &impl Backend) -> Result<u64, Error> {
        let lock = self.lock.to_bytes();
        let size = lock.len() as u64;
        let stream = futures::stream::once(async move { Ok(lock.into()) }).boxed();
        node.put_blob(stream, size).await?;
        let uploads = self.files.iter().map(|(hash, path)| upload_file(node, *hash, path));
        let sent: Vec<u64> = futures::stream::iter(uploads).buffer_unordered(UPLOADS).try_collect().await?;
        Ok(sent.iter().sum::<u64>() + size)
    }

    /// Makes and signs the request.
    ///
    /// # Errors
    /// When the request breaks a rule.
    pub fn sign(
        &self,
        wish: &Wish,
        network: NetworkId,
        now: Timestamp,
        key: &impl Sign,
    ) -> Result<Signed<JobRequest>, Error> {
        let request = JobRequest {
            arch: self.lock.arch,
            kind: self.kind.clone(),
            nonce: keys::random()?[..16].to_vec(),
            limits: wish.limits,
            channel: wish.channel.clone(),
            created: now,
            expires: now.after(wish.lifetime),
            network,
            schedule: wish.schedule.clone(),
            environment: self.lock.id(),
        };
        request.check().map_err(Error::Request)?;
        Ok(keys::sign(&request, Some(&network), &[key])?)
    }
}

/// Puts one file into the node's store, unless it is there. Gives the bytes sent.
async fn upload_file(node: &impl Backend, hash: Hash, path: &Path) -> Result<u64, Error> {
    if node.blob(hash, ByteRange::From { start: 0, last: Some(0) }).await.is_ok() {
        return Ok(0);
    }
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let size = file.metadata().await.map_err(unreadable)?.len();
    let stream = ReaderStream::with_capacity(file, 256 * 1024);
    let stream = stream.map_err(|e| ApiError::Refused { reason: format!("the file cannot be read: {e}") }).boxed();
    let stored = node.put_blob(stream, size).await?;
    if stored == hash {
        Ok(size)
    } else {
        Err(Error::Request(format!("{} changed while it was being sent", path.display())))
    }
}

/// Uploads, signs and submits in one go.
///
/// # Errors
/// The first step that fails.
pub async fn submit(
    node: &impl Backend,
    prepared: &Prepared,
    wish: &Wish,
    now: Timestamp,
    key: &impl Sign,
) -> Result<Submitted, Error> {
    let network = node.status().await?.network.id;
    prepared.upload(node).await?;
    let request = prepared.sign(wish, network, now, key)?;
    Ok(node.submit(request.to_bytes().into()).await?)
}

#[cfg(test)]
pub(crate) mod tests;
