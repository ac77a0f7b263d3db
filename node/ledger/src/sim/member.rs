//! One simulated coordinator: its ledger, its clock, its office, and how it performs effects.

use std::time::Duration;

use protocol::{
    NetworkId, Timestamp, Verified,
    job::job_id,
    message::{Refusal, Response},
    policy::Policy,
    testing::samples,
};

use super::{Asker, Event, FAULTS_UNTIL, Order, Victim, World, network::Place, records};
use crate::{
    Command, Effect, Ledger, News,
    planted::{self, Fault},
};

/// Whether a member runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    Down,
}

/// What a member believes to be.
#[derive(Debug)]
pub(super) enum Role {
    Follower,
    Leader(Office),
}

/// What a leader has in hand.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) term: u64,
    /// What is not yet proposed.
    pub(super) inbox: Vec<(Asker, Command)>,
    /// Who waits for the batch that is proposed.
    pub(super) flight: Option<Vec<Asker>>,
}

/// A coordinator.
pub(super) struct Member {
    pub(super) ledger: Ledger,
    /// Entries of the log that it applied.
    pub(super) applied: usize,
    /// The last snapshot, and the entries in it.
    snapshot: (Vec<u8>, usize),
    health: Health,
    pub(super) role: Role,
    /// When it last heard a leader, or led with a majority; 0 since it began.
    pub(super) heard_at: u64,
    pub(super) seen_term: u64,
    pub(super) knows_leader: Option<usize>,
    timer: Option<Timestamp>,
    /// Milliseconds that its clock is ahead of true time.
    ahead: i64,
}

impl Member {
    pub(super) fn new(network: NetworkId, genesis: &Verified<Policy>) -> Self {
        let ledger = Ledger::new(network, genesis.clone()).unwrap();
        Self {
            snapshot: (ledger.to_bytes(), 0),
            ledger,
            applied: 0,
            health: Health::Up,
            role: Role::Follower,
            heard_at: 0,
            seen_term: 0,
            knows_leader: None,
            timer: None,
            ahead: 0,
        }
    }

    /// One line for people.
    pub(super) fn describe(&self, at: usize) -> String {
        let Self { applied, health, role, heard_at, seen_term, knows_leader, ahead, .. } = self;
        format!(
            "member {at} is {health:?}, {role:?}, heard a leader at {heard_at} ms, follows {knows_leader:?} in term \
             {seen_term}, applied {applied} entries, its clock is {ahead} ms ahead"
        )
    }

    pub(super) fn is_up(&self) -> bool {
        self.health == Health::Up
    }

    /// Says whether it believes to lead in a term.
    pub(super) fn leads_in(&self, term: u64) -> bool {
        self.is_up() && matches!(&self.role, Role::Leader(office) if office.term == term)
    }

    pub(super) fn clock(&self, now: u64) -> Timestamp {
        let true_time = samples::NOW.after(Duration::from_millis(now)).as_millis();
        Timestamp::from_millis(true_time.saturating_add_signed(self.ahead))
    }

    /// How far its clock is ahead, for the fault of a member that reads it.
    pub(super) fn drift(&self) -> Duration {
        Duration::from_millis(self.ahead.unsigned_abs())
    }
}

impl World {
    /// A member is asked for something.
    pub(super) fn asked(&mut self, to: usize, asker: Asker, command: Command) {
        let member = &self.group.members[to];
        match (&member.role, member.health) {
            (_, Health::Down) => {}
            (Role::Follower, Health::Up) => self.send_on(to, asker),
            (Role::Leader(_), Health::Up) => {
                if planted::is(Fault::AnswersBeforeCommit) {
                    self.answer_early(to, asker, &command);
                }
                self.intake(to, asker, command);
            }
        }
    }

    fn answer_early(&mut self, by: usize, asker: Asker, command: &Command) {
        if let Command::Submit(request) = command {
            self.answer(by, asker, Response::Receipt(job_id(request), samples::NOW));
        } else if let Command::Order(_) = command {
            self.answer(by, asker, Response::Done);
        }
    }

    fn answer(&mut self, by: usize, asker: Asker, response: Response) {
        let to = match asker {
            Asker::Daemon => return,
            Asker::Builder(builder, _) => Place::Builder(builder),
            Asker::Person(_) => Place::People,
        };
        self.send(Place::Member(by), to, Event::Answered(by, asker, response));
    }

    /// Says who leads, to somebody who asked the wrong one.
    pub(super) fn send_on(&mut self, by: usize, asker: Asker) {
        let leader = self.group.members[by].knows_leader.map(records::member);
        self.answer(by, asker, Response::Refused(Refusal::NotCoordinator(leader)));
    }

    pub(super) fn answered(&mut self, by: usize, asker: Asker, response: &Response) {
        match asker {
            Asker::Daemon => {}
            Asker::Builder(to, about) => self.builder_answered(to, by, about, response),
            Asker::Person(number) => self.person_answered(number, response),
        }
    }

