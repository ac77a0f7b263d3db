//! The repository of each channel: one publication at a time, in the order of the verdicts, generations that only grow.

use std::time::Duration;

use protocol::{ChannelName, JobId};
use serde::{Deserialize, Serialize};

use crate::{
    Effect, Ledger, News, Publication, Turn,
    deadlines::Due,
    job::{Attempt, JobState, Outcome, PublishStep},
    planted::{self, Fault},
    schedule::cut,
};

/// How often one publication is tried.
pub(crate) const PUBLISH_TRIES_MAX: u32 = 6;
/// How long a publication rests after its first failure; doubled each time.
pub(crate) const REST_FIRST: Duration = Duration::from_secs(2);
/// The longest rest.
pub(crate) const REST_MAX: Duration = Duration::from_secs(60);

/// One channel's repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Jobs to publish, the one that is worked on first.
    pub(crate) queue: Vec<JobId>,
    /// The newest generation that was ever given to a publication.
    pub(crate) generation: u64,
}

impl Ledger {
    pub(crate) fn queue_publication(&mut self, id: JobId, channel: &ChannelName, turn: &mut Turn) {
        self.lines.entry(channel.clone()).or_default().queue.push(id);
        self.publish_next(channel, turn);
    }

    /// Begins the first waiting publication of a channel, unless one is under way or the policy expired.
    pub(crate) fn publish_next(&mut self, channel: &ChannelName, turn: &mut Turn) {
        if self.policy_in_force().expires <= turn.at {
            return;
        }
        let Some(line) = self.lines.get_mut(channel) else { return };
        let Some(id) = line.queue.first().copied() else { return };
        if self.step(id) != Some(PublishStep::Waiting) {
            return;
        }
        if let Err(why) = self.still_agreed(id, channel) {
            self.give_up(id, why, turn);
            return;
        }
        let line = self.lines.get_mut(channel).expect("found above");
        line.generation += u64::from(!planted::is(Fault::SameGenerationAgain) || line.generation == 0);
        let generation = line.generation;
        self.set_step(id, PublishStep::Running { tries: 0, generation });
        self.say_publication(id, turn);
    }

    /// Gives a generation for signing a channel's index anew. A publication that is under way signs it anyway.
    pub(crate) fn resign(&mut self, channel: ChannelName, turn: &mut Turn) {
        let expired = self.policy_in_force().expires <= turn.at;
        let first = self.lines.get(&channel).and_then(|line| line.queue.first().copied());
        let busy = first.is_some_and(|id| self.step(id) != Some(PublishStep::Waiting));
        let Some(line) = self.lines.get_mut(&channel).filter(|line| line.generation > 0 && !busy && !expired) else {
            return;
        };
        line.generation += 1;
        turn.push(Effect::Resign { generation: line.generation, channel });
    }

    /// Checks an agreement against the policy in force: a new one may want more operators, or no longer name some, and whoever
    /// checks the release would refuse it.
    fn still_agreed(&self, id: JobId, channel: &ChannelName) -> Result<(), String> {
        let policy = self.policy_in_force();
        let Some(channel) = policy.channel(channel) else {
            return Err(format!("channel {channel} is no longer in the policy"));
        };
        let agreement = self.jobs[&id].state.agreement().expect("a publication has an agreement");
        let pairs = agreement.builders.iter().zip(&agreement.operators);
        let named = pairs.filter(|(node, operator)| policy.operator_of(node) == Some(operator)).count();
        if named < usize::from(channel.agree) {
            let wanted = channel.agree;
            return Err(format!("the policy in force wants {wanted} operators that agree, it names {named} of them"));
        }
        Ok(())
    }

