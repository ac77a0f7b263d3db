//! The policy as people write it: a TOML file, turned into the canonical record that roots sign.
//!
//! Lists may stand in any order here; the record's are sorted. It decides nothing: rules are the record's own, but for days that the
//! record has no seconds for.

pub mod changes;
mod key;

use std::{collections::BTreeMap, ops::RangeInclusive};

use protocol::{
    Arch, ChannelName, MaintainerName, NetworkId, NodeId, OperatorName, PublicKey, SuiteName,
    envelope::Record,
    policy::{self, Coordinators, NetworkLimits, Operator, Policy, Roots},
    words::NetworkName,
};
use serde::{Deserialize, Serialize};

use crate::clock;

/// How many days a signed index may stay valid: one that is not valid at all serves nobody, and ten years are more than any needs.
pub const VALID_DAYS: RangeInclusive<u16> = 1..=3650;

/// Why a policy file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or has words that we do not know.
    #[error("the policy file is not valid")]
    Form(#[source] Box<toml::de::Error>),
    /// A rule of policies does not hold.
    #[error("the policy is not acceptable: {0}")]
    Meaning(String),
}

/// Root keys in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootsEntry {
    /// Signatures that the next policy needs.
    pub threshold: u8,
    /// Root keys.
    #[serde(deserialize_with = "key::all")]
    pub keys: Vec<PublicKey>,
}

/// Who coordinates, in the file: one node is pinned, several elect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum CoordinatorsEntry {
    /// Always this node.
    Pinned(NodeId),
    /// One of these.
    Elected(Vec<NodeId>),
}

/// A maintainer in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintainerEntry {
    /// The maintainer's name.
    pub name: MaintainerName,
    /// The signing key.
    #[serde(deserialize_with = "key::one")]
    pub key: PublicKey,
    /// Channels that the maintainer may submit to.
    pub channels: Vec<ChannelName>,
}

/// A revoked key in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedEntry {
    /// The key, of a node, a maintainer or a root.
    #[serde(deserialize_with = "key::one")]
    pub key: PublicKey,
    /// The place in the log from which on it does not count.
    pub from: u64,
    /// Why, in words.
    pub reason: String,
}

/// A channel in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelEntry {
    /// The channel's name.
    pub name: ChannelName,
    /// The suite of its repository.
    pub suite: SuiteName,
    /// Architectures that are built.
    pub arches: Vec<Arch>,
    /// Operators that must agree bit for bit (k).
    pub agree: u8,
    /// Operators that are asked first (n).
    pub ask: u8,
    /// Operators that are asked at most.
    pub ask_max: u8,
    /// Operators that must report the same failing step.
    pub fail_quorum: u8,
    /// Operators of whom a witness must have seen a release logged; 0 asks for none.
    #[serde(default, skip_serializing_if = "ChannelEntry::is_zero")]
    pub witnesses: u8,
    /// Whether jobs need an environment that was made here as an image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attested_environments: bool,
    /// Days that the repository's signed index stays valid, see [`VALID_DAYS`].
    #[serde(default = "ChannelEntry::valid_days")]
    pub valid_days: u16,
}

impl ChannelEntry {
    fn valid_days() -> u16 {
        7
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_zero(number: &u8) -> bool {
        *number == 0
    }
}

/// A policy file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The network's name.
    pub name: NetworkName,
    /// The version.
    pub number: u64,
    /// When this version ends, as RFC 3339.
    pub expires: String,
    /// The network; absent only in version 1.
    pub network: Option<NetworkId>,
    /// Addresses that a new node dials first.
    #[serde(default)]
    pub bootstrap: Vec<String>,
    /// Nodes that follow and serve releases without building.
    #[serde(default)]
    pub mirrors: Vec<NodeId>,
    /// Root keys.
    pub roots: RootsEntry,
    /// Who coordinates.
    pub coordinators: CoordinatorsEntry,
    /// Shared limits.
    #[serde(default = "Charter::usual_limits")]
    pub limits: NetworkLimits,
    /// Operators and their nodes.
    #[serde(default)]
    pub operators: BTreeMap<OperatorName, Vec<NodeId>>,
    /// Maintainers.
    #[serde(default)]
    pub maintainers: Vec<MaintainerEntry>,
    /// Channels.
    #[serde(default)]
    pub channels: Vec<ChannelEntry>,
    /// Keys that count no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedEntry>,
}

impl Charter {
    /// Limits that suit most networks.
    pub fn usual_limits() -> NetworkLimits {
        NetworkLimits { open_jobs: 5000, build_secs: 24 * 3600, output_mib: 8 * 1024 }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// The parser's words, with line and column.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|e| Error::Form(Box::new(e)))
    }

