//! Three coordinators, one of which leads: who is asked does not matter, and who dies does not either.

use std::time::{Duration, Instant};

use harness::{Network, Plan, until};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// Another coordinator leads so soon after the leader died.
const LED_WITHIN: Duration = Duration::from_secs(15);
/// A coordinator that comes back has caught up within this time.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_job_outlives_the_coordinator_that_accepted_it() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { coordinators: 3, ..Plan::builders(2) });
    network.start().await;
    let leader = network.led(LED_WITHIN, &[]).await;
    let names: Vec<String> = network.candidates().to_vec();
    let follower = names.iter().find(|name| **name != leader).unwrap().clone();
    network.ask_at(&follower);
    let job = network.submit(&ground.script("short", "echo done > out")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "submitted to a follower: {detail:#?}");

    let job = network.submit(&ground.script("long", "echo asleep; sleep 12; echo done > out")).await;
    let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
    network.job_until((job, "two build it"), WITHIN, running).await;
    let begun = Instant::now();
    network.node(&leader).kill();
    let next = network.led(LED_WITHIN, &[&leader]).await;
    println!("figure: another coordinator leads after {:.2} s", begun.elapsed().as_secs_f64());
    network.ask_at(&next);
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    assert_eq!(detail.attempts.len(), 2, "nobody had to begin again: {detail:#?}");

    network.node(&leader).start();
    network.node(&leader).up().await;
    until("the ledgers are equal", EQUAL_WITHIN, async || {
        let mut digests = Vec::new();
        for name in &names {
            let view = network.client(name).coordination().await.ok()?;
            let id = network.id_of(name);
            digests.push(view.members.iter().find(|m| m.node == id)?.ledger?);
        }
        digests.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}
