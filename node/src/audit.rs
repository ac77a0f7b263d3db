//! Following the log: every node remembers the newest checkpoint that it believes, and compares it with what others were shown.
//!
//! ```text
//!  coordinators --checkpoint--> meet <--checkpoint-- members, asked in turn
//!                                |
//!        same tree: remember the newer        no tree has both: evidence (see `alarm`)
//! ```
//! A coordinator that shows two histories must show each of them to somebody. Those two meet, directly or through others,
//! within a few rounds, and the proof that convicts the log is made of the tiles that it serves for its own newer checkpoint.
//! One that serves none is not followed. The log stays the same one under other coordinators: what is believed is kept on the disk,
//! and they must continue it, whoever signed it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use protocol::{
    NodeId, Sha256,
    message::{Octets, Request, Response},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    daemon::{Shared, chain},
    serve::Desk,
    tlog,
};

/// How often coordinators and members are asked.
const LOOK_EVERY: Duration = Duration::from_secs(8);
/// Members that are asked in one round.
const ASKED: usize = 3;
/// Checkpoints of others that wait to be compared; more than that come again.
const HEARD: usize = 64;
/// Heads that are remembered as being of the believed tree.
const AGREED: usize = 256;

/// Checkpoints of others, with whom they came from.
type Inbox = mpsc::Receiver<(NodeId, Vec<u8>)>;

/// What a node's disk has of its belief.
#[derive(Debug, Default, PartialEq, Eq)]
enum Kept {
    /// It was not read yet.
    #[default]
    Unread,
    /// No checkpoint.
    Nothing,
    /// One of this head.
    Head(Head),
}

/// What this node believes of the log.
#[derive(Debug)]
pub struct Sight {
    believed: Mutex<Option<Verified>>,
    /// What is on the disk; held while it is read or written.
    kept: tokio::sync::Mutex<Kept>,
    heard: mpsc::Sender<(NodeId, Vec<u8>)>,
    inbox: Mutex<Option<Inbox>>,
}

impl Default for Sight {
    fn default() -> Self {
        let (heard, inbox) = mpsc::channel(HEARD);
        Self { believed: Mutex::default(), kept: tokio::sync::Mutex::default(), heard, inbox: Mutex::new(Some(inbox)) }
    }
}

impl Sight {
    fn lock(&self) -> MutexGuard<'_, Option<Verified>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint that this node believes.
    pub fn believed(&self) -> Option<Verified> {
        self.lock().clone()
    }

    /// Believes a checkpoint that was proven to continue `former`, at once, and keeps it on the disk: gives false where that fails, and
    /// where something else is believed since. That is compared with it in a moment.
    pub(crate) async fn grow(
        &self,
        shared: &Shared,
        from: NodeId,
        (former, newer): (Option<&Verified>, Verified),
    ) -> bool {
        let (head, told) = (newer.head(), newer.as_signed().to_string());
        let grown = {
            let mut believed = self.lock();
            let now = believed.as_ref().map(Verified::head);
            let stands = now == former.map(Verified::head);
            if stands {
                *believed = Some(newer);
            }
            stands || now == Some(head)
        };
        if !grown {
            self.hear(from, told.into_bytes());
        }
        grown && self.keep(shared).await.is_some_and(|kept| kept.size >= head.size)
    }

    /// Reads what an earlier run of this daemon believed; once.
    pub(crate) async fn load(&self, shared: &Shared) {
        let mut kept = self.kept.lock().await;
        if *kept != Kept::Unread {
            return;
        }
        let key = key(shared);
        let bytes = shared.store.run(move |store| store.witnessed(&key)).await.ok().flatten();
        // A log stays one log, whoever coordinated when this was signed.
        let believed = bytes.and_then(|bytes| Signed::read(&bytes).ok()?.verify(&shared.every_log_key()).ok());
        *kept = believed.as_ref().map_or(Kept::Nothing, |believed| Kept::Head(believed.head()));
        *self.lock() = believed;
    }

