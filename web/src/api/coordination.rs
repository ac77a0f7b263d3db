//! Views of the coordinators: who leads, since when, and how far each member is.

use std::fmt;

use protocol::{Hash, NodeId, lease::Term};
use serde::{Deserialize, Serialize};

use super::Time;

/// Whether enough coordinators can be reached to decide anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Majority {
    /// A leader is followed by a majority.
    Reachable,
    /// Nobody leads just now; an election settles it.
    Unsettled,
    /// Fewer than a majority can be reached: nothing is accepted and nothing published until more come back.
    Missing,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Majority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Majority::Reachable => "a majority follows",
            Majority::Unsettled => "nobody leads just now; an election settles it",
            Majority::Missing => "no majority can be reached: nothing is accepted or published until more come back",
            Majority::Unknown => "unknown",
        })
    }
}

/// What a member is in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// It orders.
    Leader,
    /// It follows and votes.
    Follower,
    /// It follows without a vote, until it has caught up.
    Learner,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl MemberRole {
    /// Gives the word.
    pub const fn word(self) -> &'static str {
        match self {
            MemberRole::Leader => "leader",
            MemberRole::Follower => "follower",
            MemberRole::Learner => "learner",
            MemberRole::Unknown => "unknown",
        }
    }
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// What it is in the group.
    pub role: MemberRole,
    /// The newest entry of its log that is known to agree with the leader's; absent when it has not answered in this term, or
    /// the node that was asked does not lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
    /// The newest entry that its ledger contains; known of the node that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// A digest of everything that it applied up to there: members with equal digests have equal ledgers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Hash>,
}

/// Who coordinates, and how the group is, as the node that was asked sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordination {
    /// When this view was made, by the node's clock.
    pub at: Time,
    /// The newest term that it knows.
    pub term: Term,
    /// Who leads in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whether a majority can be reached.
    pub majority: Majority,
    /// Why this coordinator's log cannot be written, in words; absent while it can, and where no coordinator was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The members, by id.
    #[serde(default)]
    pub members: Vec<MemberView>,
}
