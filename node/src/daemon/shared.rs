//! What every task of one daemon shares: identity, folders, network, blobs, database and the policies in force.

use std::sync::Arc;

use attest::trust::{self, Demands, Trust};
use ed25519_dalek::SigningKey;
use protocol::{
    NetworkId, NodeId, Timestamp, Verified,
    envelope::{EnvelopeError, Record, Signed},
    policy::{self, Policy, SuccessionError},
};
use tokio::sync::watch;
use tracing::error;

use super::{
    chain,
    judge::{self, ReadError},
};
use crate::{
    blobs::Blobs,
    config::Config,
    config::Home,
    net::{Members, Net},
    store::Store,
};

/// The policies of a network, from the genesis to the one in force.
#[derive(Debug, Clone)]
pub struct Policies {
    network: NetworkId,
    chain: Vec<Arc<Verified<Policy>>>,
}

/// Why a chain of policies was not believed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// An envelope that does not verify.
    #[error("a policy does not verify")]
    Envelope(#[source] EnvelopeError),
    /// A step of the chain that its roots did not allow.
    #[error("a policy is not a valid successor")]
    Succession(#[source] SuccessionError),
    /// The chain does not begin with the genesis of this network.
    #[error("the first policy is not the genesis of network {wanted}")]
    OtherGenesis {
        /// The network wanted.
        wanted: NetworkId,
    },
    /// Nothing at all.
    #[error("there is no policy")]
    Empty,
}

impl Policies {
    /// Verifies a chain of envelopes from the genesis on. Only the last one must not be expired.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn verify(network: &NetworkId, envelopes: &[Vec<u8>]) -> Result<Self, PolicyError> {
        let (first, rest) = envelopes.split_first().ok_or(PolicyError::Empty)?;
        let genesis = Signed::<Policy>::read(first).and_then(|s| s.verify(None)).map_err(PolicyError::Envelope)?;
        let id = policy::check_genesis(&genesis, Timestamp::ZERO).map_err(PolicyError::Succession)?;
        if id != *network {
            return Err(PolicyError::OtherGenesis { wanted: *network });
        }
        let mut policies = Self { network: *network, chain: vec![Arc::new(genesis)] };
        for envelope in rest {
            policies = policies.followed_by(envelope)?;
        }
        Ok(policies)
    }

    /// Adds a successor.
    ///
    /// # Errors
    /// When it does not verify or the previous roots did not sign it.
    pub fn followed_by(&self, envelope: &[u8]) -> Result<Self, PolicyError> {
        let next = Signed::<Policy>::read(envelope)
            .and_then(|s| s.verify(Some(&self.network)))
            .map_err(PolicyError::Envelope)?;
        policy::check_successor(self.current(), &self.network, &next, Timestamp::ZERO)
            .map_err(PolicyError::Succession)?;
        let mut chain = self.chain.clone();
        chain.push(Arc::new(next));
        Ok(Self { network: self.network, chain })
    }

    /// The policy in force.
    pub fn current(&self) -> &Policy {
        self.chain.last().expect("a chain begins with its genesis").get()
    }

    /// Every policy, the genesis first.
    pub fn chain(&self) -> &[Arc<Verified<Policy>>] {
        &self.chain
    }

    /// Checks that verifiers could check the log under each of these policies: one under which they cannot would stay in the chain, and
    /// stop them for good. To be asked before a policy is adopted.
    ///
    /// # Errors
    /// What to change.
    pub fn can_be_verified(&self) -> Result<(), String> {
        let place = |(at, policy): (usize, Vec<u8>)| (policy, (at == 0).then_some(0));
        let policies: Vec<_> = self.envelopes().into_iter().enumerate().map(place).collect();
        let trust = Trust::new(self.network, &policies, Demands::default(), Timestamp::ZERO);
        let why = |error: trust::Error| {
            let advice = if matches!(error, trust::Error::Log { .. }) { ": name fewer nodes" } else { "" };
            format!("nobody could check the log under this policy ({}){advice}", chain(&error))
        };
        trust.map(drop).map_err(why)
    }

    /// Every envelope, the genesis first.
    pub fn envelopes(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|p| p.to_bytes()).collect()
    }
}

/// What every task shares.
pub struct Shared {
    /// The node's folder.
    pub home: Home,
    /// The node's configuration.
    pub config: Config,
    /// The node's key.
    pub key: SigningKey,
    /// The node's id: the public half of its key.
    pub id: NodeId,
    /// The network.
    pub network: NetworkId,
    /// Peers.
    pub net: Net,
    /// Content.
    pub blobs: Blobs,
    /// The database.
    pub store: Store,
    /// The policies in force, as they change.
    pub policies: watch::Sender<Arc<Policies>>,
    /// When the daemon began.
    pub began: Timestamp,
    /// What is offered to other members.
    pub offers: super::Offers,
    /// What it knows of the others.
    pub others: Others,
}

