//! Handing the publisher over from one coordinator to the next.
//!
//! ```text
//!  not leading:  release heard -> proven -> taken over as it is           (ready to lead)
//!  leading:      newest release of the others taken over -> published -> held by a majority -> reported to the ledger
//! ```
//!
//! A publication is reported only when a majority of the coordinators holds its files, so that whoever leads next can have
//! them; and nothing is published that does not continue the newest generation that was reported.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ledger::Doubt;
use protocol::{
    ChannelName, NodeId, Verified,
    lease::Term,
    message::{Request, Response},
    release::{Release, ReleaseFile},
};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{Failure, Publisher, Repository, Shared, chain};
use crate::{
    daemon::Decisions,
    mirror::intake,
    publish::apt::{self, Authority, NotLeading, adopt},
};

/// How long the other coordinators may take to hold what was published, before the publication counts as failed for now.
const HELD_WITHIN: Duration = Duration::from_secs(30);
/// How often they are asked.
const HELD_EVERY: Duration = Duration::from_millis(250);
/// How long one of them may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Mirrors and other members that are asked for a release that no coordinator gives.
const OTHERS_MAX: usize = 16;

impl Publisher {
    /// The term in which this node may publish now.
    ///
    /// The group knows first that a majority is gone, while the ledger's loop may still wait for a proposal.
    pub(super) fn office(shared: &Shared, decisions: &Decisions) -> Result<Term, NotLeading> {
        let standing = decisions.standing();
        let leads = shared.leads().filter(|term| standing.leads() && standing.term == *term);
        leads.ok_or_else(|| NotLeading { why: "it is not the leader of the coordinators".into() })
    }

    /// The same, for a repository to ask.
    pub(super) fn authority(&self) -> Authority {
        let (shared, decisions) = (Arc::clone(&self.shared), self.decisions.clone());
        Arc::new(move || Self::office(&shared, &decisions))
    }

    /// Takes over what another coordinator published, when it is newer.
    pub(super) async fn follow(&mut self, release: &Verified<Release>) {
        let (channel, generation) = (release.get().channel.clone(), release.get().generation);
        if release.signers().contains(&self.shared.id.into()) || !self.was_given(release).await {
            return;
        }
        match self.take_from(release).await {
            Ok(true) => info!(%channel, generation, "repository taken over, ready to be continued"),
            Ok(false) => {}
            Err(why) => warn!(%channel, generation, %why, "release not taken over; it is tried again"),
        }
    }

    /// Says whether this node's ledger gave a release's generation to anybody, and knows its term. One that is above both is made up,
    /// or heard before the ledger came here, and is asked for again; once it was taken over, nothing lower would be published.
    async fn was_given(&self, release: &Verified<Release>) -> bool {
        let given = self.given(&release.get().channel).await;
        self.knows(release, (given, self.decisions.standing().term))
    }

    /// Says whether a release is within bounds; where one is not, the ledger may be behind, and all are asked again soon.
    fn knows(&self, release: &Verified<Release>, bounds: (u64, Term)) -> bool {
        let may_be = may_be(release.get(), bounds);
        self.behind.fetch_or(!may_be, Relaxed);
        may_be
    }

    /// Gives the newest generation of a channel that this node's ledger gave to anybody.
    async fn given(&self, channel: &ChannelName) -> u64 {
        let of = channel.clone();
        self.decisions.view(move |ledger| ledger.generation(&of)).await.unwrap_or_default()
    }

    /// Follows every channel's newest release: gossip may have been missed. Who leads has nobody to follow.
    pub(super) async fn follow_all(&mut self) {
        if self.others().is_empty() || Self::office(&self.shared, &self.decisions).is_ok() {
            return;
        }
        let policies = self.shared.policies();
        for channel in policies.current().channels.iter().map(|c| &c.name) {
            let bounds = (self.given(channel).await, self.decisions.standing().term);
            for release in self.newest(channel, bounds).await {
                self.follow(&release).await;
                if self.must_be_had(&release) {
                    break;
                }
            }
        }
    }

