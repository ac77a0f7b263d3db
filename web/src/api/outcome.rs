//! What the transparency log says of a job's attempts.

use protocol::{Hash, NodeId, OperatorName, lease::LeaseNumber};
use serde::{Deserialize, Serialize};

/// What the log says of one attempt. The job's bundle proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedAttempt {
    /// The lease.
    pub number: LeaseNumber,
    /// The builder.
    pub node: NodeId,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// How it ended: `built`, `failed`, `interrupted`, `nothing came`, `withheld` (committed to and not shown), `declined` or `taken back`; absent while nothing says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What the builder signed: the hash of its attestation, or of its statement that there are no outputs, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Hash>,
    /// What it had committed to before anybody could see a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Hash>,
    /// The place of the log's last entry about it.
    pub entry: u64,
}

impl LoggedAttempt {
    /// Gives the builder for people.
    pub fn who(&self) -> String {
        self.operator.as_ref().map_or_else(|| self.node.short().to_string(), ToString::to_string)
    }

    /// Says how it ended, gaps included.
    pub fn words(&self) -> &str {
        self.outcome.as_deref().unwrap_or("no outcome")
    }
}
