//! What lies beside a package so that whoever installs it asks nobody: lines of evidence, and the log's proof of its verdict. See
//! [`attest::staple`] for what stands in them.
//!
//! Lines that nobody brought along are made of the bundle, of which they are a function: so every package of a repository has
//! them, those of former versions too. A proof is only ever brought along.

use std::path::Path;

use attest::{bundle::Bundle, staple};
use protocol::{release::ReleaseFile, words::RelativePath};

use super::{
    Error, Repository, staged,
    state::{Entering, Pooled, State},
};
use crate::{
    publish::disk::{self, copy},
    resolve::digest::Digest,
};

/// What the names of staples add to their package's, in the order of the alphabet.
pub const SUFFIXES: [&str; 2] = [staple::SUFFIX, staple::PROOF_SUFFIX];

/// One file that is to lie beside a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    /// What its name adds: one of [`SUFFIXES`].
    pub suffix: &'static str,
    /// What stands in it.
    pub bytes: Vec<u8>,
}

/// Gives the place beside a package.
pub(crate) fn beside(package: &RelativePath, suffix: &str) -> Option<RelativePath> {
    RelativePath::new(format!("{package}{suffix}")).ok()
}

impl Pooled {
    /// Gives every file of the package: itself, its bundle, what is stapled to it.
    pub(super) fn files(&self) -> impl Iterator<Item = &ReleaseFile> {
        [&self.file, &self.bundle].into_iter().chain(&self.staples)
    }

    fn has(&self, suffix: &str) -> bool {
        self.staples.iter().any(|staple| staple.path.as_str().ends_with(suffix))
    }
}

impl Repository {
    /// Stages a staple, and notes it with its package.
    pub(super) fn put_staple(&self, package: &mut Pooled, staple: &Staple) -> Result<ReleaseFile, Error> {
        let path = beside(&package.file.path, staple.suffix);
        let path = path.ok_or_else(|| Error::Settings(format!("{} is too long a name", package.file.path)))?;
        let Digest { hash, sha256, size } = Digest::of(&staple.bytes);
        disk::write(&self.dir.join("state"), &self.waiting(&path), &staple.bytes)?;
        let file = ReleaseFile { hash, path, size, sha256 };
        package.staples.retain(|known| known.path != file.path);
        package.staples.push(file.clone());
        package.staples.sort();
        Ok(file)
    }

    /// Staples lines to every package that has none and whose bundle can be read as one.
    pub(super) fn staple(&self, next: &mut State) -> Result<(), Error> {
        for place in 0..next.packages.len() {
            if next.packages[place].has(staple::SUFFIX) {
                continue;
            }
            let bundle = &next.packages[place].bundle.path;
            let waiting = self.waiting(bundle);
            let at = if waiting.exists() { waiting } else { self.root().join(bundle.as_str()) };
            let Some(bytes) = lines_of(&at)? else { continue };
            let staple = Staple { suffix: staple::SUFFIX, bytes };
            let file = self.put_staple(&mut next.packages[place], &staple)?;
            next.entering.push(Entering { path: file.path, size: file.size });
            self.step()?;
        }
        Ok(())
    }

    /// Takes the staples of another repository's package over, without its lines, which tell the way into that one.
    pub(super) fn carry_staples(&self, package: &mut Pooled, from: &Repository) -> Result<(), Error> {
        package.staples.retain(|staple| !staple.path.as_str().ends_with(staple::SUFFIX));
        for staple in &package.staples {
            let at = from.root().join(staple.path.as_str());
            let mut bytes = std::fs::File::open(&at).map_err(disk::failed("open", &at))?;
            let digest = copy(&mut bytes, &self.waiting(&staple.path), staple.size)?;
            if digest.hash != staple.hash {
                return Err(Error::Damaged { path: staple.path.clone() });
            }
        }
        Ok(())
    }

    /// Gives where a file waits for its place.
    pub(super) fn waiting(&self, path: &RelativePath) -> std::path::PathBuf {
        self.dir.join("state/incoming").join(staged(path))
    }
}

/// Makes lines of a bundle; none where it is no bundle.
fn lines_of(bundle: &Path) -> Result<Option<Vec<u8>>, Error> {
    let bytes = std::fs::read(bundle).map_err(disk::failed("read", bundle))?;
    Ok(Bundle::from_bytes(&bytes).ok().and_then(|bundle| staple::lines(&bundle, None).ok()))
}

#[cfg(test)]
mod tests {
    use attest::testing::{DEB, deb::deb, staple::Sample};
    use protocol::{FileName, Sha256};

    use super::*;
    use crate::publish::{
        apt::{Addition, Order, carry::Takeover},
        testing::{AT, repository, tree},
    };

    fn addition(dir: &Path, sample: &Sample, staples: Vec<Staple>) -> Addition {
        let bytes = deb(("base-files", "12.4", "amd64"), "a");
        let path = dir.join(DEB);
        std::fs::write(&path, &bytes).unwrap();
        Addition {
            path,
            file: FileName::new(DEB).unwrap(),
            sha256: Sha256::of(bytes.as_bytes()),
            size: bytes.len() as u64,
            job: protocol::Hash::of(b"job").into(),
            bundle: sample.bundle.to_bytes(),
            staples,
            order: Order::Upwards,
        }
    }

    fn sample() -> Sample {
        let good = deb(("base-files", "12.4", "amd64"), "a");
        Sample::of(&Sample::policy(1), &[&good, &good])
    }

    #[test]
    fn lines_are_made_of_the_bundle_and_proofs_are_brought_along() {
        let (dir, debs, sample) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), sample());
        let proof = Staple { suffix: staple::PROOF_SUFFIX, bytes: sample.proof(&[0]) };
        let mut repository = repository(dir.path());
        let published = repository.publish(&[addition(debs.path(), &sample, vec![proof.clone()])], AT, 1).unwrap();
        let path = format!("pool/main/b/base-files/{DEB}");
        let files = tree(&published.root);
        assert_eq!(files[&format!("{path}{}", staple::SUFFIX)], staple::lines(&sample.bundle, None).unwrap());
        assert_eq!(files[&format!("{path}{}", staple::PROOF_SUFFIX)], proof.bytes);
        assert_eq!(files.len(), published.manifest.files.len(), "the manifest lists every file");

        // Another channel gets the proof as it is, and lines of its own.
        let other = tempfile::tempdir().unwrap();
        let mut to = crate::publish::testing::repository(other.path());
        let paths: Vec<_> = repository.stock().into_iter().map(|stock| stock.path).collect();
        let promoted = |_: &Path| {
            let mut bundle = sample.bundle.clone();
            bundle.promotions.push(bundle.request.clone());
            Ok(bundle.to_bytes())
        };
        let takeover = Takeover { from: &repository, paths: &paths, bundle: &promoted };
        to.carry(&takeover, protocol::Hash::of(b"asked"), (AT, 1)).unwrap();
        let files = tree(&to.root());
        assert_eq!(files[&format!("{path}{}", staple::PROOF_SUFFIX)], proof.bytes);
        let lines = &files[&format!("{path}{}", staple::SUFFIX)];
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 4, "the promotion is a line more");
    }

    #[test]
    fn who_brings_lines_along_keeps_them() {
        let (dir, debs, sample) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), sample());
        let lines = Staple { suffix: staple::SUFFIX, bytes: sample.lines() };
        let published = repository(dir.path()).publish(&[addition(debs.path(), &sample, vec![lines.clone()])], AT, 1);
        let path = format!("pool/main/b/base-files/{DEB}{}", staple::SUFFIX);
        assert_eq!(tree(&published.unwrap().root)[&path], lines.bytes);
    }
}
