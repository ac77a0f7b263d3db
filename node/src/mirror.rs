//! The mirror's role: follows the releases of its channels, believes no one, and serves what it verified.
//!
//! ```text
//!  release (signed by the coordinator) -> manifest -> every package's evidence -> files by hash from many peers -> switch
//! ```
//!
//! A release whose packages are not each proven by k operators is not taken, whoever signed it; nor is one that goes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    sync::Arc,
    time::Duration,
};

use attest::{bundle::Bundle, verify};
use protocol::{
    ChannelName, Hash, NodeId, Sha256, Timestamp, Verified, limits,
    message::{Request, Response},
    release::{Manifest, PublishedPackage, Release, ReleaseFile},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    daemon::{Shared, chain},
    publish::follow,
    serve::Desk,
};

/// How often a mirror asks by itself, beside hearing of releases.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// Bytes that one mirrored channel may hold.
const BYTES_MAX: u64 = 1 << 40;

/// The largest index, in bytes.
const INDEX_MAX: u64 = 256 << 20;

/// The mirror of this node.
pub struct Mirror {
    shared: Arc<Shared>,
    desk: Desk,
    trees: BTreeMap<ChannelName, follow::Mirror>,
    /// Packages of the newest manifests that were proven since the start, with the bytes that they were proven for.
    proven: BTreeMap<ChannelName, BTreeSet<(PublishedPackage, Sha256)>>,
}

impl Mirror {
    /// Opens the trees of the channels.
    ///
    /// # Errors
    /// Words, when a folder cannot be used.
    pub fn open(shared: Arc<Shared>, desk: Desk, channels: &[ChannelName]) -> Result<Self, String> {
        let mut trees = BTreeMap::new();
        for channel in channels {
            let folder = shared.home.mirror(channel);
            std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
            let tree = follow::Mirror::open(&folder, channel.clone(), BYTES_MAX).map_err(|e| chain(&e))?;
            trees.insert(channel.clone(), tree);
        }
        Ok(Self { shared, desk, trees, proven: BTreeMap::new() })
    }

