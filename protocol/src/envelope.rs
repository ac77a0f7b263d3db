//! Signed records: sign the bytes, never the object.
//!
//! ```text
//!  bytes from a peer --Signed::read--> Signed<T> --verify(network)--> Verified<T>
//!   limits, canonical form                signature over DSSE's pre-authentication encoding, then meaning
//! ```
//!
//! The payload bytes are stored, forwarded and hashed as received; nobody re-encodes somebody else's record. The network's
//! id stands inside the type string, so a signature made for one network says nothing in another
//! (DSSE v1.0.2 protocol, `PAE`).
//!
//! A signature is 64 raw bytes of ed25519. Records of people may carry an OpenSSH signature in its place (see [`ssh`]), made
//! over the same bytes in the namespace of the record's kind; nodes sign raw, so that what they say stays small.

use std::{collections::BTreeSet, marker::PhantomData};

use ed25519_dalek::{Signature as Ed25519, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Hash, NetworkId, PublicKey,
    codec::{self, DoorError, octets},
    limits, ssh,
};

/// Whose word a record is, and so how it may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signers {
    /// Nodes, by their own key.
    Nodes,
    /// Maintainers or roots, by a key of ours or of OpenSSH.
    People,
}

/// A kind of record that can be signed.
pub trait Record: Serialize + DeserializeOwned {
    /// The word in the type string, for instance `job`.
    const KIND: &'static str;
    /// The largest payload, in bytes.
    const LIMIT: usize;
    /// Who signs it.
    const SIGNERS: Signers = Signers::Nodes;

    /// Checks what the types cannot say: lengths of lists, order of sets, times that make sense.
    ///
    /// # Errors
    /// A sentence fragment that says which rule was broken.
    fn check(&self) -> Result<(), String>;
}

/// Gives the type string of a record: `application/vnd.artel.<net8>.<kind>+cbor;v=1`.
///
/// Only a genesis policy is signed without a network (`None`), since the network's id is its hash.
pub fn type_string(kind: &str, network: Option<&NetworkId>) -> String {
    match network {
        Some(id) => format!("application/vnd.artel.{}.{kind}+cbor;v=1", id.net8()),
        None => format!("application/vnd.artel.{kind}+cbor;v=1"),
    }
}

/// DSSE's pre-authentication encoding: what is signed.
pub fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// One signature and the key that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The signer's ed25519 key.
    pub key: PublicKey,
    /// 64 bytes, or the blob of an SSH signature.
    #[serde(with = "octets")]
    pub sig: Vec<u8>,
}

/// A payload with its type and signatures, as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Signatures, by distinct keys, sorted by key.
    pub sigs: Vec<Signature>,
    /// The type string, see [`type_string`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The payload's canonical bytes.
    #[serde(with = "octets")]
    pub payload: Vec<u8>,
}

/// Why a signed record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// Another kind of record, or one for another network.
    #[error("record is of type {got:?}, expected {wanted:?}")]
    WrongType {
        /// The type string found.
        got: String,
        /// The type string wanted here.
        wanted: String,
    },
    /// No signature at all, too many, or unsorted ones.
    #[error("signatures must be one to {max}, by distinct keys in sorted order", max = limits::SIGNATURES_MAX)]
    SignatureList,
    /// A signature that does not verify.
    #[error("signature by key {key} does not verify")]
    BadSignature {
        /// The key that was named.
        key: PublicKey,
    },
    /// An SSH signature that is not as it must be.
    #[error("the signature by key {key} is refused: {why}")]
    Ssh {
        /// The key that was named.
        key: PublicKey,
        /// What is wrong with it.
        why: Box<ssh::Error>,
    },
    /// The record breaks one of its own rules.
    #[error("{kind} record is not acceptable: {why}")]
    Meaning {
        /// The record's kind.
        kind: &'static str,
        /// The rule.
        why: String,
    },
}

/// A record from outside: well formed, believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    envelope: Envelope,
    record: PhantomData<T>,
}

/// A record whose signatures were checked and whose rules hold. Who may sign what is the policy's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    id: Hash,
    envelope: Envelope,
}

/// A record's bytes that wait for signatures, for keys that lie elsewhere.
#[derive(Debug, Clone)]
pub struct Unsigned<T> {
    kind: String,
    payload: Vec<u8>,
    record: PhantomData<T>,
}

impl<T: Record> Unsigned<T> {
    /// Takes a record as it will be signed.
    pub fn new(value: &T, network: Option<&NetworkId>) -> Self {
        Self { kind: type_string(T::KIND, network), payload: codec::encode(value), record: PhantomData }
    }

    /// Gives the bytes to sign.
    pub fn message(&self) -> Vec<u8> {
        pae(&self.kind, &self.payload)
    }

    /// Puts the signatures in order, one of each key. They are not verified here.
    pub fn with(self, mut sigs: Vec<Signature>) -> Signed<T> {
        sigs.sort_by_key(|s| s.key);
        sigs.dedup_by_key(|s| s.key);
        Signed { envelope: Envelope { sigs, kind: self.kind, payload: self.payload }, record: PhantomData }
    }
}

