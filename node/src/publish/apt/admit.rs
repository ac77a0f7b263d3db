//! The door of the pool: an attested file is copied, checked, signed where it is an RPM, read, and gets its place planned.

use std::{fs::File, path::Path};

use protocol::{
    Arch, FileName, JobId, PackageName, Sha256,
    release::ReleaseFile,
    words::{DebVersion, RelativePath},
};

use super::{
    Addition, BUNDLE_MAX, BUNDLE_SUFFIX, Error, Repository, enter, pool_path, staged,
    state::{Entering, Pooled, State},
};
use crate::{
    publish::{
        disk,
        incoming::{self, Control, DEB_MAX},
        rpm::{self, package::Package},
    },
    resolve::digest::Digest,
};

/// What a package says of itself.
pub(super) enum Described {
    /// A `.deb`.
    Deb(Control),
    /// An `.rpm`.
    Rpm(Box<Package>),
}

impl Described {
    /// Reads a package that lies at `path` and is called `file`.
    pub(super) fn read(path: &Path, file: &FileName, arches: &[Arch]) -> Result<Self, Error> {
        if file.as_str().ends_with(rpm::SUFFIX) {
            return Ok(Described::Rpm(Box::new(rpm::package::inspect(path, file, arches)?)));
        }
        Ok(Described::Deb(incoming::inspect(path, file, arches)?))
    }

    /// Gives name, version and architecture.
    pub(super) fn identity(&self) -> (&PackageName, &DebVersion, Arch) {
        match self {
            Described::Deb(control) => (&control.name, &control.version, control.arch),
            Described::Rpm(package) => (&package.name, &package.version, package.arch),
        }
    }

    /// Gives the place of one of the source package's files in the pool.
    pub(super) fn place(&self, name: &str) -> Option<RelativePath> {
        match self {
            Described::Deb(control) => pool_path(&control.source, name),
            Described::Rpm(package) => pool_path(&package.source, name),
        }
    }

    /// Makes the record of a package whose file, evidence and job are known; `attested` is what the builders signed.
    pub(super) fn pooled(self, (file, bundle): (ReleaseFile, ReleaseFile), job: JobId, attested: Sha256) -> Pooled {
        match self {
            Described::Deb(Control { name, version, arch, source, source_version, text: control }) => Pooled {
                name,
                version,
                arch,
                source,
                source_version,
                job,
                file,
                bundle,
                staples: Vec::new(),
                control,
                since: None,
                rpm: None,
            },
            Described::Rpm(package) => {
                let rpm = Some(package.entry(attested, &file));
                let Package { name, version, arch, source, source_version, .. } = *package;
                let control = String::new();
                let staples = Vec::new();
                Pooled {
                    name,
                    version,
                    arch,
                    source,
                    source_version,
                    job,
                    file,
                    bundle,
                    staples,
                    control,
                    since: None,
                    rpm,
                }
            }
        }
    }
}

/// Whether a name of the pool is free for a package.
pub(super) enum Room {
    /// Nothing had this name, or it was this content, and no index lists it.
    Free,
    /// It is there already.
    Taken,
}

impl Room {
    /// Looks at what the name of a package has or had. What was attested counts: another publisher signs the same RPM otherwise.
    pub(super) fn of(package: &Pooled, next: &State) -> Result<Self, Error> {
        let path = &package.file.path;
        let (got, listed) = (package.attested(), next.packages.iter().any(|p| p.file.path == *path));
        match next.attested_of(path) {
            Some(published) if published != got => Err(Error::Different { path: path.clone(), published, got }),
            Some(_) if listed => Ok(Room::Taken),
            Some(_) | None => Ok(Room::Free),
        }
    }
}

