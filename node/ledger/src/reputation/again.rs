//! When what keeps a builder from leases ends: the room that it has offered is looked at again then, without a word from it.
//!
//! It judges nobody and grants nothing.

use protocol::{Arch, NodeId, OperatorName, Timestamp};

use super::{Class, Key, Record, Reputation, State};
use crate::{Ledger, Turn, deadlines::Due};

impl Reputation {
    /// Gives when something that keeps a node from leases of some class ends next: a rest, a quarantine, or the wait for a
    /// canary; none when nothing does, or nothing ends.
    pub(super) fn next_end(&self, operator: &OperatorName, node: NodeId, at: Timestamp) -> Option<Timestamp> {
        if self.breaches.contains_key(&node) {
            return None;
        }
        let of_node = self.of_operator(operator).filter(|((.., who), _)| *who == node);
        let ends = of_node.flat_map(|(_, record)| {
            let until = match record.state {
                State::Quarantined { until, .. } => Some(until),
                State::Free | State::Disabled { .. } => None,
            };
            [until, record.rests, record.canary_from()]
        });
        ends.flatten().filter(|end| *end > at).min()
    }

    /// Gives the records of an operator's nodes, of every class.
    fn of_operator<'a>(&'a self, operator: &'a OperatorName) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let arch = *Arch::EVERY.iter().min().expect("there are architectures");
        let first = (operator.clone(), Class { arch, kind: String::new() }, NodeId::from_bytes([0; 32]));
        self.records.range(first..).take_while(move |((of, ..), _)| of == operator)
    }
}

impl Ledger {
    /// Has the room of a node looked at when what keeps it from leases ends; without room or hindrance there is nothing to
    /// look at.
    pub(crate) fn watch_hindrance(&mut self, node: NodeId, turn: &Turn) {
        match self.next_end(node, turn) {
            Some(end) => self.deadlines.set(Due::Node(node), end),
            None => self.deadlines.clear(Due::Node(node)),
        }
    }

    /// Something in a node's favour came out: if it has been kept from leases, its room is looked at before this command is
    /// over.
    pub(super) fn look_at_once(&mut self, node: NodeId, turn: &Turn) {
        if self.next_end(node, turn).is_some() {
            self.deadlines.set(Due::Node(node), turn.at);
        }
    }

    fn next_end(&self, node: NodeId, turn: &Turn) -> Option<Timestamp> {
        self.peers.room(&node)?;
        self.reputation.next_end(self.peers.operator(&node)?, node, turn.at)
    }
}