impl<T: Record> Signed<T> {
    /// Signs a record with one or more keys.
    pub fn sign(value: &T, network: Option<&NetworkId>, keys: &[&SigningKey]) -> Self {
        let unsigned = Unsigned::new(value, network);
        let message = unsigned.message();
        let sign = |key: &&SigningKey| Signature {
            key: PublicKey::from_bytes(key.verifying_key().to_bytes()),
            sig: key.sign(&message).to_bytes().to_vec(),
        };
        unsigned.with(keys.iter().map(sign).collect())
    }

    /// Reads an envelope's bytes: size and canonical form only.
    ///
    /// # Errors
    /// What the door says.
    pub fn read(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Ok(Self { envelope: codec::decode(bytes, T::LIMIT + limits::ENVELOPE_ROOM)?, record: PhantomData })
    }

    /// Gives the bytes to store and forward.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.envelope)
    }

    /// Gives the record's id: the hash of its payload.
    pub fn id(&self) -> Hash {
        Hash::of(&self.envelope.payload)
    }

    /// Checks type, payload, rules and every signature.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(self, network: Option<&NetworkId>) -> Result<Verified<T>, EnvelopeError> {
        let wanted = type_string(T::KIND, network);
        if self.envelope.kind != wanted {
            return Err(EnvelopeError::WrongType { got: self.envelope.kind.chars().take(120).collect(), wanted });
        }
        let value: T = codec::decode(&self.envelope.payload, T::LIMIT)?;
        verify_signatures::<T>(&self.envelope)?;
        value.check().map_err(|why| EnvelopeError::Meaning { kind: T::KIND, why })?;
        Ok(Verified { value, id: Hash::of(&self.envelope.payload), envelope: self.envelope })
    }
}

fn verify_signatures<T: Record>(envelope: &Envelope) -> Result<(), EnvelopeError> {
    let sorted = envelope.sigs.windows(2).all(|pair| pair[0].key < pair[1].key);
    if envelope.sigs.is_empty() || envelope.sigs.len() > limits::SIGNATURES_MAX || !sorted {
        return Err(EnvelopeError::SignatureList);
    }
    let message = pae(&envelope.kind, &envelope.payload);
    for signature in &envelope.sigs {
        verify_signature::<T>(signature, &message)?;
    }
    Ok(())
}

fn verify_signature<T: Record>(Signature { key, sig }: &Signature, message: &[u8]) -> Result<(), EnvelopeError> {
    if T::SIGNERS == Signers::People && ssh::Signature::is_blob(sig) {
        let signature = ssh::Signature::read(sig);
        let verified = signature.and_then(|signature| signature.verify(key, &ssh::namespace(T::KIND), message));
        return verified.map_err(|why| EnvelopeError::Ssh { key: *key, why: Box::new(why) });
    }
    verify_ed25519(key, message, sig).map_err(|()| EnvelopeError::BadSignature { key: *key })
}

/// Verifies one ed25519 signature strictly (no small-order keys, no malleable forms).
///
/// # Errors
/// When it does not verify; there is nothing more to say.
#[expect(clippy::result_unit_err, reason = "a signature verifies or it does not")]
pub fn verify_ed25519(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), ()> {
    let key = VerifyingKey::from_bytes(key.as_bytes()).map_err(drop)?;
    let signature = Ed25519::from_slice(signature).map_err(drop)?;
    key.verify_strict(message, &signature).map_err(drop)
}

impl<T: Record> Verified<T> {
    /// Gives the record.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Gives the record's id: the hash of its payload.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// Gives the keys that signed; each signature was verified.
    pub fn signers(&self) -> BTreeSet<PublicKey> {
        self.envelope.sigs.iter().map(|s| s.key).collect()
    }

    /// Gives the signatures, each of which was verified.
    pub fn signatures(&self) -> &[Signature] {
        &self.envelope.sigs
    }

    /// Gives the bytes that were signed.
    pub fn message(&self) -> Vec<u8> {
        pae(&self.envelope.kind, &self.envelope.payload)
    }

    /// Gives the envelope's bytes, as received.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.envelope)
    }

    /// Gives the record as from outside again, to hand it on.
    pub fn as_signed(&self) -> Signed<T> {
        Signed { envelope: self.envelope.clone(), record: PhantomData }
    }

    /// Takes the record and leaves the proof behind.
    pub fn into_inner(self) -> T {
        self.value
    }
}

/// Checks that a list is strictly sorted (so it is a set with one spelling) and not too long.
///
/// # Errors
/// A fragment that names the list.
pub fn check_set<T: Ord>(name: &str, list: &[T], max: usize) -> Result<(), String> {
    if list.len() > max {
        return Err(format!("{name} has {} entries, at most {max} are allowed", list.len()));
    }
    if list.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(format!("{name} must be sorted and without repetition"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
