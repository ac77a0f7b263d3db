//! What a verdict says about the builders, and whose report of a failure counts.

use std::{collections::BTreeSet, time::Duration};

use attest::log::entry::End;
use protocol::{
    Hash, JobId, NodeId, OperatorName, Timestamp,
    blame::{Blame, Failure},
    lease::{Lease, LeaseNumber},
};

use super::{Change, Claim, Class, Contradiction, Hindrance, May, Whom};
use crate::{
    Effect, Ledger, News, Turn,
    deadlines::Due,
    job::{Attempt, AttemptState, Job, Outcome},
    tally::{Agreement, JobFailure},
};

/// How long a job waits for somebody else before reports of operators that have proven nothing count, where nobody else has
/// proven anything either.
const UNPROVEN_WAIT: Duration = Duration::from_secs(10);
/// The same where others have, who may be away.
pub(crate) const PROVEN_WAIT: Duration = Duration::from_secs(600);
/// Reports without proof count at once when they are so many times the opinions that the channel asks for at most.
const UNPROVEN_ENOUGH: usize = 2;
/// Operators and attestations that a contradiction names.
const NAMED_MAX: usize = 8;
/// Bytes of a failure's words in evidence.
const WORDS_MAX: usize = 240;

impl Ledger {
    /// Says whether a node may have a lease of a class now. What schedules calls this.
    pub(crate) fn may_lease(&self, node: NodeId, operator: &OperatorName, class: &Class, at: Timestamp) -> May {
        self.reputation.may_lease(operator, class, node, at)
    }

    /// Takes a node that is asking for work where it may not have any work: a canary, or the reason in words. `Ok` means that it may
    /// have an ordinary lease.
    pub(crate) fn admit_builder(
        &mut self,
        node: NodeId,
        (operator, class): (&OperatorName, &Class),
        memory_mib: u32,
        turn: &mut Turn,
    ) -> Result<(), Turned> {
        if self.grant_canary_again(node, turn) {
            return Err(Turned::ToCanary);
        }
        let may = match self.may_lease(node, operator, class, turn.at) {
            May::Canary => match self.grant_canary(node, (operator, class), memory_mib, turn) {
                Some(()) => return Err(Turned::ToCanary),
                None => self.reputation.may_without_canary(operator, class, node, turn.at),
            },
            other @ (May::Yes | May::No(_)) => other,
        };
        match may {
            May::Yes | May::Canary => Ok(()),
            May::No(hindrance) => Err(Turned::Away(hindrance)),
        }
    }

    /// Notes an attempt that failed, until its job is decided.
    pub(crate) fn note_failure(&mut self, lease: &Lease, turn: &Turn) {
        let Some((operator, class)) = self.subject(lease) else { return };
        self.reputation.failed((&operator, &class, lease.node), lease.number, turn.at);
        self.watch_hindrance(lease.node, turn);
    }

    /// Blames a builder that showed something else than it was bound to: the log and its own signature prove it.
    pub(crate) fn broke_commitment(
        &mut self,
        lease: &Lease,
        (failure, attestation): (&Failure, Hash),
        turn: &mut Turn,
    ) {
        let Some((operator, class)) = self.subject(lease) else { return };
        let (claim, attestations) = (Claim::Failed(short(failure)), vec![attestation]);
        let (job, number) = (lease.job, lease.number);
        let evidence = Contradiction { at: turn.at, job, lease: number, claim, against: Vec::new(), attestations };
        self.blame((&operator, &class, lease.node), evidence, turn);
    }

    fn subject(&self, lease: &Lease) -> Option<(OperatorName, Class)> {
        let job = self.jobs.get(&lease.job)?;
        let operator = job.attempt(lease.number)?.operator.clone();
        let named = self.peers.is_of(&lease.node, &operator);
        named.then(|| (operator, Class::of(&job.facts)))
    }

    /// Judges the builders by what k operators agreed on.
    pub(crate) fn judge(&mut self, id: JobId, agreement: &Agreement, turn: &mut Turn) {
        let job = &self.jobs[&id];
        if !job.facts.is_closed() {
            // What a host serves may change between two attempts, and builders' own programs differ: to have got something
            // else is no contradiction.
            return;
        }
        let class = Class::of(&job.facts);
        let (against, attestations) = of(job, agreement);
        let mut found = Vec::new();
        for attempt in job.attempts.iter().filter(|a| self.peers.is_of(&a.node, &a.operator)) {
            let claim = match &attempt.state {
                AttemptState::Revealed { vote, .. } if vote.digest == agreement.digest => None,
                AttemptState::Revealed { vote, .. } if agreement.operators.len() >= 2 => {
                    Some(Claim::Differed { got: vote.digest, agreed: agreement.digest, attestation: vote.attestation })
                }
                AttemptState::Failed { failure, excused: false, .. } => Some(Claim::Failed(short(failure))),
                AttemptState::Failed { .. }
                | AttemptState::Granted
                | AttemptState::Running { .. }
                | AttemptState::Committed { .. }
                | AttemptState::Revealed { .. }
                | AttemptState::Interrupted { .. }
                | AttemptState::Silent { .. }
                | AttemptState::Revoked { .. } => continue,
            };
            found.push((attempt.operator.clone(), attempt.node, attempt.lease, claim));
        }
        for (operator, node, lease, claim) in found {
            let Some(claim) = claim else {
                let pending = self.reputation.record_mut(&operator, &class, node).pending.clone();
                self.hear_again(&pending, turn);
                self.look_at_once(node, turn);
                if let Some(change) = self.reputation.validated((&operator, &class, node), turn.at) {
                    self.tell_change((&operator, &class, node), (id, change), turn);
                }
                continue;
            };
            let (against, attestations) = (against.clone(), attestations.clone());
            let evidence = Contradiction { at: turn.at, job: id, lease, claim, against, attestations };
            self.blame((&operator, &class, node), evidence, turn);
        }
    }

