//! Commit, then reveal: who is bound, when it may show what it has, and when everybody may see it.
//!
//! ```text
//!  running --Commit--> committed --k operators bound or failed, or REVEAL_WAIT--> asked --Revealed--> a vote
//!                          '-- lease ends: withheld; the log keeps the commitment beside it             |
//!                                            verdict --> Disclose: outputs and attestations are open <--'
//! ```
//! * A vote counts only when the attestation is the one that the attempt was committed to. Another one is a breach of the
//!   builder and blamed at once; one without any commitment is kept as evidence.
//! * Nobody is asked to show anything before k operators of the job (k as the channel's `agree`) are bound or have said, signed,
//!   that they failed, or its own commitment is [`limits::REVEAL_WAIT`] old. So the first k cannot have copied, not even from a
//!   coordinator. Builders do not take the coordinator's word for it: they ask for the entries of the log (see [`Grounds`]) and
//!   judge by the same rule, [`attest::reveal`].
//! * What is shown goes to the coordinators alone and is shown to nobody else before the verdict: no view, no bundle, no
//!   output. So whoever is asked later, after the first k disagreed, cannot copy either, unless a coordinator tells it.
//! * Who was asked has one lease's time to answer, and cannot renew it: nobody holds a job up by silence. Others may have shown
//!   their results meanwhile, so that its operator has no other turn for this job; the log says `withheld`. Only while no other
//!   operator could be asked instead, it is asked again and again: its commitment still binds it. Who is bound and was not asked yet
//!   may be away; who gives up what it is bound to has withheld it.
//!
//! What earlier versions wrote down has no commitments, and is replayed as it was decided then.

use std::collections::BTreeSet;

use attest::{
    commitment,
    log::entry::{self, End, Event},
    statement::VerifiedAttestation,
};
use protocol::{
    Hash, JobId, NodeId, Salt,
    blame::{self, Blame, Failure},
    lease::{Lease, LeaseNumber},
    limits,
    message::{Commitment, Octets, Refusal, Response},
};

use crate::{
    Effect, Ledger, News, Turn,
    deadlines::Due,
    job::{AttemptState, Job, JobState, LateReport, Outcome, Said},
    planted::{self, Fault},
};

/// What an attestation shows beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The salt of its commitment.
    Salt(Salt),
    /// It was reported and written down when there were no commitments.
    EarlierVersion,
}

/// What the log has to say to the builder of an attempt before that shows its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    /// The job.
    pub job: JobId,
    /// Attempts whose commitments are logged.
    pub bound: Vec<LeaseNumber>,
    /// Attempts whose failures are logged.
    pub failed: Vec<LeaseNumber>,
    /// What their builders signed about it.
    pub negatives: Vec<Octets>,
}

/// Why an attestation under a live lease is no vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// Nothing was committed to.
    Never,
    /// Something else was.
    Otherwise,
}

impl Ledger {
    /// Binds a builder to a result that nobody has seen.
    pub(crate) fn committed(&mut self, node: NodeId, commitment: Commitment, turn: &mut Turn) {
        let (number, digest) = (commitment.lease, commitment.digest);
        let Some(lease) = self.held(node, number).cloned() else {
            if !self.canary_committed(node, commitment, turn) {
                turn.answer(Response::Lost(vec![number]));
            }
            return;
        };
        self.peers.heard(node, turn.at);
        let (at, job) = (turn.at, lease.job);
        let attempt = self.attempt_mut(lease);
        match &attempt.state {
            AttemptState::Committed { digest: known, .. } if *known != digest => {
                turn.refuse(Refusal::Invalid("this attempt is committed to another result".into()));
                return;
            }
            AttemptState::Committed { .. } => {}
            AttemptState::Granted
            | AttemptState::Running { .. }
            | AttemptState::Revealed { .. }
            | AttemptState::Failed { .. }
            | AttemptState::Interrupted { .. }
            | AttemptState::Silent { .. }
            | AttemptState::Revoked { .. } => {
                let (started, granted) = (attempt.state.started(), attempt.granted);
                attempt.state = AttemptState::Committed { at, asked: false, digest, started };
                attempt.said = Said::Bound;
                self.pace.note(&self.jobs[&job].facts.title, at.since(granted));
                turn.log(logged(job, node, commitment));
                turn.tell(News::Committed { job, lease: number, node });
                self.settle(job, turn);
            }
        }
        // Whoever asks needs no second word.
        turn.effects.retain(|effect| !matches!(effect, Effect::Reveal { lease, .. } if *lease == number));
        let asked = self.jobs[&job].attempt(number).is_some_and(|attempt| attempt.state.is_asked());
        turn.answer(if asked { Response::Reveal } else { Response::Done });
    }

