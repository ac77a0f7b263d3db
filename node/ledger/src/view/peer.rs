//! What a node has shown, and the evidence for whatever keeps it from leases. It reads the ledger and changes nothing.

use protocol::{JobId, NodeId, OperatorName, Timestamp, lease::LeaseNumber};
use serde::Serialize;

use crate::{
    Ledger,
    reputation::{Contradiction, Hindrance},
};

/// One node, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerView {
    /// The node.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorName,
    /// The breach of isolation that stopped it, where there was one.
    pub breach: Option<BreachView>,
    /// What it has shown, by class of jobs; empty when it has shown nothing.
    pub classes: Vec<ClassView>,
}

/// A build that broke out of a node's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreachView {
    /// When it was reported.
    pub at: Timestamp,
    /// The job.
    pub job: JobId,
    /// The lease.
    pub lease: LeaseNumber,
}

/// What a node has shown in one class of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassView {
    /// Kind and architecture.
    pub class: String,
    /// Why it gets no lease now; none when it gets some.
    pub hindrance: Option<Hindrance>,
    /// The same in one sentence.
    pub why: String,
    /// When others last built the same.
    pub proof: Option<Timestamp>,
    /// Builds that others agreed with, in thousandths: each counts half after a day.
    pub validated_milli: u64,
    /// Contradictions, in thousandths: each counts half after a day.
    pub contradicted_milli: u64,
    /// Contradictions since the last build that others agreed with.
    pub strikes: u32,
    /// Failures that nobody has confirmed or contradicted so far.
    pub pending: Vec<LeaseNumber>,
    /// The job with a known answer that it builds now.
    pub canary: Option<JobId>,
    /// What contradicts it, the oldest first.
    pub evidence: Vec<Contradiction>,
}

impl Ledger {
    /// Gives what a node has shown; `None` when no operator of the policy answers for it.
    pub fn peer(&self, node: NodeId, at: Timestamp) -> Option<PeerView> {
        let operator = self.peers.operator(&node)?.clone();
        let (classes, breach) = self.reputation.view(&operator, node, at);
        Some(PeerView { node, operator, breach, classes })
    }
}
