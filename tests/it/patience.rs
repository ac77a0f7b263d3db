//! Nobody waits for the slow: a member that hangs, one that answers nonsense, one that sends a byte a second, and a gigabyte on
//! its way change nothing in how soon the others get their leases.

use std::{fs::File, time::Duration};

use harness::{BuilderPlan, Ground, Hostile, Manner, Network, Plan};
use protocol::{JobId, job::Schedule};
use web::api::{AttemptState, JobState};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// Jobs of which the middle one counts.
const ROUNDS: usize = 9;
/// The large artifact, in bytes.
const LARGE: u64 = 1 << 30;
/// A lease may come later by so much than in a quiet network: the same two cores hash and encrypt a gigabyte meanwhile.
const LATER_BY_MAX: u64 = 100;
/// Something else may begin on the machine between the two halves of a measurement, and not in each of so many.
const MEASURED_MAX: u32 = 3;
const HONEST: [&str; 2] = ["b1", "b2"];

/// Submits jobs one after the other that only the honest may build, and gives the middle time from acceptance to the second
/// lease, in milliseconds.
async fn dispatch(network: &Network, ground: &Ground) -> u64 {
    let mut only: Vec<_> = HONEST.iter().map(|name| network.id_of(name)).collect();
    only.sort();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let mut wish = network.wish();
        wish.schedule = Schedule { only: only.clone(), ..Schedule::default() };
        let job = network.submit_as(&ground.script("short", &format!("echo {round} > out")), &wish).await;
        let detail = network.over(job, WITHIN).await;
        assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
        let last = detail.attempts.iter().map(|a| a.granted).max().unwrap();
        times.push(last.timestamp().as_millis() - detail.summary.accepted.timestamp().as_millis());
    }
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// A job that three bad members and nobody else may build: it keeps them, and the coordinator, busy.
async fn occupy(network: &Network, ground: &Ground, name: &str) -> JobId {
    let mut wish = network.wish();
    wish.schedule = Schedule { only: vec![network.id_of(name)], ..Schedule::default() };
    network.submit_as(&ground.script(name, "echo never > out"), &wish).await
}

/// Gives the middle time to the second lease in a quiet network, and beside the slow.
async fn quiet_and_busy(ground: &Ground) -> (u64, u64) {
    let bad = [("hangs", Manner::Hangs), ("garbage", Manner::Garbage), ("trickles", Manner::Trickles)];
    let mut plan = Plan::builders(2);
    plan.builders.extend(bad.iter().map(|(name, _)| BuilderPlan::of(name, name)));
    plan.builders.push(BuilderPlan::of("far", "far"));
    plan.ask_max = 6;
    let mut network = Network::found(ground, &plan);
    network.start_some(&["coordinator", "b1", "b2", "far"]).await;
    let quiet = dispatch(&network, ground).await;

    let mut members = Vec::new();
    for (name, manner) in bad {
        members.push((name, Hostile::join(&mut network, name, manner).await));
    }
    for (name, _) in &members {
        occupy(&network, ground, name).await;
    }
    for (name, member) in &members {
        harness::until(&format!("{name} is offered a lease"), WITHIN, async || (member.orders() > 0).then_some(()))
            .await;
    }
    let file = network.folder().join("large");
    File::create(&file).unwrap().set_len(LARGE).unwrap();
    let mut wish = network.wish();
    wish.schedule = Schedule { only: vec![network.id_of("far")], ..Schedule::default() };
    let prepared = ground.with_input(ground.script("large", "stat -c %s file > out"), "file", &file);
    let large = network.submit_as(&prepared, &wish).await;
    let fetching = |a: &web::api::AttemptView| a.state == AttemptState::Running || a.started.is_none();
    network.job_until((large, "the large file is on its way"), WITHIN, |d| d.attempts.iter().any(fetching)).await;
    (quiet, dispatch(&network, ground).await)
}

#[tokio::test]
async fn the_slow_keep_nobody_waiting() {
    let Some(ground) = ground().await else { return };
    for measured in 1..=MEASURED_MAX {
        let (quiet, busy) = quiet_and_busy(&ground).await;
        println!(
            "figure: from acceptance to the second lease {quiet} ms in a quiet network, {busy} ms beside the slow"
        );
        if busy <= quiet + LATER_BY_MAX {
            return;
        }
        assert!(measured < MEASURED_MAX, "{busy} ms beside {quiet} ms");
    }
}

/// The first machine of a network coordinates and builds, and has what a job is made of; others come when they come.
#[tokio::test]
async fn who_coordinates_and_builds_keeps_what_a_job_is_made_of_for_who_comes_later() {
    let Some(ground) = ground().await else { return };
    let builders = vec![BuilderPlan::of("coordinator", "o1"), BuilderPlan::of("late", "o2").alone()];
    let mut network = Network::found(&ground, &Plan { builders, ..Plan::builders(2) });
    network.start_some(&["coordinator"]).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let built = |d: &web::api::JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Built);
    network.job_until((job, "the first one has built it"), WITHIN, built).await;
    network.start_some(&["late"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    assert_eq!(detail.attempts.len(), 2, "the late one needed one attempt: {detail:#?}");
}
