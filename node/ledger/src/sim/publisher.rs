//! The simulated publishers, one on each coordinator, and a mirror. A publisher continues the newest generation that it holds
//! or that somebody within reach gives it. Fences: nobody takes an older generation, nor the same one of an older term.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    ChannelName, JobId,
    job::{Promote, ServerJob},
};

use super::{
    Asker, Event, Order, World, group,
    network::{Cut, Place},
};
use crate::{
    Cause, Command, Doubt, Effect, Left, Withdrawal,
    job::{JobState, Outcome},
    planted::{self, Fault},
    withdrawal::Aim,
};

/// Something that a publisher works on.
#[derive(Debug, Clone)]
pub(super) struct Work {
    order: Order,
    channel: ChannelName,
    generation: u64,
    task: Task,
}

/// What it is.
#[derive(Debug, Clone)]
enum Task {
    Publish(JobId),
    /// Take everything over from another channel.
    Promote(JobId, ChannelName, Doubt),
    Withdraw(Withdrawal),
    /// Sign the channel anew.
    Resign,
}

impl Task {
    fn job(&self) -> Option<JobId> {
        match self {
            Task::Publish(job) | Task::Promote(job, ..) => Some(*job),
            Task::Withdraw(order) => Some(order.job),
            Task::Resign => None,
        }
    }
}

/// One generation of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    channel: ChannelName,
    generation: u64,
    term: u64,
    content: BTreeSet<JobId>,
}

/// The newest release of each channel that somebody holds.
type Shelf = BTreeMap<ChannelName, Release>;

/// All releases that were ever made, and who holds which.
#[derive(Debug, Default)]
pub(super) struct Publishers {
    made: BTreeMap<(ChannelName, u64), BTreeSet<JobId>>,
    /// The generation in which each job appeared first.
    appeared: BTreeMap<JobId, u64>,
    shelves: BTreeMap<Place, Shelf>,
}

impl Publishers {
    /// Two contents of one generation are a fork; a job that comes in anew twice was published twice.
    fn make(&mut self, release: &Release, job: Option<JobId>) -> Result<(), String> {
        let key = (release.channel.clone(), release.generation);
        let first = self.made.entry(key).or_insert_with(|| release.content.clone());
        if *first != release.content {
            return Err(format!("a fork: {release:?}, and before {first:?}"));
        }
        let Some(job) = job else { return Ok(()) };
        let first = *self.appeared.entry(job).or_insert(release.generation);
        if first == release.generation {
            Ok(())
        } else {
            Err(format!("{job} is published twice: {first}, {release:?}"))
        }
    }

    pub(super) fn appeared(&self, job: JobId) -> bool {
        self.appeared.contains_key(&job)
    }
}

impl World {
    /// Takes an effect for the publisher.
    pub(super) fn begin_work(&mut self, order: Order, effect: Effect) {
        let (channel, generation, task) = match effect {
            Effect::Publish(publication) => {
                (publication.channel, publication.generation, Task::Publish(publication.job))
            }
            Effect::Serve(service) => match service.work {
                ServerJob::Promote(Promote { from, .. }) => {
                    (service.channel, service.generation, Task::Promote(service.job, from, service.doubt))
                }
                ServerJob::Derive(_) | ServerJob::Prune(_) | ServerJob::Diff(_) => return,
            },
            Effect::Withdraw(order) => (order.channel.clone(), order.generation, Task::Withdraw(order)),
            Effect::Resign { channel, generation } => {
                self.see("index signed anew");
                (channel, generation, Task::Resign)
            }
            Effect::Answer(_)
            | Effect::Grant(_)
            | Effect::Revoke { .. }
            | Effect::Reveal { .. }
            | Effect::Disclose { .. }
            | Effect::Announce(_)
            | Effect::WakeAt(_)
            | Effect::Explain(_)
            | Effect::Append { .. }
            | Effect::Notify(_) => return,
        };
        let time = self.now + 100 + self.random.below(19_900);
        if matches!(task, Task::Promote(..)) && self.faulty() && self.random.percent(30) {
            // It shows what nobody else hears of, while the source moves on.
            self.at(time.saturating_sub(1000).max(self.now), Event::Cut(Cut::Leader));
        }
        self.at(time, Event::Work(Work { order, channel, generation, task }));
    }

