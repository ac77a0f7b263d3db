//! This node as a witness, and the evidence that it has against its network's log.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{Hash, Sha256};
use web::api::{ApiError, ConflictView, DoubtView, Time, WitnessAnswer};

use super::internal;
use crate::daemon::Shared;

pub(super) async fn add_checkpoint(shared: &Arc<Shared>, request: &[u8]) -> Result<WitnessAnswer, ApiError> {
    let answer = shared.add_checkpoint(request).await.map_err(|e| internal("store", &e))?;
    let content_type = answer.content_type.to_owned();
    Ok(WitnessAnswer { status: answer.status, content_type, body: answer.body })
}

pub(super) async fn witnessed(shared: &Shared, log: Sha256) -> Result<Bytes, ApiError> {
    let checkpoint = shared.witnessed(log).await.map_err(|e| internal("store", &e))?;
    let missing = || ApiError::NotFound { what: format!("a cosigned checkpoint of log {log}") };
    checkpoint.map(Bytes::from).ok_or_else(missing)
}

/// What people see of the evidence against who may sign the log now.
pub(super) fn view(shared: &Shared) -> Option<ConflictView> {
    let (alarm, [older, newer]) = shared.alarm()?;
    let (found, evidence) = (Time::from(alarm.found), Hash::of(&alarm.conflict.to_bytes()));
    Some(ConflictView { found, sizes: [older.size, newer.size], evidence })
}

/// What people see of a checkpoint that belongs to nothing that is shown; nothing where there is evidence, which says more.
pub(super) fn doubt(shared: &Shared) -> Option<DoubtView> {
    let doubt = shared.others.sight.doubt().filter(|_| shared.alarm().is_none())?;
    Some(DoubtView { since: Time::from(doubt.since), size: doubt.checkpoint.head().size, from: doubt.from })
}

/// Gives the evidence against who may sign the log now, else the newest against former signers.
pub(super) fn conflict(shared: &Shared) -> Result<Bytes, ApiError> {
    let now = shared.alarm().map(|(alarm, _)| alarm);
    let any = now.or_else(|| shared.others.alarms.every().pop());
    let missing = || ApiError::NotFound { what: "evidence that the network's log was forked".into() };
    any.map(|alarm| alarm.conflict.to_bytes().into()).ok_or_else(missing)
}
