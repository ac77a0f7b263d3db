//! The publisher of one repository: of apt packages, and of RPMs where there are any.
//!
//! ```text
//!  publish: fence -> admit (copy, hash, inspect) -> keep -> sign -> stage -> raise fence -> gate -> record plan -> switch -> record state
//!  adopt:   fence -> fetch, hash, inspect ----------------------^------------'       '-----------^              |
//!            pool -> by-hash -> indexes -> Release.gpg -> Release -> InRelease <--------------------------------+
//! ```
//!
//! A repository continues what any coordinator published: `adopt` takes a generation over as it was signed, and the next one
//! is made from it by the same rules.
//!
//! Until the plan is recorded nothing that others see has changed; from then on every step may be repeated, and opening
//! the repository after a crash carries the plan out. Names in the pool are never given twice to different bytes.
//! It decides nothing about agreement: an addition's hashes are those that the verdict names. Every call blocks on the disk;
//! async code runs it on a blocking thread.

mod admit;
pub mod adopt;
pub mod carry;
pub mod diff;
mod dominate;
mod fence;
mod gate;
pub(in crate::publish) mod index;
mod keep;
mod prune;
pub mod staple;
mod state;
mod switch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use adopt::Fetch;
pub use fence::{Authority, NotLeading};
pub use gate::{Closed, Gate, Staged};
pub(crate) use index::KEYRING;
pub use keep::{Held, Keeper, Renewed, Standing};
use protocol::{
    Arch, FileName, Hash, JobId, PackageName, Sha256, SuiteName, Timestamp,
    lease::Term,
    release::Manifest,
    words::{DebVersion, RelativePath},
};
use serde::{Deserialize, Serialize};
pub use staple::Staple;

use self::{
    fence::Fence,
    state::{Entering, Pooled, State},
};
use super::{
    disk::{self, Lock},
    incoming,
    sign::{
        self,
        keyring::{Certificate, Keyring},
        keys::Keys,
    },
};

/// How long a file stays after the last index that named it: running clients still hold that index.
pub const REMOVE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The largest bundle of evidence, in bytes.
pub const BUNDLE_MAX: usize = 64 << 20;
/// What a bundle's name adds to its package's.
pub const BUNDLE_SUFFIX: &str = ".artel-bundle";

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A package may not enter.
    #[error(transparent)]
    Incoming(#[from] incoming::Error),
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] sign::Error),
    /// Another coordinator's generation cannot be taken over.
    #[error(transparent)]
    Adopt(#[from] adopt::Error),
    /// This process may not publish now.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The gate keeps the generation back.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A former coordinator.
    #[error("term {got} is over: term {published} published here; an older coordinator may not write")]
    OlderTerm {
        /// The term of who wants to publish.
        got: Term,
        /// The newest term that published here.
        published: Term,
    },
    /// Another process publishes here.
    #[error("another process publishes to {dir}; stop it, or wait until it ends")]
    Locked {
        /// The repository's folder.
        dir: PathBuf,
    },
    /// A setting cannot stand in a Release file.
    #[error("the channel's settings are not acceptable: {0}")]
    Settings(String),
    /// The publisher's own record cannot be read.
    #[error("the publisher's record {path} cannot be read: {why}; restore it from a copy")]
    State {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        why: String,
    },
    /// A file is not the one that the builders attested.
    #[error("{file} is not what was attested: wanted {wanted} ({wanted_size} bytes), got {got} ({got_size} bytes)")]
    NotAttested {
        /// The file.
        file: FileName,
        /// The attested SHA-256.
        wanted: Sha256,
        /// The attested size.
        wanted_size: u64,
        /// The SHA-256 of the file.
        got: Sha256,
        /// The size of the file.
        got_size: u64,
    },
    /// A name of the pool has other bytes already.
    #[error(
        "{path} was published with other bytes ({published}) than these ({got}); a changed package needs a new version"
    )]
    Different {
        /// The name.
        path: RelativePath,
        /// What it names.
        published: Sha256,
        /// What should have entered.
        got: Sha256,
    },
    /// A newer version is published.
    #[error(
        "{name} {version} ({arch}) is not newer than the published {published}; ask for a downgrade if that is meant"
    )]
    Older {
        /// The package.
        name: PackageName,
        /// Its architecture.
        arch: Arch,
        /// The version that should have entered.
        version: DebVersion,
        /// The published version.
        published: DebVersion,
    },
    /// The generation was decided before the one that is published.
    #[error("generation {got} comes after generation {published} was published; an older coordinator may not go back")]
    Fenced {
        /// The generation asked for.
        got: u64,
        /// The generation that is published.
        published: u64,
    },
    /// One generation would have two contents.
    #[error("generation {generation} was published with other content")]
    Conflict {
        /// The generation.
        generation: u64,
    },
    /// The time is before that of the published generation.
    #[error("the time {at} (s) is before the published generation's {published} (s); check the clock")]
    Backwards {
        /// The time asked for, in seconds since 1970.
        at: u64,
        /// The published generation's time, in seconds since 1970.
        published: u64,
    },
    /// A time that a Release file cannot carry.
    #[error("{} ms after 1970 is no date for a Release file", at.as_millis())]
    Date {
        /// The time.
        at: Timestamp,
    },
    /// A file of the pool is gone or has another size.
    #[error("{path} in the pool is not as it was published; restore it from a mirror")]
    Damaged {
        /// The file.
        path: RelativePath,
    },
    /// A test stopped the publisher here.
    #[cfg(test)]
    #[error("stopped by a test")]
    Stopped,
}

