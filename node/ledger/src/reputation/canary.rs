//! Canaries: jobs of this network whose answer is known, run once more by one builder to show that it works.
//!
//! A canary is leased, renewed and reported like any attempt, under the variation in which others agreed. It publishes
//! nothing, votes for nothing and stands in no job's list of attempts: its outputs are compared with what was agreed, that is all. An
//! interruption is no answer.

use std::time::Duration;

use attest::{compare, log::entry::End, statement::VerifiedAttestation};
use protocol::{
    Hash, JobId, NodeId, OperatorName, Timestamp,
    blame::{Blame, Failure, Fault},
    lease::{Lease, LeaseNumber, Profile},
    limits,
    message::{Commitment, Refusal, Response},
};
use serde::{Deserialize, Serialize};

use super::{Change, Claim, Class, Contradiction};
use crate::{
    ENDED_FULL_MAX, Effect, KEPT_AFTER_END, Ledger, Opening, Turn, commitments,
    deadlines::Due,
    job::{Attempt, Job, JobState, is_interruption},
    log,
};

/// How long a builder may take to fetch what a canary needs.
const FETCH_WITHIN: Duration = Duration::from_secs(3600);

/// A canary that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Canary {
    pub(crate) lease: Lease,
    /// The digest of the outputs that were agreed.
    agreed: Hash,
    pub(crate) operator: OperatorName,
    /// What the builder is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed: Option<Hash>,
}

impl Ledger {
    /// Says the grant of a node's canary again, since it may have been lost on the way; false when it has none.
    pub(crate) fn grant_canary_again(&self, node: NodeId, turn: &mut Turn) -> bool {
        let running = self.reputation.canaries.values().find(|canary| canary.lease.node == node);
        if let Some(canary) = running {
            turn.push(Effect::Grant(canary.lease.clone()));
        }
        running.is_some()
    }

    /// Gives a node a job whose answer is known; `None` when there is none that it can take.
    pub(crate) fn grant_canary(
        &mut self,
        node: NodeId,
        (operator, class): (&OperatorName, &Class),
        memory_mib: u32,
        turn: &mut Turn,
    ) -> Option<()> {
        let (job, agreed, profile) =
            self.known_answer(operator, class, (memory_mib, self.peers.disk_of(&node)), turn.at)?;
        let memory_mib = self.jobs[&job].facts.memory_mib;
        self.last_lease += 1;
        let number = LeaseNumber(self.last_lease);
        let lease = Lease { job, node, number, expires: turn.at.after(limits::LEASE_TTL), profile, memory_mib };
        self.deadlines.set(Due::Lease(number), lease.expires);
        self.deadlines.set(Due::Attempt(number), turn.at.after(self.attempt_limit(&job)));
        self.reputation.record_mut(operator, class, node).canary_given(turn.at);
        let canary = Canary { lease: lease.clone(), agreed, operator: operator.clone(), committed: None };
        self.reputation.canaries.insert(number, canary);
        turn.log(log::lease(&lease));
        turn.push(Effect::Grant(lease));
        Some(())
    }

    /// Finds the cheapest of the newest reproduced jobs of a class that others agreed on.
    fn known_answer(
        &self,
        operator: &OperatorName,
        class: &Class,
        (memory_mib, disk_mib): (u32, u32),
        at: Timestamp,
    ) -> Option<(JobId, Hash, Profile)> {
        // The older half may lose its evidence while the canary runs.
        let newest = self.ended.iter().rev().take(ENDED_FULL_MAX / 2);
        let fitting = newest.filter_map(|id| {
            let fits = |job: &&Job| class.is_of(&job.facts) && job.facts.is_closed();
            let job = self.jobs.get(id).filter(fits)?;
            let JobState::Ended(ended) = &job.state else { return None };
            let kept = ended.at.after(KEPT_AFTER_END) > at.after(FETCH_WITHIN);
            let open = kept && job.facts.expires > at && self.dossiers.contains_key(id);
            let fits = job.facts.memory_mib <= memory_mib && job.facts.disk_mib <= disk_mib;
            let agreement = job.state.agreement().filter(|_| open && fits)?;
            let others: Vec<_> = agreement.operators.iter().filter(|other| *other != operator).collect();
            let attempt = agreed_attempt(job, agreement.digest, &others)?;
            Some((took(attempt), *id, agreement.digest, attempt.profile))
        });
        fitting.min().map(|(_, id, digest, profile)| (id, digest, profile))
    }

