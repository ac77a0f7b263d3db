//! What clients ask that others wrote for rebuilders: repro-threshold, debian-repro-status. Their questions, their words,
//! their JSON; beside them the same for programs of our own.
//!
//! Below `/rebuilder/{operator}` a node speaks as one operator: its keys, its signatures. Without that prefix it gives the
//! keys of its own operator, and everybody's signatures in one document, of which a client believes those whose keys it has.
//! Only what k operators reproduced is found here.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, RawPathParams, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};
use http::header;
use protocol::{JobId, OperatorName, Sha256};
use serde_json::{Value, json};

use super::{guard::Hostile, jobs::Words, reply, routes::App};
use crate::{
    api::{ApiError, ArtifactQuery, ArtifactView, Numbers, PackagePage, PackageView, RebuilderView, VerdictWord},
    backend::Backend,
};

/// Attestations of one file, one envelope a line.
const BUNDLE_TYPE: &str = "application/vnd.in-toto.bundle";
/// Words that rebuilderd knows beside those of the package; they choose among what there is one of here.
const OTHER_WORDS: [&str; 10] = [
    "after",
    "before",
    "component",
    "direction",
    "distribution",
    "limit",
    "release",
    "seen_only",
    "sort",
    "source_name",
];

/// `GET /api/v1/artifacts?sha256=`, or `?build=&artifact=`, or `?name=&version=&architecture=`.
pub(super) async fn artifacts<B: Backend>(
    State(app): State<App<B>>,
    Query(words): Words,
) -> Result<Json<Vec<ArtifactView>>, ApiError> {
    app.server.backend.artifacts(ArtifactQuery::from_words(&words)?).await.map(Json)
}

/// `GET /api/v1/artifacts/sha256:{hex}/attestations`: the envelopes, one a line.
pub(super) async fn attestations<B: Backend>(
    State(app): State<App<B>>,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let hex = digest.strip_prefix("sha256:");
    let hex = hex.ok_or_else(|| ApiError::Refused { reason: "a file is named as sha256:<hexadecimal>".to_owned() })?;
    let sha256: Sha256 = reply::word(hex)?;
    let found = app.server.backend.artifacts(ArtifactQuery::Digest(sha256)).await?;
    let envelopes: Vec<String> = found.into_iter().flat_map(|a| a.attestations).map(|a| a.envelope + "\n").collect();
    if envelopes.is_empty() {
        return Err(ApiError::NotFound { what: format!("an attestation of a file with sha256 {sha256}") });
    }
    Ok(([(header::CONTENT_TYPE, BUNDLE_TYPE)], envelopes.concat()).into_response())
}

/// `GET /api/v1/jobs/{id}/buildinfo?operator=`: what the build of one operator wrote of itself.
pub(super) async fn buildinfo<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
    Query(words): Words,
) -> Result<Response, ApiError> {
    let job: JobId = reply::word(&job)?;
    let bytes = app.server.backend.buildinfo(job, operator(&words)?).await?;
    let mut response = ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response();
    response.extensions_mut().insert(Hostile);
    Ok(response)
}

/// `GET /api/v1/rebuilder?operator=`: the keys of an operator; without its name, of the one that answers for this node.
pub(super) async fn rebuilder<B: Backend>(
    State(app): State<App<B>>,
    Query(words): Words,
) -> Result<Json<RebuilderView>, ApiError> {
    app.server.backend.rebuilder(operator(&words)?).await.map(Json)
}

/// `GET /api/v1/packages?after=`: a page of the list of packages.
pub(super) async fn packages<B: Backend>(
    State(app): State<App<B>>,
    Query(words): Words,
) -> Result<Json<PackagePage>, ApiError> {
    let after = match words.as_slice() {
        [] => None,
        [(name, after)] if name == "after" && after.len() <= PackagePage::AFTER_MAX => Some(after.clone()),
        _ => return Err(ApiError::Refused { reason: "the word of this query is after".to_owned() }),
    };
    app.server.backend.packages(after).await.map(Json)
}

fn operator(words: &[(String, String)]) -> Result<Option<OperatorName>, ApiError> {
    match words {
        [] => Ok(None),
        [(name, value)] if name == "operator" => reply::word(value).map(Some),
        _ => Err(ApiError::Refused { reason: "the word of this query is operator".to_owned() }),
    }
}

/// The operator of the prefix; none without one.
fn prefix(parameters: &RawPathParams) -> Result<Option<OperatorName>, ApiError> {
    let named = parameters.iter().find(|(name, _)| *name == "operator");
    named.map(|(_, value)| reply::word(value)).transpose()
}

/// `GET /api/v1/meta/public-keys`, of rebuilderd: a client takes the first key.
pub(super) async fn public_keys<B: Backend>(
    State(app): State<App<B>>,
    parameters: RawPathParams,
) -> Result<Json<Value>, ApiError> {
    let rebuilder = app.server.backend.rebuilder(prefix(&parameters)?).await?;
    Ok(Json(json!({ "current": rebuilder.keys })))
}

