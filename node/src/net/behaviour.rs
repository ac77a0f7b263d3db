//! The protocols of a node, put together, and what they may hold.

use std::time::Duration;

use libp2p::{
    StreamProtocol, allow_block_list,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    mdns, memory_connection_limits, ping, request_response,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use protocol::NetworkId;

use super::{
    Error, Mdns, callers,
    exchange::{Codec, EXCHANGE_TIMEOUT},
    gossip::{self, Door, Topics},
    streams::{self, Purpose},
};

/// Requests that one peer may have open on one connection.
const EXCHANGE_INBOUND_MAX: usize = 32;
/// Requests that we have in flight to one peer; further ones wait. (A coordinator asks and is asked by every builder for
/// every job; two, as peer-to-peer.md proposes for strangers, would serialise that.)
pub(super) const EXCHANGE_OUTBOUND_MAX: usize = 16;
/// Connections per peer: two while both sides dial at one time.
const PER_PEER_MAX: u32 = 2;
/// Incoming connections that may be pending, of everybody: each takes some kilobytes for five seconds. Who is at the other end is not
/// known yet, so that members have no others.
const PENDING_INCOMING_MAX: u32 = 512;
/// Outgoing connections that may be pending.
const PENDING_OUTGOING_MAX: u32 = 16;
/// No further connection is accepted while the process holds more memory than this.
const MEMORY_MAX: usize = 512 * 1024 * 1024;
/// A peer is asked this often whether it lives, and has this long to say so.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Everything that a connection carries; limits come first, so that they refuse first.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) connections: connection_limits::Behaviour,
    pub(super) callers: callers::Behaviour,
    pub(super) memory: memory_connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) ping: ping::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) exchange: request_response::Behaviour<Codec>,
    pub(super) streams: streams::behaviour::Behaviour,
    pub(super) coordination: streams::behaviour::Behaviour,
    pub(super) gossip: gossip::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What identify calls the network: nodes of two networks part at once.
pub(super) fn network_name(network: NetworkId) -> String {
    format!("/artel/{}/1", network.net8())
}

fn protocol_name(network: NetworkId, name: &str) -> StreamProtocol {
    let name = format!("/artel/{}/{name}/1", network.net8());
    StreamProtocol::try_from_owned(name).expect("it begins with a slash")
}

impl Behaviour {
    /// Puts the protocols together.
    pub(super) fn new(
        keypair: &Keypair,
        config: &super::Config,
        (topics, door): (&Topics, &Door),
    ) -> Result<Self, Error> {
        let exchange = request_response::Config::default()
            .with_request_timeout(EXCHANGE_TIMEOUT)
            .with_max_concurrent_streams(EXCHANGE_INBOUND_MAX + EXCHANGE_OUTBOUND_MAX);
        let names = [(protocol_name(config.network, "exchange"), request_response::ProtocolSupport::Full)];
        let identify = identify::Config::new(network_name(config.network), keypair.public())
            .with_agent_version(concat!("artel/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let mdns = match config.mdns {
            Mdns::Off => None,
            Mdns::On => {
                let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), keypair.public().to_peer_id());
                Some(behaviour.map_err(Error::Mdns)?)
            }
        };
        Ok(Self {
            connections: connection_limits::Behaviour::new(limits(config.connections)),
            callers: callers::Behaviour::default(),
            memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY_MAX),
            blocked: allow_block_list::Behaviour::default(),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_EVERY)),
            identify: identify::Behaviour::new(identify),
            exchange: request_response::Behaviour::with_codec(Codec::new(), names, exchange),
            streams: streams::behaviour::Behaviour::new(protocol_name(config.network, "blobs")),
            coordination: streams::behaviour::Behaviour::new(protocol_name(config.network, "coordination")),
            gossip: gossip::behaviour(topics, door).map_err(Error::Gossip)?,
            mdns: Toggle::from(mdns),
        })
    }

    /// The streams of a purpose.
    pub(super) fn streams_for(&mut self, purpose: Purpose) -> &mut streams::behaviour::Behaviour {
        match purpose {
            Purpose::Blobs => &mut self.streams,
            Purpose::Coordination => &mut self.coordination,
        }
    }
}

fn limits(connections: u32) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established(Some(connections))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
}

#[cfg(test)]
pub(super) fn exchange_name(network: NetworkId) -> StreamProtocol {
    protocol_name(network, "exchange")
}