    /// Judges outputs that came after the verdict, under a lease that was ended because of it.
    pub(crate) fn judge_late(&mut self, was: &Lease, got: (Hash, Hash), turn: &mut Turn) {
        let Some((operator, class)) = self.subject(was) else { return };
        let job = &self.jobs[&was.job];
        let agreement = job.state.agreement().filter(|a| a.operators.len() >= 2 && job.facts.is_closed());
        let Some(agreement) = agreement else { return };
        let (against, attestations) = of(job, agreement);
        let claim = Claim::Differed { got: got.0, agreed: agreement.digest, attestation: got.1 };
        let evidence = Contradiction { at: turn.at, job: was.job, lease: was.number, claim, against, attestations };
        self.blame((&operator, &class, was.node), evidence, turn);
    }

    /// Counts a contradiction and says what follows from it.
    pub(super) fn blame(&mut self, whom: Whom<'_>, evidence: Contradiction, turn: &mut Turn) {
        let job = evidence.job;
        for (node, change) in self.reputation.contradicted(whom, evidence, turn.at) {
            self.tell_change((whom.0, whom.1, node), (job, change), turn);
            self.watch_hindrance(node, turn);
        }
    }

    pub(super) fn tell_change(
        &self,
        (operator, class, node): Whom<'_>,
        (job, change): (JobId, Change),
        turn: &mut Turn,
    ) {
        let (operator, class) = (operator.clone(), class.to_string());
        turn.tell(match change {
            Change::Quarantined { until } => News::Quarantined { job, node, operator, class, until },
            Change::Disabled => News::Disabled { job, node, operator, class },
            Change::Restored => News::Restored { job, node, operator, class },
        });
    }

    /// The job is over: nobody rests because of it any longer.
    pub(crate) fn resolve_reports(&mut self, id: JobId, turn: &Turn) {
        let Some(job) = self.jobs.get(&id) else { return };
        let class = Class::of(&job.facts);
        let failed =
            job.attempts.iter().filter(|a| a.failure().is_some() || matches!(a.state, AttemptState::Silent { .. }));
        let failed: Vec<_> = failed.map(|a| (a.operator.clone(), a.node, a.lease)).collect();
        for (operator, node, lease) in failed {
            self.look_at_once(node, turn);
            self.reputation.resolved((&operator, &class, node), lease);
        }
    }

    /// A build broke out of its sandbox: its job and its builder are stopped at once.
    pub(crate) fn breach(&mut self, lease: &Lease, failure: &Failure, turn: &mut Turn) {
        let operator = self.jobs[&lease.job].attempt(lease.number).map(|a| a.operator.clone());
        let operator = operator.expect("the lease has an attempt");
        self.stop_breached(lease, turn);
        let failure = JobFailure::Breach { operator, what: failure.what.clone() };
        let (why, outcome) = (failure.to_string(), Outcome::Failed(failure));
        if self.end(lease.job, outcome, turn).is_ok() {
            self.disclose(lease.job, turn);
            turn.tell(News::Verdict { job: lease.job, word: "failed".into(), why });
        }
    }

    /// Stops a node in every class, and what it builds now.
    pub(super) fn stop_breached(&mut self, lease: &Lease, turn: &mut Turn) {
        let Some(operator) = self.peers.operator(&lease.node).cloned() else { return };
        self.reputation.breached(lease, turn.at);
        let class = "every".to_owned();
        turn.tell(News::Disabled { job: lease.job, node: lease.node, operator, class });
        let others: Vec<Lease> = self.leases.values().filter(|l| l.node == lease.node).cloned().collect();
        for other in &others {
            let reason = "a build broke out of this node's sandbox".to_owned();
            let job = self.jobs.get_mut(&other.job).expect("a live lease has a job");
            let attempt = job.attempt_mut(other.number).expect("a live lease has an attempt");
            let started = attempt.state.started();
            attempt.state = AttemptState::Revoked { ended: turn.at, reason: reason.clone(), started };
            self.release(other.number, End::Revoked, turn);
            turn.push(Effect::Revoke { node: other.node, lease: other.number, reason });
        }
        for other in others {
            self.settle(other.job, turn);
        }
    }

