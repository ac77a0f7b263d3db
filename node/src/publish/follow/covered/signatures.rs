//! Whether the signatures of a release hold, by the keyring that it publishes: clients that trust that keyring would otherwise
//! find out alone that a mirror serves what they refuse.
//!
//! Who may sign a release is decided before; the keyring is a part of it, and OpenPGP adds no trust of its own here.

use std::{collections::BTreeSet, io};

use protocol::{
    release::{Manifest, ReleaseFile},
    words::RelativePath,
};

use crate::publish::{
    apt::index::{KEYRING, KEYRING_ARMORED, Stage, stage},
    rpm::metadata,
    sign::{self, check, keyring::Keyring},
};

/// Why the signatures of a release were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path} cannot be had")]
    Open {
        /// The file.
        path: RelativePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signature or a keyring is missing.
    #[error("the manifest lists no {path}")]
    Missing {
        /// Where it should lie.
        path: String,
    },
    /// A signature without what it signs.
    #[error("the manifest lists {path}, but not what it signs")]
    Stray {
        /// The signature.
        path: RelativePath,
    },
    /// The armored keyring is another one.
    #[error("archive-key.asc does not hold the keys of archive-key.gpg")]
    Armored,
    /// A signature does not hold, or the keyring cannot be read.
    #[error(transparent)]
    Sign(#[from] sign::Error),
}

/// Says whether a file is one whose bytes [`check`] wants to see.
pub fn is_read(file: &ReleaseFile) -> bool {
    matches!(stage(&file.path), Stage::Signature | Stage::Release | Stage::InRelease)
        || [KEYRING, KEYRING_ARMORED].contains(&file.path.as_str())
}

/// Checks every signature outside the pool, and gives the keyring, for [`super::rpms::check`]. `open` gives a file's bytes,
/// verified.
///
/// # Errors
/// The first check that fails.
pub fn check(manifest: &Manifest, open: &mut dyn FnMut(&ReleaseFile) -> io::Result<Vec<u8>>) -> Result<Keyring, Error> {
    let mut unsigned: BTreeSet<&RelativePath> =
        manifest.files.iter().filter(|file| is_read(file)).map(|file| &file.path).collect();
    let mut read = |path: &str| {
        let found = RelativePath::new(path).ok().and_then(|path| manifest.file(&path));
        let file = found.ok_or_else(|| Error::Missing { path: path.to_owned() })?;
        unsigned.remove(&file.path);
        open(file).map_err(|source| Error::Open { path: file.path.clone(), source })
    };
    let keyring = Keyring::read(&read(KEYRING)?)?;
    if read(KEYRING_ARMORED)? != keyring.armored()?.as_bytes() {
        return Err(Error::Armored);
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        if stage(&file.path) == Stage::Release {
            let (release, folder) = (read(path)?, path.strip_suffix("Release").unwrap_or_default());
            let (detached, clear) = (format!("{folder}Release.gpg"), format!("{folder}InRelease"));
            check::detached(&keyring, &detached, &read(&detached)?, &release)?;
            check::clear(&keyring, &clear, &read(&clear)?, &release)?;
        } else if path == metadata::REPOMD {
            let (repomd, signature) = (read(path)?, read(metadata::SIGNATURE)?);
            check::detached(&keyring, metadata::SIGNATURE, &signature, &repomd)?;
        }
    }
    match unsigned.first() {
        Some(path) => Err(Error::Stray { path: (*path).clone() }),
        None => Ok(keyring),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use protocol::{Hash, Sha256};

    use super::*;
    use crate::publish::testing::{AT, addition, key_of, repository, rpm};

    struct Release {
        manifest: Manifest,
        bytes: BTreeMap<RelativePath, Vec<u8>>,
    }

    impl Release {
        fn published() -> Self {
            let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let add = [addition(debs.path(), ("tiny", "1", "amd64"), "a"), rpm(debs.path(), "1.2^git3")];
            let published = repository(dir.path()).publish(&add, AT, 1).unwrap();
            let read = |f: &ReleaseFile| (f.path.clone(), fs::read(published.root.join(f.path.as_str())).unwrap());
            let bytes = published.manifest.files.iter().map(read).collect();
            Self { manifest: published.manifest, bytes }
        }

        fn put(&mut self, path: &str, bytes: Vec<u8>) {
            let path = RelativePath::new(path).unwrap();
            self.manifest.files.retain(|f| f.path != path);
            let (hash, size, sha256) = (Hash::of(&bytes), bytes.len() as u64, Sha256::of(&bytes));
            self.manifest.files.push(ReleaseFile { hash, path: path.clone(), size, sha256 });
            self.manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
            self.bytes.insert(path, bytes);
        }

        fn check(&self) -> Result<Keyring, String> {
            check(&self.manifest, &mut |file| Ok(self.bytes[&file.path].clone())).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn what_we_publish_holds_and_each_file_that_is_missing_changed_or_of_another_key_does_not() {
        let release = Release::published();
        assert_eq!(release.check().unwrap().certificates().len(), 1);
        let read: Vec<_> = release.manifest.files.iter().filter(|f| is_read(f)).map(|f| f.path.to_string()).collect();
        assert_eq!(read.len(), 7, "two keyrings, three of apt, two of dnf: {read:?}");
        for path in &read {
            let mut gone = Release::published();
            gone.manifest.files.retain(|f| f.path.as_str() != path);
            assert!(gone.check().is_err(), "{path} is missing");
            let mut changed = Release::published();
            let mut bytes = changed.bytes[&RelativePath::new(path).unwrap()].clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            changed.put(path, bytes);
            assert!(changed.check().is_err(), "{path} is changed");
        }
        let of = |path: &str| String::from_utf8(release.bytes[&RelativePath::new(path).unwrap()].clone()).unwrap();
        let (text, repomd) = (of("dists/main/Release"), of("repodata/repomd.xml"));
        for (path, bytes) in [
            ("dists/main/InRelease", key_of(8).sign_clear(&text, AT).unwrap()),
            ("dists/main/Release.gpg", key_of(8).sign_detached(text.as_bytes(), AT).unwrap()),
            ("repodata/repomd.xml.asc", key_of(8).sign_detached(repomd.as_bytes(), AT).unwrap()),
        ] {
            let mut other = Release::published();
            other.put(path, bytes.into_bytes());
            let why = other.check().unwrap_err();
            assert!(why.contains("none of its keys"), "{path}: {why}");
        }
        let mut stray = Release::published();
        stray.put("dists/other/InRelease", of("dists/main/InRelease").into_bytes());
        assert!(stray.check().unwrap_err().contains("not what it signs"));
    }
}