/// What the Release file says about the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `Suite`, for instance `stable`.
    pub suite: SuiteName,
    /// `Codename`, and the folder below `dists`.
    pub codename: SuiteName,
    /// `Origin`: one line of at most 64 printable ASCII characters.
    pub origin: String,
    /// `Label`: likewise.
    pub label: String,
    /// The architectures with an index, without `all`.
    pub arches: Vec<Arch>,
    /// How long a signature stays valid, in seconds.
    pub valid_secs: u32,
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let line = |t: &str| !t.is_empty() && t.len() <= 64 && t.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if !line(&self.origin) || !line(&self.label) {
            return Err(Error::Settings("origin and label are lines of 1 to 64 printable ASCII characters".into()));
        }
        if self.arches.is_empty() || self.arches.contains(&Arch::All) {
            return Err(Error::Settings("name at least one architecture, and not all".into()));
        }
        if self.valid_secs < 60 {
            return Err(Error::Settings("a signature is valid for at least 60 seconds".into()));
        }
        Ok(())
    }
}

/// Whether a lower version may replace a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Order {
    /// Only upwards.
    Upwards,
    /// Downwards too, because somebody asked for it.
    Downgrade,
}

/// One `.deb` or `.rpm` that is to enter, with the evidence for it.
#[derive(Debug, Clone)]
pub struct Addition {
    /// Where the bytes lie now.
    pub path: PathBuf,
    /// What the file is called.
    pub file: FileName,
    /// The attested SHA-256.
    pub sha256: Sha256,
    /// The attested size in bytes.
    pub size: u64,
    /// The job that built it.
    pub job: JobId,
    /// The bundle of evidence.
    pub bundle: Vec<u8>,
    /// What is to lie beside it; lines that are missing are made of the bundle.
    pub staples: Vec<Staple>,
    /// Whether it may go below the published version.
    pub order: Order,
}

/// A generation on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Every file, and every package with its evidence.
    pub manifest: Manifest,
    /// The folder that is served.
    pub root: PathBuf,
    /// The generation.
    pub generation: u64,
    /// The term of the coordinator that published it.
    pub term: Term,
    /// The time in its Release file.
    pub at: Timestamp,
}

