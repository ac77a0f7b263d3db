//! One run: load, some faults that overlap, repair of everything, and judgement.

use std::{collections::BTreeSet, time::Duration};

use protocol::NodeId;
use tokio::time::Instant;

use super::{
    cluster::{Cluster, Disks, Repair, member, timing},
    dice::{Counts, Dice},
    load::{Acknowledging, Load},
    net::Weather,
    witness::Content,
};
use crate::consensus::{Error, Majority};

/// Everybody agrees again so long after the last fault has been repaired.
const AGREE_WITHIN: Duration = Duration::from_secs(30);

/// What one run found.
pub(in crate::consensus) struct Report {
    pub(in crate::consensus) counts: Counts,
    pub(in crate::consensus) journal: Vec<String>,
    pub(in crate::consensus) wrong: Option<String>,
    pub(in crate::consensus) worst_gap: Duration,
    pub(in crate::consensus) virtual_time: Duration,
    pub(in crate::consensus) terms: usize,
}

/// One run in so many keeps a real ledger.
const LEDGER_EVERY: u64 = 20;

/// Runs one seed.
pub(in crate::consensus) async fn run(seed: u64, disks: Disks) -> Report {
    run_with(seed, disks, Acknowledging::Committed).await
}

/// Runs one seed with leaders that may acknowledge too early.
pub(in crate::consensus) async fn run_with(seed: u64, disks: Disks, acknowledging: Acknowledging) -> Report {
    let size = match Dice::new(seed).within(0..10) {
        0 => 1,
        1 | 2 => 5,
        _ => 3,
    };
    let mut cluster = Cluster::new(seed, size);
    (cluster.disks, cluster.acknowledging) = (disks, acknowledging);
    if seed.is_multiple_of(LEDGER_EVERY) {
        cluster.content = Content::Ledger;
        cluster.counts.hit("a real ledger");
    }
    cluster.counts.hit(match size {
        1 => "size 1",
        3 => "size 3",
        _ => "size 5",
    });
    let wrong = play(&mut cluster).await.err();
    let (worst_gap, virtual_time) = (cluster.gap.worst, cluster.started.elapsed());
    let terms = cluster.witness.lock().terms();
    let (counts, journal) = cluster.close().await;
    Report { counts, journal, wrong, worst_gap, virtual_time, terms }
}

async fn play(cluster: &mut Cluster) -> Result<(), String> {
    cluster.found().await?;
    cluster.until("the first leader", Duration::from_secs(8), |c| c.leader().is_some()).await?;
    let load = Load::start(cluster);
    for _ in 0..cluster.dice.within(3..7) {
        fault(cluster).await?;
        let rest = cluster.dice.millis(100..2500);
        cluster.pass(rest).await?;
    }
    mend_all(cluster).await?;
    settle_membership(cluster).await?;
    cluster.during(load.stop()).await?;
    let voters = cluster.voters.clone();
    let agree = |c: &Cluster| {
        let Some((leader, _)) = c.leader() else { return false };
        let applied = |id: NodeId| c.standing(id).map(|standing| (standing.applied, standing.last_log));
        voters.iter().all(|id| applied(*id) == applied(leader)) && applied(leader).is_some_and(|(a, l)| a == l)
    };
    cluster.until("agreement after healing", AGREE_WITHIN, agree).await?;
    let lists: Vec<_> = voters.iter().map(|id| (*id, cluster.items(*id))).collect();
    let Some((_, first)) = lists.first() else { return Err("no voters".to_owned()) };
    if let Some((id, _)) = lists.iter().find(|(_, list)| list != first) {
        return Err(format!("{} holds another list", id.short()));
    }
    let mut ledgers: Vec<_> = voters.iter().map(|id| cluster.ledger(*id)).collect();
    ledgers.dedup();
    if ledgers.len() != 1 {
        return Err("equal lists, and different ledgers".to_owned());
    }
    let mut seen = cluster.witness.lock();
    seen.judge(first);
    seen.wrong.take().map_or(Ok(()), Err)
}

async fn mend_all(cluster: &mut Cluster) -> Result<(), String> {
    cluster.log("mend everything");
    cluster.net.heal();
    cluster.seats.values().for_each(|seat| seat.disk.mend());
    for (_, repair) in std::mem::take(&mut cluster.repairs) {
        match repair {
            Repair::Discard(_) => cluster.repair(repair).await?,
            Repair::Restart(_) | Repair::Mend(_) | Repair::Weather | Repair::Flap(..) => {}
        }
    }
    let seats: Vec<NodeId> = cluster.seats.keys().copied().collect();
    for id in seats {
        cluster.repair(Repair::Restart(id)).await?;
    }
    Ok(())
}

/// A change of the voters that was begun is completed.
async fn settle_membership(cluster: &mut Cluster) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        cluster.until("a leader after healing", AGREE_WITHIN, |c| c.leader().is_some()).await?;
        if cluster.voters == cluster.wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("the change of the voters is not completed;{}", cluster.describe()));
        }
        change(cluster).await?;
    }
}

