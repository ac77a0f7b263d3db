//! Callers who mean harm: slow ones, many of them, foreign names, foreign pages, paths that climb.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, net::TcpStream};
use web::{Backend, Limits};

use crate::{PATIENCE, Site};

fn impatient() -> Limits {
    Limits { header_time: Duration::from_millis(300), idle_time: Duration::from_millis(300), ..Limits::default() }
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let site = Site::start(impatient()).await;
    for begin in ["", "GET / HTTP/1.1\r\nhost: local"] {
        let start = Instant::now();
        let answer = site.raw(begin).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(matches!(answer.status, 0 | 408), "{}", answer.head);
    }
    site.stop().await;
}

#[tokio::test]
async fn an_idle_connection_and_a_slow_body_are_cut_off() {
    let site = Site::start(impatient()).await;
    let idle = site.raw("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!((idle.status, idle.body.as_str()), (200, "ok\n"));
    let slow = site.raw("POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc").await;
    assert_eq!(slow.status, 422, "{}", slow.head);
    assert!(slow.body.contains("stopped arriving"), "{}", slow.body);
    site.stop().await;
}

#[tokio::test]
async fn who_stops_receiving_is_cut_off() {
    let site = Site::start(Limits { connections: 1, ..impatient() }).await;
    let hash = site.fake.add_blob(vec![7; 32 * 1024 * 1024]);
    let mut deaf = TcpStream::connect(site.address).await.unwrap();
    deaf.write_all(format!("GET /api/v1/blobs/{hash} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    // The only slot is taken; it comes free although the caller keeps the connection open.
    let answer = site.get("/healthz", &[]).await;
    assert_eq!(answer.status, 200);
    drop(deaf);
    site.stop().await;
}

/// Counts the callers that have an answer.
async fn answered(callers: &[TcpStream]) -> usize {
    let mut count = 0;
    for stream in callers {
        let ready = tokio::time::timeout(Duration::from_millis(1), stream.peek(&mut [0; 1])).await;
        count += usize::from(matches!(ready, Ok(Ok(1))));
    }
    count
}

#[tokio::test]
async fn three_hundred_connections_never_hold_more_than_the_limit() {
    let limits = Limits { header_time: PATIENCE, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut callers = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        callers.push(stream);
    }
    // Each keeps its connection, so those beyond the limit wait until others leave.
    let full = async { while answered(&callers).await < limits.connections {} };
    tokio::time::timeout(PATIENCE, full).await.unwrap();
    assert_eq!(answered(&callers).await, 256);
    callers.drain(..100);
    let rest = async { while answered(&callers).await < callers.len() {} };
    tokio::time::timeout(PATIENCE, rest).await.expect("the others get their turn");
    drop(callers);
    site.stop().await;
}

#[tokio::test]
async fn foreign_names_and_pages_are_refused() {
    let site = Site::start(Limits::default()).await;
    for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example"] {
        let answer =
            site.raw(format!("GET /api/v1/status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 403, "{host}");
        assert!(!answer.body.contains("orchard"), "nothing leaks");
    }
    let known = site.raw("GET /api/v1/status HTTP/1.1\r\nhost: mirror.example\r\nconnection: close\r\n\r\n").await;
    assert_eq!(known.status, 200);
    let absolute = "GET http://evil.example/api/v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(site.raw(absolute).await.status, 422);
    let cross = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nconnection: close\r\n\
        content-length: 0\r\n\r\n";
    let answer = site.raw(cross).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("another site"), "{}", answer.body);
    site.stop().await;
}

#[tokio::test]
async fn paths_that_climb_are_refused() {
    let site = Site::start(Limits::default()).await;
    for path in [
        "/repo/stable/../../../etc/passwd",
        "/repo/stable/%2e%2e/%2e%2e/etc/passwd",
        "/repo/stable/..%2f..%2fetc%2fpasswd",
        "/repo/stable//etc/passwd",
        "/repo/stable/pool/./x",
        "/repo/stable/.hidden",
        "/repo/stable/a%00b",
        "/repo/..%2f..%2fetc/passwd",
        "/repo/%2e%2e/x",
        "/static/..%2f..%2fCargo.toml",
        "/api/v1/blobs/..%2f..%2fx",
    ] {
        let answer = site.get(path, &[]).await;
        assert!(matches!(answer.status, 400 | 404 | 422), "{path}: {}", answer.status);
    }
    site.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_errors_explain() {
    let site = Site::start(Limits::default()).await;
    for path in ["/", "/api/v1/status", "/nothing/here", "/static/style.css", "/jobs/x", "/metrics"] {
        let answer = site.get(path, &[]).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("set-cookie"), None, "{path}");
    }
    let answer = site.get("/api/v1/jobs?state=finished", &[]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("use one of waiting") && answer.body.contains("\"hint\""), "{}", answer.body);
    site.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let site = Site::start(Limits::default()).await;
    site.get(&format!("/api/v1/jobs/{}", site.jobs.failed), &[]).await;
    site.get("/random/path/of/a/scanner", &[]).await;
    assert!(site.unix_client().status().await.is_ok());
    let text = site.get("/metrics", &[]).await.body;
    for line in [
        "artel_jobs{state=\"published\"} 1",
        "artel_leases 2",
        "artel_http_requests_total{method=\"GET\",route=\"/api/v1/jobs/{id}\",status=\"200\"} 1",
        "artel_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "artel_http_requests_total{method=\"GET\",route=\"/api/v1/status\",status=\"200\"} 1",
        "artel_blobs_bytes ",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("scanner"));
    site.stop().await;
}
