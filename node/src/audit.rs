//! Following the log: every node remembers the newest checkpoint that it believes, and compares it with what others were shown.
//!
//! ```text
//!  coordinators --checkpoint--> meet <--checkpoint-- members, asked in turn; what proved a release; what this node cosigned last
//!                                |
//!        same tree: remember the newer        no tree has both: evidence (see `alarm`)
//! ```
//! A coordinator that shows two histories must show each of them to somebody, or one to a node's witness and another to its mirror.
//! Those two meet, directly or through others, within a few rounds, and the proof that convicts the log is made of the tiles that
//! it serves for its own newer checkpoint. One that serves none is not followed, and while nobody shows what a checkpoint belongs
//! to that the log has signed, this node takes no release and cosigns nothing (see [`Doubt`]). The log stays the same one under
//! other coordinators: what is believed is kept on the disk, and they must continue it, whoever signed it.

mod sight;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use attest::log::{
    checkpoint::{Signed, Verified},
    conflict::Conflict,
    network,
    note::NOTE_MAX,
    tile::{self, Resource, Tile, View},
    tree::{self, Head},
};
use futures::{StreamExt, future, stream};
use protocol::{
    NodeId, Sha256,
    message::{Octets, Request, Response},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::sight::Told;
pub use self::sight::{Doubt, Sight};
use crate::{daemon::Shared, serve::Desk, tlog};

/// How often coordinators and members are asked.
const LOOK_EVERY: Duration = Duration::from_secs(8);
/// Members that are asked in one round.
const ASKED: usize = 3;
/// How long a member may take to tell its checkpoint, and a node all tiles of one.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Tiles that one node is asked for at one time.
const TILES_AT_ONCE: usize = 4;
/// How often a checkpoint is compared anew because something newer is believed since.
const TRIES: usize = 3;
/// Heads that are remembered as being of the believed tree.
const AGREED: usize = 256;

/// Follows the log until stopped. It may be dropped at any time.
pub async fn run(shared: Arc<Shared>, desk: Desk, stop: CancellationToken) {
    let mut auditor = Auditor { shared, desk, agreed: VecDeque::new(), told: BTreeSet::new(), turn: 0 };
    auditor.shared.others.sight.load(&auditor.shared).await;
    let shared = Arc::clone(&auditor.shared);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // First, so that nobody who tells much keeps this node from asking.
            _ = look.tick() => auditor.look().await,
            () = shared.others.sight.news.notified() => auditor.hear().await,
        }
    }
}

/// What is known of a checkpoint once it was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is of the log that is believed.
    Followed,
    /// It is of another one, and there is evidence of that.
    Evidence,
    /// Nobody shows what it is of.
    Nothing,
}

struct Auditor {
    shared: Arc<Shared>,
    desk: Desk,
    /// Heads that the believed tree had, the last one found last.
    agreed: VecDeque<Head>,
    /// Who told a checkpoint since this node asked: each is heard once.
    told: BTreeSet<NodeId>,
    turn: usize,
}

impl Auditor {
    /// Compares what was told and shown meanwhile; of each member that tells by itself one checkpoint between two rounds.
    async fn hear(&mut self) {
        let shared = Arc::clone(&self.shared);
        for Told { from, checkpoint, waiting } in shared.others.sight.take(|member| self.told.insert(*member)) {
            let found = self.meet_bytes(from, &checkpoint).await;
            if let Some(waiting) = waiting {
                // Who waited may be gone.
                let _ = waiting.send(found == Found::Followed);
            }
        }
    }

    async fn look(&mut self) {
        let shared = Arc::clone(&self.shared);
        let sight = &shared.others.sight;
        sight.keep(&shared).await;
        // What is said to the witness must be what is said to everybody else.
        if let Ok(Some(cosigned)) = shared.cosigned_last().await {
            self.meet_bytes(shared.id, &cosigned).await;
        }
        for (node, checkpoint) in self.ask().await {
            self.meet_bytes(node, &checkpoint).await;
        }
        // Once tiles are served again every doubt ends in one round; while they are not, one is enough to ask for.
        while let Some(doubt) = sight.next_doubt() {
            match doubt.checkpoint.as_signed().clone().verify(&shared.log_keys()) {
                Ok(checkpoint) => {
                    if self.meet(doubt.from, checkpoint).await == Found::Nothing {
                        break;
                    }
                }
                // Who signed it may sign nothing any more.
                Err(_) => sight.settled(doubt.checkpoint.head()),
            }
        }
        self.told.clear();
        self.hear().await;
    }

