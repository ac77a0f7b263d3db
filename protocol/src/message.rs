//! What nodes say to each other on the exchange protocol `/artel/<net8>/exchange/1`: one request, one response.
//!
//! The transport has proven who speaks: a message's sender is the `NodeId` of its connection, and nothing inside a message
//! repeats it. Records inside are opaque bytes of an envelope, verified by the receiver.

use serde::{Deserialize, Serialize};

use crate::{
    Arch, ChannelName, Hash, JobId, NodeId, Salt, Sha256, Timestamp,
    blame::Failure,
    codec::{few, octets},
    job::JobRequest,
    lease::{Lease, LeaseNumber, Term},
    limits::LIST_MAX,
};

/// Envelope bytes of a signed record, or a DSSE JSON document, as received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Octets(#[serde(with = "octets")] pub Vec<u8>);

/// A bid: this builder has a free slot for the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bid {
    /// The job.
    pub job: JobId,
    /// Memory that the builder has for it, in MiB.
    pub memory_mib: u32,
}

/// A builder's standing offer: the room that it has now. The newest replaces the one before; no free slot takes it back. The
/// coordinator grants what comes next in its fair order, at once or as soon as there is something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Attempts that it could begin now.
    pub free: u16,
    /// Leases that it holds: a grant that is still on its way is none of them.
    #[serde(deserialize_with = "few::<_, _, LIST_MAX>")]
    pub held: Vec<LeaseNumber>,
    /// Architectures that it builds on, sorted.
    pub arches: Vec<Arch>,
    /// Memory for all of them together, in MiB.
    pub memory_mib: u32,
}

/// A builder's heartbeat for its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// The lease.
    pub lease: LeaseNumber,
    /// What the attempt does now, for people: `fetch`, `environment`, `build`, `attest`.
    pub phase: String,
}

/// A builder's word that it has a result, before anybody may see which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The lease.
    pub lease: LeaseNumber,
    /// The hash of network, lease, a salt and the attestation.
    pub digest: Hash,
    /// The builder's ed25519 signature of it, 64 bytes, so that nobody can say it in its name; none in what earlier versions
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Octets>,
}

/// An entry of the transparency log, with the proof that it is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// From the entry's sibling to the root's child.
    pub path: Vec<Sha256>,
    /// The entry's bytes.
    pub entry: Octets,
    /// Its place in the log, from 0.
    pub index: u64,
}

/// Why a builder may show what it is bound to: what the log says of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grounds {
    /// Commitments to the job's results, failures, or its verdict.
    pub entries: Vec<Logged>,
    /// What builders signed whose attempts failed: the DSSE JSON envelopes that entries name.
    #[serde(deserialize_with = "few::<_, _, LIST_MAX>")]
    pub negatives: Vec<Octets>,
    /// The checkpoint that all of them are in, as signed.
    pub checkpoint: Octets,
    /// From the size that was asked from to the checkpoint.
    pub consistency: Vec<Sha256>,
}

/// How an attempt ended with outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revealed {
    /// BLAKE3 of the build log, served by the builder.
    pub log: Hash,
    /// What its commitment hid the attestation with; none in what earlier versions said, which did not commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
    /// The lease.
    pub lease: LeaseNumber,
    /// The DSSE JSON envelope of the attestation.
    pub attestation: Octets,
}

/// How an attempt ended without outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// BLAKE3 of the build log, where there is one.
    pub log: Option<Hash>,
    /// The lease.
    pub lease: LeaseNumber,
    /// Class, step and words.
    pub failure: Failure,
    /// The same, signed by the builder: a DSSE JSON envelope; none in what earlier versions said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Octets>,
}

/// A piece of a live log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogChunk {
    /// Where the piece starts, in bytes.
    pub at: u64,
    /// The bytes.
    #[serde(with = "octets")]
    pub data: Vec<u8>,
    /// True when the attempt is over and nothing follows.
    pub ended: bool,
}

