//! The pages: rendered here, readable without a script, each with a link to its JSON.
//!
//! A state is a word, a shape and a colour. The one script only fetches the page again when something happened.

mod job;
mod overview;
mod phrase;

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    response::{Html, IntoResponse, Response},
};
use futures::future;
use http::{StatusCode, header};
use protocol::JobId;

use crate::{
    api::{ApiError, AttemptView, JobFilter, JobPage},
    backend::{Backend, ByteRange},
};

/// Bytes of the end of a failed attempt's log that its page shows.
const LOG_TAIL_BYTES: u64 = 8 * 1024;
/// Attempts whose log's end is shown.
const LOG_TAILS_MAX: usize = 6;

/// The style sheet and the script, as compiled in.
const ASSETS: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../static/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../static/icon.svg")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("../static/live.js")),
];

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    title: String,
    error: String,
    hint: &'static str,
}

/// A page that says what went wrong and what to do.
pub(crate) struct PageError(ApiError);

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        match (ErrorPage { title, error: self.0.to_string(), hint: self.0.hint() }).render() {
            Ok(html) => (status, Html(html)).into_response(),
            Err(_) => self.0.into_response(),
        }
    }
}

fn html(page: &impl Template) -> Result<Html<String>, PageError> {
    page.render().map(Html).map_err(|error| {
        tracing::error!(%error, "rendering a page failed");
        PageError(ApiError::Internal)
    })
}

/// `GET /`.
pub(crate) async fn overview<B: Backend>(
    State(backend): State<B>,
    Query(words): Query<Vec<(String, String)>>,
) -> Result<Html<String>, PageError> {
    let mut filter = JobFilter::from_words(&words)?;
    filter.limit.get_or_insert(overview::JOBS);
    let (status, page, peers) = future::join3(backend.status(), backend.jobs(filter.clone()), backend.peers()).await;
    let (status, peers) = (status?, peers?);
    let page = match page {
        // Who says that the log was forked, or is in doubt, must be heard though the coordinator tells this node nothing any more.
        Err(_) if status.conflict.is_some() || status.doubt.is_some() => JobPage { jobs: Vec::new(), next: None },
        page => page?,
    };
    html(&overview::Page::new(status, page, peers, &filter))
}

/// `GET /jobs/{id}`.
pub(crate) async fn job<B: Backend>(
    State(backend): State<B>,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let id: JobId = id.parse().map_err(|_| ApiError::NotFound { what: "a job with such an id".to_owned() })?;
    let (detail, status) = future::try_join(backend.job(id), backend.status()).await?;
    let failed = detail.attempts.iter().filter(|a| a.failure.is_some()).take(LOG_TAILS_MAX);
    let tails = future::join_all(failed.map(|attempt| log_tail(&backend, attempt))).await;
    html(&job::Page::new(detail, &status, tails.into_iter().flatten().collect()))
}

/// Reads the end of a finished log; a log that this node does not hold is only not shown.
async fn log_tail<B: Backend>(backend: &B, attempt: &AttemptView) -> Option<job::Tail> {
    let content = backend.blob(attempt.log?, ByteRange::Last(LOG_TAIL_BYTES)).await.ok()?;
    let limit = usize::try_from(LOG_TAIL_BYTES).ok()?;
    let cut = content.span.start > 0;
    let bytes = content.collect(limit).await.ok()?;
    let text = phrase::plain(&String::from_utf8_lossy(&bytes));
    let text = if cut { text.split_once('\n').map_or(text.as_str(), |(_, rest)| rest).to_owned() } else { text };
    Some(job::Tail { attempt: attempt.number, operator: attempt.builder.operator.to_string(), text })
}

/// `GET /static/{name}`.
pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, kind, text)) = ASSETS.iter().find(|(known, _, _)| *known == name) else {
        return ApiError::NotFound { what: "this file".to_owned() }.into_response();
    };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "public, max-age=300")], *text).into_response()
}
