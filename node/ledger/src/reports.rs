//! What builders report about their leases. Under a live lease it decides; under a dead one it is evidence.

use std::time::Duration;

use attest::{compare, log::entry::End, statement::VerifiedAttestation};
use protocol::{
    Hash, JobId, NodeId,
    blame::{self, Blame, Failure},
    lease::{Lease, LeaseNumber},
    limits,
    message::{Failed, Refusal, Renewal, Response},
};

use crate::{
    Effect, Ledger, News, Opening, Turn, commitments,
    deadlines::Due,
    job::{Attempt, AttemptState, Late, LateReport, Said, Silence, Vote, is_interruption},
    log,
    planted::{self, Fault},
    reputation::is_breach,
    schedule::{PAUSE_INTERRUPTED, cut, stand_back},
    tally,
};

/// Renewals that are read from one message; no builder has so many slots.
const RENEWALS_MAX: usize = 1024;
/// Reports under dead leases that are kept of one job: each may bring an attestation, and a maintainer who suspends and resumes a job
/// makes as many leases as he likes.
const LATE_MAX: usize = 32;

impl Ledger {
    /// Gives what of a builder's heartbeat the ledger looks at: the rest would only lie in the journal.
    pub fn trimmed(&self, node: NodeId, renewals: Vec<Renewal>) -> Vec<Renewal> {
        let trim = |Renewal { lease, phase }: Renewal| {
            let phase = if self.held(node, lease).is_some() { cut(phase) } else { String::new() };
            Renewal { lease, phase }
        };
        renewals.into_iter().take(RENEWALS_MAX).map(trim).collect()
    }

    pub(crate) fn renewed(&mut self, node: NodeId, renewals: Vec<Renewal>, turn: &mut Turn) {
        self.peers.heard(node, turn.at);
        let mut lost = Vec::new();
        for renewal in renewals.into_iter().take(RENEWALS_MAX) {
            if self.held(node, renewal.lease).is_none() {
                if self.renew_canary(node, renewal.lease, turn) {
                    continue;
                }
                lost.push(renewal.lease);
                continue;
            }
            let lease = self.leases.get_mut(&renewal.lease).expect("it is held");
            let attempt = self.jobs[&lease.job].attempt(lease.number);
            if !attempt.is_some_and(|attempt| attempt.state.is_asked()) {
                lease.expires = turn.at.after(limits::LEASE_TTL);
                self.deadlines.set(Due::Lease(renewal.lease), lease.expires);
            }
            self.run(renewal.lease, cut(renewal.phase), turn);
        }
        turn.answer(Response::Lost(lost));
    }

    pub(crate) fn started(&mut self, node: NodeId, number: LeaseNumber, turn: &mut Turn) {
        if self.held(node, number).is_none() {
            if self.canary_started(node, number, turn) {
                return;
            }
            turn.answer(Response::Lost(vec![number]));
            return;
        }
        turn.done();
        self.run(number, "start".to_owned(), turn);
    }

    /// Notes that the attempt under a live lease runs, and what it does.
    fn run(&mut self, number: LeaseNumber, now: String, turn: &mut Turn) {
        let lease = self.leases.get(&number).expect("the caller holds it");
        let (job, node) = (lease.job, lease.node);
        let attempt = self.attempt_mut(lease.clone());
        if let AttemptState::Running { phase, .. } = &mut attempt.state {
            *phase = now;
        } else if attempt.state.committed().is_none() {
            attempt.state = AttemptState::Running { phase: now, started: turn.at };
            turn.tell(News::Started { job, lease: number, node });
        }
    }

