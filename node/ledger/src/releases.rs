//! The repository of each channel: one publication at a time, in the order of the verdicts, generations that only grow.

use std::{collections::BTreeMap, time::Duration};

use attest::log::entry::{self, Event};
use protocol::{ChannelName, Hash, JobId, NodeId, Timestamp, Verified, message::Refusal, release::Release};
use serde::{Deserialize, Serialize};

use crate::{
    Cause, Doubt, Effect, Ledger, Left, News, Publication, Turn,
    deadlines::Due,
    job::{Attempt, JobState, Outcome, PublishStep},
    planted::{self, Fault},
    schedule::cut,
    service::publication_id,
    withdrawal::{Aim, Wish},
};

/// How often one publication is tried at least, however little time its job has left.
pub(crate) const PUBLISH_TRIES_MIN: u32 = 6;
/// How long a publication rests after its first failure; doubled each time.
pub(crate) const REST_FIRST: Duration = Duration::from_secs(2);
/// The longest rest.
pub(crate) const REST_MAX: Duration = Duration::from_secs(3600);
/// How long a publication whose rest is over waits for the one that is under way, or for a policy that is not expired.
pub(crate) const BUSY_REST: Duration = Duration::from_secs(10);

/// One channel's repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    /// How long each kind of work takes here, in milliseconds.
    pub(crate) took: BTreeMap<String, u64>,
    /// Jobs to publish, the one that is worked on first; those that failed for now and left nothing go to the end.
    pub(crate) queue: Vec<JobId>,
    /// The newest release that was logged: its generation, and the hash of the signed record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logged: Option<(u64, Hash)>,
    /// The newest generation that the publisher reported.
    pub(crate) published: u64,
    /// The newest generation that was ever given to a publication.
    pub(crate) generation: u64,
    /// The builds of the publications that are shown as jobs, by the publication's id.
    pub(crate) publications: BTreeMap<JobId, JobId>,
}

impl Line {
    pub(crate) fn bring_to_front(&mut self, id: JobId) {
        self.queue.retain(|waiting| *waiting != id);
        self.queue.insert(0, id);
    }

    fn send_to_end(&mut self, id: JobId) {
        if let Some(at) = self.queue.iter().position(|waiting| *waiting == id) {
            self.queue.remove(at);
            self.queue.push(id);
        }
    }

    /// Begins another try; after another generation was given, the old one would go back.
    fn again(&mut self, id: JobId, generation: u64) -> u64 {
        self.bring_to_front(id);
        if self.generation != generation {
            self.generation += 1;
        }
        self.generation
    }
}

impl Ledger {
    pub(crate) fn queue_publication(&mut self, id: JobId, channel: &ChannelName, turn: &mut Turn) {
        let line = self.lines.entry(channel.clone()).or_default();
        line.queue.push(id);
        if !self.jobs[&id].facts.is_server() {
            line.publications.insert(publication_id(&id), id);
        }
        self.note_queued(id, turn);
        self.publish_next(channel, turn);
    }

    /// Begins the first waiting publication of a channel, unless one is under way or the policy expired.
    pub(crate) fn publish_next(&mut self, channel: &ChannelName, turn: &mut Turn) {
        if self.policy_in_force().expires <= turn.at {
            return;
        }
        let id = loop {
            let Some(line) = self.lines.get(channel).filter(|line| !self.is_busy(line)) else { return };
            let waits = |id: &&JobId| self.step(**id) == Some(PublishStep::Waiting);
            let Some(id) = line.queue.iter().find(waits).copied() else { return };
            match self.still_stands(id, channel) {
                Ok(()) => break id,
                // Thousands may wait that a new policy lets nobody publish: they go one after the other, not one inside the other.
                Err(why) => self.end_unpublished(id, why, turn),
            }
        };
        let line = self.lines.get_mut(channel).expect("found above");
        line.generation += u64::from(!planted::is(Fault::SameGenerationAgain) || line.generation == 0);
        let generation = line.generation;
        line.bring_to_front(id);
        self.begin_run(id, generation, turn);
    }

    /// Says whether no other publication of the channel may begin.
    fn is_busy(&self, line: &Line) -> bool {
        self.holder(line).is_some()
    }

