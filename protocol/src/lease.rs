//! Leases: the right to run one attempt until a time, with a number that only grows.

use serde::{Deserialize, Serialize};

use crate::{JobId, NodeId, Timestamp};

/// A lease's number: unique in the network and only growing, so an older one can be refused (fencing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseNumber(pub u64);

impl std::fmt::Display for LeaseNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A coordinator's term of office: each leader has a higher one than every leader before, so that orders of a former one can
/// be refused (fencing).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Which variation an attempt runs under: 0 is plain, each further one differs from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Profile(pub u16);

/// The right of one node to run one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The builder.
    pub node: NodeId,
    /// The fencing number.
    pub number: LeaseNumber,
    /// When the lease ends if nobody renews it.
    pub expires: Timestamp,
    /// The variation to build under.
    pub profile: Profile,
    /// Memory that the attempt may use, in MiB: what the builder's slot must have room for.
    pub memory_mib: u32,
}
