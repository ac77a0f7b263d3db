//! The repository's OpenPGP key: ed25519, version 4 with the framing that gpgv of Debian 12 reads (RFC 9580's EdDSALegacy).
//!
//! Signatures hold no chance and no clock: the same text, key and time give the same bytes. The key is no node's key; it
//! signs Release files, RPMs' headers and their metadata, and nothing else.

pub mod check;
pub mod keyring;
pub mod keys;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pgp::{
    armor::{self, BlockType, Headers},
    composed::{
        ArmorOptions, CleartextSignedMessage, Deserializable, DetachedSignature, SignedKeyDetails, SignedPublicKey,
        SignedSecretKey,
    },
    crypto::{ed25519, eddsa_legacy, hash::HashAlgorithm, public_key::PublicKeyAlgorithm},
    packet::{
        KeyFlags, PacketTrait, PubKeyInner, PublicKey, SecretKey, Signature, SignatureConfig, SignatureType, Subpacket,
        SubpacketData, UserId,
    },
    ser::Serialize,
    types::{
        EddsaLegacyPublicParams, KeyDetails, KeyVersion, Password, PlainSecretParams, PublicParams, SecretParams,
        SignedUser, Tag,
    },
};
use protocol::Timestamp;

use self::keyring::Certificate;

/// The largest key file, in bytes.
const KEY_MAX: u64 = 64 * 1024;

/// Why a key could not be made, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// OpenPGP refused.
    #[error("cannot {what} the OpenPGP key")]
    OpenPgp {
        /// The operation.
        what: &'static str,
        /// The library's words.
        #[source]
        source: pgp::errors::Error,
    },
    /// A time that OpenPGP cannot write.
    #[error("OpenPGP cannot write a time after the year 2105")]
    Time,
    /// A file operation failed.
    #[error("cannot {what} the key file {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Others can read the secret key.
    #[error("the key file {path} has mode {mode:o}; nobody but its owner may read it: chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A signature that no key of a keyring made, or that is not written as this program writes it.
    #[error("{what} is not signed by a key of the repository: {why}")]
    Unverified {
        /// What should be signed.
        what: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A certificate that is not of this kind.
    #[error("not a repository key's certificate: {why}")]
    Certificate {
        /// The rule that it breaks.
        why: String,
    },
    /// The key is being changed already.
    #[error("the repository key is being changed already; end that first, with `artel repo key finish`")]
    Changing,
    /// There is no change to end.
    #[error("the repository key is not being changed; `artel repo key rotate` begins that")]
    Settled,
    /// Whoever changes the key is not who uses it.
    #[error("the key file {path} belongs to user {owner}, and so must its successor: run this as that user")]
    Owner {
        /// The file.
        path: PathBuf,
        /// The number of its user.
        owner: u32,
    },
    /// The file holds something else than a key of this kind.
    #[error("{path} holds no ed25519 OpenPGP secret key without a passphrase")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
}

/// Adds the operation to an error of the library.
fn refused(what: &'static str) -> impl FnOnce(pgp::errors::Error) -> Error {
    move |source| Error::OpenPgp { what, source }
}

/// The secret key that signs one repository.
#[derive(Clone)]
pub struct RepositoryKey {
    secret: SignedSecretKey,
}

impl std::fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RepositoryKey({})", self.fingerprint())
    }
}

