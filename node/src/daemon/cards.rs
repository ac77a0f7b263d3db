//! Node cards: what each node says of itself, gossiped among members so that they can reach each other and people can see
//! who offers what.
//!
//! A card is signed by its node, renewed before it expires, and replaced only by one with a higher sequence. Cards of nodes
//! that the policy does not name are not kept.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{NodeId, Verified, envelope::Signed, limits, peer::NodeCard};
use tracing::debug;

use super::Shared;
use crate::{clock, net::Topic, serve::Desk};

/// How often a node tells its card, beside telling it to newcomers.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(120);
/// Addresses on a card.
const ADDRESSES_MAX: usize = 16;

/// The newest card of each member.
#[derive(Debug, Default)]
pub struct Cards(Mutex<BTreeMap<NodeId, NodeCard>>);

/// What a card was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first one of this node, which may not know us either.
    Newcomer,
    /// New, and kept: worth forwarding.
    News,
    /// Known, stale, or of a node that the policy does not name.
    Nothing,
    /// Malformed, which its sender could have seen.
    Bad,
}

impl Cards {
    /// Gives a node's newest card.
    pub fn get(&self, node: &NodeId) -> Option<NodeCard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Keeps a card, unless a newer one is known.
    fn keep(&self, card: NodeCard) -> Heard {
        let mut cards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cards.get(&card.node).is_some_and(|known| known.sequence >= card.sequence) {
            return Heard::Nothing;
        }
        if cards.insert(card.node, card).is_some() { Heard::News } else { Heard::Newcomer }
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

    /// Tells the network this node's card.
    pub(super) async fn tell_card(&self, desk: &Desk) {
        let now = clock::now();
        let mut addresses = self.net.listen_addresses();
        addresses.truncate(ADDRESSES_MAX);
        let card = NodeCard {
            node: self.id,
            roles: self.roles(desk),
            expires: now.after(limits::NODE_CARD_TTL),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: desk.worker().map(|worker| worker.capacity()),
            // Milliseconds grow over restarts too, which a counter in memory would not.
            sequence: now.as_millis(),
            addresses,
        };
        if let Err(error) = self.net.publish(Topic::Nodes, self.sign(&card).to_bytes()).await {
            debug!(%error, "node card not gossiped");
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
