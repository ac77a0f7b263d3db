//! How bytes reach another node: QUIC, and TCP with noise and yamux, by address or by DNS name.
//!
//! Windows and stream counts are smaller than libp2p's defaults, because every peer may be a stranger: what one connection
//! can make this process hold is bounded here; over TCP yamux lets a stream's window grow as long as it is read as fast, which bounds
//! nothing where this process is the slower side (libp2p has no setting for it).

use std::{
    io,
    net::{IpAddr, TcpListener},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic, swarm, tcp, yamux,
};
use tracing::warn;

/// How long a connection may take to be dialled or accepted, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this silence a QUIC connection is dead. A peer that was killed and came back sends no reset (its connection ids
/// are drawn anew), so this bounds how long a builder talks to a coordinator that is no longer there.
const QUIC_IDLE_MAX: Duration = Duration::from_secs(4);
/// A QUIC connection that is otherwise silent says this often that it lives.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Unacknowledged bytes on one QUIC stream.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Unacknowledged bytes on one QUIC connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that one peer may hold open on one connection: exchange, blobs, gossip, ping, identify.
const STREAMS_MAX: u32 = 64;
/// Inbound streams of one connection that may negotiate their protocol at one time; further ones wait.
const NEGOTIATING_MAX: usize = 16;
/// A connection that nothing uses and nobody wants is closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Builds the transport.
pub(super) fn build(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let transport = match dns::tokio::Transport::system(plain(keypair)?) {
        Ok(transport) => transport.boxed(),
        Err(error) => {
            warn!(%error, "no DNS: only numeric addresses can be dialled");
            plain(keypair)?
        }
    };
    Ok(TransportTimeout::new(transport, CONNECT_TIMEOUT).boxed())
}

/// Gives the settings of the swarm above the transport.
pub(super) fn swarm_config() -> swarm::Config {
    swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        .with_smart_dial()
}

/// Refuses a TCP port that another process listens on. (libp2p binds with `SO_REUSEPORT`, which would let two daemons share
/// a port and each get half of the connections.)
pub(super) fn refuse_taken(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        Some(_) | None => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(_) | None => Ok(()),
    }
}

fn plain(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS_MAX as usize);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(muxer)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic =
        quic::tokio::Transport::new(quic_config(keypair)).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = CONNECT_TIMEOUT;
    config.max_idle_timeout = u32::try_from(QUIC_IDLE_MAX.as_millis()).expect("seconds fit");
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = STREAMS_MAX;
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = CONNECTION_WINDOW;
    config
}
