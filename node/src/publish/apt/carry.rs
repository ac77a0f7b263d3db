//! Packages of one repository taken over into another: pointers and evidence, no bytes. The pool never changes a file once it
//! is there, so both repositories may name the same one on disk.

use std::path::Path;

use protocol::{
    Arch, Hash, JobId, PackageName, Sha256, Timestamp,
    words::{DebVersion, RelativePath},
};

use super::{Error, Order, Pooled, Published, Repository, admit::Room, enter, staged, state::State};
use crate::{
    publish::{disk, kind::Kind},
    resolve::digest::Digest,
};

/// One package of a repository, as another one may want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// What kind of package it is.
    pub kind: Kind,
    /// The package's name.
    pub name: PackageName,
    /// Its version.
    pub version: DebVersion,
    /// Its architecture.
    pub arch: Arch,
    /// The job that built it.
    pub job: JobId,
    /// Where it lies below the repository's root.
    pub path: RelativePath,
    /// The SHA-256 that was attested: of an RPM, before it was signed.
    pub sha256: Sha256,
    /// Where its evidence lies below the repository's root.
    pub bundle: RelativePath,
}

impl Stock {
    /// Names the package for people.
    pub fn title(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.arch)
    }
}

/// Packages to take over.
pub struct Takeover<'a> {
    /// The repository that has them.
    pub from: &'a Repository,
    /// Where they lie below its root.
    pub paths: &'a [RelativePath],
    /// Makes the evidence for the new place from the file with that for the old one.
    pub bundle: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
}

/// What became of a package that was to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is there now.
    Entered,
    /// It was there before.
    There,
    /// A newer version is there.
    Older {
        /// The published version.
        published: DebVersion,
    },
    /// The repository has no index for its architecture.
    OtherArch,
}

impl Fate {
    /// Says it for people.
    pub fn words(&self) -> String {
        match self {
            Fate::Entered => "taken over".to_owned(),
            Fate::There => "there already".to_owned(),
            Fate::Older { published } => format!("not newer than the published {published}"),
            Fate::OtherArch => "of an architecture that the channel does not have".to_owned(),
        }
    }
}

impl Repository {
    /// Gives every package that the newest generation lists.
    pub fn stock(&self) -> Vec<Stock> {
        let stock = |p: &Pooled| Stock {
            kind: p.kind(),
            name: p.name.clone(),
            version: p.version.clone(),
            arch: p.arch,
            job: p.job,
            path: p.file.path.clone(),
            sha256: p.attested(),
            bundle: p.bundle.path.clone(),
        };
        self.state.packages.iter().map(stock).collect()
    }

    /// Takes packages of another repository over as the next generation, and says what became of each. `request` names what was
    /// asked for: repeating the generation with the same request gives it back as it was recorded.
    ///
    /// # Errors
    /// When one would change bytes under a published name, and as [`Repository::publish`]; then nothing has changed.
    pub fn carry(
        &mut self,
        takeover: &Takeover<'_>,
        request: Hash,
        (at, generation): (Timestamp, u64),
    ) -> Result<(Published, Vec<Fate>), Error> {
        let mut fates = Vec::new();
        let published = self.change(
            request,
            (at, generation),
            |_| false,
            |own, next| {
                for path in takeover.paths {
                    fates.push(own.take_over(next, takeover, path)?);
                }
                Ok(())
            },
        )?;
        Ok((published, fates))
    }

    fn take_over(&self, next: &mut State, takeover: &Takeover<'_>, path: &RelativePath) -> Result<Fate, Error> {
        let (from, mut packages) = (takeover.from, takeover.from.state.packages.iter());
        let known = packages.find(|p| p.file.path == *path);
        let mut package = known.ok_or_else(|| Error::Damaged { path: path.clone() })?.clone();
        if matches!(Room::of(&package, next)?, Room::Taken) {
            return Ok(Fate::There);
        }
        if package.arch != Arch::All && !next.settings.arches.contains(&package.arch) {
            return Ok(Fate::OtherArch);
        }
        let incoming = self.dir.join("state/incoming");
        let source = from.root().join(path.as_str());
        if disk::size_of(&source) != Some(package.file.size) {
            return Err(Error::Damaged { path: path.clone() });
        }
        share(&source, &incoming.join(staged(path)))?;
        let old = from.root().join(package.bundle.path.as_str());
        let bundle = (takeover.bundle)(&old).map_err(disk::failed("read the evidence", &old))?;
        let Digest { hash, sha256, size } = Digest::of(&bundle);
        (package.bundle.hash, package.bundle.sha256, package.bundle.size) = (hash, sha256, size);
        disk::write(&self.dir.join("state"), &incoming.join(staged(&package.bundle.path)), &bundle)?;
        self.carry_staples(&mut package, from)?;
        self.step()?;
        match enter(next, package, Order::Upwards) {
            Ok(()) => Ok(Fate::Entered),
            Err(Error::Older { published, .. }) => Ok(Fate::Older { published }),
            Err(other) => Err(other),
        }
    }
}

