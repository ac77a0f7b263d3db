//! Who signs for a person: a key file of ours, or a key of OpenSSH wherever its secret half is.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use ed25519_dalek::SigningKey;
use protocol::{
    MaintainerName, NetworkId, PublicKey, Signed,
    envelope::{Record, Signature, Unsigned},
};

use super::{Error, HEADER, load, public, ssh};
use crate::{bounded, config::Home};

/// The largest key file that is read, in bytes; one of RSA with 16,384 bits has less.
const FILE_MAX: u64 = 64 * 1024;

/// Something that signs in the name of a key.
pub trait Sign {
    /// Gives the key.
    fn public(&self) -> PublicKey;

    /// Signs the bytes of a record of a kind.
    ///
    /// # Errors
    /// When the key cannot be used now.
    fn sign(&self, kind: &str, message: &[u8]) -> Result<Vec<u8>, Error>;
}

impl Sign for SigningKey {
    fn public(&self) -> PublicKey {
        public(self)
    }

    fn sign(&self, _: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(ed25519_dalek::Signer::sign(self, message).to_bytes().to_vec())
    }
}

/// How a person names a key: by the name it has in the node's folder, or by its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `alice`.
    Name(MaintainerName),
    /// A path, with a slash in it: `~/.ssh/id_ed25519.pub`.
    File(PathBuf),
}

impl FromStr for Word {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let name = MaintainerName::new(text).ok();
        Ok(name.map_or_else(|| Self::File(PathBuf::from(text)), Self::Name))
    }
}

impl Word {
    /// Gives the key's file.
    pub fn path(&self, home: &Home) -> PathBuf {
        match self {
            Word::Name(name) => home.key(name.as_str()),
            Word::File(path) => path.clone(),
        }
    }
}

/// A person's key, ready to sign.
#[derive(Debug, Clone)]
pub enum Signer {
    /// A key file of ours.
    Own(SigningKey),
    /// A key of OpenSSH.
    Ssh(ssh::Key),
}

impl Signer {
    /// Opens a key file: ours, OpenSSH's of a secret key, or OpenSSH's of a public key, whose other half an agent has.
    ///
    /// # Errors
    /// When there is none, others can read it, or it is of a kind that cannot sign here.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = match bounded::read_text(path, FILE_MAX) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        if text.starts_with(HEADER) {
            return load(path).map(Self::Own);
        }
        ssh::Key::read(path, &text)?.map(Self::Ssh).ok_or_else(|| Error::Form { path: path.to_owned() })
    }
}

impl Sign for Signer {
    fn public(&self) -> PublicKey {
        match self {
            Signer::Own(key) => key.public(),
            Signer::Ssh(key) => key.public(),
        }
    }

    fn sign(&self, kind: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Signer::Own(key) => key.sign(kind, message),
            Signer::Ssh(key) => key.sign(kind, message),
        }
    }
}

/// Signs a record.
///
/// # Errors
/// The first key that does not sign.
pub fn sign<T: Record>(value: &T, network: Option<&NetworkId>, signers: &[&dyn Sign]) -> Result<Signed<T>, Error> {
    let unsigned = Unsigned::new(value, network);
    let message = unsigned.message();
    let sign = |signer: &&dyn Sign| {
        let sig = signer.sign(T::KIND, &message)?;
        Ok(Signature { key: signer.public(), sig })
    };
    let sigs: Vec<Signature> = signers.iter().map(sign).collect::<Result<_, Error>>()?;
    Ok(unsigned.with(sigs))
}

/// Gives a key of OpenSSH a name in the node's folder: a link, since its owner goes on using it where it is.
///
/// # Errors
/// When the name is another key's, or the file is no key that can sign.
pub fn link(file: &Path, name: &Path) -> Result<Signer, Error> {
    let signer = Signer::open(file)?;
    let error = |source| Error::Write { path: name.to_owned(), source };
    let file = fs::canonicalize(file).map_err(error)?;
    if fs::read_link(name).is_ok_and(|there| there == file) {
        return Ok(signer);
    }
    std::os::unix::fs::symlink(file, name).map_err(error)?;
    Ok(signer)
}
