//! Publications and server jobs that are not to come about, and may be out all the same.
//!
//! ```text
//!                        nothing can be out
//!   cancel, give up ---------------------------------------------------> cancelled, failed-to-publish, failed-to-run
//!             \                                            Withdrawn     /
//!              '--> a fresh generation continues the newest that is found
//!                                                          Published     \
//!                                                                         '-> published, done: it was out
//! ```
//!
//! Who holds the old generation cannot be known: a mirror may be out of reach. So nothing is ended in doubt. The publisher
//! asks everybody for the newest generation, continues what it finds, and says which it was; the fresh generation stands above
//! all that may be out, with the job or without it.

use protocol::{JobId, message::Refusal};
use serde::{Deserialize, Serialize};

use crate::{
    Effect, Ledger, Left, News, Turn, Withdrawal,
    deadlines::Due,
    job::{Outcome, PublishStep},
    planted::{self, Fault},
    releases,
};

/// How the publisher's work for a job is to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aim {
    /// As it was asked for.
    #[default]
    Done,
    /// Without it, unless it is out.
    Without {
        /// The oldest generation that was to be without it.
        from: u64,
        /// Who wants that, and why.
        wish: Wish,
        /// Generations from there on that have it all the same: they continue one that was found.
        holds: Vec<u64>,
    },
}

/// Why a job is not to come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// It cannot.
    GiveUp {
        /// The publisher's or the ledger's words.
        why: String,
    },
    /// Its maintainer ordered so.
    Cancel {
        /// The maintainer's words.
        reason: String,
    },
}

impl Wish {
    /// Gives the reason, for people.
    pub fn words(&self) -> String {
        match self {
            Wish::GiveUp { why } => why.clone(),
            Wish::Cancel { reason } if reason.is_empty() => "cancelled".to_owned(),
            Wish::Cancel { reason } => format!("cancelled: {reason}"),
        }
    }
}

