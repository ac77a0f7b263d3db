//! Blobs and repository files: ranges, validators, cache rules, types.

use protocol::Hash;
use web::Limits;

use crate::Site;

const DEB: &str = "/repo/stable/pool/main/d/distro-info-data/distro-info-data_0.58+deb12u6_all.deb";
const INDEX: &str = "/repo/stable/dists/bookworm/InRelease";

#[tokio::test]
async fn ranges() {
    let site = Site::start(Limits::default()).await;
    let hash = site.fake.add_blob(&b"0123456789"[..]);
    let path = format!("/api/v1/blobs/{hash}");
    let cases = [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=4-", 206, "456789", Some("bytes 4-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=8-99", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-99", 200, "0123456789", None),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("lines=0-1", 200, "0123456789", None),
        ("bytes=5-2", 200, "0123456789", None),
        ("bytes=18446744073709551615-18446744073709551615", 416, "", Some("bytes */10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("bytes=-0", 416, "", Some("bytes */10")),
    ];
    for (range, status, body, content_range) in cases {
        let answer = site.get(&path, &[&format!("range: {range}")]).await;
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{range}");
        if status < 400 {
            assert_eq!(answer.body, body, "{range}");
            assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{range}");
        }
    }
    let head = site.raw(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, Some("10"), ""));
    let empty = site.fake.add_blob(&b""[..]);
    assert_eq!(site.get(&format!("/api/v1/blobs/{empty}"), &[]).await.header("content-length"), Some("0"));
    site.stop().await;
}

#[tokio::test]
async fn validators_and_cache_rules() {
    let site = Site::start(Limits::default()).await;
    let deb = site.get(DEB, &[]).await;
    let own = format!("\"{}\"", Hash::of(b"bytes of distro-info-data"));
    assert_eq!((deb.status, deb.header("etag")), (200, Some(own.as_str())));
    assert_eq!(deb.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(deb.header("content-type"), Some("application/vnd.debian.binary-package"));
    assert_eq!(deb.header("last-modified"), Some("sat, 21 nov 2026 11:00:00 gmt"));

    let index = site.get(INDEX, &[]).await;
    assert_eq!(index.header("cache-control"), Some("public, max-age=60, must-revalidate"));
    assert_eq!(index.header("content-type"), Some("text/plain; charset=utf-8"));

    let cases = [
        (format!("if-none-match: {own}"), 304),
        (format!("if-none-match: \"x\", W/{own}"), 304),
        ("if-none-match: \"x\"".to_owned(), 200),
        ("if-modified-since: Sat, 21 Nov 2026 11:00:00 GMT".to_owned(), 304),
        ("if-modified-since: Sat, 21 Nov 2026 10:59:59 GMT".to_owned(), 200),
        ("if-modified-since: yesterday".to_owned(), 200),
    ];
    for (header, status) in cases {
        assert_eq!(site.get(DEB, &[&header]).await.status, status, "{header}");
    }
    // apt resumes with a date, browsers with a tag; a range of another content must not be mixed in.
    for (condition, status) in [
        (own.as_str(), 206),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 206),
        ("Sat, 21 Nov 2026 10:00:00 GMT", 200),
        ("\"x\"", 200),
    ] {
        let answer = site.get(DEB, &["range: bytes=6-7", &format!("if-range: {condition}")]).await;
        assert_eq!(answer.status, status, "{condition}");
    }
    site.stop().await;
}

#[tokio::test]
async fn the_log_is_cached_as_its_files_change() {
    let site = Site::start(Limits::default()).await;
    let newest = site.get("/log/checkpoint", &[]).await;
    assert_eq!((newest.status, newest.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(newest.header("content-type"), Some("text/plain; charset=utf-8"));
    let bundle = site.get("/log/tile/entries/x001/234.p/5", &[]).await;
    assert_eq!((bundle.status, bundle.body.as_str()), (200, "entries"));
    assert_eq!(bundle.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(bundle.header("content-type"), Some("application/octet-stream"));
    for path in ["", "tile", "tile/0/000", "tile/entries/x001%2F234.p/5", "../log/checkpoint", "checkpoint/", "a//b"] {
        assert_eq!(site.get(&format!("/log/{path}"), &[]).await.status, 404, "{path:?}");
    }
    site.stop().await;
}
