//! The policy: the signed, versioned document that says who may do what in a network.
//!
//! A network is its first policy: [`crate::NetworkId`] is the hash of the genesis payload. A new version carries the
//! network's id, a higher number, an expiry, and the signatures of a threshold of the *previous* version's roots.

mod revoked;

use serde::{Deserialize, Serialize};

use crate::{
    Arch, ChannelName, MaintainerName, NetworkId, NodeId, OperatorName, PublicKey, SuiteName, Timestamp, Verified,
    envelope::{Record, Signers, check_set},
    limits,
    words::NetworkName,
};

pub use revoked::Revoked;

/// The keys that may change the policy, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// Root keys, sorted.
    pub keys: Vec<PublicKey>,
    /// Signatures that a new policy needs.
    pub threshold: u8,
}

/// Who orders: one pinned node, or several that elect a leader among themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coordinators {
    /// Always this node.
    Pinned(NodeId),
    /// One of these nodes, sorted.
    Elected(Vec<NodeId>),
}

impl Coordinators {
    /// Gives every node that may coordinate.
    pub fn candidates(&self) -> &[NodeId] {
        match self {
            Coordinators::Pinned(node) => std::slice::from_ref(node),
            Coordinators::Elected(nodes) => nodes,
        }
    }
}

/// Who answers for nodes. One operator has one vote, however many nodes it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The operator's name; operators are sorted by it.
    pub name: OperatorName,
    /// The operator's nodes, sorted. No node has two operators.
    pub nodes: Vec<NodeId>,
}

/// Whose signature makes a job request valid, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintainer {
    /// The signing key. No key stands twice.
    pub key: PublicKey,
    /// The maintainer's name.
    pub name: MaintainerName,
    /// Channels that the maintainer may submit to, sorted.
    pub channels: Vec<ChannelName>,
}

/// A channel: what is built there and how many operators must agree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Operators that are asked first (n).
    pub ask: u8,
    /// The channel's name; channels are sorted by it.
    pub name: ChannelName,
    /// Operators that must agree bit for bit (k). 1 means unverified.
    pub agree: u8,
    /// The suite of the channel's repository.
    pub suite: SuiteName,
    /// Architectures that are built, sorted.
    pub arches: Vec<Arch>,
    /// Operators that are asked at most, one more at a time after the first n differ.
    pub ask_max: u8,
    /// Operators of whom a witness must have seen the log that names a release, before the release counts; 0 asks for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub witnesses: u8,
    /// How long the repository's signed index stays valid, in seconds.
    pub valid_secs: u32,
    /// Operators that must report the same failing step before a job has failed.
    pub fail_quorum: u8,
    /// Whether jobs need an environment that was made here as an image, by as many operators as must agree.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attested_environments: bool,
}

/// Limits that all nodes of a network share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkLimits {
    /// Jobs that one maintainer may have open.
    pub open_jobs: u32,
    /// The longest wall time that a request may ask for, in seconds.
    pub build_secs: u32,
    /// The largest single output file, in MiB.
    pub output_mib: u32,
}

/// The policy's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The network's name, for people.
    pub name: NetworkName,
    /// Root keys and threshold for the *next* version.
    pub roots: Roots,
    /// Shared limits.
    pub limits: NetworkLimits,
    /// The version; the genesis is 1.
    pub number: u64,
    /// When this version ends. An expired policy accepts and publishes nothing.
    pub expires: Timestamp,
    /// Nodes that follow and serve releases without building, sorted. They have no vote.
    pub mirrors: Vec<NodeId>,
    /// The network; absent only in the genesis.
    pub network: Option<NetworkId>,
    /// Keys that count no more, sorted. A later version has them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoked>,
    /// Channels, sorted by name.
    pub channels: Vec<Channel>,
    /// Addresses (libp2p multiaddrs, with `/p2p/`) that a new node dials first.
    pub bootstrap: Vec<String>,
    /// Operators, sorted by name.
    pub operators: Vec<Operator>,
    /// Maintainers, sorted by key.
    pub maintainers: Vec<Maintainer>,
    /// Who orders.
    pub coordinators: Coordinators,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Record for Policy {
    const KIND: &'static str = "policy";
    const LIMIT: usize = limits::POLICY_MAX;
    const SIGNERS: Signers = Signers::People;

    fn check(&self) -> Result<(), String> {
        let max = limits::POLICY_ENTRIES_MAX;
        check_set("roots", &self.roots.keys, limits::SIGNATURES_MAX)?;
        if self.roots.threshold == 0 || usize::from(self.roots.threshold) > self.roots.keys.len() {
            return Err(format!("the threshold must be 1 to {}", self.roots.keys.len()));
        }
        if self.number == 0 || (self.number == 1) != self.network.is_none() {
            return Err("version 1, and only it, has no network id".into());
        }
        check_set("channels", &self.channels.iter().map(|c| &c.name).collect::<Vec<_>>(), max)?;
        check_set("operators", &self.operators.iter().map(|o| &o.name).collect::<Vec<_>>(), max)?;
        check_set("maintainers", &self.maintainers.iter().map(|m| m.key).collect::<Vec<_>>(), max)?;
        if self.coordinators.candidates().is_empty() || self.coordinators.candidates().len() > 7 {
            return Err("one to seven nodes may coordinate".into());
        }
        check_set("coordinators", self.coordinators.candidates(), 7)?;
        check_set("mirrors", &self.mirrors, max)?;
        if self.bootstrap.len() > 64 || self.bootstrap.iter().any(|a| a.len() > 512) {
            return Err("at most 64 bootstrap addresses of at most 512 bytes".into());
        }
        self.channels.iter().try_for_each(Channel::check)?;
        self.check_witnesses()?;
        self.check_operators()?;
        self.check_revoked()
    }
}

