//! Prints what the ledger costs in a large network: 10,000 peers, up to 100,000 waiting jobs. No network, no disk, and no
//! signature is in the figures but those of reading a snapshot; times are CPU times of one core.
//!
//! `cargo run --release -p artel-ledger --example scale [--quick]`

mod network;

use std::{
    process::{Command as Process, ExitCode},
    time::Duration,
};

use ledger::{Command, Ledger};
use protocol::message::Renewal;

use crate::network::{Network, card, cpu, offer};

/// Peers of the large network.
const PEERS: usize = 10_000;
/// Leases that run at one time.
const ROUND: usize = 1000;
/// The least that is expected of the ledger, in whole leases a second.
const LEASES_MIN: f64 = 5000.0;
/// Renewals of a peer that builds, in a minute.
const RENEWALS: u32 = 12;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => measure(&[1000, 10_000, 100_000], 20),
        ["--quick"] => measure(&[1000, 10_000], 4),
        ["--memory", peers] => memory(peers.parse().unwrap_or(0)),
        _ => {
            eprintln!("usage: scale [--quick]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn measure(sizes: &[u32], rounds: u32) {
    let mut first = None;
    for jobs in sizes {
        let (mut network, submit) = waiting(*jobs);
        let lease = leases(&mut network, *jobs, rounds);
        row(&format!("submit, {jobs} jobs wait"), submit, "us");
        let (smallest, micros) = *first.get_or_insert((*jobs, lease));
        let limit = f64::from(*jobs).ln() / f64::from(smallest).ln();
        let growth = lease / micros;
        println!(
            "{:<52} {growth:>10.2} x      log n grows {limit:.2} x",
            format!("growth of a lease, {jobs} jobs wait")
        );
        if *jobs == *sizes.last().expect("there are sizes") {
            snapshot(&network, *jobs);
        }
    }
    idle_room();
    idle_peers();
    for peers in ["0", "1000", "10000"] {
        let child = std::env::current_exe().and_then(|exe| Process::new(exe).args(["--memory", peers]).output());
        match child {
            Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(why) => eprintln!("memory of {peers} peers was not measured: {why}"),
        }
    }
}

/// Gives a network in which so many jobs wait, and what each cost, in microseconds.
fn waiting(jobs: u32) -> (Network, f64) {
    let mut network = Network::new(PEERS);
    network.begin();
    network.submit(jobs);
    let each = micros(network.spent) / f64::from(jobs);
    (network, each)
}

/// Whole leases: offer, grant, and declined or started, renewed and revealed. Gives the cost of one, in microseconds.
fn leases(network: &mut Network, jobs: u32, rounds: u32) -> f64 {
    let (mut costs, mut grants, mut count) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        network.begin();
        let mut live = network.offer(ROUND.min(jobs as usize));
        let (granted, commands) = (live.len(), network.commands);
        grants.push(micros(network.spent) / f64::from(u32::try_from(commands).expect("few")));
        let mut ended = 0;
        while let Some(lease) = live.pop() {
            live.extend(network.end(&lease));
            ended += 1;
        }
        assert!(granted > 0, "who offers room where jobs wait gets a lease");
        costs.push(micros(network.spent) / f64::from(ended));
        count += ended;
        network.fill();
    }
    let cost = median(costs);
    row(&format!("offer to lease, {jobs} jobs wait"), median(grants), "us");
    row(&format!("whole lease, {jobs} jobs wait ({count} leases)"), cost, "us");
    let rate = 1e6 / cost;
    let met = if rate >= LEASES_MIN { "yes" } else { "NO" };
    println!("{:<52} {rate:>10.0} /s     >= {LEASES_MIN} /s: {met}", format!("leases per second, {jobs} jobs wait"));
    cost
}

fn snapshot(network: &Network, jobs: u32) {
    let timed = |what: &str, began: Duration| row(&format!("{what}, {jobs} jobs"), micros(cpu() - began) / 1e3, "ms");
    let began = cpu();
    let copy = network.ledger.clone();
    timed("consistent copy", began);
    let began = cpu();
    let bytes = copy.to_bytes();
    timed("snapshot encoded", began);
    row(&format!("snapshot, {jobs} jobs"), bytes.len() as f64 / f64::from(1 << 20), "MiB");
    let began = cpu();
    let again = Ledger::from_bytes(&bytes).expect("a ledger reads its own snapshot");
    timed("snapshot decoded, every signature verified", began);
    assert!(again.to_bytes() == bytes, "a snapshot gives the same ledger");
}

/// Jobs that come while all peers have room.
fn idle_room() {
    let mut network = Network::new(PEERS);
    network.offer(PEERS);
    network.begin();
    let jobs: u32 = 4000;
    let granted = network.submit(jobs).len();
    assert_eq!(granted, 2 * jobs as usize, "each job gets its two builders at once");
    row(&format!("submit to two leases, {PEERS} peers idle"), micros(network.spent) / f64::from(jobs), "us");
}

/// What peers cost that say every minute what they said before, and those that build.
fn idle_peers() {
    let mut network = Network::new(PEERS);
    network.offer(PEERS);
    let (capacity, duty) = card();
    let per_peer = |spent: Duration| micros(spent) / PEERS as f64;
    let (began, mut stands) = (cpu(), 0);
    for node in &network.peers {
        let same = network.ledger.card_stands(*node, Some(&capacity), &duty);
        stands += usize::from(same && network.ledger.offer_stands(*node, &offer()));
    }
    let looked = per_peer(cpu() - began);
    assert_eq!(stands, PEERS, "what was said before is no command");
    row("idle peer and minute: card and offer, no command", looked, "us");
    network.begin();
    (0..PEERS).for_each(|peer| network.card(peer));
    network.offer(PEERS);
    row("the same if both were commands", per_peer(network.spent), "us");
    network.begin();
    for _ in 0..RENEWALS {
        for peer in 0..PEERS {
            let (node, renewals) = (network.peers[peer], Vec::<Renewal>::new());
            network.apply(Command::Renewed { node, renewals });
        }
    }
    row("peer that renews every 5 s, per minute", per_peer(network.spent), "us");
    network.begin();
    for peer in 0..PEERS {
        let node = network.peers[peer];
        network.apply(Command::Lost { node });
    }
    row("connection of a peer lost", per_peer(network.spent), "us");
}

/// In a process of its own: what this many peers that offer room take.
fn memory(peers: usize) {
    let mut network = Network::new(peers.max(10));
    network.offer(peers);
    row(&format!("resident memory, {peers} peers with room"), resident() / 1024.0, "MiB");
}

/// Gives what this process has in memory, in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

fn row(figure: &str, value: f64, unit: &str) {
    println!("{figure:<52} {value:>10.2} {unit}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
