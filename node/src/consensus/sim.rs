//! The group in virtual time: the real [`super::Group`] and openraft, an in-memory network and disks that break, thousands of
//! runs.
//!
//! Deterministic by the seed: the schedule of faults, each message's fate and delay, each flush's time, what a crash loses, the
//! clients' load, all times (the clock is paused and moves when everybody waits). Not deterministic: `select!` inside openraft
//! picks among several ready branches by tokio's own chance, and snapshots are made on another thread. So a failing run prints
//! its journal beside its seed, and a seed that failed once may pass the next time; elections draw no lots at all.

mod calm;
mod cluster;
mod dice;
mod disk;
mod load;
mod net;
mod patience;
mod planted;
mod schedule;
mod witness;

use std::{collections::BTreeSet, ops::Range, time::Duration};

use self::{
    cluster::{Disks, NO_LEADER_MAX},
    dice::Counts,
};

/// Runs of each part on each commit; the four parts go side by side, over other seeds.
const RUNS: u64 = 500;

/// What must have happened in each part, else it shows nothing.
const MUST_HAPPEN: [&str; 35] = [
    "a real ledger",
    "acknowledged",
    "crash",
    "crash lost unflushed entries",
    "crash of a majority",
    "crash tore a write",
    "dead member replaced",
    "deaf member",
    "delay burst",
    "disk error",
    "dumb member",
    "flapping member",
    "handed over",
    "handing over timed out",
    "left behind",
    "loss burst",
    "member added",
    "member removed",
    "message cut",
    "message lost",
    "minority said so",
    "newcomer",
    "one-way cut",
    "outcome unknown",
    "partition",
    "question came twice",
    "restart from a snapshot",
    "size 1",
    "size 3",
    "size 5",
    "snapshot made",
    "snapshot received",
    "the ledger answered",
    "truncated a log",
    "voters changed",
];

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds of one part. `CONSENSUS_SEEDS=n` makes it n seeds long; `CONSENSUS_SEED=n` leaves only this seed, to the first part.
fn seeds(part: u64) -> Range<u64> {
    match number("CONSENSUS_SEED") {
        Some(one) if part == 0 => one..one + 1,
        Some(_) => 0..0,
        None => {
            let runs = number("CONSENSUS_SEEDS").unwrap_or(RUNS);
            part * runs..(part + 1) * runs
        }
    }
}

fn runs_lose_nothing_and_agree(part: u64) {
    let seeds = seeds(part);
    let (mut counts, mut worst, mut virtual_time, mut terms) = (Counts::default(), Duration::ZERO, Duration::ZERO, 0);
    for seed in seeds.clone() {
        let report = run(schedule::run(seed, Disks::Modelled));
        if let Some(wrong) = report.wrong {
            panic!("seed {seed}: {wrong}\n{}\nagain: CONSENSUS_SEED={seed}", report.journal.join("\n"));
        }
        counts.add(&report.counts);
        (worst, terms) = (worst.max(report.worst_gap), terms + report.terms);
        virtual_time += report.virtual_time;
    }
    println!(
        "seeds {seeds:?}, {} s of virtual time, {terms} terms, longest time without a leader {worst:?}",
        virtual_time.as_secs()
    );
    counts.0.iter().for_each(|(what, times)| println!("{times:>10}  {what}"));
    assert!(worst <= NO_LEADER_MAX);
    let few = seeds.end - seeds.start < RUNS;
    let never: BTreeSet<&str> = MUST_HAPPEN.into_iter().filter(|what| !counts.0.contains_key(what)).collect();
    assert!(few || never.is_empty(), "never happened: {never:?}");
}

#[test]
fn thousands_of_runs_lose_nothing_and_agree_first_quarter() {
    runs_lose_nothing_and_agree(0);
}

#[test]
fn thousands_of_runs_lose_nothing_and_agree_second_quarter() {
    runs_lose_nothing_and_agree(1);
}

#[test]
fn thousands_of_runs_lose_nothing_and_agree_third_quarter() {
    runs_lose_nothing_and_agree(2);
}

#[test]
fn thousands_of_runs_lose_nothing_and_agree_last_quarter() {
    runs_lose_nothing_and_agree(3);
}

/// Runs over the node's own storage on this machine's disk.
const DATABASE_RUNS: u64 = 12;

#[test]
fn some_runs_over_the_real_database_lose_nothing_and_agree() {
    let mut counts = Counts::default();
    for seed in 0..DATABASE_RUNS {
        let report = run(schedule::run(seed, Disks::Database));
        if let Some(wrong) = report.wrong {
            panic!("seed {seed}: {wrong}\n{}", report.journal.join("\n"));
        }
        counts.add(&report.counts);
    }
    counts.0.iter().for_each(|(what, times)| println!("{times:>10}  {what}"));
    let need =
        ["acknowledged", "crash", "snapshot received", "restart from a snapshot", "voters changed", "handed over"];
    let never: Vec<&str> = need.into_iter().filter(|what| !counts.0.contains_key(what)).collect();
    assert!(never.is_empty(), "never happened: {never:?}");
}