    /// Tells the publisher of the publication that is under way; it may have heard it before.
    pub(crate) fn say_publication(&self, id: JobId, turn: &mut Turn) {
        let Some(PublishStep::Running { generation, .. }) = self.step(id) else { return };
        let job = &self.jobs[&id];
        let agreement = job.state.agreement().expect("a publication has an agreement");
        let first = agreement.builders.first();
        let vote = job.attempts.iter().filter(|a| Some(&a.node) == first).find_map(Attempt::vote);
        turn.push(Effect::Publish(Publication {
            job: id,
            channel: job.facts.channel.clone(),
            generation,
            outputs: vote.map(|v| v.outputs.clone()).unwrap_or_default(),
            builders: agreement.builders.clone(),
        }));
    }

    pub(crate) fn published(&mut self, id: JobId, generation: u64, turn: &mut Turn) {
        let current = match self.step(id) {
            Some(PublishStep::Running { generation, .. } | PublishStep::Resting { generation, .. }) => generation,
            Some(PublishStep::Waiting) | None => return,
        };
        if current != generation {
            return;
        }
        let job = &self.jobs[&id];
        let (channel, agreement) = (job.facts.channel.clone(), job.state.agreement().cloned());
        let agreement = agreement.expect("a publication has an agreement");
        self.end(id, Outcome::Published { agreement, generation }, turn).expect("a publication may end as published");
        turn.tell(News::Published { job: id, channel: channel.clone(), generation });
        self.leave_line(id, &channel, turn);
    }

    pub(crate) fn publish_failed(&mut self, id: JobId, why: String, turn: &mut Turn) {
        let Some(PublishStep::Running { tries, generation }) = self.step(id) else { return };
        let (tries, why) = (tries + 1, cut(why));
        if tries >= PUBLISH_TRIES_MAX {
            self.give_up(id, why, turn);
            return;
        }
        self.set_step(id, PublishStep::Resting { tries, generation });
        let again = turn.at.after(REST_FIRST.saturating_mul(1 << (tries - 1)).min(REST_MAX));
        self.deadlines.set(Due::Publish(id), again);
        turn.tell(News::PublishFailed { job: id, why, again: Some(again) });
    }

    pub(crate) fn publish_again(&mut self, id: JobId, turn: &mut Turn) {
        let Some(PublishStep::Resting { tries, mut generation }) = self.step(id) else { return };
        if planted::is(Fault::NewGenerationEachTry) {
            generation += 1;
        }
        self.set_step(id, PublishStep::Running { tries, generation });
        self.say_publication(id, turn);
    }

    /// The job's time ran out on its way into the repository. The verdict came in time, so it goes on, unless an expired
    /// policy lets nothing be published.
    pub(crate) fn publication_expired(&mut self, id: JobId, turn: &mut Turn) {
        let expired = self.policy_in_force().expires <= turn.at;
        if expired && self.step(id) == Some(PublishStep::Waiting) {
            self.give_up(id, "the policy expired before the job could be published".to_owned(), turn);
        } else {
            self.look_again(id, turn);
        }
    }

    fn give_up(&mut self, id: JobId, why: String, turn: &mut Turn) {
        let job = &self.jobs[&id];
        let (channel, agreement) = (job.facts.channel.clone(), job.state.agreement().cloned());
        let agreement = agreement.expect("a publication has an agreement");
        let outcome = Outcome::Unpublished { why: why.clone(), agreement };
        self.end(id, outcome, turn).expect("a publication may be given up");
        turn.tell(News::PublishFailed { job: id, why, again: None });
        self.leave_line(id, &channel, turn);
    }

    fn leave_line(&mut self, id: JobId, channel: &ChannelName, turn: &mut Turn) {
        if let Some(line) = self.lines.get_mut(channel) {
            line.queue.retain(|waiting| *waiting != id);
        }
        self.publish_next(channel, turn);
    }

    fn step(&self, id: JobId) -> Option<PublishStep> {
        match &self.jobs.get(&id)?.state {
            JobState::Publishing(publishing) => Some(publishing.step),
            JobState::Queued | JobState::Building | JobState::Ended(_) => None,
        }
    }

    fn set_step(&mut self, id: JobId, step: PublishStep) {
        if let Some(JobState::Publishing(publishing)) = self.jobs.get_mut(&id).map(|job| &mut job.state) {
            publishing.step = step;
        }
    }
}
