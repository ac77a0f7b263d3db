//! Several coordinators: whoever leads may die at any time, and the work goes on under another.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use artel::charter::CoordinatorsEntry;
use harness::{Network, Plan, until};
use protocol::JobId;
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobFilter, JobState, MemberRole},
};

use crate::ground;

/// Another coordinator leads so soon after the leader was killed.
pub(crate) const ANOTHER_WITHIN: Duration = Duration::from_secs(15);
/// Members agree so soon after they can speak again.
pub(crate) const EQUAL_WITHIN: Duration = Duration::from_secs(30);
/// A job of a test takes no longer.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// The kinds of jobs that maintainers signed in these tests; the network adds its own, which publish.
pub(crate) const SIGNED: [&str; 2] = ["deb", "command"];

/// The jobs that a coordinator knows of maintainers, in the order in which they were accepted.
pub(crate) async fn jobs(network: &Network, name: &str) -> Vec<JobId> {
    let page = network.client(name).jobs(JobFilter::default()).await.unwrap();
    let signed = page.jobs.iter().rev().filter(|job| SIGNED.contains(&job.kind.as_str()));
    signed.map(|job| job.id).collect()
}

/// Waits until all coordinators that run have applied the same.
pub(crate) async fn equal(network: &Network, names: &[&str]) {
    until("the coordinators have equal ledgers", EQUAL_WITHIN, async || {
        let mut digests = Vec::new();
        for name in names {
            let view = network.client(name).coordination().await.ok()?;
            let own = view.members.into_iter().find(|member| member.node == network.id_of(name))?;
            digests.push((own.applied?, own.ledger?));
        }
        digests.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}

/// Waits until a coordinator sees these in its group, all with the same ledger; from then on they are the candidates.
pub(crate) async fn grouped(network: &mut Network, seen_by: &str, names: &[String]) {
    let wanted: BTreeSet<_> = names.iter().map(|name| network.id_of(name)).collect();
    let client = network.client(seen_by);
    until("the group is as the policy says", WITHIN, async || {
        let view = client.coordination().await.ok()?;
        let here = |member: &web::api::MemberView| member.role != MemberRole::Learner && member.log.is_some();
        let members: BTreeSet<_> =
            view.members.iter().filter(|member| here(member)).map(|member| member.node).collect();
        (members == wanted).then_some(())
    })
    .await;
    network.choose_candidates(names);
    equal(network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn the_work_goes_on_when_the_leader_dies() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { coordinators: 3, ..Plan::builders(2) });
    network.start().await;
    let first = network.led(ANOTHER_WITHIN, &[]).await;
    let follower = network.candidates().iter().find(|name| **name != first).unwrap().clone();
    network.ask_at(&follower);
    let short = network.submit(&ground.script("short", "echo done > out")).await;
    assert_eq!(network.over(short, WITHIN).await.summary.state, JobState::Reproduced);

    let long = network.submit(&ground.script("long", "echo asleep; sleep 20; echo done > out")).await;
    let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
    network.job_until((long, "two build it"), WITHIN, running).await;
    network.node(&first).kill();
    let begun = Instant::now();
    let second = network.led(ANOTHER_WITHIN, &[&first]).await;
    println!("figure: another coordinator leads {:.2} s after the leader was killed", begun.elapsed().as_secs_f64());
    network.ask_at(&second);
    let detail = network.over(long, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    assert_eq!(detail.attempts.len(), 2, "nobody had to begin again: {detail:#?}");

    network.node(&first).start();
    network.node(&first).up().await;
    let names = network.candidates().to_vec();
    equal(&network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for name in &names {
        assert_eq!(jobs(&network, name).await, [short, long], "{name} knows every job, in order");
    }
    network.client(&second).transfer(network.id_of(&first)).await.unwrap();
    assert_eq!(network.led(ANOTHER_WITHIN, &[&second]).await, first);
}

/// Who published it, and kept the proof that it was logged, may be gone when a mirror asks.
#[tokio::test]
async fn a_mirror_that_comes_after_the_leader_died_takes_what_it_had_published() {
    let Some(ground) = ground().await else { return };
    let mirrors = vec!["mirror".to_owned()];
    let mut network = Network::found(&ground, &Plan { coordinators: 3, mirrors, ..Plan::builders(2) });
    network.start().await;
    let leader = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&leader);
    network.change_policy(|charter| charter.channels[0].witnesses = 2).await;
    network.node("mirror").kill();
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    network.node(&leader).kill();
    network.led(ANOTHER_WITHIN, &[&leader]).await;
    network.node("mirror").start();
    network.node("mirror").up().await;
    let mirror = network.client("mirror");
    until("the mirror has it", WITHIN, async || {
        let kept = mirror.repositories().await.ok()?;
        kept.iter().any(|repository| repository.generation == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_policy_replaces_a_dead_coordinator() {
    let Some(ground) = ground().await else { return };
    let mirrors = vec!["fourth".to_owned()];
    let mut network = Network::found(&ground, &Plan { coordinators: 3, mirrors, ..Plan::builders(2) });
    network.start().await;
    let leader = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&leader);
    let before = network.submit(&ground.script("before", "echo done > out")).await;
    assert_eq!(network.over(before, WITHIN).await.summary.state, JobState::Reproduced);

    let dead = network.candidates().iter().find(|name| **name != leader).unwrap().clone();
    network.node(&dead).kill();
    let mut named: Vec<String> = network.candidates().iter().filter(|name| **name != dead).cloned().collect();
    named.push("fourth".into());
    let ids: Vec<_> = named.iter().map(|name| network.id_of(name)).collect();
    network.change_policy(|charter| charter.coordinators = CoordinatorsEntry::Elected(ids.clone())).await;
    grouped(&mut network, &leader, &named).await;

    network.node(&leader).kill();
    let next = network.led(ANOTHER_WITHIN, &[&leader]).await;
    network.ask_at(&next);
    let after = network.submit(&ground.script("after", "echo again > out")).await;
    assert_eq!(network.over(after, WITHIN).await.summary.state, JobState::Reproduced);
    assert_eq!(jobs(&network, "fourth").await, [before, after], "the new one knows every job");
}