    /// Brings this node's repository to the newest generation that any coordinator published, once in each term: nobody
    /// else publishes meanwhile. In doubt everybody within reach is asked, every time: only a mirror may have what a former
    /// leader showed.
    ///
    /// # Errors
    /// When a generation was reported that no node within reach holds.
    pub(super) async fn catch_up(&mut self, channel: &ChannelName, doubt: Doubt) -> Result<(), Failure> {
        let term = Self::office(&self.shared, &self.decisions).map_err(|not| not.to_string())?;
        let certain = doubt == Doubt::Nothing;
        if certain && self.caught_up.get(channel) == Some(&term) {
            return Ok(());
        }
        let of = channel.clone();
        let look = move |ledger: &ledger::Ledger| (ledger.released(&of), ledger.generation(&of));
        let (released, given) = self.decisions.view(look).await.unwrap_or_default();
        // Who coordinates alone asks nobody for what it has; without it, it goes on no more than anybody else.
        if certain && self.others().is_empty() && self.repository(channel)?.generation() >= released {
            self.caught_up.insert(channel.clone(), term);
            return Ok(());
        }
        let bounds = (given, term);
        let newest =
            if certain { self.newest(channel, bounds).await } else { self.newest_anywhere(channel, bounds).await };
        let (found, trouble) = self.take_newest(newest).await;
        // In doubt what was found counts, even when its files cannot be had: it is out.
        let wanted = if certain { released } else { released.max(found) };
        let have = self.repository(channel)?.generation();
        if have < wanted {
            return Err(Failure::from(format!(
                "generation {wanted} of channel {channel} was published and is not here, only generation {have}; the next \
                 one waits until a node that holds it, a coordinator of before or a mirror, can be reached{trouble}"
            )));
        }
        self.caught_up.insert(channel.clone(), term);
        Ok(())
    }

    /// Takes over the first of these releases, the newest first, and gives its generation, and why its files cannot be had. One
    /// of a former coordinator is passed over when it cannot be had: whoever left could name what never was, for ever.
    async fn take_newest(&mut self, releases: Vec<Verified<Release>>) -> (u64, String) {
        for release in releases {
            let generation = release.get().generation;
            match self.take_from(&release).await {
                Ok(_) => return (generation, String::new()),
                Err(why) if self.must_be_had(&release) => return (generation, format!(": {why}")),
                Err(why) => {
                    let channel = &release.get().channel;
                    warn!(%channel, generation, %why, "a release of a former coordinator cannot be had; it does not count");
                }
            }
        }
        (0, String::new())
    }

    /// Says whether a release counts even when its files cannot be had.
    fn must_be_had(&self, release: &Verified<Release>) -> bool {
        let policies = self.shared.policies();
        is_signed_by(release, policies.current().coordinators.candidates())
    }

