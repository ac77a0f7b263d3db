//! From a signed release to files that may be served: what mirrors do, and coordinators that may have to continue a repository.
//!
//! ```text
//!  manifest -> sizes -> every package's evidence -> indexes -> everything else -> offered to others
//! ```
//!
//! What is small and proves comes before what is large: a release that does not hold costs at most its evidence. Whether the
//! release's signer may speak for the channel is the caller's question.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use attest::{bundle::Bundle, trust::Trust};
use protocol::{
    ChannelName, Hash, NodeId, Sha256, Verified, limits,
    release::{Manifest, PublishedPackage, Release, ReleaseFile},
    words::RelativePath,
};
use tracing::debug;

use crate::{
    daemon::{Shared, chain, learn_places},
    publish::{
        apt::{
            BUNDLE_SUFFIX,
            staple::{SUFFIXES, beside},
        },
        evidence::{self, Bar},
        follow::{
            self,
            covered::{rpms::Rpms, signatures},
        },
        sign::keyring::Keyring,
    },
    serve::Desk,
};

/// Bytes that one channel may have.
pub(super) const BYTES_MAX: u64 = 1 << 40;
/// The largest index, in bytes.
const INDEX_MAX: u64 = 256 << 20;
/// The largest file with a signature of its own, in bytes: a `Release` names a few indexes.
const SIGNED_MAX: u64 = 16 << 20;
/// All indexes and files with signatures of a release together, in bytes: they are held in memory while they are compared.
const INDEXES_MAX: u64 = 1 << 30;

/// Packages that were proven, with the bytes that they were proven for and what is stapled to them.
type Proven = BTreeSet<(PublishedPackage, Sha256, Staples)>;
/// Lines and proof beside a package, where they are, as [`SUFFIXES`] names them.
type Staples = [Option<ReleaseFile>; 2];

/// Takes releases in, and remembers what was proven.
pub struct Intake {
    shared: Arc<Shared>,
    desk: Desk,
    /// What packages were judged by last.
    trust: Option<Arc<Trust>>,
    /// Packages of the newest manifests that were proven by that since the start.
    proven: BTreeMap<ChannelName, Proven>,
    /// What dnf's metadata says of the RPMs of the newest manifests.
    rpms: BTreeMap<ChannelName, Rpms>,
}

impl Intake {
    /// Makes an intake that has proven nothing yet.
    pub fn new(shared: Arc<Shared>, desk: Desk) -> Self {
        Self { shared, desk, trust: None, proven: BTreeMap::new(), rpms: BTreeMap::new() }
    }

    /// Fetches the manifest of a release.
    ///
    /// # Errors
    /// Words, when nobody gives it.
    pub async fn manifest(&self, release: &Release, from: &[NodeId]) -> Result<Vec<u8>, String> {
        let limit = limits::MANIFEST_MAX as u64;
        let fetched = self.shared.blobs.fetch(&self.shared.net, &release.manifest, from, limit).await;
        fetched.map_err(|e| chain(&e))?;
        Ok(self.shared.blobs.read(&release.manifest, limit).await.map_err(|e| chain(&e))?.to_vec())
    }

    /// Fetches and proves what a release's manifest names, and offers it to others.
    ///
    /// # Errors
    /// Words: the first check that fails, or what cannot be had.
    pub async fn take(&mut self, release: &Release, manifest: &[u8], from: &[NodeId]) -> Result<(), String> {
        let channel = &release.channel;
        let manifest = Manifest::from_bytes(manifest).map_err(|e| chain(&e))?;
        check_sizes(&manifest, self.room())?;
        let trust = self.trust().await?;
        let proven = self.prove_all((&trust, channel), &manifest, from).await?;
        self.check_covered(&manifest, from).await?;
        self.fetch_many(manifest.files.iter(), from).await?;
        let keyring = self.check_signatures(&manifest).await?;
        let rpms = self.check_rpms(release, &manifest, keyring).await?;
        self.rpms.insert(channel.clone(), rpms);
        self.proven.insert(channel.clone(), proven);
        let mut hashes: Vec<Hash> = manifest.files.iter().map(|f| f.hash).collect();
        hashes.push(release.manifest);
        let name = format!("release/{channel}/{}", release.generation);
        self.shared.offer_all(&name, &hashes).await.map_err(|e| chain(&e))?;
        // Who reads the release asks for its files, after a crash too.
        self.shared.blobs.settle().await.map_err(|e| chain(&e))
    }

