//! Releases: one generation of one repository.
//!
//! The release is a small signed record that names the manifest by hash; the manifest lists every file of the repository
//! and, for each package, the bundle of evidence that an offline check needs.

use serde::{Deserialize, Serialize};

use crate::{
    Arch, ChannelName, Hash, JobId, PackageName, Sha256, Timestamp,
    codec::{self, DoorError},
    envelope::{Record, check_set},
    lease::Term,
    limits,
    words::{DebVersion, RelativePath},
};

/// One generation of a channel's repository, signed by the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// When it was published.
    pub at: Timestamp,
    /// The term of the coordinator that published it.
    pub term: Term,
    /// The channel.
    pub channel: ChannelName,
    /// The manifest's BLAKE3.
    pub manifest: Hash,
    /// Grows by one with each release of the channel; nobody goes back.
    pub generation: u64,
}

impl Record for Release {
    const KIND: &'static str = "release";
    const LIMIT: usize = limits::GOSSIP_MAX;

    fn check(&self) -> Result<(), String> {
        if self.generation == 0 { Err("generations start at 1".into()) } else { Ok(()) }
    }
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// BLAKE3 of the content.
    pub hash: Hash,
    /// Where it lies below the repository's root.
    pub path: RelativePath,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256,
}

/// One binary package of a release, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedPackage {
    /// The job that built it.
    pub job: JobId,
    /// The package's architecture.
    pub arch: Arch,
    /// The package's name.
    pub name: PackageName,
    /// Where its file lies, see [`ReleaseFile::path`].
    pub path: RelativePath,
    /// BLAKE3 of the bundle with the signed request and the attestations.
    pub bundle: Hash,
    /// The package's version.
    pub version: DebVersion,
    /// For an RPM, the SHA-256 that the builders attested: of the file before its publisher put a signature into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<Sha256>,
}

impl PublishedPackage {
    /// Says whether this is an RPM, by its file's name.
    pub fn is_rpm(&self) -> bool {
        self.path.as_str().ends_with(".rpm")
    }
}

/// Everything in one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Files, sorted by path.
    pub files: Vec<ReleaseFile>,
    /// Binary packages, sorted by path.
    pub packages: Vec<PublishedPackage>,
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A rule does not hold.
    #[error("release manifest is not acceptable: {0}")]
    Meaning(String),
}

impl Manifest {
    /// Gives the canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a manifest: sorted files, each package's path among them.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = codec::decode(bytes, limits::MANIFEST_MAX)?;
        manifest.check().map_err(ManifestError::Meaning)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        check_set("files", &self.files.iter().map(|f| &f.path).collect::<Vec<_>>(), usize::MAX)?;
        check_set("packages", &self.packages.iter().map(|p| &p.path).collect::<Vec<_>>(), usize::MAX)?;
        if let Some(p) = self.packages.iter().find(|p| self.file(&p.path).is_none()) {
            return Err(format!("package {} has no file", p.path));
        }
        // Of anything else the file itself was attested.
        match self.packages.iter().find(|p| p.is_rpm() != p.attested.is_some()) {
            Some(p) if p.is_rpm() => Err(format!("RPM {} does not say what was attested", p.path)),
            Some(p) => Err(format!("package {} names another attested file", p.path)),
            None => Ok(()),
        }
    }

    /// Finds a file by path.
    pub fn file(&self, path: &RelativePath) -> Option<&ReleaseFile> {
        self.files.binary_search_by(|f| f.path.cmp(path)).ok().map(|at| &self.files[at])
    }
}

#[cfg(test)]
mod tests;
