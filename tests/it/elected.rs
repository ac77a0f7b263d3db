//! Several coordinators: whoever leads may die at any time, and the work goes on under another.

use std::time::{Duration, Instant};

use harness::{Network, Plan, until};
use protocol::JobId;
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobFilter, JobState},
};

use crate::ground;

/// Another coordinator leads so soon after the leader was killed.
pub(crate) const ANOTHER_WITHIN: Duration = Duration::from_secs(15);
/// Members agree so soon after they can speak again.
pub(crate) const EQUAL_WITHIN: Duration = Duration::from_secs(30);
/// A job of a test takes no longer.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// The jobs that a coordinator knows, in the order in which they were accepted.
pub(crate) async fn jobs(network: &Network, name: &str) -> Vec<JobId> {
    let page = network.client(name).jobs(JobFilter::default()).await.unwrap();
    page.jobs.iter().rev().map(|job| job.id).collect()
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
