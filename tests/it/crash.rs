//! Power cuts: builders and the coordinator are killed in every phase; nothing is lost, and nothing is left.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use harness::{Ground, Network, Plan, mounts_of, processes_of, until};
use protocol::{NodeId, limits};
use web::api::{AttemptState, AttemptView, JobDetail, JobState};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// A builder that says nothing loses its lease within this time of its last heartbeat.
const EXPIRES_WITHIN: Duration = Duration::from_secs(30);
/// A builder that was killed and comes back says so within this time: long before its lease expires.
const SAID_WITHIN: Duration = Duration::from_secs(15);
/// A busy machine may start a builder too late, and not so often.
const INTERRUPTED_MAX: u32 = 3;

fn attempt_of<'a>(detail: &'a JobDetail, node: &NodeId) -> &'a AttemptView {
    detail.attempts.iter().find(|a| a.builder.node == *node).unwrap()
}

fn nothing_is_left(attempts: &Path) {
    assert_eq!(processes_of(attempts), [], "processes");
    assert_eq!(mounts_of(attempts), Vec::<String>::new(), "mounts");
    let left: Vec<_> = fs::read_dir(attempts).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "folders: {left:?}");
}

#[tokio::test]
async fn a_killed_builder_loses_its_lease_in_time_and_leaves_nothing() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(3));
    network.start().await;
    let job = network.submit(&ground.script("nap", "echo asleep; sleep 15; echo done > out")).await;
    let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
    let detail = network.job_until((job, "two build it"), WITHIN, running).await;
    let victim = detail.attempts[0].builder.node;
    let name = network.name_of(&victim);
    let attempts = network.node(&name).home.build().join("attempts");
    until("the victim's sandbox is up", WITHIN, async || {
        processes_of(&attempts).iter().any(|p| p.command.starts_with("sleep")).then_some(())
    })
    .await;
    let killed = Instant::now();
    network.node(&name).kill();
    let lost = |d: &JobDetail| attempt_of(d, &victim).ended.is_some();
    let detail = network.job_until((job, "the lease has expired"), EXPIRES_WITHIN, lost).await;
    println!("figure: a killed builder's lease expired after {:.1} s", killed.elapsed().as_secs_f64());
    let attempt = attempt_of(&detail, &victim);
    assert_eq!(attempt.state, AttemptState::Lost, "interrupted, not failed: {attempt:?}");
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let by = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Built).count();
    assert_eq!((by(&detail), detail.attempts.len()), (2, 3), "the third operator took it over");

    network.start_some(&[&name]).await;
    nothing_is_left(&attempts);
    let attempt = attempt_of(&detail, &victim).clone();
    assert_eq!(attempt.state, AttemptState::Lost);
    network.job_until((job, "the log says so"), WITHIN, |d| logged(d, &victim) == Some("nothing came")).await;
}

/// How a builder's attempt ended, by the log.
fn logged<'a>(detail: &'a JobDetail, node: &NodeId) -> Option<&'a str> {
    detail.logged.iter().find(|attempt| attempt.node == *node)?.outcome.as_deref()
}

#[tokio::test]
async fn a_builder_that_comes_back_at_once_says_that_it_was_interrupted() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    for interrupted in 1..=INTERRUPTED_MAX {
        if interrupted_in_time(&mut network, &ground).await {
            return;
        }
        assert!(interrupted < INTERRUPTED_MAX, "the lease always expires first");
    }
}

/// Kills a builder in its sleep and starts it again; gives false when its lease expired before it could say so.
async fn interrupted_in_time(network: &mut Network, ground: &Ground) -> bool {
    let job = network.submit(&ground.script("nap", "echo asleep; sleep 4; echo done > out")).await;
    let attempts = network.node("b1").home.build().join("attempts");
    until("the victim's sandbox is up", WITHIN, async || {
        processes_of(&attempts).iter().any(|p| p.command.starts_with("sleep")).then_some(())
    })
    .await;
    let killed = Instant::now();
    network.node("b1").kill();
    network.start_some(&["b1"]).await;
    nothing_is_left(&attempts);
    let victim = network.id_of("b1");
    let ended = |d: &JobDetail| attempt_of(d, &victim).ended.is_some();
    let detail = network.job_until((job, "the interruption is known"), EXPIRES_WITHIN, ended).await;
    let took = killed.elapsed();
    println!("figure: a restarted builder's attempt was over after {:.1} s", took.as_secs_f64());
    let attempt = attempt_of(&detail, &victim);
    assert_eq!(attempt.state, AttemptState::Lost, "{attempt:?}");
    let said = attempt.failure.as_ref().unwrap().what.contains("restarted");
    assert!(said || took > limits::LEASE_TTL - 2 * limits::LEASE_RENEW_EVERY, "{attempt:?}");
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "two operators of two go on: {detail:#?}");
    let word = if said { "interrupted" } else { "nothing came" };
    let ends = |d: &JobDetail| d.logged.iter().any(|one| one.node == victim && one.outcome.as_deref() == Some(word));
    network.job_until((job, "the log says so, too"), WITHIN, ends).await;
    said && took < SAID_WITHIN
}
