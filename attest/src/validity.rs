//! Whose key counted when: what the chain of policies says of a place in the log.
//!
//! ```text
//!  place   0 ........ 40 ............ 90 ........ 120
//!          policy 1 ->|  policy 2 --->| policy 3: revokes X from 70
//!  X, named in 1 and 2:  counts       |
//!          0 ................ 70 -----'  its entries from 70 on do not count, whatever policy 2 said at the time
//! ```
//! * In force at a place is the policy of the last entry up to there, its own entry's place included. Who is named only later, or
//!   no longer, does not count there.
//! * A revocation reaches back: the newest policy's list holds for every place, so a verifier needs the newest policy as well as
//!   the one of the time.
//! * The chain has no gaps: versions are numbered one after the other, so nobody can leave one out. That the last is the
//!   newest, it cannot tell; a checkpoint that witnesses have seen lately does, and a least number that somebody remembers.
//!
//! It does not check that an entry is in the log: whoever gives a place has seen the proof.

use protocol::{
    Hash, NetworkId, NodeId, OperatorName, PublicKey, Signed, Timestamp, Verified,
    envelope::EnvelopeError,
    policy::{self, Maintainer, Policy, Revoked, SuccessionError},
};

use crate::log::{entry, network, note::VerifierKey};

/// The policies of a network and the places of their entries in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    network: NetworkId,
    /// Never empty; numbers are consecutive, places rise.
    links: Vec<Link>,
}

/// A policy and where the log says that it came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The place of its entry.
    pub place: u64,
    /// The policy.
    pub policy: Verified<Policy>,
}

/// Why policies and their entries are no chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Nothing at all.
    #[error("there is no policy")]
    Empty,
    /// A policy that the log does not name.
    #[error("the log has no entry of policy {number} with these bytes")]
    NotLogged {
        /// Its number.
        number: u64,
    },
    /// A policy that does not verify.
    #[error("policy number {at} of the chain does not verify")]
    Envelope {
        /// Its place in the chain, from 1.
        at: usize,
        /// What does not.
        source: EnvelopeError,
    },
    /// A step that the roots did not allow.
    #[error("policy {number} does not follow")]
    Succession {
        /// Its number.
        number: u64,
        /// Why.
        source: SuccessionError,
    },
    /// A version is missing.
    #[error("policy {number} follows policy {before}: those between are missing")]
    Gap {
        /// Its number.
        number: u64,
        /// The number before.
        before: u64,
    },
    /// The log has them in another order.
    #[error("policy {number} has place {place} in the log, which is not after that of the one before")]
    Order {
        /// Its number.
        number: u64,
        /// Its place.
        place: u64,
    },
}

/// Why a key does not count at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There was no policy yet.
    #[error("place {place} of the log is before the first policy")]
    TooEarly {
        /// The place.
        place: u64,
    },
    /// The policy in force names it for nothing of the kind.
    #[error(
        "key {key} was no {part} at place {place} of the log: policy {number} was in force there and does not name it"
    )]
    NotNamed {
        /// The key.
        key: PublicKey,
        /// What it would have to be.
        part: &'static str,
        /// The place.
        place: u64,
        /// The policy in force there.
        number: u64,
    },
    /// It is revoked.
    #[error("key {key} does not count at place {place} of the log: it is revoked from {from} on ({reason})")]
    Revoked {
        /// The key.
        key: PublicKey,
        /// The place.
        place: u64,
        /// From where on it is.
        from: u64,
        /// The roots' words.
        reason: String,
    },
}

