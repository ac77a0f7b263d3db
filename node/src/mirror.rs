//! The mirror's role: follows the releases of its channels, believes no one, and serves what it verified.
//!
//! ```text
//!  release (signed by a coordinator) -> manifest -> every package's evidence -> files by hash from many peers -> switch
//! ```
//!
//! A release whose packages are not each proven by k operators is not taken, whoever signed it; nor is one that goes back, or that
//! nobody proves to be in the log, nor any while the policy is over.

pub mod intake;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use attest::log::{
    entry::{self, Entry, Event},
    network, proof,
};
use protocol::{
    ChannelName, Hash, NodeId, Verified,
    message::{Octets, Request, Response},
    release::{Release, ReleaseFile},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::intake::Intake;
use crate::{
    clock,
    daemon::{Shared, chain, learn_places},
    publish::follow,
    serve::Desk,
};

/// How often a mirror asks by itself, beside hearing of releases.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// The mirror of this node.
pub struct Mirror {
    shared: Arc<Shared>,
    desk: Desk,
    trees: BTreeMap<ChannelName, follow::Mirror>,
    intake: Intake,
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
            let tree = follow::Mirror::open(&folder, channel.clone(), intake::BYTES_MAX).map_err(|e| chain(&e))?;
            trees.insert(channel.clone(), tree);
        }
        let intake = Intake::new(Arc::clone(&shared), desk.clone());
        Ok(Self { shared, desk, trees, intake })
    }

    /// Follows until stopped. Between two steps of an application it may be dropped; the next start goes on.
    pub async fn run(mut self, mut heard: broadcast::Receiver<Verified<Release>>, stop: CancellationToken) {
        let mut ask = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // One that lags asks for the newest by itself.
                Ok(release) = heard.recv() => drop(self.follow(&release).await),
                _ = ask.tick() => {
                    learn_places(&self.shared, &self.desk).await;
                    let channels: Vec<ChannelName> = self.trees.keys().cloned().collect();
                    for channel in channels {
                        self.follow_newest(&channel).await;
                    }
                }
            }
        }
    }

    /// Takes the newest release that a coordinator gives. One that does not hold, whatever its number, hides no other.
    async fn follow_newest(&mut self, channel: &ChannelName) {
        for release in self.newest(channel).await {
            if self.follow(&release).await {
                return;
            }
        }
    }

    /// Asks the coordinators for the newest release of a channel: first who leads, then the others, which follow it too. Gives each
    /// answer once, the newest first.
    async fn newest(&self, channel: &ChannelName) -> Vec<Verified<Release>> {
        let mut releases = Vec::new();
        for node in self.coordinators() {
            let Ok(Response::Record(record)) = self.desk.ask(node, Request::Release(channel.clone())).await else {
                debug!(%channel, node = %node.short(), "no release from this coordinator");
                continue;
            };
            match intake::read_release(&self.shared, &record.0, &self.candidates()) {
                Ok(release) if release.get().channel != *channel => {}
                Ok(release) => releases.push(release),
                Err(why) => warn!(%channel, %why, "a release was refused"),
            }
        }
        let order = |r: &Verified<Release>| std::cmp::Reverse((r.get().generation, r.get().term, r.id()));
        releases.sort_by_key(order);
        releases.dedup_by_key(|release| release.id());
        releases
    }

    fn candidates(&self) -> BTreeSet<NodeId> {
        self.shared.policies().current().coordinators.candidates().iter().copied().collect()
    }

    /// The coordinators, without this node.
    fn coordinators(&self) -> Vec<NodeId> {
        let first = self.shared.leader();
        let mut all: Vec<NodeId> = first.into_iter().collect();
        all.extend(self.candidates().into_iter().filter(|node| Some(*node) != first));
        all.retain(|node| *node != self.shared.id);
        all
    }

    /// Takes a release where it is news; false when it does not hold, or not yet.
    async fn follow(&mut self, release: &Verified<Release>) -> bool {
        let (channel, generation) = (release.get().channel.clone(), release.get().generation);
        let Some(tree) = self.trees.get(&channel) else { return true };
        if !tree.wants(release.get()) {
            return true;
        }
        match self.take(release).await {
            Ok(bytes) => {
                info!(%channel, generation, bytes, "release mirrored");
                true
            }
            Err(why) => {
                warn!(%channel, generation, %why, "release not taken");
                false
            }
        }
    }

    async fn take(&mut self, release: &Verified<Release>) -> Result<u64, String> {
        self.shared.check_log()?;
        self.check_in_force()?;
        let channel = release.get().channel.clone();
        let from = self.providers();
        let manifest = self.intake.manifest(release.get(), &from).await?;
        let tree = self.trees.get(&channel).ok_or("the channel is not followed")?;
        if let Err(error) = tree.judge(release.get(), &manifest) {
            self.tell_fork(&error, release).await;
            return Err(chain(&error));
        }
        self.check_logged(release).await?;
        self.intake.take(release.get(), &manifest, &from).await?;
        let (generation, term) = (release.get().generation, release.get().term);
        let fetched = self.apply(&channel, release, manifest).await?;
        let (signed, of) = (release.to_bytes(), channel.clone());
        let put = self.shared.store.run(move |store| store.release_put(&of, generation, term, &signed)).await;
        put.map_err(|e| chain(&e))?;
        self.shared.withdraw_releases(&channel, generation).await.map_err(|e| chain(&e))?;
        Ok(fetched)
    }

    /// Checks that the policy has not ended. Coordinators begin no publication after its end; what one signs all the same, whatever
    /// time it writes into a release, no mirror takes. What is here is served on.
    fn check_in_force(&self) -> Result<(), String> {
        let ended = self.shared.policies().current().expires;
        if ended <= clock::now() {
            let at = clock::rfc3339(ended);
            return Err(format!("the policy has expired at {at}: nothing is taken before its roots sign the next one"));
        }
        Ok(())
    }

    /// Checks that a release was logged and that as many operators have seen it as its channel asks for. The proof is kept for
    /// whoever asks here.
    async fn check_logged(&self, release: &Verified<Release>) -> Result<(), String> {
        let (policies, shared) = (self.shared.policies(), &self.shared);
        let quorum = policies.current().channel(&release.get().channel).map_or(0, |channel| channel.witnesses);
        let envelope = Hash::of(&release.to_bytes());
        let log = network::log_policy(&shared.network, policies.current(), quorum).map_err(|e| chain(&e))?;
        let mut why = "nobody proves that the release was logged".to_owned();
        for node in self.coordinators() {
            let Ok(Response::Record(Octets(bytes))) = self.desk.ask(node, Request::ReleaseProof(envelope)).await else {
                continue;
            };
            match proof::Proof::read(&bytes).and_then(|proof| proof.entry(&log)) {
                Ok((entry, logged)) if is_entry_of(&entry, release.get(), envelope) => {
                    // What proves a release must be of the log that everybody else sees.
                    let checkpoint = logged.witnessed.checkpoint.as_signed().to_string().into_bytes();
                    if !shared.others.sight.is_followed(node, checkpoint).await {
                        why = "nobody shows that the checkpoint which proves it is of the log that this node follows"
                            .into();
                        continue;
                    }
                    return shared.keep_release_proof(envelope, bytes).await.map_err(|e| chain(&e));
                }
                Ok(_) => why = "the proof is of something else in the log".into(),
                Err(error) => why = chain(&error),
            }
        }
        Err(why)
    }

    /// One generation with two contents is no accident: it stays as it is here, and both releases are kept.
    async fn tell_fork(&self, error: &follow::Error, release: &Verified<Release>) {
        if let follow::Error::Equivocation { generation, .. } = error {
            let (channel, kept) = (&release.get().channel, intake::keep_fork(&self.shared, release).await);
            error!(%channel, generation, evidence = ?kept, "one generation was signed with two contents; the second is not taken");
        }
    }

    fn providers(&self) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let mut from = self.coordinators();
        let peers = self.shared.net.peers().into_iter().map(|p| p.node);
        let others: Vec<_> = peers.filter(|n| !from.contains(n) && policies.current().is_member(n)).collect();
        from.extend(others);
        from.retain(|n| *n != self.shared.id);
        from
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
                intake::open_blob(&runtime, &blobs, file, path).map(|f| Box::new(f) as Box<dyn std::io::Read>)
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

/// Says whether an entry of the log is that of a release.
fn is_entry_of(entry: &Entry, release: &Release, envelope: Hash) -> bool {
    let logged = entry::Release { channel: release.channel.clone(), envelope, generation: release.generation };
    entry.event == Event::Release(logged)
}
