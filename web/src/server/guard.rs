//! What every request passes: host name, origin, counters; and the headers that every answer carries.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::{Access, routes::App};
use crate::{api::ApiError, backend::Backend};

/// Scripts, styles and connections only from here; no frames, no forms to elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// For what a stranger may have shaped: a document of its own origin, without scripts, forms, frames and connections.
const SANDBOX_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Marks an answer whose body is a hostile document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hostile;

/// Headers that every answer carries.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Checks, counts and dresses one request.
pub(super) async fn pass<B: Backend>(State(app): State<App<B>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let method = request.method().clone();
    let checked = match app.access {
        Access::Owner => Ok(()),
        Access::Public => check(&request, &app.server.hosts),
    };
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    app.server.counters.count(&method, route, response.status());
    let hostile = response.extensions().get::<Hostile>().is_some();
    dress(response.headers_mut());
    if hostile {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX_POLICY));
    }
    response
}

/// Checks and dresses one request to a node that has no backend yet.
pub(super) async fn pass_early(
    State((access, hosts)): State<(Access, Arc<[String]>)>,
    request: Request,
    next: Next,
) -> Response {
    let checked = match access {
        Access::Owner => Ok(()),
        Access::Public => check(&request, &hosts),
    };
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    dress(response.headers_mut());
    response
}

fn dress(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn check(request: &Request, hosts: &[String]) -> Result<(), ApiError> {
    let host = host_of(request.headers(), request.uri())?;
    if !allowed(&host, hosts) {
        let reason = format!("this node does not answer to the name {host:?}; add it to its configured host names");
        return Err(ApiError::NotAllowed { reason });
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let foreign = || ApiError::NotAllowed { reason: "a page of another site sent this request".to_owned() };
    match request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => {}
        Some(_) => return Err(foreign()),
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let origin: Option<Uri> = origin.to_str().ok().and_then(|text| text.parse().ok());
    let same = origin.and_then(|o| o.authority().cloned()).is_some_and(|authority| {
        request.headers().get(header::HOST).is_some_and(|h| h.as_bytes() == authority.as_str().as_bytes())
    });
    if same { Ok(()) } else { Err(foreign()) }
}

/// Gives the host without its port, in lower case. Two different hosts in one request are refused.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Result<String, ApiError> {
    let refused = || ApiError::Refused { reason: "the request must name its host exactly once".to_owned() };
    let mut names = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (names.next(), names.next()) else { return Err(refused()) };
    let authority: http::uri::Authority = host.to_str().ok().and_then(|h| h.parse().ok()).ok_or_else(refused)?;
    if authority.as_str().contains('@') || uri.authority().is_some_and(|a| a.host() != authority.host()) {
        return Err(refused());
    }
    Ok(authority.host().to_ascii_lowercase())
}

/// A page of another site can only reach this node under a name of its own (DNS rebinding), never under an address.
fn allowed(host: &str, hosts: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok() || hosts.iter().any(|known| known == host)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let mut builder = http::Request::builder().method(method).uri("/api/v1/jobs");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_known_names_and_addresses_pass() {
        let hosts = ["mirror.example".to_owned()];
        for good in ["localhost:7000", "127.0.0.1:1", "[::1]:7000", "mirror.example", "MIRROR.example:80", "10.1.2.3"] {
            assert_eq!(check(&request(Method::GET, &[("host", good)]), &hosts), Ok(()), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "user@localhost", "", "mirror.example.evil"] {
            assert!(check(&request(Method::GET, &[("host", bad)]), &hosts).is_err(), "{bad}");
        }
        assert!(check(&request(Method::GET, &[]), &hosts).is_err(), "no host");
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert!(check(&request(Method::GET, &two), &hosts).is_err(), "two hosts");
    }

    #[test]
    fn pages_of_other_sites_cannot_write() {
        let host = ("host", "localhost:7000");
        let good: [&[(&str, &str)]; 4] = [
            &[host],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://localhost:7000")],
        ];
        for headers in good {
            assert_eq!(check(&request(Method::POST, headers), &[]), Ok(()), "{headers:?}");
        }
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "null"),
            ("origin", "http://localhost:1"),
        ] {
            assert!(check(&request(Method::POST, &[host, (name, value)]), &[]).is_err(), "{name}: {value}");
        }
    }
}
