//! Jobs through a coordinator and two builders, as a maintainer submits them.

use std::{
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use artel::{clock, config::Builder, submit::Wish};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{JobId, Timestamp};
use web::{
    Backend,
    api::{JobDetail, JobState},
    backend::{self, Follow, LogRequest},
};

use crate::{
    Options,
    idle::resident,
    network::{Duty, Network, Plan},
    sandbox::{self, Material},
    table::{Row, Table, percentile},
};

const SLOTS: u16 = 2;
/// Slots of both builders.
pub(crate) const AT_ONCE: usize = 2 * SLOTS as usize;
const START_MS_MAX: f64 = 60.0;
/// How long one job may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Measures and adds the rows.
pub(crate) async fn measure(
    options: &Options,
    program: &Path,
    (folder, material): (&Path, &Material),
    table: &mut Table,
) -> anyhow::Result<()> {
    let builder = || Builder { slots: SLOTS, ..Builder::default() };
    let plans = vec![
        Plan { name: "coordinator".into(), duty: Duty::Candidate, builder: None },
        Plan { name: "builder1".into(), duty: Duty::Member, builder: Some(builder()) },
        Plan { name: "builder2".into(), duty: Duty::Member, builder: Some(builder()) },
    ];
    let mut network = Network::found(folder, plans, &[])?;
    for daemon in &network.daemons[1..] {
        std::fs::create_dir_all(daemon.home.build())?;
        // Several daemons may share one folder of environments.
        symlink(&material.environments, daemon.home.build().join("environments"))?;
    }
    network.start(program).await?;
    let client = network.client();
    material.prepared.upload(&client).await?;
    let office = Office { network: &network, client, material };
    // The first jobs bring the environment's lock to the builders.
    for _ in 0..4 {
        office.start_latency().await?;
    }
    let mut latencies = Vec::new();
    for _ in 0..options.amount(60, 20) {
        latencies.push(office.start_latency().await?);
    }
    let p50 = Row::new("submit to start of a command, p50", percentile(&latencies, 50), "ms");
    table.add(p50.at_most(START_MS_MAX).beside("sandbox alone", material.sandbox_ms));
    table.add(Row::new("submit to start of a command, p95", percentile(&latencies, 95), "ms"));
    let rate = office.jobs_per_second(options.amount(100, 30)).await?;
    let peer = "attempts without network";
    table.add(Row::new("no-op jobs per second, 2 builders", rate, "/s").beside(peer, material.attempts_per_second));
    let memory = resident(network.daemons[0].pid()?)?;
    table.add(Row::new("resident memory, coordinator after these jobs", memory.all, "MiB").beside("own", memory.own));
    network.stop().await;
    Ok(())
}

/// Where jobs are submitted.
struct Office<'a> {
    network: &'a Network,
    client: web::Client,
    material: &'a Material,
}

impl Office<'_> {
    async fn submit(&self) -> anyhow::Result<JobId> {
        let wish = Wish {
            channel: self.network.channel.clone(),
            limits: sandbox::limits(),
            lifetime: Duration::from_secs(3600),
            schedule: protocol::job::Schedule::default(),
        };
        let (network, key) = (self.network.id, &self.network.maintainer);
        let request = self.material.prepared.sign(&wish, network, clock::now(), key)?;
        Ok(self.client.submit(request.to_bytes().into()).await?.job)
    }

    /// Milliseconds from before the request is signed to when the command itself read the clock.
    async fn start_latency(&self) -> anyhow::Result<f64> {
        let begun = micros();
        let job = self.submit().await?;
        let detail = self.over(job).await?;
        let attempt = detail.attempts.last().context("a job that is over had an attempt")?;
        let request = LogRequest { job, attempt: Some(attempt.number), from: 0, follow: Follow::No };
        let log = backend::collect(self.client.log(request).await?, 1 << 20).await?;
        let log = String::from_utf8_lossy(&log).into_owned();
        // The command's own line: seconds, a point, microseconds.
        let mut said = log.lines().filter(|line| !line.starts_with("[artel]"));
        let started: f64 = said.next_back().context("the command says when it started")?.trim().parse()?;
        Ok((started * 1e6 - begun) / 1000.0)
    }

    async fn over(&self, job: JobId) -> anyhow::Result<JobDetail> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let detail = self.client.job(job).await?;
            let state = detail.summary.state;
            if state == JobState::Reproduced {
                return Ok(detail);
            }
            if state.is_over() {
                bail!("a job ended as {state:?}: {}", detail.summary.why);
            }
            if Instant::now() > deadline {
                bail!("a job is not over after {PATIENCE:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Submits all at once and waits for the last one, by the coordinator's own times.
    async fn jobs_per_second(&self, count: usize) -> anyhow::Result<f64> {
        let submissions = stream::iter(0..count).map(|_| self.submit());
        let jobs: Vec<JobId> = submissions.buffer_unordered(2 * AT_ONCE).try_collect().await?;
        let (mut first, mut last): (Option<Timestamp>, Timestamp) = (None, Timestamp::ZERO);
        for job in jobs {
            let detail = self.over(job).await?;
            let accepted = detail.summary.accepted.timestamp();
            first = Some(first.map_or(accepted, |earlier| earlier.min(accepted)));
            last = last.max(detail.summary.ended.map_or(last, |time| time.timestamp()));
        }
        let took = last.since(first.context("there were jobs")?);
        Ok(count as f64 / took.as_secs_f64())
    }
}

/// The wall clock in microseconds: what is compared with the clock inside the sandbox.
fn micros() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}