    pub(crate) fn revealed(
        &mut self,
        node: NodeId,
        (number, log, opening): (LeaseNumber, Hash, Opening),
        attestation: VerifiedAttestation,
        turn: &mut Turn,
    ) {
        let Some(lease) = self.held(node, number).cloned() else {
            if self.canary_revealed(node, (number, opening), &attestation, turn) {
                return;
            }
            self.revealed_late(node, (number, log, opening), attestation, turn);
            return;
        };
        let vote = vote((log, opening), &attestation);
        if let Err(why) = self.check_bound(&lease, opening, &attestation) {
            self.refuse_unbound(&lease, (why, LateReport::Attested(vote)), attestation, turn);
            return;
        }
        let job = lease.job;
        let fits = self.fits(&attestation, &lease);
        let bound = self.jobs[&job].attempt(number).and_then(|attempt| attempt.state.committed_at());
        let ended = bound.unwrap_or(turn.at);
        // What does not answer the lease is no opinion, but it came and is on record.
        self.release(number, End::Built(attestation.id()), turn);
        let attempt = self.attempt_mut(lease.clone());
        let started = attempt.state.started().unwrap_or(attempt.granted);
        match fits {
            Ok(()) => {
                let began = attempt.granted;
                attempt.state = AttemptState::Revealed { vote, ended, started };
                self.dossiers.get_mut(&job).expect("an open job has its dossier").attestations.push(attestation);
                if bound.is_none() {
                    self.pace.note(&self.jobs[&job].facts.title, ended.since(began));
                }
                turn.done();
                turn.tell(News::Revealed { job, lease: number, node });
            }
            Err(why) => {
                let failure = Failure::new(Blame::Builder(blame::Fault::Other), "attest", &why);
                attempt.state = AttemptState::Failed { log: Some(log), ended, failure, started, excused: false };
                turn.refuse(Refusal::Invalid(why.clone()));
                turn.tell(News::AttemptFailed { job, lease: number, node, why });
                self.note_failure(&lease, turn);
            }
        }
        self.settle(job, turn);
    }

    /// Says whether an attestation answers the job and the lease that it came under.
    pub(crate) fn fits(&self, attestation: &VerifiedAttestation, lease: &Lease) -> Result<(), String> {
        let dossier = self.dossiers.get(&lease.job).ok_or("the job's request is no longer kept")?;
        attestation.matches_lease(lease).map_err(|e| e.to_string())?;
        attestation.matches_request(&dossier.request).map_err(|e| e.to_string())
    }

    fn revealed_late(
        &mut self,
        node: NodeId,
        (number, log, opening): (LeaseNumber, Hash, Opening),
        attestation: VerifiedAttestation,
        turn: &mut Turn,
    ) {
        let Some(attempt) = self.past(node, number) else {
            turn.refuse(unknown_lease(number));
            return;
        };
        if attempt.vote().is_some_and(|vote| vote.attestation == attestation.id()) {
            turn.done();
            return;
        }
        let (job, profile) = (self.job_of_lease[&number], attempt.profile);
        let was = Lease { job, node, number, expires: turn.at, profile, memory_mib: 0 };
        if let Err(why) = self.fits(&attestation, &was) {
            turn.refuse(Refusal::Invalid(why));
            return;
        }
        let vote = vote((log, opening), &attestation);
        if planted::is(Fault::DeadLeaseCounts) {
            let state = AttemptState::Revealed { vote: vote.clone(), ended: turn.at, started: turn.at };
            self.attempt_mut(was.clone()).state = state;
            self.settle(job, turn);
        }
        self.name_late_dissent(&was, &vote, turn);
        if self.keep_late(&was, LateReport::Attested(vote), turn) {
            self.dossiers.get_mut(&job).expect("it fits the dossier's request").late.push(attestation);
            self.want_explanations(job, turn);
            if self.jobs.get(&job).is_some_and(commitments::is_open) {
                turn.push(Effect::Disclose { node, job });
            }
        }
        turn.done();
    }

    /// A builder whose lease we ended because the job was decided had built as asked: if it differs, it is named like the
    /// others. It changes no verdict.
    fn name_late_dissent(&mut self, was: &Lease, vote: &Vote, turn: &mut Turn) {
        let job = self.jobs.get_mut(&was.job).expect("the lease has a job");
        let attempt = job.attempt(was.number).expect("the lease has an attempt");
        let operator = attempt.operator.clone();
        let revoked = matches!(attempt.state, AttemptState::Revoked { .. });
        let Some(builder) = job.state.agreement().and_then(|a| a.builders.first().copied()).filter(|_| revoked) else {
            return;
        };
        let agreed = job.attempts.iter().filter(|a| a.node == builder).find_map(Attempt::vote).cloned();
        let Some(agreed) = agreed.filter(|agreed| agreed.digest != vote.digest && !agreed.outputs.is_empty()) else {
            return;
        };
        let dissent = tally::dissent(&operator, was.node, &agreed, vote);
        let (id, attestation) = (vote.digest, vote.attestation);
        let agreement = job.state.agreement_mut().expect("seen above");
        if agreement.dissent.iter().any(|d| d.operator == operator) {
            return;
        }
        if let Some(first) = dissent.files.first() {
            let (job, file) = (was.job, first.file.to_string());
            turn.tell(News::Dissent { job, node: was.node, operator, file, agreed: first.agreed, got: first.got });
        }
        agreement.dissent.push(dissent);
        self.judge_late(was, (id, attestation), turn);
    }

