//! The nodes that this one is connected with, as it knows them.

use protocol::Timestamp;
use web::api::{PeerView, Time};

use crate::{clock, daemon::Shared, net};

/// Lists them.
pub(super) fn list(shared: &Shared) -> Vec<PeerView> {
    let policies = shared.policies();
    let now = clock::now();
    let view = |peer: net::Peer| {
        let connected = u64::try_from(peer.since.elapsed().as_millis()).unwrap_or(0);
        let card = shared.others.cards.get(&peer.node);
        let capacity = card.as_ref().and_then(|card| card.capacity.clone());
        let draining = card.as_ref().and_then(|card| card.draining.clone());
        PeerView {
            draining,
            node: peer.node,
            operator: policies.current().operator_of(&peer.node).cloned(),
            roles: card.map(|card| card.roles).unwrap_or_default(),
            arches: capacity.as_ref().map(|c| c.arches.clone()).unwrap_or_default(),
            slots: capacity.map_or(0, |c| c.slots),
            address: peer.address,
            rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            since: Some(Time::from(Timestamp::from_millis(now.as_millis().saturating_sub(connected)))),
            version: peer.agent.unwrap_or_default(),
            member: policies.current().is_member(&peer.node),
        }
    };
    shared.net.peers().into_iter().map(view).collect()
}