impl RepositoryKey {
    /// Makes a new key with a user id, for instance `artel main repository`.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn generate(name: &str, created: Timestamp) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(Error::Random)?;
        Self::from_seed(name, created, seed)
    }

    /// Makes the key of a seed; the same seed, name and time give the same key.
    ///
    /// # Errors
    /// When the time is beyond OpenPGP's.
    pub fn from_seed(name: &str, created: Timestamp, seed: [u8; 32]) -> Result<Self, Error> {
        let created = seconds(created)?;
        let make = || {
            let pair = ed25519::SecretKey::try_from_bytes(seed, ed25519::Mode::EdDSALegacy)?;
            let public = PublicParams::EdDSALegacy(EddsaLegacyPublicParams::from(&pair));
            let inner = PubKeyInner::new(KeyVersion::V4, PublicKeyAlgorithm::EdDSALegacy, created, None, public)?;
            let public = PublicKey::from_inner(inner)?;
            let plain = PlainSecretParams::EdDSALegacy(eddsa_legacy::SecretKey::Ed25519(pair));
            let key = SecretKey::new(public.clone(), SecretParams::Plain(plain))?;
            let mut flags = KeyFlags::default();
            flags.set_certify(true);
            flags.set_sign(true);
            let mut config = SignatureConfig::v4(SignatureType::CertPositive, key.algorithm(), HashAlgorithm::Sha512);
            config.hashed_subpackets = vec![
                Subpacket::regular(SubpacketData::SignatureCreationTime(created))?,
                Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
                Subpacket::regular(SubpacketData::KeyFlags(flags))?,
                Subpacket::regular(SubpacketData::IsPrimary(true))?,
            ];
            config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
            let user = UserId::from_str(Default::default(), name)?;
            let signature = config.sign_certification(&key, &public, &Password::empty(), Tag::UserId, &user)?;
            let details = SignedKeyDetails::new(vec![], vec![], vec![SignedUser::new(user, vec![signature])], vec![]);
            Ok(SignedSecretKey::new(key, details, vec![], vec![]))
        };
        make().map(|secret| Self { secret }).map_err(refused("make"))
    }

    /// Writes the secret key, armored and readable by its owner only. An existing file is never overwritten.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.save_with(path, None)
    }

    /// As [`RepositoryKey::save`], with lines above the armor that tell something of the key.
    fn save_with(&self, path: &Path, headers: Option<&Headers>) -> Result<(), Error> {
        let fail = |what| move |source| Error::File { what, path: path.into(), source };
        let options = ArmorOptions { headers, ..ArmorOptions::default() };
        let text = self.secret.to_armored_string(options).map_err(refused("write"))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail("create"))?;
        file.write_all(text.as_bytes()).map_err(fail("write"))?;
        file.sync_all().map_err(fail("sync"))
    }

    /// Reads a secret key that [`RepositoryKey::save`] wrote.
    ///
    /// # Errors
    /// When others may read the file, or it holds another kind of key.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_with(path).map(|(key, _)| key)
    }

    /// As [`RepositoryKey::load`], with the lines above the armor.
    fn load_with(path: &Path) -> Result<(Self, Headers), Error> {
        let fail = |what| move |source| Error::File { what, path: path.into(), source };
        let file = File::open(path).map_err(fail("open"))?;
        let mode = file.metadata().map_err(fail("read"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path: path.into(), mode });
        }
        let mut text = String::new();
        file.take(KEY_MAX).read_to_string(&mut text).map_err(fail("read"))?;
        let not_ours = || Error::NotOurs { path: path.into() };
        let (secret, headers) = SignedSecretKey::from_string(&text).map_err(|_| not_ours())?;
        let plain =
            matches!(secret.primary_key.secret_params(), SecretParams::Plain(PlainSecretParams::EdDSALegacy(_)));
        let sound = plain && secret.verify_bindings().is_ok();
        if sound { Ok((Self { secret }, headers)) } else { Err(not_ours()) }
    }

    /// Gives the fingerprint in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.secret.fingerprint().to_string()
    }

    /// Gives the public half.
    ///
    /// # Errors
    /// When OpenPGP cannot write it.
    pub fn certificate(&self) -> Result<Certificate, Error> {
        Certificate::read(&self.public_binary()?)
    }

    /// Gives the public key in the binary form that `signed-by` takes (`.gpg`).
    ///
    /// # Errors
    /// When OpenPGP cannot write it.
    pub fn public_binary(&self) -> Result<Vec<u8>, Error> {
        self.public().to_bytes().map_err(refused("export"))
    }

    fn public(&self) -> SignedPublicKey {
        self.secret.to_public_key()
    }

    /// Signs a text in the cleartext framework: what an `InRelease` file is.
    ///
    /// # Errors
    /// When OpenPGP cannot sign.
    pub fn sign_clear(&self, text: &str, at: Timestamp) -> Result<String, Error> {
        clear(&[self], text, at)
    }

    /// Signs bytes with a detached, armored signature: what a `Release.gpg` file is.
    ///
    /// # Errors
    /// When OpenPGP cannot sign.
    pub fn sign_detached(&self, bytes: &[u8], at: Timestamp) -> Result<String, Error> {
        detached(&[self], bytes, at)
    }

    /// Signs bytes with a detached signature in its binary form, as the header of an RPM carries it. The time is that of the key:
    /// the same bytes give the same signature whenever they are signed.
    ///
    /// # Errors
    /// When OpenPGP cannot sign.
    pub fn sign_packet(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let made = u64::from(self.secret.primary_key.created_at().as_secs());
        let signature = self.sign(SignatureType::Binary, bytes, Timestamp::from_millis(made * 1000))?;
        DetachedSignature::new(signature).to_bytes().map_err(refused("sign with"))
    }

    fn sign(&self, kind: SignatureType, bytes: &[u8], at: Timestamp) -> Result<Signature, Error> {
        let config = self.config(kind, at)?;
        config.sign(&self.secret.primary_key, &Password::empty(), bytes).map_err(refused("sign with"))
    }

    fn config(&self, kind: SignatureType, at: Timestamp) -> Result<SignatureConfig, Error> {
        let key = &self.secret.primary_key;
        let mut config = SignatureConfig::v4(kind, key.algorithm(), HashAlgorithm::Sha512);
        let at = seconds(at)?;
        let subpackets = || {
            let hashed = vec![
                Subpacket::regular(SubpacketData::SignatureCreationTime(at))?,
                Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
            ];
            Ok((hashed, vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?]))
        };
        (config.hashed_subpackets, config.unhashed_subpackets) = subpackets().map_err(refused("sign with"))?;
        Ok(config)
    }
}

