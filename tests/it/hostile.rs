//! Strangers' code on a whole network: each attack ends as its own job's failure, and the builders' next honest job succeeds.

use std::{fs, path::PathBuf, time::Duration};

use harness::{Network, Plan, mounts_of, processes_of, until};
use protocol::job::BuildLimits;
use web::{
    Backend,
    api::{JobDetail, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

/// Name, script, how the job ends, and a word of what is said about it.
const ATTACKS: &[(&str, &str, JobState, &str)] = &[
    ("forks", "f() { f | f & }; f; sleep 3; exit 1", JobState::Failed, "build"),
    ("fills-the-disk", "head -c 10G /dev/zero > big; echo > out", JobState::Failed, "disk"),
    ("fills-the-log", "yes \"$(head -c 1000 /dev/zero | tr '\\0' a)\"", JobState::Failed, "log"),
    ("eats-memory", "tail /dev/zero; echo > out", JobState::Failed, "build"),
    ("hangs", "sleep 86391", JobState::Failed, "time"),
    ("leaves-a-pipe", "mkfifo out", JobState::Failed, "out"),
    ("links-outside", "ln -s /etc/passwd out", JobState::Failed, "out"),
    ("outlives-itself", "setsid sleep 86392 > /dev/null 2>&1 & echo > out", JobState::Reproduced, ""),
];

fn limits() -> BuildLimits {
    BuildLimits {
        pids: 64,
        cpu_milli: 2000,
        disk_mib: 64,
        log_kib: 64,
        wall_secs: 15,
        memory_mib: 256,
        silence_secs: 15,
    }
}

fn is_over(detail: &JobDetail) -> bool {
    detail.summary.state.is_over() && detail.attempts.iter().all(|attempt| attempt.ended.is_some())
}

#[tokio::test]
async fn attacks_fail_by_themselves_and_the_next_honest_job_succeeds() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let attempts: Vec<PathBuf> = ["b1", "b2"].map(|name| network.node(name).home.build().join("attempts")).into();
    for (name, script, end, word) in ATTACKS {
        let mut wish = network.wish();
        wish.limits = limits();
        let job = network.submit_as(&ground.script(name, script), &wish).await;
        let detail = network.job_until((job, name), WITHIN, is_over).await;
        assert_eq!(detail.summary.state, *end, "{name}: {detail:#?}");
        assert!(detail.summary.why.contains(word), "{name}: {}", detail.summary.why);
        until("nothing of it is left", Duration::from_secs(10), async || {
            let clean = |folder: &PathBuf| {
                processes_of(folder).is_empty()
                    && mounts_of(folder).is_empty()
                    && fs::read_dir(folder).unwrap().next().is_none()
            };
            attempts.iter().all(clean).then_some(())
        })
        .await;
        println!(
            "figure: {name}: {:?} after {} attempts: {}",
            detail.summary.state,
            detail.attempts.len(),
            detail.summary.why
        );
    }
    let honest = network.submit(&ground.script("honest", "echo 42 > out")).await;
    let detail = network.job_until((honest, "the honest job"), WITHIN, is_over).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    for name in ["b1", "b2"] {
        let shown = network.coordinator().peer(network.id_of(name)).await.unwrap();
        let blamed = shown.breach.is_some() || shown.classes.iter().any(|class| !class.evidence.is_empty());
        assert!(!blamed, "nobody is blamed for a stranger's code: {shown:#?}");
    }
}
