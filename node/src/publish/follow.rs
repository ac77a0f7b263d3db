//! A mirror's tree: the files of a release, fetched by hash, checked and switched in the publisher's order.
//!
//! ```text
//!  verified release -> manifest -> fetch all (pool and by-hash into place, the rest aside) -> promise -> switch -> record
//! ```
//!
//! A generation is promised before the first named file changes, and nobody goes below a promise, so neither a crash nor an
//! old release turns the tree back. Whether the release's signer may speak for the channel, and whether the packages'
//! evidence holds, is the caller's question.

pub mod covered;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use protocol::{
    ChannelName, Hash, Sha256, Timestamp, Verified,
    lease::Term,
    release::{Manifest, ManifestError, PublishedPackage, Release, ReleaseFile},
    words::RelativePath,
};
use serde::{Deserialize, Serialize};

use super::{
    apt::{
        BUNDLE_SUFFIX, Fetch, REMOVE_AFTER,
        index::{Stage, stage},
        staple::SUFFIXES,
    },
    disk::{self, Lock},
};
use crate::resolve::digest::Digest;

/// Why a release was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Another process writes this mirror.
    #[error("another process writes the mirror {dir}; stop it, or wait until it ends")]
    Locked {
        /// The mirror's folder.
        dir: PathBuf,
    },
    /// The mirror's own record cannot be read.
    #[error("the mirror's record {path} cannot be read: {why}; remove the mirror's folder to fetch everything again")]
    State {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        why: String,
    },
    /// A release of another channel.
    #[error("the release is for channel {got}, this mirror follows {wanted}")]
    Channel {
        /// The release's channel.
        got: ChannelName,
        /// The mirror's channel.
        wanted: ChannelName,
    },
    /// The manifest is not the one that the release names.
    #[error("the manifest has the hash {got}, the release names {wanted}")]
    WrongManifest {
        /// The hash of the bytes.
        got: Hash,
        /// The hash in the release.
        wanted: Hash,
    },
    /// The manifest breaks a rule of the protocol.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A path that no repository of ours has.
    #[error("the manifest names {path}, which is neither below pool, dists or repodata nor the archive's key")]
    Path {
        /// The path.
        path: RelativePath,
    },
    /// An older generation than the one that was applied or begun.
    #[error("generation {got} comes after generation {have}; a mirror does not go back")]
    Backwards {
        /// The release's generation.
        got: u64,
        /// The mirror's generation.
        have: u64,
    },
    /// A generation that a later term signed as well.
    #[error("term {got} is over: the mirror has this generation from term {have}")]
    OlderTerm {
        /// The release's term.
        got: Term,
        /// The term of what is here.
        have: Term,
    },
    /// Two signed releases with one number: the publisher says two things.
    #[error("generation {generation} has two manifests, {have} and {got}: keep both releases as evidence")]
    Equivocation {
        /// The generation.
        generation: u64,
        /// The manifest that was applied.
        have: Hash,
        /// The manifest of this release.
        got: Hash,
    },
    /// A name of the pool would get other bytes.
    #[error("{path} would change from {have} to {got}; names in the pool never change")]
    Different {
        /// The name.
        path: RelativePath,
        /// The content here.
        have: Sha256,
        /// The content in the release.
        got: Sha256,
    },
    /// More bytes than the mirror may hold.
    #[error("the release has {got} bytes, this mirror may hold {limit}; give it more room")]
    TooLarge {
        /// Bytes of the release.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file could not be had.
    #[error("cannot fetch {path} ({hash})")]
    Fetch {
        /// The file.
        path: RelativePath,
        /// Its hash.
        hash: Hash,
        /// The fetcher's words.
        #[source]
        source: io::Error,
    },
    /// Fetched bytes are not those that the manifest names.
    #[error("what was fetched for {path} is not what the manifest names: wanted {wanted}, got {got}")]
    WrongBytes {
        /// The file.
        path: RelativePath,
        /// The SHA-256 in the manifest.
        wanted: Sha256,
        /// The SHA-256 of the bytes.
        got: Sha256,
    },
}

