//! Jobs that wait for jobs: when one may begin, and what becomes of it when one that it waits for did not end well.
//!
//! ```text
//!  prepare ----> build ----> publish        a job begins when everything that it waits for has ended well
//!       \------> build arm64                and is skipped at once when one of them did not
//! ```
//!
//! There are no cycles, so nothing has to look for them. A request names the jobs that it waits for by their ids; an id is the
//! hash of the request's payload, ids inside included, so a cycle would need a hash that contains itself. Besides, a job is
//! accepted only after every job that it names. How long a chain may be is limited, since the end of its first job is felt
//! by the last one in the same command.

use protocol::{JobId, message::Refusal};
use serde::{Deserialize, Serialize};

use crate::{
    Ledger, News, Turn,
    job::{Job, JobState, Outcome},
};

/// Jobs in the longest chain.
pub const CHAIN_MAX: u16 = 64;

/// Where a job stands among those that wait for each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Jobs in the longest chain that ends before it.
    pub depth: u16,
    /// Jobs that wait for it, in the order in which they were accepted.
    pub dependents: Vec<JobId>,
}

/// What the jobs that one waits for allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// All ended well, or there are none.
    Free,
    /// This one is not over.
    Waits(JobId),
    /// This one did not end well.
    Failed(JobId),
}

impl Ledger {
    /// Says whether a job may begin as far as the jobs that it waits for are concerned. What has begun is not held up again.
    pub(crate) fn ahead(&self, job: &Job) -> Ahead {
        if !job.attempts.is_empty() {
            return Ahead::Free;
        }
        let mut ahead = Ahead::Free;
        for id in &job.facts.schedule.after {
            // One that is forgotten was over, and had it not ended well, this job would have been skipped at once.
            match self.jobs.get(id).map(|before| &before.state) {
                Some(JobState::Ended(ended)) if !ended.outcome.is_well() => return Ahead::Failed(*id),
                Some(JobState::Ended(_)) | None => {}
                Some(JobState::Queued | JobState::Building | JobState::Publishing(_) | JobState::Serving(_)) => {
                    if ahead == Ahead::Free {
                        ahead = Ahead::Waits(*id);
                    }
                }
            }
        }
        ahead
    }

    /// Gives a new job's place behind those that it waits for.
    ///
    /// # Errors
    /// When one of them is not known, or the chain is too long.
    pub(crate) fn place_behind(&self, after: &[JobId]) -> Result<Place, Refusal> {
        let mut depth = 0;
        for id in after {
            let before = self.jobs.get(id).ok_or_else(|| {
                Refusal::Unknown(format!("job {id}, which this one waits for: submit it first, and this one after it"))
            })?;
            depth = depth.max(before.place.depth + 1);
        }
        if depth >= CHAIN_MAX {
            return Err(Refusal::Invalid(format!("a chain has at most {CHAIN_MAX} jobs that wait for each other")));
        }
        Ok(Place { depth, dependents: Vec::new() })
    }

    /// Enters a new job with those that it waits for.
    pub(crate) fn join_graph(&mut self, id: JobId, after: &[JobId]) {
        for before in after {
            self.jobs.get_mut(before).expect("place_behind found it").place.dependents.push(id);
        }
    }

    /// A job is over: those that wait for it begin, or are skipped.
    pub(crate) fn tell_dependents(&mut self, id: JobId, turn: &mut Turn) {
        for dependent in self.jobs.get(&id).map(|job| job.place.dependents.clone()).unwrap_or_default() {
            self.settle(dependent, turn);
        }
    }

    /// Ends a job because one that it waits for did not end well.
    pub(crate) fn skip(&mut self, id: JobId, of: JobId, turn: &mut Turn) {
        let why = self.jobs.get(&of).map_or_else(
            || format!("job {} that it waits for did not end well", of.short()),
            |before| {
                format!("job {} ({}) that it waits for is {}", of.short(), before.facts.title, before.state.word())
            },
        );
        turn.tell(News::Skipped { job: id, of, why: why.clone() });
        self.end(id, Outcome::Skipped { of, why }, turn).expect("a job that has not begun may be skipped");
    }
}
