//! One job: its facts, its state and its attempts. It knows which changes of state are legal, not when they are due.

mod attempt;

use std::collections::BTreeMap;

pub use attempt::{Attempt, AttemptState, Late, LateReport, Said, Silence, Vote};
use protocol::{
    Arch, ChannelName, JobId, MaintainerName, NodeId, OperatorName, PublicKey, Timestamp,
    blame::Blame,
    job::{Endpoint, Isolation, Schedule, ServerJob},
    lease::LeaseNumber,
    limits,
};
use serde::{Deserialize, Serialize};

use crate::{
    Left,
    explain::Explanation,
    graph::Place,
    orders::Orders,
    service::Run,
    tally::{Agreement, Comparison, JobFailure},
};

/// A change of state that the life of a job does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The state's word.
    pub from: &'static str,
    /// The word of the state that was wanted.
    pub to: &'static str,
}

/// Interruptions after which an operator is not asked again for the same job: a third of all attempts that a job has, since nobody is
/// blamed for one.
const INTERRUPTIONS_MAX: usize = limits::ATTEMPTS_MAX as usize / 3;

/// What never changes about a job; small, so that it stays when the request is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The maintainer's key that signed.
    pub key: PublicKey,
    /// The architecture that it builds on.
    pub arch: Arch,
    /// `deb`, `rpm`, `command`, or a server job's word.
    pub kind: String,
    /// What it builds, in one line.
    pub title: String,
    /// The channel.
    pub channel: ChannelName,
    /// When the maintainer signed.
    pub created: Timestamp,
    /// When the job is over.
    pub expires: Timestamp,
    /// When it became durable here.
    pub accepted: Timestamp,
    /// Disk that an attempt may use, in MiB; 0 of a job of before this was noted.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub disk_mib: u32,
    /// When and where it may run, as it was signed.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub schedule: Schedule,
    /// Where a fetch goes, sorted; nothing else has a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Whose programs a command finds.
    #[serde(default, skip_serializing_if = "Isolation::is_rootfs")]
    pub isolation: Isolation,
    /// The maintainer's name at that time.
    pub maintainer: MaintainerName,
    /// Memory that an attempt may use, in MiB.
    pub memory_mib: u32,
}

impl Facts {
    /// Says whether its inputs say all that it is made of: neither hosts elsewhere nor a builder's own programs do.
    pub fn is_closed(&self) -> bool {
        self.endpoints.is_empty() && self.isolation.is_rootfs()
    }

    /// Says whether the publisher runs it, and no builder.
    pub fn is_server(&self) -> bool {
        ServerJob::WORDS.contains(&self.kind.as_str())
    }

    /// Gives the word of the publisher's work for it: its own, or that of the publication that follows a build.
    pub fn service_word(&self) -> &str {
        if self.is_server() { &self.kind } else { ServerJob::WORDS[0] }
    }
}

/// Where a job is in its life, see the crate's picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// No builder has it.
    Queued,
    /// Attempts run, or their outputs wait for others.
    Building,
    /// Reproduced, on the way into the repository.
    Publishing(Publishing),
    /// A server job whose turn has come; never [`PublishStep::Waiting`].
    Serving(PublishStep),
    /// Over.
    Ended(Ended),
}

/// A publication on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publishing {
    /// Where it stands.
    pub step: PublishStep,
    /// What was agreed.
    pub agreement: Agreement,
}

/// Where a publication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishStep {
    /// Another publication of the channel is before it, or the policy expired.
    Waiting,
    /// The publisher works on it.
    Running {
        /// Whether a try before this one may have shown the generation: then nothing else may become the next.
        #[serde(default)]
        left: Left,
        /// Failed tries before.
        tries: u32,
        /// The generation that it becomes.
        generation: u64,
    },
    /// It failed and is tried again later.
    Resting {
        /// Whether a try may have shown the generation.
        #[serde(default)]
        left: Left,
        /// When it is tried again.
        again: Timestamp,
        /// Failed tries.
        tries: u32,
        /// The generation that it becomes.
        generation: u64,
    },
}

