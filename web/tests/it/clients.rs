//! What clients of rebuilders ask, in their words, and what they are told.

use protocol::{
    Arch, JobId, OperatorName, Sha256,
    testing::{node, samples::operator},
};
use serde_json::{Value, json};
use web::{
    Backend, Limits,
    api::{
        ArtifactQuery, ArtifactView, AttestationView, LinkSignature, Numbers, PackagePage, PackageView, RebuilderView,
        VerdictWord,
    },
};

use crate::Site;

const HELLO: &str = "name=hello&version=1%3A2.10-3%2Bb1&architecture=amd64";

fn package(name: &str, verdict: VerdictWord) -> PackageView {
    PackageView {
        name: name.to_owned(),
        version: "1:2.10-3+b1".to_owned(),
        architecture: Arch::Amd64,
        verdict,
        channel: "stable".parse().unwrap(),
        suite: Some("bookworm".parse().unwrap()),
        path: Some("pool/main/h/hello/hello_2.10-3+b1_amd64.deb".parse().unwrap()),
    }
}

fn attestation(at: u8) -> AttestationView {
    AttestationView {
        job: JobId::from_bytes([1; 32]),
        node: node(10 + at),
        operator: Some(operator(at)),
        envelope: format!("{{\"payload\":\"{at}\"}}"),
        link: Some(LinkSignature { keyid: format!("key{at}"), sig: format!("sig{at}") }),
    }
}

fn hello(verdict: VerdictWord, content: &[u8]) -> ArtifactView {
    ArtifactView {
        name: "hello_2.10-3+b1_amd64.deb".to_owned(),
        sha256: Sha256::of(content),
        verdict,
        channel: None,
        link: Some(r#"{"_type":"link"}"#.to_owned()),
        attestations: vec![attestation(0), attestation(1)],
    }
}

async fn site() -> Site {
    let site = Site::start(Limits::default()).await;
    site.fake.add_artifact(hello(VerdictWord::Reproduced, b"x"), Some(package("hello", VerdictWord::Reproduced)));
    for at in [1, 0] {
        let keys = vec![format!("PEM {at}"), "second".to_owned()];
        site.fake.add_rebuilder(RebuilderView { operator: operator(at), keys });
    }
    site
}

async fn get(site: &Site, path: &str) -> (u16, Value) {
    let answer = site.get(path, &[]).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body)))
}

fn link(numbers: Numbers) -> String {
    format!("/api/v1/builds/{}/artifacts/{}/attestation", numbers.build, numbers.artifact)
}

#[tokio::test]
async fn a_rebuilder_s_three_answers_for_all_and_for_one_operator() {
    let site = site().await;
    let (own, other) = (operator(1), operator(0));
    assert_eq!(get(&site, "/api/v1/meta/public-keys").await, (200, json!({"current": ["PEM 1", "second"]})));
    let theirs = format!("/rebuilder/{other}/api/v1/meta/public-keys");
    assert_eq!(get(&site, &theirs).await.1["current"][0], "PEM 0");
    let (status, found) = get(&site, &format!("/api/v1/packages/binary?{HELLO}&distribution=debian&limit=5")).await;
    let numbers = Numbers::of(&Sha256::of(b"x"));
    let record = &found["records"][0];
    assert_eq!((status, &found["total"], &record["status"]), (200, &json!(1), &json!("GOOD")));
    assert_eq!((&record["build_id"], &record["artifact_id"]), (&json!(numbers.build), &json!(numbers.artifact)));

    let signatures = async |prefix: &str| {
        let (status, block) = get(&site, &format!("{prefix}{}", link(numbers))).await;
        assert_eq!((status, &block["signed"]), (200, &json!({"_type": "link"})));
        let all = block["signatures"].as_array().unwrap().iter();
        all.map(|one| format!("{}:{}", one["keyid"], one["sig"])).collect::<Vec<_>>().join(" ").replace('"', "")
    };
    assert_eq!(signatures("").await, "key0:sig0 key1:sig1");
    assert_eq!(signatures(&format!("/rebuilder/{other}")).await, "key0:sig0");
    assert_eq!(signatures(&format!("/rebuilder/{own}")).await, "key1:sig1");
    assert_eq!(get(&site, &format!("/rebuilder/nobody{}", link(numbers))).await.0, 404);
    let none = "/api/v1/packages/binary?name=hello&version=3&architecture=amd64";
    assert_eq!(get(&site, none).await, (200, json!({"total": 0, "records": []})));
    site.stop().await;
}

#[tokio::test]
async fn only_what_is_reproduced_has_a_link() {
    let site = Site::start(Limits::default()).await;
    for (verdict, content) in
        [(VerdictWord::Disputed, b"d"), (VerdictWord::Unreproducible, b"u"), (VerdictWord::Failed, b"f")]
    {
        site.fake.add_artifact(hello(verdict, content), None);
        assert_eq!(get(&site, &link(Numbers::of(&Sha256::of(content)))).await.0, 404, "{verdict}");
    }
    let unsigned = AttestationView { link: None, ..attestation(0) };
    site.fake.add_artifact(ArtifactView { attestations: vec![unsigned], ..hello(VerdictWord::Reproduced, b"n") }, None);
    assert_eq!(get(&site, &link(Numbers::of(&Sha256::of(b"n")))).await.0, 404, "nobody signed a link");
    site.stop().await;
}

