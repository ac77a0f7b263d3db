//! What the network did, and what the task does about it.

use std::{sync::Arc, time::Instant};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub::{self, MessageAcceptance, MessageId},
    identify, mdns, ping,
    request_response::{self, Message, OutboundFailure, OutboundRequestId, ResponseChannel},
    swarm::{ConnectionId, SwarmEvent},
};
use protocol::{
    NodeId, limits,
    message::{Refusal, Request, Response},
};
use tokio::sync::Semaphore;
use tracing::{debug, info, trace, warn};

use super::{AskError, Connected, Event, Frame, Judged, Task, lock, outlet::Given};
use crate::net::{
    ByteStream, Peer, Reply, Verdictor,
    behaviour::BehaviourEvent,
    discovery::{is_loopback, take_peer},
    exchange::{FrameError, refusal},
    identity::node_of,
    reputation::{Act, BAN_TIME, Sentence, Standing},
    streams::{COORDINATION_INBOUND_MAX, INBOUND_MAX, Purpose, Slot, behaviour::Inbound},
};

/// Connections that nodes who are neither members nor bootstrap peers may have opened to us.
const STRANGERS_MAX: usize = 8;
/// The longest agent version that is shown, in characters.
const AGENT_MAX: usize = 64;
/// How long a peer of another network is refused.
const OTHER_NETWORK_BAN: std::time::Duration = std::time::Duration::from_secs(60);

/// Says whether a listener is up or failed, where the event is about that.
pub(super) fn listener_outcome(event: &SwarmEvent<BehaviourEvent>) -> Option<(ListenerId, Result<(), String>)> {
    if let SwarmEvent::NewListenAddr { listener_id, .. } = event {
        Some((*listener_id, Ok(())))
    } else if let SwarmEvent::ListenerClosed { listener_id, reason, .. } = event {
        let why = reason.as_ref().map_or_else(ToString::to_string, |()| "closed".to_owned());
        Some((*listener_id, Err(why)))
    } else {
        None
    }
}

