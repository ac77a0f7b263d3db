//! Bytes by hash and files of repositories: ranges, validators, cache rules (RFC 9110, RFC 9111).

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use protocol::{ChannelName, Hash, words::RelativePath};

use super::{reply, routes::App};
use crate::{
    api::{ApiError, Stored, Time},
    backend::{Backend, ByteRange, Content},
};

/// What never changes under its name.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// What a publication replaces: asked again after a minute, cheaply, by its validator.
const SHORT: &str = "public, max-age=60, must-revalidate";

/// What changes at any moment: never taken from a cache unasked.
const NEWEST: &str = "no-cache";

/// `GET /api/v1/blobs/{hash}`.
pub(super) async fn blob<B: Backend>(
    State(app): State<App<B>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hash: Hash = reply::word(&hash)?;
    if matches(&headers, header::IF_NONE_MATCH, &hash) == Some(true) {
        return Ok(not_modified(&hash, FOREVER));
    }
    let content = app.server.backend.blob(hash, range_for(&headers, &hash, None)).await?;
    Ok(respond(content, "application/octet-stream", FOREVER))
}

/// `POST /api/v1/blobs`, owner only: stores the body, whose size must be declared.
pub(super) async fn put_blob<B: Backend>(
    State(app): State<App<B>>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Stored>), ApiError> {
    let limits = app.server.limits;
    if let Err(refusal) = app.owner_only() {
        reply::pass_over(body, limits).await;
        return Err(refusal);
    }
    let size: Option<u64> = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let size = size.ok_or_else(|| ApiError::Refused { reason: "send the size as Content-Length".to_owned() })?;
    if size > limits.upload_bytes {
        let reason = format!("{size} bytes are more than the limit of {}", limits.upload_bytes);
        return Err(ApiError::Refused { reason });
    }
    let hash = app.server.backend.put_blob(reply::pieces(body, limits).boxed(), size).await?;
    Ok((StatusCode::CREATED, Json(Stored { hash })))
}

/// `GET /repo/{channel}/{path..}`.
pub(super) async fn repository_file<B: Backend>(
    State(app): State<App<B>>,
    Path((channel, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let channel: ChannelName = reply::word(&channel)?;
    let path: RelativePath = reply::word(&path)?;
    let (kind, cache) = (media_type(path.as_str()), cache_rule(path.as_str()));
    let wanted = range(&headers);
    let mut content = app.server.backend.repository_file(channel.clone(), path.clone(), wanted).await?;
    if unchanged(&headers, &content) {
        return Ok(not_modified(&content.hash, cache));
    }
    if range_for(&headers, &content.hash, content.modified) != wanted {
        content = app.server.backend.repository_file(channel, path, ByteRange::All).await?;
    }
    Ok(respond(content, kind, cache))
}

/// `GET /log/{path..}`: the transparency log (C2SP tlog-tiles). Each of its files has one spelling, without escapes.
pub(super) async fn log_file<B: Backend>(State(app): State<App<B>>, uri: Uri) -> Result<Response, ApiError> {
    let not_found = || ApiError::NotFound { what: "this file of the log".to_owned() };
    let path = uri.path().strip_prefix("/log/").ok_or_else(not_found)?;
    let path: RelativePath = path.parse().map_err(|_| not_found())?;
    let newest = path.as_str() == "checkpoint";
    let bytes = app.server.backend.log_file(path).await?;
    let (kind, cache) =
        if newest { ("text/plain; charset=utf-8", NEWEST) } else { ("application/octet-stream", FOREVER) };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], bytes).into_response())
}

/// Reads `Range`; several ranges or a form that we do not know mean all of it, as the standard allows.
fn range(headers: &HeaderMap) -> ByteRange {
    let text = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="));
    let parsed = text.and_then(|text| match text.split_once('-')? {
        ("", count) => count.parse().ok().map(ByteRange::Last),
        (start, "") => Some(ByteRange::From { start: start.parse().ok()?, last: None }),
        (start, last) => {
            let (start, last) = (start.parse().ok()?, last.parse().ok()?);
            (start <= last).then_some(ByteRange::From { start, last: Some(last) })
        }
    });
    parsed.unwrap_or(ByteRange::All)
}