    /// Waits until a majority of the coordinators holds a generation.
    ///
    /// # Errors
    /// When too few hold it in time.
    pub(super) async fn held_by_majority(&self, channel: &ChannelName, generation: u64) -> Result<(), Failure> {
        let others = self.others();
        let wanted = others.len().div_ceil(2);
        let deadline = tokio::time::Instant::now() + HELD_WITHIN;
        loop {
            let mut asked = self.ask(channel, &others);
            let mut holders = 0;
            while holders < wanted {
                match asked.next().await {
                    Some(release) if release.get().generation >= generation => holders += 1,
                    Some(_) => {}
                    None => break,
                }
            }
            if holders >= wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let (have, all) = (holders + 1, others.len() + 1);
                return Err(Failure::from(format!(
                    "generation {generation} of channel {channel} is signed, but only {have} of {all} coordinators hold it; \
                     it counts as published when a majority does"
                )));
            }
            tokio::time::sleep(HELD_EVERY).await;
        }
    }

    async fn take_from(&mut self, release: &Verified<Release>) -> Result<bool, String> {
        let channel = release.get().channel.clone();
        let repository = self.repository(&channel).map_err(|f| f.why)?;
        let order = (release.get().generation, release.get().term);
        if order <= (repository.generation(), repository.term()) && order.0 != repository.generation() {
            return Ok(false);
        }
        let from = self.providers(release);
        let manifest = self.intake.manifest(release.get(), &from).await?;
        match self.repository(&channel).map_err(|f| f.why)?.judge(release.get(), &manifest) {
            Ok(true) => {}
            Ok(false) | Err(apt::Error::OlderTerm { .. }) => return Ok(false),
            Err(error) => {
                self.tell_fork(&error, release).await;
                return Err(chain(&error));
            }
        }
        self.intake.take(release.get(), &manifest, &from).await?;
        self.adopt(release, manifest).await?;
        let (generation, term, bytes) = (release.get().generation, release.get().term, release.to_bytes());
        let of = channel.clone();
        let put = self.shared.store.run(move |store| store.release_put(&of, generation, term, &bytes)).await;
        put.map_err(|e| chain(&e))?;
        self.withdraw_older(&channel, generation).await;
        Ok(true)
    }

    /// Writes the tree in a thread of its own; files come out of the blob store, verified again.
    async fn adopt(&mut self, release: &Verified<Release>, manifest: Vec<u8>) -> Result<(), String> {
        let channel = release.get().channel.clone();
        let mut repository = self.repositories.remove(&channel).ok_or("the repository is not open")?;
        let (blobs, release) = (self.shared.blobs.clone(), release.get().clone());
        let staging = self.shared.home.repository(&channel).join("state").join("fetched");
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || {
            let mut fetch = |file: &ReleaseFile| {
                let opened = intake::open_blob(&runtime, &blobs, file, &staging);
                opened.map(|f| Box::new(f) as Box<dyn std::io::Read>)
            };
            let adopted = repository.adopt(&release, &manifest, &mut fetch);
            // It is a leftover of the last file; the next one overwrites it anyway.
            let _ = std::fs::remove_file(&staging);
            (repository, adopted)
        });
        let (repository, adopted) = work.await.map_err(|e| format!("the publisher stopped: {e}"))?;
        self.repositories.insert(channel, repository);
        adopted.map(drop).map_err(|e| chain(&e))
    }

    async fn tell_fork(&self, error: &apt::Error, release: &Verified<Release>) {
        if let apt::Error::Adopt(adopt::Error::Fork { generation, .. }) = error {
            let (channel, kept) = (&release.get().channel, intake::keep_fork(&self.shared, release).await);
            error!(%channel, generation, evidence = ?kept, "one generation was signed with two contents; the second is not taken");
        }
    }

    /// Gives a channel's repository, opened when it is needed first.
    pub(super) fn repository(&mut self, channel: &ChannelName) -> Result<&mut Repository, Failure> {
        if !self.repositories.contains_key(channel) {
            let opened = self.open(channel)?;
            self.repositories.insert(channel.clone(), opened);
        }
        Ok(self.repositories.get_mut(channel).expect("inserted just now"))
    }

    /// Gives the newest release that this node knows itself, as a mirror for one.
    async fn own(&self, channel: &ChannelName) -> Option<Verified<Release>> {
        let of = channel.clone();
        let known = self.shared.store.run(move |store| store.release(&of)).await.ok().flatten()?;
        intake::read_release(&self.shared, &known.bytes, &self.ever_candidates()).ok()
    }

    /// Asks the other coordinators for their newest release of a channel; when none gives any, mirrors and other members. Gives
    /// each once, the newest first. What is above these bounds is none of ours, and hides no other.
    async fn newest(&self, channel: &ChannelName, bounds: (u64, Term)) -> Vec<Verified<Release>> {
        let mut releases = self.ask_releases(channel, &self.others()).await;
        releases.retain(|release| self.knows(release, bounds));
        if releases.is_empty() {
            let members: Vec<NodeId> = self.members().into_iter().take(OTHERS_MAX).collect();
            releases = self.ask_releases(channel, &members).await;
            releases.extend(self.own(channel).await);
            releases.retain(|release| self.knows(release, bounds));
        }
        newest_first(releases)
    }

    /// Asks the other coordinators and every member within reach, and looks at what this node knows itself, as [`Publisher::newest`]
    /// does.
    async fn newest_anywhere(&self, channel: &ChannelName, bounds: (u64, Term)) -> Vec<Verified<Release>> {
        let everybody: Vec<NodeId> = self.others().into_iter().chain(self.members()).collect();
        let mut releases = self.ask_releases(channel, &everybody).await;
        releases.extend(self.own(channel).await);
        releases.retain(|release| self.knows(release, bounds));
        newest_first(releases)
    }

    /// Who is within reach and no coordinator: members, mirrors among them, and who coordinated before.
    fn members(&self) -> Vec<NodeId> {
        let (policies, ever) = (self.shared.policies(), self.ever_candidates());
        let coordinators = policies.current().coordinators.candidates();
        let is_one = |node: &NodeId| policies.current().is_member(node) || ever.contains(node);
        let mut members: Vec<_> = self.shared.net.peers().into_iter().map(|p| p.node).collect();
        members.retain(|node| is_one(node) && !coordinators.contains(node));
        members
    }

    /// Asks nodes at the same time; who does not answer soon is left out.
    async fn ask_releases(&self, channel: &ChannelName, nodes: &[NodeId]) -> Vec<Verified<Release>> {
        let (mut asked, mut releases) = (self.ask(channel, nodes), Vec::new());
        while let Some(release) = asked.next().await {
            releases.push(release);
        }
        releases
    }

    fn ask(&self, channel: &ChannelName, nodes: &[NodeId]) -> Asked {
        let mut answers = JoinSet::new();
        for node in nodes {
            let (net, node, request) = (self.shared.net.clone(), *node, Request::Release(channel.clone()));
            answers.spawn(async move {
                match tokio::time::timeout(ANSWER_WITHIN, net.ask(node, request)).await {
                    Ok(Ok(Response::Record(record))) => Some(record.0),
                    Ok(Ok(_) | Err(_)) | Err(_) => None,
                }
            });
        }
        let signers = self.ever_candidates();
        Asked { shared: Arc::clone(&self.shared), channel: channel.clone(), signers, answers }
    }

    /// The other candidates of the policy in force.
    fn others(&self) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let candidates = policies.current().coordinators.candidates().iter().copied();
        candidates.filter(|node| *node != self.shared.id).collect()
    }

    /// Everybody who ever could publish: what is continued may be by one who may no longer.
    fn ever_candidates(&self) -> BTreeSet<NodeId> {
        let policies = self.shared.policies();
        policies.chain().iter().flat_map(|p| p.get().coordinators.candidates().iter().copied()).collect()
    }

    /// Who may have the files of a release: its signer, the other coordinators, then every other member.
    fn providers(&self, release: &Verified<Release>) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let mut from: Vec<NodeId> = release.signers().iter().map(|signer| NodeId::from(*signer)).collect();
        let peers = self.shared.net.peers().into_iter().map(|p| p.node);
        for node in self.others().into_iter().chain(peers.filter(|n| policies.current().is_member(n))) {
            if !from.contains(&node) {
                from.push(node);
            }
        }
        from.retain(|node| *node != self.shared.id);
        from
    }
}

