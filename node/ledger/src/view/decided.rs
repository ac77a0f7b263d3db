//! Jobs for those who ask what became of a file: those that have a verdict, with their evidence, and those that have none yet.
//! Of a job without a verdict nothing is told but what was asked for.

use attest::{compare, statement::VerifiedAttestation};
use protocol::{Hash, JobId, job::JobRequest};

use crate::{ENDED_FULL_MAX, Ledger, job::JobState, job::Outcome};

/// What the attempts of a job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough operators agree on the set of outputs with this digest.
    Reproduced(Hash),
    /// Some agree, too few.
    Disputed,
    /// No two agree.
    Unreproducible,
    /// It does not build.
    Failed,
}

/// A job with a verdict, and what is kept of it.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// The job.
    pub job: JobId,
    /// What was asked for.
    pub request: &'a JobRequest,
    /// What it came to.
    pub verdict: Verdict,
    votes: &'a [VerifiedAttestation],
    late: &'a [VerifiedAttestation],
}

impl<'a> Decided<'a> {
    /// Gives what builders attest, dissent included. Of those that were not bound to it before the verdict, only dissent: what
    /// agrees with something that everybody can read may be a copy.
    pub fn attestations(self) -> impl Iterator<Item = &'a VerifiedAttestation> + use<'a> {
        let copied = move |late: &&VerifiedAttestation| {
            self.verdict == Verdict::Reproduced(compare::digest(&late.get().outputs))
        };
        self.votes.iter().chain(self.late.iter().filter(move |late| !copied(late)))
    }
}

impl Ledger {
    /// Gives the jobs that ended with a verdict and whose evidence is kept, the newest first: at most [`ENDED_FULL_MAX`].
    pub fn decided(&self) -> impl Iterator<Item = Decided<'_>> {
        self.ended.iter().rev().take(ENDED_FULL_MAX).filter_map(|id| {
            let (job, dossier) = (self.jobs.get(id)?, self.dossiers.get(id)?);
            let JobState::Ended(ended) = &job.state else { return None };
            let (votes, late) = (dossier.attestations.as_slice(), dossier.late.as_slice());
            Some(Decided { job: *id, request: dossier.request.get(), verdict: verdict(&ended.outcome)?, votes, late })
        })
    }

    /// Gives what the jobs ask for that have no verdict yet.
    pub fn undecided(&self) -> impl Iterator<Item = &JobRequest> {
        let open = |id: &JobId| self.jobs.get(id).is_some_and(|job| job.state.wants_builders());
        self.open
            .ids()
            .iter()
            .filter(move |id| open(id))
            .filter_map(|id| self.request(*id))
            .map(|request| request.get())
    }
}

/// What an outcome says of the files of a job; of one that nobody judged, nothing.
fn verdict(outcome: &Outcome) -> Option<Verdict> {
    match outcome {
        Outcome::Reproduced(agreement)
        | Outcome::Published { agreement, .. }
        | Outcome::Unpublished { agreement, .. } => Some(Verdict::Reproduced(agreement.digest)),
        Outcome::Disputed(_) => Some(Verdict::Disputed),
        Outcome::Unreproducible(_) => Some(Verdict::Unreproducible),
        Outcome::Failed(_) => Some(Verdict::Failed),
        Outcome::Cancelled { .. }
        | Outcome::Expired
        | Outcome::Skipped { .. }
        | Outcome::Served { .. }
        | Outcome::Unserved { .. } => None,
    }
}
