//! Identifiers: 32 bytes that mean one thing each, and the instant.
//!
//! In CBOR an identifier is a byte string of 32 bytes; in JSON and TOML it is 64 lower-case hexadecimal digits.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A string that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits, got {got:?}")]
pub struct ParseIdError {
    got: String,
}

/// Bytes of a fixed length, as a CBOR byte string.
pub(crate) struct BytesVisitor<const N: usize>;

impl<'de, const N: usize> de::Visitor<'de> for BytesVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes as they are.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Gives the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Gives the first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|b| b.try_into().ok());
                bytes.map(Self).ok_or_else(|| ParseIdError { got: text.chars().take(80).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    deserializer.deserialize_bytes(BytesVisitor::<32>).map(Self)
                }
            }
        }
    };
}

id! {
    /// A BLAKE3 digest: the address of content in the blob store and the id of a record (of its payload bytes).
    Hash
}
id! {
    /// A SHA-256 digest: what Debian, RPM and in-toto name files by.
    Sha256
}
id! {
    /// The network: the [`struct@Hash`] of the payload of its first (genesis) policy.
    NetworkId
}
id! {
    /// A job: the [`struct@Hash`] of the payload of its signed request.
    JobId
}
id! {
    /// A node's ed25519 public key. It is the libp2p `PeerId` and it signs what the node says.
    NodeId
}
id! {
    /// Random bytes that hide what a builder committed to until it shows them.
    Salt
}
id! {
    /// An ed25519 public key of a root or a maintainer.
    PublicKey
}

impl Hash {
    /// Hashes bytes with BLAKE3.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl Sha256 {
    /// Hashes bytes with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl NetworkId {
    /// Gives the first eight hexadecimal digits, as topics and type strings carry them.
    pub fn net8(&self) -> String {
        self.short()
    }
}

impl From<Hash> for JobId {
    fn from(hash: Hash) -> Self {
        Self(hash.0)
    }
}

impl From<Hash> for NetworkId {
    fn from(hash: Hash) -> Self {
        Self(hash.0)
    }
}

impl From<NodeId> for PublicKey {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

impl From<PublicKey> for NodeId {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

/// An instant: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const ZERO: Self = Self(0);

    /// Takes milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Gives milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Gives whole seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Adds a duration, stopping at the end of time.
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Gives how long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_refusals() {
        let hash = Hash::of(b"artel");
        assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
        assert!(hash.to_string().to_uppercase().parse::<Hash>().is_err(), "one spelling only");
        assert!("abcd".parse::<Hash>().is_err());
    }

    #[test]
    fn cbor_is_a_byte_string_and_json_is_hex() {
        let hash = Hash::from_bytes([7; 32]);
        let bytes = crate::codec::encode(&hash);
        assert_eq!(bytes[..2], [0x58, 32]);
        assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{hash}\""));
    }
}
