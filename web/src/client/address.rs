//! Where a daemon is reached.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use http::uri::Authority;

/// A daemon's address: `http://host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP, without encryption: loopback, or a network that is trusted to carry what is signed anyway.
    Http(Authority),
    /// The owner's socket.
    Unix(PathBuf),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected http://host:port or unix:/path/to/control.sock, got {got:?}")]
pub struct AddressError {
    got: String,
}

impl Address {
    /// Takes the path of a socket.
    pub fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }

    /// Gives host and port, where there are any.
    pub fn authority(&self) -> Option<&str> {
        match self {
            Address::Http(authority) => Some(authority.as_str()),
            Address::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError { got: text.chars().take(120).collect() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| wrong())?;
        if authority.as_str().contains('@') { Err(wrong()) } else { Ok(Self::Http(authority)) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Http(authority) => write!(f, "http://{authority}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_others_are_refused() {
        for good in ["http://127.0.0.1:7001", "http://[::1]:7001", "unix:/run/artel/control.sock"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", "https://host", "unix:relative", "http://", "http://a@b:1", "http://host/path", "localhost:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
