//! How long nobody serves when the leader of three coordinators is killed: from the kill until a survivor gives a receipt for a
//! job, which needs a new leader and a commit by both that are left.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use artel::{clock, keys};
use protocol::{
    Arch, NodeId,
    envelope::Signed,
    job::{BuildLimits, JobKind, JobRequest, Prune, Schedule, ServerJob},
};
use web::Backend;

use crate::{
    Options,
    network::{Duty, Network, Plan},
    table::{Row, Table, percentile},
};

const SECONDS_MAX: f64 = 15.0;
/// How long a leader may be missing before the measurement gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, program: &Path, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let plan = |number| Plan { name: format!("coordinator{number}"), duty: Duty::Candidate, builder: None };
    let mut network = Network::found(folder, (1..=3).map(plan).collect(), &[])?;
    network.start(program).await?;
    let mut seconds = Vec::new();
    for _ in 0..options.amount(20, 3) {
        seconds.push(round(&mut network, program).await?.as_secs_f64());
    }
    network.stop().await;
    let figure = |what| format!("kill -9 of the leader until another gives a receipt, {what} of {}", seconds.len());
    table.add(Row::new(figure("median"), percentile(&seconds, 50), "s").at_most(SECONDS_MAX));
    table.add(Row::new(figure("longest"), percentile(&seconds, 100), "s").at_most(SECONDS_MAX));
    Ok(())
}

/// Kills the leader, waits for a receipt, and brings the killed one back.
async fn round(network: &mut Network, program: &Path) -> anyhow::Result<Duration> {
    let leader = calm(network).await?;
    let (victim, survivor) = (leader, (leader + 1) % network.daemons.len());
    let request = Signed::sign(&no_op(network)?, Some(&network.id), &[&network.maintainer]).to_bytes();
    let client = network.daemons[survivor].client();
    network.daemons[victim].kill().await?;
    let begun = Instant::now();
    while let Err(error) = client.submit(request.clone().into()).await {
        if begun.elapsed() > PATIENCE {
            bail!("nobody serves {PATIENCE:?} after the leader was killed: {error}");
        }
        tokio::time::sleep(POLL).await;
    }
    let took = begun.elapsed();
    network.daemons[victim].start(program)?;
    Ok(took)
}

/// Waits until all follow one leader, and gives its place.
async fn calm(network: &Network) -> anyhow::Result<usize> {
    let begun = Instant::now();
    loop {
        let mut leaders: Vec<Option<NodeId>> = Vec::new();
        for daemon in &network.daemons {
            leaders.push(daemon.client().coordination().await.ok().and_then(|view| view.leader));
        }
        if let Some(leader) = leaders[0].filter(|_| leaders.iter().all(|other| *other == leaders[0])) {
            let place = network.daemons.iter().position(|daemon| daemon.node == leader);
            return place.context("the leader is one of them");
        }
        if begun.elapsed() > PATIENCE {
            bail!("the coordinators do not agree on a leader: {leaders:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A job that needs no builder.
fn no_op(network: &Network) -> anyhow::Result<JobRequest> {
    let now = clock::now();
    Ok(JobRequest {
        arch: Arch::All,
        kind: JobKind::Server(ServerJob::Prune(Prune { keep: 100, before: None, packages: Vec::new() })),
        nonce: keys::random()?[..16].to_vec(),
        limits: BuildLimits::default(),
        channel: network.channel.clone(),
        created: now,
        expires: now.after(Duration::from_secs(3600)),
        network: network.id,
        schedule: Schedule::default(),
        environment: ServerJob::environment(),
    })
}
