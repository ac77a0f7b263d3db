//! Keys that count no more: whose they were stands in earlier policies, from where on they do not count stands here.
//!
//! A place is one in the transparency log: what was logged before it stays good, so a key that was lost yesterday takes nothing
//! of last year with it. What is revoked stays so, in every later policy, and has no part in one: who goes on takes a new key.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Coordinators, Policy, SuccessionError};
use crate::{NodeId, PublicKey, envelope::check_set, limits};

/// A revoked key: of a node (a builder's, a mirror's, a coordinator's), a maintainer or a root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// The key; revocations are sorted by it.
    pub key: PublicKey,
    /// The place in the log from which on its signatures do not count; 0 when they never did.
    pub from: u64,
    /// Why, in words.
    pub reason: String,
}

impl Policy {
    /// Finds the revocation of a key.
    pub fn revocation(&self, key: &PublicKey) -> Option<&Revoked> {
        self.revoked.binary_search_by_key(key, |revoked| revoked.key).ok().map(|at| &self.revoked[at])
    }

    /// Finds the revocation of a node's key.
    pub fn node_revocation(&self, node: &NodeId) -> Option<&Revoked> {
        self.revocation(&PublicKey::from(*node))
    }

    /// Gives the revocations that an earlier policy had not, or had from a later place on.
    pub fn revoked_since<'a>(&'a self, earlier: &Policy) -> impl Iterator<Item = &'a Revoked> {
        self.revoked.iter().filter(move |new| earlier.revocation(&new.key).is_none_or(|old| new.from < old.from))
    }

    /// Gives this policy as it counts at a place of the log: without the parts of keys that `newest` revokes from there on or
    /// before. Such a policy is for judging what was said under it; it may break rules of policies.
    pub fn without_revoked(&self, newest: &Policy, place: u64) -> Cow<'_, Policy> {
        let over = |key: &PublicKey| newest.revocation(key).is_some_and(|revoked| revoked.from <= place);
        if !self.parts().any(|(key, _)| over(&key)) {
            return Cow::Borrowed(self);
        }
        let gone = |node: &NodeId| over(&PublicKey::from(*node));
        let mut policy = self.clone();
        policy.roots.keys.retain(|key| !over(key));
        policy.maintainers.retain(|maintainer| !over(&maintainer.key));
        policy.operators.iter_mut().for_each(|operator| operator.nodes.retain(|node| !gone(node)));
        policy.mirrors.retain(|node| !gone(node));
        let left = self.coordinators.candidates().iter().filter(|node| !gone(node)).copied();
        policy.coordinators = Coordinators::Elected(left.collect());
        Cow::Owned(policy)
    }

    /// Gives every key that has a part in this policy, with the part.
    fn parts(&self) -> impl Iterator<Item = (PublicKey, &'static str)> {
        let node = |part: &'static str| move |node: &NodeId| (PublicKey::from(*node), part);
        let builders = self.operators.iter().flat_map(|operator| &operator.nodes);
        let maintainers = self.maintainers.iter().map(|maintainer| (maintainer.key, "a maintainer"));
        (self.roots.keys.iter().map(|key| (*key, "a root")))
            .chain(maintainers)
            .chain(builders.map(node("an operator's node")))
            .chain(self.mirrors.iter().map(node("a mirror")))
            .chain(self.coordinators.candidates().iter().map(node("a coordinator")))
    }

    pub(super) fn check_revoked(&self) -> Result<(), String> {
        let keys: Vec<_> = self.revoked.iter().map(|revoked| revoked.key).collect();
        check_set("revoked", &keys, limits::POLICY_ENTRIES_MAX)?;
        for Revoked { key, reason, .. } in &self.revoked {
            if reason.is_empty() || reason.len() > limits::REASON_MAX || reason.contains(char::is_control) {
                let max = limits::REASON_MAX;
                return Err(format!("the revocation of {key} needs a reason: one line of at most {max} bytes"));
            }
        }
        match self.parts().find(|(key, _)| self.revocation(key).is_some()) {
            None => Ok(()),
            Some((key, part)) => Err(format!("{key} is revoked and is {part}: a revoked key has no part any more")),
        }
    }

    /// Checks that a successor takes no revocation back, in whole or in part.
    pub(super) fn check_still_revoked(&self, next: &Policy) -> Result<(), SuccessionError> {
        for Revoked { key, from, .. } in &self.revoked {
            match next.revocation(key) {
                None => return Err(SuccessionError::TakenBack { key: *key }),
                Some(again) if again.from > *from => {
                    return Err(SuccessionError::RevokedLater { key: *key, from: again.from, before: *from });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