/// Says whether a release can be one of this network, where so many generations were given, in terms up to this one.
fn may_be(release: &Release, (given, term): (u64, Term)) -> bool {
    release.generation <= given && release.term <= term
}

/// Sorts releases, the newest first, each once.
fn newest_first(mut releases: Vec<Verified<Release>>) -> Vec<Verified<Release>> {
    let order = |r: &Verified<Release>| std::cmp::Reverse((r.get().generation, r.get().term, r.id()));
    releases.sort_by_key(order);
    releases.dedup_by_key(|release| release.id());
    releases
}

fn is_signed_by(release: &Verified<Release>, nodes: &[NodeId]) -> bool {
    release.signers().iter().any(|signer| nodes.contains(&NodeId::from(*signer)))
}

/// Nodes that were asked for their newest release, each in a task that ends with this.
struct Asked {
    shared: Arc<Shared>,
    channel: ChannelName,
    signers: BTreeSet<NodeId>,
    answers: JoinSet<Option<Vec<u8>>>,
}

impl Asked {
    /// Gives the next answer that is a release of the channel by somebody who may sign it.
    async fn next(&mut self) -> Option<Verified<Release>> {
        while let Some(answer) = self.answers.join_next().await {
            let Ok(Some(bytes)) = answer else { continue };
            match intake::read_release(&self.shared, &bytes, &self.signers) {
                Ok(release) if release.get().channel == self.channel => return Some(release),
                Ok(_) => {}
                Err(why) => warn!(channel = %self.channel, %why, "a release was refused"),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Hash, Signed, Timestamp,
        testing::{node, signing_key},
    };

    use super::*;

    fn release(generation: u64, term: u64, seed: u8) -> Verified<Release> {
        let (at, manifest) = (Timestamp::ZERO, Hash::of(b"manifest"));
        let release = Release { at, term: Term(term), channel: "main".parse().unwrap(), manifest, generation };
        Signed::sign(&release, None, &[&signing_key(seed)]).verify(None).unwrap()
    }

    #[test]
    fn the_newest_comes_first_and_only_one_of_a_coordinator_must_be_had() {
        let all = vec![release(2, 9, 10), release(7, 1, 11), release(3, 1, 10), release(2, 9, 10), release(3, 2, 10)];
        let sorted = newest_first(all);
        let order: Vec<_> = sorted.iter().map(|r| (r.get().generation, r.get().term.0)).collect();
        assert_eq!(order, [(7, 1), (3, 2), (3, 1), (2, 9)]);
        // What somebody signed who is no coordinator any more hides nothing of those who are.
        let must = sorted.iter().find(|release| is_signed_by(release, &[node(10), node(12)])).unwrap();
        assert_eq!(must.get().generation, 3);
        assert!(!is_signed_by(&sorted[0], &[node(10)]));
        // A liar's number above all others would end the channel: nothing that is lower is written after it.
        let of = |generation, term| may_be(release(generation, term, 10).get(), (7, Term(9)));
        assert_eq!([of(7, 9), of(8, 9), of(7, 10), of(u64::MAX, 1)], [true, false, false, false]);
    }
}
