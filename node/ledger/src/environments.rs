//! Environments that were reproduced as images here: what a channel with `attested_environments` asks of its jobs.
//!
//! An image that is nothing but the packages of a lock proves, once enough operators made the same, that the lock gives one
//! environment. Such images themselves are exempt: something has to come first.

use std::collections::VecDeque;

use protocol::{
    Hash, JobId,
    job::{ImageJob, JobKind, JobRequest},
    message::Refusal,
    policy::Channel,
};
use serde::{Deserialize, Serialize};

use crate::{Ledger, tally::Agreement};

/// Environments that are remembered, the newest; an older one is made again when somebody needs it.
const KEPT_MAX: usize = 10_000;

/// An environment that operators agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attested {
    /// The job that made it.
    job: JobId,
    /// The lock's id.
    lock: Hash,
    /// How many operators made the same.
    operators: u8,
}

/// Every environment that was attested, in the order in which that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Environments(VecDeque<Attested>);

impl Environments {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, lock: &Hash) -> Option<&Attested> {
        self.0.iter().find(|known| known.lock == *lock)
    }

    fn note(&mut self, new: Attested) {
        if self.find(&new.lock).is_some_and(|known| known.operators >= new.operators) {
            return;
        }
        self.0.retain(|known| known.lock != new.lock);
        self.0.push_back(new);
        if self.0.len() > KEPT_MAX {
            self.0.pop_front();
        }
    }
}

fn environment(request: &JobRequest) -> Option<&ImageJob> {
    let JobKind::Image(image) = &request.kind else { return None };
    image.is_environment().then_some(image)
}

impl Ledger {
    /// Gives the job that made an environment as an image, and how many operators agreed, where it is remembered.
    pub fn attested_environment(&self, lock: &Hash) -> Option<(JobId, u8)> {
        self.environments.find(lock).map(|known| (known.job, known.operators))
    }

    /// Remembers what a reproduced job says of an environment.
    pub(crate) fn note_environment(&mut self, job: JobId, agreement: &Agreement) {
        let request = self.dossiers.get(&job).map(|dossier| dossier.request.get());
        let Some(image) = request.and_then(environment) else { return };
        let operators = u8::try_from(agreement.operators.len()).unwrap_or(u8::MAX);
        let lock = image.packages.hash;
        self.environments.note(Attested { job, lock, operators });
    }

    /// Refuses a job whose channel wants an environment that operators agree on, when too few do.
    pub(crate) fn check_environment(&self, wish: &JobRequest, channel: &Channel) -> Result<(), Refusal> {
        if !channel.attested_environments || environment(wish).is_some() {
            return Ok(());
        }
        let (lock, wanted) = (&wish.environment, channel.agree);
        let have = self.attested_environment(lock).map_or(0, |(_, operators)| operators);
        if have >= wanted {
            return Ok(());
        }
        Err(Refusal::NotAllowed(format!(
            "channel {} takes jobs in attested environments only, and of environment {lock} {have} operators made the same \
             image, {wanted} are needed: `artel env build LOCK` has it made",
            channel.name
        )))
    }
}
