//! Has this node drain, or take jobs again, and tells the network.

use std::sync::Arc;

use ledger::Duty;
use web::api::{ApiError, DutyView};

use super::internal;
use crate::{daemon::Shared, serve::Desk};

/// Notes the duty durably, then tells the card, by which the coordinator learns of it at once.
pub(super) async fn set(shared: &Arc<Shared>, desk: &Desk, duty: Duty) -> Result<DutyView, ApiError> {
    let Some(worker) = desk.worker() else {
        return Err(ApiError::Refused { reason: "this node is no builder: it takes no jobs in any case".into() });
    };
    let worker = Arc::clone(worker);
    let noting = Arc::clone(&worker);
    let noted = tokio::task::spawn_blocking(move || noting.set_duty(duty)).await;
    noted.map_err(|e| internal("duty", &e))?.map_err(|e| internal("duty", &e))?;
    shared.tell_card(desk).await;
    Ok(DutyView { draining: worker.draining(), running: worker.running() as u64 })
}
