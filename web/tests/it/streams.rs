//! Logs and news while they grow, and the stop while somebody listens.

use futures::StreamExt;
use protocol::lease::LeaseNumber;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use web::{
    Backend, Limits,
    api::{JobState, News},
    backend::{Follow, LogRequest},
    testing::at,
};

use crate::{PATIENCE, Site};

/// Reads until the text is there.
async fn wait_for(stream: &mut TcpStream, text: &str) -> String {
    let mut all = String::new();
    let read = async {
        while !all.contains(text) {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "ended without {text:?}: {all}");
            all.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
    all
}

#[tokio::test]
async fn a_followed_log_grows_and_ends() {
    let site = Site::start(Limits::default()).await;
    let (job, attempt) = (site.jobs.building, LeaseNumber(21));
    let request = LogRequest { job, attempt: Some(attempt), from: 0, follow: Follow::Yes };
    let mut log = site.tcp_client().log(request).await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"dpkg-buildpackage"));
    site.fake.append_log(job, attempt, b"more\n");
    assert_eq!(&log.next().await.unwrap().unwrap()[..], b"more\n");
    site.fake.end_log(job, attempt);
    assert!(log.next().await.is_none());

    let text = site.get(&format!("/api/v1/jobs/{job}/log"), &[]).await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.body.contains("more"));
    site.stop().await;
}

/// A live log goes on asking for as long as it is read, so it has its caller's place for as long.
#[tokio::test]
async fn one_caller_follows_a_few_logs_at_one_time_and_the_owner_as_many_as_he_likes() {
    const PLACES: usize = 8;
    let site = Site::start(Limits::default()).await;
    let (job, attempt) = (site.jobs.building, LeaseNumber(21));
    let request = LogRequest { job, attempt: Some(attempt), from: 0, follow: Follow::Yes };
    let mut logs = Vec::new();
    for _ in 0..PLACES {
        let mut log = site.tcp_client().log(request).await.unwrap();
        assert!(log.next().await.unwrap().unwrap().starts_with(b"dpkg-buildpackage"));
        logs.push(log);
    }
    for path in
        [format!("/api/v1/jobs/{job}/log"), format!("/jobs/{job}"), "/".to_owned(), "/log/checkpoint".to_owned()]
    {
        let refused = site.get(&path, &[]).await;
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true), "{path}: {}", refused.body);
    }
    assert_eq!(site.get("/healthz", &[]).await.status, 200);
    let mut owned = Vec::new();
    for _ in 0..=PLACES {
        owned.push(site.unix_client().log(request).await.unwrap());
    }
    logs.pop();
    let free = async {
        while site.get("/", &[]).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("who goes gives his place back");
    drop((logs, owned));
    site.stop().await;
}

/// The news never end, and pages go on while somebody follows them.
#[tokio::test]
async fn one_caller_follows_the_news_a_few_times_at_one_time() {
    const PLACES: usize = 8;
    let site = Site::start(Limits::default()).await;
    let mut listeners = Vec::new();
    for _ in 0..PLACES {
        let mut listener = TcpStream::connect(site.address).await.unwrap();
        let ask = "GET /api/v1/news HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
        listener.write_all(ask.as_bytes()).await.unwrap();
        wait_for(&mut listener, "\r\n\r\n").await;
        listeners.push(listener);
    }
    assert_eq!(site.get("/api/v1/news", &[]).await.status, 429);
    for path in ["/", "/static/live.js", "/healthz", "/metrics"] {
        assert_eq!(site.get(path, &[]).await.status, 200, "{path}");
    }
    drop(site.unix_client().news().await.expect("the owner has no limit"));
    drop(listeners);
    let free = async {
        while site.tcp_client().news().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("who goes gives his place back");
    site.stop().await;
}

#[tokio::test]
async fn events_resume_at_the_byte() {
    let site = Site::start(Limits::default()).await;
    let path = format!("/api/v1/jobs/{}/log?attempt=11&follow=1", site.jobs.published);
    let events = site.get(&path, &["accept: text/event-stream"]).await.body;
    assert!(events.contains("event: log\nid: 44\n") && events.contains("event: end"), "{events}");
    assert!(events.contains(r#"data: {"at":0,"text":"dpkg-buildpackage: info: binary-only upload\n"}"#), "{events}");
    let rest = site.get(&path, &["accept: text/event-stream", "last-event-id: 37"]).await.body;
    assert!(rest.contains(r#"data: {"at":37,"text":"upload\n"}"#), "{rest}");
    let nothing = site.get(&path, &["accept: text/event-stream", "last-event-id: 44"]).await.body;
    assert!(!nothing.contains("event: log") && nothing.contains("event: end"), "{nothing}");
    site.stop().await;
}

#[tokio::test]
async fn the_stop_ends_who_listens() {
    let site = Site::start(Limits::default()).await;
    let mut listener = TcpStream::connect(site.address).await.unwrap();
    let ask = "GET /api/v1/news HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    listener.write_all(ask.as_bytes()).await.unwrap();
    wait_for(&mut listener, "\r\n\r\n").await;
    let news =
        News { at: at(1), job: site.jobs.building, state: JobState::Publishing, text: "enough agree".to_owned() };
    site.fake.announce(news);
    let told = wait_for(&mut listener, "enough agree").await;
    assert!(told.contains("event: job"), "{told}");
    let begin = std::time::Instant::now();
    site.stop().await;
    assert!(begin.elapsed() < Limits::default().grace_time, "open streams end at once");
    listener.read_to_end(&mut Vec::new()).await.unwrap();
}
