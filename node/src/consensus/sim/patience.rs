//! The timing for home links: a new leader within the bound that its documentation names.

use std::time::Duration;

use protocol::NodeId;

use super::{
    cluster::{Cluster, NO_LEADER_MAX},
    net::Weather,
    run,
};
use crate::consensus::Timing;

/// Groups of each size.
const GROUPS: u64 = 20;

/// Members on several continents.
fn far() -> Weather {
    Weather { delay: 50..150, ..Weather::fair() }
}

/// How long a group needs for its first leader, and for the next one after so many members crashed, its leader among them.
async fn elections(seed: u64, size: u8, crashes: usize) -> [Duration; 2] {
    let mut cluster = Cluster::new(seed, size);
    cluster.timing = Timing::default();
    cluster.net.set_weather(far());
    cluster.found().await.unwrap();
    let first = cluster.until("the first leader", NO_LEADER_MAX, |c| c.leader().is_some()).await.unwrap();
    let settled = cluster.dice.millis(2_000..12_000);
    cluster.pass(settled).await.unwrap();
    let (leader, _) = cluster.leader().unwrap();
    let others: Vec<NodeId> = cluster.voters.iter().copied().filter(|id| *id != leader).collect();
    // Those of the lowest ranks: the ones left are the slowest.
    for id in [leader].into_iter().chain(others).take(crashes) {
        cluster.crash(id);
    }
    let next = cluster.until("the next leader", NO_LEADER_MAX, |c| c.leader().is_some()).await.unwrap();
    let (_, group) = cluster.leader().unwrap();
    group.propose(1_u64.to_be_bytes().to_vec()).await.unwrap();
    cluster.close().await;
    [first, next]
}

#[test]
fn the_default_timing_elects_within_eight_seconds() {
    for (size, crashes) in [(3, 1), (5, 1), (5, 2)] {
        let mut worst = [Duration::ZERO; 2];
        for seed in 0..GROUPS {
            let took = run(elections(seed, size, crashes));
            worst = [worst[0].max(took[0]), worst[1].max(took[1])];
        }
        println!("{size} members, {crashes} crash: first leader within {:?}, the next within {:?}", worst[0], worst[1]);
        assert!(worst.iter().all(|time| *time <= NO_LEADER_MAX), "{size} members: {worst:?}");
        assert!(worst[1] >= Timing::default().patience / 2, "a leader that lives is not deposed so early: {worst:?}");
    }
}
