//! The decoders of bytes from outside. What a function here panics about is a fault of the decoder.

pub mod evidence;
pub mod ledger;
pub mod log;
pub mod packages;
pub mod records;
pub mod sources;

use std::fmt::Display;

use protocol::codec;
use serde::{Serialize, de::DeserializeOwned};

use crate::Target;

/// Every target.
pub const ALL: &[Target] = &[
    records::ENVELOPE,
    records::REQUEST,
    records::RESPONSE,
    records::RECORD,
    records::RECIPE,
    records::SSHSIG,
    records::WORDS,
    records::TICKET,
    evidence::ATTESTATION,
    evidence::STATEMENT,
    evidence::NEGATIVE,
    evidence::OPENING,
    evidence::BUNDLE,
    evidence::STAPLE,
    evidence::TRUSTED,
    log::NOTE,
    log::CHECKPOINT,
    log::TILE,
    log::TREE,
    log::PROOF,
    log::LOG_POLICY,
    log::WITNESS,
    log::CONVICTING,
    log::ENTRY,
    log::STORY,
    ledger::COMMAND,
    ledger::SNAPSHOT,
    packages::RPM,
    packages::RPM_ENTRY,
    packages::DEB,
    packages::INDEX,
    packages::RELEASE_INDEX,
    packages::APT_INPUT,
    packages::OPENPGP,
    packages::VERSION,
    sources::DSC,
    sources::BUILDINFO,
    sources::CHANGES,
    sources::SPEC,
    sources::SOURCE_TAR,
    sources::COMMIT,
    sources::FORM,
    sources::DIFFERENCE,
];

/// Lets bytes in as a record, and checks that the record writes itself as these bytes.
fn canonical<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(bytes, bytes.len()) else { return false };
    assert_eq!(codec::encode(&value), bytes);
    true
}

/// Checks that a text format, once it is read, writes itself as it was.
fn same_text<T: Display, E>(read: Result<T, E>, bytes: &[u8]) -> Option<T> {
    let value = read.ok()?;
    assert_eq!(value.to_string().as_bytes(), bytes);
    Some(value)
}