/// Reads `Range`, unless `If-Range` speaks of another content.
fn range_for(headers: &HeaderMap, hash: &Hash, modified: Option<Time>) -> ByteRange {
    let Some(condition) = headers.get(header::IF_RANGE) else { return range(headers) };
    let same_date = || {
        let text = condition.to_str().ok()?;
        Some(Time::from_http_date(text)?.timestamp().as_secs() == modified?.timestamp().as_secs())
    };
    let same = condition.as_bytes() == tag(hash).as_bytes() || same_date() == Some(true);
    if same { range(headers) } else { ByteRange::All }
}

fn tag(hash: &Hash) -> String {
    format!("\"{hash}\"")
}

/// Says whether a list of entity tags names the content; `None` when there is no list.
fn matches(headers: &HeaderMap, name: header::HeaderName, hash: &Hash) -> Option<bool> {
    let list = headers.get(name)?.to_str().ok()?;
    let own = tag(hash);
    Some(list.split(',').map(str::trim).any(|t| t == "*" || t.trim_start_matches("W/") == own))
}

fn unchanged(headers: &HeaderMap, content: &Content) -> bool {
    if let Some(same) = matches(headers, header::IF_NONE_MATCH, &content.hash) {
        return same;
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|v| v.to_str().ok()).and_then(Time::from_http_date);
    match (since, content.modified) {
        (Some(since), Some(modified)) => modified.timestamp().as_secs() <= since.timestamp().as_secs(),
        (Some(_), None) | (None, Some(_) | None) => false,
    }
}

fn not_modified(hash: &Hash, cache: &'static str) -> Response {
    let headers = [(header::ETAG, tag(hash)), (header::CACHE_CONTROL, cache.to_owned())];
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

fn respond(content: Content, kind: &'static str, cache: &'static str) -> Response {
    let Content { size, span, hash, modified, bytes } = content;
    let partial = span.length() != size;
    let mut response = Body::from_stream(bytes).into_response();
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, span.length().into());
    let mut set = |name, text: String| {
        headers.insert(name, text.parse().expect("digits, hexadecimal and dates are valid in a header"));
    };
    set(header::ETAG, tag(&hash));
    if let Some(at) = modified {
        set(header::LAST_MODIFIED, at.http_date());
    }
    if partial {
        set(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", span.start, span.end - 1));
    }
    response
}

/// Debian packages, by-hash indexes and dnf's metadata under its digests never change under their names (publication.md 6.3); the
/// rest a release replaces. So do RPMs, which another publisher signs with another key, and what lies beside a package: a proof
/// that more witnesses have seen takes the place of an older one.
fn cache_rule(path: &str) -> &'static str {
    let metadata = path.starts_with("repodata/") && !path.starts_with("repodata/repomd.xml");
    let package = path.starts_with("pool/") && [".deb", ".udeb"].iter().any(|end| path.ends_with(end));
    if package || path.contains("/by-hash/") || metadata { FOREVER } else { SHORT }
}

/// Never a type that a browser would run.
fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.').map_or(name, |(_, end)| end) {
        "deb" | "udeb" => "application/vnd.debian.binary-package",
        "rpm" => "application/x-rpm",
        "asc" => "application/pgp-keys",
        "gpg" | "sig" => "application/pgp-signature",
        "json" => "application/json",
        "InRelease" | "Release" | "Packages" | "Sources" | "dsc" | "changes" | "buildinfo" => {
            "text/plain; charset=utf-8"
        }
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_changes_under_its_name_is_kept_for_ever() {
        let pool = "pool/main/t/tiny/tiny_1.0_amd64.deb";
        let forever = [pool, "dists/main/main/binary-amd64/by-hash/SHA256/ab", "repodata/ab-primary.xml.zst"];
        assert!(forever.iter().all(|path| cache_rule(path) == FOREVER));
        let evidence = [".artel-bundle", ".intoto.jsonl", ".tlog-proof"].map(|end| format!("{pool}{end}"));
        let others = ["pool/main/t/tiny/tiny-1.0-1.x86_64.rpm", "dists/main/InRelease", "repodata/repomd.xml.asc"];
        assert!(evidence.iter().map(String::as_str).chain(others).all(|path| cache_rule(path) == SHORT));
    }
}
