//! Node cards: what each node says of itself, gossiped among members so that they can reach each other and people can see
//! who offers what.
//!
//! A card is signed by its node, renewed before it expires, and replaced only by one with a higher sequence. Cards of nodes
//! that the policy does not name are not kept.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{NodeId, Timestamp, Verified, envelope::Signed, limits, peer::NodeCard};
use tracing::{debug, warn};

use super::Shared;
use crate::{clock, net::Topic, serve::Desk};

/// How often a node tells its card, beside telling it to newcomers.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(120);
/// Addresses on a card.
const ADDRESSES_MAX: usize = 16;

/// How far clocks may be apart before people are told: half of what others tolerate.
const CLOCK_TOLD: i64 = limits::CLOCK_SKEW_MAX.as_millis() as i64 / 2;

/// For how long a card says what its node's clock says: two that should have come.
const CLOCK_LASTS: Duration = Duration::from_secs(2 * TELL_EVERY.as_secs() + 30);
/// By how many milliseconds a clock that is told twice may differ: cards travel for a while.
const CLOCK_STEADY: u64 = 10_000;

/// The newest card of each member.
#[derive(Debug, Default)]
pub struct Cards {
    cards: Mutex<BTreeMap<NodeId, NodeCard>>,
    clocks: Mutex<BTreeMap<NodeId, Clock>>,
    /// Whether it was said that this node's clock is off.
    told: AtomicBool,
}

/// What a member's clock said when it signed its newest card.
#[derive(Debug, Clone, Copy)]
struct Clock {
    sequence: u64,
    /// By how many milliseconds it was ahead of this node's when the card came.
    ahead: i64,
    /// The card before said the same: somebody who tells an old one again, or a card that lay about, says something else.
    steady: bool,
    came: Instant,
}

/// What a card was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first one of this node, which may not know us either.
    Newcomer(NodeId),
    /// New, and kept: worth forwarding.
    News(NodeId),
    /// Known, stale, or of a node that the policy does not name.
    Nothing,
    /// Malformed, which its sender could have seen.
    Bad,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cards {
    /// Gives a node's newest card.
    pub fn get(&self, node: &NodeId) -> Option<NodeCard> {
        lock(&self.cards).get(node).cloned()
    }

    /// Notes what a member's clock said. A card that was signed before says nothing new.
    fn note_clock(&self, card: &NodeCard, (now, came): (Timestamp, Instant)) {
        let millis = |at: Timestamp| i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        // A node's card is valid from when it is signed.
        let ahead = millis(card.expires).saturating_sub(millis(now.after(limits::NODE_CARD_TTL)));
        let mut clocks = lock(&self.clocks);
        let known = clocks.get(&card.node).filter(|known| came.duration_since(known.came) < CLOCK_LASTS);
        let steady = known.is_some_and(|known| known.ahead.abs_diff(ahead) <= CLOCK_STEADY);
        if known.is_none_or(|known| known.sequence < card.sequence) {
            clocks.insert(card.node, Clock { sequence: card.sequence, ahead, steady, came });
        }
    }

    /// By how many milliseconds the clocks of these nodes are ahead of this node's, the middle one of them; none where they agree well
    /// enough, or nothing is known.
    fn clocks_ahead(&self, of: &[NodeId], now: Instant) -> Option<i64> {
        let clocks = lock(&self.clocks);
        let counts = |clock: &&Clock| clock.steady && now.duration_since(clock.came) < CLOCK_LASTS;
        let mut ahead: Vec<i64> = of.iter().filter_map(|node| Some(clocks.get(node).filter(counts)?.ahead)).collect();
        ahead.sort_unstable();
        ahead.get(ahead.len() / 2).copied().filter(|ahead| ahead.abs() > CLOCK_TOLD)
    }

    /// Keeps a card, unless a newer one is known.
    fn keep(&self, card: NodeCard) -> Heard {
        let mut cards = lock(&self.cards);
        if cards.get(&card.node).is_some_and(|known| known.sequence >= card.sequence) {
            return Heard::Nothing;
        }
        let node = card.node;
        if cards.insert(node, card).is_some() { Heard::News(node) } else { Heard::Newcomer(node) }
    }
}

impl Shared {
    /// Reads a gossiped card and learns the node's addresses from it.
    pub(super) fn hear_card(&self, bytes: &[u8]) -> Heard {
        let read = Signed::<NodeCard>::read(bytes).and_then(|s| s.verify(Some(&self.network)));
        let card: Verified<NodeCard> = match read {
            Ok(card) => card,
            Err(error) => {
                debug!(%error, "a node card was rejected");
                return Heard::Bad;
            }
        };
        let signed = card.signers().contains(&card.get().node.into());
        let now = clock::now();
        let expires = card.get().expires;
        let card = card.into_inner();
        if !signed {
            return Heard::Bad;
        }
        if self.policies().current().is_member(&card.node) && card.node != self.id {
            self.others.cards.note_clock(&card, (now, Instant::now()));
            self.tell_clock();
        }
        let too_long = expires > now.after(limits::NODE_CARD_TTL + limits::CLOCK_SKEW_MAX);
        if expires <= now || too_long || !self.policies().current().is_member(&card.node) {
            return Heard::Nothing;
        }
        let (node, addresses) = (card.node, card.addresses.clone());
        let heard = if node == self.id { Heard::Nothing } else { self.others.cards.keep(card) };
        if heard == Heard::Nothing {
            return heard;
        }
        for address in &addresses {
            if let Err(error) = self.net.add_address(node, address) {
                debug!(%node, %error, "an address of a node card was not learned");
            }
        }
        heard
    }

