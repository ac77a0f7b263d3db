//! Routes of recipes, and of what a job made for those who go on with it.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use http::StatusCode;
use protocol::{JobId, words::RecipeName};

use super::{reply, routes::App};
use crate::{
    api::{ApiError, FileView, RecipeView},
    backend::Backend,
};

pub(super) async fn list<B: Backend>(State(app): State<App<B>>) -> Result<Json<Vec<RecipeView>>, ApiError> {
    app.server.backend.recipes().await.map(Json)
}

pub(super) async fn show<B: Backend>(
    State(app): State<App<B>>,
    Path(name): Path<String>,
) -> Result<Json<RecipeView>, ApiError> {
    let name: RecipeName = reply::word(&name)?;
    app.server.backend.recipe(name).await.map(Json)
}

pub(super) async fn keep<B: Backend>(State(app): State<App<B>>, body: Body) -> Result<StatusCode, ApiError> {
    let recipe = reply::small_body(body, app.server.limits).await?;
    app.server.backend.keep_recipe(recipe).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn keep_run<B: Backend>(State(app): State<App<B>>, body: Body) -> Result<StatusCode, ApiError> {
    let run = reply::small_body(body, app.server.limits).await?;
    app.server.backend.keep_run(run).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn bring<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
) -> Result<Json<Vec<FileView>>, ApiError> {
    app.owner_only()?;
    let job: JobId = reply::word(&job)?;
    app.server.backend.bring(job).await.map(Json)
}
