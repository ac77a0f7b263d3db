//! Ends the offers of jobs that are over, so that inputs, outputs and logs do not fill the blob store for ever.
//!
//! The coordinator is asked now and then; a job that it called over (or unknown) for a day is let go. What is still sealed of a
//! job that is decided is opened: its builder may have been away when it was told. Nothing is deleted
//! here: without an offer the content has no pin, and the store's next sweep takes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    JobId,
    message::{Refusal, Request, Response},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use web::api::{JobDetail, VerdictView};

use super::Shared;
use crate::serve::Desk;

/// How often the coordinator is asked.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// How often it is asked about jobs whose outputs are sealed here.
const SEALED_EVERY: Duration = Duration::from_secs(60);
/// How many looks in a row must find a job over: a day for people to read logs, and for mirrors and builders to finish.
const LOOKS: u32 = 24;

/// Lets offers go until stopped. It may be dropped at any time.
pub(super) async fn run(shared: Arc<Shared>, desk: Desk, stop: CancellationToken) {
    let mut over: BTreeMap<JobId, u32> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut sealed = tokio::time::interval(SEALED_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = look.tick() => {}
            _ = sealed.tick() => {
                open_decided(&shared, &desk).await;
                continue;
            }
        }
        let mut still = BTreeMap::new();
        for job in shared.offers.jobs() {
            let looks = over.get(&job).copied().unwrap_or(0);
            match look_at(&desk, job).await.map(|known| known.over) {
                Some(true) if looks + 1 >= LOOKS => let_go(&shared, job).await,
                Some(true) => drop(still.insert(job, looks + 1)),
                Some(false) => {}
                // Nobody knows; what was counted stays.
                None => drop(still.insert(job, looks)),
            }
        }
        over = still;
    }
}

async fn let_go(shared: &Shared, job: JobId) {
    match shared.withdraw_job(&job).await {
        Ok(()) => info!(%job, "offers of an ended job withdrawn"),
        Err(error) => warn!(%job, %error, "offers of an ended job not withdrawn"),
    }
}

/// Opens what is sealed of jobs that are decided.
async fn open_decided(shared: &Shared, desk: &Desk) {
    for job in shared.offers.sealed_jobs() {
        if look_at(desk, job).await.is_none_or(|known| known.verdict.is_none()) {
            continue;
        }
        match shared.disclose(&job).await {
            Ok(()) => info!(%job, "outputs of a decided job opened"),
            Err(error) => warn!(%job, %error, "outputs of a decided job not opened"),
        }
    }
}

/// What the coordinator says of a job.
struct Known {
    over: bool,
    verdict: Option<VerdictView>,
}

/// Asks the coordinator; a job that it does not know is over as well.
async fn look_at(desk: &Desk, job: JobId) -> Option<Known> {
    match desk.ask_coordinator(Request::View(format!("job/{job}"))).await {
        Ok(Response::View(json)) => {
            let detail: JobDetail = serde_json::from_slice(&json.0).ok()?;
            Some(Known { over: detail.summary.state.is_over(), verdict: detail.verdict })
        }
        Ok(Response::Refused(Refusal::Unknown(_))) => Some(Known { over: true, verdict: None }),
        Ok(_) => None,
        Err(error) => {
            debug!(%job, %error, "the coordinator cannot be asked whether a job is over");
            None
        }
    }
}