impl Task {
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "libp2p's enum may grow; what is not ours to act on is traced"
        )]
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                debug!(%peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => self.dial_failed(peer, &error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(address = %send_back_addr, %error, "inbound connection refused");
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => self.note_addresses(),
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "listener"),
            other => trace!(event = ?other, "swarm"),
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Exchange(event) => self.on_exchange(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Streams(inbound) => self.on_stream(inbound, Purpose::Blobs),
            BehaviourEvent::Coordination(inbound) => self.on_stream(inbound, Purpose::Coordination),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.learn(peer, address);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Connections(never)
            | BehaviourEvent::Callers(never)
            | BehaviourEvent::Memory(never)
            | BehaviourEvent::Blocked(never) => match never {},
        }
    }

    fn note_addresses(&self) {
        let local = *self.swarm.local_peer_id();
        let all = self.announce.iter().chain(self.swarm.listeners());
        *lock(&self.shared.addresses) = all.map(|address| format!("{address}/p2p/{local}")).collect();
    }

    fn on_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(node) = node_of(&peer) else { return };
        let fresh = !self.connected.contains_key(&peer);
        if fresh && endpoint.is_listener() && self.is_stranger(&peer) && self.strangers() >= STRANGERS_MAX {
            debug!(node = %node.short(), "stranger refused: too many are connected");
            self.swarm.close_connection(connection);
            return;
        }
        let entry = self.connected.entry(peer).or_insert_with(|| Connected {
            node,
            connections: Vec::new(),
            streams: Arc::new(Semaphore::new(INBOUND_MAX)),
            coordination: Arc::new(Semaphore::new(COORDINATION_INBOUND_MAX)),
        });
        entry.connections.push(connection);
        let keep = self.keep_alive(&peer);
        self.swarm.behaviour_mut().streams.keep(peer, connection, keep);
        if fresh {
            let address = endpoint.get_remote_address().to_string();
            info!(node = %node.short(), %address, "connected");
            let connected = Peer { node, address, since: Instant::now(), agent: None, rtt: None };
            lock(&self.shared.peers).insert(node, connected);
            lock(&self.shared.book).connected(&peer);
            self.outlet.connected(node);
        }
        self.do_errands(peer);
    }

    fn is_stranger(&self, peer: &PeerId) -> bool {
        !self.is_member(peer) && !lock(&self.shared.book).is_bootstrap(peer)
    }

    fn strangers(&self) -> usize {
        self.connected.keys().filter(|peer| self.is_stranger(peer)).count()
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(entry) = self.connected.get_mut(&peer) else { return };
        entry.connections.retain(|open| *open != connection);
        if !entry.connections.is_empty() {
            return;
        }
        let node = entry.node;
        self.connected.remove(&peer);
        info!(node = %node.short(), "disconnected");
        lock(&self.shared.peers).remove(&node);
        self.outlet.disconnected(node);
        self.peer_lost(peer);
    }

    fn on_exchange(&mut self, event: request_response::Event<Frame<Request>, Frame<Response>>) {
        match event {
            request_response::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_request(peer, request, channel);
            }
            request_response::Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.on_response(peer, request_id, response);
            }
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                self.on_unanswered(peer, request_id, &error);
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                debug!(%peer, %error, "request not answered")
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(&mut self, peer: PeerId, frame: Frame<Request>, channel: ResponseChannel<Frame<Response>>) {
        let Some(node) = node_of(&peer) else { return };
        let (request, memory) = match frame {
            Frame::Message(request, memory) => (request, memory),
            Frame::Garbage(error) => {
                self.answer(channel, Some(refusal(Refusal::Invalid(error.to_string()))));
                return self.garbage(peer, &error);
            }
            Frame::NoRoom => {
                if !self.allows(peer, Act::Request) {
                    // Who asks more than it may is not even told so.
                    return;
                }
                let busy = Refusal::Busy("no room for this request beside those before it; ask again".into());
                return self.answer(channel, Some(refusal(busy)));
            }
            Frame::Outgoing(_) => return,
        };
        if !self.allows(peer, Act::Request) {
            let busy = Refusal::Busy("too many requests from this node; slow down".into());
            return self.answer(channel, Some(refusal(busy)));
        }
        let (reply, answer) = Reply::new(Some(memory));
        match self.outlet.give(Event::Request { from: node, request, reply }) {
            Given::Taken => self.pending.answers.push(Box::pin(async move { (channel, answer.await.ok()) })),
            Given::Refused => self.answer(channel, Some(refusal(Refusal::Busy("this node has too much to do".into())))),
        }
    }

    /// Sends an answer; without one, the asker is told to try again.
    pub(super) fn answer(&mut self, channel: ResponseChannel<Frame<Response>>, answer: Option<Vec<u8>>) {
        let answer = answer.unwrap_or_else(|| refusal(Refusal::Busy("no answer was given; try again later".into())));
        if self.swarm.behaviour_mut().exchange.send_response(channel, Frame::Outgoing(answer)).is_err() {
            debug!("answer came too late");
        }
    }

    fn on_response(&mut self, peer: PeerId, id: OutboundRequestId, frame: Frame<Response>) {
        let (Some(node), Some(answer)) = (node_of(&peer), self.pending.asked.remove(&id)) else { return };
        // A caller that no longer waits does not want to know.
        match frame {
            Frame::Message(response, _) => drop(answer.send(Ok(response))),
            Frame::Garbage(source) => {
                self.garbage(peer, &source);
                drop(answer.send(Err(AskError::BadAnswer { node, source })));
            }
            Frame::NoRoom => drop(answer.send(Err(AskError::NoRoom(node)))),
            Frame::Outgoing(_) => {}
        }
    }

    fn on_unanswered(&mut self, peer: PeerId, id: OutboundRequestId, failure: &OutboundFailure) {
        let (Some(node), Some(answer)) = (node_of(&peer), self.pending.asked.remove(&id)) else { return };
        debug!(node = %node.short(), %failure, "question not answered");
        let error = match failure {
            OutboundFailure::DialFailure => AskError::Unreachable { node, why: failure.to_string() },
            OutboundFailure::Timeout => AskError::Timeout(node),
            OutboundFailure::UnsupportedProtocols => AskError::Unsupported(node),
            OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => AskError::Interrupted(node),
        };
        drop(answer.send(Err(error)));
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        if let gossipsub::Event::Message { propagation_source, message_id, message } = event {
            self.on_announcement(propagation_source, message_id, message);
        } else if let gossipsub::Event::SlowPeer { peer_id, .. } = event {
            debug!(%peer_id, "announcements to a slow peer were dropped");
        } else {
            trace!(?event, "gossip");
        }
    }

    fn on_announcement(&mut self, source: PeerId, id: MessageId, message: gossipsub::Message) {
        let verdict = |acceptance| Judged { message: id.clone(), source, acceptance };
        let (Some(from), Some(topic)) = (node_of(&source), self.topics.topic(&message.topic)) else {
            return self.judge(&verdict(MessageAcceptance::Reject));
        };
        if message.data.len() > limits::GOSSIP_MAX {
            warn!(node = %from.short(), bytes = message.data.len(), "oversize announcement rejected");
            return self.judge(&verdict(MessageAcceptance::Reject));
        }
        if !self.allows(source, Act::Announcement) {
            debug!(node = %from.short(), "announcement ignored: too many from this node");
            self.judge(&verdict(MessageAcceptance::Ignore));
            // What is ignored is remembered for minutes all the same.
            if self.allows(source, Act::Flood) {
                return;
            }
            warn!(node = %from.short(), "disconnected: it announces many times what it may");
            return self.disconnect(source);
        }
        let verdict = Verdictor::new(id, source, self.inputs.judge.clone());
        if self.outlet.give(Event::Gossip { topic, from, bytes: message.data, verdict }) == Given::Refused {
            debug!(node = %from.short(), "announcement ignored: the inbox is full");
        }
    }

    fn on_stream(&mut self, Inbound { peer, stream }: Inbound, purpose: Purpose) {
        let Some(Connected { node, streams, coordination, .. }) = self.connected.get(&peer) else { return };
        let node: NodeId = *node;
        if !self.inputs.members.borrow().may_open(&node, purpose) {
            return debug!(node = %node.short(), ?purpose, "stream refused: the policy does not allow it");
        }
        let places = match purpose {
            Purpose::Blobs => streams,
            Purpose::Coordination => coordination,
        };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            return debug!(node = %node.short(), "stream refused: too many are open");
        };
        let slot = Slot::Theirs(Arc::new(permit));
        let stream = ByteStream::new(stream, self.inputs.finisher.clone(), slot);
        if self.outlet.give(Event::Stream { from: node, purpose, stream }) == Given::Refused {
            debug!(node = %node.short(), "stream refused: the inbox is full");
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id: peer, info, .. } = event else { return };
        let Some(node) = node_of(&peer) else { return };
        if info.protocol_version != self.network {
            warn!(node = %node.short(), theirs = ?info.protocol_version, ours = %self.network, "node of another network");
            return self.ban(peer, OTHER_NETWORK_BAN);
        }
        let mut near = false;
        if let Some(known) = lock(&self.shared.peers).get_mut(&node) {
            known.agent = Some(info.agent_version.chars().filter(|c| !c.is_control()).take(AGENT_MAX).collect());
            near = known.address.parse().is_ok_and(|address| is_loopback(&address));
        }
        for address in info.listen_addrs.into_iter().filter(|address| near || !is_loopback(address)) {
            self.learn(peer, address);
        }
    }

    fn learn(&mut self, peer: PeerId, mut address: Multiaddr) {
        if take_peer(&mut address).is_none_or(|named| named == peer) {
            lock(&self.shared.book).add(peer, address, Instant::now());
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                let Some(node) = node_of(&event.peer) else { return };
                if let Some(peer) = lock(&self.shared.peers).get_mut(&node) {
                    peer.rtt = Some(rtt);
                }
            }
            Err(failure @ (ping::Failure::Timeout | ping::Failure::Other { .. })) => {
                // The first time-out is not told; after it a new stream is tried, and over a dead connection none is agreed
                // upon. TCP would notice after a quarter of an hour.
                debug!(peer = %event.peer, %failure, "connection is dead: no answer to a ping");
                self.swarm.close_connection(event.connection);
            }
            Err(failure @ ping::Failure::Unsupported) => debug!(peer = %event.peer, %failure, "ping"),
        }
    }

    fn allows(&mut self, peer: PeerId, act: Act) -> bool {
        let standing = if self.is_stranger(&peer) { Standing::Stranger } else { Standing::Member };
        self.reputation.allows(peer, act, standing, Instant::now())
    }

    /// Notes a message that no honest node sends.
    fn garbage(&mut self, peer: PeerId, error: &FrameError) {
        if matches!(error, FrameError::Late { .. }) && !self.is_stranger(&peer) {
            // A member's link is slow, and what it held was its own.
            debug!(%peer, %error, "message refused");
            return;
        }
        let (score, sentence) = self.reputation.garbage(peer, Instant::now());
        warn!(%peer, %error, score, ?sentence, "message refused");
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        match (sentence, error) {
            (Sentence::None, _) => {}
            // A link may be bad, and not the node behind it: it may come back, and is cut off by the next late message.
            (Sentence::Disconnect, _) | (Sentence::Ban, FrameError::Late { .. }) => self.disconnect(peer),
            (Sentence::Ban, _) => self.ban(peer, BAN_TIME),
        }
    }
}
