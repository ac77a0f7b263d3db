//! The story that the log tells: whether each entry can follow those before it. Nothing here asks whether what was decided is
//! right; that is told by the documents that the entries name.
//!
//! ```text
//!  policy 1 .. accepted -> lease -> (commitment) -> outcome .. verdict     release 1 .. release 2
//!              once        once     at most once    once       once        a channel's generations only grow
//! ```
//! An attempt that ends with outputs, or withholds them, was committed to before.
//! A job that was not reproduced may be tried again, and then has another verdict.
//! A lease without an outcome, or an accepted job without a verdict, is no fault while the log goes on: see [`Story::open`].

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use protocol::{
    ChannelName, Hash, JobId, NodeId,
    codec::{self, DoorError},
    lease::LeaseNumber,
};
use serde::{Deserialize, Serialize};

use super::entry::{Commitment, End, Entry, Event, Judgement, Lease, Outcome, Verdict};

/// Why an entry cannot follow those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoryError {
    /// The first entry says under which policy the network began.
    #[error("a log begins with the network's first policy")]
    Beginning,
    /// Policies only grow.
    #[error("policy {got} follows policy {known}")]
    Policy {
        /// The newest one.
        known: u64,
        /// The one of the entry.
        got: u64,
    },
    /// A job for the second time.
    #[error("job {0} was accepted before")]
    AcceptedTwice(JobId),
    /// A job that nobody accepted.
    #[error("job {0} was not accepted")]
    NotAccepted(JobId),
    /// Lease numbers only grow.
    #[error("lease {got} is granted after lease {known}")]
    Lease {
        /// The highest one.
        known: LeaseNumber,
        /// The one of the entry.
        got: LeaseNumber,
    },
    /// Something under a lease that is not open: it was never granted, or has ended, or is another builder's or job's.
    #[error("lease {0} is not open for this builder and job")]
    NoLease(LeaseNumber),
    /// A result that was not committed to.
    #[error("the result under lease {0} was shown or withheld without a commitment to it before")]
    Unbound(LeaseNumber),
    /// A second commitment.
    #[error("lease {0} has a commitment already")]
    CommittedTwice(LeaseNumber),
    /// A second verdict.
    #[error("job {0} has a verdict already")]
    JudgedTwice(JobId),
    /// A verdict names an attestation that no builder gave.
    #[error("the verdict over job {job} rests on attestation {attestation}, which no outcome names")]
    Attestation {
        /// The job.
        job: JobId,
        /// The attestation.
        attestation: Hash,
    },
    /// A channel went back.
    #[error("generation {got} of {channel} is released after generation {known}")]
    Generation {
        /// The channel.
        channel: ChannelName,
        /// The newest one.
        known: u64,
        /// The one of the entry.
        got: u64,
    },
}

/// What has not ended yet of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    job: JobId,
    node: NodeId,
    commitment: Option<Hash>,
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Course {
    /// It has no verdict; the attestations that its builders gave.
    Open(BTreeSet<Hash>),
    /// It has one, and was not reproduced: it may be tried again; the attestations that its builders gave.
    Tried(BTreeSet<Hash>),
    /// It was reproduced.
    Judged,
}

/// How far a log was read, and what may come next. It can be kept and continued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    jobs: BTreeMap<JobId, Course>,
    leases: BTreeMap<LeaseNumber, Attempt>,
    policy: u64,
    /// The newest generation of each channel, by name.
    releases: Vec<(ChannelName, u64)>,
    last_lease: u64,
}

