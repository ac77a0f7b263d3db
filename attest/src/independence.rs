//! Independence: one operator, one vote, however many nodes it runs.
//!
//! A node that no operator of the policy answers for has no vote. An operator whose votes contradict each other counts
//! for no group and is named. Nothing here says how many votes are enough; [`crate::threshold`] does.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Hash, NodeId, OperatorName,
    lease::{LeaseNumber, Profile},
    policy::Policy,
};
use serde::{Deserialize, Serialize};

use crate::{
    compare::{self, Output},
    statement::VerifiedAttestation,
};

/// What one attempt says for its operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The builder.
    pub node: NodeId,
    /// The attempt's lease.
    pub lease: LeaseNumber,
    /// The outputs.
    pub outputs: Vec<Output>,
    /// The variation that the attempt ran under.
    pub profile: Profile,
    /// Who answers for the builder.
    pub operator: OperatorName,
}

impl Vote {
    /// Gives the vote of an attestation, or nothing where no operator of the policy answers for its builder.
    pub fn of(policy: &Policy, attestation: &VerifiedAttestation) -> Option<Self> {
        let run = &attestation.get().run;
        let operator = policy.operator_of(&attestation.signer())?.clone();
        let outputs = attestation.get().outputs.clone();
        Some(Self { operator, node: run.node, lease: run.lease, profile: run.profile, outputs })
    }

    /// Gives the digest of the vote's outputs.
    pub fn digest(&self) -> Hash {
        compare::digest(&self.outputs)
    }
}

/// Operators that say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The digest of the outputs.
    pub digest: Hash,
    /// The outputs.
    pub outputs: Vec<Output>,
    /// The variations under which they came out.
    pub profiles: BTreeSet<Profile>,
    /// The operators, each once.
    pub operators: BTreeSet<OperatorName>,
}

/// Votes, counted by operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Groups of operators that agree, the largest first; equal ones in the order of their digests.
    pub groups: Vec<Group>,
    /// Operators that said two things.
    pub contradictory: BTreeSet<OperatorName>,
}

impl Count {
    /// Counts votes. The order of the votes and repetitions of one vote change nothing.
    pub fn of(votes: &[Vote]) -> Self {
        let votes: Vec<(Hash, &Vote)> = votes.iter().map(|vote| (vote.digest(), vote)).collect();
        let mut said: BTreeMap<&OperatorName, BTreeSet<Hash>> = BTreeMap::new();
        for (digest, vote) in &votes {
            said.entry(&vote.operator).or_default().insert(*digest);
        }
        let contradictory: BTreeSet<OperatorName> =
            said.iter().filter(|(_, digests)| digests.len() > 1).map(|(operator, _)| (*operator).clone()).collect();
        let mut groups: BTreeMap<Hash, Group> = BTreeMap::new();
        for (digest, vote) in votes.iter().filter(|(_, vote)| !contradictory.contains(&vote.operator)) {
            let group = groups.entry(*digest).or_insert_with(|| Group {
                digest: *digest,
                outputs: vote.outputs.clone(),
                profiles: BTreeSet::new(),
                operators: BTreeSet::new(),
            });
            group.operators.insert(vote.operator.clone());
            group.profiles.insert(vote.profile);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.operators.len()));
        Self { groups, contradictory }
    }

    /// Gives every operator that voted.
    pub fn operators(&self) -> BTreeSet<&OperatorName> {
        self.groups.iter().flat_map(|group| &group.operators).chain(&self.contradictory).collect()
    }

    /// Gives the largest number of operators that agree.
    pub fn largest(&self) -> usize {
        self.groups.first().map_or(0, |group| group.operators.len())
    }
}
