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
use crate::publish::{
    disk,
    kind::Kind,
    rpm::{self, package::Entry},
};

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
    /// What is stapled to it, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) staples: Vec<ReleaseFile>,
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

    /// Says what kind of package it is.
    pub(super) fn kind(&self) -> Kind {
        if self.rpm.is_some() { Kind::Rpm } else { Kind::Deb }
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
    /// Every name that was ever in the pool, with what was attested under it; sorted. Whoever publishes signs an RPM otherwise.
    #[serde(rename = "attested", default)]
    pub(super) seen: Vec<(RelativePath, Sha256)>,
    /// As former versions kept it: of an RPM, the digest with a signature.
    #[serde(rename = "seen", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) former: Vec<(RelativePath, Sha256)>,
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
            former: vec![],
        }
    }

    /// Says whether this is a later state than another: a generation may be given again by a coordinator of a later term.
    pub(super) fn comes_after(&self, other: &Self) -> bool {
        (self.generation, self.term) > (other.generation, other.term)
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(record) = disk::read_sealed(path)? else { return Ok(None) };
        let read = serde_json::from_slice::<Self>(&record);
        let state = read.map_err(|e| Error::State { path: path.into(), why: e.to_string() })?;
        Ok(Some(state.upgraded()))
    }

    pub(super) fn write(&self, temporary: &Path, path: &Path) -> Result<(), Error> {
        let record = serde_json::to_vec(self).expect("the record holds only strings, numbers and lists");
        Ok(disk::write_sealed(temporary, path, &record)?)
    }

    /// Takes over the names that a former version noted. What was attested of an RPM is known while it is listed; the name of one
    /// that was taken out is free again.
    fn upgraded(mut self) -> Self {
        for (path, sha256) in std::mem::take(&mut self.former) {
            let listed = self.packages.iter().find(|p| p.file.path == path);
            let attested = match (listed, path.as_str().ends_with(rpm::SUFFIX)) {
                (Some(package), _) => package.attested(),
                (None, false) => sha256,
                (None, true) => continue,
            };
            self.note(path, attested);
        }
        self
    }

    /// Remembers what was attested under a name of the pool.
    pub(super) fn note(&mut self, path: RelativePath, attested: Sha256) {
        if let Err(at) = self.seen.binary_search_by(|(known, _)| known.cmp(&path)) {
            self.seen.insert(at, (path, attested));
        }
    }

    /// Gives what was attested under a pool name, now or before.
    pub(super) fn attested_of(&self, path: &RelativePath) -> Option<Sha256> {
        self.seen.binary_search_by(|(p, _)| p.cmp(path)).ok().map(|at| self.seen[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::testing::{AT, addition, repository, rpm};

    #[test]
    fn names_that_a_former_version_noted_are_taken_over() {
        let (dir, packages) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let add = [addition(packages.path(), ("tiny", "1", "amd64"), "a"), rpm(packages.path(), "1.2^git3")];
        let path = dir.path().join("state/state");
        repository(dir.path()).publish(&add, AT, 1).unwrap();
        let state = State::read(&path).unwrap().unwrap();
        let signed: Vec<_> = state.packages.iter().map(|p| (p.file.path.clone(), p.file.sha256)).collect();
        let gone: RelativePath = "pool/main/g/gone/gone-1-1.noarch.rpm".parse().unwrap();
        let former = signed.into_iter().chain([(gone.clone(), Sha256::of(b"signed"))]).collect();
        State { seen: vec![], former, ..state.clone() }.write(&dir.path().join("state"), &path).unwrap();
        let read = State::read(&path).unwrap().unwrap();
        assert_eq!(read, state);
        assert_eq!(read.seen.len(), 2);
        assert!(read.packages.iter().all(|p| read.attested_of(&p.file.path) == Some(p.attested())));
        assert_eq!(read.attested_of(&gone), None);
    }
}
