//! Attestations of real builds, shown to libraries that nobody here wrote.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use attest::bundle::Bundle;
use harness::{Network, Plan, run};
use web::{Backend, api::JobState};

use crate::{SITE, ground};

const WITHIN: Duration = Duration::from_secs(120);
const LIBRARIES: [&str; 3] = ["securesystemslib", "in-toto-attestation", "cryptography"];

/// Makes a virtual environment with the judges, once; `None` with the reason when they cannot be had.
async fn judge_python() -> Option<PathBuf> {
    let folder = Path::new(SITE.folder).join("judges");
    let (python, done) = (folder.join("bin/python"), folder.join("complete"));
    if done.exists() {
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

#[tokio::test]
async fn foreign_libraries_accept_every_attestation_of_a_build() {
    let Some(ground) = ground().await else { return };
    let Some(python) = judge_python().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let bundle = Bundle::from_bytes(&network.coordinator().bundle(job).await.unwrap()).unwrap();
    assert_eq!(bundle.attestations.len(), 2);
    let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/judges/attestation.py");
    for (number, attestation) in bundle.attestations.iter().enumerate() {
        let file = network.folder().join(format!("attestation-{number}.json"));
        fs::write(&file, &attestation.0).unwrap();
        let read = attest::statement::read(&attestation.0, &network.id).unwrap();
        let key = read.get().run.node.to_string();
        let said = run(&python, network.folder(), &[judge, file.to_str().unwrap(), &key]).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("17 of 17 mutations refused") || said.out.contains("mutations refused"), "{said:?}");
        println!("{}", said.out.lines().next_back().unwrap_or_default());
    }
}