/// How and when a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Reproduced; there is nothing to publish for this kind.
    Reproduced(Agreement),
    /// Reproduced and in the repository.
    Published {
        /// What was agreed.
        agreement: Agreement,
        /// The repository's generation.
        generation: u64,
    },
    /// Reproduced, but the publisher gave up.
    Unpublished {
        /// The publisher's last words.
        why: String,
        /// What was agreed.
        agreement: Agreement,
    },
    /// Some agree, too few.
    Disputed(Comparison),
    /// No two agree.
    Unreproducible(Comparison),
    /// It does not build.
    Failed(JobFailure),
    /// The maintainer ended it.
    Cancelled {
        /// The maintainer's words.
        reason: String,
    },
    /// Its time ran out.
    Expired,
    /// A job that it waits for did not end well.
    Skipped {
        /// That job.
        of: JobId,
        /// One sentence.
        why: String,
    },
    /// A server job did what it was asked.
    Served {
        /// The generation that it became; zero when it changed nothing.
        generation: u64,
    },
    /// A server job could not do it.
    Unserved {
        /// The publisher's last words.
        why: String,
    },
}

impl Outcome {
    /// Gives the state's word.
    pub const fn word(&self) -> &'static str {
        match self {
            Outcome::Reproduced(_) => "reproduced",
            Outcome::Published { .. } => "published",
            Outcome::Unpublished { .. } => "failed-to-publish",
            Outcome::Disputed(_) => "disputed",
            Outcome::Unreproducible(_) => "unreproducible",
            Outcome::Failed(_) => "failed",
            Outcome::Cancelled { .. } => "cancelled",
            Outcome::Expired => "expired",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Served { .. } => "done",
            Outcome::Unserved { .. } => "failed-to-run",
        }
    }

    /// Says whether jobs that wait for this one may begin.
    pub const fn is_well(&self) -> bool {
        match self {
            Outcome::Reproduced(_) | Outcome::Published { .. } | Outcome::Served { .. } => true,
            Outcome::Unpublished { .. }
            | Outcome::Disputed(_)
            | Outcome::Unreproducible(_)
            | Outcome::Failed(_)
            | Outcome::Cancelled { .. }
            | Outcome::Expired
            | Outcome::Skipped { .. }
            | Outcome::Unserved { .. } => false,
        }
    }
}

impl JobState {
    /// Gives the state's word.
    pub const fn word(&self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Building => "building",
            JobState::Publishing(_) => "publishing",
            JobState::Serving(_) => "running",
            JobState::Ended(ended) => ended.outcome.word(),
        }
    }

    /// Says whether builders may still be asked.
    pub const fn wants_builders(&self) -> bool {
        matches!(self, JobState::Queued | JobState::Building)
    }

    /// Says whether the job is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self, JobState::Ended(_))
    }

    /// Gives the agreement, where there is one.
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            JobState::Queued | JobState::Building | JobState::Serving(_) => None,
            JobState::Publishing(publishing) => Some(&publishing.agreement),
            JobState::Ended(ended) => match &ended.outcome {
                Outcome::Reproduced(agreement)
                | Outcome::Published { agreement, .. }
                | Outcome::Unpublished { agreement, .. } => Some(agreement),
                Outcome::Disputed(_)
                | Outcome::Unreproducible(_)
                | Outcome::Failed(_)
                | Outcome::Cancelled { .. }
                | Outcome::Expired
                | Outcome::Skipped { .. }
                | Outcome::Served { .. }
                | Outcome::Unserved { .. } => None,
            },
        }
    }

    pub(crate) fn agreement_mut(&mut self) -> Option<&mut Agreement> {
        match self {
            JobState::Queued | JobState::Building | JobState::Serving(_) => None,
            JobState::Publishing(publishing) => Some(&mut publishing.agreement),
            JobState::Ended(ended) => match &mut ended.outcome {
                Outcome::Reproduced(agreement)
                | Outcome::Published { agreement, .. }
                | Outcome::Unpublished { agreement, .. } => Some(agreement),
                Outcome::Disputed(_)
                | Outcome::Unreproducible(_)
                | Outcome::Failed(_)
                | Outcome::Cancelled { .. }
                | Outcome::Expired
                | Outcome::Skipped { .. }
                | Outcome::Served { .. }
                | Outcome::Unserved { .. } => None,
            },
        }
    }

    /// Becomes another state, where the life of a job has that step.
    ///
    /// # Errors
    /// Both words, when it has not; the state stays.
    pub fn become_state(&mut self, next: JobState) -> Result<(), IllegalTransition> {
        let published =
            |ended: &Ended| matches!(ended.outcome, Outcome::Published { .. } | Outcome::Unpublished { .. });
        let served = |ended: &Ended| matches!(ended.outcome, Outcome::Served { .. } | Outcome::Unserved { .. });
        let cancelled = |ended: &Ended| matches!(ended.outcome, Outcome::Cancelled { .. });
        let legal = match (&*self, &next) {
            (JobState::Ended(_), _) => false,
            (JobState::Queued | JobState::Building, JobState::Queued | JobState::Building) => true,
            (JobState::Queued, JobState::Publishing(_)) => false,
            (JobState::Building | JobState::Publishing(_), JobState::Publishing(_)) => true,
            (JobState::Publishing(_), JobState::Queued | JobState::Building) => false,
            (JobState::Publishing(_), JobState::Ended(ended)) => published(ended) || cancelled(ended),
            (JobState::Queued | JobState::Serving(_), JobState::Serving(_)) => true,
            (JobState::Building | JobState::Publishing(_), JobState::Serving(_)) => false,
            (JobState::Serving(_), JobState::Ended(ended)) => served(ended) || cancelled(ended),
            (JobState::Serving(_), JobState::Queued | JobState::Building | JobState::Publishing(_)) => false,
            (JobState::Queued, JobState::Ended(ended)) => {
                !published(ended) && !matches!(ended.outcome, Outcome::Served { .. })
            }
            (JobState::Building, JobState::Ended(ended)) => {
                !published(ended) && !served(ended) && !matches!(ended.outcome, Outcome::Skipped { .. })
            }
        };
        if !legal {
            return Err(IllegalTransition { from: self.word(), to: next.word() });
        }
        *self = next;
        Ok(())
    }
}