/// Asks the leader for the wanted voters.
async fn change(cluster: &mut Cluster) -> Result<(), String> {
    let Some((leader, group)) = cluster.leader() else { return Ok(()) };
    let wanted = cluster.wanted.clone();
    let changed = cluster.during(group.set_voters(wanted.clone())).await?;
    cluster.log(format!("{} changes the voters to {}: {changed:?}", leader.short(), wanted.len()));
    match changed {
        Ok(()) => {
            for gone in cluster.voters.difference(&wanted) {
                // It runs on for a while: it must not disturb.
                let at = Instant::now() + Duration::from_secs(3);
                cluster.repairs.push((at, Repair::Discard(*gone)));
            }
            cluster.voters = wanted;
            cluster.counts.hit("voters changed");
            Ok(())
        }
        Err(Error::NotLeader { .. } | Error::TimedOut { .. } | Error::Stopped { .. }) => Ok(()),
        Err(e @ (Error::Open { .. } | Error::Refused { .. })) => Err(format!("set_voters: {e}")),
    }
}

async fn fault(cluster: &mut Cluster) -> Result<(), String> {
    match cluster.dice.within(0..17) {
        0 | 1 => crash(cluster),
        2 => crash_majority(cluster),
        3 | 4 => return partition(cluster).await,
        5 => one_way(cluster),
        6 => deaf_or_dumb(cluster),
        7 => flapping(cluster),
        8 => weather(cluster, "loss burst"),
        9 => weather(cluster, "delay burst"),
        10 => disk_error(cluster),
        11 | 12 => return hand_over(cluster).await,
        13 => return add(cluster).await,
        14 => return remove(cluster).await,
        15 => return replace_dead(cluster).await,
        _ => return left_behind(cluster).await,
    }
    Ok(())
}

/// Any member that is up; half of the time the leader.
fn victim(cluster: &mut Cluster) -> Option<NodeId> {
    if cluster.dice.percent(50)
        && let Some((leader, _)) = cluster.leader()
    {
        return Some(leader);
    }
    let up: Vec<NodeId> = cluster.up();
    cluster.dice.pick(&up)
}

fn later(cluster: &mut Cluster, millis: std::ops::Range<u64>, repair: Repair) {
    let at = Instant::now() + cluster.dice.millis(millis);
    cluster.repairs.push((at, repair));
}

fn crash(cluster: &mut Cluster) {
    let Some(id) = victim(cluster) else { return };
    cluster.hit("crash");
    cluster.crash(id);
    later(cluster, 50..4000, Repair::Restart(id));
}

fn crash_majority(cluster: &mut Cluster) {
    cluster.hit("crash of a majority");
    let need = cluster.voters.len() / 2 + 1;
    let victims: Vec<NodeId> = cluster.voters.iter().copied().take(need).collect();
    for id in victims {
        cluster.crash(id);
        later(cluster, 50..3000, Repair::Restart(id));
    }
}

/// Cuts one side off, and looks that a minority says so.
async fn partition(cluster: &mut Cluster) -> Result<(), String> {
    let seats: Vec<NodeId> = cluster.seats.keys().copied().collect();
    let mut side: BTreeSet<NodeId> = seats.iter().copied().filter(|_| cluster.dice.percent(40)).collect();
    side.extend(victim(cluster));
    let ways: Vec<_> = seats
        .iter()
        .flat_map(|a| seats.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| side.contains(a) != side.contains(b))
        .collect();
    if ways.is_empty() {
        return Ok(());
    }
    cluster.hit("partition");
    ways.iter().for_each(|(from, to)| cluster.net.cut(*from, *to));
    if cluster.dice.percent(50) {
        later(cluster, 300..4000, Repair::Mend(ways));
        return Ok(());
    }
    let members: BTreeSet<NodeId> = cluster.voters.union(&cluster.wanted).copied().collect();
    let minority = if side.intersection(&members).count() * 2 < members.len() && cluster.voters == cluster.wanted {
        side
    } else {
        BTreeSet::new()
    };
    // Longer than a leader speaks on without a majority.
    cluster.pass(timing().patience * 2 + timing().stagger * 2).await?;
    for id in minority {
        // Other repairs may have joined it to the rest meanwhile, but not these ways.
        let Some(standing) = cluster.standing(id) else { continue };
        if standing.leads() {
            return Err(format!("{} leads in a minority: {standing:?}", id.short()));
        }
        if standing.majority == Majority::Missing {
            cluster.counts.hit("minority said so");
        }
    }
    cluster.repair(Repair::Mend(ways)).await
}

fn one_way(cluster: &mut Cluster) {
    let seats: Vec<NodeId> = cluster.seats.keys().copied().collect();
    let (Some(from), Some(to)) = (victim(cluster), cluster.dice.pick(&seats)) else { return };
    if from != to {
        cluster.hit("one-way cut");
        cluster.net.cut(from, to);
        later(cluster, 500..6000, Repair::Mend(vec![(from, to)]));
    }
}