    /// Gives the job that a node's canary runs.
    pub(crate) fn canary_of(&self, node: NodeId, number: LeaseNumber) -> Option<JobId> {
        let canary = self.reputation.canaries.get(&number).filter(|canary| canary.lease.node == node)?;
        Some(canary.lease.job)
    }

    /// Says whether a canary's builder is bound to its answer.
    pub(crate) fn canary_is_bound(&self, number: LeaseNumber) -> bool {
        self.reputation.canaries.get(&number).is_some_and(|canary| canary.committed.is_some())
    }

    /// Says that a canary lives; false when there is none under this lease.
    pub(crate) fn renew_canary(&mut self, node: NodeId, number: LeaseNumber, turn: &Turn) -> bool {
        let Some(canary) = self.reputation.canaries.get_mut(&number).filter(|c| c.lease.node == node) else {
            return false;
        };
        canary.lease.expires = turn.at.after(limits::LEASE_TTL);
        self.deadlines.set(Due::Lease(number), canary.lease.expires);
        true
    }

    /// Ends a canary without an answer; false when there is none under this lease.
    pub(crate) fn drop_canary(&mut self, of: (NodeId, LeaseNumber), end: End, turn: &mut Turn) -> bool {
        self.take_canary(of, end, turn).is_some()
    }

    fn take_canary(&mut self, (node, number): (NodeId, LeaseNumber), end: End, turn: &mut Turn) -> Option<Canary> {
        self.reputation.canaries.get(&number).filter(|canary| canary.lease.node == node)?;
        let canary = self.reputation.canaries.remove(&number)?;
        self.deadlines.clear(Due::Lease(number));
        self.deadlines.clear(Due::Attempt(number));
        turn.log(log::outcome(canary.lease.job, (node, number), end));
        Some(canary)
    }

    /// Nobody renewed the canary's lease; false when the lease is none of a canary.
    pub(crate) fn canary_expired(&mut self, number: LeaseNumber, turn: &mut Turn) -> bool {
        let Some(node) = self.reputation.canaries.get(&number).map(|canary| canary.lease.node) else { return false };
        self.take_canary((node, number), End::Lost, turn).is_some()
    }

    /// The canary's time is over, though its builder renews it: that is no answer.
    pub(crate) fn canary_overdue(&mut self, number: LeaseNumber, turn: &mut Turn) {
        let Some(lease) = self.reputation.canaries.get(&number).map(|canary| canary.lease.clone()) else { return };
        self.drop_canary((lease.node, number), End::Lost, turn);
        let reason = format!("no result within {} s", self.attempt_limit(&lease.job).as_secs());
        turn.push(Effect::Revoke { node: lease.node, lease: number, reason });
    }

    /// Binds a builder to its answer, as for any attempt; false when the lease is none of a canary of this node. The right one
    /// is known to everybody, so that it may be shown at once.
    pub(crate) fn canary_committed(&mut self, node: NodeId, commitment: Commitment, turn: &mut Turn) -> bool {
        let (lease, digest) = (commitment.lease, commitment.digest);
        let canary = self.reputation.canaries.get_mut(&lease).filter(|canary| canary.lease.node == node);
        let Some(canary) = canary else { return false };
        let job = canary.lease.job;
        match canary.committed.replace(digest) {
            Some(known) if known != digest => {
                canary.committed = Some(known);
                turn.refuse(Refusal::Invalid("this attempt is committed to another result".into()));
                return true;
            }
            Some(_) => {}
            None => turn.log(commitments::logged(job, node, commitment)),
        }
        turn.answer(Response::Reveal);
        true
    }

    /// Compares a canary's outputs; false when the lease is none of a canary of this node.
    pub(crate) fn canary_revealed(
        &mut self,
        node: NodeId,
        (number, opening): (LeaseNumber, Opening),
        attestation: &VerifiedAttestation,
        turn: &mut Turn,
    ) -> bool {
        let committed = self.reputation.canaries.get(&number).and_then(|canary| canary.committed);
        let bound = self.check_opening(number, (committed, opening), attestation);
        let end = if bound.is_ok() { End::Built(attestation.id()) } else { End::Failed(attestation.id()) };
        let Some(canary) = self.take_canary((node, number), end, turn) else { return false };
        let bound = bound.map_err(|_| "it is not what the builder had committed to".to_owned());
        if let Err(why) = bound.and_then(|()| self.fits(attestation, &canary.lease)) {
            turn.refuse(Refusal::Invalid(why.clone()));
            let claim = Claim::Failed(Failure::new(Blame::Builder(Fault::Other), "attest", why));
            self.canary_wrong(&canary, claim, turn);
            return true;
        }
        turn.done();
        let got = compare::digest(&attestation.get().outputs);
        if got == canary.agreed {
            self.canary_right(&canary, turn);
        } else {
            let claim = Claim::Differed { got, agreed: canary.agreed, attestation: attestation.id() };
            self.canary_wrong(&canary, claim, turn);
        }
        true
    }

