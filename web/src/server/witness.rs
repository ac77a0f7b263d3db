//! Routes of the witness (C2SP tlog-witness), and the evidence against a log that forked.

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use protocol::Sha256;

use super::{Limits, reply, routes::App};
use crate::{api::ApiError, backend::Backend};

const TEXT: &str = "text/plain; charset=utf-8";
/// What is read of a request, in bytes: a little more than the largest that a witness takes, a note of 256 KiB and 63 hashes.
const REQUEST_MAX: usize = 272 * 1024;

/// `POST /witness/add-checkpoint`.
pub(super) async fn add_checkpoint<B: Backend>(State(app): State<App<B>>, body: Body) -> Result<Response, ApiError> {
    let limits = Limits { body_bytes: REQUEST_MAX, ..app.server.limits };
    let request = reply::small_body(body, limits).await?;
    let answer = app.server.backend.add_checkpoint(request).await?;
    let status = StatusCode::from_u16(answer.status).map_err(|_| ApiError::Internal)?;
    Ok((status, [(header::CONTENT_TYPE, answer.content_type)], answer.body).into_response())
}

/// `GET /witness/{sha256 of the origin}/checkpoint`: what monitors ask.
pub(super) async fn checkpoint<B: Backend>(
    State(app): State<App<B>>,
    Path(log): Path<String>,
) -> Result<Response, ApiError> {
    let log: Sha256 = reply::word(&log)?;
    let checkpoint = app.server.backend.witnessed(log).await?;
    Ok(([(header::CONTENT_TYPE, TEXT)], checkpoint).into_response())
}

/// `GET /api/v1/log/conflict`.
pub(super) async fn conflict<B: Backend>(State(app): State<App<B>>) -> Result<Response, ApiError> {
    let evidence = app.server.backend.conflict().await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], evidence).into_response())
}
