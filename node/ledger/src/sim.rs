//! A seeded simulation: a group of coordinators, builders, maintainers, publishers and a mirror in virtual time, with
//! everything that goes wrong.
//!
//! ```text
//!   maintainers: submit, cancel, replay, sign new policies          builders: honest, colluding, copying, lone liars,
//!        |                                                             |      careless, black holes; crash, sleep, finish too late
//!        v                                                             v
//!   group of 1, 3 or 5 <----- lossy, slow, repeating network, cut in both or in one direction -----> mirror (fences)
//!     one committed log, a leader in each term, members that lag, crash and lose what was not synced, clocks that differ;
//!     batches under way survive a leader or vanish with it; a new policy replaces a member, an operator, a maintainer
//! ```
//!
//! The group is a model of a correct replicated log (see [`group`]), not the real replication, which has a simulation of
//! its own. What is tested is what the ledger, and the rules of its performers, make of such a log.
//!
//! A run is one seed. Every invariant is checked after every command; at the end each job is over or says why it waits, what
//! is good is published, nothing that honest builders did not make ever is, everybody has an answer, and all members have the
//! same ledger. `SEEDS=1000000 cargo nextest run -p artel-ledger sim` runs more; a failing run prints its seed and the end of
//! its log, and `SEED=7` runs one seed again.

mod builders;
mod group;
mod judge;
mod member;
mod network;
mod people;
mod publisher;
pub(crate) mod random;
mod records;
mod runs;

use std::collections::BTreeMap;

use protocol::{
    JobId, Timestamp, Verified,
    job::{Announcement, JobRequest},
    lease::{Lease, LeaseNumber},
    message::Response,
};

use crate::Command;
use builders::Builder;
use group::Group;
use network::{Cut, Network, Place};
use people::Wish;
use publisher::{Publishers, Release, Work};
use random::Random;
use records::Shape;

/// Faults begin only before this time, in milliseconds.
const FAULTS_UNTIL: u64 = 150_000;
/// A run ends at the latest at this time, in milliseconds.
const END: u64 = 7_200_000;

/// What a job's honest build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobNature {
    /// The same outputs everywhere.
    Good,
    /// It fails in the step `build`.
    Broken,
    /// Other outputs each time.
    Unstable,
    /// The publisher's: no builder has it.
    Server,
}

/// Who asked, and about what: the answer goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// A coordinator itself.
    Daemon,
    /// A builder, perhaps about a lease.
    Builder(usize, Option<LeaseNumber>),
    /// A maintainer or a root, about a wish.
    Person(usize),
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
enum Event {
    Asked(usize, Asker, Box<Command>),
    Answered(usize, Asker, Response),
    Wish(usize),
    Announced(usize, Order, Announcement),
    Granted(usize, Order, Lease),
    Revoked(usize, Order, LeaseNumber),
    Reveal(usize, Order, LeaseNumber),
    Tick(usize),
    Built(usize, u32, LeaseNumber),
    CrashBuilder(usize),
    RestoreBuilder(usize),
    SleepBuilder(usize),
    Cut(Cut),
    Heal,
    CrashMember(Victim),
    RestoreMember(usize),
    SetClock(usize, i64),
    Beat(usize, u64),
    Append(usize, Order),
    Suspect(usize),
    Commit(usize, u64),
    Wake(usize, u64, Timestamp),
    Resign,
    Work(Work),
    Released(Place, Box<Release>),
}

/// Whom a crash hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Member(usize),
}

/// A coordinator's order: from whom, and in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    from: usize,
    term: u64,
}

/// The whole simulated network.
struct World {
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    random: Random,
    network: Network,
    group: Group,
    builders: Vec<Builder>,
    wishes: Vec<Wish>,
    publishers: Publishers,
    shape: Shape,
    requests: BTreeMap<JobId, (Verified<JobRequest>, JobNature)>,
    seen: BTreeMap<&'static str, u64>,
}

type Run = Result<BTreeMap<&'static str, u64>, String>;

impl World {
    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events += 1;
        self.queue.insert((time, self.events), event);
    }

    fn soon(&mut self, least: u64, most: u64, event: Event) {
        let time = self.now + least + self.random.below(most - least);
        self.at(time, event);
    }

    fn faulty(&self) -> bool {
        self.now < FAULTS_UNTIL
    }

    fn run(mut self) -> Run {
        while let Some(((time, _), event)) = self.queue.pop_first() {
            self.now = time;
            if time > END || (time > FAULTS_UNTIL && self.group.all_ended() && self.wishes.iter().all(Wish::is_over)) {
                break;
            }
            self.happen(event).map_err(|why| self.explain(&why))?;
        }
        self.judge().map_err(|why| self.explain(&why))?;
        Ok(self.seen)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Asked(to, asker, command) => self.asked(to, asker, *command),
            Event::Answered(by, asker, response) => self.answered(by, asker, &response),
            Event::Wish(number) => self.wish(number),
            Event::Announced(to, order, announcement) => self.announced(to, order, &announcement),
            Event::Granted(to, order, lease) => self.granted(to, order, lease),
            Event::Revoked(to, order, lease) => self.revoked(to, order, lease),
            Event::Reveal(to, order, lease) => self.asked_to_reveal(to, order, lease),
            Event::Tick(to) => self.tick(to),
            Event::Built(to, life, lease) => self.built(to, life, lease),
            Event::CrashBuilder(to) => self.crash_builder(to),
            Event::RestoreBuilder(to) => self.restore_builder(to),
            Event::SleepBuilder(to) => self.sleep_builder(to),
            Event::Cut(cut) => self.cut(cut),
            Event::Heal => self.network.heal(),
            Event::CrashMember(victim) => self.crash_member(victim),
            Event::RestoreMember(member) => return self.restore_member(member),
            Event::SetClock(member, by) => self.set_clock(member, by),
            Event::Beat(member, term) => self.beat(member, term),
            Event::Append(to, order) => return self.append(to, order),
            Event::Suspect(member) => return self.suspect(member),
            Event::Commit(member, term) => return self.commit(member, term),
            Event::Wake(member, term, timer) => self.wake(member, term, timer),
            Event::Resign => self.resign(),
            Event::Work(work) => return self.publish(work),
            Event::Released(place, release) => return self.released(place, &release),
        }
        Ok(())
    }
}