impl Chain {
    /// Makes a chain of verified policies with their places, the genesis first.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn new(network: &NetworkId, links: Vec<Link>) -> Result<Self, ChainError> {
        let first = links.first().ok_or(ChainError::Empty)?;
        let failed = |link: &Link, source| ChainError::Succession { number: link.policy.get().number, source };
        let id = policy::check_genesis(&first.policy, Timestamp::ZERO).map_err(|e| failed(first, e))?;
        if id != *network {
            return Err(failed(first, SuccessionError::OtherNetwork));
        }
        for pair in links.windows(2) {
            let [before, next] = pair else { continue };
            let (current, number) = (before.policy.get(), next.policy.get().number);
            policy::check_successor(current, network, &next.policy, Timestamp::ZERO).map_err(|e| failed(next, e))?;
            if number != current.number + 1 {
                return Err(ChainError::Gap { number, before: current.number });
            }
            if next.place <= before.place {
                return Err(ChainError::Order { number, place: next.place });
            }
        }
        Ok(Self { network: *network, links })
    }

    /// Reads a chain: each policy's envelope, the genesis first, and the log's entries of policies with their places, in any
    /// order. Entries of newer policies than those at hand are left out.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn read(
        network: &NetworkId,
        envelopes: &[impl AsRef<[u8]>],
        entries: &[(u64, entry::Policy)],
    ) -> Result<Self, ChainError> {
        let link = |(at, bytes): (usize, &[u8])| {
            let signed = Signed::<Policy>::read(bytes).and_then(|s| s.verify((at > 1).then_some(network)));
            let policy = signed.map_err(|source| ChainError::Envelope { at, source })?;
            let logged = entry::Policy { number: policy.get().number, envelope: Hash::of(bytes) };
            let place = entries.iter().filter(|(_, entry)| *entry == logged).map(|(place, _)| *place).min();
            let place = place.ok_or(ChainError::NotLogged { number: logged.number })?;
            Ok(Link { place, policy })
        };
        let links = (1..).zip(envelopes.iter().map(AsRef::as_ref)).map(link).collect::<Result<_, _>>()?;
        Self::new(network, links)
    }

    /// Gives every policy with its place, the genesis first.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Gives the newest policy.
    ///
    /// # Panics
    /// Never: a chain has a genesis.
    pub fn newest(&self) -> &Policy {
        self.links.last().expect("a chain is never empty").policy.get()
    }

    /// Gives the policy that was in force at a place.
    pub fn at(&self, place: u64) -> Option<&Policy> {
        let after = self.links.partition_point(|link| link.place <= place);
        Some(self.links[..after].last()?.policy.get())
    }

    /// Says whose node this was at a place: its attestations in a verdict there count as this operator's.
    ///
    /// # Errors
    /// Why it was nobody's.
    pub fn operator(&self, node: &NodeId, place: u64) -> Result<&OperatorName, Invalid> {
        let policy = self.counts(PublicKey::from(*node), place)?;
        policy.operator_of(node).ok_or_else(|| not_named(PublicKey::from(*node), "operator's node", (place, policy)))
    }

    /// Says which maintainer this key was at a place: a request that was accepted there was this maintainer's.
    ///
    /// # Errors
    /// Why it was none.
    pub fn maintainer(&self, key: &PublicKey, place: u64) -> Result<&Maintainer, Invalid> {
        let policy = self.counts(*key, place)?;
        policy.maintainer(key).ok_or_else(|| not_named(*key, "maintainer", (place, policy)))
    }

    /// Gives the keys of which one must have signed a checkpoint of `size` entries: those of the coordinators at its last entry,
    /// without those that are revoked from there on or before.
    pub fn log_keys(&self, size: u64) -> Vec<VerifierKey> {
        let Some((last, policy)) = size.checked_sub(1).and_then(|last| Some((last, self.at(last)?))) else {
            return Vec::new();
        };
        let good = |node: &&NodeId| self.counts(PublicKey::from(**node), last).is_ok();
        let candidates = policy.coordinators.candidates().iter().filter(good);
        candidates.map(|node| network::log_key(&self.network, node)).collect()
    }

    /// Gives the policy in force at a place, unless the key is revoked from there on or before.
    fn counts(&self, key: PublicKey, place: u64) -> Result<&Policy, Invalid> {
        let policy = self.at(place).ok_or(Invalid::TooEarly { place })?;
        match self.newest().revocation(&key) {
            Some(Revoked { from, reason, .. }) if *from <= place => {
                Err(Invalid::Revoked { key, place, from: *from, reason: reason.clone() })
            }
            Some(_) | None => Ok(policy),
        }
    }
}

fn not_named(key: PublicKey, part: &'static str, (place, policy): (u64, &Policy)) -> Invalid {
    Invalid::NotNamed { key, part, place, number: policy.number }
}

#[cfg(test)]
mod tests;
