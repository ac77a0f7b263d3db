//! Taking over what another coordinator published, so that this node can publish the next generation.
//!
//! Every file is fetched by hash, checked, and staged beside the tree; then the same plan and switch as for a generation of
//! one's own. Signatures stay as they were made. Whether the release's signer may speak for the channel, and whether the
//! packages' evidence holds, is the caller's question.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use protocol::{
    FileName, Hash, Sha256,
    lease::Term,
    release::{Manifest, ManifestError, PublishedPackage, Release, ReleaseFile},
    words::RelativePath,
};

use super::{
    Addition, BUNDLE_SUFFIX, Error as AptError, Fence, Published, Repository,
    admit::Described,
    index, staged,
    staple::{SUFFIXES, beside},
    state::{Entering, Pooled, State},
};
use crate::{
    publish::{
        disk,
        rpm::{self, metadata},
    },
    resolve::digest::Digest,
};

/// Gives the bytes of a file by its hash, from wherever they can be had; they are checked here again.
pub type Fetch<'a> = dyn FnMut(&ReleaseFile) -> io::Result<Box<dyn Read>> + 'a;

/// Why another coordinator's generation was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is not the one that the release names.
    #[error("the manifest has the hash {got}, the release names {wanted}")]
    WrongManifest {
        /// The hash of the bytes.
        got: Hash,
        /// The hash in the release.
        wanted: Hash,
    },
    /// The manifest breaks a rule of the protocol.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file or package that no repository of ours has.
    #[error("the manifest lists {path}, which is not acceptable: {why}")]
    Foreign {
        /// Its path.
        path: RelativePath,
        /// The rule that it breaks.
        why: String,
    },
    /// One generation with two contents: somebody signed what the coordinators did not decide.
    #[error(
        "generation {generation} exists with other packages: manifest {have} here, manifest {got} of term {term}; keep both"
    )]
    Fork {
        /// The generation.
        generation: u64,
        /// The manifest here.
        have: Hash,
        /// The manifest of the release.
        got: Hash,
        /// The release's term.
        term: Term,
    },
    /// A file could not be had.
    #[error("cannot fetch {path} ({hash})")]
    Fetch {
        /// The file.
        path: RelativePath,
        /// Its hash.
        hash: Hash,
        /// The fetcher's words.
        #[source]
        source: io::Error,
    },
    /// Fetched bytes are not those that the manifest names.
    #[error("what was fetched for {path} is not what the manifest names: wanted {wanted}, got {got}")]
    WrongBytes {
        /// The file.
        path: RelativePath,
        /// The SHA-256 in the manifest.
        wanted: Sha256,
        /// The SHA-256 of the bytes.
        got: Sha256,
    },
}

impl Repository {
    /// Takes over a release: afterwards the tree is exactly that generation, and the next one continues it. Taking over what is
    /// here already changes nothing.
    ///
    /// # Errors
    /// The first check that fails; then nothing that others see has changed. A file error may leave a plan, which the next
    /// call finishes.
    pub fn adopt(&mut self, release: &Release, manifest: &[u8], fetch: &mut Fetch<'_>) -> Result<Published, AptError> {
        self.recover()?;
        let private = self.dir.join("state");
        let got = Hash::of(manifest);
        if got != release.manifest {
            return Err(Error::WrongManifest { got, wanted: release.manifest }.into());
        }
        let manifest = Manifest::from_bytes(manifest).map_err(Error::Manifest)?;
        if self.is_known(release, &manifest)? {
            return self.published();
        }
        let Release { at, term, generation, .. } = *release;
        let (request, settings) = (adopted(), self.settings.clone());
        let mut next = State { at, term, generation, request, settings, entering: vec![], ..self.state.clone() };
        self.take_packages(&mut next, &manifest, fetch)?;
        self.take_written(&mut next, &manifest, fetch)?;
        self.plan_removal(&mut next);
        Fence::read(&private)?.raise(&private, generation, term)?;
        self.step()?;
        next.write(&private, &private.join("next"))?;
        self.step()?;
        self.switch(next)?;
        self.published()
    }

