//! The transparency log over HTTP: out of this node's book, or as the coordinators serve it.

use attest::log::tile::Resource;
use bytes::Bytes;
use protocol::words::RelativePath;
use web::api::ApiError;

use super::{Handle, internal};
use crate::tlog::Missing;

/// Gives what stands under a path of the log.
pub(super) async fn read(handle: &Handle, path: &RelativePath) -> Result<Bytes, ApiError> {
    let not_found = || ApiError::NotFound { what: format!("{path} of the log") };
    let resource: Resource = path.as_str().parse().map_err(|_| not_found())?;
    if resource == Resource::Checkpoint
        && let Some(seen) = handle.desk.seen_checkpoint()
    {
        return Ok(seen.to_string().into());
    }
    if let Some(decisions) = handle.desk.decisions() {
        let here = decisions.book().serve(resource).await.map_err(|e| internal("transparency log", &e))?;
        if let Some(bytes) = here {
            return Ok(bytes.into());
        }
    }
    match handle.relay.hand_on(resource, handle.caller).await {
        Ok(bytes) => Ok(bytes),
        Err(Missing::Unknown) => Err(not_found()),
        // A single coordinator has nobody to ask, and said already that it has no such thing.
        Err(Missing::Unavailable(_)) if handle.desk.decisions().is_some() && resource.is_immutable() => {
            Err(not_found())
        }
        Err(Missing::Unavailable(reason)) => Err(ApiError::Unavailable { reason }),
    }
}
