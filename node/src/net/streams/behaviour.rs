//! Opens and accepts the streams, and says which connections are kept although nothing flows.
//!
//! `libp2p-stream` is not used: its accept queue holds a single stream and silently drops the others of a burst, and an
//! open towards a peer whose dial is skipped waits for ever. Here every inbound stream reaches the swarm's task in order.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use protocol::NodeId;
use tokio::sync::oneshot;
use tracing::debug;

use super::{INBOUND_MAX, StreamError};
use crate::net::identity::node_of;

/// Where an opened stream goes.
pub(in crate::net) type Opened = oneshot::Sender<Result<Stream, StreamError>>;

/// A peer opened a stream.
#[derive(Debug)]
pub(in crate::net) struct Inbound {
    pub(in crate::net) peer: PeerId,
    pub(in crate::net) stream: Stream,
}

/// Whether a connection is kept while nothing flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum KeepAlive {
    /// A member or a bootstrap peer: as long as it answers.
    Always,
    /// Anybody else: until it idles.
    WhileUsed,
}

/// What the behaviour tells a connection.
#[derive(Debug)]
pub(in crate::net) enum ToConnection {
    Open(Opened),
    Keep(KeepAlive),
}

#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not ed25519")]
struct NoNode;

/// The behaviour: queues between the swarm's task and its connections.
pub(in crate::net) struct Behaviour {
    protocol: StreamProtocol,
    events: VecDeque<ToSwarm<Inbound, ToConnection>>,
}

impl Behaviour {
    pub(in crate::net) fn new(protocol: StreamProtocol) -> Self {
        Self { protocol, events: VecDeque::new() }
    }

    /// Opens a stream on an established connection.
    pub(in crate::net) fn open(&mut self, peer: PeerId, opened: Opened) {
        self.tell(peer, NotifyHandler::Any, ToConnection::Open(opened));
    }

    /// Says whether a connection is kept.
    pub(in crate::net) fn keep(&mut self, peer: PeerId, connection: ConnectionId, keep: KeepAlive) {
        self.tell(peer, NotifyHandler::One(connection), ToConnection::Keep(keep));
    }

    fn tell(&mut self, peer_id: PeerId, handler: NotifyHandler, event: ToConnection) {
        self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
    }

    fn handler(&self, peer: &PeerId) -> Result<Connection, ConnectionDenied> {
        let node = node_of(peer).ok_or_else(|| ConnectionDenied::new(NoNode))?;
        Ok(Connection {
            node,
            protocol: self.protocol.clone(),
            keep: KeepAlive::WhileUsed,
            opening: VecDeque::new(),
            inbound: VecDeque::new(),
        })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Connection;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Connection, ConnectionDenied> {
        self.handler(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Connection, ConnectionDenied> {
        self.handler(&peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        self.events.push_back(ToSwarm::GenerateEvent(Inbound { peer, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Inbound, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The part of the behaviour that lives in one connection's task.
pub(in crate::net) struct Connection {
    node: NodeId,
    protocol: StreamProtocol,
    keep: KeepAlive,
    opening: VecDeque<Opened>,
    inbound: VecDeque<Stream>,
}

impl ConnectionHandler for Connection {
    type FromBehaviour = ToConnection;
    type ToBehaviour = Stream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep == KeepAlive::Always
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opened, Self::ToBehaviour>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        if let Some(opened) = self.opening.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), opened);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: ToConnection) {
        match event {
            ToConnection::Open(opened) => self.opening.push_back(opened),
            ToConnection::Keep(keep) => self.keep = keep,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opened>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event {
            if self.inbound.len() < INBOUND_MAX {
                self.inbound.push_back(stream);
            } else {
                debug!(node = %self.node, "inbound stream refused: too many at once");
            }
        } else if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) =
            event
        {
            // A caller that no longer waits drops the stream, which the other side sees as its end.
            drop(info.send(Ok(stream)));
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) = event {
            let error = match error {
                StreamUpgradeError::NegotiationFailed => StreamError::Unsupported(self.node),
                StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => StreamError::Interrupted(self.node),
                StreamUpgradeError::Apply(never) => match never {},
            };
            drop(info.send(Err(error)));
        }
    }
}