impl Channel {
    fn check(&self) -> Result<(), String> {
        check_set("architectures of a channel", &self.arches, Arch::EVERY.len())?;
        let order = 1 <= self.agree && self.agree <= self.ask && self.ask <= self.ask_max;
        if !order || self.fail_quorum == 0 || self.fail_quorum > self.ask_max {
            return Err(format!(
                "channel {}: 1 <= agree <= ask <= ask_max and 1 <= fail_quorum <= ask_max must hold",
                self.name
            ));
        }
        Ok(())
    }
}

impl Policy {
    fn check_witnesses(&self) -> Result<(), String> {
        let operators = self.operators.len();
        match self.channels.iter().find(|channel| usize::from(channel.witnesses) > operators) {
            None => Ok(()),
            Some(Channel { name, witnesses, .. }) => {
                Err(format!("channel {name}: {witnesses} witnesses are asked for, and there are {operators} operators"))
            }
        }
    }

    fn check_operators(&self) -> Result<(), String> {
        let mut nodes: Vec<NodeId> = Vec::new();
        for operator in &self.operators {
            check_set("nodes of an operator", &operator.nodes, limits::POLICY_ENTRIES_MAX)?;
            nodes.extend(&operator.nodes);
        }
        nodes.sort();
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("node {} has two operators", pair[0]));
        }
        Ok(())
    }

    /// Finds a channel by name.
    pub fn channel(&self, name: &ChannelName) -> Option<&Channel> {
        self.channels.iter().find(|c| c.name == *name)
    }

    /// Finds who answers for a node.
    pub fn operator_of(&self, node: &NodeId) -> Option<&OperatorName> {
        self.operators.iter().find(|o| o.nodes.binary_search(node).is_ok()).map(|o| &o.name)
    }

    /// Finds the maintainer that a key belongs to.
    pub fn maintainer(&self, key: &PublicKey) -> Option<&Maintainer> {
        self.maintainers.iter().find(|m| m.key == *key)
    }

    /// Says whether a node belongs to the network: an operator's node, a mirror or a candidate for coordination.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.coordinators.candidates().contains(node)
            || self.operator_of(node).is_some()
            || self.mirrors.binary_search(node).is_ok()
    }
}

/// Why a new policy was not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// The number does not rise.
    #[error("policy number {got} is not above {current}")]
    NotNewer {
        /// The number offered.
        got: u64,
        /// The number in force.
        current: u64,
    },
    /// Too few of the previous roots signed.
    #[error("{got} of the previous policy's roots signed, {wanted} are needed")]
    TooFewRoots {
        /// Valid root signatures.
        got: usize,
        /// The previous threshold.
        wanted: u8,
    },
    /// Written for another network.
    #[error("the policy is for another network")]
    OtherNetwork,
    /// Its end has come.
    #[error("the policy expired")]
    Expired,
    /// A key that was revoked would be good again.
    #[error("key {key} is revoked in the policy in force and must stay so: keep its entry and use a new key")]
    TakenBack {
        /// The key.
        key: PublicKey,
    },
    /// A key would be good for longer than before.
    #[error("key {key} is revoked from place {before} of the log on: that may become earlier, not {from}")]
    RevokedLater {
        /// The key.
        key: PublicKey,
        /// The place offered.
        from: u64,
        /// The place in force.
        before: u64,
    },
}

/// Accepts a genesis policy: it must be signed by a threshold of its own roots.
///
/// # Errors
/// Too few root signatures, or expired.
pub fn check_genesis(policy: &Verified<Policy>, now: Timestamp) -> Result<NetworkId, SuccessionError> {
    check_signers(&policy.get().roots, policy, now)?;
    Ok(NetworkId::from(policy.id()))
}

/// Accepts a successor of the policy in force.
///
/// # Errors
/// See [`SuccessionError`].
pub fn check_successor(
    current: &Policy,
    network: &NetworkId,
    next: &Verified<Policy>,
    now: Timestamp,
) -> Result<(), SuccessionError> {
    if next.get().network != Some(*network) {
        return Err(SuccessionError::OtherNetwork);
    }
    if next.get().number <= current.number {
        return Err(SuccessionError::NotNewer { got: next.get().number, current: current.number });
    }
    check_signers(&current.roots, next, now)?;
    current.check_still_revoked(next.get())
}

fn check_signers(roots: &Roots, policy: &Verified<Policy>, now: Timestamp) -> Result<(), SuccessionError> {
    let got = policy.signers().iter().filter(|key| roots.keys.contains(key)).count();
    if got < usize::from(roots.threshold) {
        return Err(SuccessionError::TooFewRoots { got, wanted: roots.threshold });
    }
    if policy.get().expires <= now {
        return Err(SuccessionError::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
