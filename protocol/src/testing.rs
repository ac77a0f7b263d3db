//! Samples and checks for tests of this and other crates: fixed keys, one value of every record, and a canonical check.

pub mod samples;

use ed25519_dalek::SigningKey;
use serde::{Serialize, de::DeserializeOwned};

use crate::{NodeId, PublicKey, codec};

/// Gives a signing key made from a small number. Never use it outside tests.
pub fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Gives the node id of [`signing_key`].
pub fn node(seed: u8) -> NodeId {
    NodeId::from_bytes(signing_key(seed).verifying_key().to_bytes())
}

/// Gives the public key of [`signing_key`].
pub fn public_key(seed: u8) -> PublicKey {
    PublicKey::from_bytes(signing_key(seed).verifying_key().to_bytes())
}

/// Asserts that a value's bytes pass the strict door and come back as the same value.
///
/// # Panics
/// When the type's fields are not declared in canonical order, or the round trip changes it.
pub fn assert_canonical<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = codec::encode(value);
    let back: T = codec::decode(&bytes, usize::MAX).unwrap_or_else(|e| panic!("{}: {e}", std::any::type_name::<T>()));
    assert_eq!(&back, value);
}

#[cfg(test)]
mod golden;