/// How long a builder stands back after its attempt ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// How often that happened.
    pub times: u32,
    /// Until when.
    pub until: Timestamp,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The publisher's work for it.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub run: Run,
    /// Late reports, at most one per lease.
    pub late: Vec<Late>,
    /// What never changes.
    pub facts: Facts,
    /// Which jobs wait for it.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub place: Place,
    /// Where it is.
    pub state: JobState,
    /// What its maintainer ordered since.
    pub orders: Orders,
    /// Builders that stand back, by node.
    pub pauses: BTreeMap<NodeId, Pause>,
    /// Builders that it wants and does not have.
    pub wanted: u32,
    /// Attempts in order of their leases; a declined lease is none.
    pub attempts: Vec<Attempt>,
    /// Profile numbers given so far: the next lease's profile.
    pub profiles: u16,
    /// Comparisons of attempts that disagree.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub explanations: Vec<Explanation>,
}

impl Job {
    /// Makes a job that nobody has.
    pub fn new(facts: Facts, place: Place) -> Self {
        let orders = Orders::new(facts.schedule.priority);
        Self {
            run: Run::default(),
            late: Vec::new(),
            facts,
            place,
            state: JobState::Queued,
            orders,
            pauses: BTreeMap::new(),
            wanted: 0,
            attempts: Vec::new(),
            profiles: 0,
            explanations: Vec::new(),
        }
    }

    /// Gives every attempt that is kept, those that count no more first.
    pub fn every_attempt(&self) -> impl Iterator<Item = &Attempt> {
        self.orders.earlier.iter().chain(&self.attempts)
    }

    /// Finds the attempt under a lease.
    pub fn attempt(&self, lease: LeaseNumber) -> Option<&Attempt> {
        self.every_attempt().find(|a| a.lease == lease)
    }

    pub(crate) fn attempt_mut(&mut self, lease: LeaseNumber) -> Option<&mut Attempt> {
        self.orders.earlier.iter_mut().chain(&mut self.attempts).find(|a| a.lease == lease)
    }

    /// Counts attempts that hold a live lease.
    pub fn live(&self) -> usize {
        self.attempts.iter().filter(|a| a.state.is_live()).count()
    }

    /// Says whether an operator has had its turn, or was interrupted so often that the rest is for others.
    pub fn is_spent(&self, operator: &OperatorName) -> bool {
        let own = || self.attempts.iter().filter(|a| a.operator == *operator);
        let interrupted = |a: &&Attempt| matches!(a.state, AttemptState::Interrupted { .. });
        own().any(Attempt::is_spent) || own().filter(interrupted).count() >= INTERRUPTIONS_MAX
    }

    /// Drops what only an open job needs.
    pub(crate) fn slim(&mut self) {
        self.late.clear();
        self.explanations.iter_mut().for_each(Explanation::give_up);
        for attempt in self.orders.earlier.iter_mut().chain(&mut self.attempts) {
            if let AttemptState::Revealed { vote, .. } = &mut attempt.state {
                vote.outputs = Vec::new();
            }
        }
    }
}

/// Says whether a failure ends the operator's turn, or is an interruption in other words.
pub(crate) const fn is_interruption(blame: Blame) -> bool {
    matches!(blame, Blame::Interrupted | Blame::Cancelled)
}

#[cfg(test)]
mod tests;
