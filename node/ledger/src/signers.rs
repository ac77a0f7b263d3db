//! The certificates of the coordinators' repository keys, so that whoever publishes can publish everybody's: a client that
//! trusts one coordinator's repository then trusts its successor's without doing anything.
//!
//! It does not look into a certificate; whoever proposes one has read it.

use protocol::{
    NodeId,
    message::{Octets, Refusal},
};

use crate::{Ledger, Turn};

/// The largest certificate that is kept, in bytes.
pub const CERTIFICATE_MAX: usize = 4096;

impl Ledger {
    /// Gives the certificates of the candidates of the policy in force.
    pub fn signers(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        let candidates = self.policy_in_force().coordinators.candidates();
        self.signers
            .iter()
            .filter(|(node, _)| candidates.contains(node))
            .map(|(node, bytes)| (*node, bytes.0.as_slice()))
    }

    pub(crate) fn signer(&mut self, node: NodeId, certificate: Octets, turn: &mut Turn) {
        if !self.policy_in_force().coordinators.candidates().contains(&node) {
            return turn.refuse(Refusal::NotAllowed("only a coordinator of the policy signs repositories".into()));
        }
        if certificate.0.is_empty() || certificate.0.len() > CERTIFICATE_MAX {
            return turn.refuse(Refusal::Invalid(format!("a certificate has 1 to {CERTIFICATE_MAX} bytes")));
        }
        self.signers.insert(node, certificate);
        turn.done();
    }

    /// Forgets who is no candidate any more, when a policy is adopted.
    pub(crate) fn forget_signers(&mut self) {
        let candidates = self.policy_in_force().coordinators.candidates().to_vec();
        self.signers.retain(|node, _| candidates.contains(node));
    }
}