    /// Judges a release by its manifest alone, before anything is fetched for it: says whether there is something to take over.
    ///
    /// # Errors
    /// As [`Repository::adopt`].
    pub fn judge(&self, release: &Release, manifest: &[u8]) -> Result<bool, AptError> {
        let manifest = Manifest::from_bytes(manifest).map_err(Error::Manifest)?;
        self.is_known(release, &manifest).map(|known| !known)
    }

    /// Says whether additions are all part of a generation that was taken over: its publisher may have stopped before it said
    /// so.
    pub(super) fn adopted_holds(&self, additions: &[Addition]) -> bool {
        let holds = |a: &Addition| self.state.packages.iter().any(|p| (p.attested(), p.job) == (a.sha256, a.job));
        self.state.request == adopted() && additions.iter().all(holds)
    }

    /// Compares a release with the generation here: newer, the same, or refused.
    fn is_known(&self, release: &Release, manifest: &Manifest) -> Result<bool, AptError> {
        let State { generation, term, .. } = self.state;
        if release.generation < generation || release.generation == 0 {
            return Err(AptError::Fenced { got: release.generation, published: generation });
        }
        if release.generation > generation {
            return Ok(false);
        }
        let here = self.published()?.manifest;
        let have = Hash::of(&here.to_bytes());
        if have == release.manifest {
            return Ok(true);
        }
        // A new coordinator repeats what a former one may have signed without saying so: the packages decide.
        if release.term == term || !same_packages(&here, manifest) {
            let (got, term) = (release.manifest, release.term);
            return Err(Error::Fork { generation, have, got, term }.into());
        }
        if release.term < term {
            return Err(AptError::OlderTerm { got: release.term, published: term });
        }
        Ok(false)
    }

