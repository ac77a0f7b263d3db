//! Packages of a lock, by name and version, from the machine's archive: for a builder when no peer has them any more.
//!
//! What comes is believed by the lock's SHA-256 alone. A version that the archive does not have is named; nothing is
//! replaced by another.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{Arch, PackageName, Sha256, environment::LockedPackage};

use super::{
    archive::{self, Archive, file_error},
    digest::Digest,
    index,
};

/// Names in a sentence.
const NAMED_MAX: usize = 5;

/// Why packages were not had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive could not be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The archive has other versions now.
    #[error("the archive has {} of the lock's packages no more: {}", gone.len(), named(gone))]
    Gone {
        /// What it does not have.
        gone: Vec<PackageName>,
    },
    /// What came is not what the lock names.
    #[error("{name} of the archive is not the lock's: wanted sha256 {wanted}, got {got}")]
    Wrong {
        /// The package.
        name: PackageName,
        /// What the lock names.
        wanted: Sha256,
        /// What came.
        got: Sha256,
    },
}

fn named(gone: &[PackageName]) -> String {
    let mut words: Vec<_> = gone.iter().take(NAMED_MAX).map(PackageName::as_str).collect();
    if gone.len() > NAMED_MAX {
        words.push("and others");
    }
    words.join(", ")
}

/// Downloads packages into a folder, and gives their files in the same order. Blocking.
///
/// # Errors
/// [`Error::Gone`] before anything is downloaded, [`Error::Wrong`] after.
pub fn fetch(archive: &Archive, packages: &[LockedPackage], into: &Path) -> Result<Vec<PathBuf>, Error> {
    let _guard = archive.lock()?;
    fs::create_dir_all(into).map_err(file_error("create", into))?;
    let mut known = BTreeSet::new();
    index::each_package(archive, |package| {
        known.insert(package.sha256.clone());
    })?;
    let gone = packages.iter().filter(|p| !known.contains(&p.sha256.to_string()));
    let gone: Vec<_> = gone.map(|p| p.name.clone()).collect();
    if !gone.is_empty() {
        return Err(Error::Gone { gone });
    }
    let words = packages.iter().map(|p| {
        let arch = if p.arch == Arch::All { String::new() } else { format!(":{}", p.arch) };
        format!("{}{arch}={}", p.name, p.version)
    });
    let words: Vec<String> = words.collect();
    let arguments: Vec<&str> = ["-q", "-q", "download"].into_iter().chain(words.iter().map(String::as_str)).collect();
    archive.run_in(into, "apt-get", &arguments, "download packages of a lock")?;
    packages.iter().map(|package| checked(package, into)).collect()
}

fn checked(package: &LockedPackage, into: &Path) -> Result<PathBuf, Error> {
    let path = into.join(package.file.as_str());
    let got = Digest::of_file(&path).map_err(file_error("read", &path))?;
    if (got.sha256, got.size, got.hash) == (package.sha256, package.size, package.hash) {
        return Ok(path);
    }
    fs::remove_file(&path).or_else(ignore_missing).map_err(file_error("remove", &path))?;
    Err(Error::Wrong { name: package.name.clone(), wanted: package.sha256, got: got.sha256 })
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