    /// Takes a canary's failure; false when the lease is none of a canary of this node.
    pub(crate) fn canary_failed(
        &mut self,
        of: (NodeId, LeaseNumber),
        (failure, end): (&Failure, End),
        turn: &mut Turn,
    ) -> bool {
        let Some(canary) = self.take_canary(of, end, turn) else { return false };
        turn.done();
        if failure.blame == Blame::IsolationBreach {
            self.stop_breached(&canary.lease, turn);
        } else if !is_interruption(failure.blame) {
            self.canary_wrong(&canary, Claim::Failed(failure.clone()), turn);
        }
        true
    }

    fn canary_right(&mut self, canary: &Canary, turn: &mut Turn) {
        let Some(class) = self.jobs.get(&canary.lease.job).map(|job| Class::of(&job.facts)) else { return };
        let record = self.reputation.record_mut(&canary.operator, &class, canary.lease.node);
        let hindered = record.canary_from().is_some();
        record.canary_right(turn.at);
        let pending = record.pending.clone();
        self.hear_again(&pending, turn);
        self.look_at_once(canary.lease.node, turn);
        if hindered {
            let whom = (&canary.operator, &class, canary.lease.node);
            self.tell_change(whom, (canary.lease.job, Change::Restored), turn);
        }
    }

    fn canary_wrong(&mut self, canary: &Canary, claim: Claim, turn: &mut Turn) {
        let id = canary.lease.job;
        // Without its evidence the job may be gone for the builder as well: then a failure says nothing.
        let Some(job) = self.jobs.get(&id).filter(|_| self.dossiers.contains_key(&id)) else { return };
        let (class, (against, attestations)) = (Class::of(&job.facts), super::judge::agreed(job));
        let evidence = Contradiction {
            at: turn.at,
            job: id,
            lease: canary.lease.number,
            claim: Claim::Canary(Box::new(claim)),
            against,
            attestations,
        };
        self.blame((&canary.operator, &class, canary.lease.node), evidence, turn);
    }

    /// Ends the canaries of nodes that the policy no longer names for the same operator.
    pub(crate) fn revoke_strange_canaries(&mut self, turn: &mut Turn) {
        let strange = |c: &&Canary| !self.peers.is_of(&c.lease.node, &c.operator);
        let over: Vec<Lease> = self.reputation.canaries.values().filter(strange).map(|c| c.lease.clone()).collect();
        for lease in over {
            self.drop_canary((lease.node, lease.number), End::Revoked, turn);
            let reason = self.why_strange(&lease.node);
            turn.push(Effect::Revoke { node: lease.node, lease: lease.number, reason });
        }
    }

    /// Answers for a canary's start as for any other; false when there is none under this lease.
    pub(crate) fn canary_started(&mut self, node: NodeId, number: LeaseNumber, turn: &mut Turn) -> bool {
        let lives = self.renew_canary(node, number, turn);
        if lives {
            turn.answer(Response::Done);
        }
        lives
    }
}

/// Finds an attempt of an agreeing operator, the fastest.
fn agreed_attempt<'a>(job: &'a Job, digest: Hash, operators: &[&OperatorName]) -> Option<&'a Attempt> {
    let agreeing =
        |a: &&Attempt| a.vote().is_some_and(|vote| vote.digest == digest) && operators.contains(&&a.operator);
    job.attempts.iter().filter(agreeing).min_by_key(|attempt| (took(attempt), attempt.lease))
}

/// Gives how long an attempt took, in milliseconds.
fn took(attempt: &Attempt) -> u64 {
    let ended = attempt.state.ended().unwrap_or(attempt.granted).as_millis();
    ended.saturating_sub(attempt.state.started().unwrap_or(attempt.granted).as_millis())
}