    /// Gives what packages are judged by now. What was proven under other policies is asked anew.
    async fn trust(&mut self) -> Result<Arc<Trust>, String> {
        learn_places(&self.shared, &self.desk).await;
        let trust = self.shared.trust().map_err(|e| chain(&e))?;
        if !self.trust.as_ref().is_some_and(|known| Arc::ptr_eq(known, &trust)) {
            self.proven.clear();
            self.trust = Some(Arc::clone(&trust));
        }
        Ok(trust)
    }

    /// What one channel may have here, in bytes.
    fn room(&self) -> u64 {
        BYTES_MAX.min(self.shared.config.storage.quota_mib << 20)
    }

    async fn prove_all(
        &self,
        (trust, channel): (&Trust, &ChannelName),
        manifest: &Manifest,
        from: &[NodeId],
    ) -> Result<Proven, String> {
        let bar = Bar { trust, channel };
        let unknown = Proven::new();
        let known = self.proven.get(channel).unwrap_or(&unknown);
        let mut proven = Proven::new();
        for package in &manifest.packages {
            let sha256 = manifest.file(&package.path).ok_or("the manifest does not list its own package")?.sha256;
            proven.insert((package.clone(), sha256, staples_of(manifest, package)));
        }
        let wanted: Vec<_> = proven.difference(known).collect();
        let evidence = wanted.iter().filter_map(|(package, ..)| evidence_of(manifest, package));
        let stapled = wanted.iter().flat_map(|(_, _, staples)| staples.iter().flatten());
        self.fetch_many(evidence.chain(stapled), from).await?;
        for (package, sha256, staples) in wanted {
            self.prove(&bar, (package, sha256), staples).await.map_err(|why| format!("{}: {why}", package.path))?;
        }
        Ok(proven)
    }

    /// Reads a file that is here. What was summed up before are the sizes that the manifest lists, so that they must be true.
    async fn read_as_listed(&self, file: &ReleaseFile, max: u64) -> Result<Vec<u8>, String> {
        let bytes = self.shared.blobs.read(&file.hash, max).await.map_err(|e| chain(&e))?;
        has_listed_size(file, bytes.len() as u64)?;
        Ok(bytes.to_vec())
    }

    /// Checks that the release has nothing that the packages' evidence does not cover.
    async fn check_covered(&self, manifest: &Manifest, from: &[NodeId]) -> Result<(), String> {
        let named = || manifest.files.iter().filter(|file| follow::covered::is_index(file));
        self.fetch_many(named(), from).await?;
        let mut indexes = BTreeMap::new();
        for file in named() {
            indexes.insert(file.hash, self.read_as_listed(file, INDEX_MAX).await?);
        }
        let manifest = manifest.clone();
        let check = tokio::task::spawn_blocking(move || follow::covered::check(&manifest, &indexes));
        check.await.map_err(|e| format!("the check stopped: {e}"))?.map_err(|e| e.to_string())
    }

    /// Checks the signatures that apt and dnf will check, and gives the release's keyring.
    async fn check_signatures(&self, manifest: &Manifest) -> Result<Keyring, String> {
        let mut bytes = BTreeMap::new();
        for file in manifest.files.iter().filter(|file| signatures::is_read(file)) {
            bytes.insert(file.hash, self.read_as_listed(file, SIGNED_MAX).await?);
        }
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let mut open = |file: &ReleaseFile| bytes.get(&file.hash).cloned().ok_or_else(missing);
        signatures::check(manifest, &mut open).map_err(|e| chain(&e))
    }

