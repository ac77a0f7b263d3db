//! Whether a manifest's RPMs are what was attested, and `repodata` what they give: the metadata is written again from the packages
//! and compared, so nothing that dnf reads is believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use protocol::{
    FileName, Hash, Timestamp,
    release::{Manifest, PublishedPackage, ReleaseFile},
    words::RelativePath,
};

use crate::publish::{
    incoming,
    rpm::{
        self, metadata,
        package::{self, Entry},
    },
    sign::keyring::Keyring,
};

/// What the metadata says of each RPM, by the hash of its file: who checks the next release reads only what is new.
pub type Rpms = BTreeMap<Hash, Known>;

/// An RPM that was checked.
#[derive(Debug, Clone)]
pub struct Known {
    package: PublishedPackage,
    entry: Entry,
    /// The fingerprint of the key whose signature holds.
    signer: String,
}

/// Why a manifest's RPMs were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An RPM cannot be read.
    #[error("{path} cannot be had")]
    Open {
        /// The file.
        path: RelativePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An RPM breaks a rule.
    #[error(transparent)]
    Package(#[from] incoming::Error),
    /// An RPM is not what the manifest says.
    #[error("{path} is not acceptable: {why}")]
    Other {
        /// The file.
        path: RelativePath,
        /// What is different.
        why: &'static str,
    },
    /// The metadata is not what the packages give.
    #[error("the metadata for dnf is not what the packages of the manifest give: {0}")]
    Metadata(String),
}

/// Checks every RPM of a manifest, its signature by the release's keyring, and the metadata, for a release of the time `at`. `open` gives a file's bytes, verified, as a
/// file on disk that may be replaced by the next one.
///
/// # Errors
/// The first check that fails.
pub fn check(
    (manifest, keyring): (&Manifest, &Keyring),
    at: Timestamp,
    mut known: Rpms,
    open: &mut dyn FnMut(&ReleaseFile) -> io::Result<PathBuf>,
) -> Result<Rpms, Error> {
    let mut rpms = Rpms::new();
    let mut order = Vec::new();
    for package in manifest.packages.iter().filter(|p| p.is_rpm()) {
        let other = |why| Error::Other { path: package.path.clone(), why };
        let file = manifest.file(&package.path).ok_or_else(|| other("the manifest does not list it"))?;
        let checked = match known.remove(&file.hash).filter(|known| known.package == *package) {
            Some(known) => known,
            None => read(package, file, keyring, open)?,
        };
        if !keyring.has(&checked.signer) {
            return Err(other("its signer's key is not in the release"));
        }
        order.push(file.hash);
        rpms.insert(file.hash, checked);
    }
    let entries: Vec<&Entry> = order.iter().filter_map(|hash| rpms.get(hash)).map(|known| &known.entry).collect();
    compare(manifest, &entries, at)?;
    Ok(rpms)
}

fn read(
    package: &PublishedPackage,
    file: &ReleaseFile,
    keyring: &Keyring,
    open: &mut dyn FnMut(&ReleaseFile) -> io::Result<PathBuf>,
) -> Result<Known, Error> {
    let other = |why| Error::Other { path: package.path.clone(), why };
    let path = open(file).map_err(|source| Error::Open { path: package.path.clone(), source })?;
    let name = package.path.as_str().rsplit('/').next().unwrap_or_default();
    let name = FileName::new(name).map_err(|_| other("its name is not one of a file"))?;
    let attested = rpm::attested(&path, &name)?;
    if package.attested != Some(attested) {
        return Err(other("without its signature it is not what was attested"));
    }
    let read = package::inspect(&path, &name, &[package.arch])?;
    if (&read.name, &read.version, read.arch) != (&package.name, &package.version, package.arch) {
        return Err(other("its header says otherwise than the manifest"));
    }
    let signer = rpm::check_signature(&path, &name, keyring)?;
    Ok(Known { package: package.clone(), entry: read.entry(attested, file), signer })
}

/// Compares the metadata of a manifest with what the packages give.
fn compare(manifest: &Manifest, entries: &[&Entry], at: Timestamp) -> Result<(), Error> {
    let told: BTreeMap<&str, Hash> = manifest
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.hash))
        .filter(|(path, _)| path.starts_with(metadata::FOLDER))
        .collect();
    if told.is_empty() && entries.is_empty() {
        return Ok(());
    }
    let generated = metadata::generate(entries, at);
    let wanted: BTreeSet<&str> = generated.iter().map(|(path, _)| path.as_str()).chain([metadata::SIGNATURE]).collect();
    if let Some(path) = told.keys().find(|path| !wanted.contains(*path)) {
        return Err(Error::Metadata(format!("{path} is none of it")));
    }
    if let Some(path) = wanted.iter().find(|path| !told.contains_key(*path)) {
        return Err(Error::Metadata(format!("{path} is missing")));
    }
    match generated.iter().find(|(path, bytes)| told.get(path.as_str()) != Some(&Hash::of(bytes))) {
        Some((path, _)) => Err(Error::Metadata(format!("{path} has other bytes"))),
        None => Ok(()),
    }
}
