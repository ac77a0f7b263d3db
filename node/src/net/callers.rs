//! Whoever calls is unknown until the handshake ends. Until then one address has a few places, so that it does not take those of all.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Connections of one address (of IPv6, one network) whose handshake may be under way.
const PENDING_EACH: usize = 16;

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
#[error("{PENDING_EACH} connections of its address are being made")]
struct TooMany;

/// Counts the connections that are being made, by address.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    pending: BTreeMap<ConnectionId, IpAddr>,
    counts: BTreeMap<IpAddr, usize>,
}

impl Behaviour {
    fn done(&mut self, connection: ConnectionId) {
        let Some(address) = self.pending.remove(&connection) else { return };
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
    }
}

/// Gives whose place a connection takes; nobody's where it comes from this machine, on which many nodes may be.
fn caller(address: &Multiaddr) -> Option<IpAddr> {
    let first = address.iter().next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = first {
        IpAddr::V6(ip).to_canonical()
    } else {
        return None;
    };
    match ip {
        ip if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(caller) = caller(from) else { return Ok(()) };
        let count = self.counts.entry(caller).or_default();
        if *count >= PENDING_EACH {
            return Err(ConnectionDenied::new(TooMany));
        }
        *count += 1;
        self.pending.insert(connection, caller);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.done(connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event {
            self.done(connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_few_places_until_its_handshakes_end() {
        let mut callers = Behaviour::default();
        let here: Multiaddr = "/ip4/192.0.2.9/tcp/4700".parse().unwrap();
        let mut number = 0;
        let mut call = |callers: &mut Behaviour, from: &str| {
            number += 1;
            let id = ConnectionId::new_unchecked(number);
            let from: Multiaddr = from.parse().unwrap();
            callers.handle_pending_inbound_connection(id, &here, &from).map(|()| id).map_err(drop)
        };
        let first = call(&mut callers, "/ip6/2001:db8:1:2::1/tcp/1").unwrap();
        for port in 1..PENDING_EACH {
            call(&mut callers, &format!("/ip6/2001:db8:1:2::{port:x}/tcp/7")).unwrap();
        }
        assert!(call(&mut callers, "/ip6/2001:db8:1:2:ffff::1/udp/9/quic-v1").is_err(), "it is one network");
        assert!(call(&mut callers, "/ip4/192.0.2.1/tcp/9").is_ok());
        callers.done(first);
        assert!(call(&mut callers, "/ip6/2001:db8:1:2:ffff::1/udp/9/quic-v1").is_ok());
        for _ in 0..=PENDING_EACH {
            call(&mut callers, "/ip4/127.0.0.1/tcp/9").unwrap();
        }
        for number in 1..100 {
            callers.done(ConnectionId::new_unchecked(number));
        }
        assert!(callers.counts.is_empty() && callers.pending.is_empty(), "who is gone is forgotten");
    }
}
