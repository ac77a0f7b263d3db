//! Comparison: which files count, what a set of outputs is called, and which files differ between two sets.
//!
//! Files are compared bit for bit, by their digests. There is no tolerance here and nothing is normalised.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Hash, Sha256, codec, words::RelativePath};
use serde::{Deserialize, Serialize};

use crate::statement::Work;

/// One file that an attempt left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// BLAKE3: how peers ask each other for the file.
    pub hash: Hash,
    /// The file's name below the output directory.
    pub name: RelativePath,
    /// The file's size in bytes.
    pub size: u64,
    /// SHA-256: what Debian's indexes and in-toto name the file by.
    pub sha256: Sha256,
}

/// What a file of an attempt is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Compared with the other builders' files, and published.
    Output,
    /// Kept for people; never compared, since it names the builder's own circumstances.
    Byproduct,
}

/// Names of Debian's own byproducts: they hold dates, paths and environment variables of one build.
const DEB_BYPRODUCTS: [&str; 4] = [".buildinfo", ".changes", ".log", ".log.zst"];

/// Says which role a file has. A command's declared outputs all count; of a package's files all but the records about
/// the build.
pub fn role(work: &Work, name: &RelativePath) -> Role {
    match work {
        Work::Deb { .. } if DEB_BYPRODUCTS.iter().any(|end| name.as_str().ends_with(end)) => Role::Byproduct,
        Work::Deb { .. }
        | Work::Rpm { .. }
        | Work::Command { .. }
        | Work::Image { .. }
        | Work::Fetch { .. }
        | Work::Server => Role::Output,
    }
}

/// Gives the digest of a set of outputs: two sets have the same one exactly when every name, size and hash is the same.
pub fn digest(outputs: &[Output]) -> Hash {
    let set: BTreeSet<(&RelativePath, &Output)> = outputs.iter().map(|o| (&o.name, o)).collect();
    Hash::of(&codec::encode(&set.into_iter().map(|(_, output)| output).collect::<Vec<_>>()))
}

/// One file that is not the same in two sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Difference {
    /// Only the left set has it.
    OnlyLeft(Output),
    /// Only the right set has it.
    OnlyRight(Output),
    /// Both have it, with other contents.
    Content {
        /// The left set's file.
        left: Output,
        /// The right set's file.
        right: Output,
    },
}

impl Difference {
    /// Gives the name of the file that differs.
    pub fn name(&self) -> &RelativePath {
        match self {
            Difference::OnlyLeft(output) | Difference::OnlyRight(output) => &output.name,
            Difference::Content { left, .. } => &left.name,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::OnlyLeft(output) => write!(f, "{}: {} against no such file", output.name, output.sha256),
            Difference::OnlyRight(output) => write!(f, "{}: no such file against {}", output.name, output.sha256),
            Difference::Content { left, right } => write!(f, "{}: {} against {}", left.name, left.sha256, right.sha256),
        }
    }
}

/// Names the files that differ between two sets, in the order of their names.
pub fn differences(left: &[Output], right: &[Output]) -> Vec<Difference> {
    let (left, right) = (by_name(left), by_name(right));
    let names: BTreeSet<&RelativePath> = left.keys().chain(right.keys()).copied().collect();
    names.into_iter().filter_map(|name| difference(left.get(name).copied(), right.get(name).copied())).collect()
}

/// Gives a set's files by name. (Strangers choose how many files there are: no search per file.)
pub(crate) fn by_name(outputs: &[Output]) -> BTreeMap<&RelativePath, &Output> {
    outputs.iter().map(|output| (&output.name, output)).collect()
}

fn difference(left: Option<&Output>, right: Option<&Output>) -> Option<Difference> {
    match (left, right) {
        (Some(left), Some(right)) if left == right => None,
        (Some(left), Some(right)) => Some(Difference::Content { left: left.clone(), right: right.clone() }),
        (Some(left), None) => Some(Difference::OnlyLeft(left.clone())),
        (None, Some(right)) => Some(Difference::OnlyRight(right.clone())),
        (None, None) => None,
    }
}