/// Signs a text in the cleartext framework with each of these keys.
fn clear(keys: &[&RepositoryKey], text: &str, at: Timestamp) -> Result<String, Error> {
    // The line end before the signature's armor belongs to the framework, not to the text.
    let body = text.strip_suffix('\n').unwrap_or(text);
    let configs =
        keys.iter().map(|key| Ok((*key, key.config(SignatureType::Text, at)?))).collect::<Result<Vec<_>, _>>()?;
    let sign = |lines: &str| {
        let sign = |(key, config): (&RepositoryKey, SignatureConfig)| {
            config.sign(&key.secret.primary_key, &Password::empty(), lines.as_bytes())
        };
        configs.into_iter().map(sign).collect()
    };
    CleartextSignedMessage::new_many(body, sign)
        .and_then(|message| message.to_armored_string(ArmorOptions::default()))
        .map_err(refused("sign with"))
}

/// Signs bytes with each of these keys, in one block of armor.
fn detached(keys: &[&RepositoryKey], bytes: &[u8], at: Timestamp) -> Result<String, Error> {
    let sign = |key: &&RepositoryKey| key.sign(SignatureType::Binary, bytes, at);
    armored_signatures(&keys.iter().map(sign).collect::<Result<Vec<_>, _>>()?)
}

/// Writes signatures one after the other into one block of armor.
fn armored_signatures(signatures: &[Signature]) -> Result<String, Error> {
    let mut packets = Vec::new();
    for signature in signatures {
        signature.to_writer_with_header(&mut packets).map_err(refused("write a signature of"))?;
    }
    armored(packets, BlockType::Signature)
}

/// Writes packets in a block of armor.
fn armored(packets: Vec<u8>, block: BlockType) -> Result<String, Error> {
    let mut text = Vec::new();
    armor::write(&Packets(packets), block, &mut text, None, true).map_err(refused("export"))?;
    Ok(String::from_utf8(text).expect("armor is ASCII"))
}

/// Packets that are written as they are.
struct Packets(Vec<u8>);

impl Serialize for Packets {
    fn to_writer<W: Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        Ok(writer.write_all(&self.0)?)
    }

    fn write_len(&self) -> usize {
        self.0.len()
    }
}

fn seconds(at: Timestamp) -> Result<pgp::types::Timestamp, Error> {
    u32::try_from(at.as_secs()).map(pgp::types::Timestamp::from_secs).map_err(|_| Error::Time)
}

#[cfg(test)]
mod tests;
