//! `/metrics`: the node's figures and the server's own, as OpenMetrics text. Few, and each answers a question.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::routes::App;
use crate::{
    api::{ApiError, JobState, Metrics},
    backend::Backend,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// What the server counts over its life.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    requests: Family<RequestLabels, Counter>,
}

impl Counters {
    /// Counts one answered request. Labels come from the table of routes, so there are few of them.
    pub(super) fn count(&self, method: &Method, route: String, status: StatusCode) {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];
        let method = known.iter().find(|m| *m == method).map_or("other", Method::as_str).to_owned();
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
    }
}

/// `GET /metrics`.
pub(super) async fn show<B: Backend>(State(app): State<App<B>>) -> Result<Response, ApiError> {
    let text = encode(&app.server.backend.metrics().await?, &app.server.counters).map_err(|_| ApiError::Internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn encode(figures: &Metrics, counters: &Counters) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("artel");
    let jobs = Family::<StateLabels, Gauge>::default();
    for state in JobState::EVERY {
        let count = figures.jobs.get(state).copied().unwrap_or(0);
        jobs.get_or_create(&StateLabels { state: state.word() }).set(signed(count));
    }
    registry.register("jobs", "Jobs by state", jobs);
    gauge(&mut registry, "leases", "Leases that live now", figures.leases);
    gauge(&mut registry, "peers", "Peers connected now", figures.peers);
    gauge(&mut registry, "log_conflicts", "Whether the network's log was forked: 0 or 1", figures.log_conflicts);
    let help = "Whether nobody shows what a checkpoint of the network's log belongs to: 0 or 1";
    gauge(&mut registry, "log_doubts", help, figures.log_doubts);
    let help = "Questions of strangers that were handed on to coordinators since the node is up";
    gauge(&mut registry, "relayed", help, figures.relayed);
    let blobs = Gauge::<i64>::default();
    blobs.set(signed(figures.blob_bytes));
    registry.register_with_unit("blobs", "Size of the blob store", Unit::Bytes, blobs);
    let uptime = Gauge::<i64>::default();
    uptime.set(signed(figures.uptime_seconds));
    registry.register_with_unit("uptime", "For how long the node has been running", Unit::Seconds, uptime);
    registry.register("http_requests", "HTTP requests answered", counters.requests.clone());
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Gauge::<i64>::default();
    metric.set(signed(value));
    registry.register(name, help, metric);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
