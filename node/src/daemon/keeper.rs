//! The keeper: lets go of what finished jobs no longer need, so that the blob store's sweep can remove it.
//!
//! Inputs of a job are offered while it is open, and a little longer; outputs and logs that no release holds are kept for a
//! week. What a release holds is offered by the release.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    ChannelName, JobId,
    message::{Request, Response},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use web::api::JobDetail;

use super::{Shared, chain};
use crate::{clock, serve::Desk};

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How long inputs stay after the job is over: a late builder may still fetch them.
const INPUTS_STAY: Duration = Duration::from_secs(600);
/// How long everything else of a job stays.
const REST_STAYS: Duration = Duration::from_secs(7 * 86_400);

/// Looks now and then until stopped.
pub(super) async fn run(shared: Arc<Shared>, desk: Desk, stop: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        if let Err(error) = pass(&shared, &desk).await {
            warn!(error = %chain(&error), "offers not looked through");
        }
    }
}

async fn pass(shared: &Shared, desk: &Desk) -> Result<(), crate::blobs::Error> {
    let mut jobs: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
    for name in shared.blobs.pin_names("offer/job/").await? {
        let id = name.strip_prefix("offer/job/").and_then(|rest| rest.split('/').next()?.parse().ok());
        if let Some(id) = id {
            jobs.entry(id).or_default().push(name);
        }
    }
    for (job, names) in jobs {
        let Some(over_for) = over_for(desk, job).await else { continue };
        if over_for > REST_STAYS {
            shared.withdraw(&format!("job/{job}/")).await?;
        } else if over_for > INPUTS_STAY && names.iter().any(|name| name.ends_with("/inputs")) {
            shared.withdraw(&format!("job/{job}/inputs")).await?;
            info!(%job, "inputs of a finished job let go");
        }
    }
    Ok(())
}

/// Gives for how long a job has been over; none when it is not, or nobody can say.
async fn over_for(desk: &Desk, job: JobId) -> Option<Duration> {
    match desk.ask_coordinator(Request::View(format!("job/{job}"))).await {
        Ok(Response::View(json)) => {
            let detail: JobDetail = serde_json::from_slice(&json.0).ok()?;
            Some(clock::now().since(detail.summary.ended?.timestamp()))
        }
        Ok(other) => {
            debug!(%job, ?other, "the coordinator does not say whether a job is over");
            None
        }
        Err(_) => None,
    }
}

impl Shared {
    /// Offers the files of a release.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offer_release(
        &self,
        channel: &ChannelName,
        generation: u64,
        hashes: &[protocol::Hash],
    ) -> Result<(), crate::blobs::Error> {
        self.offer_all(&format!("release/{channel}/{generation}/files"), hashes).await
    }

    /// Withdraws every release of a channel below a generation.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn withdraw_releases_below(
        &self,
        channel: &ChannelName,
        generation: u64,
    ) -> Result<(), crate::blobs::Error> {
        let prefix = format!("offer/release/{channel}/");
        for name in self.blobs.pin_names(&prefix).await? {
            let number = name.strip_prefix(&prefix).and_then(|rest| rest.split('/').next()?.parse::<u64>().ok());
            if let Some(number) = number.filter(|number| *number < generation) {
                self.withdraw(&format!("release/{channel}/{number}/")).await?;
            }
        }
        Ok(())
    }
}
