//! The comparison of two attempts, from the coordinator that made it, or from whoever has it.

use bytes::Bytes;
use protocol::JobId;
use web::{
    Backend,
    api::{ApiError, DifferenceForm},
};

use super::{Handle, internal};

/// Reads a comparison; one that is not here is fetched and kept as long as its job.
pub(super) async fn read(handle: &Handle, explanation: JobId, form: DifferenceForm) -> Result<Bytes, ApiError> {
    let detail = handle.job(explanation).await?;
    let known = detail.explanations.iter().find(|known| known.id == explanation);
    let missing = || ApiError::NotFound { what: format!("a comparison under {}", explanation.short()) };
    let hash = known.and_then(|known| known.hash(form)).ok_or_else(missing)?;
    let shared = &handle.shared;
    let limit = DifferenceForm::BYTES_MAX as u64;
    let from: Vec<_> = shared.net.peers().into_iter().map(|p| p.node).collect();
    let name = format!("job/{explanation}/difference-{}", hash.short());
    handle.fetch((hash, limit), &from, &name).await?;
    shared.blobs.read(&hash, limit).await.map_err(|e| internal("blobs", &e))
}
