//! Runs: a world from a seed, and the seeds that the tests try.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Event, FAULTS_UNTIL, Group, Run, Victim, World,
    builders::{Builder, Nature},
    network::{Cut, Network},
    publisher::Publishers,
    random::Random,
    records::Shape,
};
use crate::planted::{self, Fault};

/// Seeds that one test run tries.
const SEEDS: u64 = 20_000;
/// Threads that share the seeds.
const THREADS: u64 = 2;
/// Seeds in which each planted fault must show itself.
const SEEDS_TO_FIND: u64 = 3000;

/// What must have happened at least once over all seeds: a simulation that never does it proves nothing.
const SOMETIMES: &[&str] = &[
    "another leader",
    "attempt failed",
    "builder crashed",
    "builder cut off",
    "builder goes on without a lease",
    "builder quarantined",
    "builder slept",
    "asked to reveal",
    "builder goes on without end",
    "result withheld",
    "clock set ahead",
    "clock set back",
    "commit waits for a majority",
    "crash before effects",
    "effect of an old term withheld",
    "copycat breaks its commitment",
    "copycat found nothing to copy",
    "copycat reveals what it read",
    "copycat shows without a commitment",
    "follower crashed",
    "grant unanswered",
    "index signed anew",
    "interruption reported",
    "job cancelled",
    "late report",
    "leader crashed",
    "leader cut off",
    "leader deposed",
    "leader elected",
    "leader left the group",
    "leader without majority",
    "lease declined",
    "lease expired",
    "liar named",
    "liar reports",
    "member cut off from members",
    "member deaf",
    "member lags",
    "member mute",
    "membership changed",
    "message into a cut",
    "message lost",
    "message repeated",
    "network in halves",
    "no majority for a leader",
    "old release refused",
    "old term refused",
    "policy changed",
    "proposal survived its leader",
    "proposal vanished with its leader",
    "publication failed",
    "publication failed after it was out",
    "published",
    "publisher cut off",
    "publisher lacks the newest generation",
    "publisher without majority waits",
    "request refused",
    "request replayed",
    "sent on to the leader",
    "server job done",
    "server job was out",
    "told to come later",
    "unsynced entries lost",
    "verdict disputed",
    "verdict failed",
    "verdict reproduced",
    "verdict unreproducible",
    "withdrawal came too late",
    "withdrawn",
];

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let operators = random.between(1, 5);
        let agree = random.between(1, operators.min(3));
        let ask = if random.percent(50) { agree } else { operators };
        let members = [1, 1, 3, 3, 5][usize::try_from(random.below(5)).unwrap()];
        let shape = Shape { operators, nodes: random.between(1, 2), agree, ask, members };
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            events: 0,
            network: Network::new(random.below(20)),
            random,
            group: Group::new(shape),
            builders: Vec::new(),
            wishes: Vec::new(),
            publishers: Publishers::default(),
            shape,
            requests: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        world.populate();
        world.plan_people();
        world.plan_faults();
        world
    }

    /// Fewer colluders than must agree, fewer black holes than a quorum of failures; any number of others.
    fn populate(&mut self) {
        let Shape { operators, nodes, agree, .. } = self.shape;
        let colluders = self.random.between(0, agree - 1);
        let mut holes = 0;
        for operator in 0..operators {
            let nature = match self.random.below(16) {
                _ if operator < colluders => Nature::Colluder,
                0 => Nature::Loner,
                1 => Nature::Careless,
                3 => Nature::Copycat,
                4 => Nature::Endless,
                5 => Nature::Withholder,
                2 if holes == 0 && operators > 1 => {
                    holes += 1;
                    Nature::BlackHole
                }
                _ => Nature::Honest,
            };
            for n in 0..nodes {
                let slots = usize::from(self.random.between(1, 2));
                self.builders.push(Builder::new(operator, n, nature, slots));
            }
        }
    }

    fn plan_faults(&mut self) {
        let members = self.group.members.len();
        for member in 0..members {
            self.soon(0, 4000, Event::Suspect(member));
            if self.random.percent(20) {
                self.soon(0, FAULTS_UNTIL, Event::CrashMember(Victim::Member(member)));
            }
            if self.random.percent(25) {
                let by = 3_600_000 - 7_200_000 * i64::from(self.random.percent(50));
                self.soon(0, FAULTS_UNTIL, Event::SetClock(member, by));
            }
        }
        for to in 0..self.builders.len() {
            self.soon(0, 5000, Event::Tick(to));
            for _ in 0..self.random.below(3) {
                self.soon(0, FAULTS_UNTIL, Event::CrashBuilder(to));
            }
            if self.random.percent(20) {
                self.soon(0, FAULTS_UNTIL, Event::SleepBuilder(to));
            }
        }
        for _ in 0..self.random.below(3) {
            self.soon(0, FAULTS_UNTIL, Event::CrashMember(Victim::Leader));
        }
        for _ in 0..self.random.below(4) {
            let at = usize::try_from(self.random.below(members as u64)).unwrap();
            let cut = match self.random.below(7) {
                0 => Cut::Apart(at),
                1 => Cut::Mute(at),
                2 => Cut::Deaf(at),
                3 => Cut::Halves,
                4 => Cut::Builder(at % self.builders.len()),
                _ => Cut::Leader,
            };
            self.soon(0, FAULTS_UNTIL, Event::Cut(cut));
        }
        if self.random.percent(20) {
            self.soon(0, FAULTS_UNTIL, Event::Resign);
        }
        self.at(FAULTS_UNTIL, Event::Heal);
    }
}