/// What a node knows of the others, beside what the policy says.
#[derive(Debug)]
pub struct Others {
    /// The newest card of each member.
    pub cards: super::Cards,
    /// Who leads the coordinators.
    pub leading: super::Leading,
    /// Evidence against the network's log.
    pub alarms: crate::alarm::Alarms,
    /// What it believes of the log.
    pub sight: crate::audit::Sight,
    /// Where the policies stand in the log.
    pub places: super::Places,
    /// Held while policies are adopted, which several parts may want at one time.
    pub adopting: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The policies in force now.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.borrow())
    }

    /// Signs a record as this node.
    pub fn sign<T: Record>(&self, value: &T) -> Signed<T> {
        Signed::sign(value, Some(&self.network), &[&self.key])
    }

    /// Reads a record that a certain node must have signed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_signed_by<T: Record>(&self, bytes: &[u8], signer: &NodeId) -> Result<Verified<T>, ReadError> {
        judge::read_signed_by(bytes, &self.network, signer)
    }

    /// Reads a record that some candidate of the policy in force must have signed. Who leads changes faster than records
    /// travel, so the one that led a moment ago is believed as well.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_signed_by_candidate<T: Record>(&self, bytes: &[u8]) -> Result<Verified<T>, ReadError> {
        judge::read_signed_by_any(bytes, &self.network, self.policies().current().coordinators.candidates())
    }

    /// Takes over newer policies, durably. Gives true when something changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(&self, policies: Policies) -> Result<bool, crate::store::Error> {
        let _alone = self.others.adopting.lock().await;
        let current = self.policies();
        let known = current.chain().len();
        if policies.chain().len() <= known {
            return Ok(false);
        }
        // The roots signed two histories. The one that this node knows stays: nobody takes a network back to an earlier policy.
        if let Some(at) = current.chain().iter().zip(policies.chain()).position(|(own, other)| own.id() != other.id()) {
            error!(number = current.chain()[at].get().number, "the network's roots signed two policies in one place");
            return Ok(false);
        }
        for length in known + 1..=policies.chain().len() {
            let next = Policies { network: policies.network, chain: policies.chain()[..length].to_vec() };
            let (number, bytes) = (next.current().number, next.chain()[length - 1].to_bytes());
            self.store.run(move |store| store.policy_append(number, &bytes)).await?;
            // One after the other, as on the disk: what comes next may not be writable.
            self.net.set_members(members(next.current()));
            self.policies.send_replace(Arc::new(next));
        }
        self.forget_former_leaders().await?;
        Ok(true)
    }
}

/// Every node that belongs to the network: operators' nodes, mirrors and candidates for coordination.
pub(super) fn members(policy: &Policy) -> Members {
    let operators = policy.operators.iter().flat_map(|o| o.nodes.iter().copied());
    let candidates = policy.coordinators.candidates().iter().copied();
    let members: Members = operators.chain(policy.mirrors.iter().copied()).chain(candidates.clone()).collect();
    members.with_candidates(candidates)
}

#[cfg(test)]
mod tests {
    use protocol::{
        policy::{Channel, Operator},
        testing::{samples, signing_key},
    };

    use super::*;
    use crate::keys;

    #[test]
    fn a_policy_that_would_stop_every_verifier_is_not_adopted() {
        let first =
            Policy { channels: vec![Channel { witnesses: 2, ..samples::channel(2, 3) }], ..samples::genesis(3) };
        let genesis = Signed::sign(&first, None, &[&signing_key(samples::ROOT_SEED)]).verify(None).unwrap();
        let network = NetworkId::from(genesis.id());
        let known = Policies::verify(&network, &[genesis.to_bytes()]).unwrap();
        known.can_be_verified().unwrap();
        let operator = |at: u16| {
            let mut seed = [7; 32];
            seed[..2].copy_from_slice(&at.to_be_bytes());
            let node = NodeId::from(keys::public(&SigningKey::from_bytes(&seed)));
            Operator { name: format!("op{at:04}").parse().unwrap(), nodes: vec![node] }
        };
        let followed = |operators: u16| {
            let operators = first.operators.iter().cloned().chain((0..operators).map(operator)).collect();
            let second = Policy { number: 2, network: Some(network), operators, ..first.clone() };
            let signed = Signed::sign(&second, Some(&network), &[&signing_key(samples::ROOT_SEED)]);
            known.followed_by(&signed.to_bytes()).unwrap().can_be_verified()
        };
        followed(400).unwrap();
        let why = followed(600).unwrap_err();
        assert!(why.contains("nobody could check the log") && why.contains("name fewer nodes"), "{why}");
    }
}
