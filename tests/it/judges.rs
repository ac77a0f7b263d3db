//! Attestations and links of real builds, shown to libraries that nobody here wrote.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use attest::bundle::Bundle;
use harness::{Network, Plan, run};
use protocol::words::RelativePath;
use web::{Backend, api::JobState, backend::ByteRange};

use crate::{SITE, clients::json, ground};

const WITHIN: Duration = Duration::from_secs(120);
const LIBRARIES: [&str; 4] = ["securesystemslib", "in-toto-attestation", "in-toto==3.1.0", "cryptography"];
/// Mutations that each judge must refuse, at least.
const MUTATIONS_MIN: usize = 20;

/// Makes a virtual environment with the judges, once; `None` with the reason when they cannot be had.
async fn judge_python() -> Option<PathBuf> {
    let folder = Path::new(SITE.folder).join("judges");
    let (python, done) = (folder.join("bin/python"), folder.join("complete"));
    if fs::read_to_string(&done).is_ok_and(|libraries| libraries == LIBRARIES.join("\n")) {
        return Some(python);
    }
    let venv = run(Path::new("python3"), Path::new(SITE.folder), &["-m", "venv", folder.to_str().unwrap()]).await;
    if venv.code != 0 {
        assert!(std::env::var("ARTEL_TESTS").as_deref() != Ok("required"), "must not be skipped");
        println!("SKIPPED: python3 makes no virtual environment: {}", venv.talk);
        return None;
    }
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let said = run(&python, &folder, &[&arguments[..], &LIBRARIES[..]].concat()).await;
    if said.code != 0 {
        assert!(std::env::var("ARTEL_TESTS").as_deref() != Ok("required"), "must not be skipped");
        println!("SKIPPED: pip cannot install {}: {}", LIBRARIES.join(", "), said.talk);
        return None;
    }
    fs::write(done, LIBRARIES.join("\n")).unwrap();
    Some(python)
}

/// Runs a judge, which must accept what it is given and refuse every mutation of it.
async fn convince(python: &Path, network: &Network, judge: &str, arguments: &[&str]) {
    let judge = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/judges")).join(judge);
    let said = run(python, network.folder(), &[&[judge.to_str().unwrap()], arguments].concat()).await;
    assert_eq!(said.code, 0, "{said:?}");
    let last = said.out.lines().next_back().unwrap_or_default();
    println!("{last}");
    let numbers: Vec<usize> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(numbers[..], [refused, all] if refused == all && all >= MUTATIONS_MIN), "{said:?}");
}

#[tokio::test]
async fn foreign_libraries_accept_attestations_and_links_of_a_build() {
    let Some(ground) = ground().await else { return };
    let Some(python) = judge_python().await else { return };
    let mut network = Network::found(&ground, &Plan { agree: 3, ask: 3, ..Plan::builders(3) });
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let bundle = Bundle::from_bytes(&network.coordinator().bundle(job).await.unwrap()).unwrap();
    assert_eq!(bundle.attestations.len(), 3);
    let folder = network.folder().join("links");
    fs::create_dir(&folder).unwrap();
    let at = network.public_address("coordinator");
    let found = json(&at, "/api/v1/packages/binary?name=artel-tiny&version=1.0&architecture=amd64");
    let record = &found["records"][0];
    let mut keys = Vec::new();
    for (number, attestation) in bundle.attestations.iter().enumerate() {
        let file = network.folder().join(format!("attestation-{number}.json"));
        fs::write(&file, &attestation.0).unwrap();
        let node = attest::statement::read(&attestation.0, &network.id).unwrap().signer();
        convince(&python, &network, "attestation.py", &[file.to_str().unwrap(), &node.to_string()]).await;
        let operator = network.name_of(&node).replace('b', "o");
        let (build, artifact) = (&record["build_id"], &record["artifact_id"]);
        let link = json(&at, &format!("/rebuilder/{operator}/api/v1/builds/{build}/artifacts/{artifact}/attestation"));
        fs::write(folder.join(format!("{number}.json")), link.to_string()).unwrap();
        keys.push(node.to_string());
    }
    let deb = RelativePath::new("pool/main/a/artel-tiny/artel-tiny_1.0_amd64.deb").unwrap();
    let package = network.coordinator().repository_file(network.channel.clone(), deb, ByteRange::All).await.unwrap();
    let file = network.folder().join("artel-tiny_1.0_amd64.deb");
    fs::write(&file, package.collect(16 << 20).await.unwrap()).unwrap();
    let mut arguments = vec![folder.to_str().unwrap(), file.to_str().unwrap()];
    arguments.extend(keys.iter().map(String::as_str));
    convince(&python, &network, "layout.py", &arguments).await;
}