    /// Says whether a commitment changes nothing, so that it need not be applied: the answer to it.
    pub fn commitment_stands(&self, node: NodeId, commitment: &Commitment) -> Option<Response> {
        let lease = self.held(node, commitment.lease)?;
        match &self.jobs.get(&lease.job)?.attempt(lease.number)?.state {
            AttemptState::Committed { digest, asked, .. } if *digest == commitment.digest => {
                Some(if *asked { Response::Reveal } else { Response::Done })
            }
            AttemptState::Committed { .. }
            | AttemptState::Granted
            | AttemptState::Running { .. }
            | AttemptState::Revealed { .. }
            | AttemptState::Failed { .. }
            | AttemptState::Interrupted { .. }
            | AttemptState::Silent { .. }
            | AttemptState::Revoked { .. } => None,
        }
    }

    /// Says whether an attestation is what its builder was bound to.
    pub(crate) fn check_bound(
        &self,
        lease: &Lease,
        opening: Opening,
        attestation: &VerifiedAttestation,
    ) -> Result<(), Unbound> {
        let committed = self.jobs[&lease.job].attempt(lease.number).and_then(|attempt| attempt.state.committed());
        self.check_opening(lease.number, (committed, opening), attestation)
    }

    /// Says whether an attestation is what a digest stands for.
    pub(crate) fn check_opening(
        &self,
        lease: LeaseNumber,
        (committed, opening): (Option<Hash>, Opening),
        attestation: &VerifiedAttestation,
    ) -> Result<(), Unbound> {
        let Opening::Salt(salt) = opening else { return Ok(()) };
        match committed {
            None if planted::is(Fault::CountsUnbound) => Ok(()),
            None => Err(Unbound::Never),
            Some(_) if planted::is(Fault::OpensAnything) => Ok(()),
            Some(digest) if digest == commitment::digest(&self.network, lease, &salt, attestation.bytes()) => Ok(()),
            Some(_) => Err(Unbound::Otherwise),
        }
    }

    /// Ends an attempt whose attestation is not what it was bound to; what came is kept as evidence.
    pub(crate) fn refuse_unbound(
        &mut self,
        lease: &Lease,
        (why, report): (Unbound, LateReport),
        attestation: VerifiedAttestation,
        turn: &mut Turn,
    ) {
        // What is of another job or builder is no evidence about this one.
        let fits = self.fits(&attestation, lease).is_ok();
        let words = unbound(why).to_owned();
        let failure = Failure::new(Blame::Builder(blame::Fault::Other), "reveal", &words);
        let (job, node, number, ended) = (lease.job, lease.node, lease.number, turn.at);
        self.release(number, End::Failed(attestation.id()), turn);
        let attempt = self.attempt_mut(lease.clone());
        let started = attempt.state.started().unwrap_or(attempt.granted);
        let state = AttemptState::Failed { log: None, ended, failure: failure.clone(), started, excused: false };
        attempt.state = state;
        turn.refuse(Refusal::Invalid(words.clone()));
        turn.tell(News::AttemptFailed { job, lease: number, node, why: words });
        match why {
            Unbound::Never => self.note_failure(lease, turn),
            Unbound::Otherwise => self.broke_commitment(lease, (&failure, attestation.id()), turn),
        }
        if fits && self.keep_late(lease, report, turn) {
            self.dossiers.get_mut(&job).expect("an open job has its dossier").late.push(attestation);
        }
        self.settle(job, turn);
    }

    /// Asks those who are bound to show what they have, once nobody can copy it any more.
    pub(crate) fn permit_reveals(&mut self, id: JobId, turn: &mut Turn) {
        let agree = self.policy_in_force().channel(&self.jobs[&id].facts.channel).map_or(1, |c| usize::from(c.agree));
        let enough = self.have_spoken(&self.jobs[&id]) >= agree || planted::is(Fault::RevealsAtOnce);
        let job = self.jobs.get_mut(&id).expect("settle found it");
        self.deadlines.clear(Due::Reveal(id));
        for attempt in &mut job.attempts {
            let AttemptState::Committed { at, asked, .. } = &mut attempt.state else { continue };
            let until = at.after(limits::REVEAL_WAIT);
            if *asked {
                continue;
            }
            if !enough && turn.at < until {
                let soonest = self.deadlines.time(Due::Reveal(id)).map_or(until, |known| known.min(until));
                self.deadlines.set(Due::Reveal(id), soonest);
                continue;
            }
            *asked = true;
            let expires = turn.at.after(limits::LEASE_TTL);
            self.leases.get_mut(&attempt.lease).expect("a live attempt has its lease").expires = expires;
            self.deadlines.set(Due::Lease(attempt.lease), expires);
            turn.push(Effect::Reveal { node: attempt.node, lease: attempt.lease });
        }
    }

