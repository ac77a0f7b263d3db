//! Environments: the exact set of packages that a build sees, as a lock. Its hash is an input of the job.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    Arch, FileName, Hash, PackageName, Sha256, SuiteName,
    codec::{self, DoorError},
    envelope::check_set,
    limits,
    words::DebVersion,
};

/// One package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// The package's own architecture (`all` or the lock's).
    pub arch: Arch,
    /// The `.deb`'s name, without a folder.
    pub file: FileName,
    /// The `.deb`'s BLAKE3: how peers ask each other for it.
    pub hash: Hash,
    /// The package's name.
    pub name: PackageName,
    /// The `.deb`'s size in bytes.
    pub size: u64,
    /// The `.deb`'s SHA-256: what the archive's signed index said.
    pub sha256: Sha256,
    /// The package's version.
    pub version: DebVersion,
}

/// The lock of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentLock {
    /// The architecture that the environment runs on.
    pub arch: Arch,
    /// The time that every file of the environment gets at most, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: u64,
    /// The archive's codename, for instance `bookworm`.
    pub suite: SuiteName,
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
