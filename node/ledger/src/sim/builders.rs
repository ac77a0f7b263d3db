//! The simulated builders: what they answer, when they are away, and how they lie.

use std::collections::{BTreeMap, BTreeSet};

use attest::statement::VerifiedAttestation;
use protocol::{
    Hash, JobId, NodeId,
    blame::{Blame, Failure, Fault},
    job::Announcement,
    lease::{Lease, LeaseNumber},
    message::{Bid, Commitment, Failed, Refusal, Renewal, Response},
};

use super::{
    Asker, Event, JobNature, Order, World,
    network::Place,
    records::{self, node_of},
};
use crate::{
    Command, Opening,
    testing::{SALT, commitment, seed},
    view::{AttemptView, ResultView},
};

/// How a builder behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Honest,
    /// Signs the same wrong outputs as its fellows.
    Colluder,
    /// Signs wrong outputs of its own.
    Loner,
    /// Its disk is always full.
    Careless,
    /// It says of every job at once that it fails.
    BlackHole,
    /// It waits until it can read what others built, and signs that.
    Copycat,
    /// It says that it works, and never has a result.
    Endless,
    /// It is bound to what it built, and never shows it.
    Withholder,
}

pub(super) struct Builder {
    pub(super) node: NodeId,
    pub(super) nature: Nature,
    key: u8,
    /// How often it began; even when it is up.
    life: u32,
    slots: usize,
    asleep_until: u64,
    work: BTreeMap<LeaseNumber, Lease>,
    /// Reports that nobody acknowledged.
    reports: BTreeMap<LeaseNumber, Command>,
    /// What it is committed to and shows when it may.
    hidden: BTreeMap<LeaseNumber, Command>,
    /// How often a copycat looked in vain.
    looks: BTreeMap<LeaseNumber, u32>,
    /// Leases that a crash cut off.
    cut_off: BTreeSet<LeaseNumber>,
    follows: Follows,
}

/// Whom a builder takes for the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Follows {
    coordinator: usize,
    /// The highest term that it heard of, and when it last got an answer.
    term: u64,
    heard_at: u64,
}

impl Builder {
    pub(super) fn new(operator: u8, n: u8, nature: Nature, slots: usize) -> Self {
        Self {
            node: node_of(seed(operator, n)),
            nature,
            key: seed(operator, n),
            life: 0,
            slots,
            asleep_until: 0,
            work: BTreeMap::new(),
            reports: BTreeMap::new(),
            hidden: BTreeMap::new(),
            looks: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            follows: Follows::default(),
        }
    }

    pub(super) fn copies(&self) -> bool {
        self.nature == Nature::Copycat
    }

    fn is_up(&self) -> bool {
        self.life.is_multiple_of(2)
    }

    fn is_busy(&self) -> bool {
        self.work.len() >= self.slots
    }
}

impl World {
    pub(super) fn builder_of(&self, node: NodeId) -> usize {
        self.builders.iter().position(|b| b.node == node).expect("leases go to builders")
    }

    fn tell(&mut self, from: usize, about: Option<LeaseNumber>, command: Command) {
        let to = self.builders[from].follows.coordinator;
        let event = Event::Asked(to, Asker::Builder(from, about), Box::new(command));
        self.send(Place::Builder(from), Place::Member(to), event);
    }

    /// A builder obeys the newest leader that it heard of, and refuses an older one.
    fn obeys(&mut self, to: usize, order: Order) -> bool {
        let follows = &mut self.builders[to].follows;
        if order.term < follows.term {
            self.see("old term refused");
            return false;
        }
        *follows = Follows { coordinator: order.from, term: order.term, heard_at: self.now };
        true
    }

    pub(super) fn announced(&mut self, to: usize, order: Order, announcement: &Announcement) {
        if self.builders[to].is_up() && self.obeys(to, order) {
            self.bid(to, announcement);
        }
    }

    fn bid(&mut self, to: usize, announcement: &Announcement) {
        let builder = &self.builders[to];
        let excluded = announcement.excluded.contains(&builder.node);
        if builder.is_up() && !builder.is_busy() && !excluded && builder.asleep_until <= self.now {
            let bid = Bid { job: announcement.job, memory_mib: 8192 };
            self.tell(to, None, Command::Bid { node: builder.node, bid });
        }
    }

    pub(super) fn granted(&mut self, to: usize, order: Order, lease: Lease) {
        if !self.obeys(to, order) {
            return;
        }
        let builder = &mut self.builders[to];
        let (node, number, life) = (builder.node, lease.number, builder.life);
        if !builder.is_up() || builder.asleep_until > self.now {
            self.see("grant unanswered");
            self.tell(to, None, Command::Lost { node });
            return;
        }
        if builder.work.contains_key(&number) || builder.reports.contains_key(&number) {
            return;
        }
        if builder.is_busy() {
            self.tell(to, None, Command::Declined { node, lease: number, why: "no free slot".into() });
            return;
        }
        builder.work.insert(number, lease);
        self.tell(to, Some(number), Command::Started { node, lease: number });
        let longest = if self.builders[to].nature == Nature::BlackHole { 2000 } else { 50_000 };
        self.soon(1000, longest, Event::Built(to, life, number));
    }

