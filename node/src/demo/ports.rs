//! Ports for daemons that come and go.

use std::net::{TcpListener, UdpSocket};

use anyhow::bail;

use crate::keys;

/// Below the ports that the kernel gives to whoever dials: one of those could be taken while its daemon is down for a moment.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// Finds a port that is free for TCP and UDP on loopback, and that no outgoing connection will be given.
///
/// # Errors
/// When none is found.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..64 {
        let random = keys::random()?;
        let port = FIRST + u16::from_le_bytes([random[0], random[1]]) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port on loopback is free for both TCP and UDP")
}