    /// Keeps what is believed on the disk, where that is something new. Gives its head; none where nothing is believed, or that fails.
    async fn keep(&self, shared: &Shared) -> Option<Head> {
        let mut kept = self.kept.lock().await;
        let believed = self.believed()?;
        let head = believed.head();
        if *kept == Kept::Head(head) {
            return Some(head);
        }
        let (name, bytes) = (key(shared), believed.as_signed().to_string().into_bytes());
        let written = shared.store.run(move |store| store.witness(&name, |_| (Some(bytes), ()))).await;
        written.inspect_err(|error| warn!(error = %chain(error), "a checkpoint cannot be kept")).ok()?;
        *kept = Kept::Head(head);
        Some(head)
    }

    /// Takes another member's checkpoint, to be compared in a moment.
    pub fn hear(&self, from: NodeId, checkpoint: Vec<u8>) {
        // When many wait, this one comes again.
        let _ = self.heard.try_send((from, checkpoint));
    }

    /// What a member is told that tells its own.
    pub(crate) fn answer(&self, shared: &Shared) -> Response {
        match (shared.alarm(), self.believed()) {
            (Some((alarm, _)), _) => Response::Conflict(Octets(alarm.conflict.to_bytes())),
            (None, Some(believed)) => Response::Checkpoint(Octets(believed.as_signed().to_string().into_bytes())),
            (None, None) => Response::Checkpoint(Octets(Vec::new())),
        }
    }
}

/// Follows the log until stopped. It may be dropped at any time.
pub async fn run(shared: Arc<Shared>, desk: Desk, stop: CancellationToken) {
    let taken = shared.others.sight.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut inbox) = taken else { return };
    let mut auditor = Auditor { shared, desk, agreed: VecDeque::new(), told: BTreeSet::new(), turn: 0 };
    auditor.shared.others.sight.load(&auditor.shared).await;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // First, so that nobody who tells much keeps this node from asking.
            _ = look.tick() => auditor.look().await,
            Some((from, checkpoint)) = inbox.recv() => auditor.hear(from, &checkpoint).await,
        }
    }
}

