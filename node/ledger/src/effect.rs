//! What the ledger wants done, and what it tells people. Performing is the daemon's work; nothing here acts.

use attest::compare::Output;
use protocol::{
    ChannelName, JobId, NodeId, OperatorName, Sha256, Timestamp,
    job::Announcement,
    lease::{Lease, LeaseNumber},
    message::Response,
};
use serde::Serialize;

use crate::{explain::Dispute, service::Service};

/// Something to perform, once the command that caused it is durable. Each may be performed twice after a crash, so each is
/// idempotent.
#[must_use = "effects must be performed, in order"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The reply to who sent the command: exactly one for what a peer asks (submit, cancel, policy, bid, renewal, start,
    /// reveal, failure) and for what the publisher found, none for what the daemon itself reports.
    Answer(Response),
    /// To the builder: build this.
    Grant(Lease),
    /// To the builder: stop, the lease is over.
    Revoke {
        /// The builder.
        node: NodeId,
        /// The lease.
        lease: LeaseNumber,
        /// Why, for people.
        reason: String,
    },
    /// To the builder: show what you are committed to.
    Reveal {
        /// The builder.
        node: NodeId,
        /// The lease.
        lease: LeaseNumber,
    },
    /// To the builder: the job is decided, its outputs are open to every member.
    Disclose {
        /// The builder.
        node: NodeId,
        /// The job.
        job: JobId,
    },
    /// Onto the topic of the architecture: this job wants builders.
    Announce(Announcement),
    /// One timer: apply `Woken` at this time or later. It replaces the earlier one.
    WakeAt(Timestamp),
    /// To the publisher; comes back as `Published` or `PublishFailed`.
    Publish(Publication),
    /// To the publisher: run this server job; comes back as `Published` or `PublishFailed`.
    Serve(Service),
    /// To the publisher: see to it that the newest generation is known, with the job or without it; comes back as `Published`,
    /// `Withdrawn` or `PublishFailed`.
    Withdraw(Withdrawal),
    /// To the publisher: sign the channel's index anew, as this generation. Nothing comes back; when it fails, the publisher
    /// asks again, and the generation stays unused.
    Resign {
        /// The channel.
        channel: ChannelName,
        /// The generation.
        generation: u64,
    },
    /// To whoever explains differences: compare these; comes back as `Explained`.
    Explain(Dispute),
    /// Into the transparency log, at this place. Every member of the group does it, not only the leader.
    Append {
        /// The entry's place, from 0.
        index: u64,
        /// The entry's bytes.
        entry: Vec<u8>,
    },
    /// To whoever listens.
    Notify(News),
}

/// One job's outputs, ready for the repository of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The job.
    pub job: JobId,
    /// The channel.
    pub channel: ChannelName,
    /// Whether an earlier try may be out.
    pub doubt: Doubt,
    /// The generation of the channel's repository that this publication becomes; the same again when it is retried.
    pub generation: u64,
    /// What the agreeing builders made, by name.
    pub outputs: Vec<Output>,
    /// The nodes that agree and hold the outputs.
    pub builders: Vec<NodeId>,
}

/// What earlier tries of a job may have shown to somebody, without anybody here having heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing.
    Nothing,
    /// A generation from this one on. Everybody within reach is asked for it before anything is made.
    Since(u64),
}

/// A job that may be out and is not to come about. No generation without it is taken for granted: one is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The job.
    pub job: JobId,
    /// The channel.
    pub channel: ChannelName,
    /// The oldest generation that may be out with the job.
    pub since: u64,
    /// The oldest generation that may be out without it again.
    pub from: u64,
    /// Generations from there on that may be out with it all the same: they continue one that was found.
    pub holds: Vec<u64>,
    /// The generation to make: it continues the newest one that is found, whatever that has.
    pub generation: u64,
}

impl Withdrawal {
    /// Says whether a generation, if it is out, has the job. The generation to make is told to the ledger first when it will.
    pub fn has_job(&self, generation: u64) -> bool {
        (self.since..self.from).contains(&generation) || self.holds.contains(&generation)
    }
}

