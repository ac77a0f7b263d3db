//! Environments: the exact set of packages that a build sees, as a lock. Its hash is an input of the job.
//!
//! A lock's packages are of one family, whose tools install them: `.deb`s or RPMs, never both.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Arch, FileName, Hash, PackageName, Sha256, SuiteName,
    codec::{self, DoorError},
    envelope::check_set,
    limits,
    words::{DebVersion, RelativePath},
};

/// One package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// The package's own architecture (`all` or the lock's).
    pub arch: Arch,
    /// The package's file, without a folder.
    pub file: FileName,
    /// Where in its archive the file lies, below the root that all mirrors have alike (`pool/main/t/tree/..`); none in locks
    /// of old, and where an archive has no pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RelativePath>,
    /// The file's BLAKE3: how peers ask each other for it.
    pub hash: Hash,
    /// The package's name.
    pub name: PackageName,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256: what the archive's signed index said.
    pub sha256: Sha256,
    /// The package's version.
    pub version: DebVersion,
}

/// Which tools install the packages of an environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `dpkg` and its kin: the packages are `.deb`s. A lock does not say so in bytes: those of old stay what they are.
    #[default]
    Dpkg,
    /// `rpm` and `dnf`: the packages are RPMs.
    Rpm,
}

impl Family {
    /// Says whether a lock leaves the family out.
    fn is_unsaid(&self) -> bool {
        *self == Family::Dpkg
    }

    /// What the name of every package's file ends with.
    pub const fn ending(self) -> &'static str {
        match self {
            Family::Dpkg => ".deb",
            Family::Rpm => ".rpm",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Dpkg => "dpkg",
            Family::Rpm => "rpm",
        })
    }
}

/// The lock of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentLock {
    /// The architecture that the environment runs on.
    pub arch: Arch,
    /// The time that every file of the environment gets at most, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: u64,
    /// The archive's codename, for instance `bookworm`; for RPMs, what `$releasever` stands for.
    pub suite: SuiteName,
    /// Which tools install the packages.
    #[serde(default, skip_serializing_if = "Family::is_unsaid")]
    pub family: Family,
    /// Every package, sorted by name; libfaketime is always among them. None for a light command.
    pub packages: Vec<LockedPackage>,
}

impl EnvironmentLock {
    /// Gives the lock's address: the hash of its canonical bytes.
    pub fn id(&self) -> Hash {
        Hash::of(&codec::encode(self))
    }

    /// Gives the canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a lock and checks its rules.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LockError> {
        let lock: Self = codec::decode(bytes, limits::LOCK_MAX)?;
        lock.check().map_err(LockError::Meaning)?;
        Ok(lock)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// A fragment that names the rule.
    pub fn check(&self) -> Result<(), String> {
        let names: Vec<_> = self.packages.iter().map(|p| &p.name).collect();
        check_set("packages of the lock", &names, limits::LOCK_PACKAGES_MAX)?;
        let files: BTreeSet<_> = self.packages.iter().map(|p| &p.file).collect();
        if files.len() < self.packages.len() {
            return Err("two packages of the lock have one file name".into());
        }
        if let Some(other) = self.packages.iter().find(|p| !p.file.as_str().ends_with(self.family.ending())) {
            return Err(format!("{} does not end in {}", other.file, self.family.ending()));
        }
        if self.epoch > u64::from(u32::MAX) {
            return Err("the lock's date is after the year 2106".into());
        }
        match self.packages.iter().find(|p| p.arch != Arch::All && p.arch != self.arch) {
            Some(p) => Err(format!("package {} is for {}, the lock for {}", p.name, p.arch, self.arch)),
            None => Ok(()),
        }
    }

    /// Finds a package by name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.iter().find(|p| p.name.as_str() == name)
    }
}

/// Why a lock was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A rule does not hold.
    #[error("environment lock is not acceptable: {0}")]
    Meaning(String),
}

#[cfg(test)]
mod tests;
