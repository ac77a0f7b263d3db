//! Jobs that the network does for itself: no builder is asked, the coordinator's publisher runs them. Like any job they are
//! signed, accepted once, and have a state and a log.

use serde::{Deserialize, Serialize};

use crate::{Arch, ChannelName, Hash, PackageName, Timestamp, envelope::check_set};

/// Packages that one request may name.
const PACKAGES_MAX: usize = 1024;

/// What to do with the repository of the request's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerJob {
    /// Take packages over from another channel, where enough operators agree for this one too.
    Promote(Promote),
    /// Take packages out.
    Prune(Prune),
    /// Begin, or fill up, a channel with what another one has.
    Derive(Derive),
    /// Say what is different between two repositories; it changes nothing.
    Diff(Diff),
}

/// Which packages to take over into the request's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The channel that has them.
    pub from: ChannelName,
    /// Their names, sorted; empty means every package that qualifies.
    pub packages: Vec<PackageName>,
}

/// Which packages to take out of the request's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prune {
    /// How many versions of each package and architecture stay, the newest first.
    pub keep: u16,
    /// Only what was published before this time.
    pub before: Option<Timestamp>,
    /// Only packages of these names, sorted; empty means every package.
    pub packages: Vec<PackageName>,
}

/// What to take over from the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// Only packages of these architectures, sorted; `all` is always among them; empty means those of the channel.
    pub arches: Vec<Arch>,
    /// The channel to derive from.
    pub parent: ChannelName,
    /// Only packages of these names, sorted; empty means every package.
    pub packages: Vec<PackageName>,
}

/// One generation of one channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The channel.
    pub channel: ChannelName,
    /// The generation; none means the newest.
    pub generation: Option<u64>,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.generation {
            Some(generation) => write!(f, "{}@{generation}", self.channel),
            None => write!(f, "{}", self.channel),
        }
    }
}

/// What to compare; one of the two is the request's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// What was.
    pub left: Side,
    /// What is.
    pub right: Side,
}

impl ServerJob {
    /// The words of all server jobs; `publish` is what the ledger derives from a build that was reproduced, `explain` from builds
    /// that differ.
    pub const WORDS: [&'static str; 6] = ["publish", "promote", "prune", "derive", "diff", "explain"];

    /// Gives the kind's word.
    pub fn word(&self) -> &'static str {
        match self {
            ServerJob::Promote(_) => "promote",
            ServerJob::Prune(_) => "prune",
            ServerJob::Derive(_) => "derive",
            ServerJob::Diff(_) => "diff",
        }
    }

    /// Gives what stands in the place of an environment lock: the hash of nothing, since nothing is built.
    pub fn environment() -> Hash {
        Hash::of(b"")
    }

    /// Says whether it makes a new generation.
    pub fn changes_repository(&self) -> bool {
        match self {
            ServerJob::Promote(_) | ServerJob::Prune(_) | ServerJob::Derive(_) => true,
            ServerJob::Diff(_) => false,
        }
    }

    /// Gives every channel that it reads beside the request's own.
    pub fn reads(&self) -> Vec<&ChannelName> {
        match self {
            ServerJob::Promote(promote) => vec![&promote.from],
            ServerJob::Prune(_) => Vec::new(),
            ServerJob::Derive(derive) => vec![&derive.parent],
            ServerJob::Diff(diff) => vec![&diff.left.channel, &diff.right.channel],
        }
    }

    /// Gives the channel that packages come from and says whether one of this name is meant, where packages are taken over.
    pub fn takes_over(&self) -> Option<(&ChannelName, &[PackageName])> {
        match self {
            ServerJob::Promote(promote) => Some((&promote.from, &promote.packages)),
            ServerJob::Derive(derive) => Some((&derive.parent, &derive.packages)),
            ServerJob::Prune(_) | ServerJob::Diff(_) => None,
        }
    }

    /// Says in one line what is done to a channel, for instance `promote testing to stable: hello`.
    pub fn title(&self, channel: &ChannelName) -> String {
        match self {
            ServerJob::Promote(p) => format!("promote {} to {channel}{}", p.from, names(&p.packages)),
            ServerJob::Prune(p) => format!("prune {channel}{}", names(&p.packages)),
            ServerJob::Derive(d) => format!("derive {channel} from {}{}", d.parent, names(&d.packages)),
            ServerJob::Diff(d) => format!("diff {} {}", d.left, d.right),
        }
    }

    pub(super) fn check(&self, channel: &ChannelName) -> Result<(), String> {
        let packages = |list: &[PackageName]| check_set("packages", list, PACKAGES_MAX);
        match self {
            ServerJob::Promote(promote) => {
                packages(&promote.packages)?;
                other_channel(channel, &promote.from)
            }
            ServerJob::Derive(derive) => {
                packages(&derive.packages)?;
                check_set("architectures", &derive.arches, 16)?;
                other_channel(channel, &derive.parent)
            }
            ServerJob::Prune(prune) => {
                packages(&prune.packages)?;
                if prune.keep == 0 && prune.packages.is_empty() && prune.before.is_none() {
                    return Err("this would take every package out: name packages, a time, or keep a version".into());
                }
                Ok(())
            }
            ServerJob::Diff(diff) => {
                if [&diff.left, &diff.right].iter().any(|side| side.generation == Some(0)) {
                    return Err("generations start at 1".into());
                }
                if diff.left.channel != *channel && diff.right.channel != *channel {
                    return Err("a comparison is asked for in one of the channels that it compares".into());
                }
                Ok(())
            }
        }
    }
}

fn other_channel(to: &ChannelName, from: &ChannelName) -> Result<(), String> {
    if to == from { Err(format!("channel {to} cannot take packages over from itself")) } else { Ok(()) }
}

/// Writes up to four names.
fn names(packages: &[PackageName]) -> String {
    let first: Vec<&str> = packages.iter().take(4).map(PackageName::as_str).collect();
    match packages.len() {
        0 => String::new(),
        1..=4 => format!(": {}", first.join(", ")),
        many => format!(": {} and {} more", first.join(", "), many - 4),
    }
}
