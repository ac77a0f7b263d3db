//! Signature blobs (`PROTOCOL.sshsig`), and the armor around them.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256, Sha512};

use super::{
    Algorithm, Error, Key,
    wire::{Reader, put},
};
use crate::{PublicKey, envelope::verify_ed25519, limits};

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const WHAT: &str = "signature";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// Characters of a line of the armor, as OpenSSH breaks them.
const LINE: usize = 70;
/// The flag of a security key that somebody touched it (`PROTOCOL.u2f`).
const TOUCHED: u8 = 1;

/// How the message is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashing {
    Sha256,
    Sha512,
}

/// What the key gave, and what a security key says about its signing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    bytes: [u8; 64],
    /// Flags and counter; a plain key has none.
    device: Option<(u8, u32)>,
}

/// A signature by OpenSSH over some message, well formed and not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    key: Key,
    namespace: String,
    hashing: Hashing,
    given: Given,
}

impl Signature {
    /// Says whether bytes begin as a signature blob does. A raw ed25519 signature has 64 bytes, a blob always more.
    pub fn is_blob(bytes: &[u8]) -> bool {
        bytes.len() > 64 && bytes.starts_with(MAGIC)
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// When it is too long, cut off, of another version or type of key, or has something in its reserved part.
    pub fn read(blob: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, blob);
        if blob.len() > limits::SSH_SIGNATURE_MAX {
            return Err(reader.refuse("it is too long"));
        }
        if reader.bytes(MAGIC.len())? != MAGIC || reader.number()? != VERSION {
            return Err(reader.refuse("it does not begin as version 1 does"));
        }
        let key = Key::read(reader.string()?)?;
        let namespace = reader.name()?.to_owned();
        if !reader.string()?.is_empty() {
            return Err(reader.refuse("its reserved part is not empty"));
        }
        let hashing = match reader.name()? {
            "sha256" => Hashing::Sha256,
            "sha512" => Hashing::Sha512,
            _ => return Err(reader.refuse("its hash is neither sha512 nor sha256")),
        };
        let given = Given::read(&key, reader.string()?)?;
        reader.end()?;
        Ok(Self { key, namespace, hashing, given })
    }

    /// Gives the blob.
    pub fn to_blob(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_be_bytes());
        put(&mut out, &self.key.to_blob());
        put(&mut out, self.namespace.as_bytes());
        put(&mut out, b"");
        put(&mut out, self.hashing.name());
        put(&mut out, &self.given.to_blob(&self.key));
        out
    }

    /// Gives the key that the blob names.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Verifies the signature: by this key, in this namespace, over this message.
    ///
    /// # Errors
    /// The first of them that is another one.
    pub fn verify(&self, key: &PublicKey, namespace: &str, message: &[u8]) -> Result<(), Error> {
        if self.namespace != namespace {
            let got = self.namespace.chars().take(60).collect();
            return Err(Error::Namespace { got, wanted: namespace.to_owned() });
        }
        if self.key.public != *key {
            return Err(Error::OtherKey { got: self.key.public, wanted: *key });
        }
        let signed = self.signed(message);
        let signed = match (&self.key.algorithm, self.given.device) {
            (Algorithm::Device { application }, Some((flags, counter))) => {
                if flags & TOUCHED == 0 {
                    return Err(Error::Touch);
                }
                [&Sha256::digest(application)[..], &[flags], &counter.to_be_bytes(), &Sha256::digest(signed)].concat()
            }
            (Algorithm::Plain | Algorithm::Device { .. }, _) => signed,
        };
        verify_ed25519(key, &signed, &self.given.bytes).map_err(|()| Error::Mismatch)
    }

    /// Gives what the key, or the security key's host, signs for a message.
    fn signed(&self, message: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.namespace.as_bytes());
        put(&mut out, b"");
        put(&mut out, self.hashing.name());
        match self.hashing {
            Hashing::Sha256 => put(&mut out, &Sha256::digest(message)),
            Hashing::Sha512 => put(&mut out, &Sha512::digest(message)),
        }
        out
    }

    /// Reads what `ssh-keygen -Y sign` writes.
    ///
    /// # Errors
    /// When the armor or the blob inside is not as it should be.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Form { what: WHAT, why };
        let inner = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let inner: String =
            inner.ok_or_else(|| refuse("its first or last line is missing"))?.split_whitespace().collect();
        Self::read(&STANDARD.decode(inner).map_err(|_| refuse("it is not base64"))?)
    }

    /// Writes the signature as `ssh-keygen -Y verify` reads it.
    pub fn to_armor(&self) -> String {
        let text = STANDARD.encode(self.to_blob());
        let lines: Vec<&str> =
            text.as_bytes().chunks(LINE).map(|l| str::from_utf8(l).expect("base64 is ASCII")).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }
}

impl Hashing {
    fn name(self) -> &'static [u8] {
        match self {
            Hashing::Sha256 => b"sha256",
            Hashing::Sha512 => b"sha512",
        }
    }
}

impl Given {
    fn read(key: &Key, blob: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, blob);
        if reader.name()? != key.name() {
            return Err(reader.refuse("it is of another type than its key"));
        }
        let bytes = reader.string_of()?;
        let device = match key.algorithm {
            Algorithm::Plain => None,
            Algorithm::Device { .. } => Some((reader.array::<1>()?[0], reader.number()?)),
        };
        reader.end()?;
        Ok(Self { bytes, device })
    }

    fn to_blob(&self, key: &Key) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, key.name().as_bytes());
        put(&mut out, &self.bytes);
        if let Some((flags, counter)) = self.device {
            out.push(flags);
            out.extend_from_slice(&counter.to_be_bytes());
        }
        out
    }
}