/// Makes a second name for a file; copies it where that cannot be, on another disk for instance.
fn share(from: &Path, to: &Path) -> Result<(), Error> {
    disk::remove(to)?;
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map_err(disk::failed("copy to", to))?;
    let file = std::fs::File::open(to).map_err(disk::failed("open", to))?;
    Ok(file.sync_all().map_err(disk::failed("sync", to))?)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, sync::atomic::Ordering::Relaxed};

    use super::*;
    use crate::publish::testing::{AT, addition, repository, tree};

    fn asked() -> Hash {
        Hash::of(b"the request")
    }

    type Carried = Result<(Published, Vec<Fate>), Error>;

    /// Takes everything over; the evidence gets a line more.
    fn carry_all(to: &mut Repository, from: &Repository, request: Hash, generation: u64) -> Carried {
        let paths: Vec<_> = from.stock().into_iter().map(|s| s.path).collect();
        let bundle = |path: &Path| Ok([std::fs::read(path)?, b", promoted".to_vec()].concat());
        to.carry(&Takeover { from, paths: &paths, bundle: &bundle }, request, (AT, generation))
    }

    /// Gives a repository with `tiny` 2 and `doc` 1.
    fn parent(dir: &Path, debs: &Path) -> Repository {
        let mut parent = repository(dir);
        let add = [addition(debs, ("tiny", "2", "amd64"), "a"), addition(debs, ("doc", "1", "all"), "a")];
        parent.publish(&add, AT, 1).unwrap();
        parent
    }

    #[test]
    fn packages_are_taken_over_without_a_copy_and_with_their_own_evidence() {
        let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, mut to) = (parent(a.path(), debs.path()), repository(b.path()));
        let (published, fates) = carry_all(&mut to, &from, asked(), 1).unwrap();
        assert_eq!(fates, [Fate::Entered, Fate::Entered]);
        assert_eq!(published.manifest.packages.len(), 2);
        let path = "pool/main/t/tiny/tiny_2_amd64.deb";
        let inode = |r: &Repository| std::fs::metadata(r.root().join(path)).unwrap().ino();
        assert_eq!(inode(&from), inode(&to));
        let bundle = std::fs::read(to.root().join(format!("{path}.artel-bundle"))).unwrap();
        assert_eq!(bundle, b"evidence for tiny 2, promoted");
        assert_eq!(tree(&to.root()).len(), published.manifest.files.len(), "the manifest lists every file");
        let again = carry_all(&mut to, &from, asked(), 1).unwrap();
        assert_eq!((again.0.manifest, again.1), (published.manifest, vec![]), "a repetition gives it back");
        let (_, fates) = carry_all(&mut to, &from, Hash::of(b"another"), 2).unwrap();
        assert_eq!(fates, [Fate::There, Fate::There]);
        drop(from);
        std::fs::remove_dir_all(a.path().join("public")).unwrap();
        to.resign(AT, 3).unwrap();
    }

    #[test]
    fn what_is_older_or_different_does_not_enter() {
        let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, mut to) = (parent(a.path(), debs.path()), repository(b.path()));
        to.publish(&[addition(debs.path(), ("tiny", "3", "amd64"), "a")], AT, 1).unwrap();
        let (published, fates) = carry_all(&mut to, &from, asked(), 2).unwrap();
        assert_eq!(fates[0], Fate::Entered);
        assert_eq!(fates[1].words(), "not newer than the published 3");
        let names: Vec<_> = published.manifest.packages.iter().map(|p| p.version.as_str().to_owned()).collect();
        assert_eq!(names, ["1", "3"]);
        assert!(!to.root().join("pool/main/t/tiny/tiny_2_amd64.deb").exists(), "nothing of the older one is left");
        let c = tempfile::tempdir().unwrap();
        let mut other = repository(c.path());
        other.publish(&[addition(debs.path(), ("tiny", "2", "amd64"), "b")], AT, 1).unwrap();
        let before = tree(&other.root());
        let error = carry_all(&mut other, &from, asked(), 2).unwrap_err();
        assert!(matches!(error, Error::Different { .. }), "{error}");
        assert_eq!(tree(&other.root()), before);
    }

    #[test]
    fn a_stop_between_any_two_steps_takes_over_all_or_nothing() {
        let (a, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, whole) = (parent(a.path(), debs.path()), tempfile::tempdir().unwrap());
        let mut wanted = repository(whole.path());
        let manifest = carry_all(&mut wanted, &from, asked(), 1).unwrap().0.manifest;
        let (mut steps, mut ended) = (0, false);
        while !ended {
            let dir = tempfile::tempdir().unwrap();
            let mut stopped = repository(dir.path());
            stopped.steps_left.store(steps, Relaxed);
            ended = match carry_all(&mut stopped, &from, asked(), 1) {
                Ok(_) => true,
                Err(Error::Stopped) => false,
                Err(other) => panic!("{other}"),
            };
            drop(stopped);
            let mut again = repository(dir.path());
            assert_eq!(carry_all(&mut again, &from, asked(), 1).unwrap().0.manifest, manifest);
            assert_eq!(tree(&again.root()), tree(&wanted.root()), "stopped before step {steps}");
            steps += 1;
        }
        assert!(steps > 15, "{steps} steps");
    }
}