    pub(crate) fn failed(&mut self, node: NodeId, report: Failed, turn: &mut Turn) {
        let number = report.lease;
        let end = log::failed(&report);
        let Failure { step, what, blame } = report.failure;
        let failure = Failure::new(blame, cut(step), what);
        let Some(lease) = self.held(node, number).cloned() else {
            if self.canary_failed((node, number), (&failure, end), turn) {
                return;
            }
            self.failed_late(node, number, failure, turn);
            return;
        };
        let (job, ended) = (lease.job, turn.at);
        let state = &self.jobs[&job].attempt(number).expect("a lease has an attempt").state;
        let bound = state.committed().is_some() && !is_breach(blame);
        let dossier = self.dossiers.get_mut(&job).expect("an open job has its dossier");
        dossier.negatives.extend(report.statement);
        turn.done();
        turn.tell(News::AttemptFailed { job, lease: number, node, why: failure.to_string() });
        self.release(number, if bound { End::Withheld } else { end }, turn);
        let attempt = self.attempt_mut(lease.clone());
        if bound {
            let (why, started) = (failure.to_string(), attempt.state.started());
            attempt.state = AttemptState::Silent { why, kind: Silence::Withheld, ended, started };
        } else if is_interruption(blame) {
            let started = attempt.state.started();
            attempt.state = AttemptState::Interrupted { ended, why: failure.to_string(), started };
            self.pause(job, node, turn);
        } else {
            let started = attempt.state.started().unwrap_or(attempt.granted);
            attempt.state =
                AttemptState::Failed { log: report.log, ended, failure: failure.clone(), started, excused: false };
            if attempt.said == Said::Nothing && blame.is_final() {
                attempt.said = Said::Failed;
            }
            if is_breach(blame) {
                self.breach(&lease, &failure, turn);
                return;
            }
            self.note_failure(&lease, turn);
        }
        self.settle(job, turn);
    }

    fn failed_late(&mut self, node: NodeId, number: LeaseNumber, failure: Failure, turn: &mut Turn) {
        let Some(attempt) = self.past(node, number) else {
            turn.refuse(unknown_lease(number));
            return;
        };
        let repeated = attempt.failure() == Some(&failure);
        let (job, profile) = (self.job_of_lease[&number], attempt.profile);
        let was = Lease { job, node, number, expires: turn.at, profile, memory_mib: 0 };
        if !repeated {
            self.keep_late(&was, LateReport::Failed(failure), turn);
        }
        turn.done();
    }

    /// Keeps a report under a dead lease; the first one only, and of a job no more than [`LATE_MAX`].
    pub(crate) fn keep_late(&mut self, was: &Lease, report: LateReport, turn: &mut Turn) -> bool {
        let job = self.jobs.get_mut(&was.job).expect("the lease has a job");
        if job.late.len() >= LATE_MAX || job.late.iter().any(|late| late.lease == was.number) {
            return false;
        }
        job.late.push(Late { at: turn.at, lease: was.number, report });
        turn.tell(News::LateReport { job: was.job, lease: was.number, node: was.node });
        true
    }

    pub(crate) fn lease_expired(&mut self, number: LeaseNumber, turn: &mut Turn) {
        let Some(lease) = self.leases.get(&number).cloned() else {
            self.canary_expired(number, turn);
            return;
        };
        let (job, node, ended) = (lease.job, lease.node, turn.at);
        let state = &self.jobs[&job].attempt(number).expect("a lease has an attempt").state;
        let (bound, asked) = (state.committed_at(), state.is_asked());
        if bound.is_some_and(|since| !asked || !self.can_be_replaced(&job, turn.at.since(since))) {
            self.wait_for(&lease, asked, turn);
            return;
        }
        self.release(number, if asked { End::Withheld } else { End::Lost }, turn);
        if planted::is(Fault::ForgetsLost) {
            return;
        }
        let (attempt, waited) = (self.attempt_mut(lease), limits::LEASE_TTL.as_secs());
        let started = attempt.state.started();
        if asked {
            let why = format!("it did not show what it is bound to within {waited} s");
            attempt.state = AttemptState::Silent { why, kind: Silence::Withheld, ended, started };
        } else {
            let why = format!("no sign of life for {waited} s");
            attempt.state = AttemptState::Interrupted { ended, why, started };
            self.pause(job, node, turn);
        }
        turn.tell(News::LeaseExpired { job, lease: number, node });
        self.settle(job, turn);
    }