/// What people want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "news", rename_all = "kebab-case")]
pub enum News {
    /// A policy is in force.
    PolicyAdopted {
        /// Its number.
        number: u64,
    },
    /// A job was accepted.
    Accepted {
        /// The job.
        job: JobId,
        /// What it builds.
        title: String,
    },
    /// A builder got a lease.
    Granted {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorName,
    },
    /// A sandbox started.
    Started {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
    },
    /// A builder is bound to a result.
    Committed {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
    },
    /// A builder showed its outputs to the coordinators.
    Revealed {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
    },
    /// An attempt ended without outputs.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
        /// Step, blame and words.
        why: String,
    },
    /// A builder did not want its lease.
    Declined {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
        /// Its words.
        why: String,
    },
    /// A lease ended because nobody renewed it.
    LeaseExpired {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
    },
    /// A report came under a lease that is over; it is kept as evidence only.
    LateReport {
        /// The job.
        job: JobId,
        /// The lease.
        lease: LeaseNumber,
        /// The builder.
        node: NodeId,
    },
    /// A builder's outputs differ from what was agreed.
    Dissent {
        /// The job.
        job: JobId,
        /// The builder.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorName,
        /// The first file that differs.
        file: String,
        /// SHA-256 that was agreed; none when the file is extra.
        agreed: Option<Sha256>,
        /// SHA-256 of the dissenter; none when the file is missing.
        got: Option<Sha256>,
    },
    /// Others contradicted a builder: it gets no leases for a while.
    Quarantined {
        /// The job that shows it.
        job: JobId,
        /// The builder.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorName,
        /// Kind and architecture.
        class: String,
        /// Until when.
        until: Timestamp,
    },
    /// Others contradicted a builder too often: it gets only jobs with a known answer.
    Disabled {
        /// The job that shows it.
        job: JobId,
        /// The builder.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorName,
        /// Kind and architecture, or `every`.
        class: String,
    },
    /// A builder has shown that it works: it gets leases again.
    Restored {
        /// The job that shows it.
        job: JobId,
        /// The builder.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorName,
        /// Kind and architecture.
        class: String,
    },
    /// The attestations add up to a verdict.
    Verdict {
        /// The job.
        job: JobId,
        /// `reproduced`, `disputed`, `unreproducible` or `failed`.
        word: String,
        /// One sentence.
        why: String,
    },
    /// The job's outputs are in the repository.
    Published {
        /// The job.
        job: JobId,
        /// The channel.
        channel: ChannelName,
        /// The repository's generation.
        generation: u64,
    },
    /// Publishing did not work.
    PublishFailed {
        /// The job.
        job: JobId,
        /// The publisher's words.
        why: String,
        /// When it is tried again; none when it was the last time.
        again: Option<Timestamp>,
    },
    /// The maintainer ordered something else.
    Ordered {
        /// The job.
        job: JobId,
        /// What: `suspend`, `resume`, `retry` or `give priority 7 to`.
        what: String,
        /// Who.
        by: String,
        /// The words.
        reason: String,
    },
    /// The maintainer ended the job.
    Cancelled {
        /// The job.
        job: JobId,
        /// The maintainer's words.
        reason: String,
    },
    /// A job that it waits for did not end well.
    Skipped {
        /// The job.
        job: JobId,
        /// The one that it waits for.
        of: JobId,
        /// One sentence.
        why: String,
    },
    /// A server job did what it was asked.
    Served {
        /// The job.
        job: JobId,
        /// The repository's generation; zero when nothing was changed.
        generation: u64,
        /// What came of it, in one sentence.
        summary: String,
    },
    /// A server job could not do it.
    ServeFailed {
        /// The job.
        job: JobId,
        /// The publisher's words.
        why: String,
        /// When it is tried again; none when it was the last time.
        again: Option<Timestamp>,
    },
    /// The job's time is over.
    JobExpired {
        /// The job.
        job: JobId,
    },
}
