//! The simulated publishers, one on each coordinator, and a mirror. A repository's content follows from the ledger alone:
//! what it says is published, and the publication in hand. Fences: nobody takes an older generation, nor the same one of an
//! older term.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ChannelName, JobId};

use super::{Asker, Event, Order, World, group, network::Place};
use crate::{
    Cause, Command, Left, Publication,
    job::{JobState, Outcome},
    planted::{self, Fault},
};

/// A publication that a publisher works on.
#[derive(Debug, Clone)]
pub(super) struct Work {
    order: Order,
    /// None signs the channel anew.
    job: Option<JobId>,
    release: Release,
}

/// One generation of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    channel: ChannelName,
    generation: u64,
    term: u64,
    content: BTreeSet<JobId>,
}

/// The newest generation and term of each channel that somebody holds.
type Shelf = BTreeMap<ChannelName, (u64, u64)>;

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
    fn published_so_far(&self, member: usize, channel: &ChannelName) -> BTreeSet<JobId> {
        let is_published = |state: &JobState| match state {
            JobState::Ended(ended) => matches!(ended.outcome, Outcome::Published { .. }),
            JobState::Queued | JobState::Building | JobState::Publishing(_) | JobState::Serving(_) => false,
        };
        let jobs = self.group.members[member].ledger.jobs.iter();
        jobs.filter(|(_, job)| job.facts.channel == *channel && is_published(&job.state)).map(|(id, _)| *id).collect()
    }

    pub(super) fn begin_publication(&mut self, order: Order, publication: Publication) -> Result<(), String> {
        let Publication { job, channel, generation, .. } = publication;
        let mut content = self.published_so_far(order.from, &channel);
        content.insert(job);
        let release = Release { channel, generation, term: order.term, content };
        self.soon(100, 20_000, Event::Work(Work { order, job: Some(job), release }));
        Ok(())
    }

    pub(super) fn begin_resigning(
        &mut self,
        order: Order,
        channel: ChannelName,
        generation: u64,
    ) -> Result<(), String> {
        self.see("index signed anew");
        let content = self.published_so_far(order.from, &channel);
        let release = Release { channel, generation, term: order.term, content };
        self.soon(100, 20_000, Event::Work(Work { order, job: None, release }));
        Ok(())
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
        let fails = self.faulty() && self.random.percent(20);
        let left = if self.random.percent(50) { Left::Nothing } else { Left::Perhaps };
        let ended = work.job.map(|job| match fails {
            true => Command::PublishFailed { job, cause: Cause::Transient, left, why: "disk full".into() },
            false => Command::Published { job, generation: work.release.generation },
        });
        if fails && work.job.is_some() && left == Left::Nothing {
            ended.into_iter().for_each(|command| self.intake(from, Asker::Daemon, command));
            return Ok(());
        }
        self.publishers.make(&work.release, work.job)?;
        if fails && work.job.is_some() {
            self.see("publication failed after it was out");
        }
        let release = work.release;
        for to in [Place::Mirror].into_iter().chain((0..self.group.members.len()).map(Place::Member)) {
            self.send(Place::Member(from), to, Event::Released(to, Box::new(release.clone())));
        }
        ended.into_iter().for_each(|command| self.intake(from, Asker::Daemon, command));
        Ok(())
    }

    /// A mirror or a candidate hears of a release.
    pub(super) fn released(&mut self, place: Place, release: &Release) -> Result<(), String> {
        let shelf = self.publishers.shelves.entry(place).or_default();
        let held = shelf.get(&release.channel).copied().unwrap_or_default();
        let offered = (release.generation, release.term);
        if offered <= held && !planted::is(Fault::MirrorWithoutFence) {
            if offered < held {
                self.see("old release refused");
            }
            return Ok(());
        }
        shelf.insert(release.channel.clone(), offered);
        if offered < held {
            return Err(format!("{place:?} goes back from {held:?} to {offered:?}"));
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
