//! Whether a manifest lets apt have only what its packages prove: whoever signs a release could else serve, beside proven
//! packages, one that nobody attested. It reads indexes; the evidence itself is the mirror's question. What dnf reads is written
//! again from the packages, see [`rpms`].

pub mod packages;
pub mod rpms;
pub mod signatures;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use protocol::{
    Hash,
    release::{Manifest, PublishedPackage, ReleaseFile},
    words::RelativePath,
};

use crate::publish::{
    apt::{
        BUNDLE_SUFFIX,
        index::{Stage, stage},
        staple::SUFFIXES,
    },
    rpm::metadata,
};

/// Why a manifest was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file that is neither a package, its evidence nor an index of ours.
    #[error("the manifest lists {path}, which no evidence of its packages covers")]
    Stray {
        /// The file.
        path: RelativePath,
    },
    /// An index that names what is not proven, or that apt may read otherwise than we do.
    #[error("the index {path} is not acceptable: {why}")]
    Index {
        /// The index.
        path: RelativePath,
        /// The rule that it breaks.
        why: String,
    },
}

/// Says whether a file is an index, whose bytes [`check`] wants to see.
pub fn is_index(file: &ReleaseFile) -> bool {
    stage(&file.path) == Stage::Named
}

/// Checks that every file below `pool` is a listed package, its evidence or stapled to it (what stands there is the mirror's
/// question, see [`crate::publish::evidence::check_staples`]), and that the indexes name nothing else.
/// `bytes` holds the indexes, verified, by hash. What lies below `repodata` is left to [`rpms::check`].
///
/// # Errors
/// The first file that breaks a rule.
pub fn check(manifest: &Manifest, bytes: &BTreeMap<Hash, Vec<u8>>) -> Result<(), Error> {
    let evidence: BTreeMap<String, Hash> =
        manifest.packages.iter().map(|p| (format!("{}{BUNDLE_SUFFIX}", p.path), p.bundle)).collect();
    let beside = |p: &PublishedPackage| SUFFIXES.map(|suffix| format!("{}{suffix}", p.path));
    let staples: BTreeSet<String> = manifest.packages.iter().flat_map(beside).collect();
    let packages: BTreeSet<&str> = manifest.packages.iter().map(|p| p.path.as_str()).collect();
    let named: BTreeSet<Hash> = manifest.files.iter().filter(|f| is_index(f)).map(|f| f.hash).collect();
    for file in &manifest.files {
        if file.path.as_str().starts_with(metadata::FOLDER) {
            continue;
        }
        let covered = match stage(&file.path) {
            Stage::Pool if file.path.as_str().starts_with("pool/") => {
                packages.contains(file.path.as_str())
                    || evidence.get(file.path.as_str()) == Some(&file.hash)
                    || staples.contains(file.path.as_str())
            }
            Stage::ByHash => named.contains(&file.hash),
            Stage::Named => index(manifest, &packages, file, bytes).map(|()| true)?,
            Stage::Pool | Stage::Signature | Stage::Release | Stage::InRelease => true,
        };
        if !covered {
            return Err(Error::Stray { path: file.path.clone() });
        }
    }
    Ok(())
}

