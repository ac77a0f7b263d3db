//! Whom to dial, where, and when to try again.
//!
//! Bootstrap peers are dialled for as long as the node runs, with a short and bounded back-off: a restarted coordinator must
//! be found within seconds. Members learned from node cards, identify or mdns are dialled while few peers are connected. The
//! book holds no sockets and reads no clock: time and chance are arguments.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// The first retry after a lost connection or a failed dial comes after about this.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two dials of a bootstrap peer.
const RETRY_BOOTSTRAP_MAX: Duration = Duration::from_secs(5);
/// The longest pause between two dials of a learned peer.
const RETRY_LEARNED_MAX: Duration = Duration::from_secs(300);
/// Peers whose addresses are remembered.
const PEERS_MAX: usize = 2048;
/// Addresses remembered of one peer; as many as a node card holds.
const ADDRESSES_MAX: usize = 16;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 256;

/// An address that is no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a multiaddr.
    #[error("{text:?} is not a multiaddr such as /ip4/192.0.2.1/udp/4001/quic-v1/p2p/..: {why}")]
    Malformed {
        /// What was given.
        text: String,
        /// The parser's words.
        why: String,
    },
    /// The `/p2p/` part is missing.
    #[error("{0:?} does not end in /p2p/ and the peer's id, so nobody would know whom it reaches")]
    Nobody(String),
    /// The `/p2p/` part names another node.
    #[error("{0:?} names another node")]
    OtherNode(String),
}

/// Reads a multiaddr; gives the peer that it names, where it names one, and the address without it.
pub(super) fn parse(text: &str) -> Result<(Option<PeerId>, Multiaddr), AddressError> {
    let shown: String = text.chars().take(ADDRESS_BYTES_MAX).collect();
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::Malformed { text: shown, why: "too long".into() });
    }
    let parsed: Result<Multiaddr, _> = text.parse();
    let mut address = parsed.map_err(|error| AddressError::Malformed { text: shown, why: error.to_string() })?;
    let peer = take_peer(&mut address);
    Ok((peer, address))
}

/// Says whether a node could listen there, or be told of there.
///
/// # Errors
/// Not a multiaddr.
pub fn check_address(text: &str) -> Result<(), AddressError> {
    parse(text).map(|_| ())
}

/// Takes the `/p2p/` part off the end of an address.
pub(super) fn take_peer(address: &mut Multiaddr) -> Option<PeerId> {
    let Some(Protocol::P2p(peer)) = address.iter().last() else { return None };
    address.pop();
    Some(peer)
}

/// Says whether an address is of the loopback interface.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| {
        if let Protocol::Ip4(ip) = part {
            ip.is_loopback()
        } else if let Protocol::Ip6(ip) = part {
            ip.is_loopback()
        } else {
            false
        }
    })
}

/// Whether a peer is to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Whatever else is connected: a bootstrap peer, or one that may coordinate.
    Always,
    /// While few peers are connected.
    WhileFew,
    /// Not now, or never.
    No,
}

/// How a peer came into the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Bootstrap,
    Learned,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
    /// Newest last.
    addresses: Vec<Multiaddr>,
    failures: u32,
    due: Instant,
}

