//! Views of the node and its network: status, peers, repositories, news, figures.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    Arch, ChannelName, Hash, JobId, NetworkId, NodeId, OperatorName, PublicKey, SuiteName, message::Octets,
    peer::DRAINING_MAX,
};
use serde::{Deserialize, Serialize};

use super::{ApiError, ConflictView, DoubtView, JobState, Time};

/// The network by id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network.
    pub id: NetworkId,
    /// Its name, for people.
    pub name: String,
}

/// The policy in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Its version.
    pub number: u64,
    /// When it ends.
    pub expires: Time,
}

/// Every version of the policy, the first one first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyHistory {
    /// Entries of the transparency log now; absent when no coordinator can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_size: Option<u64>,
    /// The versions.
    pub policies: Vec<PolicyRecord>,
}

/// One version of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Its number.
    pub number: u64,
    /// The place of its entry in the transparency log, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// When it came into force, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it ends, unless another one follows.
    pub expires: Time,
    /// The keys that signed it.
    pub signers: Vec<PublicKey>,
    /// The signed policy.
    pub envelope: Octets,
}

/// What the blob store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobUsage {
    /// Blobs.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that may be used; 0 when there is no quota.
    #[serde(default)]
    pub quota: u64,
}

/// What this node is and does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this view was made, by the node's clock.
    pub at: Time,
    /// This node.
    pub node: NodeId,
    /// Its network.
    pub network: NetworkView,
    /// The roles it plays.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Who coordinates, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<NodeId>,
    /// The policy in force.
    pub policy: PolicyView,
    /// Jobs by state; a state that is missing has none.
    #[serde(default)]
    pub jobs: BTreeMap<JobState, u64>,
    /// Peers connected now.
    #[serde(default)]
    pub peers: u64,
    /// The blob store.
    #[serde(default)]
    pub blobs: BlobUsage,
    /// Repositories that it serves.
    #[serde(default)]
    pub repositories: Vec<RepositoryView>,
    /// The version of artel.
    pub version: String,
    /// For how long it has been running, in seconds.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// libp2p addresses that it listens on, for tickets.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Why it takes no new job, while it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,
    /// Evidence that the network's log was forked; nothing of it is believed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictView>,
    /// Why it takes and cosigns nothing more that the log proves, while nobody shows what a checkpoint of the log belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<DoubtView>,
    /// By how many milliseconds the coordinators' clocks are ahead of its own, where that is more than half of what is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_behind: Option<i64>,
}

impl Status {
    /// Says in words how far the node's clock is off, where that hinders it.
    pub fn clock(&self) -> Option<String> {
        let behind = self.clock_behind?;
        let (by, how) = (Duration::from_millis(behind.unsigned_abs()), if behind < 0 { "ahead of" } else { "behind" });
        Some(format!("this node's clock is {} s {how} those of the coordinators", by.as_secs()))
    }
}

/// Whether this node takes new jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyView {
    /// Why it takes none, while it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,
    /// Attempts that run here now; a drain lets them end.
    #[serde(default)]
    pub running: u64,
}

/// What the owner says who has the node drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Why, for whoever waits for builders; at most [`protocol::peer::DRAINING_MAX`] bytes.
    #[serde(default)]
    pub reason: String,
}

impl DrainRequest {
    /// Checks the reason.
    ///
    /// # Errors
    /// [`ApiError::Refused`] when it is too long to be told on a node's card.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.reason.len() > DRAINING_MAX {
            let reason = format!("the reason has {} bytes, at most {DRAINING_MAX} are told", self.reason.len());
            return Err(ApiError::Refused { reason });
        }
        Ok(())
    }
}

/// A node that this one knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The node.
    pub node: NodeId,
    /// Who answers for it, by the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// The roles it says it plays.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Architectures that it builds for.
    #[serde(default)]
    pub arches: Vec<Arch>,
    /// Attempts that it runs at one time.
    #[serde(default)]
    pub slots: u16,
    /// Where it is connected; empty when it is not.
    #[serde(default)]
    pub address: String,
    /// Round trip in microseconds, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Since when it is connected; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The version of artel that it says it runs.
    #[serde(default)]
    pub version: String,
    /// Whether the policy names it.
    #[serde(default)]
    pub member: bool,
    /// Why it takes no new job, while it drains, by its own card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,
}

/// One channel's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// The channel: its files lie below `/repo/<channel>/`.
    pub channel: ChannelName,
    /// The suite.
    pub suite: SuiteName,
    /// The generation; 0 before the first publication.
    #[serde(default)]
    pub generation: u64,
    /// Binary packages in it.
    #[serde(default)]
    pub packages: u64,
    /// When it was published last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Time>,
    /// Until when its signed index is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
    /// The BLAKE3 of the newest release's manifest: its address under `/api/v1/blobs/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Hash>,
    /// The OpenPGP fingerprints of its own keyring, of which any may sign it; none when not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// When.
    pub at: Time,
    /// Which job.
    pub job: JobId,
    /// The state it is in now.
    pub state: JobState,
    /// One sentence, for people.
    pub text: String,
}

/// The answer to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The content's address.
    pub hash: Hash,
}

/// Figures of the node; the web server adds its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Jobs by state.
    #[serde(default)]
    pub jobs: BTreeMap<JobState, u64>,
    /// Leases that live now.
    #[serde(default)]
    pub leases: u64,
    /// Peers connected now.
    #[serde(default)]
    pub peers: u64,
    /// Bytes in the blob store.
    #[serde(default)]
    pub blob_bytes: u64,
    /// Whether the network's log was forked by who may sign it: 0 or 1.
    #[serde(default)]
    pub log_conflicts: u64,
    /// Whether nobody shows what a checkpoint of the network's log belongs to: 0 or 1.
    #[serde(default)]
    pub log_doubts: u64,
    /// Questions of strangers that this node handed on to coordinators, since it is up.
    #[serde(default)]
    pub relayed: u64,
    /// For how long the node has been running, in seconds.
    #[serde(default)]
    pub uptime_seconds: u64,
}
