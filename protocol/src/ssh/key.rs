//! Public keys, as OpenSSH writes them: in blobs, in `.pub` files, and readable in files of secret keys, encrypted ones too.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Error,
    wire::{Reader, put},
};
use crate::{PublicKey, limits};

const PLAIN: &str = "ssh-ed25519";
const DEVICE: &str = "sk-ssh-ed25519@openssh.com";
/// What a security key's application begins with, so that a key made for web pages is never taken for one of SSH.
const APPLICATION: &str = "ssh:";
const WHAT: &str = "public key";
const SECRET: &str = "secret key";
const SECRET_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const SECRET_END: &str = "-----END OPENSSH PRIVATE KEY-----";
const SECRET_MAGIC: &[u8] = b"openssh-key-v1\0";

/// Who holds the secret half, and so what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// A file or an agent: `ssh-ed25519`.
    Plain,
    /// A security key that somebody touches: `sk-ssh-ed25519@openssh.com`.
    Device {
        /// What the device made the key for, `ssh:` or longer.
        application: String,
    },
}

/// A public key of OpenSSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The same 32 bytes as in a policy.
    pub public: PublicKey,
    /// Who holds its other half.
    pub algorithm: Algorithm,
}

impl Key {
    /// Gives a plain key.
    pub fn plain(public: PublicKey) -> Self {
        Self { public, algorithm: Algorithm::Plain }
    }

    /// Reads a key's blob.
    ///
    /// # Errors
    /// When it is cut off, too long, or of another type.
    pub fn read(blob: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, blob);
        let algorithm = reader.name()?;
        if ![PLAIN, DEVICE].contains(&algorithm) {
            return Err(Error::Algorithm { got: algorithm.chars().take(60).collect() });
        }
        let public = PublicKey::from_bytes(reader.string_of()?);
        let algorithm = if algorithm == PLAIN { Algorithm::Plain } else { device(&mut reader)? };
        reader.end()?;
        Ok(Self { public, algorithm })
    }

    /// Gives the key's blob.
    pub fn to_blob(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.name().as_bytes());
        put(&mut out, self.public.as_bytes());
        if let Algorithm::Device { application } = &self.algorithm {
            put(&mut out, application.as_bytes());
        }
        out
    }

    /// Gives the word for the key's type.
    pub fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Plain => PLAIN,
            Algorithm::Device { .. } => DEVICE,
        }
    }

    /// Reads a line as in a `.pub` file: type, base64, and perhaps a comment.
    ///
    /// # Errors
    /// When it is no such line, or of another type.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Form { what: WHAT, why };
        let line = line.trim();
        if line.lines().count() > 1 {
            return Err(refuse("one line holds one key"));
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(text)) = (words.next(), words.next()) else {
            return Err(refuse("it is a type, base64 and perhaps a comment"));
        };
        let blob = STANDARD.decode(text).map_err(|_| refuse("its second word is not base64"))?;
        let key = Self::read(&blob)?;
        if key.name() == name { Ok(key) } else { Err(refuse("it names another type than it has")) }
    }

    /// Says whether a text begins as a line of a `.pub` file does, of whatever type.
    pub fn is_line(text: &str) -> bool {
        ["ssh-", "sk-", "ecdsa-"].iter().any(|start| text.trim_start().starts_with(start))
    }

    /// Gives the line for a `.pub` file or `allowed_signers`, without a comment and a line's end.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.name(), STANDARD.encode(self.to_blob()))
    }

    /// Reads the public half from the text of a secret key's file, which needs no passphrase.
    ///
    /// # Errors
    /// When the text is no such file, or its key is of another type.
    pub fn of_secret(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Form { what: SECRET, why };
        let inner = text.trim().strip_prefix(SECRET_BEGIN).and_then(|rest| rest.strip_suffix(SECRET_END));
        let inner: String =
            inner.ok_or_else(|| refuse("its first or last line is missing"))?.split_whitespace().collect();
        let bytes = STANDARD.decode(inner).map_err(|_| refuse("it is not base64"))?;
        let mut reader = Reader::new(SECRET, &bytes);
        if reader.bytes(SECRET_MAGIC.len())? != SECRET_MAGIC {
            return Err(refuse("it is of another version"));
        }
        // How it is encrypted is the matter of who decrypts it.
        let (_cipher, _derivation, _options) = (reader.string()?, reader.string()?, reader.string()?);
        if reader.number()? != 1 {
            return Err(refuse("it holds several keys"));
        }
        Self::read(reader.string()?)
    }

    /// Says whether a text begins as the file of a secret key does.
    pub fn is_secret(text: &str) -> bool {
        text.trim_start().starts_with(SECRET_BEGIN)
    }
}

fn device(reader: &mut Reader<'_>) -> Result<Algorithm, Error> {
    let application = reader.name()?;
    if !application.starts_with(APPLICATION) || application.len() > limits::SSH_APPLICATION_MAX {
        return Err(reader.refuse("a security key's application begins with ssh: and is short"));
    }
    Ok(Algorithm::Device { application: application.to_owned() })
}
