//! What is known of builders: what each says of itself, whether it is there, and the room that it offers now.
//!
//! Only nodes that the policy gives an operator are kept. The table decides nothing: it answers who could take a job.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use protocol::{
    Arch, NodeId, OperatorName, Timestamp,
    job::{Endpoint, Isolation},
    message::Offer,
    peer::Capacity,
    policy::Policy,
    words::HostRule,
};
use serde::{Deserialize, Serialize};

/// Nodes of one operator that are looked at for one job; the rest do not fit either, or get it with the next look.
const NODES_LOOK_MAX: usize = 16;

/// What a builder says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    /// It takes what it has room for.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining {
        /// Its operator's words.
        reason: String,
    },
}

/// Whether a builder is connected, as far as the coordinator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Presence {
    Online,
    Gone,
}

/// One builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) duty: Duty,
    /// When it last said something.
    pub(crate) seen: Timestamp,
    /// What it offers in all; none before its card came.
    pub(crate) capacity: Option<Capacity>,
    pub(crate) presence: Presence,
}

/// What a job needs that a builder's owner does not allow, as words after "does not let it".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// A place that is fetched from.
    Place(Endpoint),
    /// The machine's own programs.
    Programs,
    /// So much disk, in MiB.
    Disk(u32),
}

impl Withheld {
    /// Gives the line of the configuration that would allow it.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Withheld::Place(_) => "fetch",
            Withheld::Programs => "isolation = \"light\"",
            Withheld::Disk(_) => "disk_mib",
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::Place(place) => write!(f, "fetch from {place}"),
            Withheld::Programs => f.write_str("run commands with its machine's own programs"),
            Withheld::Disk(mib) => write!(f, "use {mib} MiB of disk"),
        }
    }
}

/// Room that a builder offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Room {
    /// Attempts that it could begin.
    pub(crate) free: u16,
    /// Since when.
    pub(crate) since: Timestamp,
    pub(crate) arches: Vec<Arch>,
    pub(crate) memory_mib: u32,
}

/// What a snapshot keeps of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) rooms: BTreeMap<NodeId, Room>,
}

/// The disk of a builder whose owner did not set it, in MiB.
const USUAL_DISK_MIB: u32 = 16 * 1024;

/// All builders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    known: Known,
    /// Who answers for each node, by the policy in force.
    operators: BTreeMap<NodeId, OperatorName>,
    /// Nodes with room, by architecture and operator, who waits longest first.
    idle: BTreeMap<Arch, BTreeMap<OperatorName, BTreeSet<(Timestamp, NodeId)>>>,
}

impl Peers {
    /// Begins with what a snapshot kept, under a policy.
    pub(crate) fn new(known: Known, policy: &Policy) -> Self {
        let mut peers = Self { known, ..Self::default() };
        peers.adopt(policy);
        peers
    }

    /// Takes over a new policy: strangers are forgotten.
    pub(crate) fn adopt(&mut self, policy: &Policy) {
        let pairs = policy.operators.iter().flat_map(|o| o.nodes.iter().map(|node| (*node, o.name.clone())));
        self.operators = pairs.collect();
        let operators = &self.operators;
        self.known.peers.retain(|node, _| operators.contains_key(node));
        self.known.rooms.retain(|node, _| operators.contains_key(node));
        self.idle.clear();
        for (node, room) in &self.known.rooms {
            let operator = &operators[node];
            for arch in &room.arches {
                let idle = self.idle.entry(*arch).or_default().entry(operator.clone()).or_default();
                idle.insert((room.since, *node));
            }
        }
    }

    /// Gives what a snapshot keeps.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Gives who answers for a node.
    pub(crate) fn operator(&self, node: &NodeId) -> Option<&OperatorName> {
        self.operators.get(node)
    }

    /// Says whether this operator answers for a node.
    pub(crate) fn is_of(&self, node: &NodeId, operator: &OperatorName) -> bool {
        self.operator(node) == Some(operator)
    }

    /// Gives who answers for which node.
    pub(crate) fn operators(&self) -> &BTreeMap<NodeId, OperatorName> {
        &self.operators
    }

