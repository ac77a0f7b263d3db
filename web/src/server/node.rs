//! Routes of the node and its network: status, peers, policy, repositories, shutdown.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

use super::{reply, routes::App};
use crate::{
    api::{
        ApiError, Coordination, DrainRequest, DutyView, Metrics, PeerDetail, PeerView, PolicyHistory, PolicyView,
        RepositoryView, Status,
    },
    backend::Backend,
};

/// The type of signed envelopes and other canonical bytes.
const BYTES: &str = "application/octet-stream";

pub(super) async fn status<B: Backend>(State(app): State<App<B>>) -> Result<Json<Status>, ApiError> {
    app.server.backend.status().await.map(Json)
}

pub(super) async fn peers<B: Backend>(State(app): State<App<B>>) -> Result<Json<Vec<PeerView>>, ApiError> {
    app.server.backend.peers().await.map(Json)
}

pub(super) async fn peer<B: Backend>(
    State(app): State<App<B>>,
    Path(node): Path<protocol::NodeId>,
) -> Result<Json<PeerDetail>, ApiError> {
    app.server.backend.peer(node).await.map(Json)
}

pub(super) async fn repositories<B: Backend>(State(app): State<App<B>>) -> Result<Json<Vec<RepositoryView>>, ApiError> {
    app.server.backend.repositories().await.map(Json)
}

pub(super) async fn figures<B: Backend>(State(app): State<App<B>>) -> Result<Json<Metrics>, ApiError> {
    app.server.backend.metrics().await.map(Json)
}

pub(super) async fn policy<B: Backend>(State(app): State<App<B>>) -> Result<Response, ApiError> {
    let bytes = app.server.backend.policy().await?;
    Ok(([(header::CONTENT_TYPE, BYTES)], bytes).into_response())
}

pub(super) async fn policies<B: Backend>(State(app): State<App<B>>) -> Result<Json<PolicyHistory>, ApiError> {
    app.server.backend.policies().await.map(Json)
}

pub(super) async fn adopt_policy<B: Backend>(
    State(app): State<App<B>>,
    body: Body,
) -> Result<Json<PolicyView>, ApiError> {
    let bytes = reply::small_body(body, app.server.limits).await?;
    app.server.backend.adopt_policy(bytes).await.map(Json)
}

pub(super) async fn coordination<B: Backend>(State(app): State<App<B>>) -> Result<Json<Coordination>, ApiError> {
    app.server.backend.coordination().await.map(Json)
}

pub(super) async fn step_down<B: Backend>(State(app): State<App<B>>) -> Result<Json<Coordination>, ApiError> {
    app.owner_only()?;
    app.server.backend.step_down().await.map(Json)
}

pub(super) async fn transfer<B: Backend>(
    State(app): State<App<B>>,
    Path(node): Path<String>,
) -> Result<Json<Coordination>, ApiError> {
    app.owner_only()?;
    let node = node.parse().map_err(|_| ApiError::Refused { reason: format!("{node:?} is no node id") })?;
    app.server.backend.transfer(node).await.map(Json)
}

pub(super) async fn drain<B: Backend>(State(app): State<App<B>>, body: Body) -> Result<Json<DutyView>, ApiError> {
    app.owner_only()?;
    let bytes = reply::small_body(body, app.server.limits).await?;
    let asked: DrainRequest = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::Refused { reason: format!("not the JSON of a reason: {error}") })?;
    asked.check()?;
    app.server.backend.drain(asked.reason).await.map(Json)
}

pub(super) async fn resume<B: Backend>(State(app): State<App<B>>) -> Result<Json<DutyView>, ApiError> {
    app.owner_only()?;
    app.server.backend.resume().await.map(Json)
}

pub(super) async fn shutdown<B: Backend>(State(app): State<App<B>>) -> Result<StatusCode, ApiError> {
    app.owner_only()?;
    app.server.backend.shutdown().await?;
    Ok(StatusCode::ACCEPTED)
}

/// Healthy means: the backend answers, of what it knows by itself.
pub(super) async fn health<B: Backend>(State(app): State<App<B>>) -> Result<&'static str, ApiError> {
    app.server.backend.metrics().await.map(|_| "ok\n")
}
