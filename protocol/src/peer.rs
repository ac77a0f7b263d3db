//! Node cards: what a node says of itself.

use serde::{Deserialize, Serialize};

use crate::{
    Arch, NodeId, Timestamp,
    envelope::{Record, check_set},
    job::Isolation,
    lease::Term,
    limits,
    words::HostRule,
};

/// Rules of hosts on one card, which is small.
pub const HOSTS_MAX: usize = 64;
/// Bytes of the reason for draining.
pub const DRAINING_MAX: usize = 256;

/// What a builder offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Whom it fetches from, sorted; without any it takes no fetch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<HostRule>,
    /// Attempts at one time.
    pub slots: u16,
    /// Architectures that run natively, sorted.
    pub arches: Vec<Arch>,
    /// Free disk for builds, in MiB.
    pub disk_mib: u32,
    /// The lightest isolation that its owner allows.
    #[serde(default, skip_serializing_if = "Isolation::is_rootfs")]
    pub isolation: Isolation,
    /// Memory for builds, in MiB.
    pub memory_mib: u32,
}

/// A node's signed card, renewed before it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCard {
    /// The node; the card is signed by it.
    pub node: NodeId,
    /// The roles that it plays, sorted: `builder`, `coordinator`, `mirror`.
    pub roles: Vec<String>,
    /// When the card ends.
    pub expires: Timestamp,
    /// The version of artel that it runs.
    pub version: String,
    /// What it offers, when it builds.
    pub capacity: Option<Capacity>,
    /// Why it takes nothing new, while it drains.
    pub draining: Option<String>,
    /// A later card has a higher number.
    pub sequence: u64,
    /// Where it can be reached (libp2p multiaddrs).
    pub addresses: Vec<String>,
}

impl Record for NodeCard {
    const KIND: &'static str = "node";
    const LIMIT: usize = limits::GOSSIP_MAX;

    fn check(&self) -> Result<(), String> {
        check_set("roles", &self.roles, 8)?;
        if let Some(capacity) = &self.capacity {
            check_set("hosts of fetches", &capacity.fetch, HOSTS_MAX)?;
        }
        if self.addresses.len() > 16 || self.addresses.iter().any(|a| a.len() > 256) {
            return Err("at most 16 addresses of at most 256 bytes".into());
        }
        if self.draining.as_ref().is_some_and(|reason| reason.len() > DRAINING_MAX) {
            return Err(format!("the reason for draining has at most {DRAINING_MAX} bytes"));
        }
        if self.version.len() > 64 { Err("the version has at most 64 bytes".into()) } else { Ok(()) }
    }
}

/// A coordinator's signed word that it leads, said when its term begins and again every few seconds. The highest term counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leadership {
    /// When this was said.
    pub at: Timestamp,
    /// The leader; the record is signed by it.
    pub node: NodeId,
    /// Its term.
    pub term: Term,
    /// When the term began.
    pub since: Timestamp,
}

impl Record for Leadership {
    const KIND: &'static str = "leadership";
    const LIMIT: usize = 4096;

    fn check(&self) -> Result<(), String> {
        if self.since > self.at { Err("the term begins after it was announced".into()) } else { Ok(()) }
    }
}
