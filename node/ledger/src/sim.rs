//! A seeded simulation: one coordinator, builders and a publisher in virtual time, with everything that goes wrong.
//!
//! ```text
//!  coordinator (ledger + journal) <--- lossy, slow, repeating network ---> builders: honest, colluding, lone liars, careless
//!     crashes after the journal was written, before effects; its clock is set      crash, restart, sleep, finish too late
//! ```
//!
//! A run is one seed. Every invariant is checked after every command; at the end each job is over or says why it waits, what
//! is good is published, nothing that honest builders did not make ever is, and the journal gives the same ledger again.
//! `SEEDS=2000 cargo nextest run -p artel-ledger sim` runs more; a failing run prints its seed and the end of its journal.

mod builders;
mod coordinator;
pub(crate) mod random;
mod runs;

use std::collections::BTreeMap;

use protocol::{
    JobId, Timestamp, Verified,
    job::{Announcement, JobRequest},
    lease::{Lease, LeaseNumber},
    message::Response,
};

use crate::{Command, Publication};
use builders::Builder;
use coordinator::Coordinator;
use random::Random;

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
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
enum Event {
    Submit(u8, JobNature),
    Command { from: Option<usize>, about: Option<LeaseNumber>, command: Box<Command> },
    Announced(usize, Announcement),
    Granted(usize, Lease),
    Revoked(usize, LeaseNumber),
    Answered(usize, Option<LeaseNumber>, Response),
    Tick(usize),
    Built(usize, u32, LeaseNumber),
    CrashBuilder(usize),
    RestoreBuilder(usize),
    SleepBuilder(usize),
    CrashCoordinator,
    RestoreCoordinator,
    SetClock(i64),
    Wake(u32, Timestamp),
    Published(u32, Publication),
}

/// The whole simulated network.
struct World {
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    random: Random,
    /// Per cent of messages that are lost, and that arrive twice.
    loss: u64,
    coordinator: Coordinator,
    builders: Vec<Builder>,
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

    /// Sends over the network: slowly, and while there are faults not at all or twice.
    fn send(&mut self, event: Event) {
        if self.faulty() && self.random.percent(self.loss) {
            self.see("message lost");
            return;
        }
        if self.faulty() && self.random.percent(self.loss) {
            self.see("message repeated");
            self.soon(1, 20_000, event.clone());
        }
        self.soon(1, 300, event);
    }

    fn run(mut self) -> Run {
        while let Some(((time, _), event)) = self.queue.pop_first() {
            self.now = time;
            if time > END || (time > FAULTS_UNTIL && self.coordinator.all_ended()) {
                break;
            }
            self.happen(event).map_err(|why| self.explain(&why))?;
        }
        self.judge().map_err(|why| self.explain(&why))?;
        Ok(self.seen)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Submit(number, nature) => return self.submit(number, nature),
            Event::Command { from, about, command } => return self.command(from, about, *command),
            Event::Announced(to, announcement) => self.announced(to, &announcement),
            Event::Granted(to, lease) => self.granted(to, lease),
            Event::Revoked(to, lease) => self.revoked(to, lease),
            Event::Answered(to, about, response) => self.answered(to, about, response),
            Event::Tick(to) => self.tick(to),
            Event::Built(to, life, lease) => self.built(to, life, lease),
            Event::CrashBuilder(to) => self.crash_builder(to),
            Event::RestoreBuilder(to) => self.restore_builder(to),
            Event::SleepBuilder(to) => self.sleep_builder(to),
            Event::CrashCoordinator => self.crash_coordinator(),
            Event::RestoreCoordinator => return self.restore_coordinator(),
            Event::SetClock(by) => self.set_clock(by),
            Event::Wake(life, timer) => return self.wake(life, timer),
            Event::Published(life, publication) => return self.publication_done(life, publication),
        }
        Ok(())
    }
}