/// The publisher of one repository; it holds the folder's lock.
pub struct Repository {
    dir: PathBuf,
    settings: Settings,
    keys: Keys,
    keyring: Keyring,
    authority: Option<Authority>,
    gate: Option<Gate>,
    keeper: Option<Arc<dyn Keeper>>,
    state: State,
    _lock: Lock,
    #[cfg(test)]
    steps_left: std::sync::atomic::AtomicUsize,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("dir", &self.dir).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Repository {
    /// Opens or creates a repository below `dir` and finishes what a crash interrupted.
    ///
    /// # Errors
    /// When another process publishes here, the settings cannot be written, or a file operation fails.
    pub fn open(dir: &Path, settings: Settings, keys: impl Into<Keys>) -> Result<Self, Error> {
        let keys = keys.into();
        settings.check()?;
        for folder in ["public", "state/incoming"] {
            disk::create_folder(&dir.join(folder))?;
        }
        let lock = Lock::take(&dir.join("state/lock"))?.ok_or_else(|| Error::Locked { dir: dir.into() })?;
        let state = State::read(&dir.join("state/state"))?.unwrap_or_else(|| State::empty(settings.clone()));
        let mut repository = Self {
            dir: dir.into(),
            settings,
            keyring: Keyring::new(keys.certificates()?),
            authority: None,
            gate: None,
            keeper: None,
            keys,
            state,
            _lock: lock,
            #[cfg(test)]
            steps_left: std::sync::atomic::AtomicUsize::new(usize::MAX),
        };
        repository.recover()?;
        Ok(repository)
    }

    /// Gives the folder that is served.
    pub fn root(&self) -> PathBuf {
        self.dir.join("public")
    }

    /// Gives the published generation, 0 before the first.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// Says whether any try of a generation went so far that parts of it may be seen, now or after the next call: the fence is
    /// raised before a plan is recorded. One that cannot be read says nothing to the contrary.
    pub fn may_have_begun(&self, generation: u64) -> bool {
        Fence::read(&self.dir.join("state")).map_or(true, |fence| fence.generation >= generation)
    }

    /// Says whether half of the signature's life is over.
    pub fn needs_signature(&self, at: Timestamp) -> bool {
        let half = Duration::from_secs(u64::from(self.state.settings.valid_secs) / 2);
        self.state.generation > 0 && at >= self.state.at.after(half)
    }

    /// Gives the time of the published generation, 0 before the first.
    pub fn at(&self) -> Timestamp {
        self.state.at
    }

    /// Gives the term in which the published generation was signed.
    pub fn term(&self) -> Term {
        self.state.term
    }

    /// Lets only who has this authority publish; without one, whoever holds the lock may, in the term that is recorded.
    pub fn led_by(&mut self, authority: Authority) {
        self.authority = Some(authority);
    }

    /// Signs with these keys from the next generation on. [`Repository::trust`] has them published.
    pub fn sign_with(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Publishes these certificates beside its own from the next generation on, so that clients trust whoever publishes after
    /// this node.
    ///
    /// # Errors
    /// When an own certificate cannot be written.
    pub fn trust(&mut self, certificates: impl IntoIterator<Item = Certificate>) -> Result<(), Error> {
        self.keyring = Keyring::new(certificates.into_iter().chain(self.keys.certificates()?));
        Ok(())
    }

    /// Says whether clients would get another keyring than the one that the next generation publishes.
    pub fn needs_keyring(&self) -> bool {
        let published = self.state.written.iter().find(|f| f.path.as_str() == index::KEYRING);
        self.state.generation > 0 && published.is_some_and(|f| f.hash != Hash::of(&self.keyring.to_bytes()))
    }

    /// Gives the published generation again.
    ///
    /// # Errors
    /// When the key cannot sign any more what a former version of this program published.
    pub fn published(&self) -> Result<Published, Error> {
        let written = if self.state.written.is_empty() {
            index::digests(&index::generate(&self.state, &self.keys, &self.keyring)?)
        } else {
            self.state.written.clone()
        };
        let manifest = index::manifest(&self.state, &written);
        let State { generation, term, at, .. } = self.state;
        Ok(Published { manifest, root: self.root(), generation, term, at })
    }

    /// Publishes the next generation. Repeating a generation with the same additions gives it back as it was recorded; so does
    /// repeating one that was adopted and holds them all.
    ///
    /// # Errors
    /// The first rule that is broken; then nothing has changed. A file error may leave a plan, which the next call finishes.
    pub fn publish(&mut self, additions: &[Addition], at: Timestamp, generation: u64) -> Result<Published, Error> {
        let held = |own: &Self| own.adopted_holds(additions);
        self.change(request(additions), (at, generation), held, |own, next| {
            additions.iter().try_for_each(|addition| own.admit(next, addition))
        })
    }

    /// Makes the next generation by a change of the packages. Repeating a generation with the same request, or one that holds
    /// already what is wanted, gives it back as it was recorded, and nothing is changed then.
    fn change(
        &mut self,
        request: Hash,
        (at, generation): (Timestamp, u64),
        held: impl FnOnce(&Self) -> bool,
        plan: impl FnOnce(&Self, &mut State) -> Result<(), Error>,
    ) -> Result<Published, Error> {
        self.recover()?;
        let private = self.dir.join("state");
        let fence = Fence::read(&private)?;
        let term = self.leads()?;
        fence.admit(generation, term)?;
        if generation == self.state.generation {
            let same = request == self.state.request || held(self);
            return if same { self.published() } else { Err(Error::Conflict { generation }) };
        }
        self.comes_later(at, generation)?;
        let mut next = State { generation, term, at, request, settings: self.settings.clone(), ..self.state.clone() };
        plan(self, &mut next)?;
        self.keep(&mut next)?;
        self.sign_again(&mut next)?;
        self.staple(&mut next)?;
        self.check_pool(&next)?;
        self.still_leads(term)?;
        let outputs = self.retire(&mut next)?;
        self.stage(&mut next, &outputs)?;
        self.still_leads(term)?;
        fence.raise(&private, generation, term)?;
        self.step()?;
        self.pass(&next, term)?;
        next.write(&private, &private.join("next"))?;
        self.step()?;
        self.switch(next)?;
        self.published()
    }

    /// Signs the same packages again, as a generation of their own.
    ///
    /// # Errors
    /// As [`Repository::publish`].
    pub fn resign(&mut self, at: Timestamp, generation: u64) -> Result<Published, Error> {
        self.publish(&[], at, generation)
    }

    fn comes_later(&self, at: Timestamp, generation: u64) -> Result<(), Error> {
        if generation < self.state.generation {
            return Err(Error::Fenced { got: generation, published: self.state.generation });
        }
        if at.as_secs() < self.state.at.as_secs() {
            return Err(Error::Backwards { at: at.as_secs(), published: self.state.at.as_secs() });
        }
        Ok(())
    }

    fn leads(&self) -> Result<Term, Error> {
        match &self.authority {
            Some(authority) => Ok(authority()?),
            None => Ok(Fence::read(&self.dir.join("state"))?.term),
        }
    }

    /// Between the beginning and now somebody else may have been elected.
    fn still_leads(&self, term: Term) -> Result<(), Error> {
        let now = self.leads()?;
        if now == term { Ok(()) } else { Err(NotLeading { why: format!("term {term} ended, now it is {now}") }.into()) }
    }

    /// Compares sizes only: contents were hashed when they entered.
    fn check_pool(&self, next: &State) -> Result<(), Error> {
        let entering: BTreeSet<_> = next.entering.iter().map(|e| &e.path).collect();
        let files = next.packages.iter().flat_map(Pooled::files).filter(|f| !entering.contains(&f.path));
        for file in files {
            if disk::size_of(&self.root().join(file.path.as_str())) != Some(file.size) {
                return Err(Error::Damaged { path: file.path.clone() });
            }
        }
        Ok(())
    }
}

/// Names what was asked for, so that a repetition is recognised. Time and evidence are left out: who repeats after a crash
/// may have a later clock and more attestations, and gets the generation as it was recorded.
fn request(additions: &[Addition]) -> Hash {
    let line = |a: &Addition| (a.file.as_str().to_owned(), a.sha256, a.size, a.job, a.order);
    let mut lines: Vec<_> = additions.iter().map(line).collect();
    lines.sort_by(|a, b| (&a.0, a.1, a.3).cmp(&(&b.0, b.1, b.3)));
    Hash::of(&serde_json::to_vec(&lines).expect("names, numbers and hashes can be written"))
}

/// Gives the name under which a file waits: by its place, since the packages of one job share one bundle.
fn staged(path: &RelativePath) -> String {
    Hash::of(path.as_str().as_bytes()).to_string()
}

/// Gives the place of a file in the pool, by its source package (Debian's layout: `pool/main/<prefix>/<source>/`); none when
/// the name is not one.
pub fn pool_path(source: &PackageName, name: &str) -> Option<RelativePath> {
    let source = source.as_str();
    let prefix = if source.starts_with("lib") { &source[..source.len().min(4)] } else { &source[..1] };
    RelativePath::new(format!("pool/main/{prefix}/{source}/{name}")).ok()
}

/// Plans a package's place; whatever no index lists any more leaves the list of packages.
fn enter(next: &mut State, mut package: Pooled, order: Order) -> Result<(), Error> {
    package.since = Some(next.at);
    if order == Order::Downgrade {
        let meets = |p: &Pooled| {
            p.kind() == package.kind() && (p.arch == package.arch || p.arch == Arch::All || package.arch == Arch::All)
        };
        let above = |p: &Pooled| dominate::order(&package, p) == std::cmp::Ordering::Less;
        next.packages.retain(|p| p.name != package.name || !meets(p) || !above(p));
    }
    next.packages.push(package.clone());
    let (listed, _) = dominate::split(std::mem::take(&mut next.packages), &next.settings.arches);
    next.packages = listed;
    if !next.packages.iter().any(|p| p.file.path == package.file.path) {
        let same = |p: &&Pooled| p.name == package.name && p.kind() == package.kind();
        let same = next.packages.iter().filter(same);
        let newest = same.max_by(|a, b| dominate::order(a, b)).map(|p| p.version.clone());
        let published = newest.unwrap_or_else(|| package.version.clone());
        return Err(Error::Older { name: package.name, arch: package.arch, version: package.version, published });
    }
    for file in package.files() {
        next.entering.push(Entering { path: file.path.clone(), size: file.size });
    }
    let (attested, path) = (package.attested(), package.file.path);
    next.note(path, attested);
    Ok(())
}

#[cfg(test)]
mod tests;
