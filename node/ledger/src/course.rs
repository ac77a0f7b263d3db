//! What the transparency log says of a job's attempts, kept with its evidence: so that an attempt that ended without a result,
//! or has not ended, is seen by whoever asks for the job, and a bundle can prove it.
//!
//! A canary is no attempt of the job whose known answer it is asked for; it stands in the log only.

use std::collections::BTreeMap;

use attest::{
    course::ENTRIES_MAX,
    log::entry::{End, Entry, Event, Lease},
};
use protocol::{Hash, JobId, Salt, lease::LeaseNumber, message::Octets};

use crate::{Ledger, evidence::Dossier, job::Job};

/// Declined leases of one job that are kept: a builder that has no room after all says nothing of the job.
const DECLINED_MAX: usize = 16;

/// An entry of the log about a job's attempts: its place and its bytes.
pub(crate) type Noted = (u64, Octets);

/// An entry of the log about a job: its place and its bytes.
pub type Place = (u64, Vec<u8>);

/// What the log says of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The lease as it was granted.
    pub lease: Lease,
    /// What its builder was bound to.
    pub committed: Option<Hash>,
    /// How it ended; none while it has not.
    pub end: Option<End>,
    /// The place of the last entry about it.
    pub place: u64,
}

impl Ledger {
    /// Keeps what was logged about a job's attempts with its evidence, as long as that is kept.
    pub(crate) fn note_course(&mut self, event: &Event, (place, entry): (u64, &[u8])) {
        let Some((id, lease)) = about(event) else { return };
        let (Some(job), Some(dossier)) = (self.jobs.get(&id), self.dossiers.get(&id)) else { return };
        let is_attempt = |lease| job.every_attempt().any(|attempt| attempt.lease == lease);
        // Who declines is no attempt any more.
        let was_one = |lease| !matches!(event, Event::Lease(_)) && events(dossier).any(|(_, e)| is_of(&e, lease));
        let wanted = lease.is_none_or(|lease| is_attempt(lease) || was_one(lease));
        if !wanted || dossier.course.len() >= ENTRIES_MAX {
            return;
        }
        let dossier = self.dossiers.get_mut(&id).expect("seen above");
        dossier.course.push((place, Octets(entry.to_vec())));
        if matches!(event, Event::Outcome(outcome) if outcome.end == End::Declined) {
            forget_declined(dossier);
        }
    }

    /// Gives what the log says of each attempt of a job, by lease, while its evidence is kept.
    pub fn endings(&self, id: JobId) -> Vec<Ending> {
        let mut endings: BTreeMap<LeaseNumber, Ending> = BTreeMap::new();
        for (place, event) in self.dossiers.get(&id).into_iter().flat_map(events) {
            match event {
                Event::Lease(lease) => {
                    endings.insert(lease.lease, Ending { lease, committed: None, end: None, place });
                }
                Event::Commitment(commitment) => {
                    if let Some(ending) = endings.get_mut(&commitment.lease) {
                        (ending.committed, ending.place) = (Some(commitment.digest), place);
                    }
                }
                Event::Outcome(outcome) => {
                    if let Some(ending) = endings.get_mut(&outcome.lease) {
                        (ending.end, ending.place) = (Some(outcome.end), place);
                    }
                }
                Event::Policy(_)
                | Event::Accepted(_)
                | Event::Verdict(_)
                | Event::Release(_)
                | Event::Revocation(_) => {}
            }
        }
        endings.into_values().collect()
    }
}

/// Gives what hid the results of those who voted.
pub(crate) fn salts(job: &Job) -> Vec<(LeaseNumber, Salt)> {
    job.attempts.iter().filter_map(|attempt| Some((attempt.lease, attempt.vote()?.salt?))).collect()
}

/// Gives the job, and the lease where it is about an attempt, of an entry that belongs to a job's course.
fn about(event: &Event) -> Option<(JobId, Option<LeaseNumber>)> {
    match event {
        Event::Lease(lease) => Some((lease.job, Some(lease.lease))),
        Event::Commitment(commitment) => Some((commitment.job, Some(commitment.lease))),
        Event::Outcome(outcome) => Some((outcome.job, Some(outcome.lease))),
        Event::Verdict(verdict) => Some((verdict.job, None)),
        Event::Policy(_) | Event::Accepted(_) | Event::Release(_) | Event::Revocation(_) => None,
    }
}

fn is_of(event: &Event, lease: LeaseNumber) -> bool {
    about(event).is_some_and(|(_, of)| of == Some(lease))
}

/// Gives what was kept, with its places.
fn events(dossier: &Dossier) -> impl Iterator<Item = (u64, Event)> {
    dossier.course.iter().filter_map(|(place, Octets(bytes))| Some((*place, Entry::from_bytes(bytes).ok()?.event)))
}

/// Drops the oldest declined lease where there are too many.
fn forget_declined(dossier: &mut Dossier) {
    let declined: Vec<LeaseNumber> = events(dossier)
        .filter_map(|(_, event)| if let Event::Outcome(outcome) = event { Some(outcome) } else { None })
        .filter(|outcome| outcome.end == End::Declined)
        .map(|outcome| outcome.lease)
        .collect();
    if declined.len() > DECLINED_MAX {
        let of_it: Vec<u64> = events(dossier).filter(|(_, e)| is_of(e, declined[0])).map(|(place, _)| place).collect();
        dossier.course.retain(|(place, _)| !of_it.contains(place));
    }
}