    /// Checks that each RPM is what was attested but for its signature, and that dnf is told of exactly these.
    async fn check_rpms(&self, release: &Release, manifest: &Manifest, keyring: Keyring) -> Result<Rpms, String> {
        let known = self.rpms.get(&release.channel).cloned().unwrap_or_default();
        let folder = self.shared.home.path().join("incoming");
        let (blobs, runtime) = (self.shared.blobs.clone(), tokio::runtime::Handle::current());
        let (manifest, at, staging) = (manifest.clone(), release.at, folder.join(staging_name()));
        let check = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
            let checked = follow::covered::rpms::check((&manifest, &keyring), at, known, &mut |file| {
                open_blob(&runtime, &blobs, file, &staging)?;
                Ok(staging.clone())
            });
            // It is a leftover of the last file.
            let _ = std::fs::remove_file(&staging);
            checked.map_err(|e| chain(&e))
        });
        check.await.map_err(|e| format!("the check stopped: {e}"))?
    }

    async fn fetch_many(&self, files: impl Iterator<Item = &ReleaseFile>, from: &[NodeId]) -> Result<(), String> {
        let files: Vec<(Hash, u64)> = files.map(|f| (f.hash, f.size)).collect();
        self.shared.blobs.fetch_many(&self.shared.net, &files, from).await.map(drop).map_err(|e| chain(&e))
    }

    /// Checks that k operators built exactly this package, from the evidence alone, and that what is stapled to it says so, too.
    async fn prove(
        &self,
        bar: &Bar<'_>,
        (package, sha256): (&PublishedPackage, &Sha256),
        staples: &Staples,
    ) -> Result<(), String> {
        let bytes =
            self.shared.blobs.read(&package.bundle, limits::MANIFEST_MAX as u64).await.map_err(|e| chain(&e))?;
        let bundle = Bundle::from_bytes(&bytes).map_err(|e| chain(&e))?;
        let [lines, log] = [self.stapled(&staples[0]).await?, self.stapled(&staples[1]).await?];
        let stapled = evidence::Staples { lines: lines.as_deref(), proof: log.as_deref() };
        let proof = evidence::prove(bar, &bundle, &stapled, package.job).map_err(|e| chain(&e))?.proof;
        let attested = package.attested.as_ref().unwrap_or(sha256);
        let proven = proof.package(&package.name, &package.version, package.arch, attested);
        proven.map_err(|e| chain(&e))?;
        debug!(package = %package.path, operators = proof.agree.len(), "package proven");
        Ok(())
    }

    async fn stapled(&self, staple: &Option<ReleaseFile>) -> Result<Option<Vec<u8>>, String> {
        let Some(file) = staple else { return Ok(None) };
        let bytes = self.shared.blobs.read(&file.hash, limits::MANIFEST_MAX as u64).await.map_err(|e| chain(&e))?;
        Ok(Some(bytes.to_vec()))
    }
}

/// Finds what is stapled to a package.
fn staples_of(manifest: &Manifest, package: &PublishedPackage) -> Staples {
    SUFFIXES.map(|suffix| manifest.file(&beside(&package.path, suffix)?).cloned())
}

/// Names a file for one check: a mirror and a publisher of one node, or two channels, may look into RPMs at the same time.
fn staging_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("rpm-of-a-release-{}", COUNT.fetch_add(1, Relaxed))
}

/// Finds the file with a package's evidence.
fn evidence_of<'a>(manifest: &'a Manifest, package: &PublishedPackage) -> Option<&'a ReleaseFile> {
    let path = RelativePath::new(format!("{}{BUNDLE_SUFFIX}", package.path)).ok()?;
    manifest.file(&path).filter(|file| file.hash == package.bundle)
}

/// Refuses a file that is not as long as the manifest says.
fn has_listed_size(file: &ReleaseFile, bytes: u64) -> Result<(), String> {
    if bytes == file.size {
        return Ok(());
    }
    Err(format!("{} has {bytes} bytes, and the manifest says {}", file.path, file.size))
}

/// Refuses a release that has no room here, or whose evidence or indexes are larger than any of ours, before a byte of it is
/// fetched.
fn check_sizes(manifest: &Manifest, room: u64) -> Result<(), String> {
    let sum = |files: &mut dyn Iterator<Item = &ReleaseFile>| files.fold(0u64, |sum, f| sum.saturating_add(f.size));
    let all = sum(&mut manifest.files.iter());
    if all > room {
        return Err(format!(
            "the release has {all} bytes, and a channel may have {room} here; raise `quota_mib` in [storage] to take it"
        ));
    }
    let is_read = |f: &&ReleaseFile| follow::covered::is_index(f) || signatures::is_read(f);
    let indexes = sum(&mut manifest.files.iter().filter(is_read));
    if indexes > INDEXES_MAX {
        return Err(format!(
            "its indexes and signatures have {indexes} bytes together, no more than {INDEXES_MAX} are read"
        ));
    }
    for package in &manifest.packages {
        let evidence = evidence_of(manifest, package);
        let evidence = evidence.ok_or_else(|| format!("{}: the manifest does not list its evidence", package.path))?;
        let staples = staples_of(manifest, package);
        for evidence in std::iter::once(evidence).chain(staples.iter().flatten()) {
            if evidence.size > limits::MANIFEST_MAX as u64 {
                return Err(format!("{}: its evidence has {} bytes", package.path, evidence.size));
            }
        }
    }
    Ok(())
}

