//! Tickets: one string to paste, with all that a new node needs to join a network.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, Encoding};
use protocol::{NetworkId, codec};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "artel1";
const LENGTH_MAX: usize = 16 * 1024;

/// What a ticket says: which network, and whom to dial first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The network.
    pub network: NetworkId,
    /// Addresses (multiaddrs ending in `/p2p/…`).
    pub bootstrap: Vec<String>,
}

/// A text that is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a ticket ({why}); paste the whole line that `artel node ticket` printed, beginning with {PREFIX}")]
pub struct TicketError {
    why: String,
}

fn letters() -> Encoding {
    BASE32_NOPAD
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", letters().encode(&codec::encode(self)).to_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let error = |why: &str| TicketError { why: why.to_owned() };
        let text = text.trim();
        if text.len() > LENGTH_MAX {
            return Err(error("too long"));
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(|| error("another beginning"))?;
        let bytes =
            letters().decode(body.to_uppercase().as_bytes()).map_err(|_| error("a letter is wrong or missing"))?;
        codec::decode(&bytes, LENGTH_MAX).map_err(|e| error(&e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_round_trips_and_a_damaged_one_is_refused() {
        let ticket = Ticket {
            network: NetworkId::from_bytes([3; 32]),
            bootstrap: vec!["/ip4/192.0.2.7/udp/4700/quic-v1/p2p/12D3KooWexample".into()],
        };
        let text = ticket.to_string();
        assert_eq!(text.parse::<Ticket>(), Ok(ticket));
        assert!(text[..text.len() - 3].parse::<Ticket>().is_err());
        assert!("hello".parse::<Ticket>().unwrap_err().to_string().contains("artel node ticket"));
    }
}