/// Under which name a node's store has what it believes.
fn key(shared: &Shared) -> String {
    // No origin has a space in it, so this is no witness's memory.
    format!("believed {}", network::origin(&shared.network))
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
    /// Compares what a member told by itself, once between two rounds.
    async fn hear(&mut self, from: NodeId, checkpoint: &[u8]) {
        if self.told.insert(from) {
            self.meet(from, checkpoint).await;
        }
    }

    async fn look(&mut self) {
        self.told.clear();
        self.shared.others.sight.keep(&self.shared).await;
        for node in self.candidates() {
            if let Some(checkpoint) = self.resource(node, Resource::Checkpoint).await {
                self.meet(node, &checkpoint).await;
            }
        }
        let others = self.others();
        for at in 0..ASKED.min(others.len()) {
            let node = others[(self.turn + at) % others.len()];
            let own = self.shared.others.sight.believed().map(|own| own.as_signed().to_string().into_bytes());
            match self.desk.ask(node, Request::Checkpoint(Octets(own.unwrap_or_default()))).await {
                Ok(Response::Checkpoint(Octets(theirs))) if theirs.is_empty() => {}
                Ok(Response::Checkpoint(Octets(theirs))) => self.meet(node, &theirs).await,
                Ok(Response::Conflict(Octets(evidence))) => {
                    if let Err(error) = self.shared.told_of_conflict(&evidence).await {
                        debug!(node = %node.short(), %error, "what a member says against the log convicts nobody");
                    }
                }
                Ok(other) => debug!(node = %node.short(), ?other, "no checkpoint from this member"),
                Err(error) => debug!(node = %node.short(), %error, "no checkpoint from this member"),
            }
        }
        self.turn = self.turn.wrapping_add(ASKED);
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

    /// Compares a checkpoint with the believed one. What the log did not sign says nothing about it.
    async fn meet(&mut self, from: NodeId, checkpoint: &[u8]) {
        if checkpoint.len() > NOTE_MAX || self.shared.alarm().is_some() {
            return;
        }
        let keys = self.shared.log_keys();
        let signed = Signed::read(checkpoint)
            .ok()
            .filter(|signed| signed.claims().origin() == network::origin(&self.shared.network).as_str());
        let Some(theirs) = signed.and_then(|signed| signed.verify(&keys).ok()) else {
            debug!(node = %from.short(), "what a member calls a checkpoint is none of this network's log");
            return;
        };
        self.give_up_convicted();
        let Some(own) = self.shared.others.sight.believed() else { return self.believe(None, theirs).await };
        let head = theirs.head();
        if own.head() == head || self.agreed.contains(&head) {
            return;
        }
        let theirs_is_newer = head.size > own.head().size;
        let former = Some(own.clone());
        let (older, newer) = if theirs_is_newer { (own, theirs) } else { (theirs, own) };
        let Some((past, proof)) = self.proof(older.head(), newer.head(), from).await else {
            debug!(node = %from.short(), size = head.size, "nobody shows how this checkpoint and ours belong together");
            return;
        };
        match Conflict::new(&older, &newer, past, proof) {
            Some(conflict) => {
                warn!(node = %from.short(), "a member was shown another history of the log");
                if let Err(error) = self.shared.raise(&conflict).await {
                    warn!(%error, "evidence against the log cannot be kept");
                }
            }
            None if past != older.head().root => {
                debug!(node = %from.short(), size = head.size, "what is shown of the log belongs to neither checkpoint");
            }
            None if theirs_is_newer => self.believe(former, newer).await,
            None => self.agree(older.head()),
        }
    }

    /// Begins anew where the roots have replaced coordinators that forked the log: which of their histories goes on is not this
    /// node's to say.
    fn give_up_convicted(&mut self) {
        let (policies, current) = (self.shared.policies(), self.shared.log_keys());
        let of_policies = policies.chain().iter().map(|policy| network::log_keys(&self.shared.network, policy.get()));
        // That new coordinators do not continue the log is no evidence against the former ones: no policy named both alone.
        let former: Vec<_> = of_policies.filter(|keys| *keys != current).collect();
        let forked = |conflict: &Conflict| former.iter().any(|keys| conflict.convicts(keys).is_ok());
        let mut believed = self.shared.others.sight.lock();
        let replaced = believed.as_ref().is_some_and(|own| own.as_signed().clone().verify(&current).is_err());
        if replaced && self.shared.others.alarms.every().iter().any(|alarm| forked(&alarm.conflict)) {
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

    /// Believes a checkpoint that continues `former`, unless something else is believed since: then it comes again.
    async fn believe(&mut self, former: Option<Verified>, checkpoint: Verified) {
        {
            let mut believed = self.shared.others.sight.lock();
            if believed.as_ref().map(Verified::head) != former.as_ref().map(Verified::head) {
                return;
            }
            *believed = Some(checkpoint);
        }
        former.into_iter().for_each(|former| self.agree(former.head()));
        self.shared.others.sight.keep(&self.shared).await;
    }

    /// The root that the newer head's tree has at an older size, and the proof that leads from there to it, made of tiles of who signed
    /// it or of who knows it.
    async fn proof(&self, older: Head, newer: Head, from: NodeId) -> Option<(Sha256, Vec<Sha256>)> {
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
        let mut sources = self.candidates();
        sources.push(from);
        for node in sources {
            if let Some(view) = self.view(node, newer, &wanted).await {
                let proof = tree::consistency(old, newer.size, &view).ok()?;
                let past = if old.is_power_of_two() {
                    tree::head(old, &view).ok()?.root
                } else {
                    tree::prefix(older, newer, &proof).ok()?
                };
                return Some((past, proof));
            }
        }
        None
    }

    /// Fetches tiles from one node; none unless all of them are of the head's tree.
    async fn view(&self, node: NodeId, head: Head, wanted: &BTreeSet<Tile>) -> Option<View> {
        let mut tiles = BTreeMap::new();
        for wanted in wanted {
            tiles.insert(*wanted, self.resource(node, Resource::Tile(*wanted)).await?);
        }
        View::new(head, &tiles).ok()
    }
}