/// A request on the exchange protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Anybody to the coordinator: accept this signed job request. Answered by `Receipt` when it is durable.
    Submit(Octets),
    /// Anybody to the coordinator: obey this signed order for a job.
    Order(Octets),
    /// Anybody: every policy of the network, the genesis first (answered by `Records`).
    Policy,
    /// Root's tool to the coordinator: adopt this signed policy.
    AdoptPolicy(Octets),
    /// Builder to coordinator: which jobs still want builders (answered by `Records`).
    Open,
    /// Anybody: the signed request of a job (answered by `Record`).
    Job(JobId),
    /// Anybody to the coordinator: who has a job's inputs (answered by `Providers`).
    Providers(JobId),
    /// Builder to coordinator: a free slot, for this job rather than for another of the same maintainer.
    Bid(Bid),
    /// Coordinator to builder: build this (answered by `Done`, or `Refused` when the slot is taken or the term is over).
    Grant(Term, Lease),
    /// Coordinator to builder: stop, the lease is over.
    Revoke(Term, LeaseNumber, String),
    /// Builder to coordinator: these leases live; answered by `Lost` with those that do not.
    Renew(#[serde(deserialize_with = "few::<_, _, LIST_MAX>")] Vec<Renewal>),
    /// Builder to coordinator: the sandbox of this lease started.
    Started(LeaseNumber),
    /// Builder to coordinator: there is a result. Answered by `Done`, or by `Reveal` when it may be shown; asked again until then.
    Commit(Commitment),
    /// Coordinator to builder: enough builders are bound, show the result of this lease.
    Reveal(Term, LeaseNumber),
    /// Builder to coordinator: why may the result of this lease be shown? With the size of the log that the builder knows
    /// (answered by `Grounds`).
    Grounds(LeaseNumber, u64),
    /// Coordinator to builder: the job is decided, its outputs are open to every member.
    Disclose(Term, JobId),
    /// Builder to coordinator: outputs, with their attestation.
    Revealed(Revealed),
    /// Builder to coordinator: no outputs.
    Failed(Failed),
    /// Anybody to a builder: the log of a lease from a byte on (answered by `Log`).
    Log(LeaseNumber, u64),
    /// Mirror: the newest release of a channel (answered by `Record`).
    Release(ChannelName),
    /// Anybody to anybody: who coordinates (answered by `Record` with the leader's own [`crate::peer::Leadership`]).
    Leader,
    /// Builder to coordinator: the room that it has now.
    Offer(Offer),
    /// Candidate to coordinator: the certificate of the key that signs its repositories, and of the next one while it
    /// changes.
    Signer(Octets),
    /// Anybody to the coordinator: keep this signed recipe, which replaces the one before.
    Recipe(Octets),
    /// Anybody to the coordinator: keep this signed record of a recipe's run.
    RecipeRun(Octets),
    /// Anybody to the coordinator: one view as JSON, by API path (answered by `View`).
    View(String),
    /// Coordinator to witness: cosign this checkpoint, a request of C2SP's `add-checkpoint` (answered by `Witness`).
    AddCheckpoint(Octets),
    /// Member to member: the newest checkpoint of the network's log that the sender believes, none when empty (answered by
    /// `Checkpoint` with the other's, or by `Conflict`).
    Checkpoint(Octets),
    /// Anybody: the proof that a signed release, by the hash of its envelope, was logged (answered by `Record`).
    ReleaseProof(Hash),
}

/// A response on the exchange protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Taken, durable where it matters.
    Done,
    /// The job is accepted and durable since then.
    Receipt(JobId, Timestamp),
    /// A signed record's envelope.
    Record(Octets),
    /// Several signed records' envelopes.
    Records(#[serde(deserialize_with = "few::<_, _, LIST_MAX>")] Vec<Octets>),
    /// Nodes that have the job's inputs.
    Providers(Vec<NodeId>),
    /// Leases that are no longer valid.
    Lost(#[serde(deserialize_with = "few::<_, _, LIST_MAX>")] Vec<LeaseNumber>),
    /// The commitment is known, and what it is to may be shown now.
    Reveal,
    /// What the log says of a job whose result is asked for.
    Grounds(Grounds),
    /// A piece of a log.
    Log(LogChunk),
    /// A view, as JSON.
    View(Octets),
    /// What a witness says: the status and the body of `add-checkpoint`.
    Witness(u16, Octets),
    /// The newest checkpoint that the answering node believes, none when empty.
    Checkpoint(Octets),
    /// Evidence that the network's log was forked.
    Conflict(Octets),
    /// No, and why; what to do next is in the words.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This node does not coordinate; the named one does, as far as it knows.
    #[error("this node does not coordinate")]
    NotCoordinator(Option<NodeId>),
    /// There is no such thing here.
    #[error("unknown: {0}")]
    Unknown(String),
    /// The request is malformed or breaks a rule; sending it again will not help.
    #[error("{0}")]
    Invalid(String),
    /// The sender may not ask this.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// Not now: a queue is full or a resource short; try again later.
    #[error("busy: {0}")]
    Busy(String),
}

/// What a builder needs to begin, once it holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The job's id.
    pub job: JobId,
    /// The verified request.
    pub request: JobRequest,
    /// The lease.
    pub lease: Lease,
}