    /// By how many milliseconds the coordinators' clocks are ahead of this node's, where that hinders it.
    pub fn clock_behind(&self) -> Option<i64> {
        let policies = self.policies();
        let (candidates, own) = (policies.current().coordinators.candidates(), self.id);
        let others: Vec<NodeId> = candidates.iter().copied().filter(|node| *node != own).collect();
        self.others.cards.clocks_ahead(&others, Instant::now())
    }

    /// Warns once when this node's clock comes to hinder it.
    fn tell_clock(&self) {
        let behind = self.clock_behind();
        let told = self.others.cards.told.swap(behind.is_some(), Ordering::Relaxed);
        if let Some(millis) = behind.filter(|_| !told) {
            warn!(
                seconds_behind = millis / 1000,
                "this node's clock is not that of the coordinators: others ignore what it says"
            );
        }
    }

    /// Tells the network this node's card.
    pub async fn tell_card(&self, desk: &Desk) {
        let now = clock::now();
        let mut addresses = self.net.listen_addresses();
        addresses.truncate(ADDRESSES_MAX);
        let card = NodeCard {
            node: self.id,
            roles: self.roles(desk),
            expires: now.after(limits::NODE_CARD_TTL),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: desk.worker().map(|worker| worker.capacity()),
            draining: desk.worker().and_then(|worker| worker.draining()),
            // Milliseconds grow over restarts too, which a counter in memory would not.
            sequence: now.as_millis(),
            addresses,
        };
        desk.note_card(self.id, card.capacity.clone(), card.draining.clone()).await;
        if let Err(error) = self.net.publish(Topic::Nodes, self.sign(&card).to_bytes()).await {
            debug!(%error, "node card not gossiped");
        }
    }

    /// Has the ledger know a node's newest card, where this node decides.
    pub(super) async fn note_card(&self, desk: &Desk, node: NodeId) {
        if let Some(card) = self.others.cards.get(&node) {
            desk.note_card(node, card.capacity, card.draining).await;
        }
    }

    /// The roles that this node plays, sorted.
    pub fn roles(&self, desk: &Desk) -> Vec<String> {
        let mut roles = Vec::new();
        if desk.worker().is_some() {
            roles.push("builder".to_owned());
        }
        if self.is_candidate() {
            roles.push("coordinator".to_owned());
        }
        if self.leads().is_some() {
            roles.push("leader".to_owned());
        }
        if self.config.mirror.is_some() {
            roles.push("mirror".to_owned());
        }
        roles
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::node;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn card(seed: u8, clock: Timestamp) -> NodeCard {
        NodeCard {
            node: node(seed),
            roles: Vec::new(),
            expires: clock.after(limits::NODE_CARD_TTL),
            version: String::new(),
            capacity: None,
            draining: None,
            sequence: clock.as_millis(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_by_the_middle_one_of_those_who_coordinate() {
        let (cards, three, begun) = (Cards::default(), [node(1), node(2), node(3)], Instant::now());
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        // A card of a clock that is off so much, so many seconds after the begin by this node's own clock.
        let note = |seed: u8, ahead: i64, seconds: u64| {
            let own = NOW.after(Duration::from_secs(seconds));
            let theirs = Timestamp::from_millis(own.as_millis().saturating_add_signed(ahead * 1000));
            cards.note_clock(&card(seed, theirs), (own, after(seconds)));
        };
        let told = |seconds: u64| cards.clocks_ahead(&three, after(seconds));
        note(1, 300, 0);
        assert_eq!(told(1), None, "one card may be old, or have lain about");
        note(1, 301, 120);
        assert_eq!(told(121), Some(301_000));
        for at in [0, 120] {
            note(2, 1, at);
            note(3, -29, at);
        }
        assert_eq!(told(121), None, "one of three is off, and that is not this node");
        assert_eq!(cards.clocks_ahead(&three[..1], after(121)), Some(301_000), "the others do not coordinate");
        // This node is set back by an hour.
        for (seed, at) in [(1, 240), (2, 240), (3, 240), (1, 360), (2, 360), (3, 360)] {
            note(seed, 3600, at);
        }
        assert_eq!(told(361), Some(3_600_000));
        note(1, -7200, 362);
        assert_eq!(told(363), Some(3_600_000), "an old card says nothing");
        assert_eq!(told(700), None, "nor does one that should have been followed by others");
        // Those who coordinate were wrong themselves, and are set back: their cards begin anew.
        for (seed, at) in [(1, 800), (2, 800), (3, 800), (1, 920), (2, 920), (3, 920)] {
            note(seed, -100, at);
        }
        assert_eq!(told(921), Some(-100_000));
    }
}