    fn take_packages(&self, next: &mut State, manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<(), AptError> {
        let known: BTreeMap<_, _> = self.state.packages.iter().map(|p| (&p.file.path, p)).collect();
        let mut packages = Vec::new();
        for package in &manifest.packages {
            let listed = |path: &RelativePath| {
                manifest.file(path).cloned().ok_or_else(|| foreign(path, "the manifest lists no such file"))
            };
            let file = listed(&package.path)?;
            let bundle = RelativePath::new(format!("{}{BUNDLE_SUFFIX}", package.path));
            let bundle = listed(&bundle.map_err(|e| foreign(&package.path, &e.to_string()))?)?;
            if bundle.hash != package.bundle {
                return Err(foreign(&bundle.path, "it is not the evidence that its package names").into());
            }
            let staples: Vec<_> = SUFFIXES.iter().filter_map(|s| manifest.file(&beside(&package.path, s)?)).collect();
            let got = package.attested.unwrap_or(file.sha256);
            if let Some(published) = self.state.attested_of(&file.path).filter(|seen| *seen != got) {
                return Err(AptError::Different { path: file.path, published, got });
            }
            let mut pooled = match known.get(&file.path).filter(|p| p.file == file && self.lies(&file)) {
                Some(known) => Pooled { job: package.job, bundle: bundle.clone(), ..(*known).clone() },
                None => self.take_package(next, package, (file, bundle.clone()), fetch)?,
            };
            if known.get(&pooled.file.path).is_none_or(|p| p.bundle != bundle) || !self.lies(&bundle) {
                self.take(next, &bundle, fetch)?;
            }
            for staple in &staples {
                let had = known.get(&pooled.file.path).is_some_and(|p| p.staples.contains(staple));
                if !had || !self.lies(staple) {
                    self.take(next, staple, fetch)?;
                }
            }
            pooled.staples = staples.into_iter().cloned().collect();
            next.note(pooled.file.path.clone(), pooled.attested());
            packages.push(pooled);
        }
        next.packages = packages;
        Ok(())
    }

    /// Fetches a package and reads from it what the next generation's indexes need.
    fn take_package(
        &self,
        next: &mut State,
        package: &PublishedPackage,
        (file, bundle): (ReleaseFile, ReleaseFile),
        fetch: &mut Fetch<'_>,
    ) -> Result<Pooled, AptError> {
        self.take(next, &file, fetch)?;
        let name = package.path.as_str().rsplit('/').next().unwrap_or_default();
        let name = FileName::new(name).map_err(|e| foreign(&file.path, &e.to_string()))?;
        let copy = self.dir.join("state/incoming").join(staged(&file.path));
        let described = Described::read(&copy, &name, &next.settings.arches)?;
        if described.identity() != (&package.name, &package.version, package.arch) {
            return Err(foreign(&file.path, "it says otherwise than the manifest what it is").into());
        }
        if described.place(name.as_str()).as_ref() != Some(&file.path) {
            return Err(foreign(&file.path, "it does not lie where its source package does").into());
        }
        let attested = match package.attested {
            Some(attested) if rpm::attested(&copy, &name)? != attested => {
                return Err(foreign(&file.path, "without its signature it is not what was attested").into());
            }
            Some(attested) => attested,
            None => file.sha256,
        };
        let pooled = described.pooled((file, bundle), package.job, attested);
        Ok(Pooled { since: Some(next.at), ..pooled })
    }

    /// Takes indexes, signatures and keys, as they were written.
    fn take_written(&self, next: &mut State, manifest: &Manifest, fetch: &mut Fetch<'_>) -> Result<(), AptError> {
        let is_pooled = |f: &&ReleaseFile| f.path.as_str().starts_with("pool/");
        let mut written: Vec<_> = manifest.files.iter().filter(|f| !is_pooled(f)).cloned().collect();
        written.sort_by(|a, b| (index::stage(&a.path), &a.path).cmp(&(index::stage(&b.path), &b.path)));
        for file in &written {
            let path = file.path.as_str();
            if !path.starts_with("dists/")
                && !path.starts_with(metadata::FOLDER)
                && ![index::KEYRING, index::KEYRING_ARMORED].contains(&path)
            {
                return Err(foreign(&file.path, "it is neither below pool, dists or repodata nor the keyring").into());
            }
            let by_hash = index::stage(&file.path) == index::Stage::ByHash;
            if !(by_hash && self.state.written.contains(file) && self.lies(file)) {
                self.take(next, file, fetch)?;
            }
        }
        next.written = written;
        Ok(())
    }

    /// Compares sizes only: contents were hashed when they came.
    fn lies(&self, file: &ReleaseFile) -> bool {
        disk::size_of(&self.root().join(file.path.as_str())) == Some(file.size)
    }

    /// Fetches one file, checks it and stages it.
    fn take(&self, next: &mut State, file: &ReleaseFile, fetch: &mut Fetch<'_>) -> Result<(), AptError> {
        let failed = |source| Error::Fetch { path: file.path.clone(), hash: file.hash, source };
        let mut from = fetch(file).map_err(failed)?;
        let to = self.dir.join("state/incoming").join(staged(&file.path));
        let Digest { hash, sha256, size } = disk::copy(&mut from, &to, file.size.saturating_add(1))?;
        if (hash, sha256, size) != (file.hash, file.sha256, file.size) {
            disk::remove(&to)?;
            return Err(Error::WrongBytes { path: file.path.clone(), wanted: file.sha256, got: sha256 }.into());
        }
        next.entering.push(Entering { path: file.path.clone(), size: file.size });
        self.step()
    }
}

/// Says whether two manifests hold the same packages with the same attested bytes; evidence and signatures may differ.
pub(in crate::publish) fn same_packages(a: &Manifest, b: &Manifest) -> bool {
    let packages = |manifest: &Manifest| -> Vec<_> {
        let content = |p: &PublishedPackage| p.attested.or_else(|| manifest.file(&p.path).map(|f| f.sha256));
        let line = |p: &PublishedPackage| (p.path.clone(), p.job, content(p));
        manifest.packages.iter().map(line).collect()
    };
    packages(a) == packages(b)
}

fn foreign(path: &RelativePath, why: &str) -> Error {
    Error::Foreign { path: path.clone(), why: why.to_owned() }
}

/// Stands for the request of a generation that another node published.
fn adopted() -> Hash {
    Hash::of(b"adopted")
}