    /// Asks every coordinator and the next members at one time; gives their checkpoints.
    async fn ask(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        let others = self.others();
        let members: Vec<NodeId> =
            (0..ASKED.min(others.len())).map(|at| others[(self.turn + at) % others.len()]).collect();
        self.turn = self.turn.wrapping_add(ASKED);
        // What is asked is made before anything waits: a future that holds a closure is none for every thread.
        let of_candidates: Vec<_> = self.candidates().into_iter().map(|node| self.ask_candidate(node)).collect();
        let of_members: Vec<_> = members.into_iter().map(|node| self.ask_member(node)).collect();
        let (mut told, more) = future::join(future::join_all(of_candidates), future::join_all(of_members)).await;
        told.extend(more);
        told.into_iter().flatten().collect()
    }

    async fn ask_candidate(&self, node: NodeId) -> Option<(NodeId, Vec<u8>)> {
        Some((node, self.resource(node, Resource::Checkpoint).await?))
    }

    /// Tells a member what this node believes, and gives what it believes.
    async fn ask_member(&self, node: NodeId) -> Option<(NodeId, Vec<u8>)> {
        let own = self.shared.others.sight.believed().map(|own| own.as_signed().to_string().into_bytes());
        let asked = self.desk.ask(node, Request::Checkpoint(Octets(own.unwrap_or_default())));
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(Response::Checkpoint(Octets(theirs)))) => return (!theirs.is_empty()).then_some((node, theirs)),
            Ok(Ok(Response::Conflict(Octets(evidence)))) => {
                if let Err(error) = self.shared.told_of_conflict(&evidence).await {
                    debug!(node = %node.short(), %error, "what a member says against the log convicts nobody");
                }
            }
            Ok(Ok(other)) => debug!(node = %node.short(), ?other, "no checkpoint from this member"),
            Ok(Err(error)) => debug!(node = %node.short(), %error, "no checkpoint from this member"),
            Err(_) => debug!(node = %node.short(), "no checkpoint from this member in time"),
        }
        None
    }

    fn candidates(&self) -> Vec<NodeId> {
        self.shared.policies().current().coordinators.candidates().to_vec()
    }

    /// Connected members that do not sign the log themselves.
    fn others(&self) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let candidates = policies.current().coordinators.candidates();
        let peers = self.shared.net.peers().into_iter().map(|peer| peer.node);
        peers.filter(|node| policies.current().is_member(node) && !candidates.contains(node)).collect()
    }

    async fn resource(&self, node: NodeId, resource: Resource) -> Option<Vec<u8>> {
        tlog::served(self.desk.ask(node, tlog::question(resource))).await.ok()
    }

    /// As [`Auditor::meet`]. What the log did not sign says nothing about it.
    async fn meet_bytes(&mut self, from: NodeId, checkpoint: &[u8]) -> Found {
        if checkpoint.len() > NOTE_MAX {
            return Found::Nothing;
        }
        let signed = Signed::read(checkpoint)
            .ok()
            .filter(|signed| signed.claims().origin() == network::origin(&self.shared.network).as_str());
        match signed.and_then(|signed| signed.verify(&self.shared.log_keys()).ok()) {
            Some(theirs) => self.meet(from, theirs).await,
            None => {
                debug!(node = %from.short(), "what a member calls a checkpoint is none of this network's log");
                Found::Nothing
            }
        }
    }

    /// Compares a checkpoint with the believed one; where nobody shows what it belongs to, that is remembered.
    async fn meet(&mut self, from: NodeId, theirs: Verified) -> Found {
        if self.shared.alarm().is_some() {
            return Found::Nothing;
        }
        self.give_up_convicted();
        let shared = Arc::clone(&self.shared);
        let sight = &shared.others.sight;
        let mut found = Found::Nothing;
        for _ in 0..TRIES {
            let own = sight.believed();
            let before = own.as_ref().map(Verified::head);
            found = match own {
                None => self.begin(theirs.clone()).await,
                Some(own) => self.compare(from, own, theirs.clone()).await,
            };
            // What a builder is told meanwhile may be believed at once.
            if found != Found::Nothing || sight.believed().as_ref().map(Verified::head) == before {
                break;
            }
        }
        match found {
            Found::Followed | Found::Evidence => sight.settled(theirs.head()),
            Found::Nothing => sight.doubted(from, theirs),
        }
        found
    }

    /// Believes the first checkpoint, where somebody shows its tree.
    async fn begin(&mut self, theirs: Verified) -> Found {
        let head = theirs.head();
        let shown = match head.size.checked_sub(1) {
            None => head == Head::empty(),
            Some(last) => match tile::for_inclusion(last, head.size) {
                Ok(wanted) => self.shown(head, &wanted.into_iter().collect()).await.is_some(),
                Err(_) => false,
            },
        };
        if shown { self.believe(None, theirs).await } else { Found::Nothing }
    }

    /// Compares a checkpoint with the believed one.
    async fn compare(&mut self, from: NodeId, own: Verified, theirs: Verified) -> Found {
        let head = theirs.head();
        if own.head() == head || self.agreed.contains(&head) {
            return Found::Followed;
        }
        let theirs_is_newer = head.size > own.head().size;
        let former = Some(own.clone());
        let (older, newer) = if theirs_is_newer { (own, theirs) } else { (theirs, own) };
        let Some((past, proof)) = self.proof(older.head(), newer.head()).await else {
            debug!(node = %from.short(), size = head.size, "nobody shows how this checkpoint and ours belong together");
            return Found::Nothing;
        };
        match Conflict::new(&older, &newer, past, proof) {
            Some(conflict) => {
                warn!(node = %from.short(), "a member was shown another history of the log");
                if let Err(error) = self.shared.raise(&conflict).await {
                    warn!(%error, "evidence against the log cannot be kept");
                }
                Found::Evidence
            }
            None if past != older.head().root => {
                debug!(node = %from.short(), size = head.size, "what is shown of the log belongs to neither checkpoint");
                Found::Nothing
            }
            None if theirs_is_newer => self.believe(former, newer).await,
            None => {
                self.agree(older.head());
                Found::Followed
            }
        }
    }

    /// Begins anew where the roots have replaced coordinators that forked the log: which of their histories goes on is not this
    /// node's to say.
    fn give_up_convicted(&mut self) {
        let mut believed = self.shared.others.sight.lock();
        if believed.as_ref().is_some_and(|own| self.shared.is_given_up(own.as_signed())) {
            warn!("the log was forked by former coordinators: it is followed anew");
            *believed = None;
            self.agreed.clear();
        }
    }

    fn agree(&mut self, head: Head) {
        self.agreed.push_back(head);
        if self.agreed.len() > AGREED {
            self.agreed.pop_front();
        }
    }

    /// Believes a checkpoint that continues `former`; nothing is found where something else is believed since.
    async fn believe(&mut self, former: Option<Verified>, checkpoint: Verified) -> Found {
        {
            let mut believed = self.shared.others.sight.lock();
            if believed.as_ref().map(Verified::head) != former.as_ref().map(Verified::head) {
                return Found::Nothing;
            }
            *believed = Some(checkpoint);
        }
        former.into_iter().for_each(|former| self.agree(former.head()));
        self.shared.others.sight.keep(&self.shared).await;
        Found::Followed
    }

    /// The root that the newer head's tree has at an older size, and the proof that leads from there to it, made of tiles of who
    /// signs the log.
    async fn proof(&self, older: Head, newer: Head) -> Option<(Sha256, Vec<Sha256>)> {
        let old = older.size;
        if old == newer.size {
            return Some((newer.root, Vec::new()));
        }
        if old == 0 {
            return Some((Head::empty().root, Vec::new()));
        }
        let mut wanted = tile::for_consistency(old, newer.size).ok()?;
        // The root of a complete tree is no part of the proof, but of the tiles above the first entry.
        wanted.extend(tile::for_inclusion(0, newer.size).ok()?);
        let view = self.shown(newer, &wanted).await?;
        let proof = tree::consistency(old, newer.size, &view).ok()?;
        let past = if old.is_power_of_two() {
            tree::head(old, &view).ok()?.root
        } else {
            tree::prefix(older, newer, &proof).ok()?
        };
        Some((past, proof))
    }

    /// Gives tiles of a head's tree, from whoever of those who sign the log shows them first.
    async fn shown(&self, head: Head, wanted: &BTreeSet<Tile>) -> Option<View> {
        let views: Vec<_> = self.candidates().into_iter().map(|node| self.view(node, head, wanted)).collect();
        let mut views: stream::FuturesUnordered<_> = views.into_iter().collect();
        while let Some(view) = views.next().await {
            if view.is_some() {
                return view;
            }
        }
        None
    }

    /// Fetches tiles from one node; none unless all of them are of the head's tree.
    async fn view(&self, node: NodeId, head: Head, wanted: &BTreeSet<Tile>) -> Option<View> {
        let asked: Vec<_> = wanted.iter().map(|tile| self.tile(node, *tile)).collect();
        let tiles = stream::iter(asked).buffer_unordered(TILES_AT_ONCE).collect::<Vec<_>>();
        let tiles = tokio::time::timeout(ANSWER_WITHIN, tiles).await.ok()?;
        let tiles: BTreeMap<Tile, Vec<u8>> = tiles.into_iter().collect::<Option<_>>()?;
        View::new(head, &tiles).ok()
    }

    async fn tile(&self, node: NodeId, tile: Tile) -> Option<(Tile, Vec<u8>)> {
        Some((tile, self.resource(node, Resource::Tile(tile)).await?))
    }
}
