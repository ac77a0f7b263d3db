//! Commitments: a builder is bound to its attestation before anybody can read one, so that nobody can copy.
//!
//! ```text
//!  digest = BLAKE3("artel-commitment/1\0" | network, 32 bytes | lease, 8 bytes big-endian | salt, 32 bytes | attestation)
//! ```
//! The digest stands in the transparency log. Salt and attestation are shown later; whoever has both checks that they are what
//! the builder was bound to, under that lease and in that network. The salt keeps anybody from trying attestations out: all
//! that is in one could be guessed, were it not for the builder's signature.

use protocol::{Hash, NetworkId, Salt, lease::LeaseNumber};

/// What keeps the digest apart from every other one.
const DOMAIN: &[u8] = b"artel-commitment/1\0";

/// Gives the digest that binds a builder to an attestation's bytes, exactly as they are.
pub fn digest(network: &NetworkId, lease: LeaseNumber, salt: &Salt, attestation: &[u8]) -> Hash {
    let number = lease.0.to_be_bytes();
    Hash::of(&[DOMAIN, network.as_bytes(), &number, salt.as_bytes(), attestation].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `b3sum` from the bytes that the head of this file names.
    #[test]
    fn the_digest_is_that_of_the_documented_bytes() {
        let (network, salt) = (NetworkId::from_bytes([1; 32]), Salt::from_bytes([2; 32]));
        let got = digest(&network, LeaseNumber(0x0102_0304), &salt, b"{}");
        assert_eq!(got.to_string(), "1ce0669467a722e3debda70146b937a1dd3e60cff1de78d6e6a90d06615d9aba");
    }

    #[test]
    fn every_part_counts() {
        let network = NetworkId::from_bytes([1; 32]);
        let of = |network: u8, lease: u64, salt: u8, bytes: &[u8]| {
            let (network, salt) = (NetworkId::from_bytes([network; 32]), Salt::from_bytes([salt; 32]));
            digest(&network, LeaseNumber(lease), &salt, bytes)
        };
        let digests = [of(1, 7, 2, b"a"), of(2, 7, 2, b"a"), of(1, 8, 2, b"a"), of(1, 7, 3, b"a"), of(1, 7, 2, b"b")];
        let distinct: std::collections::BTreeSet<_> = digests.into_iter().collect();
        assert_eq!(distinct.len(), digests.len());
        assert_eq!(of(1, 7, 2, b"a"), digest(&network, LeaseNumber(7), &Salt::from_bytes([2; 32]), b"a"));
    }
}