/// What the mirror remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Followed {
    generation: u64,
    /// The generation whose switch was begun last, and its manifest.
    promised: (u64, Hash),
    /// The term in which that one was signed.
    #[serde(default)]
    term: Term,
    /// The packages of that one, by their digest: a later term may sign the same ones again.
    #[serde(default)]
    packages: Option<Hash>,
    /// What was attested of each RPM: a later term may sign the same one with another key.
    #[serde(default)]
    attested: BTreeMap<RelativePath, Sha256>,
    files: Vec<ReleaseFile>,
    retired: Vec<(RelativePath, Timestamp)>,
}

/// A release that may be applied.
struct Checked {
    /// In switching order.
    files: Vec<ReleaseFile>,
    /// The packages, by their digest.
    packages: Hash,
    attested: BTreeMap<RelativePath, Sha256>,
}

/// What one application did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The generation that the tree shows now.
    pub generation: u64,
    /// Files that were fetched.
    pub fetched: usize,
    /// Bytes that were fetched.
    pub bytes: u64,
}

/// A mirror of one channel; it holds the folder's lock.
#[derive(Debug)]
pub struct Mirror {
    dir: PathBuf,
    channel: ChannelName,
    bytes_max: u64,
    state: Followed,
    _lock: Lock,
}

impl Mirror {
    /// Opens or creates the mirror of a channel, which may hold `bytes_max` bytes.
    ///
    /// # Errors
    /// When another process writes it, or a file operation fails.
    pub fn open(dir: &Path, channel: ChannelName, bytes_max: u64) -> Result<Self, Error> {
        for folder in ["public", "state/incoming"] {
            disk::create_folder(&dir.join(folder))?;
        }
        let lock = Lock::take(&dir.join("state/lock"))?.ok_or_else(|| Error::Locked { dir: dir.into() })?;
        let path = dir.join("state/followed");
        let state = match disk::read_sealed(&path)? {
            Some(record) => {
                serde_json::from_slice(&record).map_err(|e| Error::State { path: path.clone(), why: e.to_string() })?
            }
            None => Followed {
                generation: 0,
                promised: (0, Hash::of(b"")),
                term: Term(0),
                packages: None,
                attested: BTreeMap::new(),
                files: vec![],
                retired: vec![],
            },
        };
        Ok(Self { dir: dir.into(), channel, bytes_max, state, _lock: lock })
    }

    /// Gives the folder that is served.
    pub fn root(&self) -> PathBuf {
        self.dir.join("public")
    }

    /// Gives the generation that the tree shows, 0 before the first.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// Says whether a release is newer than what the tree shows, or contradicts it; one that is neither changes nothing.
    pub fn wants(&self, release: &Release) -> bool {
        let shown = (self.state.generation, self.state.promised.1, self.state.term);
        let (generation, manifest, term) = shown;
        release.generation > generation
            || release.generation == generation && release.manifest != manifest && release.term >= term
    }

    /// Applies a release: fetches what is missing, checks everything, switches. Applying the newest one again repairs files
    /// that are gone.
    ///
    /// # Errors
    /// The first check that fails. Until everything was fetched and checked, what clients see has not changed.
    pub fn apply(
        &mut self,
        release: &Verified<Release>,
        manifest: &[u8],
        now: Timestamp,
        fetch: &mut Fetch<'_>,
    ) -> Result<Applied, Error> {
        let Checked { files, packages, attested } = self.check(release.get(), manifest)?;
        let mut applied = Applied { generation: release.get().generation, fetched: 0, bytes: 0 };
        let mut local: BTreeMap<Hash, PathBuf> = BTreeMap::new();
        let mut aside = Vec::new();
        for file in &files {
            let place = self.root().join(file.path.as_str());
            if !self.has(file, &place) {
                let to = self.obtain(file, &mut local, &mut applied, fetch)?;
                match stage(&file.path) {
                    Stage::Pool | Stage::ByHash => disk::rename(&to, &place)?,
                    Stage::Named | Stage::Signature | Stage::Release | Stage::InRelease => {
                        aside.push((to, place.clone()))
                    }
                }
            }
            if stage(&file.path) == Stage::ByHash {
                local.insert(file.hash, place);
            }
        }
        self.state.promised = (release.get().generation, release.get().manifest);
        self.state.term = release.get().term;
        // Until the switch is over the tree shows less than this generation, also when it replaces one of an older term.
        self.state.generation = self.state.generation.min(release.get().generation.saturating_sub(1));
        self.state.packages = Some(packages);
        self.record()?;
        for (from, place) in &aside {
            disk::rename(from, place)?;
        }
        self.state.attested = attested;
        self.finish(release.get().generation, files, now)?;
        Ok(applied)
    }