/// `GET /api/v1/packages/binary?name=&version=&architecture=`, of rebuilderd: where a package's attestations are.
pub(super) async fn binary<B: Backend>(
    State(app): State<App<B>>,
    parameters: RawPathParams,
    Query(words): Words,
) -> Result<Json<Value>, ApiError> {
    prefix(&parameters)?;
    let value = |wanted: &str| words.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let known = |name: &str| ["name", "version", "architecture"].contains(&name) || OTHER_WORDS.contains(&name);
    if words.len() > 16 || !words.iter().all(|(name, _)| known(name)) {
        return Err(ApiError::Refused {
            reason: "the words of this query are name, version and architecture".to_owned(),
        });
    }
    let package = (value("name"), value("version"), value("architecture"));
    let found = app.server.backend.artifacts(ArtifactQuery::package(package)?).await?;
    let record = |artifact: &ArtifactView| {
        let numbers = Numbers::of(&artifact.sha256);
        json!({
            "build_id": numbers.build, "artifact_id": numbers.artifact, "status": status(artifact.verdict),
            "name": value("name"), "version": value("version"), "architecture": value("architecture"),
            "distribution": "debian", "url": artifact.name,
        })
    };
    let records: Vec<Value> = found.iter().filter(|artifact| artifact.link.is_some()).map(record).collect();
    Ok(Json(json!({ "total": records.len(), "records": records })))
}

/// `GET /api/v1/builds/{build}/artifacts/{artifact}/attestation`, of rebuilderd: a link of in-toto's first format, with the
/// signatures of all who made the file, or of one operator.
pub(super) async fn link<B: Backend>(
    State(app): State<App<B>>,
    parameters: RawPathParams,
) -> Result<Json<Value>, ApiError> {
    let only = prefix(&parameters)?;
    let number = |wanted: &str| -> Result<u64, ApiError> {
        let value = parameters.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        reply::word(value.unwrap_or_default())
    };
    let numbers = Numbers { build: number("build")?, artifact: number("artifact")? };
    let found = app.server.backend.artifacts(ArtifactQuery::Numbers(numbers)).await?;
    let missing =
        || ApiError::NotFound { what: format!("a link of artifact {} of build {}", numbers.artifact, numbers.build) };
    let reproduced = |artifact: &ArtifactView| artifact.verdict == VerdictWord::Reproduced;
    let artifact = found.into_iter().find(reproduced).ok_or_else(missing)?;
    let asked = artifact.attestations.iter().filter(|a| only.is_none() || a.operator == only);
    let signatures: Vec<_> = asked.filter_map(|attestation| attestation.link.as_ref()).collect();
    let signed = artifact.link.as_ref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    match signed {
        Some(signed) if !signatures.is_empty() => Ok(Json(json!({ "signatures": signatures, "signed": signed }))),
        Some(_) | None => Err(missing()),
    }
}

/// `GET /api/v0/pkgs/list`, of rebuilderd before its version 1: every package, as one list. It is written page by page.
pub(super) async fn list<B: Backend>(
    State(app): State<App<B>>,
    parameters: RawPathParams,
) -> Result<Response, ApiError> {
    prefix(&parameters)?;
    let first = app.server.backend.packages(None).await?;
    let body = Body::from_stream(listed(app.server.backend, first));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// What of the list comes next.
enum Next {
    Page(PackagePage),
    After(String),
    Nothing,
}

fn listed<B: Backend>(backend: B, first: PackagePage) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
    // What stands before the next package: the list's beginning, then commas.
    stream::try_unfold((backend, Next::Page(first), b'['), |(backend, next, mut before)| async move {
        let page = match next {
            Next::Page(page) => page,
            Next::After(after) => backend.packages(Some(after)).await?,
            Next::Nothing => return Ok::<_, ApiError>(None),
        };
        let mut text = Vec::with_capacity(256 * page.packages.len() + 2);
        for package in &page.packages {
            text.push(before);
            serde_json::to_writer(&mut text, &record(package)).map_err(|_| ApiError::Internal)?;
            before = b',';
        }
        let next = match page.next {
            Some(after) => Next::After(after),
            None => {
                text.extend_from_slice(if before == b'[' { b"[]" } else { b"]" });
                Next::Nothing
            }
        };
        Ok(Some((Bytes::from(text), (backend, next, before))))
    })
}

/// A package as rebuilderd lists it.
fn record(package: &PackageView) -> Value {
    let path = package.path.as_ref().map(|path| format!("/repo/{}/{path}", package.channel));
    json!({
        "name": package.name, "version": package.version, "architecture": package.architecture,
        "status": status(package.verdict), "distro": "debian",
        "suite": package.suite.as_ref().map_or("", |suite| suite.as_str()),
        "artifact_url": path.unwrap_or_default(), "build_id": null, "built_at": null, "has_diffoscope": false,
        "has_attestation": package.verdict == VerdictWord::Reproduced,
    })
}

/// Gives rebuilderd's word for a verdict.
const fn status(verdict: VerdictWord) -> &'static str {
    match verdict {
        VerdictWord::Reproduced => "GOOD",
        VerdictWord::Disputed | VerdictWord::Unreproducible | VerdictWord::Failed => "BAD",
        VerdictWord::Pending | VerdictWord::Unknown => "UNKWN",
    }
}