    /// Performs an effect of an entry that this member proposed; only in the term in which it proposed it.
    pub(super) fn perform(&mut self, by: usize, term: u64, asker: Asker, effect: Effect) -> Result<(), String> {
        if !self.group.members[by].leads_in(term) {
            return Err(format!("member {by} performs what it proposed in term {term}, which is over: {effect:?}"));
        }
        let order = Order { from: by, term };
        match effect {
            Effect::Answer(response) => {
                if let Response::Refused(_) = &response {
                    self.see("request refused");
                }
                self.answer(by, asker, response);
            }
            Effect::Grant(lease) => {
                let to = self.builder_of(lease.node);
                self.send(Place::Member(by), Place::Builder(to), Event::Granted(to, order, lease));
            }
            Effect::Revoke { node, lease, .. } => {
                let to = self.builder_of(node);
                self.send(Place::Member(by), Place::Builder(to), Event::Revoked(to, order, lease));
            }
            Effect::Reveal { node, lease } => {
                let to = self.builder_of(node);
                self.send(Place::Member(by), Place::Builder(to), Event::Reveal(to, order, lease));
            }
            Effect::Announce(announcement) => {
                for to in 0..self.builders.len() {
                    let event = Event::Announced(to, order, announcement.clone());
                    self.send(Place::Member(by), Place::Builder(to), event);
                }
            }
            Effect::WakeAt(time) => {
                let member = &mut self.group.members[by];
                member.timer = Some(time);
                let wait = u64::try_from(time.since(member.clock(self.now)).as_millis()).unwrap();
                self.at(self.now + wait, Event::Wake(by, term, time));
            }
            Effect::Publish(_) | Effect::Serve(_) | Effect::Withdraw(_) | Effect::Resign { .. } => {
                self.begin_work(order, effect);
            }
            // Nobody looks at outputs here, and the invariants read the log.
            Effect::Explain(_) | Effect::Append { .. } | Effect::Disclose { .. } => {}
            Effect::Notify(news) => self.note(&news),
        }
        Ok(())
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
            News::Served { .. } => self.see("server job done"),
            News::PublishFailed { .. } => self.see("publication failed"),
            News::AttemptFailed { .. } => self.see("attempt failed"),
            News::PolicyAdopted { .. } => self.see("policy changed"),
            News::Cancelled { .. } => self.see("job cancelled"),
            News::Verdict { word, .. } => match word.as_str() {
                "reproduced" => self.see("verdict reproduced"),
                "disputed" => self.see("verdict disputed"),
                "unreproducible" => self.see("verdict unreproducible"),
                _ => self.see("verdict failed"),
            },
            News::Accepted { .. }
            | News::Granted { .. }
            | News::Ordered { .. }
            | News::Started { .. }
            | News::Committed { .. }
            | News::Revealed { .. }
            | News::Skipped { .. }
            | News::ServeFailed { .. }
            | News::JobExpired { .. } => {}
        }
    }

    pub(super) fn wake(&mut self, member: usize, term: u64, timer: Timestamp) {
        let woken = &self.group.members[member];
        if woken.leads_in(term) && woken.timer == Some(timer) {
            self.intake(member, Asker::Daemon, Command::Woken);
        }
    }

    pub(super) fn set_clock(&mut self, member: usize, by: i64) {
        self.see(if by > 0 { "clock set ahead" } else { "clock set back" });
        self.group.members[member].ahead += by;
    }

    pub(super) fn crash_member(&mut self, victim: Victim) {
        let at = match victim {
            Victim::Leader => self.group.newest_leader(),
            Victim::Member(at) => at,
        };
        let member = &mut self.group.members[at];
        if !member.is_up() {
            return;
        }
        let led = matches!(member.role, Role::Leader(_));
        member.health = Health::Down;
        member.role = Role::Follower;
        self.see(if led { "leader crashed" } else { "follower crashed" });
        self.soon(500, 60_000, Event::RestoreMember(at));
    }

    /// Begins again from the last snapshot, with as much of the log as was synced.
    pub(super) fn restore_member(&mut self, at: usize) -> Result<(), String> {
        let all = self.group.members[at].applied;
        let snapshot = self.group.members[at].snapshot.clone();
        let ledger = Ledger::from_bytes(&snapshot.0).map_err(|e| e.to_string())?;
        let synced = snapshot.1 + usize::try_from(self.random.below((all - snapshot.1 + 1) as u64)).unwrap();
        if synced < all {
            self.see("unsynced entries lost");
        }
        let member = &mut self.group.members[at];
        (member.ledger, member.applied) = (ledger, snapshot.1);
        (member.health, member.heard_at, member.timer) = (Health::Up, 0, None);
        self.apply_until(at, synced)?;
        let member = &mut self.group.members[at];
        member.snapshot = (member.ledger.to_bytes(), member.applied);
        if self.now > FAULTS_UNTIL {
            self.see("member restored late");
        }
        Ok(())
    }
}
