//! What a maintainer orders for a job after it was submitted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Priority;
use crate::{
    JobId, Timestamp,
    envelope::{Record, Signers},
};

/// Bytes of the reason.
const REASON_MAX: usize = 1024;

/// What is to become of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It ends, and every copy that runs is stopped.
    Cancel,
    /// It rests: copies that run are stopped, and none begins.
    Suspend,
    /// It rests no longer.
    Resume,
    /// It ended badly and begins again.
    Retry,
    /// It is more or less urgent than it was.
    Reprioritise(Priority),
}

/// A maintainer's signed order for one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// When the maintainer signed: an older order than the newest applied one is refused.
    pub at: Timestamp,
    /// The job.
    pub job: JobId,
    /// What is to become of it.
    pub what: Change,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Cancel => f.write_str("cancel"),
            Change::Suspend => f.write_str("suspend"),
            Change::Resume => f.write_str("resume"),
            Change::Retry => f.write_str("retry"),
            Change::Reprioritise(priority) => write!(f, "give priority {} to", priority.0),
        }
    }
}

impl Record for Order {
    const KIND: &'static str = "order";
    const LIMIT: usize = 4096;
    const SIGNERS: Signers = Signers::People;

    fn check(&self) -> Result<(), String> {
        if let Change::Reprioritise(priority) = self.what
            && priority > Priority::MAX
        {
            return Err("a priority is 0 to 9".into());
        }
        if self.reason.len() > REASON_MAX {
            return Err(format!("the reason has at most {REASON_MAX} bytes"));
        }
        Ok(())
    }
}
