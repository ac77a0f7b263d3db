//! What a fork of the log stops, on a network that worked until then: nothing new is built, published or mirrored by nodes that know,
//! and what was verified before is served.

use std::{fs, time::Duration};

use artel::keys;
use attest::{
    log::{checkpoint::Signed, network, tree, witness},
    testing::log::Memory,
};
use harness::{Ground, Network, Plan, until};
use protocol::{
    JobId,
    job::{Prune, ServerJob},
    words::RelativePath,
};
use web::{
    Backend,
    api::{AttemptState, JobState},
    backend::ByteRange,
};

use crate::ground;

const BUILT_WITHIN: Duration = Duration::from_secs(180);
/// How soon everybody must have stopped.
const WITHIN: Duration = Duration::from_secs(60);
const FORKED: &str = "the log of this network was forked";

async fn published(network: &Network, ground: &Ground, version: &str) -> u64 {
    let job = network.submit(&ground.tiny_version(version, network.folder())).await;
    let detail = network.over(job, BUILT_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    detail.published.unwrap().generation
}

async fn generation(network: &Network, name: &str) -> u64 {
    let views = network.client(name).repositories().await.unwrap_or_default();
    views.iter().map(|view| view.generation).max().unwrap_or(0)
}

/// Shows a node another history than the one that it knows, signed by the coordinator's key.
async fn show_a_fork(network: &mut Network, name: &str) {
    let key = keys::load(&network.node("coordinator").home.node_key()).unwrap();
    let log = network::log_key(&network.id, &network.id_of("coordinator"));
    let at = network.public(name);
    let (one, other) = (Memory::sized(4000), Memory::forked(4001, 5));
    let request = |old: u64, size: u64, memory: &Memory| {
        let signed = Signed::sign(&network::origin(&network.id), memory.head(size), &key);
        let checkpoint = signed.verify(std::slice::from_ref(&log)).unwrap();
        let proof = if old == 0 { Vec::new() } else { tree::consistency(old, size, memory).unwrap() };
        witness::Request::new(old, proof, &checkpoint).to_string()
    };
    let first = at.add_checkpoint(request(0, 4000, &one).into()).await.unwrap();
    // It may have cosigned the real log before; then the first one is a fork of that.
    let known = witness::latest_size(&first.body).filter(|_| first.status == 409);
    let second = request(known.unwrap_or(4000), 4001, &other);
    let refused = at.add_checkpoint(second.into()).await.unwrap();
    assert!([403, 422].contains(&refused.status), "{first:?} {refused:?}");
}

#[tokio::test]
async fn who_knows_of_a_fork_builds_publishes_and_mirrors_nothing_and_serves_what_it_has() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) });
    network.start().await;
    let first = published(&network, &ground, "1.0").await;
    until("the mirror has followed", WITHIN, async || (generation(&network, "mirror").await == first).then_some(()))
        .await;
    network.node("mirror").kill();
    let second = published(&network, &ground, "1.1").await;
    network.node("coordinator").kill();

    // The mirror learns of two histories before it can learn of the second generation.
    network.node("mirror").start();
    network.node("mirror").up().await;
    show_a_fork(&mut network, "mirror").await;
    assert!(network.client("mirror").status().await.unwrap().conflict.is_some());
    network.node("coordinator").start();
    network.node("coordinator").up().await;
    for name in ["coordinator", "b1", "b2"] {
        let client = network.client(name);
        until(&format!("{name} knows"), WITHIN, async || client.status().await.ok()?.conflict).await;
    }
    until("the mirror refuses the second generation", WITHIN, async || {
        let log = network.node("mirror").log();
        log.lines().any(|line| line.contains("release not taken") && line.contains(FORKED)).then_some(())
    })
    .await;
    assert_eq!((generation(&network, "mirror").await, first + 1), (first, second));

    // A job is not built, and a change of the repository not published.
    let job = network.submit(&ground.script("too-late", "echo > out")).await;
    declined(&mut network, job).await;
    let prune = ServerJob::Prune(Prune { keep: 0, before: None, packages: vec!["artel-tiny".parse().unwrap()] });
    let channel = network.channel.clone();
    let pruned = network.serve(&channel, prune, &[]).await;
    let waits = (pruned, "the next generation is not published");
    network.job_until(waits, WITHIN, |detail| detail.summary.why.contains(FORKED)).await;
    assert_eq!(generation(&network, "coordinator").await, second);
    let detail = network.job(job).await;
    assert!(!detail.summary.state.is_over(), "{detail:#?}");
    assert!(detail.attempts.iter().all(|attempt| attempt.state != AttemptState::Built), "{detail:#?}");

    // What was verified before is served as it was.
    let mirror = network.public("mirror");
    let index = format!("dists/{}/InRelease", ground.lock.suite);
    for path in [index.as_str(), "pool/main/a/artel-tiny/artel-tiny_1.0_amd64.deb"] {
        let file = mirror.repository_file(channel.clone(), RelativePath::new(path).unwrap(), ByteRange::All).await;
        let served = file.unwrap().collect(16 << 20).await.unwrap();
        assert_eq!(served, fs::read(network.repository_root("mirror").join(path)).unwrap(), "{path}");
    }
}

/// Waits until the log shows that both builders were offered the job and did not take it.
async fn declined(network: &mut Network, job: JobId) {
    let builders = ["b1", "b2"].map(|name| network.id_of(name));
    let by_both = |detail: &web::api::JobDetail| {
        builders.iter().all(|builder| {
            detail.logged.iter().any(|one| one.node == *builder && one.outcome.as_deref() == Some("declined"))
        })
    };
    network.job_until((job, "both builders decline it"), WITHIN, by_both).await;
}
