//! Where there are several coordinators, each keeps the inputs of every accepted job: who handed a job in may have been a
//! command on the very node that dies next, and a receipt is a promise.
//!
//! Inputs are fetched beside everything else, from whoever handed the job in or builds it, and offered like one's own. Nothing
//! waits for it; builders ask every member that they are connected with.

use std::{sync::Arc, time::Duration};

use protocol::{
    Hash, JobId, NodeId,
    environment::EnvironmentLock,
    job::{JobKind, JobRequest},
    limits,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{Decisions, Shared, chain, replica::Replica, views};
use crate::clock;

/// How often all open jobs are looked at; fresh ones are looked at once.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Jobs whose inputs are fetched at one time.
const AT_ONCE: usize = 2;

/// Keeps inputs.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    decisions: Decisions,
    replica: Arc<Replica>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, decisions: Decisions, replica: Arc<Replica>) -> Self {
        Self { shared, decisions, replica }
    }

    /// Keeps inputs until stopped. It may be dropped at any time.
    pub(super) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut applied = this.replica.applied();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut tasks = JoinSet::new();
        loop {
            let jobs = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                changed = applied.changed(), if tasks.len() < AT_ONCE => match changed {
                    Ok(()) => this.replica.fresh(),
                    Err(_) => break,
                },
                _ = look.tick(), if tasks.is_empty() => this.open().await,
            };
            if !jobs.is_empty() && this.shared.policies().current().coordinators.candidates().len() > 1 {
                tasks.spawn(Arc::clone(&this).keep_all(jobs));
            }
        }
        tasks.shutdown().await;
    }

    async fn open(&self) -> Vec<JobId> {
        let now = clock::now();
        let open = self.decisions.view(move |ledger| ledger.open_jobs(now)).await.unwrap_or_default();
        open.into_iter().map(|announcement| announcement.job).collect()
    }

    async fn keep_all(self: Arc<Self>, jobs: Vec<JobId>) {
        for job in jobs {
            if self.shared.offers.has(&inputs_of(&job)) {
                continue;
            }
            match self.keep(job).await {
                Ok(0) => {}
                Ok(files) => info!(%job, files, "inputs kept"),
                Err(why) => debug!(%job, %why, "inputs not kept yet"),
            }
        }
    }

    /// Fetches and offers one job's inputs. Gives how many files they are.
    async fn keep(&self, job: JobId) -> Result<usize, String> {
        let look = move |ledger: &ledger::Ledger| {
            let over = ledger.job(job).is_none_or(|view| view.times.ended.is_some());
            let request = ledger.request(job).filter(|_| !over).map(|r| r.get().clone());
            (request, views::builders_with_inputs(ledger, &job))
        };
        let Some((Some(request), builders)) = self.decisions.view(look).await else { return Ok(0) };
        let mut from: Vec<NodeId> = self.replica.providers(&job);
        from.extend(builders);
        from.extend(self.shared.policies().current().coordinators.candidates());
        from.sort();
        from.dedup();
        from.retain(|node| *node != self.shared.id);
        let (net, blobs) = (&self.shared.net, &self.shared.blobs);
        let lock_max = limits::LOCK_MAX as u64;
        let mut files = input_files(&request);
        for id in request.locks() {
            blobs.fetch(net, &id, &from, lock_max).await.map_err(|e| chain(&e))?;
            let lock = blobs.read(&id, lock_max).await.map_err(|e| chain(&e))?;
            let lock = EnvironmentLock::from_bytes(&lock).map_err(|e| e.to_string())?;
            files.extend(lock.packages.iter().map(|p| (p.hash, p.size)));
        }
        blobs.fetch_many(net, &files, &from).await.map_err(|e| chain(&e))?;
        let mut hashes: Vec<Hash> = files.into_iter().map(|(hash, _)| hash).collect();
        hashes.push(request.environment);
        self.shared.offer_all(&inputs_of(&job), &hashes).await.map_err(|e| chain(&e))?;
        Ok(hashes.len())
    }
}

/// The name of the offer of a job's inputs.
fn inputs_of(job: &JobId) -> String {
    format!("job/{job}/inputs")
}

fn input_files(request: &JobRequest) -> Vec<(Hash, u64)> {
    match &request.kind {
        JobKind::Deb(deb) => deb.files.iter().map(|f| (f.hash, f.size)).collect(),
        JobKind::Rpm(rpm) => rpm.files.iter().map(|f| (f.hash, f.size)).collect(),
        JobKind::Command(command) => command.inputs.iter().map(|f| (f.hash, f.size)).collect(),
        JobKind::Image(image) => image.inputs().map(|(hash, size, _)| (hash, size)).collect(),
        JobKind::Server(_) | JobKind::Fetch(_) => Vec::new(),
    }
}
