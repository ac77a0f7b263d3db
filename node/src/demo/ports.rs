//! Ports for daemons that come and go.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
};

use anyhow::bail;

use crate::keys;

/// Below the ports that the kernel gives to whoever dials: one of those could be taken while its daemon is down for a moment.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;
/// Those that were given: their daemons may not have begun to listen, or be down for a moment.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Finds a port that is free for TCP and UDP on loopback, that no outgoing connection will be given, and that this process gave to
/// nobody before.
///
/// # Errors
/// When none is found.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..64 {
        let random = keys::random()?;
        let port = FIRST + u16::from_le_bytes([random[0], random[1]]) % COUNT;
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("no port on loopback is free for both TCP and UDP")
}
