//! Entries: what the log is a log of. Each is a small record that names signed documents by the hash of their bytes.
//!
//! ```text
//!  policy ... accepted -> lease -> commitment -> outcome -> verdict -> release        revocation
//! ```
//! An entry says that something was decided, and when; whether it was right is told by the documents. Whoever reads the
//! log sees gaps: a lease without an outcome, a commitment that nobody revealed, a release without its verdicts.
//!
//! The bytes are canonical CBOR, as everywhere: one meaning has one leaf in the tree. The network is not named, because the
//! log's origin is.

use protocol::{
    ChannelName, Hash, JobId, NodeId, PublicKey, Timestamp,
    codec::{self, DoorError},
    envelope::check_set,
    lease::{LeaseNumber, Profile},
    limits,
    message::Octets,
};
use serde::{Deserialize, Serialize};

/// The largest entry, in bytes.
pub const ENTRY_MAX: usize = 4096;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When it was decided, by the coordinator's clock.
    pub at: Timestamp,
    /// What was decided.
    pub event: Event,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A policy came into force.
    Policy(Policy),
    /// A job was accepted.
    Accepted(Accepted),
    /// A builder got the right to one attempt.
    Lease(Lease),
    /// A builder committed to its result, before any result could be read.
    Commitment(Commitment),
    /// An attempt ended.
    Outcome(Outcome),
    /// The attempts of a job were judged.
    Verdict(Verdict),
    /// A generation of a repository was published.
    Release(Release),
    /// A key stopped counting.
    Revocation(Revocation),
}

/// See [`Event::Policy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its version, from 1.
    pub number: u64,
    /// The signed policy.
    pub envelope: Hash,
}

/// See [`Event::Accepted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// Its signed request.
    pub envelope: Hash,
}

/// See [`Event::Lease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The builder.
    pub node: NodeId,
    /// The fencing number; commitment and outcome name the same.
    pub lease: LeaseNumber,
    /// The variation to build under.
    pub profile: Profile,
}

/// See [`Event::Commitment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The job.
    pub job: JobId,
    /// The builder.
    pub node: NodeId,
    /// Its lease.
    pub lease: LeaseNumber,
    /// The hash of a salt and the attestation.
    pub digest: Hash,
    /// The builder's own signature, so that no coordinator can say it in its name: see [`crate::commitment::signed_bytes`]. None
    /// in what earlier versions logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Octets>,
}

/// See [`Event::Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The job.
    pub job: JobId,
    /// The builder.
    pub node: NodeId,
    /// Its lease.
    pub lease: LeaseNumber,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With outputs: the signed attestation. Whether they *differ* from those of others, no builder can know when it signs and
    /// no entry says: the attestation itself is the proof, beside those that agree.
    Built(Hash),
    /// Without, and the job or the builder is blamed for it: what the builder signed, see [`crate::negative`]; or the attestation
    /// that it had not committed to.
    Failed(Hash),
    /// It was cut off: what the builder signed about that, see [`crate::negative`].
    Stopped(Hash),
    /// Nothing came before the lease ended, or before the attempt's time was over.
    Lost,
    /// It was committed to a result, and did not show it.
    Withheld,
    /// The builder did not take it.
    Declined,
    /// It was cut off, and its builder says so; only in logs of earlier versions, which did not name what it signed.
    Interrupted,
    /// The coordinator took the lease back: nobody waits for the result any more.
    Revoked,
}

/// See [`Event::Verdict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The job.
    pub job: JobId,
    /// What its attempts add up to.
    pub verdict: Judgement,
    /// The attestations that it rests on, those who differ included, sorted.
    pub attestations: Vec<Hash>,
}

/// What the attempts of a job add up to; see [`crate::threshold::Verdict`] for its reasons, which the attestations give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// Enough operators gave the same bits.
    Reproduced,
    /// Some agree, too few; or two groups are each large enough.
    Disputed,
    /// No two agree.
    Unreproducible,
    /// The job itself fails.
    Failed,
}

/// See [`Event::Release`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The channel.
    pub channel: ChannelName,
    /// The signed release.
    pub envelope: Hash,
    /// Its number, from 1.
    pub generation: u64,
}

/// See [`Event::Revocation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The key.
    pub key: PublicKey,
    /// The place in the log from which on its signatures do not count; what stands before stays good.
    pub from: u64,
    /// The signed document that revokes it.
    pub envelope: Hash,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A rule does not hold.
    #[error("log entry is not acceptable: {0}")]
    Meaning(String),
}

impl Entry {
    /// Gives the canonical bytes: what is hashed into the tree.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = codec::decode(bytes, ENTRY_MAX)?;
        entry.event.check().map_err(EntryError::Meaning)?;
        Ok(entry)
    }
}

impl Event {
    fn check(&self) -> Result<(), String> {
        match self {
            Event::Policy(Policy { number: 0, .. }) => Err("policies are numbered from 1".into()),
            Event::Release(Release { generation: 0, .. }) => Err("generations start at 1".into()),
            Event::Verdict(verdict) => {
                check_set("attestations", &verdict.attestations, limits::ATTEMPTS_MAX as usize)?;
                let proof = verdict.verdict != Judgement::Reproduced || !verdict.attestations.is_empty();
                if proof { Ok(()) } else { Err("nothing is reproduced without attestations".into()) }
            }
            Event::Commitment(Commitment { signature: Some(signature), .. }) if signature.0.len() != 64 => {
                Err("a signature of a commitment has 64 bytes".into())
            }
            Event::Policy(_)
            | Event::Accepted(_)
            | Event::Lease(_)
            | Event::Commitment(_)
            | Event::Outcome(_)
            | Event::Release(_)
            | Event::Revocation(_) => Ok(()),
        }
    }

    /// Gives the word that people read.
    pub const fn word(&self) -> &'static str {
        match self {
            Event::Policy(_) => "policy",
            Event::Accepted(_) => "accepted",
            Event::Lease(_) => "lease",
            Event::Commitment(_) => "commitment",
            Event::Outcome(_) => "outcome",
            Event::Verdict(_) => "verdict",
            Event::Release(_) => "release",
            Event::Revocation(_) => "revocation",
        }
    }
}

#[cfg(test)]
mod tests;
