//! Connections that we want: for an errand, or because discovery says so.

use std::time::Instant;

use libp2p::{
    PeerId, Stream,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use protocol::NodeId;
use tokio::sync::oneshot;
use tracing::debug;

use super::{AskError, Frame, StreamError, Task, lock, whole};
use crate::net::{discovery::Wanted, identity::node_of, streams::Purpose};

/// Errands that may wait for one connection.
const ERRANDS_MAX: usize = 256;
/// Learned peers are dialled while fewer peers than this are connected.
const PEERS_WANTED: usize = 8;

/// What waits for a connection.
pub(super) enum Errand {
    Ask { frame: Vec<u8>, answer: super::Answer },
    Open { purpose: Purpose, opened: oneshot::Sender<Result<Stream, StreamError>> },
}

impl Errand {
    /// Tells the caller that there is no connection. A caller that went away does not want to know.
    fn fail(self, node: NodeId, why: String) {
        match self {
            Errand::Ask { answer, .. } => drop(answer.send(Err(AskError::Unreachable { node, why }))),
            Errand::Open { opened, .. } => drop(opened.send(Err(StreamError::Unreachable { node, why }))),
        }
    }
}

/// A number between 0 and 1, to spread retries.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

impl Task {
    /// Does an errand now, or when the connection that it needs is there.
    pub(super) fn run_errand(&mut self, peer: PeerId, errand: Errand) {
        if self.swarm.is_connected(&peer) {
            return self.do_errand(peer, errand);
        }
        let Some(node) = node_of(&peer) else { return };
        let waiting = self.pending.errands.entry(peer).or_default();
        if waiting.len() >= ERRANDS_MAX {
            return errand.fail(node, "too many are waiting for a connection".into());
        }
        waiting.push(errand);
        if let Err(why) = self.dial(peer) {
            self.fail_errands(peer, &why);
        }
    }

    fn do_errand(&mut self, peer: PeerId, errand: Errand) {
        match errand {
            Errand::Ask { frame, answer } => {
                let id = self.swarm.behaviour_mut().exchange.send_request(&peer, Frame::Outgoing(frame));
                self.pending.asked.insert(id, answer);
            }
            Errand::Open { purpose, opened } => {
                self.swarm.behaviour_mut().streams_for(purpose).open(peer, opened);
            }
        }
    }

    /// Does what waited for this connection.
    pub(super) fn do_errands(&mut self, peer: PeerId) {
        for errand in self.pending.errands.remove(&peer).unwrap_or_default() {
            self.do_errand(peer, errand);
        }
    }

    fn fail_errands(&mut self, peer: PeerId, why: &str) {
        let Some(node) = node_of(&peer) else { return };
        for errand in self.pending.errands.remove(&peer).unwrap_or_default() {
            errand.fail(node, why.to_owned());
        }
    }

    /// Dials the peers that discovery wants now.
    pub(super) fn dial_due(&mut self, now: Instant) {
        let room = PEERS_WANTED.saturating_sub(self.connected.len());
        let due = lock(&self.shared.book).due(now, room, |peer, bootstrap| {
            if self.swarm.is_connected(peer) || self.reputation.is_banned(peer) || peer == self.swarm.local_peer_id() {
                return Wanted::No;
            }
            match (bootstrap || self.is_candidate(peer), self.is_member(peer)) {
                (true, _) => Wanted::Always,
                (false, true) => Wanted::WhileFew,
                (false, false) => Wanted::No,
            }
        });
        for peer in due {
            // Noted first as failed, so that a dial that hangs is not repeated at once.
            lock(&self.shared.book).failed(&peer, now, chance());
            if let Err(why) = self.dial(peer) {
                debug!(%peer, %why, "not dialled");
            }
        }
    }

    fn is_candidate(&self, peer: &PeerId) -> bool {
        node_of(peer).is_some_and(|node| self.inputs.members.borrow().is_candidate(&node))
    }

    /// Begins to dial, unless that is under way.
    fn dial(&mut self, peer: PeerId) -> Result<(), String> {
        let addresses = lock(&self.shared.book).addresses(&peer);
        if addresses.is_empty() {
            return Err("no address of it is known".into());
        }
        // A fresh port: the listening port may still wait out an old connection to the same place.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .allocate_new_port()
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Ok(()),
            Err(error) => Err(whole(&error)),
        }
    }

    /// Takes note of a dial that failed.
    pub(super) fn dial_failed(&mut self, peer: PeerId, error: &DialError) {
        if self.swarm.is_connected(&peer) || matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        debug!(%peer, %error, "dial failed");
        self.fail_errands(peer, &whole(error));
    }

    /// Takes note of a lost connection: bootstrap peers are dialled again soon.
    pub(super) fn peer_lost(&mut self, peer: PeerId) {
        lock(&self.shared.book).lost(&peer, Instant::now(), chance());
    }
}