    pub(super) fn revoked(&mut self, to: usize, order: Order, lease: LeaseNumber) {
        if self.obeys(to, order) {
            let work = self.builders[to].work.remove(&lease);
            if let Some(work) = work.filter(|work| self.builders[to].copies() && self.readable(work.job)) {
                self.see("copycat reveals what it read");
                let report = self.report(to, &work);
                self.tell(to, Some(lease), report);
            }
            // What it has is evidence.
            self.reveal(to, lease);
        }
    }

    pub(super) fn asked_to_reveal(&mut self, to: usize, order: Order, lease: LeaseNumber) {
        let builder = &self.builders[to];
        if builder.is_up() && builder.asleep_until <= self.now && self.obeys(to, order) {
            self.see("asked to reveal");
            self.reveal(to, lease);
        }
    }

    /// Shows what a builder is committed to.
    fn reveal(&mut self, to: usize, lease: LeaseNumber) {
        if self.builders[to].nature == Nature::Withholder {
            self.see("result withheld");
            return;
        }
        if let Some(reveal) = self.builders[to].hidden.remove(&lease) {
            self.builders[to].reports.insert(lease, reveal.clone());
            self.tell(to, Some(lease), reveal);
        }
    }

    pub(super) fn builder_answered(&mut self, to: usize, by: usize, about: Option<LeaseNumber>, response: &Response) {
        let stubborn = self.random.percent(30);
        let builder = &mut self.builders[to];
        builder.follows.heard_at = self.now;
        match response {
            Response::Refused(Refusal::NotCoordinator(leader)) => {
                let leader = leader.and_then(|node| self.group.member_of(node)).filter(|leader| *leader != by);
                if let Some(leader) = leader {
                    self.builders[to].follows.coordinator = leader;
                }
            }
            Response::Lost(lost) if stubborn && lost.iter().any(|l| builder.work.contains_key(l)) => {
                self.see("builder goes on without a lease");
            }
            Response::Lost(lost) => {
                builder.work.retain(|lease, _| !lost.contains(lease));
                lost.iter().for_each(|lease| self.reveal(to, *lease));
            }
            Response::Reveal => about.into_iter().for_each(|lease| self.reveal(to, lease)),
            // A commitment is said again until its result may be shown.
            Response::Done if about.is_some_and(|lease| builder.hidden.contains_key(&lease)) => {}
            Response::Done | Response::Refused(Refusal::Invalid(_) | Refusal::Unknown(_) | Refusal::NotAllowed(_)) => {
                if let Some(lease) = about {
                    builder.reports.remove(&lease);
                    builder.hidden.remove(&lease);
                }
            }
            Response::Receipt(..)
            | Response::Record(_)
            | Response::Records(_)
            | Response::Providers(_)
            | Response::Log(_)
            | Response::Grounds(_)
            | Response::View(_)
            | Response::Witness(..)
            | Response::Checkpoint(_)
            | Response::Conflict(_)
            | Response::Refused(Refusal::Busy(_)) => {}
        }
    }

    /// Every five seconds: heartbeats, reports again, and sometimes a look for work.
    pub(super) fn tick(&mut self, to: usize) {
        self.at(self.now + 5000, Event::Tick(to));
        let builder = &self.builders[to];
        if !builder.is_up() || builder.asleep_until > self.now {
            return;
        }
        let silent = self.now > builder.follows.heard_at + 10_000;
        let node = builder.node;
        let leases = builder.work.keys().chain(builder.reports.keys());
        let renewals: Vec<_> = leases.map(|l| Renewal { lease: *l, phase: "build".to_owned() }).collect();
        let reports: Vec<_> = builder.reports.clone().into_iter().collect();
        if !renewals.is_empty() {
            self.tell(to, None, Command::Renewed { node, renewals });
        }
        for (lease, report) in reports {
            self.tell(to, Some(lease), report);
        }
        let members = self.group.members.len() as u64;
        if silent {
            self.builders[to].follows.coordinator = usize::try_from(self.random.below(members)).unwrap();
        }
        let coordinator = self.builders[to].follows.coordinator;
        let talks = self.network.talk(Place::Builder(to), Place::Member(coordinator));
        if talks && self.random.percent(20) && self.group.newest_leader() == coordinator {
            let open = self.group.head().map(|head| head.ledger.open_jobs(protocol::testing::samples::NOW));
            open.into_iter().flatten().for_each(|announcement| self.bid(to, &announcement));
        }
    }