    /// Gives every builder that said something, with its operator.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&NodeId, &OperatorName, &Peer)> {
        self.known.peers.iter().map(|(node, peer)| (node, &self.operators[node], peer))
    }

    /// Gives one builder.
    pub(crate) fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.known.peers.get(node)
    }

    /// Gives the lightest isolation that a node's owner allows, by its card.
    pub(crate) fn isolation_of(&self, node: &NodeId) -> Isolation {
        self.get(node).and_then(|peer| peer.capacity.as_ref()).map_or(Isolation::Rootfs, |capacity| capacity.isolation)
    }

    /// Gives how much disk a node's owner gives to builds, in MiB, by its card; as long as that is not known, what most give.
    pub(crate) fn disk_of(&self, node: &NodeId) -> u32 {
        self.get(node).and_then(|peer| peer.capacity.as_ref()).map_or(USUAL_DISK_MIB, |capacity| capacity.disk_mib)
    }

    /// Gives whom a node fetches from, by its card.
    pub(crate) fn fetches_from(&self, node: &NodeId) -> &[HostRule] {
        self.get(node).and_then(|peer| peer.capacity.as_ref()).map_or(&[], |capacity| &capacity.fetch)
    }

    /// Says whether a node is connected, as far as is known.
    pub(crate) fn is_online(&self, node: &NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.presence == Presence::Online)
    }

    /// Gives the room that a node offers.
    pub(crate) fn room(&self, node: &NodeId) -> Option<&Room> {
        self.known.rooms.get(node)
    }

    /// Notes that a node said something.
    pub(crate) fn heard(&mut self, node: NodeId, at: Timestamp) {
        if self.operators.contains_key(&node) {
            let silent = Peer { duty: Duty::Ready, seen: at, capacity: None, presence: Presence::Online };
            let peer = self.known.peers.entry(node).or_insert(silent);
            (peer.seen, peer.presence) = (at, Presence::Online);
        }
    }

    /// Notes what a node says of itself. One that drains offers no room.
    pub(crate) fn card(&mut self, node: NodeId, capacity: Option<Capacity>, duty: Duty, at: Timestamp) {
        self.heard(node, at);
        if duty != Duty::Ready {
            self.set_room(node, None);
        }
        if let Some(peer) = self.known.peers.get_mut(&node) {
            (peer.capacity, peer.duty) = (capacity, duty);
        }
    }

    /// Notes that the connection to a node is gone: a grant could not reach it, so its room is none.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.set_room(node, None);
        if let Some(peer) = self.known.peers.get_mut(&node) {
            peer.presence = Presence::Gone;
        }
    }

    /// Nobody's room is known any more.
    pub(crate) fn forget_rooms(&mut self) {
        self.known.rooms.clear();
        self.idle.clear();
    }

    /// Replaces the room of a node; none when it has no operator, drains, or the room is empty.
    pub(crate) fn set_room(&mut self, node: NodeId, room: Option<Room>) {
        let Some(operator) = self.operators.get(&node) else { return };
        if let Some(old) = self.known.rooms.remove(&node) {
            for arch in &old.arches {
                let of_arch = self.idle.get_mut(arch).expect("a room is indexed");
                let of_operator = of_arch.get_mut(operator).expect("a room is indexed");
                of_operator.remove(&(old.since, node));
                if of_operator.is_empty() {
                    of_arch.remove(operator);
                }
            }
        }
        let drains = self.known.peers.get(&node).is_some_and(|peer| peer.duty != Duty::Ready);
        let Some(room) = room.filter(|room| room.free > 0 && !drains) else { return };
        for arch in &room.arches {
            let idle = self.idle.entry(*arch).or_default().entry(operator.clone()).or_default();
            idle.insert((room.since, node));
        }
        self.known.rooms.insert(node, room);
    }

    /// Takes room for one attempt.
    pub(crate) fn take(&mut self, node: NodeId, memory_mib: u32) {
        let Some(mut room) = self.known.rooms.get(&node).cloned() else { return };
        room.free -= 1;
        room.memory_mib = room.memory_mib.saturating_sub(memory_mib);
        self.set_room(node, Some(room));
    }

    /// Gives the node that takes a job, where there is one: the least `rank`, then who waits longest among the first fitting
    /// nodes of their operators. `from` spreads jobs over operators.
    pub(crate) fn find(
        &self,
        arch: Arch,
        from: &OperatorName,
        rank: impl Fn(NodeId, &OperatorName, &Room) -> Option<u8>,
    ) -> Option<NodeId> {
        let idle = self.idle.get(&arch)?;
        let mut best: Option<(u8, Timestamp, NodeId)> = None;
        for (operator, nodes) in idle.range::<OperatorName, _>(from..).chain(idle.range::<OperatorName, _>(..from)) {
            let ranked = nodes.iter().take(NODES_LOOK_MAX).filter_map(|(since, node)| {
                let room = &self.known.rooms[node];
                rank(*node, operator, room).map(|rank| (rank, *since, *node))
            });
            best = best.into_iter().chain(ranked).min();
            if best.is_some_and(|(rank, ..)| rank == 0) {
                break;
            }
        }
        best.map(|(.., node)| node)
    }
}

impl Room {
    /// Makes the room of an offer, less what grants on their way will take.
    pub(crate) fn of(offer: &Offer, at: Timestamp, on_their_way: (u16, u32)) -> Option<Self> {
        let (leases, memory_mib) = on_their_way;
        let mut arches: Vec<Arch> = offer.arches.iter().copied().take(Arch::EVERY.len()).collect();
        arches.sort();
        arches.dedup();
        let room = Self {
            free: offer.free.saturating_sub(leases),
            since: at,
            arches,
            memory_mib: offer.memory_mib.saturating_sub(memory_mib),
        };
        (room.free > 0).then_some(room)
    }
}