    /// Counts the operators of the policy in force that cannot copy any more: each is bound, or said that it failed.
    fn have_spoken(&self, job: &Job) -> usize {
        let spoken = job.attempts.iter().filter(|attempt| attempt.said != Said::Nothing);
        spoken.filter_map(|attempt| self.peers.operator(&attempt.node)).collect::<BTreeSet<_>>().len()
    }

    /// Gives which entries of the log tell a builder that it may show what it has; none when the lease is none of its own.
    pub fn grounds(&self, node: NodeId, lease: LeaseNumber) -> Option<Grounds> {
        let own = |id: &&JobId| self.jobs.get(id).and_then(|job| job.attempt(lease)).is_some_and(|a| a.node == node);
        let known = self.job_of_lease.get(&lease).filter(own).copied();
        let id = known.or_else(|| self.canary_of(node, lease))?;
        let job = self.jobs.get(&id)?;
        let of = |said: Said| {
            let spoken = job.attempts.iter().filter(move |attempt| attempt.said == said);
            spoken.map(|attempt| attempt.lease)
        };
        // A canary is none of the job's attempts.
        let canary = known.is_none().then_some(lease).filter(|lease| self.canary_is_bound(*lease));
        let kept = self.dossiers.get(&id).into_iter().flat_map(|dossier| dossier.negatives.iter().rev());
        let negatives = kept.take(limits::ATTEMPTS_MAX as usize).cloned().collect();
        let bound = of(Said::Bound).chain(canary).collect();
        Some(Grounds { job: id, bound, failed: of(Said::Failed).collect(), negatives })
    }

    /// Says again who is to show what it has.
    pub(crate) fn say_reveals(&self, turn: &mut Turn) {
        for lease in self.leases.values() {
            let attempt = self.jobs.get(&lease.job).and_then(|job| job.attempt(lease.number));
            if attempt.is_some_and(|attempt| attempt.state.is_asked()) {
                turn.push(Effect::Reveal { node: lease.node, lease: lease.number });
            }
        }
    }

    /// The job is decided: everybody may see what its builders made.
    pub(crate) fn disclose(&self, id: JobId, turn: &mut Turn) {
        let voters = self.jobs[&id].attempts.iter().filter(|attempt| attempt.vote().is_some());
        let nodes: BTreeSet<NodeId> = voters.map(|attempt| attempt.node).collect();
        nodes.into_iter().for_each(|node| turn.push(Effect::Disclose { node, job: id }));
    }
}

/// A commitment as it stands in the log.
pub(crate) fn logged(job: JobId, node: NodeId, commitment: Commitment) -> Event {
    let Commitment { lease, digest, signature } = commitment;
    Event::Commitment(entry::Commitment { job, node, lease, digest, signature })
}

fn unbound(why: Unbound) -> &'static str {
    match why {
        Unbound::Never => {
            "it showed a result without having committed to one; it is kept as evidence and does not count"
        }
        Unbound::Otherwise => {
            "it showed another result than it had committed to; it is kept as evidence against the builder"
        }
    }
}

/// Says whether everybody may see what a job's builders made: once there is a verdict.
pub(crate) fn is_open(job: &Job) -> bool {
    planted::is(Fault::ShowsUndecided)
        || match &job.state {
            JobState::Queued | JobState::Building | JobState::Serving(_) => false,
            JobState::Publishing(_) => true,
            JobState::Ended(ended) => match &ended.outcome {
                Outcome::Reproduced(_)
                | Outcome::Published { .. }
                | Outcome::Unpublished { .. }
                | Outcome::Disputed(_)
                | Outcome::Unreproducible(_)
                | Outcome::Failed(_) => true,
                Outcome::Cancelled { .. }
                | Outcome::Expired
                | Outcome::Skipped { .. }
                | Outcome::Served { .. }
                | Outcome::Unserved { .. } => false,
            },
        }
}