    /// Gives the job that the publisher works for, or that may be out without anybody having said so: always the first in
    /// its line.
    fn holder(&self, line: &Line) -> Option<JobId> {
        let first = line.queue.first().copied()?;
        match self.step(first)? {
            PublishStep::Running { .. } | PublishStep::Resting { left: Left::Perhaps, .. } => Some(first),
            PublishStep::Resting { left: Left::Nothing, .. } | PublishStep::Waiting => None,
        }
    }

    /// Gives the job that failed for now and holds up the others all the same, since it may be out.
    pub(crate) fn held_up_by(&self, line: &Line) -> Option<JobId> {
        self.holder(line).filter(|id| matches!(self.step(*id), Some(PublishStep::Resting { .. })))
    }

    /// Another term begins: what the publisher was told before may be out, though its success was lost with the leader.
    pub(crate) fn doubt_publications(&mut self) {
        for id in self.open.ids().clone() {
            match self.step(id) {
                // What makes no generation leaves none.
                Some(PublishStep::Running { generation: 0, .. }) => {}
                Some(PublishStep::Running { tries, generation, .. }) => {
                    self.doubt(id, generation);
                    let generation = self.number_in_doubt(id, generation);
                    self.set_step(id, PublishStep::Running { tries, generation, left: Left::Perhaps });
                }
                Some(PublishStep::Resting { .. } | PublishStep::Waiting) | None => {}
            }
        }
    }

    /// Gives the newest generation of a channel that the publisher reported, 0 before the first. Nothing may be published
    /// that does not continue it.
    pub fn released(&self, channel: &ChannelName) -> u64 {
        self.lines.get(channel).map_or(0, |line| line.published)
    }

    /// Logs a signed release, which nobody was told of so far. The same one again is logged already; a generation may be
    /// signed again, in a later term, but an older one than the newest is out of date.
    pub(crate) fn log_release(&mut self, release: &Verified<Release>, turn: &mut Turn) {
        let envelope = Hash::of(&release.to_bytes());
        let candidates = self.policy_in_force().coordinators.candidates();
        if !release.signers().iter().any(|signer| candidates.contains(&NodeId::from(*signer))) {
            return turn.refuse(Refusal::NotAllowed("only a coordinator of the policy signs releases".into()));
        }
        let Release { channel, generation, .. } = release.get();
        let Some(line) = self.lines.get_mut(channel).filter(|line| *generation <= line.generation) else {
            let why = format!("generation {generation} of channel {channel} was given to nobody");
            return turn.refuse(Refusal::Invalid(why));
        };
        match line.logged {
            Some((newest, _)) if newest > *generation => {
                let why = format!("generation {newest} of channel {channel} is logged already");
                return turn.refuse(Refusal::Invalid(why));
            }
            Some((_, known)) if known == envelope => {}
            Some(_) | None => {
                line.logged = Some((*generation, envelope));
                let logged = entry::Release { channel: channel.clone(), envelope, generation: *generation };
                turn.log(Event::Release(logged));
            }
        }
        turn.done();
    }

    /// Gives a generation for signing a channel's index anew. A publication that is under way signs it anyway.
    pub(crate) fn resign(&mut self, channel: ChannelName, turn: &mut Turn) {
        let expired = self.policy_in_force().expires <= turn.at;
        let busy = self.lines.get(&channel).is_some_and(|line| self.is_busy(line));
        let Some(line) = self.lines.get_mut(&channel).filter(|line| line.generation > 0 && !busy && !expired) else {
            return;
        };
        line.generation += 1;
        turn.push(Effect::Resign { generation: line.generation, channel });
    }

    /// Checks what is to be done against the policy in force.
    fn still_stands(&self, id: JobId, channel: &ChannelName) -> Result<(), String> {
        let server = self.jobs[&id].facts.is_server();
        if server { self.still_allowed(id) } else { self.still_agreed(id, channel) }
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
        let named = pairs.filter(|(node, operator)| self.peers.is_of(node, operator)).count();
        if named < usize::from(channel.agree) {
            let wanted = channel.agree;
            return Err(format!("the policy in force wants {wanted} operators that agree, it names {named} of them"));
        }
        Ok(())
    }

