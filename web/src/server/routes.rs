//! The table of routes. One line per call; what a handler needs is in `App`.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use tokio_util::sync::CancellationToken;

use super::{Access, Server, clients, content, crowd, guard, jobs, live, metrics, node, recipes, witness};
use crate::{api::ApiError, backend::Backend, pages};

/// What every handler gets.
#[derive(Clone)]
pub(super) struct App<B> {
    pub(super) server: Server<B>,
    pub(super) access: Access,
    pub(super) stop: CancellationToken,
}

impl<B> App<B> {
    /// Lets only the owner pass.
    pub(super) fn owner_only(&self) -> Result<(), ApiError> {
        match self.access {
            Access::Owner => Ok(()),
            Access::Public => {
                Err(ApiError::NotAllowed { reason: "only the owner may do this, over the unix socket".to_owned() })
            }
        }
    }
}

/// Gives the routes of one listener.
pub(super) fn router<B: Backend>(app: App<B>) -> Router {
    Router::new()
        .route("/static/{name}", get(pages::asset))
        .merge(files(app.clone()))
        .merge(news(app.clone()))
        .merge(api(app.clone()))
        .merge(handed_on(app.clone()))
        .merge(rebuilder(app.clone()))
        .nest("/rebuilder/{operator}", rebuilder(app.clone()))
        .fallback(async || ApiError::NotFound { what: "this page".to_owned() })
        .layer(middleware::from_fn_with_state(app, guard::pass::<B>))
        .layer(DefaultBodyLimit::disable())
}

/// The news, of which every open page of a browser follows some.
fn news<B: Backend>(app: App<B>) -> Router {
    let crowd = app.server.crowds.news.clone();
    let news = Router::new().route("/api/v1/news", get(live::news::<B>)).with_state(app);
    news.layer(middleware::from_fn_with_state(crowd, crowd::pass))
}

/// Files, which cost no more than their bytes: apt and dnf ask for many; and whether the node lives.
fn files<B: Backend>(app: App<B>) -> Router {
    Router::new()
        .route("/healthz", get(node::health::<B>))
        .route("/api/v1/blobs/{hash}", get(content::blob::<B>))
        .route("/repo/{channel}/{*path}", get(content::repository_file::<B>))
        .with_state(app)
}

/// What every node answers by itself: of these a caller gets a few at one time, since each may be large.
fn api<B: Backend>(app: App<B>) -> Router {
    let crowd = app.server.crowds.own.clone();
    Router::new()
        .route("/api/v1/jobs/{id}/outputs", post(recipes::bring::<B>))
        .route("/api/v1/peers", get(node::peers::<B>))
        .route("/api/v1/coordination", get(node::coordination::<B>))
        .route("/api/v1/coordination/step-down", post(node::step_down::<B>))
        .route("/api/v1/coordination/transfer/{node}", post(node::transfer::<B>))
        .route("/api/v1/drain", post(node::drain::<B>))
        .route("/api/v1/resume", post(node::resume::<B>))
        .route("/api/v1/repositories", get(node::repositories::<B>))
        .route("/api/v1/blobs", post(content::put_blob::<B>))
        .route("/api/v1/rebuilder", get(clients::rebuilder::<B>))
        .route("/api/v1/metrics", get(node::figures::<B>))
        .route(super::SHUTDOWN, post(node::shutdown::<B>))
        .route("/api/v1/log/conflict", get(witness::conflict::<B>))
        .route("/witness/add-checkpoint", post(witness::add_checkpoint::<B>))
        .route("/witness/{log}/checkpoint", get(witness::checkpoint::<B>))
        .route("/metrics", get(metrics::show::<B>))
        .with_state(app)
        .layer(middleware::from_fn_with_state(crowd, crowd::pass))
}

/// What a node that does not coordinate may have to ask others for: of these a caller gets a few at one time.
fn handed_on<B: Backend>(app: App<B>) -> Router {
    let crowd = app.server.crowds.handed_on.clone();
    let pages = Router::new()
        .route("/", get(pages::overview::<B>))
        .route("/jobs/{id}", get(pages::job::<B>))
        .with_state(app.server.backend.clone());
    Router::new()
        .route("/api/v1/status", get(node::status::<B>))
        .route("/api/v1/jobs", get(jobs::list::<B>).post(jobs::submit::<B>))
        .route("/api/v1/jobs/{id}", get(jobs::show::<B>))
        .route("/api/v1/jobs/{id}/orders", post(jobs::order::<B>))
        .route("/api/v1/jobs/{id}/log", get(live::log::<B>))
        .route("/api/v1/jobs/{id}/difference", get(jobs::difference::<B>))
        .route("/api/v1/jobs/{id}/difference.html", get(jobs::difference_page::<B>))
        .route("/api/v1/jobs/{id}/bundle", get(jobs::bundle::<B>))
        .route("/api/v1/jobs/{id}/buildinfo", get(clients::buildinfo::<B>))
        .route("/api/v1/recipes", get(recipes::list::<B>).post(recipes::keep::<B>))
        .route("/api/v1/recipes/{name}", get(recipes::show::<B>))
        .route("/api/v1/recipe-runs", post(recipes::keep_run::<B>))
        .route("/api/v1/peers/{node}", get(node::peer::<B>))
        .route("/api/v1/policy", get(node::policy::<B>).post(node::adopt_policy::<B>))
        .route("/api/v1/policies", get(node::policies::<B>))
        .route("/api/v1/artifacts", get(clients::artifacts::<B>))
        .route("/api/v1/artifacts/{digest}/attestations", get(clients::attestations::<B>))
        .route("/api/v1/artifacts/{digest}/summary", get(clients::summary::<B>))
        .route("/api/v1/packages", get(clients::packages::<B>))
        .route("/log/{*path}", get(content::log_file::<B>))
        .with_state(app)
        .merge(pages)
        .layer(middleware::from_fn_with_state(crowd, crowd::pass))
}

/// What rebuilderd's clients ask, at the paths that they know; see [`handed_on`].
fn rebuilder<B: Backend>(app: App<B>) -> Router {
    let crowd = app.server.crowds.handed_on.clone();
    Router::new()
        .route("/api/v0/pkgs/list", get(clients::list::<B>))
        .route("/api/v1/builds/{build}/artifacts/{artifact}/attestation", get(clients::link::<B>))
        .route("/api/v1/meta/public-keys", get(clients::public_keys::<B>))
        .route("/api/v1/packages/binary", get(clients::binary::<B>))
        .with_state(app)
        .layer(middleware::from_fn_with_state(crowd, crowd::pass))
}
