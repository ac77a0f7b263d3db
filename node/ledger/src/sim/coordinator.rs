//! The simulated coordinator: a ledger, its journal, one timer, and a publisher in the same process.

use std::time::Duration;

use protocol::{NetworkId, Timestamp, Verified, job::job_id, message::Response, policy::Policy, testing::samples};

use super::{Event, FAULTS_UNTIL, JobNature, World};
use crate::{Cause, Command, Effect, Ledger, News, Publication, invariants::Witness, testing::request};

pub(super) struct Coordinator {
    pub(super) ledger: Ledger,
    pub(super) network: NetworkId,
    pub(super) journal: Vec<(Timestamp, Vec<u8>)>,
    pub(super) genesis: Verified<Policy>,
    /// The last snapshot and the length of the journal at that time.
    snapshot: (Vec<u8>, usize),
    witness: Witness,
    state: State,
    /// How often it began: what an earlier life had under way is lost.
    pub(super) life: u32,
    timer: Option<Timestamp>,
    /// Milliseconds that its clock is ahead of true time.
    ahead: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
}

impl Coordinator {
    pub(super) fn new(policy: &Policy) -> Self {
        let (genesis, network) = samples::signed_genesis(policy);
        let ledger = Ledger::new(network, genesis.clone()).unwrap();
        let snapshot = (ledger.to_bytes(), 0);
        Self {
            ledger,
            network,
            journal: Vec::new(),
            genesis,
            snapshot,
            witness: Witness::default(),
            state: State::Up,
            life: 0,
            timer: None,
            ahead: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub(super) fn all_ended(&self) -> bool {
        self.is_up() && self.ledger.open.is_empty()
    }

    fn clock(&self, now: u64) -> Timestamp {
        let true_time = samples::NOW.after(Duration::from_millis(now)).as_millis();
        Timestamp::from_millis(true_time.saturating_add_signed(self.ahead))
    }
}

impl World {
    pub(super) fn submit(&mut self, number: u8, nature: JobNature) -> Result<(), String> {
        if !self.coordinator.is_up() {
            self.soon(1000, 2000, Event::Submit(number, nature));
            return Ok(());
        }
        let kind = if number.is_multiple_of(2) { "deb" } else { "command" };
        let request = request(self.coordinator.network, kind, number);
        self.requests.insert(job_id(&request), (request.clone(), nature));
        self.command(None, None, Command::Submit(request))?;
        if self.random.percent(20) {
            self.see("request replayed");
            self.soon(1, 60_000, Event::Submit(number, nature));
        }
        Ok(())
    }

    /// Journal, apply, check, perform; sometimes it crashes before it performs.
    pub(super) fn command(
        &mut self,
        from: Option<usize>,
        about: Option<protocol::lease::LeaseNumber>,
        command: Command,
    ) -> Result<(), String> {
        if !self.coordinator.is_up() {
            return Ok(());
        }
        let at = self.coordinator.clock(self.now);
        let coordinator = &mut self.coordinator;
        coordinator.journal.push((at, command.to_bytes()));
        coordinator.witness.before(&coordinator.ledger, &command);
        let effects = coordinator.ledger.apply(at, command);
        coordinator.witness.after(&coordinator.ledger, at, &effects)?;
        if self.faulty() && self.random.percent(1) {
            self.see("crash before effects");
            self.crash_coordinator();
            return Ok(());
        }
        for effect in effects {
            self.perform(from, about, effect);
        }
        Ok(())
    }

    fn perform(&mut self, from: Option<usize>, about: Option<protocol::lease::LeaseNumber>, effect: Effect) {
        match effect {
            Effect::Answer(response) => {
                if let Response::Refused(_) = &response {
                    self.see("request refused");
                }
                if let Some(to) = from {
                    self.send(Event::Answered(to, about, response));
                }
            }
            Effect::Grant(lease) => {
                let to = self.builder_of(lease.node);
                self.send(Event::Granted(to, lease));
            }
            Effect::Revoke { node, lease, .. } => {
                let to = self.builder_of(node);
                self.send(Event::Revoked(to, lease));
            }
            Effect::Announce(announcement) => {
                for to in 0..self.builders.len() {
                    self.send(Event::Announced(to, announcement.clone()));
                }
            }
            Effect::WakeAt(time) => {
                self.coordinator.timer = Some(time);
                let clock = self.coordinator.clock(self.now);
                let wait = u64::try_from(time.since(clock).as_millis()).unwrap();
                self.at(self.now + wait, Event::Wake(self.coordinator.life, time));
            }
            Effect::Publish(publication) => {
                let life = self.coordinator.life;
                self.soon(100, 5000, Event::Published(life, publication));
            }
            // Nobody asks for it here; the publisher's own tests do.
            Effect::Resign { .. } | Effect::Serve(_) => {}
            Effect::Notify(news) => self.note(&news),
        }
    }

    fn note(&mut self, news: &News) {
        match news {
            News::LeaseExpired { .. } => self.see("lease expired"),
            News::LateReport { .. } => self.see("late report"),
            News::Declined { .. } => self.see("lease declined"),
            News::Dissent { .. } => self.see("liar named"),
            News::Quarantined { .. } => self.see("builder quarantined"),
            News::Disabled { .. } => self.see("builder disabled"),
            News::Restored { .. } => self.see("builder restored"),
            News::Published { .. } => self.see("published"),
            News::PublishFailed { .. } => self.see("publication failed"),
            News::AttemptFailed { .. } => self.see("attempt failed"),
            News::Verdict { word, .. } => match word.as_str() {
                "reproduced" => self.see("verdict reproduced"),
                "disputed" => self.see("verdict disputed"),
                "unreproducible" => self.see("verdict unreproducible"),
                _ => self.see("verdict failed"),
            },
            News::PolicyAdopted { .. }
            | News::Accepted { .. }
            | News::Granted { .. }
            | News::Started { .. }
            | News::Revealed { .. }
            | News::Cancelled { .. }
            | News::Skipped { .. }
            | News::Served { .. }
            | News::ServeFailed { .. }
            | News::JobExpired { .. } => {}
        }
    }

    pub(super) fn wake(&mut self, life: u32, timer: Timestamp) -> Result<(), String> {
        if life != self.coordinator.life || self.coordinator.timer != Some(timer) {
            return Ok(());
        }
        self.command(None, None, Command::Woken)
    }

    pub(super) fn publication_done(&mut self, life: u32, publication: Publication) -> Result<(), String> {
        if life != self.coordinator.life {
            self.see("publisher cut off");
            return Ok(());
        }
        let (job, generation) = (publication.job, publication.generation);
        let fails = self.faulty() && self.random.percent(20);
        let failed = Command::PublishFailed { job, cause: Cause::Transient, why: "disk full".into() };
        self.command(None, None, if fails { failed } else { Command::Published { job, generation } })
    }

    pub(super) fn set_clock(&mut self, by: i64) {
        self.see(if by > 0 { "clock set ahead" } else { "clock set back" });
        self.coordinator.ahead += by;
    }

    pub(super) fn crash_coordinator(&mut self) {
        if self.coordinator.is_up() {
            self.see("coordinator crashed");
            self.coordinator.state = State::Down;
            self.coordinator.life += 1;
            self.soon(500, 60_000, Event::RestoreCoordinator);
        }
    }

    /// Reads snapshot and journal as a new process would: it must be the ledger that crashed.
    pub(super) fn restore_coordinator(&mut self) -> Result<(), String> {
        let coordinator = &mut self.coordinator;
        let mut ledger = Ledger::from_bytes(&coordinator.snapshot.0).map_err(|e| e.to_string())?;
        for (at, bytes) in &coordinator.journal[coordinator.snapshot.1..] {
            let command = Command::from_bytes(bytes, &coordinator.network).map_err(|e| e.to_string())?;
            let _ = ledger.apply(*at, command);
        }
        let bytes = ledger.to_bytes();
        if bytes != coordinator.ledger.to_bytes() {
            return Err("snapshot and journal give another ledger than the one that crashed".into());
        }
        coordinator.ledger = ledger;
        coordinator.snapshot = (bytes, coordinator.journal.len());
        coordinator.state = State::Up;
        self.command(None, None, Command::Restarted)?;
        if self.now > FAULTS_UNTIL { Ok(()) } else { self.command(None, None, Command::Restarted) }
    }
}
