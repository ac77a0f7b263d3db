//! Which log a network has, and who may sign and see it: what its policy says, in the words of the log's formats.
//!
//! ```text
//!  network id   -> origin            artel/<network id>
//!  coordinators -> the log's keys    each member of the group signs the one log, by its node key
//!  operators    -> witnesses         each of their nodes, by its node key; one vote for each operator
//! ```
//! A node has one key for all that it says. What it signs as a coordinator, as a witness and in records can never be taken for
//! each other: a checkpoint begins with the origin, a cosignature with `cosignature/v1`, a record with `DSSEv1`.

use std::collections::BTreeMap;

use protocol::{NetworkId, NodeId, PublicKey, policy::Policy};

use super::{
    note::{Algorithm, KeyName, VerifierKey},
    policy::{self, PolicyError},
};

/// Gives the log's origin, which is the name of its keys, too.
///
/// # Panics
/// Never: an id is a word that names may have.
pub fn origin(network: &NetworkId) -> KeyName {
    format!("artel/{network}").parse().expect("an id has no character that a name may not have")
}

/// Gives the name of a node as a witness.
///
/// # Panics
/// Never: as [`origin`].
pub fn witness_name(node: &NodeId) -> KeyName {
    format!("artel/witness/{node}").parse().expect("an id has no character that a name may not have")
}

/// Gives the key with which a coordinator signs the log.
pub fn log_key(network: &NetworkId, coordinator: &NodeId) -> VerifierKey {
    VerifierKey::new(origin(network), Algorithm::Ed25519, PublicKey::from(*coordinator))
}

/// Gives the keys of the log under a policy.
pub fn log_keys(network: &NetworkId, policy: &Policy) -> Vec<VerifierKey> {
    policy.coordinators.candidates().iter().map(|node| log_key(network, node)).collect()
}

/// Gives the key with which a node cosigns.
pub fn witness_key(node: &NodeId) -> VerifierKey {
    VerifierKey::new(witness_name(node), Algorithm::Cosignature, PublicKey::from(*node))
}

/// Gives the log policy under which `quorum` operators must have seen a checkpoint: each by any of its nodes. None need to
/// for a quorum of 0.
///
/// # Errors
/// As [`policy::Policy::of_operators`]: more votes than operators with a node.
pub fn log_policy(network: &NetworkId, policy: &Policy, quorum: u8) -> Result<policy::Policy, PolicyError> {
    policy::Policy::read(log_policy_text(network, policy, quorum).as_bytes())
}

/// Writes [`log_policy`] as the file that programs of others read. Whether the quorum is one is not asked here.
pub fn log_policy_text(network: &NetworkId, policy: &Policy, quorum: u8) -> String {
    let logs = log_keys(network, policy);
    if quorum == 0 {
        let lines: String = logs.iter().map(|log| format!("log {log}\n")).collect();
        return format!("{lines}quorum none\n");
    }
    let witnesses: BTreeMap<_, Vec<_>> = policy
        .operators
        .iter()
        .filter(|operator| !operator.nodes.is_empty())
        .map(|operator| (operator.name.clone(), operator.nodes.iter().map(witness_key).collect()))
        .collect();
    policy::Policy::text_of_operators(&logs, &witnesses, usize::from(quorum))
}

#[cfg(test)]
mod tests;