/// A member that hears nobody, or that nobody hears.
fn deaf_or_dumb(cluster: &mut Cluster) {
    let Some(id) = victim(cluster) else { return };
    let deaf = cluster.dice.percent(50);
    cluster.hit(if deaf { "deaf member" } else { "dumb member" });
    let ways: Vec<_> = cluster.ways(id).into_iter().filter(|(from, _)| (*from == id) != deaf).collect();
    ways.iter().for_each(|(from, to)| cluster.net.cut(*from, *to));
    later(cluster, 500..6000, Repair::Mend(ways));
}

fn flapping(cluster: &mut Cluster) {
    let Some(id) = victim(cluster) else { return };
    cluster.hit("flapping member");
    let until = Instant::now() + cluster.dice.millis(2000..6000);
    later(cluster, 0..50, Repair::Flap(id, until));
}

fn weather(cluster: &mut Cluster, what: &'static str) {
    cluster.hit(what);
    let fair = Weather::fair();
    let weather = if what == "loss burst" {
        Weather { loss: cluster.dice.within(5..40), twice: 10, ..fair }
    } else {
        Weather { delay: 20..cluster.dice.within(60..400), ..fair }
    };
    cluster.net.set_weather(weather);
    later(cluster, 500..4000, Repair::Weather);
}

fn disk_error(cluster: &mut Cluster) {
    let Some(id) = victim(cluster) else { return };
    let writes = cluster.dice.within(1..25);
    cluster.log(format!("a disk will fail: {} in {writes} writes", id.short()));
    if let Some(seat) = cluster.seats.get(&id) {
        seat.disk.fail_in(writes);
    }
    later(cluster, 1500..4000, Repair::Restart(id));
}

async fn hand_over(cluster: &mut Cluster) -> Result<(), String> {
    let Some((leader, group)) = cluster.leader() else { return Ok(()) };
    let voters: Vec<NodeId> = cluster.voters.iter().copied().collect();
    let done = if cluster.dice.percent(50) {
        cluster.during(group.step_down()).await?
    } else {
        let Some(to) = cluster.dice.pick(&voters) else { return Ok(()) };
        if to == leader {
            return Ok(());
        }
        cluster.during(group.transfer(to)).await?
    };
    cluster.log(format!("{} hands over: {done:?}", leader.short()));
    match done {
        Ok(()) => cluster.counts.hit("handed over"),
        Err(Error::TimedOut { .. }) => cluster.counts.hit("handing over timed out"),
        Err(Error::Refused { .. } | Error::NotLeader { .. } | Error::Stopped { .. }) => {}
        Err(e @ Error::Open { .. }) => return Err(format!("transfer: {e}")),
    }
    Ok(())
}

/// The number of a machine that was never used.
fn newcomer(cluster: &mut Cluster) -> NodeId {
    let used = cluster.counts.0.get("newcomer").copied().unwrap_or(0);
    cluster.counts.hit("newcomer");
    member(u8::try_from(100 + used).unwrap_or(u8::MAX))
}

async fn add(cluster: &mut Cluster) -> Result<(), String> {
    if cluster.wanted != cluster.voters || cluster.voters.len() >= 5 {
        return Ok(());
    }
    let id = newcomer(cluster);
    cluster.hit("member added");
    cluster.wanted.insert(id);
    cluster.start(id).await?;
    admit(cluster);
    change(cluster).await
}

/// All members learn the new policy.
fn admit(cluster: &Cluster) {
    let candidates: BTreeSet<NodeId> = cluster.voters.union(&cluster.wanted).copied().collect();
    cluster.groups().iter().for_each(|group| group.set_candidates(candidates.clone()));
}

async fn remove(cluster: &mut Cluster) -> Result<(), String> {
    if cluster.wanted != cluster.voters || cluster.voters.len() < 2 {
        return Ok(());
    }
    let voters: Vec<NodeId> = cluster.voters.iter().copied().collect();
    let Some(gone) = cluster.dice.pick(&voters) else { return Ok(()) };
    cluster.hit("member removed");
    cluster.wanted.remove(&gone);
    change(cluster).await
}

/// A member dies for good, and another takes its place.
async fn replace_dead(cluster: &mut Cluster) -> Result<(), String> {
    if cluster.wanted != cluster.voters || cluster.voters.len() < 3 {
        return Ok(());
    }
    let Some(dead) = victim(cluster).filter(|id| cluster.voters.contains(id)) else { return Ok(()) };
    cluster.hit("dead member replaced");
    cluster.crash(dead);
    cluster.repairs.retain(|(_, repair)| !matches!(repair, Repair::Restart(id) if *id == dead));
    let id = newcomer(cluster);
    cluster.wanted.remove(&dead);
    cluster.wanted.insert(id);
    cluster.start(id).await?;
    admit(cluster);
    cluster
        .until("a leader, or none possible", Duration::from_secs(10), |c| c.leader().is_some() || !c.is_healthy())
        .await?;
    change(cluster).await
}

/// A member is down for so long that only a snapshot brings it back.
async fn left_behind(cluster: &mut Cluster) -> Result<(), String> {
    let Some(id) = victim(cluster).filter(|_| cluster.voters.len() > 2) else { return Ok(()) };
    cluster.hit("left behind");
    cluster.crash(id);
    cluster.pass(Duration::from_secs(4)).await?;
    cluster.repair(Repair::Restart(id)).await
}
