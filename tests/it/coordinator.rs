//! The coordinator is killed in every phase of a job: it serves again soon, forgets nothing, and does nothing twice.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use harness::{Ground, Network, Plan, at_once, until};
use protocol::{Arch, JobId, words::RelativePath};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobFilter, JobState},
    backend::ByteRange,
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// A coordinator serves again so soon after its start.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Kills the coordinator, starts it again and waits until it answers.
async fn power_cut(network: &mut Network, phase: &str) {
    network.node("coordinator").kill();
    let begun = Instant::now();
    network.node("coordinator").start();
    network.node("coordinator").up().await;
    let took = begun.elapsed();
    println!("figure: killed {phase}, serving again after {:.2} s", took.as_secs_f64());
    assert!(took < BACK_WITHIN, "{took:?}");
}

async fn jobs(network: &Network) -> Vec<JobId> {
    network.coordinator().jobs(JobFilter::default()).await.unwrap().jobs.iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn a_receipt_is_a_promise_and_builds_go_on_without_a_coordinator() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let mut accepted = Vec::new();
    for round in 1..=2 {
        accepted.push(network.submit(&ground.script("short", "echo done > out")).await);
        power_cut(&mut network, &format!("after receipt {round}")).await;
        assert_eq!(jobs(&network).await.len(), accepted.len(), "it is there again");
    }
    for round in 1..=2 {
        let file = network.folder().join(format!("input-{round}"));
        fs::write(&file, vec![round; 40 << 20]).unwrap();
        let job =
            network.submit(&ground.with_input(ground.script("large", "sha256sum file > out"), "file", &file)).await;
        let client = network.coordinator();
        at_once("a builder fetches the inputs", WITHIN, async || {
            client.job(job).await.ok()?.attempts.iter().any(|a| a.started.is_none()).then_some(())
        })
        .await;
        accepted.push(job);
        power_cut(&mut network, &format!("while inputs are fetched {round}")).await;
    }
    for job in &accepted {
        let detail = network.over(*job, WITHIN).await;
        assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    }
    let long = network.submit(&ground.script("long", "echo asleep; sleep 12; echo done > out")).await;
    let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
    for round in 1..=2 {
        network.job_until((long, "two build it"), WITHIN, running).await;
        power_cut(&mut network, &format!("while building {round}")).await;
    }
    let detail = network.over(long, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    assert_eq!(detail.attempts.len(), 2, "nobody had to begin again: {detail:#?}");
    accepted.push(long);
    let mut listed = jobs(&network).await;
    listed.reverse();
    assert_eq!(listed, accepted, "in the order of their receipts");
}

/// A moment of a publication, as it can be seen from outside.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The ledger decided it.
    Decided,
    /// The packages are laid out.
    LaidOut,
    /// Indexes are written, the switch may have happened.
    Indexed,
    /// The release is signed and stored; the ledger does not know yet, or just now.
    Signed,
}

/// Waits for a moment of a job's publication and pulls the plug.
async fn cut_at(network: &mut Network, job: JobId, moment: Moment) {
    let home = network.node("coordinator").home.clone();
    let (incoming, repository) =
        (home.path().join("incoming").join(job.to_string()), home.repository(&network.channel));
    let (client, before) = (network.coordinator(), newest(&repository));
    let signed = network.node("coordinator").log().matches("release signed").count();
    let what = format!("{moment:?}");
    at_once(&what, WITHIN, async || {
        let here = match moment {
            Moment::Decided => client.job(job).await.ok()?.summary.state == JobState::Publishing,
            Moment::LaidOut => incoming.exists(),
            Moment::Indexed => newest(&repository) != before,
            Moment::Signed => network.node("coordinator").log().matches("release signed").count() > signed,
        };
        here.then_some(())
    })
    .await;
    power_cut(network, &format!("while publishing: {moment:?}")).await;
}

/// The newest change anywhere in a tree.
fn newest(folder: &Path) -> Option<std::time::SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let path = entry.path();
        let own = fs::symlink_metadata(&path).ok()?.modified().ok()?;
        Some(if path.is_dir() && !path.is_symlink() { newest(&path).map_or(own, |below| below.max(own)) } else { own })
    });
    times.max()
}

async fn index(network: &Network, ground: &Ground) -> String {
    let path = format!("dists/{}/main/binary-{}/Packages", ground.lock.suite, Arch::native().unwrap());
    let path = RelativePath::new(path).unwrap();
    let content = network.coordinator().repository_file(network.channel.clone(), path, ByteRange::All).await.unwrap();
    String::from_utf8(content.collect(1 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_publication_that_is_cut_short_happens_once() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) });
    network.start().await;
    let moments = [Moment::Decided, Moment::LaidOut, Moment::Indexed, Moment::Signed];
    for (at, moment) in moments.into_iter().enumerate() {
        let version = format!("1.{at}");
        let prepared = ground.tiny_version(&version, network.folder());
        let job = network.submit(&prepared).await;
        cut_at(&mut network, job, moment).await;
        let detail = network.over(job, WITHIN).await;
        assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
        let generation = detail.published.unwrap().generation;
        assert_eq!(generation, at as u64 + 1, "one generation for each publication, cut short at {moment:?}");
        let index = index(&network, &ground).await;
        let lines = |word: &str| index.lines().filter(|line| *line == word).count();
        assert_eq!((lines("Package: artel-tiny"), lines("Package: artel-tiny-doc")), (1, 1), "{index}");
        assert_eq!(lines(&format!("Version: {version}")), 2, "the newest alone: {index}");
    }
    assert_eq!(jobs(&network).await.len(), moments.len());
    let mirror = network.client("mirror");
    until("the mirror took the last generation", WITHIN, async || {
        let views = mirror.repositories().await.ok()?;
        views.into_iter().find(|view| view.generation == moments.len() as u64 && view.packages == 2)
    })
    .await;
}
