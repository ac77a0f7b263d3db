//! Some members, their disks, the network between them, and the hand that breaks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::NodeId;
use tokio::time::Instant;

use super::{
    dice::{Counts, Dice},
    disk::Disk,
    load::Acknowledging,
    net::{Net, Weather},
    witness::{Content, Item, List, Witness},
};
use crate::{
    consensus::{Config, Group, Life, Standing, Timing, storage},
    store::Store,
};

/// The longest time without a leader while a majority is up and connected and few messages are lost.
pub(in crate::consensus) const NO_LEADER_MAX: Duration = Duration::from_secs(8);

/// How often the run is looked at, in virtual time.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// A snapshot after so few entries that runs have many.
const SNAPSHOT_EVERY: u64 = 24;

/// What the members write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) enum Disks {
    /// Disks in memory, that fail and forget.
    Modelled,
    /// Disks in memory that acknowledge before they keep: the planted fault.
    Lying,
    /// The node's own storage over its database, on this machine's disk; a crash ends the process there, and keeps what it wrote.
    Database,
}

/// A database, and the process that last wrote to it.
pub(in crate::consensus) struct Records {
    store: Store,
    writer: Option<(storage::Log, Group)>,
    /// Removed at the end.
    _folder: tempfile::TempDir,
}

impl Records {
    fn new() -> Result<Records, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let store = Store::open(&folder.path().join("store.redb")).map_err(|e| e.to_string())?;
        Ok(Records { store, writer: None, _folder: folder })
    }

    /// Ends the former process, and reads what it left.
    async fn mount(&mut self) -> Result<storage::Log, String> {
        if let Some((log, group)) = self.writer.take() {
            log.close();
            group.stop().await;
        }
        let store = self.store.clone();
        let log = tokio::task::spawn_blocking(move || storage::Log::open(&store)).await;
        log.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

/// One machine with a disk.
pub(in crate::consensus) struct Seat {
    pub(in crate::consensus) disk: Disk,
    records: Option<Records>,
    pub(in crate::consensus) ledger: Arc<Mutex<Option<ledger::Ledger>>>,
    pub(in crate::consensus) group: Option<Group>,
    pub(in crate::consensus) items: Arc<Mutex<Vec<Item>>>,
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub(in crate::consensus) enum Repair {
    /// Power, and a disk that works, for a member.
    Restart(NodeId),
    /// These directions carry messages again.
    Mend(Vec<(NodeId, NodeId)>),
    /// Few messages are lost or late.
    Weather,
    /// The links of a flapping member change, and again until this time.
    Flap(NodeId, Instant),
    /// A removed member is switched off.
    Discard(NodeId),
}

/// Time without a leader while a majority was healthy.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::consensus) struct Gap {
    since: Option<Instant>,
    pub(in crate::consensus) worst: Duration,
}

/// The cluster.
pub(in crate::consensus) struct Cluster {
    pub(in crate::consensus) net: Net,
    pub(in crate::consensus) witness: Witness,
    pub(in crate::consensus) seats: BTreeMap<NodeId, Seat>,
    /// Who votes, for all that is known.
    pub(in crate::consensus) voters: BTreeSet<NodeId>,
    /// Who is to vote, while that changes.
    pub(in crate::consensus) wanted: BTreeSet<NodeId>,
    /// What mends by itself, and when.
    pub(in crate::consensus) repairs: Vec<(Instant, Repair)>,
    pub(in crate::consensus) gap: Gap,
    pub(in crate::consensus) dice: Dice,
    pub(in crate::consensus) journal: Vec<String>,
    pub(in crate::consensus) counts: Counts,
    pub(in crate::consensus) started: Instant,
    pub(in crate::consensus) disks: Disks,
    /// When the leader acknowledges.
    pub(in crate::consensus) acknowledging: Acknowledging,
    /// How patient all members are.
    pub(in crate::consensus) timing: Timing,
    /// Whether the members keep a real ledger beside the list.
    pub(in crate::consensus) content: Content,
    seed: u64,
    /// Processes that crashed; their tasks end by themselves.
    ghosts: tokio::task::JoinSet<()>,
}

pub(in crate::consensus) fn member(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

pub(in crate::consensus) fn timing() -> Timing {
    Timing::lan()
}

impl Cluster {
    pub(in crate::consensus) fn new(seed: u64, size: u8) -> Cluster {
        Cluster {
            net: Net::new(seed),
            witness: Witness::default(),
            seats: BTreeMap::new(),
            voters: (1..=size).map(member).collect(),
            wanted: (1..=size).map(member).collect(),
            repairs: Vec::new(),
            gap: Gap::default(),
            dice: Dice::new(seed),
            journal: Vec::new(),
            counts: Counts::default(),
            started: Instant::now(),
            disks: Disks::Modelled,
            acknowledging: Acknowledging::Committed,
            timing: timing(),
            content: Content::List,
            seed,
            ghosts: tokio::task::JoinSet::new(),
        }
    }

    pub(in crate::consensus) fn log(&mut self, what: impl std::fmt::Display) {
        let at = self.started.elapsed().as_millis();
        self.journal.push(format!("{at:>7} ms  {what}"));
    }

    pub(in crate::consensus) fn hit(&mut self, what: &'static str) {
        self.counts.hit(what);
        self.log(what);
    }

    /// Starts a member, on the disk that it had.
    pub(in crate::consensus) async fn start(&mut self, id: NodeId) -> Result<Group, String> {
        let seed = self.seed ^ u64::from(id.as_bytes()[0]) << 32;
        let seat = self.seats.entry(id).or_insert_with(|| Seat {
            disk: Disk::new(seed),
            records: None,
            ledger: Arc::default(),
            group: None,
            items: Arc::default(),
        });
        let config =
            Config { timing: self.timing, snapshot_every: SNAPSHOT_EVERY, ..Config::new(id, self.voters.clone()) };
        let shown = (Arc::clone(&seat.items), Arc::clone(&seat.ledger));
        let list = List::new(shown, self.content, self.witness.clone());
        let (wire, opened) = (self.net.wires(id), list.opened());
        let failed = |why: String| format!("{} does not start: {why}", id.short());
        let group = match self.disks {
            Disks::Modelled => Group::open(config, seat.disk.mount(), list, wire.clone()).await,
            Disks::Lying => {
                seat.disk.lie();
                Group::open(config, seat.disk.mount(), list, wire.clone()).await
            }
            Disks::Database => {
                let mut records = match seat.records.take() {
                    Some(records) => records,
                    None => Records::new().map_err(failed)?,
                };
                let log = records.mount().await.map_err(failed)?;
                let group = Group::open(config, log.clone(), list, wire.clone()).await;
                records.writer = group.as_ref().ok().map(|group| (log, group.clone()));
                seat.records = Some(records);
                group
            }
        };
        let group = group.map_err(|e| failed(e.to_string()))?;
        opened.store(true, std::sync::atomic::Ordering::Relaxed);
        self.net.plug(&wire, group.clone());
        seat.group = Some(group.clone());
        Ok(group)
    }

    /// Starts everybody, and founds the group.
    pub(in crate::consensus) async fn found(&mut self) -> Result<(), String> {
        let voters = self.voters.clone();
        for id in &voters {
            self.start(*id).await?;
        }
        let groups: Vec<Group> = self.seats.values().filter_map(|seat| seat.group.clone()).collect();
        let founding = groups.iter().map(|group| group.found(&voters));
        for founded in futures::future::join_all(founding.collect::<Vec<_>>()).await {
            founded.map_err(|e| format!("founding: {e}"))?;
        }
        Ok(())
    }

    /// Takes the power from a member.
    pub(in crate::consensus) fn crash(&mut self, id: NodeId) {
        self.net.unplug(id);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.disk.crash();
            // Over a database the process ends when the next one starts, so that no two write to it.
            if let (Some(group), Disks::Modelled | Disks::Lying) = (seat.group.take(), self.disks) {
                self.ghosts.spawn(async move { group.stop().await });
            }
        }
        self.log(format!("crash {}", id.short()));
    }

    pub(in crate::consensus) fn is_up(&self, id: NodeId) -> bool {
        self.standing(id).is_some_and(|standing| standing.life == Life::Running)
    }

    pub(in crate::consensus) fn standing(&self, id: NodeId) -> Option<Standing> {
        self.seats.get(&id)?.group.as_ref().map(|group| group.standing().borrow().clone())
    }

    pub(in crate::consensus) fn up(&self) -> Vec<NodeId> {
        self.seats.keys().copied().filter(|id| self.is_up(*id)).collect()
    }

    pub(in crate::consensus) fn groups(&self) -> Vec<Group> {
        self.seats.values().filter_map(|seat| seat.group.clone()).collect()
    }

    /// Who leads with a majority behind it; in the newest term if an older one has not noticed yet.
    pub(in crate::consensus) fn leader(&self) -> Option<(NodeId, Group)> {
        let leading = self.seats.iter().filter_map(|(id, seat)| {
            let group = seat.group.as_ref()?;
            let standing = group.standing().borrow().clone();
            standing.leads().then(|| (standing.term, *id, group.clone()))
        });
        leading.max_by_key(|(term, ..)| *term).map(|(_, id, group)| (id, group))
    }

    /// Whether a majority of those that vote, and of those that are to, is up and all of them reach each other.
    pub(in crate::consensus) fn is_healthy(&self) -> bool {
        self.has_majority(&self.voters) && (self.wanted == self.voters || self.has_majority(&self.wanted))
    }

    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        let up: Vec<NodeId> = voters.iter().copied().filter(|id| self.is_up(*id)).collect();
        let need = voters.len() / 2 + 1;
        (0..1_u32 << up.len()).any(|mask| {
            let chosen: Vec<NodeId> =
                up.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, id)| *id).collect();
            chosen.len() >= need && chosen.iter().all(|a| chosen.iter().all(|b| a == b || self.net.joins(*a, *b)))
        })
    }

    /// Notes who leads now, for the rule of one leader per term and for the time without any.
    pub(in crate::consensus) fn observe(&mut self) {
        if self.leader().is_some() || !self.is_healthy() {
            self.gap.since = None;
        } else {
            let since = *self.gap.since.get_or_insert_with(Instant::now);
            self.gap.worst = self.gap.worst.max(since.elapsed());
            if since.elapsed() > NO_LEADER_MAX {
                let why = format!("no leader for {:?}, though a majority is well;{}", since.elapsed(), self.describe());
                self.witness.lock().accuse(why);
                self.gap.since = None;
            }
        }
        for standing in self.seats.values().filter_map(|seat| Some(seat.group.as_ref()?.standing().borrow().clone())) {
            if let (Some(leader), true) = (standing.leader, standing.leader == Some(standing.me)) {
                self.witness.lock().leads(standing.term, leader);
            }
        }
    }

    /// The bytes of a member's ledger, if it keeps one.
    pub(in crate::consensus) fn ledger(&self, id: NodeId) -> Option<Vec<u8>> {
        let ledger = self.seats.get(&id)?.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.as_ref().map(ledger::Ledger::to_bytes)
    }

    pub(in crate::consensus) fn items(&self, id: NodeId) -> Vec<Item> {
        let seat = self.seats.get(&id);
        seat.map(|seat| seat.items.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// Waits, in virtual time, until something holds.
    pub(in crate::consensus) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        holds: impl Fn(&Cluster) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > within {
                return Err(format!("{what}: not within {within:?}; {}", self.describe()));
            }
            self.look().await?;
        }
        Ok(start.elapsed())
    }

    /// Lets a little time pass, and repairs what is due.
    async fn look(&mut self) -> Result<(), String> {
        self.observe();
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.repairs).into_iter().partition(|(at, _)| *at <= now);
        self.repairs = later;
        let due: Vec<(Instant, Repair)> = due;
        for (_, repair) in due {
            self.repair(repair).await?;
        }
        match self.witness.lock().wrong.take() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    /// Lets time pass.
    pub(in crate::consensus) async fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look().await?;
        }
        Ok(())
    }

    /// Lets time pass until something is done.
    pub(in crate::consensus) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, String> {
        let mut work = std::pin::pin!(work);
        loop {
            let looked = tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                looked = self.look() => looked,
            };
            looked?;
        }
    }

    pub(in crate::consensus) async fn repair(&mut self, repair: Repair) -> Result<(), String> {
        match repair {
            Repair::Restart(id) => {
                if !self.is_up(id) {
                    // A process whose disk failed is still there.
                    self.crash(id);
                    self.start(id).await?;
                    self.log(format!("restart {}", id.short()));
                }
            }
            Repair::Mend(ways) => {
                ways.iter().for_each(|(from, to)| self.net.mend(*from, *to));
                self.log("mend");
            }
            Repair::Weather => {
                self.net.set_weather(Weather::fair());
                self.log("fair weather");
            }
            Repair::Flap(id, until) => self.flap(id, until),
            Repair::Discard(id) => {
                if !self.voters.contains(&id) && !self.wanted.contains(&id) {
                    self.crash(id);
                    self.seats.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// All directions between a member and the others.
    pub(in crate::consensus) fn ways(&self, id: NodeId) -> Vec<(NodeId, NodeId)> {
        let others = self.seats.keys().copied().filter(|other| *other != id);
        others.flat_map(|other| [(id, other), (other, id)]).collect()
    }

    fn flap(&mut self, id: NodeId, until: Instant) {
        let off = self.dice.percent(50) && Instant::now() < until;
        self.net.switch(id, off);
        if Instant::now() < until {
            let next = Instant::now() + self.dice.millis(100..900);
            self.repairs.push((next, Repair::Flap(id, until)));
        }
    }

    pub(in crate::consensus) fn describe(&self) -> String {
        let one = |(id, seat): (&NodeId, &Seat)| {
            let items = seat.items.lock().unwrap_or_else(PoisonError::into_inner).len();
            match seat.group.as_ref().map(|group| group.standing().borrow().clone()) {
                Some(s) => format!(
                    "\n  {} term {} leader {:?} majority {:?} applied {} last {} voters {} items {items} {:?}",
                    id.short(),
                    s.term,
                    s.leader.map(|leader| leader.short()),
                    s.majority,
                    s.applied,
                    s.last_log,
                    s.voters.len(),
                    s.life
                ),
                None => format!("\n  {} down, items {items}", id.short()),
            }
        };
        self.seats.iter().map(one).collect()
    }

    /// Stops everything, and adds up what happened.
    pub(in crate::consensus) async fn close(mut self) -> (Counts, Vec<String>) {
        for group in self.groups() {
            group.stop().await;
        }
        self.net.close();
        let mut counts = self.counts;
        counts.add(&self.net.counts());
        counts.add(&self.witness.lock().counts);
        for seat in self.seats.values() {
            counts.add(&seat.disk.counts());
        }
        self.ghosts.abort_all();
        (counts, self.journal)
    }
}
