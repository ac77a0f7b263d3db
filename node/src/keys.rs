//! Key files: one ed25519 key each, readable by its owner alone.
//!
//! A secret key file is one line, `artel-secret-key-1 <64 hexadecimal digits>`. It is made with `O_EXCL` and mode 0600, and
//! a file that others can read is refused, because what others can read is no longer a secret. People may also sign with keys of
//! OpenSSH, see [`Signer`]; nodes do not.

mod signer;
pub mod ssh;

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use protocol::PublicKey;

pub use signer::{Sign, Signer, Word, link, sign};

const HEADER: &str = "artel-secret-key-1";

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be written.
    #[error("cannot write the key file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// There is no such file.
    #[error(
        "there is no key file {path}; make it with `artel init` or `artel keys new`, or name another one (a file by its path, as in ./key)"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error("the key file {path} has mode {mode:o}: others can read it; run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "{path} is neither a secret key of artel (one line: `{HEADER} <64 hexadecimal digits>`) nor a key of OpenSSH"
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// A key of OpenSSH that cannot sign here, or did not.
    #[error("cannot use the SSH key {path}")]
    Ssh {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: protocol::ssh::Error,
    },
    /// `ssh-keygen` ended without a signature; its words stand on standard error.
    #[error(
        "ssh-keygen did not sign with {path} ({status}): `ssh-add -l` lists the agent's keys, `ssh-add FILE` adds one; \
         without an agent the secret key lies beside the .pub file"
    )]
    Unsigned {
        /// The key's file.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// `ssh-keygen` is missing.
    #[error("ssh-keygen is not installed, and it signs with keys of OpenSSH (on Debian: apt install openssh-client)")]
    Program,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Makes a new key from the system's randomness.
///
/// # Errors
/// When the system gives none.
pub fn generate() -> Result<SigningKey, Error> {
    Ok(SigningKey::from_bytes(&random()?))
}

/// Gives 32 random bytes.
///
/// # Errors
/// When the system gives none.
pub fn random() -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Error::Random)?;
    Ok(seed)
}

/// Makes a new key and writes it to a file that must not exist yet.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn create(path: &Path) -> Result<SigningKey, Error> {
    let key = generate()?;
    save(path, &key)?;
    Ok(key)
}

/// Writes a key to a file that must not exist yet.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn save(path: &Path, key: &SigningKey) -> Result<(), Error> {
    let line = format!("{HEADER} {}\n", HEXLOWER.encode(&key.to_bytes()));
    write_secret(path, line.as_bytes())
}

/// Writes a secret to a new file of mode 0600.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let error = |source| Error::Write { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(error)?;
    file.write_all(bytes).map_err(error)?;
    file.sync_all().map_err(error)
}

/// Reads a key file.
///
/// # Errors
/// When the file is missing, readable by others or no key.
pub fn load(path: &Path) -> Result<SigningKey, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.mode() & 0o777,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { path: path.to_owned() });
        }
        Err(source) => return Err(error(source)),
    };
    if mode & 0o077 != 0 {
        return Err(Error::Mode { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(error)?;
    let seed = text.trim_end().strip_prefix(HEADER).and_then(|rest| HEXLOWER.decode(rest.trim().as_bytes()).ok());
    let seed: Option<[u8; 32]> = seed.and_then(|bytes| bytes.try_into().ok());
    seed.map(|seed| SigningKey::from_bytes(&seed)).ok_or_else(|| Error::Form { path: path.to_owned() })
}

/// Gives a key's public half.
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests;
