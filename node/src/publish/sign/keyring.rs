//! Certificates: the public halves of repository keys, and the one file that holds those of everybody who may publish.
//!
//! A certificate comes from another node, so it is read strictly: one ed25519 key as this program makes it, whose bindings
//! verify, and not a byte more.

use pgp::{
    armor::BlockType,
    composed::{Deserializable, SignedPublicKey},
    ser::Serialize,
    types::{KeyDetails, PublicParams},
};

use super::{Error, refused};

/// The largest certificate, in bytes; ours have about 300.
pub const CERTIFICATE_MAX: usize = 4096;

/// The largest keyring, in bytes.
const KEYRING_MAX: usize = 1 << 20;

/// The public half of one repository key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    fingerprint: String,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate in its binary form.
    ///
    /// # Errors
    /// [`Error::Certificate`], when it is not one of ours.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Certificate { why: why.to_owned() };
        if bytes.len() > CERTIFICATE_MAX {
            return Err(refuse("it is too long"));
        }
        let key = SignedPublicKey::from_bytes(bytes).map_err(|e| refuse(&e.to_string()))?;
        if !matches!(key.primary_key.public_params(), PublicParams::EdDSALegacy(_)) {
            return Err(refuse("its key is not ed25519"));
        }
        key.verify_bindings().map_err(|e| refuse(&e.to_string()))?;
        if key.to_bytes().map_err(refused("read"))? != bytes {
            return Err(refuse("it is not written as this program writes it"));
        }
        Ok(Self { fingerprint: key.fingerprint().to_string(), bytes: bytes.to_vec() })
    }

    /// Gives the key's fingerprint in hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Gives the binary form.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The certificates of everybody who may sign a repository, each once, in the order of their fingerprints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring(Vec<Certificate>);

impl Keyring {
    /// Collects certificates; the order does not matter.
    pub fn new(certificates: impl IntoIterator<Item = Certificate>) -> Self {
        let mut certificates: Vec<_> = certificates.into_iter().collect();
        certificates.sort();
        certificates.dedup();
        Self(certificates)
    }

    /// Reads a keyring that [`Keyring::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::Certificate`], when it is none, or holds another certificate than one of ours.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Certificate { why: why.to_owned() };
        if bytes.is_empty() || bytes.len() > KEYRING_MAX {
            return Err(refuse("a keyring has at least one certificate and no more than a MiB"));
        }
        let read = SignedPublicKey::from_bytes_many(bytes).map_err(|e| refuse(&e.to_string()))?;
        let certificate = |key: pgp::errors::Result<SignedPublicKey>| {
            let key = key.map_err(|e| refuse(&e.to_string()))?;
            Certificate::read(&key.to_bytes().map_err(refused("read"))?)
        };
        let keyring = Self::new(read.map(certificate).collect::<Result<Vec<_>, _>>()?);
        if keyring.to_bytes() == bytes {
            Ok(keyring)
        } else {
            Err(refuse("it is not written as this program writes it"))
        }
    }

    /// Gives the certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// Says whether a key is in it, by its fingerprint.
    pub fn has(&self, fingerprint: &str) -> bool {
        self.0.iter().any(|certificate| certificate.fingerprint == fingerprint)
    }

    /// Gives the binary form that `Signed-By` takes (`.gpg`).
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|c| c.bytes.iter().copied()).collect()
    }

    /// Gives the armored form (`.asc`).
    ///
    /// # Errors
    /// When OpenPGP cannot write it.
    pub fn armored(&self) -> Result<String, Error> {
        super::armored(self.to_bytes(), BlockType::PublicKey)
    }
}
