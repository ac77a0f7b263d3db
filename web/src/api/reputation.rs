//! What a builder has shown, and the evidence for whatever keeps it from work.

use protocol::{Hash, JobId, NodeId, OperatorName, lease::LeaseNumber};
use serde::{Deserialize, Serialize};

use super::Time;

/// One builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerDetail {
    /// The node.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorName,
    /// The breach of isolation that stopped it for good, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach: Option<BreachDetail>,
    /// What it has shown, by kind and architecture; empty when it has shown nothing so far.
    #[serde(default)]
    pub classes: Vec<ClassDetail>,
}

/// A build that broke out of a node's sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreachDetail {
    /// When it was reported.
    pub at: Time,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub lease: LeaseNumber,
}

/// What a builder has shown in one class of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDetail {
    /// Kind and architecture.
    pub class: String,
    /// `free`, `resting`, `quarantined`, `disabled` or `breached`.
    pub state: String,
    /// Why it gets no work, in one sentence; empty when it gets some.
    #[serde(default)]
    pub why: String,
    /// When that ends, or when a job with a known answer may end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// When others last built the same as it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Time>,
    /// Builds that others agreed with, in thousandths: each counts half after a day.
    #[serde(default)]
    pub validated_milli: u64,
    /// Contradictions, in thousandths: each counts half after a day.
    #[serde(default)]
    pub contradicted_milli: u64,
    /// Contradictions since the last build that others agreed with.
    #[serde(default)]
    pub strikes: u32,
    /// Attempts whose failure nobody has confirmed or contradicted so far.
    #[serde(default)]
    pub pending: Vec<LeaseNumber>,
    /// The job with a known answer that it builds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<JobId>,
    /// What contradicts it, the oldest first.
    #[serde(default)]
    pub evidence: Vec<EvidenceView>,
}

/// What others saw otherwise than a builder said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// When it came out.
    pub at: Time,
    /// The job.
    pub job: JobId,
    /// The builder's attempt.
    pub lease: LeaseNumber,
    /// What the builder said.
    pub claim: String,
    /// Operators that agreed on the job's outputs instead.
    #[serde(default)]
    pub against: Vec<OperatorName>,
    /// Their attestations.
    #[serde(default)]
    pub attestations: Vec<Hash>,
}