impl Entry {
    fn pause(&self, chance: f64) -> Duration {
        let max = match self.origin {
            Origin::Bootstrap => RETRY_BOOTSTRAP_MAX,
            Origin::Learned => RETRY_LEARNED_MAX,
        };
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(max);
        pause.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

/// The address book.
#[derive(Debug, Default)]
pub(super) struct Book {
    peers: BTreeMap<PeerId, Entry>,
}

impl Book {
    /// Adds an address of a bootstrap peer, to be dialled at once.
    pub(super) fn bootstrap(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        self.add(peer, address, now);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.origin = Origin::Bootstrap;
        }
    }

    /// Adds an address that somebody told. A full book forgets the learned peer that failed most.
    pub(super) fn add(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
            return;
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX && !self.forget_one() {
            return;
        }
        let fresh = || Entry { origin: Origin::Learned, addresses: Vec::new(), failures: 0, due: now };
        let entry = self.peers.entry(peer).or_insert_with(fresh);
        if entry.addresses.contains(&address) {
            return;
        }
        if entry.addresses.len() >= ADDRESSES_MAX {
            // The first address of a bootstrap peer is the one that a person gave.
            entry.addresses.remove(if entry.origin == Origin::Bootstrap { 1 } else { 0 });
        }
        entry.addresses.push(address);
    }

    fn forget_one(&mut self) -> bool {
        let learned = self.peers.iter().filter(|(_, entry)| entry.origin == Origin::Learned);
        let worst = learned.max_by_key(|(_, entry)| entry.failures).map(|(peer, _)| *peer);
        worst.is_some_and(|peer| self.peers.remove(&peer).is_some())
    }

    /// Gives the addresses of a peer.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// Says whether a person named this peer.
    pub(super) fn is_bootstrap(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.origin == Origin::Bootstrap)
    }

    /// Gives the peers to dial now: all that are always wanted, and `room` others. `wanted` is told whether a person named
    /// the peer.
    pub(super) fn due(&self, now: Instant, room: usize, wanted: impl Fn(&PeerId, bool) -> Wanted) -> Vec<PeerId> {
        let mut room = room;
        let mut due = Vec::new();
        for (peer, entry) in self.peers.iter().filter(|(_, entry)| entry.due <= now) {
            match wanted(peer, entry.origin == Origin::Bootstrap) {
                Wanted::Always => due.push(*peer),
                Wanted::WhileFew if room > 0 => {
                    room -= 1;
                    due.push(*peer);
                }
                Wanted::WhileFew | Wanted::No => {}
            }
        }
        due
    }

    /// Notes a dial that failed: the pause doubles.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, chance: f64) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.due = now + entry.pause(chance);
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Notes a connection: the next pause is short again.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.failures = 0;
        }
    }

    /// Notes a lost connection: dialled again soon.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant, chance: f64) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.failures = 0;
            entry.due = now + entry.pause(chance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()
    }

    #[test]
    fn a_bootstrap_peer_is_never_further_than_seconds_away() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut book = Book::default();
        book.bootstrap(peer, address(1), now);
        assert_eq!(book.due(now, 0, |_, _| Wanted::Always), [peer], "dialled at once");
        book.lost(&peer, now, 1.0);
        assert!(book.due(now, 0, |_, _| Wanted::Always).is_empty());
        assert_eq!(
            book.due(now + Duration::from_secs(1), 0, |_, _| Wanted::Always),
            [peer],
            "first retry within a second"
        );
        for _ in 0..40 {
            book.failed(&peer, now, 1.0);
        }
        assert_eq!(book.due(now + Duration::from_secs(7), 0, |_, _| Wanted::Always), [peer], "the back-off has an end");
    }

    #[test]
    fn the_book_is_bounded_and_keeps_what_a_person_gave() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut book = Book::default();
        book.bootstrap(peer, address(1), now);
        for port in 2..100 {
            book.add(peer, address(port), now);
        }
        let addresses = book.addresses(&peer);
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert_eq!((&addresses[0], &addresses[ADDRESSES_MAX - 1]), (&address(1), &address(99)));
        for _ in 0..PEERS_MAX + 10 {
            book.add(PeerId::random(), address(1), now);
        }
        assert_eq!(book.peers.len(), PEERS_MAX);
        assert!(book.is_bootstrap(&peer));
    }

    #[test]
    fn addresses_say_what_is_wrong_with_them() {
        assert!(matches!(parse("nonsense"), Err(AddressError::Malformed { .. })));
        assert!(matches!(parse(&"/dns/a".repeat(200)), Err(AddressError::Malformed { .. })));
        let peer = PeerId::random();
        assert_eq!(parse(&format!("{}/p2p/{peer}", address(9))), Ok((Some(peer), address(9))));
    }
}