/// Reads a release that one of these nodes must have signed.
///
/// # Errors
/// Words.
pub fn read_release(shared: &Shared, bytes: &[u8], signers: &BTreeSet<NodeId>) -> Result<Verified<Release>, String> {
    let read = protocol::Signed::<Release>::read(bytes).and_then(|s| s.verify(Some(&shared.network)));
    let release = read.map_err(|e| chain(&e))?;
    let known = release.signers().iter().any(|signer| signers.contains(&NodeId::from(*signer)));
    if known { Ok(release) } else { Err("it is signed by none of the network's coordinators".into()) }
}

/// Opens a blob's bytes as a file of its own; call it on a thread that may block.
pub(crate) fn open_blob(
    runtime: &tokio::runtime::Handle,
    blobs: &crate::blobs::Blobs,
    file: &ReleaseFile,
    path: &Path,
) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    runtime.block_on(blobs.export(&file.hash, path)).map_err(std::io::Error::other)?;
    File::open(path)
}

/// Keeps two signed releases that contradict each other, for people and other members to judge. Gives the folder.
pub(crate) async fn keep_fork(shared: &Shared, release: &Verified<Release>) -> Option<std::path::PathBuf> {
    let (channel, generation) = (release.get().channel.clone(), release.get().generation);
    let of = channel.clone();
    let known = shared.store.run(move |store| store.release(&of)).await.ok().flatten();
    let folder = shared.home.path().join("evidence").join(format!("fork-{channel}-{generation}"));
    let got = (format!("{}.release", release.get().manifest), release.to_bytes());
    let known = known.map(|known| (format!("known-{}.release", known.number), known.bytes));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        known.into_iter().chain([got]).try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
    };
    match write() {
        Ok(()) => Some(folder),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "two contradicting releases cannot be kept");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: &[(&str, u64)]) -> Manifest {
        let hash = Hash::of(b"content");
        let file = |&(path, size): &(&str, u64)| ReleaseFile {
            hash,
            path: path.parse().unwrap(),
            size,
            sha256: Sha256::of(b"content"),
        };
        Manifest { files: files.iter().map(file).collect(), packages: Vec::new() }
    }

    #[test]
    fn what_is_read_into_memory_has_the_size_that_was_summed_up() {
        let lying = manifest(&[("dists/trixie/main/binary-amd64/Packages", 0)]);
        let why = has_listed_size(&lying.files[0], 7).unwrap_err();
        assert!(why.ends_with("has 7 bytes, and the manifest says 0"), "{why}");
        has_listed_size(&manifest(&[("dists/trixie/main/binary-amd64/Packages", 7)]).files[0], 7).unwrap();
    }

    #[test]
    fn a_release_without_room_or_with_endless_indexes_costs_nothing() {
        let room = 4 * INDEXES_MAX;
        let indexes = ["dists/trixie/main/binary-amd64/Packages", "dists/trixie/InRelease"];
        check_sizes(&manifest(&indexes.map(|path| (path, INDEXES_MAX / 2))), room).unwrap();
        let why = check_sizes(&manifest(&indexes.map(|path| (path, INDEXES_MAX / 2 + 1))), room).unwrap_err();
        assert!(why.contains("indexes and signatures"), "{why}");
        // What is no index needs room, but is not read into memory.
        let pool = ["pool/a.tar", "pool/b.tar"];
        check_sizes(&manifest(&pool.map(|path| (path, INDEXES_MAX))), room).unwrap();
        let why = check_sizes(&manifest(&pool.map(|path| (path, u64::MAX))), room).unwrap_err();
        assert!(why.contains("`quota_mib` in [storage]"), "{why}");
    }
}