    /// Tells the publisher of the publication that is under way; it may have heard it before.
    pub(crate) fn say_publication(&self, id: JobId, turn: &mut Turn) {
        let Some(PublishStep::Running { generation, left, .. }) = self.step(id) else { return };
        let job = &self.jobs[&id];
        if job.run.aim != Aim::Done {
            self.say_withdrawal(id, generation, turn);
            return;
        }
        let doubt = match left {
            Left::Nothing => Doubt::Nothing,
            Left::Perhaps => Doubt::Since(self.since(id, generation)),
        };
        if job.facts.is_server() {
            self.say_service(id, (generation, doubt), turn);
            return;
        }
        let agreement = job.state.agreement().expect("a publication has an agreement");
        let first = agreement.builders.first();
        let vote = job.attempts.iter().filter(|a| Some(&a.node) == first).find_map(Attempt::vote);
        turn.push(Effect::Publish(Publication {
            job: id,
            channel: job.facts.channel.clone(),
            doubt,
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
        self.note_duration(id, turn);
        let job = &self.jobs[&id];
        let channel = job.facts.channel.clone();
        if let Some(line) = self.lines.get_mut(&channel) {
            line.published = line.published.max(generation);
        }
        match job.state.agreement().cloned() {
            Some(agreement) => {
                turn.tell(News::Published { job: id, channel: channel.clone(), generation });
                let outcome = Outcome::Published { agreement, generation };
                self.end(id, outcome, turn).expect("a publication may end as published");
            }
            None => {
                turn.tell(News::Served { job: id, generation, summary: job.run.account.summary.clone() });
                self.end(id, Outcome::Served { generation }, turn).expect("a server job may end as done");
            }
        }
        self.leave_line(id, &channel, turn);
    }

    /// A try failed. A later one that leaves nothing does not take back what an earlier one may have left. The failure of
    /// another generation says nothing of this one.
    pub(crate) fn publish_failed(
        &mut self,
        (id, of): (JobId, Option<u64>),
        (cause, now): (Cause, Left),
        why: String,
        turn: &mut Turn,
    ) {
        let Some(PublishStep::Running { tries, generation, left: before }) = self.step(id) else { return };
        if of.is_some_and(|of| of != generation) {
            return;
        }
        let left = if generation > 0 && now == Left::Perhaps { now } else { before };
        if left == Left::Perhaps {
            self.doubt(id, generation);
        }
        let (tries, why) = (tries + 1, cut(why));
        let over = tries >= PUBLISH_TRIES_MIN && self.jobs[&id].facts.expires <= turn.at;
        // A withdrawal goes on until it is known how it ended.
        if self.jobs[&id].run.aim == Aim::Done && (cause == Cause::Permanent || over) {
            self.set_step(id, PublishStep::Running { tries, generation, left });
            self.withdraw(id, Wish::GiveUp { why }, turn);
            return;
        }
        let longer = 1_u32.checked_shl(tries - 1).unwrap_or(u32::MAX);
        let again = turn.at.after(REST_FIRST.saturating_mul(longer).min(REST_MAX));
        self.rest(id, PublishStep::Resting { tries, generation, left, again }, again);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.run.trouble.clone_from(&why);
        }
        self.tell_failure(id, why, Some(again), turn);
        if left == Left::Perhaps {
            return;
        }
        // What failed for now and left nothing holds up nobody.
        let channel = self.jobs[&id].facts.channel.clone();
        if let Some(line) = self.lines.get_mut(&channel) {
            line.send_to_end(id);
        }
        self.publish_next(&channel, turn);
    }

    pub(crate) fn rest(&mut self, id: JobId, step: PublishStep, again: Timestamp) {
        self.set_step(id, step);
        self.deadlines.set(Due::Publish(id), again);
    }

    /// A rest is over: the next try begins. It keeps its generation if nothing was published meanwhile, or if it may be out and
    /// would become the same again.
    pub(crate) fn publish_again(&mut self, id: JobId, turn: &mut Turn) {
        let Some(PublishStep::Resting { tries, generation, left, .. }) = self.step(id) else { return };
        let channel = self.jobs[&id].facts.channel.clone();
        let in_line = self.lines.get(&channel).filter(|line| line.queue.contains(&id));
        let expired = self.policy_in_force().expires <= turn.at;
        if expired || in_line.and_then(|line| self.holder(line)).is_some_and(|holder| holder != id) {
            let again = turn.at.after(BUSY_REST);
            self.rest(id, PublishStep::Resting { tries, generation, left, again }, again);
            return;
        }
        let in_line = in_line.is_some();
        if let Aim::Without { wish, .. } = &self.jobs[&id].run.aim
            && self.policy_in_force().channel(&channel).is_none()
        {
            // Nobody follows the channel any more: what says that the job is not in it could never be published.
            let wish = wish.clone();
            self.conclude(id, wish, turn);
            return;
        }
        if self.jobs[&id].run.aim == Aim::Done
            && let Err(why) = self.still_stands(id, &channel)
        {
            self.withdraw(id, Wish::GiveUp { why }, turn);
            return;
        }
        let generation = match (left, self.lines.get_mut(&channel).filter(|_| in_line)) {
            (Left::Perhaps, _) => self.number_in_doubt(id, generation),
            (Left::Nothing, Some(line)) => line.again(id, generation),
            (Left::Nothing, None) => generation,
        };
        let generation = generation + u64::from(planted::is(Fault::NewGenerationEachTry));
        self.set_step(id, PublishStep::Running { tries, generation, left });
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

    pub(crate) fn give_up(&mut self, id: JobId, why: String, turn: &mut Turn) {
        let channel = self.jobs[&id].facts.channel.clone();
        self.end_unpublished(id, why, turn);
        self.publish_next(&channel, turn);
    }

    fn end_unpublished(&mut self, id: JobId, why: String, turn: &mut Turn) {
        let job = &self.jobs[&id];
        let channel = job.facts.channel.clone();
        let outcome = match job.state.agreement().cloned() {
            Some(agreement) => Outcome::Unpublished { why: why.clone(), agreement },
            None => Outcome::Unserved { why: why.clone() },
        };
        self.tell_failure(id, why, None, turn);
        self.end(id, outcome, turn).expect("a publication or server job may be given up");
        if let Some(line) = self.lines.get_mut(&channel) {
            line.queue.retain(|waiting| *waiting != id);
        }
    }

    fn tell_failure(&self, job: JobId, why: String, again: Option<Timestamp>, turn: &mut Turn) {
        turn.tell(if self.jobs[&job].facts.is_server() {
            News::ServeFailed { job, why, again }
        } else {
            News::PublishFailed { job, why, again }
        });
    }

    /// A server job that ended before its turn waits no longer.
    pub(crate) fn leave_queue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.facts.is_server()) else { return };
        if let Some(line) = self.lines.get_mut(&job.facts.channel) {
            line.queue.retain(|waiting| *waiting != id);
        }
    }

    /// A build is forgotten, and with it the publication that followed.
    pub(crate) fn forget_publication(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let Some(line) = self.lines.get_mut(&job.facts.channel) {
            line.publications.remove(&publication_id(&id));
        }
    }

    pub(crate) fn leave_line(&mut self, id: JobId, channel: &ChannelName, turn: &mut Turn) {
        if let Some(line) = self.lines.get_mut(channel) {
            line.queue.retain(|waiting| *waiting != id);
        }
        self.publish_next(channel, turn);
    }

    pub(crate) fn step(&self, id: JobId) -> Option<PublishStep> {
        let job = self.jobs.get(&id)?;
        match &job.state {
            JobState::Publishing(publishing) => Some(publishing.step),
            JobState::Serving(step) => Some(*step),
            JobState::Queued if job.facts.is_server() => Some(PublishStep::Waiting),
            JobState::Queued | JobState::Building | JobState::Ended(_) => None,
        }
    }

    pub(crate) fn set_step(&mut self, id: JobId, step: PublishStep) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let JobState::Publishing(publishing) = &mut job.state {
            publishing.step = step;
        } else if job.facts.is_server() {
            job.state.become_state(JobState::Serving(step)).expect("a server job that is queued or running may run");
        }
    }
}