fn index(
    manifest: &Manifest,
    packages: &BTreeSet<&str>,
    file: &ReleaseFile,
    bytes: &BTreeMap<Hash, Vec<u8>>,
) -> Result<(), Error> {
    let refuse = |why: String| Error::Index { path: file.path.clone(), why };
    let own = bytes.get(&file.hash).ok_or_else(|| refuse("it was not read".into()))?;
    let (folder, name) = file.path.as_str().rsplit_once('/').unwrap_or_default();
    if name == "Packages" {
        return packages::check(own, packages).map_err(refuse);
    }
    let sibling = RelativePath::new(format!("{folder}/Packages")).ok().and_then(|path| manifest.file(&path));
    let sibling =
        sibling.and_then(|plain| bytes.get(&plain.hash)).ok_or_else(|| refuse("it has no Packages".into()))?;
    let packed: Box<dyn Read + '_> = match name {
        "Packages.gz" => Box::new(flate2::read::GzDecoder::new(own.as_slice())),
        "Packages.xz" => Box::new(liblzma::read::XzDecoder::new(own.as_slice())),
        _ => return Err(Error::Stray { path: file.path.clone() }),
    };
    let mut unpacked = Vec::new();
    // One byte more than it may have, so that a longer one differs.
    let read = packed.take(sibling.len() as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| refuse(format!("it cannot be unpacked: {error}")))?;
    if unpacked == *sibling { Ok(()) } else { Err(refuse("it is not the same as Packages".into())) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use protocol::Sha256;

    use super::*;
    use crate::publish::testing::{AT, addition, repository};

    type Release = (Manifest, BTreeMap<Hash, Vec<u8>>);

    fn published() -> Release {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let additions =
            [addition(debs.path(), ("tiny", "1", "amd64"), "a"), addition(debs.path(), ("doc", "1", "all"), "b")];
        let published = repository(dir.path()).publish(&additions, AT, 1).unwrap();
        let read = |f: &ReleaseFile| (f.hash, fs::read(published.root.join(f.path.as_str())).unwrap());
        let bytes = published.manifest.files.iter().filter(|f| is_index(f)).map(read).collect();
        (published.manifest, bytes)
    }

    fn put((manifest, all): &mut Release, path: &str, bytes: &[u8]) {
        let path = RelativePath::new(path).unwrap();
        manifest.files.retain(|f| f.path != path);
        let file = ReleaseFile { hash: Hash::of(bytes), path, size: bytes.len() as u64, sha256: Sha256::of(bytes) };
        manifest.files.push(file);
        manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
        all.insert(Hash::of(bytes), bytes.to_vec());
    }

    fn index_of((manifest, all): &Release) -> (String, String) {
        let file = manifest.files.iter().find(|f| f.path.as_str().ends_with("/Packages")).unwrap();
        (file.path.to_string(), String::from_utf8(all[&file.hash].clone()).unwrap())
    }

    #[test]
    fn a_release_of_ours_is_covered() {
        let (manifest, bytes) = published();
        assert_eq!(check(&manifest, &bytes), Ok(()));
        assert!(manifest.packages.len() == 2 && !bytes.is_empty());
    }

    #[test]
    fn a_package_that_no_evidence_covers_is_refused_wherever_it_lies() {
        for path in ["pool/main/e/evil/evil_1_amd64.deb", "dists/evil.deb", "dists/x/by-hash/SHA256/00"] {
            let mut release = published();
            put(&mut release, path, b"evil");
            let error = check(&release.0, &release.1).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
        let mut release = published();
        release.0.packages.remove(0);
        assert!(matches!(check(&release.0, &release.1), Err(Error::Stray { .. } | Error::Index { .. })));
    }

    #[test]
    fn an_index_names_only_packages_of_the_manifest() {
        let (path, text) = index_of(&published());
        for more in [
            "filename: dists/evil.deb\n\n",
            "Filename: pool/e.deb\nFilename: pool/f.deb\n\n",
            "Package: x\n\n",
            " Filename: pool/e.deb\n\n",
            "no field\n\n",
            "\u{a0}\n\n",
        ] {
            let mut release = published();
            put(&mut release, &path, format!("{text}{more}").as_bytes());
            assert!(matches!(check(&release.0, &release.1), Err(Error::Index { .. })), "{more}");
        }
        let mut release = published();
        let name = format!("\u{1b}[31m{}", "x".repeat(200));
        put(&mut release, &path, format!("{text}Filename: {name}\n\n").as_bytes());
        let said = check(&release.0, &release.1).unwrap_err().to_string();
        assert!(!said.contains('\u{1b}') && !said.contains(&"x".repeat(81)), "{said}");
        let mut release = published();
        put(&mut release, &format!("{path}.gz"), b"something else");
        assert!(matches!(check(&release.0, &release.1), Err(Error::Index { .. })), "packed otherwise");
    }
}