impl Story {
    /// Reads the next entry. One that is refused changes nothing.
    ///
    /// # Errors
    /// [`StoryError`].
    pub fn read(&mut self, entry: &Entry) -> Result<(), StoryError> {
        if self.policy == 0 && !matches!(entry.event, Event::Policy(_)) {
            return Err(StoryError::Beginning);
        }
        match &entry.event {
            Event::Policy(policy) => {
                if policy.number <= self.policy {
                    return Err(StoryError::Policy { known: self.policy, got: policy.number });
                }
                self.policy = policy.number;
                Ok(())
            }
            Event::Accepted(accepted) => {
                if self.jobs.contains_key(&accepted.job) {
                    return Err(StoryError::AcceptedTwice(accepted.job));
                }
                self.jobs.insert(accepted.job, Course::Open(BTreeSet::new()));
                Ok(())
            }
            Event::Lease(lease) => self.lease(lease),
            Event::Commitment(commitment) => self.commitment(commitment),
            Event::Outcome(outcome) => self.outcome(outcome),
            Event::Verdict(verdict) => self.verdict(verdict),
            Event::Release(release) => {
                let place = self.releases.binary_search_by_key(&&release.channel, |(channel, _)| channel);
                let known = place.map_or(0, |at| self.releases[at].1);
                // The same number again is the same generation, signed in a later term: what differs is for whoever compares.
                if release.generation < known {
                    let (channel, got) = (release.channel.clone(), release.generation);
                    return Err(StoryError::Generation { channel, known, got });
                }
                match place {
                    Ok(at) => self.releases[at].1 = release.generation,
                    Err(at) => self.releases.insert(at, (release.channel.clone(), release.generation)),
                }
                Ok(())
            }
            // From which place on a key counts no more is the policies' matter.
            Event::Revocation(_) => Ok(()),
        }
    }

    fn lease(&mut self, lease: &Lease) -> Result<(), StoryError> {
        if !self.jobs.contains_key(&lease.job) {
            return Err(StoryError::NotAccepted(lease.job));
        }
        if lease.lease.0 <= self.last_lease {
            return Err(StoryError::Lease { known: LeaseNumber(self.last_lease), got: lease.lease });
        }
        self.last_lease = lease.lease.0;
        self.leases.insert(lease.lease, Attempt { job: lease.job, node: lease.node, commitment: None });
        Ok(())
    }

    fn attempt(&mut self, lease: LeaseNumber, job: JobId, node: NodeId) -> Result<&mut Attempt, StoryError> {
        let attempt = self.leases.get_mut(&lease).filter(|attempt| attempt.job == job && attempt.node == node);
        attempt.ok_or(StoryError::NoLease(lease))
    }

    fn commitment(&mut self, commitment: &Commitment) -> Result<(), StoryError> {
        let attempt = self.attempt(commitment.lease, commitment.job, commitment.node)?;
        match attempt.commitment.replace(commitment.digest) {
            None => Ok(()),
            Some(first) => {
                attempt.commitment = Some(first);
                Err(StoryError::CommittedTwice(commitment.lease))
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) -> Result<(), StoryError> {
        let attempt = self.attempt(outcome.lease, outcome.job, outcome.node)?;
        if attempt.commitment.is_none() && matches!(outcome.end, End::Built(_) | End::Withheld) {
            return Err(StoryError::Unbound(outcome.lease));
        }
        self.leases.remove(&outcome.lease);
        // A canary may end after the verdict over its job, of which it is no part.
        if let (End::Built(attestation), Some(Course::Open(built) | Course::Tried(built))) =
            (&outcome.end, self.jobs.get_mut(&outcome.job))
        {
            built.insert(*attestation);
        }
        Ok(())
    }

    fn verdict(&mut self, verdict: &Verdict) -> Result<(), StoryError> {
        let job = verdict.job;
        let course = self.jobs.get_mut(&job).ok_or(StoryError::NotAccepted(job))?;
        let (Course::Open(built) | Course::Tried(built)) = course else { return Err(StoryError::JudgedTwice(job)) };
        if let Some(attestation) = verdict.attestations.iter().find(|hash| !built.contains(hash)) {
            return Err(StoryError::Attestation { job, attestation: *attestation });
        }
        let reproduced = verdict.verdict == Judgement::Reproduced;
        *course = if reproduced { Course::Judged } else { Course::Tried(mem::take(built)) };
        Ok(())
    }

    /// Gives the leases of which no end is logged yet.
    pub fn open(&self) -> impl Iterator<Item = LeaseNumber> {
        self.leases.keys().copied()
    }

    /// Gives how many accepted jobs have no verdict. Those that the network does for itself never get one.
    pub fn waiting(&self) -> usize {
        self.jobs.values().filter(|course| matches!(course, Course::Open(_))).count()
    }

    /// Gives the canonical bytes, to go on from here later.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads [`Story::to_bytes`].
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DoorError> {
        codec::decode(bytes, usize::MAX)
    }
}

#[cfg(test)]
mod tests;