    /// Writes a policy as a file.
    pub fn from_policy(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            number: policy.number,
            expires: clock::rfc3339(policy.expires),
            network: policy.network,
            mirrors: policy.mirrors.clone(),
            bootstrap: policy.bootstrap.clone(),
            roots: RootsEntry { threshold: policy.roots.threshold, keys: policy.roots.keys.clone() },
            coordinators: match &policy.coordinators {
                Coordinators::Pinned(node) => CoordinatorsEntry::Pinned(*node),
                Coordinators::Elected(nodes) => CoordinatorsEntry::Elected(nodes.clone()),
            },
            limits: policy.limits,
            operators: policy.operators.iter().map(|o| (o.name.clone(), o.nodes.clone())).collect(),
            maintainers: policy.maintainers.iter().map(maintainer_entry).collect(),
            channels: policy.channels.iter().map(channel_entry).collect(),
            revoked: policy.revoked.iter().map(revoked_entry).collect(),
        }
    }

    /// Gives the file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a policy has nothing that TOML cannot write")
    }

    /// Gives the record to sign, sorted and checked.
    ///
    /// # Errors
    /// The rule that does not hold.
    pub fn to_policy(&self) -> Result<Policy, Error> {
        let mut policy = Policy {
            name: self.name.clone(),
            roots: Roots { keys: sorted(&self.roots.keys), threshold: self.roots.threshold },
            limits: self.limits,
            number: self.number,
            expires: clock::parse(&self.expires).map_err(Error::Meaning)?,
            network: self.network,
            revoked: self.revoked.iter().map(revoked).collect(),
            channels: self.channels.iter().map(channel).collect::<Result<_, _>>()?,
            mirrors: sorted(&self.mirrors),
            bootstrap: self.bootstrap.clone(),
            operators: self.operators.iter().map(|(name, nodes)| operator(name, nodes)).collect(),
            coordinators: match &self.coordinators {
                CoordinatorsEntry::Pinned(node) => Coordinators::Pinned(*node),
                CoordinatorsEntry::Elected(nodes) => Coordinators::Elected(sorted(nodes)),
            },
            maintainers: self.maintainers.iter().map(maintainer).collect(),
        };
        policy.channels.sort_by(|a, b| a.name.cmp(&b.name));
        policy.maintainers.sort_by_key(|m| m.key);
        policy.revoked.sort();
        policy.check().map_err(Error::Meaning)?;
        Ok(policy)
    }
}

fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list
}

fn operator(name: &OperatorName, nodes: &[NodeId]) -> Operator {
    Operator { name: name.clone(), nodes: sorted(nodes) }
}

fn maintainer(entry: &MaintainerEntry) -> policy::Maintainer {
    policy::Maintainer { key: entry.key, name: entry.name.clone(), channels: sorted(&entry.channels) }
}

fn maintainer_entry(maintainer: &policy::Maintainer) -> MaintainerEntry {
    MaintainerEntry { name: maintainer.name.clone(), key: maintainer.key, channels: maintainer.channels.clone() }
}

fn revoked(entry: &RevokedEntry) -> policy::Revoked {
    policy::Revoked { key: entry.key, from: entry.from, reason: entry.reason.clone() }
}

fn revoked_entry(revoked: &policy::Revoked) -> RevokedEntry {
    RevokedEntry { key: revoked.key, from: revoked.from, reason: revoked.reason.clone() }
}

fn channel(entry: &ChannelEntry) -> Result<policy::Channel, Error> {
    if !VALID_DAYS.contains(&entry.valid_days) {
        let (least, most) = VALID_DAYS.into_inner();
        let got = entry.valid_days;
        return Err(Error::Meaning(format!("channel {}: valid_days is {got}, write {least} to {most}", entry.name)));
    }
    Ok(policy::Channel {
        ask: entry.ask,
        name: entry.name.clone(),
        agree: entry.agree,
        suite: entry.suite.clone(),
        arches: sorted(&entry.arches),
        ask_max: entry.ask_max,
        valid_secs: u32::from(entry.valid_days) * 86_400,
        fail_quorum: entry.fail_quorum,
        witnesses: entry.witnesses,
        attested_environments: entry.attested_environments,
    })
}

fn channel_entry(channel: &policy::Channel) -> ChannelEntry {
    ChannelEntry {
        name: channel.name.clone(),
        suite: channel.suite.clone(),
        arches: channel.arches.clone(),
        agree: channel.agree,
        ask: channel.ask,
        ask_max: channel.ask_max,
        fail_quorum: channel.fail_quorum,
        witnesses: channel.witnesses,
        attested_environments: channel.attested_environments,
        valid_days: u16::try_from(channel.valid_secs / 86_400).unwrap_or(u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::samples;

    use super::*;

    #[test]
    fn days_that_no_index_can_be_valid_are_refused_and_not_counted() {
        let with = |valid_days| {
            let mut charter = Charter::from_policy(&samples::genesis(3));
            charter.channels[0].valid_days = valid_days;
            charter.to_policy().map(|policy| policy.channels[0].valid_secs)
        };
        assert_eq!(with(1).unwrap(), 86_400);
        assert_eq!(with(3650).unwrap(), 315_360_000);
        for days in [0, 3651, 49_711, u16::MAX] {
            let words = with(days).unwrap_err().to_string();
            assert!(words.contains(&format!("valid_days is {days}, write 1 to 3650")), "{words}");
        }
    }
}