impl Ledger {
    /// Ends a publication or server job that is not to come about: at once when nothing of it can be out, else when a generation
    /// above all that may be out says so.
    pub(crate) fn withdraw(&mut self, id: JobId, wish: Wish, turn: &mut Turn) {
        let (tries, generation) = match self.step(id) {
            Some(
                PublishStep::Running { tries, generation, left: Left::Perhaps }
                | PublishStep::Resting { tries, generation, left: Left::Perhaps, .. },
            ) if !planted::is(Fault::GivesUpInDoubt) => (tries, generation),
            Some(PublishStep::Running { .. } | PublishStep::Resting { .. } | PublishStep::Waiting) | None => {
                self.conclude(id, wish, turn);
                return;
            }
        };
        let channel = self.jobs[&id].facts.channel.clone();
        if self.policy_in_force().channel(&channel).is_none() {
            // Nobody follows the channel any more, and nothing can be published in it.
            self.conclude(id, wish, turn);
            return;
        }
        let from = self.fresh_number(id, generation);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.run.trouble = wish.words();
            job.run.aim = Aim::Without { from, holds: Vec::new(), wish };
        }
        if self.policy_in_force().expires <= turn.at {
            let again = turn.at.after(releases::BUSY_REST);
            self.rest(id, PublishStep::Resting { tries, generation: from, left: Left::Perhaps, again }, again);
            return;
        }
        self.deadlines.clear(Due::Publish(id));
        self.set_step(id, PublishStep::Running { tries, generation: from, left: Left::Perhaps });
        self.say_publication(id, turn);
    }

    /// The publisher found a job that is to be withdrawn, and is about to continue it. Noted before that is made: whoever finds
    /// this generation must know what it has.
    pub(crate) fn found(&mut self, id: JobId, generation: u64, turn: &mut Turn) {
        let current = matches!(self.step(id), Some(PublishStep::Running { generation: g, .. }) if g == generation);
        let Some(job) = self.jobs.get_mut(&id).filter(|_| current) else {
            turn.refuse(Refusal::Invalid(format!("generation {generation} is not the one that is made now")));
            return;
        };
        if let Aim::Without { holds, .. } = &mut job.run.aim
            && !holds.contains(&generation)
        {
            holds.push(generation);
        }
        turn.done();
    }

    /// The newest generation is known, and it is without a job that was withdrawn.
    pub(crate) fn withdrawn(&mut self, id: JobId, generation: u64, turn: &mut Turn) {
        let current = match self.step(id) {
            Some(PublishStep::Running { generation, .. } | PublishStep::Resting { generation, .. }) => generation,
            Some(PublishStep::Waiting) | None => return,
        };
        let job = &self.jobs[&id];
        let Aim::Without { wish, .. } = job.run.aim.clone() else { return };
        if current != generation {
            return;
        }
        let channel = job.facts.channel.clone();
        if let Some(line) = self.lines.get_mut(&channel) {
            line.published = line.published.max(generation);
        }
        self.conclude(id, wish, turn);
    }

    /// Cancels what is on its way into a repository, unless the publisher works on it.
    ///
    /// # Errors
    /// When it is too late, or not known to be in time: then the order may be sent again for the answer.
    pub(crate) fn cancel_publication(&mut self, id: JobId, reason: String, turn: &mut Turn) -> Result<(), Refusal> {
        if self.jobs[&id].run.aim != Aim::Done {
            return Err(self.not_known_yet(id));
        }
        match self.step(id) {
            Some(PublishStep::Running { .. }) => Err(Refusal::Invalid(
                "too late to cancel: the publisher works on it; should that fail, order it again".to_owned(),
            )),
            Some(PublishStep::Resting { left: Left::Perhaps, .. }) => {
                self.withdraw(id, Wish::Cancel { reason }, turn);
                if self.jobs[&id].state.is_ended() { Ok(()) } else { Err(self.not_known_yet(id)) }
            }
            Some(PublishStep::Resting { left: Left::Nothing, .. } | PublishStep::Waiting) | None => {
                self.conclude(id, Wish::Cancel { reason }, turn);
                Ok(())
            }
        }
    }

    fn not_known_yet(&self, id: JobId) -> Refusal {
        let since = self.jobs[&id].run.since;
        Refusal::Busy(format!(
            "it may be out already, as generation {since} or later; it is being taken back, unless it is found: ask again in a \
             moment whether that was in time"
        ))
    }

    /// Ends it; nothing of it is out, or a newer generation stands above that.
    pub(crate) fn conclude(&mut self, id: JobId, wish: Wish, turn: &mut Turn) {
        match wish {
            Wish::GiveUp { why } => self.give_up(id, why, turn),
            Wish::Cancel { reason } => {
                let channel = self.jobs[&id].facts.channel.clone();
                let outcome = Outcome::Cancelled { reason: reason.clone() };
                self.end(id, outcome, turn).expect("what is not being published may be cancelled");
                turn.tell(News::Cancelled { job: id, reason });
                self.leave_line(id, &channel, turn);
            }
        }
    }

    /// Tells the publisher of a withdrawal that is under way; it may have heard it before.
    pub(crate) fn say_withdrawal(&self, id: JobId, generation: u64, turn: &mut Turn) {
        let job = &self.jobs[&id];
        let Aim::Without { from, holds, .. } = &job.run.aim else { return };
        let (channel, since) = (job.facts.channel.clone(), self.since(id, generation));
        let (from, holds) = (*from, holds.clone());
        turn.push(Effect::Withdraw(Withdrawal { job: id, channel, since, from, holds, generation }));
    }

    /// Notes that a generation of a job may be out.
    pub(crate) fn doubt(&mut self, id: JobId, generation: u64) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.run.since == 0) {
            job.run.since = generation;
        }
    }

    /// Gives the oldest generation of a job that may be out; what an earlier version noted has only one.
    pub(crate) fn since(&self, id: JobId, generation: u64) -> u64 {
        let noted = self.jobs.get(&id).map_or(0, |job| job.run.since);
        if noted == 0 { generation } else { noted }
    }

    /// Gives the number under which a job that may be out is tried again. A publication becomes the same again, whoever makes
    /// it; anything else may not, and no generation ever gets two contents.
    pub(crate) fn number_in_doubt(&mut self, id: JobId, generation: u64) -> u64 {
        let job = &self.jobs[&id];
        let same = job.run.aim == Aim::Done && !job.facts.is_server();
        if same || planted::is(Fault::SameGenerationInDoubt) { generation } else { self.fresh_number(id, generation) }
    }

    fn fresh_number(&mut self, id: JobId, generation: u64) -> u64 {
        let channel = &self.jobs[&id].facts.channel;
        let Some(line) = self.lines.get_mut(channel) else { return generation };
        line.bring_to_front(id);
        line.generation += 1;
        line.generation
    }
}