    /// Judges a release by its manifest alone, before anything is fetched for it.
    ///
    /// # Errors
    /// As [`Mirror::apply`].
    pub fn judge(&self, release: &Release, manifest: &[u8]) -> Result<(), Error> {
        self.check(release, manifest).map(drop)
    }

    /// Checks a release and its manifest against each other and against what is here; gives the files in switching order.
    fn check(&self, release: &Release, bytes: &[u8]) -> Result<Checked, Error> {
        if release.channel != self.channel {
            return Err(Error::Channel { got: release.channel.clone(), wanted: self.channel.clone() });
        }
        let (have, known) = self.state.promised;
        if release.generation < have {
            return Err(Error::Backwards { got: release.generation, have });
        }
        let got = Hash::of(bytes);
        if got != release.manifest {
            return Err(Error::WrongManifest { got, wanted: release.manifest });
        }
        let manifest = Manifest::from_bytes(bytes)?;
        let packages = packages(&manifest);
        if release.generation == have && release.manifest != known {
            // A new coordinator repeats what a former one may have signed without saying so: the packages decide.
            if release.term == self.state.term || self.state.packages != Some(packages) {
                return Err(Error::Equivocation { generation: have, have: known, got: release.manifest });
            }
            if release.term < self.state.term {
                return Err(Error::OlderTerm { got: release.term, have: self.state.term });
            }
        }
        let attested = manifest.packages.iter().filter_map(|p| Some((p.path.clone(), p.attested?)));
        let attested: BTreeMap<_, _> = attested.collect();
        let mut files = manifest.files;
        let size = files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size));
        if size > self.bytes_max {
            return Err(Error::TooLarge { got: size, limit: self.bytes_max });
        }
        for file in &files {
            let path = file.path.as_str();
            let ours = ["pool/", "dists/", "repodata/"].iter().any(|folder| path.starts_with(folder));
            if !ours && !["archive-key.gpg", "archive-key.asc"].contains(&path) {
                return Err(Error::Path { path: file.path.clone() });
            }
            let signed_again =
                attested.contains_key(&file.path) && self.state.attested.get(&file.path) == attested.get(&file.path);
            let changed = |old: &&ReleaseFile| old.sha256 != file.sha256 && is_package(path) && !signed_again;
            if let Some(old) = self.known(&file.path).filter(changed) {
                return Err(Error::Different { path: file.path.clone(), have: old.sha256, got: file.sha256 });
            }
        }
        files.sort_by(|a, b| (stage(&a.path), &a.path).cmp(&(stage(&b.path), &b.path)));
        Ok(Checked { files, packages, attested })
    }

    fn known(&self, path: &RelativePath) -> Option<&ReleaseFile> {
        self.state.files.binary_search_by(|f| f.path.cmp(path)).ok().map(|at| &self.state.files[at])
    }

    /// Says whether a file is in its place: by its record and size, or, left by an interrupted run, by its hash.
    fn has(&self, file: &ReleaseFile, place: &Path) -> bool {
        if disk::size_of(place) != Some(file.size) {
            return false;
        }
        let settled = self.state.promised.0 == self.state.generation;
        if settled && self.known(&file.path).is_some_and(|known| known.hash == file.hash) {
            return true;
        }
        Digest::of_file(place).is_ok_and(|d| (d.hash, d.sha256) == (file.hash, file.sha256))
    }

    /// Copies a file's bytes aside and checks them; an index that lies under its hash already is not fetched again.
    fn obtain(
        &self,
        file: &ReleaseFile,
        local: &mut BTreeMap<Hash, PathBuf>,
        applied: &mut Applied,
        fetch: &mut Fetch<'_>,
    ) -> Result<PathBuf, Error> {
        let failed = |source| Error::Fetch { path: file.path.clone(), hash: file.hash, source };
        let mut from: Box<dyn Read> = match local.get(&file.hash) {
            Some(path) => Box::new(File::open(path).map_err(failed)?),
            None => {
                applied.fetched += 1;
                applied.bytes += file.size;
                fetch(file).map_err(failed)?
            }
        };
        let to = self.dir.join("state/incoming").join(Hash::of(file.path.as_str().as_bytes()).to_string());
        let got = disk::copy(&mut from, &to, file.size.saturating_add(1))?;
        if (got.hash, got.sha256, got.size) != (file.hash, file.sha256, file.size) {
            disk::remove(&to)?;
            return Err(Error::WrongBytes { path: file.path.clone(), wanted: file.sha256, got: got.sha256 });
        }
        Ok(to)
    }

    /// Removes what is no longer listed, pool files and indexes by hash only after a day, and records the generation.
    fn finish(&mut self, generation: u64, mut files: Vec<ReleaseFile>, now: Timestamp) -> Result<(), Error> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let listed = |path: &RelativePath| files.binary_search_by(|f| f.path.cmp(path)).is_ok();
        let gone = self.state.files.iter().filter(|f| !listed(&f.path)).map(|f| (f.path.clone(), now));
        let mut retired: Vec<_> = self.state.retired.iter().cloned().chain(gone).filter(|(p, _)| !listed(p)).collect();
        retired.sort();
        retired.dedup_by(|a, b| a.0 == b.0);
        let root = self.root();
        let keeps = |path: &RelativePath| matches!(stage(path), Stage::Pool | Stage::ByHash);
        for (path, _) in retired.extract_if(.., |(path, since)| !keeps(path) || now.since(*since) >= REMOVE_AFTER) {
            let file = root.join(path.as_str());
            disk::remove(&file)?;
            disk::remove_empty_folders(&root, &file);
        }
        self.state = Followed { generation, files, retired, ..self.state.clone() };
        self.record()?;
        let incoming = self.dir.join("state/incoming");
        for entry in fs::read_dir(&incoming).map_err(disk::failed("list", &incoming))?.flatten() {
            disk::remove(&entry.path())?;
        }
        Ok(())
    }

    fn record(&self) -> Result<(), Error> {
        let record = serde_json::to_vec(&self.state).expect("the record holds only strings, numbers and lists");
        let private = self.dir.join("state");
        Ok(disk::write_sealed(&private, &private.join("followed"), &record)?)
    }
}

/// Says whether a name of the pool is a package's; evidence may grow.
fn is_package(path: &str) -> bool {
    path.starts_with("pool/") && !path.ends_with(BUNDLE_SUFFIX) && !SUFFIXES.iter().any(|suffix| path.ends_with(suffix))
}

/// Names the packages of a manifest and their bytes, without evidence and signatures.
fn packages(manifest: &Manifest) -> Hash {
    let content = |p: &PublishedPackage| p.attested.or_else(|| manifest.file(&p.path).map(|f| f.sha256));
    let lines = manifest.packages.iter().map(|p| (&p.path, &p.job, content(p)));
    Hash::of(&serde_json::to_vec(&lines.collect::<Vec<_>>()).expect("names and hashes can be written"))
}

#[cfg(test)]
mod tests;