#[tokio::test]
async fn attestations_are_a_bundle_of_lines() {
    let site = site().await;
    let path = |content: &[u8]| format!("/api/v1/artifacts/sha256:{}/attestations", Sha256::of(content));
    let answer = site.get(&path(b"x"), &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/vnd.in-toto.bundle")));
    assert_eq!(answer.body, "{\"payload\":\"0\"}\n{\"payload\":\"1\"}\n");
    assert_eq!(site.get(&path(b"y"), &[]).await.status, 404);
    let digest = Sha256::of(b"x").to_string();
    for bad in [format!("sha256:{}", &digest[1..]), format!("sha512:{digest}"), digest, "sha256:".to_owned()] {
        assert_eq!(site.get(&format!("/api/v1/artifacts/{bad}/attestations"), &[]).await.status, 422, "{bad}");
    }
    site.stop().await;
}

#[tokio::test]
async fn hostile_questions_are_refused_with_a_reason() {
    let site = site().await;
    let long = format!("/api/v1/packages/binary?name={}&version=1&architecture=amd64", "x".repeat(4000));
    let many = format!("/api/v1/packages/binary?{HELLO}{}", "&limit=1".repeat(20));
    let after = format!("/api/v1/packages?after={}", "x".repeat(PackagePage::AFTER_MAX + 1));
    let bad = [
        "/api/v1/packages/binary",
        "/api/v1/packages/binary?name=hello",
        "/api/v1/packages/binary?name=../x&version=1&architecture=amd64",
        "/api/v1/packages/binary?name=hello&version=1%0a2&architecture=amd64",
        "/api/v1/packages/binary?name=hello&version=1&architecture=pdp11",
        "/api/v1/packages/binary?name=hello&version=1&architecture=amd64&colour=red",
        "/api/v1/builds/-1/artifacts/1/attestation",
        "/api/v1/builds/1/artifacts/99999999999999999999999/attestation",
        "/api/v1/artifacts",
        "/api/v1/artifacts?sha256=zz",
        "/api/v1/rebuilder?operator=%00",
        "/rebuilder/%20/api/v1/meta/public-keys",
        "/api/v1/jobs/xyz/buildinfo",
        long.as_str(),
        many.as_str(),
        after.as_str(),
    ];
    for path in bad {
        let (status, body) = get(&site, path).await;
        let said = body["error"].as_str().unwrap_or_default();
        assert!(status == 422 && said.len() < 500, "{path}: {status} {body}");
    }
    assert_eq!(get(&site, &link(Numbers { build: u64::MAX, artifact: 0 })).await.0, 404);
    site.stop().await;
}

#[tokio::test]
async fn the_list_of_packages_has_every_page_once() {
    let site = Site::start(Limits::default()).await;
    assert_eq!(unchunked(&site.get("/api/v0/pkgs/list", &[]).await.body), "[]");
    let words = [VerdictWord::Reproduced, VerdictWord::Unreproducible, VerdictWord::Disputed, VerdictWord::Pending];
    let count = 2 * PackagePage::PACKAGES_MAX + 1;
    for at in 0..count {
        site.fake.add_package(package(&format!("p{at}"), words[at % 4]));
    }
    for prefix in ["", "/rebuilder/anybody"] {
        let answer = site.get(&format!("{prefix}/api/v0/pkgs/list"), &[]).await;
        let body: String = unchunked(&answer.body);
        let all: Vec<Value> = serde_json::from_str(&body).unwrap();
        let names: Vec<_> = all.iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, (0..count).map(|at| format!("p{at}")).collect::<Vec<_>>());
        let words: Vec<_> = all[..4].iter().map(|p| p["status"].as_str().unwrap()).collect();
        assert_eq!(words, ["GOOD", "BAD", "BAD", "UNKWN"]);
        let expect = json!({
            "name": "p0", "version": "1:2.10-3+b1", "status": "GOOD", "distro": "debian", "suite": "bookworm",
            "architecture": "amd64", "artifact_url": "/repo/stable/pool/main/h/hello/hello_2.10-3+b1_amd64.deb",
            "build_id": null, "built_at": null, "has_diffoscope": false, "has_attestation": true,
        });
        assert_eq!(all[0], expect);
    }
    site.stop().await;
}

/// Takes the lengths out of a body that was sent in chunks.
fn unchunked(body: &str) -> String {
    let (mut rest, mut all) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        all += &after[..size];
        rest = &after[(size + 2).min(after.len())..];
    }
    all
}

#[tokio::test]
async fn the_client_asks_the_same() {
    let site = site().await;
    let job = JobId::from_bytes([1; 32]);
    let by: OperatorName = operator(0);
    site.fake.add_buildinfo(job, by.clone(), &b"Format: 1.0\n"[..]);
    let digest = ArtifactQuery::Digest(Sha256::of(b"x"));
    let version = Some("1:2.10-3+b1");
    let queries = [
        digest.clone(),
        ArtifactQuery::Numbers(Numbers::of(&Sha256::of(b"x"))),
        ArtifactQuery::package((Some("hello"), version, Some("amd64"))).unwrap(),
    ];
    for client in [site.tcp_client(), site.unix_client()] {
        for query in &queries {
            let found = client.artifacts(query.clone()).await;
            assert_eq!(found, site.fake.artifacts(query.clone()).await);
            assert_eq!(found.unwrap().len(), 1);
        }
        assert_eq!(client.packages(None).await, site.fake.packages(None).await);
        assert_eq!(client.rebuilder(Some(by.clone())).await.unwrap().keys[0], "PEM 0");
        assert_eq!(client.rebuilder(None).await.unwrap().operator, operator(1));
        assert_eq!(&client.buildinfo(job, Some(by.clone())).await.unwrap()[..], b"Format: 1.0\n");
        assert!(client.buildinfo(job, Some(operator(1))).await.is_err());
    }
    site.stop().await;
}
