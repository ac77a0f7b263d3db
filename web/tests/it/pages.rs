//! The pages as people get them.

use web::{
    Limits,
    api::{ExplanationView, QuoteView},
};

use crate::Site;

/// A page without its chunk sizes.
async fn page(site: &Site, path: &str) -> String {
    let answer = site.get(path, &[]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    answer.body
}

#[tokio::test]
async fn the_overview() {
    let site = Site::start(Limits::default()).await;
    insta::assert_snapshot!("overview", page(&site, "/").await);
    let chosen = page(&site, "/?state=failed").await;
    assert!(chosen.contains("figlet") && !chosen.contains("base-files"));
    let native = page(&site, "/?arch=amd64").await;
    assert!(
        native.contains("base-files")
            && !native.contains("promote testing")
            && native.contains(">every architecture</a>")
    );
    let other = page(&site, "/?arch=arm64&kind=build").await;
    assert!(other.contains("No job of this choice.") && other.contains("href=\"/?kind=build\""), "{other}");
    site.stop().await;
}

#[tokio::test]
async fn what_pages_load_is_there() {
    let site = Site::start(Limits::default()).await;
    for (name, part) in [
        ("style.css", "{"),
        ("icon.svg", "<svg"),
        ("live.js", "new EventSource(\"/api/v1/news\")"),
        ("live.js", "fetch("),
    ] {
        let answer = site.get(&format!("/static/{name}"), &[]).await;
        assert!(answer.status == 200 && answer.body.contains(part), "{name}: {}", answer.body);
    }
    site.stop().await;
}

#[tokio::test]
async fn jobs_of_a_group_lead_to_each_other() {
    let site = Site::start(Limits::default()).await;
    let job = page(&site, &format!("/jobs/{}", site.jobs.published)).await;
    let (_, rest) = job.split_once("as <b>amd64-full</b>: <a href=\"").unwrap();
    let (address, _) = rest.split_once('"').unwrap();
    let all = page(&site, address).await;
    assert!(all.contains("distro-info-data") && all.contains("base-files") && !all.contains("figlet"), "{all}");
    assert!(all.contains("Only jobs that were asked for together") && all.contains(">amd64-terse</a>"));
    let none = page(&site, &format!("/?group={}", "0".repeat(64))).await;
    assert!(none.contains("No job of this group is here."));
    site.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_told() {
    let site = Site::start(Limits::default()).await;
    assert!(!page(&site, "/").await.contains("clock"));
    for (millis, words) in [(310_400, "clock is 310 s behind those"), (-90_000, "clock is 90 s ahead of those")] {
        site.fake.set_clock_behind(millis);
        let html = page(&site, "/").await;
        assert!(html.contains(words) && html.contains("role=\"alert\""), "{html}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_peer_that_drains_says_why() {
    let site = Site::start(Limits::default()).await;
    assert!(!page(&site, "/").await.contains("draining"));
    let mut peer = web::Backend::peers(&site.fake).await.unwrap().remove(0);
    peer.draining = Some("new disk".to_owned());
    site.fake.add_peer(peer);
    let html = page(&site, "/").await;
    assert!(html.contains("draining") && html.contains("new disk"), "{html}");
    site.stop().await;
}

#[tokio::test]
async fn a_job_says_when_it_is_expected() {
    let site = Site::start(Limits::default()).await;
    let mut job = web::Backend::job(&site.fake, site.jobs.building).await.unwrap();
    assert!(!page(&site, &format!("/jobs/{}", job.summary.id)).await.contains("Expected"));
    let (start, end) = (Some(web::testing::at(7200)), Some(web::testing::at(10_800)));
    job.summary.expected = Some(web::api::ExpectedView { start, end });
    job.summary.id = protocol::JobId::from_bytes([3; 32]);
    let path = format!("/jobs/{}", job.summary.id);
    site.fake.add_job(job);
    let html = page(&site, &path).await;
    assert!(html.contains("Expected to begin at <time") && html.contains(" UTC and to end at <time"), "{html}");
    site.stop().await;
}

#[tokio::test]
async fn a_job_with_a_liar() {
    let site = Site::start(Limits::default()).await;
    insta::assert_snapshot!("job_published", page(&site, &format!("/jobs/{}", site.jobs.published)).await);
    site.stop().await;
}

#[tokio::test]
async fn every_state_has_its_sentence() {
    let site = Site::start(Limits::default()).await;
    for (job, sentence) in [
        (site.jobs.building, "0 of 2 needed operators agree so far; 2 asked."),
        (site.jobs.unreproducible, "No two operators built the same bytes. Nothing was published."),
        (site.jobs.failed, "The build fails in the same step for several operators. Nothing was published."),
        (site.jobs.published, "2 operators built the same bytes; 2 were needed. 1 operator differs."),
    ] {
        let html = page(&site, &format!("/jobs/{job}")).await;
        assert!(html.contains(sentence), "{sentence}");
        assert!(html.contains(&format!("/api/v1/jobs/{job}\"")), "links its JSON");
        assert!(!html.contains('\u{1b}'), "no escape sequence of a log");
    }
    let failed = page(&site, &format!("/jobs/{}", site.jobs.failed)).await;
    assert!(failed.contains("&#60;zipio.h&#62;"), "the end of the log, escaped");
    site.stop().await;
}

#[tokio::test]
async fn a_server_job_shows_its_steps_and_what_it_belongs_to() {
    let site = Site::start(Limits::default()).await;
    let html = page(&site, &format!("/jobs/{}", site.jobs.promoting)).await;
    for part in
        ["The coordinator runs it; no builder is asked.", "check evidence", "Follow the log", "waits for", "testing"]
    {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert!(!html.contains("No builder holds a lease yet") && !html.contains("Environment"), "{html}");
    let server = page(&site, "/?kind=server").await;
    assert!(server.contains("promote testing to stable") && !server.contains("base-files"));
    let builds = page(&site, "/?kind=build&state=failed").await;
    assert!(builds.contains("figlet") && !builds.contains("promote testing"));
    assert!(builds.contains("href=\"/?state=failed&#38;kind=server\""), "{builds}");
    site.stop().await;
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let site = Site::start(Limits::default()).await;
    let (other, jobs) = web::testing::sample();
    let mut job = web::Backend::job(&other, jobs.building).await.unwrap();
    job.summary.title = "<script>alert(1)</script>".to_owned();
    job.summary.why = "\"><img src=x onerror=alert(1)>".to_owned();
    job.summary.id = protocol::JobId::from_bytes([3; 32]);
    let id = job.summary.id;
    site.fake.add_job(job);
    for path in ["/".to_owned(), format!("/jobs/{id}")] {
        let html = page(&site, &path).await;
        assert!(!html.contains("<script>alert") && !html.contains("<img"), "{path}");
        assert!(html.contains("&#60;script&#62;"), "{path}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_difference_is_explained_and_its_page_is_a_hostile_file() {
    let site = Site::start(Limits::default()).await;
    let mut job = web::Backend::job(&site.fake, site.jobs.unreproducible).await.unwrap();
    let html = site.fake.add_blob(&b"<!DOCTYPE html><script>alert(1)</script>"[..]);
    let text = site.fake.add_blob(&b"-year 2026\n+year 2028\n"[..]);
    for (attempt, host) in job.attempts.iter_mut().zip(["one", "two"]) {
        attempt.builder.info.insert("hostname".to_owned(), host.to_owned());
    }
    let (left, right) = (job.attempts[0].number, job.attempts[1].number);
    let (place, variation) = ("hello.deb / <b>".to_owned(), "date".to_owned());
    let quote = QuoteView { place, left: "year 2026".to_owned(), right: "year 2028".to_owned(), variation };
    let operators = |number: usize| vec![job.attempts[number].builder.operator.clone()];
    job.explanations = vec![ExplanationView {
        id: protocol::JobId::from_bytes([4; 32]),
        left,
        right,
        left_operators: operators(0),
        right_operators: operators(1),
        ended: Some(web::testing::at(9)),
        text: Some(text),
        html: Some(html),
        quotes: vec![quote],
        summary: "1 differing line; circumstances that show: date in 1".to_owned(),
    }];
    job.summary.id = protocol::JobId::from_bytes([3; 32]);
    let path = format!("/jobs/{}", job.summary.id);
    site.fake.add_job(job);
    let shown = page(&site, &path).await;
    for part in ["Why they differ", "hostname", "-year 2026", "+year 2028", "alder and birch differ", "&#60;b&#62;"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let address = format!("/api/v1/jobs/{}/difference", protocol::JobId::from_bytes([4; 32]));
    assert!(shown.contains(&format!("{address}.html\"")) && shown.contains(&format!("{address}\"")), "{shown}");
    let hostile = site.get(&format!("{address}.html"), &[]).await;
    let policy = hostile.header("content-security-policy").unwrap();
    assert!(policy.starts_with("sandbox; default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert_eq!(hostile.header("x-content-type-options"), Some("nosniff"));
    let plain = site.get(&address, &[]).await;
    assert_eq!((plain.header("content-type"), plain.status), (Some("text/plain; charset=utf-8"), 200));
    let missing = format!("/api/v1/jobs/{}/difference", site.jobs.published);
    assert_eq!(site.get(&missing, &[]).await.status, 404);
    site.stop().await;
}

#[tokio::test]
async fn a_page_that_is_not_there_says_so() {
    let site = Site::start(Limits::default()).await;
    for path in ["/jobs/abc".to_owned(), format!("/jobs/{}", protocol::JobId::from_bytes([1; 32]))] {
        let answer = site.get(&path, &[]).await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("<h1>Not Found</h1>") && answer.body.contains("What to do"), "{}", answer.body);
    }
    site.stop().await;
}