    /// Gives the operators whose report that a job fails counts now.
    ///
    /// Those that are proven in the class count. The others count as well when nobody could know better: no other operator
    /// builds the job or the class now, and a while has passed, short where nobody else is proven either (a young network),
    /// long where those that are proven do not come; or when they are many.
    pub(crate) fn heard(&self, job: &Job, at: Timestamp) -> Heard {
        let on_job = |a: &&Attempt| a.failure().is_some_and(|failure| failure.blame.counts_on_job());
        let reports: Vec<&Attempt> = job.attempts.iter().filter(on_job).collect();
        let reporters: BTreeSet<OperatorName> = reports.iter().map(|a| a.operator.clone()).collect();
        if reporters.is_empty() {
            return Heard { operators: reporters, again: None };
        }
        let (class, policy) = (Class::of(&job.facts), self.policy_in_force());
        let proven: BTreeSet<_> =
            reporters.iter().filter(|name| self.reputation.is_proven(name, &class)).cloned().collect();
        let ask_max = policy.channel(&job.facts.channel).map_or(1, |channel| usize::from(channel.ask_max));
        let many = reporters.len() >= UNPROVEN_ENOUGH * ask_max;
        if many || proven.len() == reporters.len() {
            return Heard { operators: reporters, again: None };
        }
        let last = reports.iter().filter_map(|a| a.state.ended()).max().unwrap_or(at);
        let others = self.reputation.others_are_proven(&reporters, &class, |node| self.peers.operator(node));
        let wait = if others { PROVEN_WAIT } else { UNPROVEN_WAIT };
        let when = last.after(wait);
        if when > at {
            return Heard { operators: proven, again: Some(when) };
        }
        if self.others_build(&reporters, &class) {
            return Heard { operators: proven, again: Some(at.after(UNPROVEN_WAIT)) };
        }
        Heard { operators: reporters, again: None }
    }

    /// Who gave these reports has proven something now: they are looked at again before this command is over.
    pub(super) fn hear_again(&mut self, reports: &[LeaseNumber], turn: &Turn) {
        for job in reports.iter().filter_map(|lease| self.job_of_lease.get(lease)) {
            if self.open.ids().contains(job) {
                self.deadlines.set(Due::Reports(*job), turn.at);
            }
        }
    }

    /// Looks again at reports that do not count so far.
    pub(crate) fn listen_again(&mut self, id: JobId, again: Option<Timestamp>) {
        match again {
            Some(when) => self.deadlines.set(Due::Reports(id), when),
            None => self.deadlines.clear(Due::Reports(id)),
        }
    }

    /// Says whether an operator that is not among these builds something of the class now.
    fn others_build(&self, operators: &BTreeSet<OperatorName>, class: &Class) -> bool {
        self.leases.values().any(|lease| {
            let job = self.jobs.get(&lease.job).filter(|job| class.is_of(&job.facts));
            job.and_then(|job| job.attempt(lease.number)).is_some_and(|a| !operators.contains(&a.operator))
        })
    }

    /// Drops what is about nodes that a new policy no longer names.
    pub(crate) fn forget_strange_records(&mut self, turn: &mut Turn) {
        self.revoke_strange_canaries(turn);
        self.reputation.forget_strangers(&self.peers);
    }
}

/// Whose reports count now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) operators: BTreeSet<OperatorName>,
    /// When the others' may count; none when all do.
    pub(crate) again: Option<Timestamp>,
}

/// Why a builder that asks for work gets no ordinary lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It got a job whose answer is known instead.
    ToCanary,
    /// It may not have any now.
    Away(Hindrance),
}

/// Gives who agreed on a job's outputs, and their attestations.
pub(super) fn agreed(job: &Job) -> (Vec<OperatorName>, Vec<Hash>) {
    job.state.agreement().map(|agreement| of(job, agreement)).unwrap_or_default()
}

fn of(job: &Job, agreement: &Agreement) -> (Vec<OperatorName>, Vec<Hash>) {
    let agreeing = |a: &&Attempt| agreement.builders.contains(&a.node);
    let votes = job.attempts.iter().filter(agreeing).filter_map(Attempt::vote);
    let votes = votes.filter(|vote| vote.digest == agreement.digest);
    let operators = agreement.operators.iter().take(NAMED_MAX).cloned().collect();
    (operators, votes.map(|vote| vote.attestation).take(NAMED_MAX).collect())
}

fn short(failure: &Failure) -> Failure {
    let what: String = failure.what.chars().take(WORDS_MAX).collect();
    Failure { what, ..failure.clone() }
}

/// Says whether a failure stops its job and its builder at once.
pub(crate) const fn is_breach(blame: Blame) -> bool {
    matches!(blame, Blame::IsolationBreach)
}
