//! Brings what a job made onto this node, for who goes on with it.

use std::time::{Duration, Instant};

use protocol::{Hash, JobId, NodeId};
use web::{
    Backend,
    api::{ApiError, FileView, JobState},
};

use super::{Handle, internal};
use crate::daemon::chain;

/// How long builders may take to hear that a job is decided, and its outputs open.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const OPEN_AGAIN: Duration = Duration::from_millis(250);
/// The most bytes of all outputs of one job that are brought.
const BRING_MAX: u64 = 4 << 30;

/// Fetches the outputs that operators agree on from those who agree, and offers them.
pub(super) async fn bring(handle: &Handle, job: JobId) -> Result<Vec<FileView>, ApiError> {
    let refused = |reason: String| Err(ApiError::Refused { reason });
    let detail = handle.job(job).await?;
    let agree = match &detail.verdict {
        Some(verdict) if matches!(detail.summary.state, JobState::Reproduced | JobState::Published) => &verdict.agree,
        Some(_) | None => return refused(format!("job {} is {}, not reproduced", job.short(), detail.summary.state)),
    };
    let agreeing = detail.attempts.iter().filter(|a| !a.outputs.is_empty() && agree.contains(&a.builder.operator));
    let from: Vec<NodeId> = agreeing.clone().map(|a| a.builder.node).filter(|n| *n != handle.shared.id).collect();
    let Some(outputs) = agreeing.map(|attempt| attempt.outputs.clone()).next() else {
        return refused(format!("the outputs of job {} are forgotten: it ended long ago", job.short()));
    };
    if outputs.iter().map(|output| output.size).fold(0, u64::saturating_add) > BRING_MAX {
        return refused(format!("the outputs of job {} have more than {} MiB", job.short(), BRING_MAX >> 20));
    }
    let blobs = &handle.shared.blobs;
    let files: Vec<(Hash, u64)> = outputs.iter().filter_map(|o| Some((o.hash?, o.size))).collect();
    let begun = Instant::now();
    while let Err(error) = blobs.fetch_many(&handle.shared.net, &files, &from).await {
        if begun.elapsed() >= OPEN_WITHIN {
            let reason = format!("the outputs of job {} cannot be fetched: {}", job.short(), chain(&error));
            return Err(ApiError::Unavailable { reason });
        }
        tokio::time::sleep(OPEN_AGAIN).await;
    }
    let hashes: Vec<Hash> = files.into_iter().map(|(hash, _)| hash).collect();
    handle.shared.offer_all(&format!("job/{job}/brought"), &hashes).await.map_err(|e| internal("blobs", &e))?;
    Ok(outputs)
}
