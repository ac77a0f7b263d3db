//! What becomes of those that a new policy names no more, or revokes.
//!
//! * **A node.** Its leases end at once. What it attested for a job without a verdict does not count, since votes are those of the
//!   nodes that the policy names; another operator is asked. What waits for publication is held against the new policy as well.
//! * **A maintainer.** Nothing more is accepted. Who is only no longer named keeps the jobs that are open; who is revoked loses
//!   them, whenever they were accepted: whether the thief or the owner asked for one, nobody can tell, and whoever follows
//!   asks again. What the publisher works on at that moment comes out: it was accepted while the key counted, and the log says
//!   at which place.
//! * **A coordinator.** It is no candidate any more; the group changes as with every policy.
//!
//! What was decided before stays: the log says at which place, and each who checks compares that with the revocation's.

use attest::log::entry::End;
use protocol::{JobId, NodeId, PublicKey, lease::Lease, policy::Policy};

use crate::{Effect, Ledger, Turn, job::AttemptState};

impl Ledger {
    /// Ends the leases of nodes that the new policy no longer names for the same operator.
    pub(crate) fn revoke_strangers(&mut self, turn: &mut Turn) {
        for lease in self.leases.values().cloned().collect::<Vec<_>>() {
            let named = self.peers.operator(&lease.node).cloned();
            let reason = self.why_strange(&lease.node);
            let job = self.jobs.get_mut(&lease.job).expect("a live lease has a job");
            let attempt = job.attempt_mut(lease.number).expect("a live lease has an attempt");
            if named.as_ref() == Some(&attempt.operator) {
                continue;
            }
            let started = attempt.state.started();
            attempt.state = AttemptState::Revoked { ended: turn.at, reason: reason.clone(), started };
            self.release(lease.number, End::Revoked, turn);
            let Lease { node, number, .. } = lease;
            turn.push(Effect::Revoke { node, lease: number, reason });
        }
    }

    /// Says why a node has no operator any more.
    pub(crate) fn why_strange(&self, node: &NodeId) -> String {
        match self.policy_in_force().node_revocation(node) {
            Some(revoked) => format!("the new policy revokes this node's key: {}", revoked.reason),
            None => "the new policy no longer names this node for its operator".to_owned(),
        }
    }

    /// Cancels the open jobs of maintainers whose keys are revoked.
    pub(crate) fn drop_jobs_of_revoked(&mut self, turn: &mut Turn) {
        let policy = self.policy_in_force();
        let theirs = |id: &JobId| {
            let revoked = policy.revocation(&self.jobs.get(id)?.facts.key)?;
            Some((*id, format!("the key that asked for it is revoked: {}", revoked.reason)))
        };
        let over: Vec<_> = self.open.ids().iter().filter_map(theirs).collect();
        for (id, reason) in over {
            // Others may have ended since, as what waited for the first of them. What cannot be cancelled is being published.
            if self.open.ids().contains(&id) {
                let _in_time = self.cancel(id, reason, turn).is_ok();
            }
        }
    }
}

/// Says that a key counts no more, to who used it.
pub(crate) fn words(policy: &Policy, key: &PublicKey) -> String {
    let reason = policy.revocation(key).map_or("", |revoked| &revoked.reason);
    format!("key {key} is revoked ({reason}): the network's roots must name another one")
}