impl Repository {
    /// Copies an addition into the publisher's own folder, checks exactly that copy and plans its place.
    pub(super) fn admit(&self, next: &mut State, addition: &Addition) -> Result<(), Error> {
        let incoming = self.dir.join("state/incoming");
        let mut copy = incoming.join("copying");
        let mut from = File::open(&addition.path).map_err(disk::failed("open", &addition.path))?;
        let mut digest = disk::copy(&mut from, &copy, DEB_MAX.min(addition.size.saturating_add(1)))?;
        if (digest.sha256, digest.size) != (addition.sha256, addition.size) {
            return Err(Error::NotAttested {
                file: addition.file.clone(),
                wanted: addition.sha256,
                wanted_size: addition.size,
                got: digest.sha256,
                got_size: digest.size,
            });
        }
        if addition.bundle.len() > BUNDLE_MAX {
            return Err(Error::Settings(format!("the evidence for {} has over {BUNDLE_MAX} bytes", addition.file)));
        }
        if addition.file.as_str().ends_with(rpm::SUFFIX) {
            let signed = incoming.join("signing");
            digest = rpm::sign((&copy, &signed), &addition.file, self.keys.known())?;
            disk::remove(&copy)?;
            copy = signed;
        }
        // Of an RPM the signed file is read: the metadata says where its header lies.
        let described = Described::read(&copy, &addition.file, &next.settings.arches)?;
        let mut package = place(described, addition, &digest);
        if matches!(Room::of(&package, next)?, Room::Taken) {
            // Its evidence stays as it was.
            return Ok(disk::remove(&copy)?);
        }
        disk::rename(&copy, &incoming.join(staged(&package.file.path)))?;
        disk::write(&self.dir.join("state"), &incoming.join(staged(&package.bundle.path)), &addition.bundle)?;
        for staple in &addition.staples {
            self.put_staple(&mut package, staple)?;
        }
        self.step()?;
        enter(next, package, addition.order)
    }
}

impl Repository {
    /// Signs every RPM whose signer's key is not published any more, a former coordinator's for instance: dnf would refuse it.
    pub(super) fn sign_again(&self, next: &mut State) -> Result<(), Error> {
        let incoming = self.dir.join("state/incoming");
        for place in 0..next.packages.len() {
            let package = &next.packages[place];
            let Some(entry) = &package.rpm else { continue };
            if entry.signer.as_ref().is_some_and(|signer| self.keyring.has(signer)) {
                continue;
            }
            let path = package.file.path.clone();
            let name = path.as_str().rsplit('/').next().unwrap_or_default();
            let name = FileName::new(name).expect("it was one when the package entered");
            let (waiting, signed) = (incoming.join(staged(&path)), incoming.join("signing"));
            let from = if waiting.exists() { waiting.clone() } else { self.root().join(path.as_str()) };
            let Digest { hash, sha256, size } = rpm::sign_anew((&from, &signed), &name, self.keys.known())?;
            let file = ReleaseFile { hash, path: path.clone(), size, sha256 };
            let described = Described::read(&signed, &name, &[package.arch])?;
            let (bundle, staples) = (package.bundle.clone(), package.staples.clone());
            let (job, since, attested) = (package.job, package.since, package.attested());
            if rpm::attested(&signed, &name)? != attested {
                return Err(Error::Damaged { path });
            }
            disk::rename(&signed, &waiting)?;
            next.packages[place] = Pooled { since, staples, ..described.pooled((file, bundle), job, attested) };
            next.entering.retain(|entering| entering.path != path);
            next.entering.push(Entering { path, size });
            self.step()?;
        }
        Ok(())
    }
}

fn place(described: Described, addition: &Addition, digest: &Digest) -> Pooled {
    let path = |name: &str| described.place(name).expect("made of checked words");
    let evidence = Digest::of(&addition.bundle);
    let file = |name: &str, d: &Digest| ReleaseFile { hash: d.hash, path: path(name), size: d.size, sha256: d.sha256 };
    let files = (file(addition.file.as_str(), digest), file(&format!("{}{BUNDLE_SUFFIX}", addition.file), &evidence));
    described.pooled(files, addition.job, addition.sha256)
}