    pub(super) fn built(&mut self, to: usize, life: u32, number: LeaseNumber) {
        let builder = &mut self.builders[to];
        if builder.asleep_until > self.now {
            let later = builder.asleep_until;
            self.at(later, Event::Built(to, life, number));
            return;
        }
        if builder.life != life {
            return;
        }
        if builder.nature == Nature::Endless {
            self.see("builder goes on without end");
            return;
        }
        if builder.nature == Nature::Copycat && self.looks_in_vain(to, number) {
            self.at(self.now + 5000, Event::Built(to, life, number));
            return;
        }
        let Some(lease) = self.builders[to].work.remove(&number) else { return };
        let mut report = self.report(to, &lease);
        let brazen = self.builders[to].copies() && self.random.percent(30);
        if brazen {
            self.see("copycat shows without a commitment");
        } else if let Command::Revealed { node, attestation, .. } = &report {
            let (node, commitment) = (*node, self.commitment(to, &lease, attestation));
            self.builders[to]
                .hidden
                .insert(number, std::mem::replace(&mut report, Command::Committed { node, commitment }));
        }
        self.builders[to].reports.insert(number, report.clone());
        self.tell(to, Some(number), report);
    }

    /// What anybody may read of a job: whether there is something to copy.
    fn readable(&self, job: JobId) -> bool {
        let seen = self.group.head().and_then(|head| head.ledger.job(job));
        let outputs = |attempt: &AttemptView| matches!(attempt.result, ResultView::Outputs { .. });
        seen.is_some_and(|view| view.attempts.iter().any(outputs))
    }

    /// A copycat looks whether it can copy already; it does not look for ever.
    fn looks_in_vain(&mut self, to: usize, number: LeaseNumber) -> bool {
        let Some(job) = self.builders[to].work.get(&number).map(|lease| lease.job) else { return false };
        let looks = self.builders[to].looks.entry(number).or_default();
        *looks += 1;
        let patient = *looks < 8;
        let found = self.readable(job);
        if !found {
            self.see("copycat found nothing to copy");
        }
        patient && !found
    }

    /// What binds a builder. A copycat that has nothing yet binds itself to nonsense and hopes to show something else.
    fn commitment(&mut self, to: usize, lease: &Lease, attestation: &VerifiedAttestation) -> Commitment {
        let network = self.group.network;
        let honest = commitment(&network, lease.number, attestation);
        if self.builders[to].nature != Nature::Copycat || self.readable(lease.job) {
            return honest;
        }
        self.see("copycat breaks its commitment");
        Commitment { digest: Hash::of(b"nonsense"), ..honest }
    }

    fn report(&mut self, to: usize, lease: &Lease) -> Command {
        let (request, nature) = &self.requests[&lease.job];
        let builder = &self.builders[to];
        let (node, number) = (lease.node, lease.number);
        let failed = |blame, step: &str| Command::Failed {
            node,
            report: Failed {
                log: None,
                lease: number,
                failure: Failure::new(blame, step, "it did not work"),
                statement: None,
            },
        };
        let content = match (builder.nature, nature) {
            (Nature::BlackHole, _) => return failed(Blame::Job, "build"),
            (Nature::Careless, _) => return failed(Blame::Builder(Fault::DiskFull), "sandbox"),
            (Nature::Colluder, _) => "lie".to_owned(),
            (Nature::Loner, _) => format!("lie of {node}"),
            (Nature::Honest | Nature::Copycat | Nature::Endless | Nature::Withholder, JobNature::Good) => {
                honest(lease.job)
            }
            (Nature::Honest | Nature::Copycat | Nature::Endless | Nature::Withholder, JobNature::Broken) => {
                return failed(Blame::Job, "build");
            }
            (
                Nature::Honest | Nature::Copycat | Nature::Endless | Nature::Withholder,
                JobNature::Unstable | JobNature::Server,
            ) => format!("run {number}"),
        };
        let attestation = records::attestation(request, lease, builder.key, &content);
        if builder.nature != Nature::Honest {
            self.see("liar reports");
        }
        Command::Revealed { node, lease: number, log: Hash::of(b"log"), opening: Opening::Salt(SALT), attestation }
    }

    pub(super) fn crash_builder(&mut self, to: usize) {
        let builder = &mut self.builders[to];
        if builder.is_up() {
            builder.life += 1;
            builder.cut_off.extend(builder.work.keys());
            builder.work.clear();
            builder.reports.clear();
            builder.cut_off.extend(std::mem::take(&mut builder.hidden).into_keys());
            self.see("builder crashed");
            self.soon(500, 60_000, Event::RestoreBuilder(to));
        }
    }

    /// A restarted builder knows which leases it lost; it does not always manage to say so.
    pub(super) fn restore_builder(&mut self, to: usize) {
        let talks = self.random.percent(50);
        let builder = &mut self.builders[to];
        builder.life += 1;
        let cut_off = std::mem::take(&mut builder.cut_off);
        let node = builder.node;
        for lease in cut_off.into_iter().filter(|_| talks) {
            let failure = Failure::new(Blame::Interrupted, "restart", "the builder was restarted");
            let report = Command::Failed { node, report: Failed { log: None, lease, failure, statement: None } };
            self.builders[to].reports.insert(lease, report.clone());
            self.see("interruption reported");
            self.tell(to, Some(lease), report);
        }
    }

    pub(super) fn sleep_builder(&mut self, to: usize) {
        self.see("builder slept");
        self.builders[to].asleep_until = self.now + 10_000 + self.random.below(90_000);
    }
}

/// What honest builders make of a good job.
pub(super) fn honest(job: JobId) -> String {
    format!("job {job}")
}
