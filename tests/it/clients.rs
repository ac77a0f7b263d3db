//! Clients that others wrote, served by a real network: the answers themselves, and in [`judges`] the programs.

mod judges;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use attest::{dsse, link::Link, statement};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use harness::{Ground, Network, Plan, run, until};
use protocol::{JobId, OperatorName, Sha256};
use serde_json::Value;
use web::{
    Backend,
    api::{ArtifactQuery, AttemptState, JobState, VerdictWord},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(180);
const MIRROR_WITHIN: Duration = Duration::from_secs(40);
const DEB: &str = "artel-tiny_1.0_amd64.deb";
const TINY: &str = "name=artel-tiny&version=1.0&architecture=amd64";

/// Asks as old clients do, and gives status and body.
fn get(at: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {at}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// As [`get`], of what must be found.
pub(crate) fn json(at: &str, path: &str) -> Value {
    let (status, body) = get(at, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Has the builders serve their pages, too: `b1` at 127.0.0.2, `b2` at 127.0.0.3 and so on.
fn open_builders(network: &mut Network, count: u8) {
    for n in 1..=count {
        let node = network.node(&format!("b{n}"));
        let address = TcpListener::bind((format!("127.0.0.{}", n + 1), 0)).unwrap().local_addr().unwrap();
        let mut config = node.config();
        config.reach.web = address.to_string();
        config.save(&node.home).unwrap();
    }
}

/// Builds `artel-tiny` by three operators, publishes and mirrors it.
async fn published(ground: &Ground, builders: u8) -> (Network, JobId) {
    let plan = Plan { mirrors: vec!["mirror".into()], agree: 3, ask: 3, ..Plan::builders(builders) };
    let mut network = Network::found(ground, &plan);
    open_builders(&mut network, builders);
    network.start_some(&["coordinator", "mirror", "b1", "b2", "b3"]).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let mirror = network.client("mirror");
    until("the mirror has followed", MIRROR_WITHIN, async || {
        mirror.repositories().await.ok()?.into_iter().find(|view| view.generation > 0)
    })
    .await;
    (network, job)
}

/// Checks what a link's signatures are of, and counts them.
fn signatures(block: &Value, sha256: &Sha256) -> usize {
    let text = Link::of(DEB, sha256).unwrap().text();
    assert_eq!(block["signed"].to_string(), text, "what was signed, sorted and without spaces");
    block["signatures"].as_array().unwrap().len()
}

fn key_of(pem: &str) -> VerifyingKey {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let info = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
    VerifyingKey::from_bytes(info[info.len() - 32..].try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn any_node_answers_the_clients_of_rebuilders() {
    let Some(ground) = ground().await else { return };
    let (mut network, job) = published(&ground, 3).await;
    let detail = network.job(job).await;
    let sha256 = detail.attempts[0].outputs.iter().find(|o| o.name == DEB).unwrap().sha256;
    let home = network.node("mirror").home.path().to_owned();
    for name in ["coordinator", "mirror", "b1"] {
        let at = network.public_address(name);
        let found = json(&at, &format!("/api/v1/packages/binary?{TINY}"));
        assert_eq!((&found["total"], &found["records"][0]["status"]), (&1.into(), &"GOOD".into()), "{name}: {found}");
        let record = &found["records"][0];
        let path = format!("/api/v1/builds/{}/artifacts/{}/attestation", record["build_id"], record["artifact_id"]);
        assert_eq!(signatures(&json(&at, &path), &sha256), 3, "{name} has everybody's signatures");
        for operator in ["o1", "o2", "o3"] {
            let one = json(&at, &format!("/rebuilder/{operator}{path}"));
            assert_eq!(signatures(&one, &sha256), 1);
            let pem = json(&at, &format!("/rebuilder/{operator}/api/v1/meta/public-keys"));
            let signature = HEXLOWER.decode(one["signatures"][0]["sig"].as_str().unwrap().as_bytes()).unwrap();
            let key = key_of(pem["current"][0].as_str().unwrap());
            let signed = one["signed"].to_string();
            key.verify_strict(signed.as_bytes(), &Signature::from_slice(&signature).unwrap()).unwrap();
        }
        let (status, lines) = get(&at, &format!("/api/v1/artifacts/sha256:{sha256}/attestations"));
        let read = |line: &str| statement::read(line.as_bytes(), &network.id).unwrap();
        let attested: Vec<_> = lines.lines().map(read).collect();
        assert_eq!((status, attested.len()), (200, 3), "{name}");
        assert!(attested.iter().all(|a| a.get().task.job == job && a.get().outputs.iter().any(|o| o.sha256 == sha256)));
        let (status, summary) = get(&at, &format!("/api/v1/artifacts/sha256:{sha256}/summary"));
        let summary = dsse::Envelope::read(summary.trim_end().as_bytes(), 1 << 20).unwrap();
        // A node without a repository hands on what the coordinator proved.
        let by = network.id_of(if name == "b1" { "coordinator" } else { name });
        assert_eq!((status, summary.signers(&[by.into()]).len()), (200, 1), "{name}");
        let proved: Value = serde_json::from_slice(summary.payload()).unwrap();
        assert_eq!(proved["predicate"]["properties"][0], "ARTEL_REPRODUCED_BY_3");
        let listed = json(&at, "/api/v0/pkgs/list");
        let good = listed.as_array().unwrap().iter().filter(|p| p["status"] == "GOOD").count();
        assert_eq!(good, 2, "{name}: artel-tiny and artel-tiny-doc in {listed}");
        let none = get(&at, &format!("/api/v1/artifacts/sha256:{}/attestations", Sha256::of(b"nothing")));
        assert_eq!(none.0, 404, "{name}");
    }
    // Whose node it is, without a prefix; a mirror is nobody's.
    let own = json(&network.public_address("b1"), "/api/v1/meta/public-keys");
    assert_eq!(own, json(&network.public_address("mirror"), "/rebuilder/o1/api/v1/meta/public-keys"));
    assert_eq!(get(&network.public_address("mirror"), "/api/v1/meta/public-keys").0, 404);

    for operator in ["o1", "o2", "o3"] {
        let id = job.to_string();
        let arguments = ["--home", home.to_str().unwrap(), "job", "buildinfo", &id, "--operator", operator];
        let said = run(&ground.artel, network.folder(), &arguments).await;
        assert_eq!(said.code, 0, "{said:?}");
        let lines: Vec<&str> = said.out.lines().collect();
        let names = ["Format: 1.0", "Source: artel-tiny", "Version: 1.0", "Checksums-Md5:", "Installed-Build-Depends:"];
        assert!(names.iter().all(|name| lines.contains(name)), "{}", said.out);
        assert!(lines.iter().any(|line| line.contains(&sha256.to_string()) && line.ends_with(DEB)), "{}", said.out);
    }
    // A mirror needs nobody for what it has.
    network.node("coordinator").stop().await;
    let at = network.public_address("mirror");
    assert_eq!(json(&at, &format!("/api/v1/packages/binary?{TINY}"))["total"], 1);
    assert_eq!(get(&at, &format!("/api/v1/artifacts/sha256:{sha256}/attestations")).1.lines().count(), 3);
}

#[tokio::test]
async fn only_what_is_reproduced_is_told_as_good() {
    let Some(ground) = ground().await else { return };
    let mut plan = Plan::builders(2);
    plan.builders[0] = plan.builders[0].clone().lying();
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1"]).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let built = |d: &web::api::JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Built);
    let detail = network.job_until((job, "the liar has built it"), WITHIN, built).await;
    assert!(detail.attempts.iter().all(|a| a.outputs.is_empty()), "nobody sees what before the verdict: {detail:#?}");
    let at = network.public_address("coordinator");
    let status = |name: &str| {
        let listed = json(&at, "/api/v0/pkgs/list");
        let found = listed.as_array().unwrap().iter().find(|p| p["name"] == name);
        found.map(|p| p["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(status("artel-tiny").as_deref(), Some("UNKWN"), "no verdict yet");
    assert_eq!(network.coordinator().buildinfo(job, None).await.map_err(|e| e.status()), Err(404));

    network.start_some(&["b2"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Unreproducible, "{detail:#?}");
    // A liar changes its first file.
    let of_liar = detail.attempts.iter().filter(|a| a.builder.node == network.id_of("b1"));
    let lie = of_liar.flat_map(|a| &a.outputs).find(|o| o.name.starts_with("artel-tiny-doc")).unwrap().sha256;
    let attestations = format!("/api/v1/artifacts/sha256:{lie}/attestations");
    assert_eq!((status("artel-tiny").as_deref(), status("artel-tiny-doc").as_deref()), (Some("BAD"), Some("BAD")));
    assert_eq!(get(&at, &attestations).1.lines().count(), 1, "who said it is told");
    let found = network.coordinator().artifacts(ArtifactQuery::Digest(lie)).await.unwrap();
    assert_eq!((found[0].verdict, found[0].attestations.len()), (VerdictWord::Unreproducible, 1));
    let numbers = web::api::Numbers::of(&lie);
    let link = format!("/api/v1/builds/{}/artifacts/{}/attestation", numbers.build, numbers.artifact);
    assert_eq!(get(&at, &link).0, 404, "a link is believed without its job");
    assert_eq!(json(&at, &format!("/api/v1/packages/binary?{TINY}"))["total"], 0);
    let operator: OperatorName = "o2".parse().unwrap();
    let text = network.coordinator().buildinfo(job, Some(operator)).await.unwrap();
    assert!(text.starts_with(b"Format: 1.0\n"), "how each builder saw it helps to find out why");
}
