//! A cancellation reaches the copies of a job that run on nodes that nobody could reach when it was said.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{Cables, Lab, Network, Plan, processes_of, until};
use protocol::JobId;
use web::{Backend, api::JobState};

use crate::{
    ground,
    sandbox::{CANCELLED_MAX, CANCELLED_WITHIN, asleep, cancellation},
};

const WITHIN: Duration = Duration::from_secs(60);
/// How long what is cancelled is waited for: less than a lease, which would end it, too.
const GONE_WITHIN: Duration = Duration::from_secs(15);
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
    let attempts = ["b1", "b2"].map(|name| network.node(name).home.build().join("attempts"));
    for cancelled in 1..=CANCELLED_MAX {
        let (job, _) = asleep(&network, &ground, &attempts).await;
        let took = cancelled_while_away(&network, job, &attempts).await;
        if took <= CANCELLED_WITHIN {
            return;
        }
        assert!(cancelled < CANCELLED_MAX, "something ran for {took:?}");
    }
}

/// Cancels a job while the first of its two builders is away; gives the longer of the times for which something of it ran on the
/// builder that was there, and on the other after it was back.
async fn cancelled_while_away(network: &Network, job: JobId, [away, near]: &[PathBuf; 2]) -> Duration {
    let (lab, stations) = network.lab();
    lab.part(&[stations["b1"]], &[stations["coordinator"]]);
    until("the coordinator misses the builder", WITHIN, async || (!connected(network, "b1").await).then_some(())).await;
    let ordered = Instant::now();
    network.coordinator().order(cancellation(network, job, &network.maintainer)).await.unwrap();
    until("nothing of the job runs on the builder that is there", GONE_WITHIN, async || {
        processes_of(near).is_empty().then_some(())
    })
    .await;
    let there = ordered.elapsed();
    assert!(!processes_of(away).is_empty(), "who heard nothing goes on, until its lease is over");
    network.lab().0.heal();
    let healed = Instant::now();
    until("the builder is back", MEET_WITHIN, async || connected(network, "b1").await.then_some(())).await;
    let back = Instant::now();
    until("nothing of the job runs anywhere", GONE_WITHIN, async || processes_of(away).is_empty().then_some(())).await;
    let returned = back.elapsed();
    println!(
        "figure: a builder that was away was back after {:.2} s, and {:.2} s later nothing of the cancelled job ran",
        (back - healed).as_secs_f64(),
        returned.as_secs_f64()
    );
    assert_eq!(network.job(job).await.summary.state, JobState::Cancelled);
    there.max(returned)
}
