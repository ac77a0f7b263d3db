//! What a publisher remembers: the packages of the last generation, and what waits to be removed.
//!
//! The record carries the digest of every pool file, so publishing never hashes the pool again; it is sealed with its own
//! hash. A plan is the next record, written before anything that others see changes: after a crash it is carried out again.

use std::path::Path;

use protocol::{
    Arch, Hash, JobId, PackageName, Sha256, Timestamp,
    lease::Term,
    release::{PublishedPackage, ReleaseFile},
    words::{DebVersion, RelativePath},
};
use serde::{Deserialize, Serialize};

use super::{Error, Settings};
use crate::publish::{disk, rpm::package::Entry};

/// One binary package in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pooled {
    pub(super) name: PackageName,
    pub(super) version: DebVersion,
    pub(super) arch: Arch,
    pub(super) source: PackageName,
    pub(super) source_version: DebVersion,
    pub(super) job: JobId,
    pub(super) file: ReleaseFile,
    pub(super) bundle: ReleaseFile,
    pub(super) control: String,
    /// When it was published here; none where that was not noted.
    #[serde(default)]
    pub(super) since: Option<Timestamp>,
    /// What only an RPM has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rpm: Option<Entry>,
}

impl Pooled {
    /// Gives the SHA-256 that the builders attested: of an RPM, before it was signed.
    pub(super) fn attested(&self) -> Sha256 {
        self.rpm.as_ref().map_or(self.file.sha256, |rpm| rpm.attested)
    }

    /// Gives the manifest's line.
    pub(super) fn published(&self) -> PublishedPackage {
        PublishedPackage {
            job: self.job,
            arch: self.arch,
            name: self.name.clone(),
            path: self.file.path.clone(),
            bundle: self.bundle.hash,
            version: self.version.clone(),
            attested: self.rpm.as_ref().map(|rpm| rpm.attested),
        }
    }
}

/// A file that no index names any more, and since when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Retired {
    pub(super) path: RelativePath,
    pub(super) since: Timestamp,
}

/// A checked file that waits in the publisher's own folder for its place in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entering {
    pub(super) path: RelativePath,
    pub(super) size: u64,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) generation: u64,
    #[serde(default)]
    pub(super) term: Term,
    pub(super) at: Timestamp,
    pub(super) request: Hash,
    pub(super) settings: Settings,
    pub(super) packages: Vec<Pooled>,
    pub(super) entering: Vec<Entering>,
    pub(super) by_hash: Vec<RelativePath>,
    /// Every file of the generation outside the pool, as it was written.
    #[serde(default)]
    pub(super) written: Vec<ReleaseFile>,
    pub(super) retired: Vec<Retired>,
    /// Every name that was ever in the pool, with its one content; sorted.
    pub(super) seen: Vec<(RelativePath, Sha256)>,
}

impl State {
    /// Before the first generation.
    pub(super) fn empty(settings: Settings) -> Self {
        Self {
            generation: 0,
            term: Term(0),
            at: Timestamp::ZERO,
            request: Hash::of(b""),
            settings,
            packages: vec![],
            entering: vec![],
            by_hash: vec![],
            written: vec![],
            retired: vec![],
            seen: vec![],
        }
    }

    /// Says whether this is a later state than another: a generation may be given again by a coordinator of a later term.
    pub(super) fn comes_after(&self, other: &Self) -> bool {
        (self.generation, self.term) > (other.generation, other.term)
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(record) = disk::read_sealed(path)? else { return Ok(None) };
        serde_json::from_slice(&record).map(Some).map_err(|e| Error::State { path: path.into(), why: e.to_string() })
    }

    pub(super) fn write(&self, temporary: &Path, path: &Path) -> Result<(), Error> {
        let record = serde_json::to_vec(self).expect("the record holds only strings, numbers and lists");
        Ok(disk::write_sealed(temporary, path, &record)?)
    }

    /// Gives the content that a pool name has or had.
    pub(super) fn content_of(&self, path: &RelativePath) -> Option<Sha256> {
        self.seen.binary_search_by(|(p, _)| p.cmp(path)).ok().map(|at| self.seen[at].1)
    }
}
