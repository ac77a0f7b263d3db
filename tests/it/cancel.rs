//! A cancellation reaches the copies of a job that run on nodes that nobody could reach when it was said.

use std::time::{Duration, Instant};

use harness::{Cables, Lab, Network, Plan, processes_of, until};
use web::{Backend, api::JobState};

use crate::{ground, sandbox::cancellation};

const WITHIN: Duration = Duration::from_secs(60);
/// How soon nothing of a cancelled job may run on a node that hears of it.
const CANCELLED_WITHIN: Duration = Duration::from_secs(2);
/// How soon a node finds the coordinator again: its longest pause between tries, and the try.
const MEET_WITHIN: Duration = Duration::from_secs(15);

async fn connected(network: &Network, name: &str) -> bool {
    let node = network.id_of(name);
    let peers = network.coordinator().peers().await.unwrap_or_default();
    peers.iter().any(|peer| peer.node == node && !peer.address.is_empty())
}

#[tokio::test]
async fn a_builder_that_was_away_ends_what_was_cancelled_meanwhile() {
    if let Err(why) = Lab::make() {
        assert!(std::env::var_os("ARTEL_TESTS").is_none_or(|word| word != "required"), "{why}");
        println!("SKIPPED: no network namespaces here: {why}");
        return;
    }
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { cables: Cables::Namespaces, ..Plan::builders(2) });
    network.start().await;
    let job = network.submit(&ground.script("sleeper", "echo asleep; sleep 117; echo > out")).await;
    let [away, near] = ["b1", "b2"].map(|name| network.node(name).home.build().join("attempts"));
    for folder in [&away, &near] {
        until("the build sleeps", WITHIN, async || {
            processes_of(folder).into_iter().find(|p| p.command.starts_with("sleep 117"))
        })
        .await;
    }

    let (lab, stations) = network.lab();
    lab.part(&[stations["b1"]], &[stations["coordinator"]]);
    until("the coordinator misses the builder", WITHIN, async || (!connected(&network, "b1").await).then_some(()))
        .await;
    network.coordinator().order(cancellation(&network, job, &network.maintainer)).await.unwrap();
    until("nothing of the job runs on the builder that is there", CANCELLED_WITHIN, async || {
        processes_of(&near).is_empty().then_some(())
    })
    .await;
    assert!(!processes_of(&away).is_empty(), "who heard nothing goes on, until its lease is over");
    network.lab().0.heal();
    let healed = Instant::now();
    until("the builder is back", MEET_WITHIN, async || connected(&network, "b1").await.then_some(())).await;
    let back = Instant::now();
    until("nothing of the job runs anywhere", CANCELLED_WITHIN, async || processes_of(&away).is_empty().then_some(()))
        .await;
    println!(
        "figure: a builder that was away was back after {:.2} s, and {:.2} s later nothing of the cancelled job ran",
        (back - healed).as_secs_f64(),
        back.elapsed().as_secs_f64()
    );
    assert_eq!(network.job(job).await.summary.state, JobState::Cancelled);
}