    /// Says whether somebody else can be asked instead of one that is bound and away. Who could not try before may not be able to
    /// now, either: that is worth less than a result that only sleeps.
    fn can_be_replaced(&self, job: &JobId, bound: Duration) -> bool {
        let (job, operators) = (&self.jobs[job], self.peers.operators());
        let more = job.attempts.len() < limits::ATTEMPTS_MAX as usize;
        let excuse = || bound >= limits::REVEAL_WAIT.saturating_mul(2) && tally::may_excuse(job, operators);
        more && (tally::is_possible(job, (self.policy_in_force(), operators)) || excuse())
    }

    /// What is bound stays so while its builder is away: a laptop may wake up again. Asked, it has withheld its result as soon as
    /// another operator could be asked instead; without one the job would wait in vain. Where those that are left could not try before,
    /// it has twice the time after which it shows its result by itself.
    fn wait_for(&mut self, lease: &Lease, asked: bool, turn: &mut Turn) {
        let expires = turn.at.after(limits::LEASE_TTL);
        self.leases.get_mut(&lease.number).expect("the caller holds it").expires = expires;
        self.deadlines.set(Due::Lease(lease.number), expires);
        if asked {
            turn.push(Effect::Reveal { node: lease.node, lease: lease.number });
        }
    }

    /// How long an attempt may take in all.
    pub(crate) fn attempt_limit(&self, job: &JobId) -> Duration {
        let wall = self.dossiers.get(job).map_or(Duration::ZERO, |dossier| dossier.request.get().limits.wall());
        wall.saturating_add(limits::ATTEMPT_ROOM)
    }

    /// The attempt's time is over, and its builder, which is there, is bound to nothing: somebody else is asked.
    pub(crate) fn attempt_overdue(&mut self, number: LeaseNumber, turn: &mut Turn) {
        let Some(lease) = self.leases.get(&number).cloned() else { return self.canary_overdue(number, turn) };
        let (job, node, ended) = (lease.job, lease.node, turn.at);
        let attempt = self.jobs[&job].attempt(number).expect("a lease has an attempt");
        if attempt.state.committed().is_some() || planted::is(Fault::ForgetsEndless) {
            return;
        }
        self.release(number, End::Lost, turn);
        let why = format!("no result within {} s", self.attempt_limit(&job).as_secs());
        let attempt = self.attempt_mut(lease.clone());
        let (kind, started) = (Silence::Endless, attempt.state.started());
        attempt.state = AttemptState::Silent { why: why.clone(), kind, ended, started };
        turn.push(Effect::Revoke { node, lease: number, reason: why.clone() });
        turn.tell(News::AttemptFailed { job, lease: number, node, why });
        self.note_failure(&lease, turn);
        self.settle(job, turn);
    }

    fn pause(&mut self, job: JobId, node: NodeId, turn: &Turn) {
        let job = self.jobs.get_mut(&job).expect("the lease has a job");
        stand_back(job, node, PAUSE_INTERRUPTED, turn.at);
    }

    pub(crate) fn attempt_mut(&mut self, lease: Lease) -> &mut Attempt {
        let job = self.jobs.get_mut(&lease.job).expect("a lease has a job");
        job.attempt_mut(lease.number).expect("a lease has an attempt")
    }

    /// Finds this node's attempt under a lease that is over.
    fn past(&self, node: NodeId, number: LeaseNumber) -> Option<&Attempt> {
        let job = self.job_of_lease.get(&number)?;
        self.jobs.get(job)?.attempt(number).filter(|attempt| attempt.node == node)
    }
}

fn vote((log, opening): (Hash, Opening), attestation: &VerifiedAttestation) -> Vote {
    let outputs = attestation.get().outputs.clone();
    let salt = if let Opening::Salt(salt) = opening { Some(salt) } else { None };
    Vote { log, salt, digest: compare::digest(&outputs), outputs, attestation: attestation.id() }
}

/// Says that a node has no such lease.
pub fn unknown_lease(number: LeaseNumber) -> Refusal {
    Refusal::Unknown(format!("lease {number} of this node: it was never granted, or its job is long over"))
}
