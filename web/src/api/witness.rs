//! What a witness says, and what people see of a log that was forked.

use protocol::{Hash, NodeId};
use serde::{Deserialize, Serialize};

use super::Time;

/// A witness's answer, as HTTP gives it (C2SP tlog-witness, `add-checkpoint`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessAnswer {
    /// The status code.
    pub status: u16,
    /// The content type of the body.
    pub content_type: String,
    /// Signature lines, the latest size, or a sentence.
    pub body: String,
}

/// A checkpoint that the log has signed, while nobody shows what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtView {
    /// Since when nobody does.
    pub since: Time,
    /// How many entries the checkpoint has.
    pub size: u64,
    /// Who told it.
    pub from: NodeId,
}

/// Evidence that the network's log was forked by who may sign it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// When this node found it, or was told.
    pub found: Time,
    /// The sizes of the two checkpoints that no log has both, the older one first.
    pub sizes: [u64; 2],
    /// BLAKE3 of the evidence.
    pub evidence: Hash,
}
