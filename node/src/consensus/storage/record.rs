//! What one record looks like on the disk: a version byte, a BLAKE3 checksum over its place and its bytes, then its bytes.
//!
//! redb's own checksum finds what a disk damaged; this one also finds a record that is whole but not at its place.

use openraft::{Entry, LogId, SnapshotMeta, Vote};
use serde::{Serialize, de::DeserializeOwned};

use crate::consensus::{Member, PAYLOAD_BYTES_MAX, Types};

/// The layout of all records.
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;
/// The largest log record: the largest payload, and what openraft adds to it.
pub(super) const RECORD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);
/// The largest snapshot. A ledger of 100,000 jobs has about a tenth of this.
pub(super) const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// One log entry.
pub(super) type LogEntry = Entry<Types>;
/// Where an entry stands.
pub(super) type Id = LogId<Member>;
/// Whom this member voted for.
pub(super) type Ballot = Vote<Member>;
/// What a snapshot contains.
pub(super) type Meta = SnapshotMeta<Member, openraft::EmptyNode>;

/// Where a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The log, at an index.
    Log(u64),
    /// The vote.
    Vote,
    /// The mark of what is committed.
    Committed,
    /// The mark of what was removed from the log.
    Purged,
    /// What the snapshot contains.
    Meta,
    /// The snapshot's bytes.
    Snapshot,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Log(index) => write!(f, "log record {index}"),
            Place::Vote => f.write_str("the vote"),
            Place::Committed => f.write_str("the mark of committed entries"),
            Place::Purged => f.write_str("the mark of removed entries"),
            Place::Meta => f.write_str("the snapshot's description"),
            Place::Snapshot => f.write_str("the snapshot"),
        }
    }
}

/// Why a record is not believed, or cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than any record has.
    #[error("{place} has only {got} bytes")]
    Short {
        /// The record.
        place: Place,
        /// Its bytes.
        got: usize,
    },
    /// Written by another version of artel.
    #[error("{place} has version {found}, this artel knows {VERSION}: install the artel that wrote it")]
    Version {
        /// The record.
        place: Place,
        /// The version found.
        found: u8,
    },
    /// The checksum does not fit.
    #[error("{place} is damaged: its checksum does not fit its bytes")]
    Checksum {
        /// The record.
        place: Place,
    },
    /// Sound bytes that mean nothing to this version.
    #[error("{place} does not decode: {why}")]
    Decode {
        /// The record.
        place: Place,
        /// The decoder's words.
        why: String,
    },
    /// More bytes than such a record may have.
    #[error("{place} of {got} bytes is over the limit of {limit}")]
    TooLarge {
        /// The record.
        place: Place,
        /// Its bytes.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Makes the record of bytes that were encoded elsewhere.
pub(super) fn seal(place: Place, body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let limit = match place {
        Place::Snapshot => SNAPSHOT_BYTES_MAX,
        Place::Log(_) | Place::Vote | Place::Committed | Place::Purged | Place::Meta => RECORD_BYTES_MAX,
    };
    if body.len() > limit {
        return Err(RecordError::TooLarge { place, got: body.len(), limit });
    }
    let mut record = Vec::with_capacity(1 + CHECKSUM_BYTES + body.len());
    record.push(VERSION);
    record.extend_from_slice(checksum(place, body).as_bytes());
    record.extend_from_slice(body);
    Ok(record)
}

/// Gives the bytes of a record that is what it was when it was made, at the place where it was put.
pub(super) fn unseal(place: Place, record: &[u8]) -> Result<&[u8], RecordError> {
    let short = RecordError::Short { place, got: record.len() };
    let (version, rest) = record.split_first().ok_or(short.clone())?;
    if *version != VERSION {
        return Err(RecordError::Version { place, found: *version });
    }
    let (expected, body) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
    if checksum(place, body) != *expected {
        return Err(RecordError::Checksum { place });
    }
    Ok(body)
}

/// Encodes and seals.
pub(super) fn write<T: Serialize>(place: Place, value: &T) -> Result<Vec<u8>, RecordError> {
    let body = postcard::to_stdvec(value).expect("our records hold only what postcard can write");
    seal(place, &body)
}

/// Unseals and decodes.
pub(super) fn read<T: DeserializeOwned>(place: Place, record: &[u8]) -> Result<T, RecordError> {
    decode(place, unseal(place, record)?)
}

/// Decodes bytes that were unsealed, to the last one.
pub(super) fn decode<T: DeserializeOwned>(place: Place, body: &[u8]) -> Result<T, RecordError> {
    let failed = |why: String| RecordError::Decode { place, why };
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| failed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(failed(format!("{} bytes too many", rest.len()))) }
}

fn checksum(place: Place, body: &[u8]) -> blake3::Hash {
    let (kind, index) = match place {
        Place::Log(index) => (0_u8, index),
        Place::Vote => (1, 0),
        Place::Committed => (2, 0),
        Place::Purged => (3, 0),
        Place::Meta => (4, 0),
        Place::Snapshot => (5, 0),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[VERSION, kind]).update(&index.to_be_bytes()).update(body);
    hasher.finalize()
}