fn run(seed: u64) -> Run {
    World::new(seed).run()
}

/// Runs every `THREADS`-th seed.
fn share(first: u64, seeds: u64) -> Run {
    let (mut seen, mut wrong): (BTreeMap<&'static str, u64>, Vec<(u64, String)>) = Default::default();
    for seed in (first..seeds).step_by(usize::try_from(THREADS).unwrap()) {
        match run(seed) {
            Ok(counts) => counts.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count),
            Err(why) => wrong.push((seed, why)),
        }
    }
    let Some((first, why)) = wrong.first() else { return Ok(seen) };
    let seeds: Vec<u64> = wrong.iter().map(|(seed, _)| *seed).collect();
    Err(format!("seeds {seeds:?} fail; seed {first}: {why}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn whatever_goes_wrong_the_ledger_stays_right() {
    if let Some(seed) = number("SEED") {
        match run(seed) {
            Ok(seen) => println!("seed {seed} holds: {seen:?}"),
            Err(why) => panic!("seed {seed}: {why}"),
        }
        return;
    }
    let (seeds, begun) = (number("SEEDS").unwrap_or(SEEDS), Instant::now());
    let shares: Vec<Run> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || share(first, seeds))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for share in shares {
        let counts = share.unwrap_or_else(|why| panic!("{why}"));
        counts.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seeds} seeds in {seconds:.1} s, {:.0} per second: {seen:?}", seeds as f64 / seconds);
    let never: Vec<_> = SOMETIMES.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(never.is_empty(), "these never happened: {never:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let once = |seed| {
        let mut world = World::new(seed);
        while let Some(((time, _), event)) = world.queue.pop_first().filter(|((time, _), _)| *time < FAULTS_UNTIL) {
            world.now = time;
            world.happen(event).unwrap();
        }
        let log = world.group.log.into_iter().flat_map(|entry| entry.batch);
        log.map(|(at, command)| (at, command.to_bytes())).collect::<Vec<_>>()
    };
    assert!(once(7) == once(7) && !once(7).is_empty());
}

#[test]
fn planted_faults_are_found() {
    let mut unseen = Vec::new();
    for fault in Fault::EVERY {
        planted::plant(Some(fault));
        let found = (0..SEEDS_TO_FIND).find_map(|seed| run(seed).err().map(|why| (seed, why)));
        planted::plant(None);
        match found {
            Some((seed, why)) => {
                let why: String = why.lines().next().unwrap_or_default().chars().take(120).collect();
                println!("{fault:?} is found by seed {seed}: {why}");
            }
            None => unseen.push(fault),
        }
    }
    assert!(unseen.is_empty(), "{unseen:?} stay unseen in {SEEDS_TO_FIND} seeds");
}
