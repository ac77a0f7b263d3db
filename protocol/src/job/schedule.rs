//! When and where a job may run, and with which others it was asked for, as its maintainer signs it.

use serde::{Deserialize, Serialize};

use super::Group;
use crate::{JobId, NodeId, Timestamp, envelope::check_set};

/// Nodes that one request may name, and jobs that it may wait for.
const NAMED_MAX: usize = 64;

/// How urgent a job is among the jobs of the same maintainer: 0 is last, 9 is first. It gives nobody a larger share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);
}

impl Default for Priority {
    /// Neither urgent nor idle: 5.
    fn default() -> Self {
        Self(5)
    }
}

/// When and where a job may run; by default now and anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The only nodes that may build it, sorted; empty means every node.
    pub only: Vec<NodeId>,
    /// Jobs that must end well before this one begins, sorted; when one of them fails, this one ends too.
    pub after: Vec<JobId>,
    /// The jobs that it was asked for with; none when it was asked for alone. It changes nothing of how it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Nodes that may not build it, sorted.
    pub without: Vec<NodeId>,
    /// How urgent it is.
    pub priority: Priority,
    /// It does not begin before this time.
    pub not_before: Option<Timestamp>,
}

impl Schedule {
    /// Says whether a node may build the job, as far as its maintainer is concerned.
    pub fn allows(&self, node: &NodeId) -> bool {
        (self.only.is_empty() || self.only.binary_search(node).is_ok()) && self.without.binary_search(node).is_err()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_set("nodes that may build", &self.only, NAMED_MAX)?;
        check_set("jobs to wait for", &self.after, NAMED_MAX)?;
        check_set("nodes that may not build", &self.without, NAMED_MAX)?;
        if self.only.iter().any(|node| self.without.contains(node)) {
            return Err("a node is both asked for and excluded".into());
        }
        if self.priority > Priority::MAX { Err("a priority is 0 to 9".into()) } else { Ok(()) }
    }
}
