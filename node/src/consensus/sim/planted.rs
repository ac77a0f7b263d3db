//! Faults planted into the harness: a simulation that does not find them would show nothing.

use super::{cluster::Disks, load::Acknowledging, run, schedule};

/// Within so many seeds a planted fault must be found.
const SEEDS: u64 = 100;

/// The first seed whose run says one of these.
fn found(disks: Disks, acknowledging: Acknowledging, says: &[&str]) -> (u64, String) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let report = run(schedule::run_with(seed, disks, acknowledging));
        match report.wrong {
            Some(wrong) if says.iter().any(|what| wrong.contains(what)) => return (seed, wrong),
            Some(wrong) => others.push(format!("seed {seed}: {wrong}")),
            None => {}
        }
    }
    panic!("not found in {SEEDS} seeds; found instead: {others:#?}");
}

#[test]
fn disks_that_acknowledge_before_they_keep_are_found() {
    let says = ["is lost", "and lies at", "on another", "two leaders", "terms went back"];
    let (seed, wrong) = found(Disks::Lying, Acknowledging::Committed, &says);
    println!("seed {seed}: {wrong}");
}

#[test]
fn a_leader_that_acknowledges_before_it_commits_is_found() {
    let (seed, wrong) = found(Disks::Modelled, Acknowledging::Taken, &["acknowledged by a hasty leader, is lost"]);
    println!("seed {seed}: {wrong}");
}
