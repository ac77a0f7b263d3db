//! Routes of jobs: submit, list, show, cancel, bundle. The log is in `live`.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use protocol::JobId;

use super::{guard::Hostile, reply, routes::App};
use crate::{
    api::{ApiError, DifferenceForm, JobDetail, JobFilter, JobPage, Submitted},
    backend::{Backend, ordered_job},
};

/// Words of a query, as sent.
pub(super) type Words = Query<Vec<(String, String)>>;

pub(super) async fn list<B: Backend>(
    State(app): State<App<B>>,
    Query(words): Words,
) -> Result<Json<JobPage>, ApiError> {
    app.server.backend.jobs(JobFilter::from_words(&words)?).await.map(Json)
}

pub(super) async fn submit<B: Backend>(
    State(app): State<App<B>>,
    body: Body,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    let request = reply::small_body(body, app.server.limits).await?;
    let submitted = app.server.backend.submit(request).await?;
    Ok((StatusCode::CREATED, Json(submitted)))
}

pub(super) async fn show<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
) -> Result<Json<JobDetail>, ApiError> {
    let job: JobId = reply::word(&job)?;
    app.server.backend.job(job).await.map(Json)
}

pub(super) async fn order<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let job: JobId = reply::word(&job)?;
    let order = reply::small_body(body, app.server.limits).await?;
    if ordered_job(&order)? != job {
        return Err(ApiError::Refused { reason: "the signed order names another job than the address".to_owned() });
    }
    app.server.backend.order(order).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn bundle<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
) -> Result<Response, ApiError> {
    let job: JobId = reply::word(&job)?;
    let bytes = app.server.backend.bundle(job).await?;
    let name = format!("attachment; filename=\"{}.artel-bundle\"", job.short());
    let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, bytes).into_response())
}

/// `GET /api/v1/jobs/{id}/difference`: the comparison of an explanation, as text.
pub(super) async fn difference<B: Backend>(
    State(app): State<App<B>>,
    Path(explanation): Path<String>,
) -> Result<Response, ApiError> {
    compared(&app, &explanation, DifferenceForm::Text, "text/plain; charset=utf-8").await
}

/// `GET /api/v1/jobs/{id}/difference.html`: the same as HTML, which runs nothing and reaches nothing.
pub(super) async fn difference_page<B: Backend>(
    State(app): State<App<B>>,
    Path(explanation): Path<String>,
) -> Result<Response, ApiError> {
    compared(&app, &explanation, DifferenceForm::Html, "text/html; charset=utf-8").await
}

async fn compared<B: Backend>(
    app: &App<B>,
    explanation: &str,
    form: DifferenceForm,
    kind: &'static str,
) -> Result<Response, ApiError> {
    let explanation: JobId = reply::word(explanation)?;
    let bytes = app.server.backend.difference(explanation, form).await?;
    let mut response = ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    response.extensions_mut().insert(Hostile);
    Ok(response)
}