    /// Follows until stopped. Between two steps of an application it may be dropped; the next start goes on.
    pub async fn run(mut self, mut heard: mpsc::Receiver<Verified<Release>>, stop: CancellationToken) {
        let mut ask = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(release) = heard.recv() => self.follow(&release).await,
                _ = ask.tick() => {
                    let channels: Vec<ChannelName> = self.trees.keys().cloned().collect();
                    for channel in channels {
                        if let Some(release) = self.newest(&channel).await {
                            self.follow(&release).await;
                        }
                    }
                }
            }
        }
    }

    /// Asks the coordinator for the newest release of a channel.
    async fn newest(&self, channel: &ChannelName) -> Option<Verified<Release>> {
        let coordinator = self.shared.leader()?;
        match self.desk.ask(coordinator, Request::Release(channel.clone())).await {
            Ok(Response::Record(record)) => match self.shared.read_signed_by_candidate::<Release>(&record.0) {
                Ok(release) => Some(release),
                Err(why) => {
                    warn!(%channel, %why, "a release was refused");
                    None
                }
            },
            Ok(_) => None,
            Err(error) => {
                debug!(%channel, %error, "the coordinator cannot be asked for releases");
                None
            }
        }
    }

    async fn follow(&mut self, release: &Verified<Release>) {
        let (channel, generation) = (release.get().channel.clone(), release.get().generation);
        let Some(tree) = self.trees.get(&channel) else { return };
        if generation <= tree.generation() {
            return;
        }
        match self.take(release).await {
            Ok(bytes) => info!(%channel, generation, bytes, "release mirrored"),
            Err(why) => warn!(%channel, generation, %why, "release not taken"),
        }
    }

    async fn take(&mut self, release: &Verified<Release>) -> Result<u64, String> {
        let channel = release.get().channel.clone();
        let from = self.providers();
        let hash = release.get().manifest;
        self.fetch(hash, &from, limits::MANIFEST_MAX as u64).await?;
        let bytes = self.shared.blobs.read(&hash, limits::MANIFEST_MAX as u64).await.map_err(|e| chain(&e))?;
        let manifest = Manifest::from_bytes(&bytes).map_err(|e| chain(&e))?;
        let files: Vec<(Hash, u64)> = manifest.files.iter().map(|f| (f.hash, f.size)).collect();
        self.shared.blobs.fetch_many(&self.shared.net, &files, &from).await.map_err(|e| chain(&e))?;
        self.check_covered(&manifest).await?;
        let mut proven = BTreeSet::new();
        for package in &manifest.packages {
            let sha256 = manifest.file(&package.path).ok_or("the manifest does not list its own package")?.sha256;
            let key = (package.clone(), sha256);
            if !self.proven.get(&channel).is_some_and(|known| known.contains(&key)) {
                self.prove(&channel, package, &sha256).await.map_err(|why| format!("{}: {why}", package.path))?;
            }
            proven.insert(key);
        }
        self.proven.insert(channel.clone(), proven);
        let mut hashes: Vec<Hash> = files.iter().map(|(hash, _)| *hash).collect();
        hashes.push(hash);
        let generation = release.get().generation;
        let name = format!("release/{channel}/{generation}");
        self.shared.offer_all(&name, &hashes).await.map_err(|e| chain(&e))?;
        self.shared.blobs.settle().await.map_err(|e| chain(&e))?;
        let fetched = self.apply(&channel, release, bytes.to_vec()).await?;
        let (signed, of) = (release.to_bytes(), channel.clone());
        let put = self.shared.store.run(move |store| store.release_put(&of, generation, &signed)).await;
        put.map_err(|e| chain(&e))?;
        self.shared.withdraw_releases(&channel, generation).await.map_err(|e| chain(&e))?;
        Ok(fetched)
    }

    /// Checks that the release has nothing that the packages' evidence does not cover.
    async fn check_covered(&self, manifest: &Manifest) -> Result<(), String> {
        let mut indexes = BTreeMap::new();
        for file in manifest.files.iter().filter(|file| follow::covered::is_index(file)) {
            let bytes = self.shared.blobs.read(&file.hash, INDEX_MAX).await.map_err(|e| chain(&e))?;
            indexes.insert(file.hash, bytes.to_vec());
        }
        let manifest = manifest.clone();
        let check = tokio::task::spawn_blocking(move || follow::covered::check(&manifest, &indexes));
        check.await.map_err(|e| format!("the mirror stopped: {e}"))?.map_err(|e| e.to_string())
    }

    fn providers(&self) -> Vec<NodeId> {
        let leader = self.shared.leader();
        let policies = self.shared.policies();
        let peers = self.shared.net.peers().into_iter().map(|p| p.node);
        let mut from: Vec<NodeId> = leader.into_iter().collect();
        from.extend(peers.filter(|n| Some(*n) != leader && policies.current().is_member(n)));
        from.retain(|n| *n != self.shared.id);
        from
    }

    async fn fetch(&self, hash: Hash, from: &[NodeId], limit: u64) -> Result<(), String> {
        self.shared.blobs.fetch(&self.shared.net, &hash, from, limit).await.map(drop).map_err(|e| chain(&e))
    }

    /// Checks that k operators built exactly this package, from the evidence alone.
    async fn prove(&self, channel: &ChannelName, package: &PublishedPackage, sha256: &Sha256) -> Result<(), String> {
        let bytes =
            self.shared.blobs.read(&package.bundle, limits::MANIFEST_MAX as u64).await.map_err(|e| chain(&e))?;
        let bundle = Bundle::from_bytes(&bytes).map_err(|e| chain(&e))?;
        let ours = self.shared.policies().envelopes();
        let theirs: Vec<&Vec<u8>> = bundle.policies.iter().map(|p| &p.0).collect();
        // The evidence was judged under the policy of its time, which must be one of the chain that we follow.
        if theirs.is_empty() || theirs.len() > ours.len() || !theirs.iter().zip(&ours).all(|(a, b)| *a == b) {
            return Err("its evidence names policies that this network does not have".into());
        }
        let network = self.shared.network;
        let policy = verify::policy_in_force(&bundle, &network, Timestamp::ZERO).map_err(|e| chain(&e))?;
        let proof = verify::verify_under(&bundle, &network, &policy).map_err(|e| chain(&e))?;
        if proof.job != package.job {
            return Err(format!("its evidence is for job {}", proof.job));
        }
        if proof.channel != *channel {
            return Err(format!("its evidence is for channel {}, whose rules are others", proof.channel));
        }
        let proven = proof.package(&package.name, &package.version, package.arch, sha256);
        proven.map_err(|e| chain(&e))?;
        debug!(package = %package.path, operators = proof.agree.len(), "package proven");
        Ok(())
    }

    /// Writes the tree in a thread of its own; files come out of the blob store, verified again.
    async fn apply(
        &mut self,
        channel: &ChannelName,
        release: &Verified<Release>,
        manifest: Vec<u8>,
    ) -> Result<u64, String> {
        let mut tree = self.trees.remove(channel).ok_or("the channel is not followed")?;
        let (blobs, release) = (self.shared.blobs.clone(), release.clone());
        let staging = self.shared.home.mirror(channel).join("state").join("fetched");
        let (runtime, now) = (tokio::runtime::Handle::current(), clock::now());
        let work = tokio::task::spawn_blocking(move || {
            let mut fetch = |file: &ReleaseFile| {
                let path = staging.as_path();
                open_blob(&runtime, &blobs, file, path).map(|f| Box::new(f) as Box<dyn std::io::Read>)
            };
            let applied = tree.apply(&release, &manifest, now, &mut fetch);
            // It is a leftover of the last file; the next one overwrites it anyway.
            let _ = std::fs::remove_file(&staging);
            (tree, applied)
        });
        let (tree, applied) = work.await.map_err(|e| format!("the mirror stopped: {e}"))?;
        self.trees.insert(channel.clone(), tree);
        applied.map(|a| a.bytes).map_err(|e| chain(&e))
    }
}

fn open_blob(
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
