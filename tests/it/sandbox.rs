//! What a build is allowed to be, seen from outside while it runs, and how it ends when its job is cancelled.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use artel::{clock, keys};
use ed25519_dalek::SigningKey;
use harness::{Ground, Network, Plan, Process, mounts_of, processes_of, until};
use protocol::{
    JobId,
    envelope::Signed,
    job::{Change, Order},
};
use web::{
    Backend,
    api::{ApiError, JobDetail, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(60);
/// How soon after a cancellation nothing of the job may run.
pub(crate) const CANCELLED_WITHIN: Duration = Duration::from_secs(2);

/// A busy machine may keep one cancellation from being so quick, and not each of so many.
pub(crate) const CANCELLED_MAX: u32 = 3;

pub(crate) fn cancellation(network: &Network, job: JobId, key: &SigningKey) -> bytes::Bytes {
    let request = Order { at: clock::now(), job, what: Change::Cancel, reason: "no longer wanted".into() };
    Signed::sign(&request, Some(&network.id), &[key]).to_bytes().into()
}

#[tokio::test]
async fn builds_are_never_root_and_end_when_the_maintainer_says_so() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let attempts = ["b1", "b2"].map(|name| network.node(name).home.build().join("attempts"));
    let (mut job, sleepers) = asleep(&network, &ground, &attempts).await;
    for (folder, sleeper) in attempts.iter().zip(sleepers) {
        let all = processes_of(folder);
        assert!(all.len() > 1, "the build and what holds it: {all:?}");
        assert!(!sleeper.users.is_empty() && !sleeper.ranges.is_empty(), "{sleeper:?}");
        for process in all {
            assert!(process.users.iter().all(|user| *user != 0), "runs as root: {process:?}");
            assert!(
                process.ranges.iter().all(|first| *first != 0),
                "its namespace has the machine's root: {process:?}"
            );
        }
        assert_eq!(mounts_of(folder), Vec::<String>::new(), "mounts are the sandbox's own");
    }

    let stranger = keys::generate().unwrap();
    let refused = network.coordinator().order(cancellation(&network, job, &stranger)).await.unwrap_err();
    assert!(matches!(refused, ApiError::NotAllowed { .. }), "{refused}");
    let detail = network.job(job).await;
    assert_eq!(detail.summary.state, JobState::Building, "a stranger's word changes nothing");

    for cancelled in 1..=CANCELLED_MAX {
        let took = cancelled_after(&network, job, &attempts).await;
        println!("figure: a cancelled job's processes are gone after {:.2} s", took.as_secs_f64());
        if took <= CANCELLED_WITHIN {
            return;
        }
        assert!(cancelled < CANCELLED_MAX, "gone after {took:?}");
        job = asleep(&network, &ground, &attempts).await.0;
    }
}

/// Submits a job that sleeps and waits until it does on each builder; gives it, and who sleeps.
pub(crate) async fn asleep(network: &Network, ground: &Ground, attempts: &[PathBuf]) -> (JobId, Vec<Process>) {
    let job = network.submit(&ground.script("sleeper", "echo asleep; sleep 117; echo > out")).await;
    let mut sleepers = Vec::new();
    for folder in attempts {
        let sleeper = until("the build sleeps", WITHIN, async || {
            processes_of(folder).into_iter().find(|p| p.command.starts_with("sleep 117"))
        });
        sleepers.push(sleeper.await);
    }
    (job, sleepers)
}

/// Cancels a job that sleeps and waits until nothing of it is left; gives for how long something ran.
async fn cancelled_after(network: &Network, job: JobId, attempts: &[PathBuf]) -> Duration {
    let begun = Instant::now();
    network.coordinator().order(cancellation(network, job, &network.maintainer)).await.unwrap();
    until("nothing of the job runs", WITHIN, async || {
        attempts.iter().all(|folder| processes_of(folder).is_empty()).then_some(())
    })
    .await;
    let took = begun.elapsed();
    let over = |d: &JobDetail| d.attempts.iter().all(|a| a.ended.is_some());
    let detail = network.job_until((job, "both attempts are over"), WITHIN, over).await;
    assert_eq!(detail.summary.state, JobState::Cancelled);
    assert!(detail.attempts.iter().all(|a| a.outputs.is_empty()), "{detail:#?}");
    until("the attempts' folders are gone", WITHIN, async || {
        let empty = |folder: &PathBuf| std::fs::read_dir(folder).unwrap().next().is_none();
        attempts.iter().all(empty).then_some(())
    })
    .await;
    took
}
