//! Ends the offers of jobs that are over, so that inputs, outputs and logs do not fill the blob store for ever.
//!
//! The coordinator is asked now and then; a job that ended a day ago by its word is let go, as is one that it does not know. What
//! is still sealed of a job that is decided is opened: its builder may have been away when it was told. Nothing is deleted here:
//! without an offer the content has no pin, and the store's next sweep takes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ledger::KEPT_AFTER_END;
use protocol::{
    JobId,
    message::{Refusal, Request, Response},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use web::api::JobDetail;

use super::Shared;
use crate::serve::Desk;

/// How often the coordinator is asked.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// How often it is asked about jobs whose outputs are sealed here.
const SEALED_EVERY: Duration = Duration::from_secs(60);
/// How many looks in a row must find a job unknown: what is offered for one that is on its way to the coordinator stays.
const LOOKS: u32 = 2;

/// Lets offers go until stopped. It may be dropped at any time.
pub(super) async fn run(shared: Arc<Shared>, desk: Desk, stop: CancellationToken) {
    let mut unknown: BTreeMap<JobId, u32> = BTreeMap::new();
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
            let looks = unknown.get(&job).copied().unwrap_or(0);
            match look_at(&desk, job).await {
                // People read logs, mirrors and builders finish, and whoever may retry the job does so until then.
                Some(Known::Ended { ago, .. }) if ago >= KEPT_AFTER_END => let_go(&shared, job).await,
                Some(Known::Ended { .. } | Known::Open { .. }) => {}
                Some(Known::Not) if looks + 1 >= LOOKS => let_go(&shared, job).await,
                Some(Known::Not) => drop(still.insert(job, looks + 1)),
                // Nobody can say; what was counted stays.
                None => drop(still.insert(job, looks)),
            }
        }
        unknown = still;
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
        match look_at(desk, job).await {
            Some(Known::Ended { decided: true, .. } | Known::Open { decided: true }) => {}
            Some(Known::Ended { .. } | Known::Open { .. } | Known::Not) | None => continue,
        }
        match shared.disclose(&job).await {
            Ok(()) => info!(%job, "outputs of a decided job opened"),
            Err(error) => warn!(%job, %error, "outputs of a decided job not opened"),
        }
    }
}

/// What the coordinator says of a job.
enum Known {
    /// It goes on.
    Open { decided: bool },
    /// It ended so long ago.
    Ended { decided: bool, ago: Duration },
    /// Nothing: it was never accepted, or is forgotten.
    Not,
}

async fn look_at(desk: &Desk, job: JobId) -> Option<Known> {
    match desk.ask_coordinator(Request::View(format!("job/{job}"))).await {
        Ok(Response::View(json)) => {
            let detail: JobDetail = serde_json::from_slice(&json.0).ok()?;
            let (decided, ended) = (detail.verdict.is_some(), detail.summary.ended);
            // Both times are of the coordinator's clock.
            let ago = ended.map(|ended| detail.at.timestamp().since(ended.timestamp()));
            Some(ago.map_or(Known::Open { decided }, |ago| Known::Ended { decided, ago }))
        }
        Ok(Response::Refused(Refusal::Unknown(_))) => Some(Known::Not),
        Ok(_) => None,
        Err(error) => {
            debug!(%job, %error, "the coordinator cannot be asked whether a job is over");
            None
        }
    }
}