    /// The last step of a publication: whoever still leads, with a majority, shows it to the world.
    pub(super) fn publish(&mut self, work: Work) -> Result<(), String> {
        let Order { from, term } = work.order;
        let member = &self.group.members[from];
        let (up, leads, heard_at) = (member.is_up(), member.leads_in(term), member.heard_at);
        if !leads {
            self.see("publisher cut off");
            if !up || !planted::is(Fault::PublishesWithoutOffice) {
                return Ok(());
            }
        } else if self.now > heard_at + group::PATIENCE {
            self.see("publisher without majority waits");
            self.soon(1000, 3000, Event::Work(work));
            return Ok(());
        }
        if !self.group.members[from].leads_in(term) {
            return Err("who no longer leads publishes".into());
        }
        let fails = self.faulty() && self.random.percent(20) && work.task.job().is_some();
        let cause = if self.random.percent(25) { Cause::Permanent } else { Cause::Transient };
        let left = if self.random.percent(50) { Left::Nothing } else { Left::Perhaps };
        if fails && left == Left::Nothing {
            self.fail(&work, cause, left);
            return Ok(());
        }
        let base = self.newest(from, &work.channel);
        let found = base.as_ref().map_or(0, |base| base.generation);
        if found < self.group.members[from].ledger.released(&work.channel) {
            self.see("publisher lacks the newest generation");
            self.fail(&work, Cause::Transient, Left::Nothing);
            return Ok(());
        }
        if let Task::Withdraw(order) = &work.task
            && order.has_job(found)
            && !self.noted(from, order)
        {
            let Withdrawal { job, generation, .. } = *order;
            self.intake(from, Asker::Daemon, Command::Found { job, generation });
            self.soon(500, 1000, Event::Work(work));
            return Ok(());
        }
        let base = base.map(|base| base.content).unwrap_or_default();
        let Some(content) = self.content(&work, found, base) else {
            self.fail(&work, Cause::Permanent, Left::Perhaps);
            return Ok(());
        };
        let Work { channel, generation, task, .. } = work.clone();
        let release = Release { channel, generation, term, content };
        let enters = if let Task::Publish(job) = &task { Some(*job) } else { None };
        self.publishers.make(&release, enters)?;
        for to in [Place::Mirror].into_iter().chain((0..self.group.members.len()).map(Place::Member)) {
            if to == Place::Member(from) {
                self.released(to, &release)?;
            } else {
                self.send(Place::Member(from), to, Event::Released(to, Box::new(release.clone())));
            }
        }
        if fails {
            self.see("publication failed after it was out");
            self.fail(&work, cause, left);
        } else {
            self.succeed(from, generation, &task, found);
        }
        Ok(())
    }

    /// Says whether the ledger knows that a withdrawal's generation will have the job.
    fn noted(&self, member: usize, order: &Withdrawal) -> bool {
        let job = self.group.members[member].ledger.jobs.get(&order.job);
        job.is_some_and(|job| match &job.run.aim {
            Aim::Without { holds, .. } => holds.contains(&order.generation),
            Aim::Done => false,
        })
    }

    fn fail(&mut self, work: &Work, cause: Cause, left: Left) {
        let Some(job) = work.task.job() else { return };
        let (why, generation) = ("disk full".into(), Some(work.generation));
        self.intake(work.order.from, Asker::Daemon, Command::PublishFailed { job, generation, cause, left, why });
    }

