//! Commitments: a builder is bound to its attestation before anybody can read one, so that nobody can copy.
//!
//! ```text
//!  digest = BLAKE3("artel-commitment/1\0" | network, 32 bytes | lease, 8 bytes big-endian | salt, 32 bytes | attestation)
//! ```
//! The digest stands in the transparency log. Salt and attestation are shown later; whoever has both checks that they are what
//! the builder was bound to, under that lease and in that network. The salt keeps anybody from trying attestations out: all
//! that is in one could be guessed, were it not for the builder's signature.
//!
//! The builder signs the digest with its node key, so that no coordinator can say a commitment in its name; the signature stands in
//! the log beside it:
//!
//! ```text
//!  signed = "artel-commitment-signature/1\0" | network, 32 bytes | job, 32 bytes | lease, 8 bytes big-endian | digest, 32 bytes
//! ```

use ed25519_dalek::{Signer, SigningKey};
use protocol::{
    Hash, JobId, NetworkId, NodeId, PublicKey, Salt, envelope::verify_ed25519, lease::LeaseNumber, message::Octets,
};

use crate::log::entry::Commitment;

/// What keeps the digest apart from every other one.
const DOMAIN: &[u8] = b"artel-commitment/1\0";

/// What keeps the signed bytes apart from everything else that a node signs.
const SIGNED_DOMAIN: &[u8] = b"artel-commitment-signature/1\0";

/// Gives the digest that binds a builder to an attestation's bytes, exactly as they are.
pub fn digest(network: &NetworkId, lease: LeaseNumber, salt: &Salt, attestation: &[u8]) -> Hash {
    let number = lease.0.to_be_bytes();
    Hash::of(&[DOMAIN, network.as_bytes(), &number, salt.as_bytes(), attestation].concat())
}

/// Gives the bytes that the builder signs.
pub fn signed_bytes(network: &NetworkId, job: &JobId, lease: LeaseNumber, digest: &Hash) -> Vec<u8> {
    let number = lease.0.to_be_bytes();
    [SIGNED_DOMAIN, network.as_bytes(), job.as_bytes(), &number, digest.as_bytes()].concat()
}

/// Signs a commitment as the builder.
pub fn sign(key: &SigningKey, network: &NetworkId, (job, lease): (&JobId, LeaseNumber), digest: &Hash) -> Octets {
    Octets(key.sign(&signed_bytes(network, job, lease, digest)).to_bytes().to_vec())
}

/// Says whether the node of a commitment signed it, in this network.
pub fn is_signed(network: &NetworkId, commitment: &Commitment) -> bool {
    let Commitment { job, node, lease, digest, signature } = commitment;
    let signed = signed_bytes(network, job, *lease, digest);
    signature.as_ref().is_some_and(|signature| verify_ed25519(&PublicKey::from(*node), &signed, &signature.0).is_ok())
}

/// Says whether a node signed, in this network, what it says to be bound to for a job.
pub fn is_said_by(network: &NetworkId, (node, job): (NodeId, JobId), said: &protocol::message::Commitment) -> bool {
    let (lease, digest, signature) = (said.lease, said.digest, said.signature.clone());
    is_signed(network, &Commitment { job, node, lease, digest, signature })
}

#[cfg(test)]
mod tests {
    use protocol::testing::{node, signing_key};

    use super::*;

    #[test]
    fn only_the_builder_binds_itself_and_to_one_thing() {
        let (network, job, lease) = (NetworkId::from_bytes([1; 32]), JobId::from_bytes([2; 32]), LeaseNumber(7));
        let digest = Hash::of(b"digest");
        let signature = Some(sign(&signing_key(10), &network, (&job, lease), &digest));
        let said = Commitment { job, node: node(10), lease, digest, signature };
        assert!(is_signed(&network, &said));
        let others = [
            Commitment { job: JobId::from_bytes([3; 32]), ..said.clone() },
            Commitment { node: node(11), ..said.clone() },
            Commitment { lease: LeaseNumber(8), ..said.clone() },
            Commitment { digest: Hash::of(b"another"), ..said.clone() },
            Commitment { signature: None, ..said.clone() },
        ];
        assert!(others.iter().all(|other| !is_signed(&network, other)));
        assert!(!is_signed(&NetworkId::from_bytes([2; 32]), &said));
    }

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
