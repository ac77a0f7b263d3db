//! Jobs that were asked for together: variants of one wish, each signed for itself.

use serde::{Deserialize, Serialize};

use crate::{FileName, Hash};

/// Which group a job belongs to, and as what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group: the same in the requests of all its jobs.
    pub id: Hash,
    /// What tells the job from the others of the group, for instance `arm64` or `amd64-nodoc`.
    pub variant: FileName,
}