    fn succeed(&mut self, member: usize, generation: u64, task: &Task, found: u64) {
        let command = match task {
            Task::Publish(job) | Task::Promote(job, ..) => Command::Published { job: *job, generation },
            Task::Withdraw(order) if order.has_job(found) => {
                self.see("withdrawal came too late");
                Command::Published { job: order.job, generation }
            }
            Task::Withdraw(order) => {
                self.see("withdrawn");
                Command::Withdrawn { job: order.job, generation }
            }
            Task::Resign => return,
        };
        self.intake(member, Asker::Daemon, command);
    }

    /// Makes the content of a generation from the newest that was found; none when that has this number and lacks the job.
    fn content(&mut self, work: &Work, found: u64, mut content: BTreeSet<JobId>) -> Option<BTreeSet<JobId>> {
        match &work.task {
            Task::Publish(job) if found == work.generation => return content.contains(job).then_some(content),
            Task::Publish(job) => drop(content.insert(*job)),
            Task::Promote(_, _, Doubt::Since(since)) if found >= *since => self.see("server job was out"),
            Task::Promote(_, source, _) => {
                let source = self.newest(work.order.from, source);
                content.extend(source.map(|release| release.content).unwrap_or_default());
            }
            Task::Withdraw(..) | Task::Resign => {}
        }
        Some(content)
    }

    /// Asks everybody within reach for the newest release of a channel.
    fn newest(&self, member: usize, channel: &ChannelName) -> Option<Release> {
        let own = Place::Member(member);
        let near = |place: &Place| *place == own || self.network.talk(own, *place);
        let up = |place: &Place| !matches!(place, Place::Member(at) if !self.group.members[*at].is_up());
        let shelves = self.publishers.shelves.iter().filter(|(place, _)| near(place) && up(place));
        let releases = shelves.filter_map(|(_, shelf)| shelf.get(channel));
        releases.max_by_key(|release| (release.generation, release.term)).cloned()
    }

    /// A mirror or a candidate hears of a release.
    pub(super) fn released(&mut self, place: Place, release: &Release) -> Result<(), String> {
        let shelf = self.publishers.shelves.entry(place).or_default();
        let held = shelf.get(&release.channel).map_or((0, 0), |held| (held.generation, held.term));
        let offered = (release.generation, release.term);
        if offered <= held && !planted::is(Fault::MirrorWithoutFence) {
            if offered < held {
                self.see("old release refused");
            }
            return Ok(());
        }
        shelf.insert(release.channel.clone(), release.clone());
        if offered < held {
            return Err(format!("{place:?} goes back from {held:?} to {offered:?}"));
        }
        Ok(())
    }

    /// The newest generation that anybody may hold has exactly the channel's jobs that the ledger calls published.
    pub(super) fn judge_newest(&self) -> Result<(), String> {
        let jobs = &self.group.members[0].ledger.jobs;
        for channel in super::records::channels() {
            let of_channel = || jobs.iter().filter(|(_, job)| job.facts.channel == channel);
            if of_channel().any(|(_, job)| !job.state.is_ended()) {
                continue;
            }
            let is_published = |state: &JobState| match state {
                JobState::Ended(ended) => matches!(ended.outcome, Outcome::Published { .. }),
                JobState::Queued | JobState::Building | JobState::Publishing(_) | JobState::Serving(_) => false,
            };
            let published = of_channel().filter(|(_, job)| is_published(&job.state)).map(|(id, _)| *id);
            let published: BTreeSet<JobId> = published.collect();
            let newest = self.publishers.made.iter().rfind(|((of, _), _)| *of == channel);
            let content = newest.map(|(_, content)| content.clone()).unwrap_or_default();
            let own = |id: &JobId| jobs.get(id).is_some_and(|job| job.facts.channel == channel);
            let shown: BTreeSet<JobId> = content.into_iter().filter(own).collect();
            if shown != published {
                return Err(format!("{channel} shows {shown:?}, and {published:?} are published: {newest:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn resign(&mut self) {
        let leader = self.group.newest_leader();
        for channel in super::records::channels() {
            self.intake(leader, Asker::Daemon, Command::Resign { channel });
        }
    }
}
