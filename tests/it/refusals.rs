//! Bad input of every kind: each is refused in words of its own, and nothing is lost.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use artel::{clock, keys, submit::Prepared};
use ed25519_dalek::SigningKey;
use harness::{Ground, Network, Plan, until};
use protocol::{
    Hash, NetworkId, Sha256,
    blame::{Blame, Fault},
    envelope::Signed,
    job::{JobKind, JobRequest},
    limits,
};
use web::{
    Backend,
    api::{ApiError, AttemptState, JobDetail, JobFilter, JobState},
    backend::ByteRange,
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

fn signed(network: &Network, prepared: &Prepared, key: &SigningKey) -> Vec<u8> {
    prepared.sign(&network.wish(), network.id, clock::now(), key).unwrap().to_bytes()
}

/// The same request for another network, in a valid envelope of this one.
fn for_another(network: &Network, prepared: &Prepared) -> Vec<u8> {
    let request = prepared.sign(&network.wish(), network.id, clock::now(), &network.maintainer).unwrap();
    let request = request.verify(Some(&network.id)).unwrap().into_inner();
    let request = JobRequest { network: NetworkId::from_bytes([9; 32]), ..request };
    Signed::sign(&request, Some(&network.id), &[&network.maintainer]).to_bytes()
}

async fn jobs(network: &Network) -> usize {
    network.coordinator().jobs(JobFilter::default()).await.unwrap().jobs.len()
}

async fn refused(network: &Network, request: Vec<u8>, words: &str) {
    for door in [network.public("coordinator"), network.coordinator()] {
        let error = door.submit(request.clone().into()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
        assert!(!matches!(error, ApiError::Internal | ApiError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn bad_requests_are_refused_each_in_its_own_words_and_good_ones_count_once() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let prepared = ground.script("hello", "echo hello > out");
    let good = signed(&network, &prepared, &network.maintainer);
    refused(&network, good.clone(), "is not on this node; upload it first").await;
    prepared.upload(&network.coordinator()).await.unwrap();

    let stranger = keys::generate().unwrap();
    refused(&network, signed(&network, &prepared, &stranger), "is no maintainer of this network").await;
    let uploaded = network.coordinator().blob(prepared.files[0].0, ByteRange::All).await;
    let uploaded = uploaded.map(|content| content.size);
    assert!(matches!(uploaded, Err(ApiError::NotFound { .. })), "a stranger's word offers nothing: {uploaded:?}");
    let elsewhere = NetworkId::from_bytes([9; 32]);
    let foreign = prepared.sign(&network.wish(), elsewhere, clock::now(), &network.maintainer).unwrap().to_bytes();
    refused(&network, foreign, "record is of type").await;
    refused(&network, for_another(&network, &prepared), "the request is for network").await;
    refused(&network, [good.clone(), vec![0]].concat(), "refused").await;
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    refused(&network, changed, "refused").await;
    refused(&network, b"hello".to_vec(), "refused").await;
    refused(&network, Vec::new(), "refused").await;
    refused(&network, vec![0x5a; limits::REQUEST_MAX + 1], "refused").await;
    assert_eq!(jobs(&network).await, 0, "nothing of it became a job");

    let client = network.coordinator();
    let first = client.submit(good.clone().into()).await.unwrap();
    let again = client.submit(good.clone().into()).await.unwrap();
    assert_eq!(first, again, "a replayed request gets the same receipt");
    let detail = network.over(first.job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let late = client.submit(good.into()).await.unwrap();
    assert_eq!((late, jobs(&network).await), (first, 1), "also when the job is long over");
}

/// Makes a job whose input is not what its SHA-256 says, as somebody with a tampered archive would.
fn tampered_source(ground: &Ground) -> Prepared {
    let mut prepared = ground.deb("artel-tiny_1.0.dsc");
    let JobKind::Deb(deb) = &mut prepared.kind else { panic!("a package is a deb job") };
    let tarball = deb.files.iter_mut().find(|f| f.name.as_str().ends_with(".tar.xz")).unwrap();
    tarball.sha256 = Sha256::of(b"what the maintainer saw");
    prepared
}

/// Makes a job whose environment has a package with other bytes than its lock says.
fn tampered_package(ground: &Ground, network: &Network) -> Prepared {
    let mut prepared = ground.script("hello", "echo hello > out");
    let package = &mut prepared.lock.packages[0];
    let (old, file) = (package.hash, network.folder().join("tampered.deb"));
    let original = prepared.files.iter().find(|(hash, _)| *hash == old).unwrap().1.clone();
    let mut bytes = fs::read(original).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    package.hash = Hash::of(&bytes);
    fs::write(&file, bytes).unwrap();
    prepared.files.push((package.hash, file));
    prepared.files.retain(|(hash, _)| *hash != old);
    prepared
}

fn all_mismatch(detail: &JobDetail, file: &str) {
    assert_eq!(detail.summary.state, JobState::Failed, "{detail:#?}");
    assert_eq!(detail.attempts.len(), 2, "every operator saw it for itself");
    for attempt in &detail.attempts {
        let failure = attempt.failure.as_ref().unwrap();
        assert_eq!(failure.blame, Blame::InputMismatch, "{failure:?}");
        assert!(failure.what.contains(file) && failure.what.contains("sha256"), "{failure:?}");
    }
    assert!(detail.published.is_none() && detail.summary.why.contains(file), "{}", detail.summary.why);
}

#[tokio::test]
async fn tampered_inputs_are_found_by_every_builder_and_the_next_job_succeeds() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let job = network.submit(&tampered_source(&ground)).await;
    all_mismatch(&network.over(job, WITHIN).await, "artel-tiny_1.0.tar.xz");
    let package = ground.lock.packages[0].file.to_string();
    let job = network.submit(&tampered_package(&ground, &network)).await;
    all_mismatch(&network.over(job, WITHIN).await, &package);
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Published);
}

/// Flips a byte in the file of the coordinator's blob store that holds a content.
async fn damage(network: &mut Network, content: &[u8]) {
    let (folder, name) = (network.node("coordinator").home.blobs(), Hash::of(content).to_string());
    let file = until("the content lies in a file", WITHIN, async || {
        let path = find(&folder, &name)?;
        (fs::read(&path).ok()? == content).then_some(path)
    })
    .await;
    let file = fs::File::options().write(true).open(file).unwrap();
    let (at, byte) = (2_000_000, content[2_000_000] ^ 1);
    std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at).unwrap();
}

/// Finds a file below a folder whose name, without its ending, is this.
fn find(folder: &Path, stem: &str) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut paths = paths.filter_map(|path| if path.is_dir() { find(&path, stem) } else { Some(path) });
    paths.find(|path| path.extension().is_some_and(|e| e == "data") && path.file_stem().is_some_and(|s| s == stem))
}

#[tokio::test]
async fn a_flipped_byte_in_a_store_is_noticed_and_fetched_from_somebody_else() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start_some(&["coordinator", "b1"]).await;
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = network.folder().join("numbers");
    fs::write(&file, &content).unwrap();
    let script = "sha256sum numbers | tee out";
    let job = network.submit(&ground.with_input(ground.script("sum", script), "numbers", &file)).await;
    let built = |d: &JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Built);
    network.job_until((job, "the first builder has built it"), WITHIN, built).await;

    damage(&mut network, &content).await;
    network.start_some(&["b2"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "the first builder has it, too: {detail:#?}");
    assert!(detail.attempts.iter().all(|a| a.state == AttemptState::Built), "{detail:#?}");

    // Nobody else has what only the coordinator was given.
    let mut other = content;
    other[7] ^= 1;
    fs::write(&file, &other).unwrap();
    let lonely = ground.with_input(ground.script("sum", script), "numbers", &file);
    lonely.upload(&network.coordinator()).await.unwrap();
    damage(&mut network, &other).await;
    // Not through `submit`, which would upload once more and so repair the store.
    let request = signed(&network, &lonely, &network.maintainer);
    let job = network.coordinator().submit(request.into()).await.unwrap().job;
    let failed = |d: &JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Failed);
    let detail = network.job_until((job, "a builder says what is wrong"), WITHIN, failed).await;
    let failure = detail.attempts.iter().find_map(|a| a.failure.clone()).unwrap();
    println!("a damaged blob that nobody else has: {} ({})", failure.what, failure.blame.word());
    assert_eq!(
        (failure.blame, failure.step.as_str()),
        (Blame::Builder(Fault::Fetch), "fetch"),
        "the package is not blamed"
    );
    assert!(detail.attempts.iter().all(|a| a.outputs.is_empty()), "wrong bytes are never built: {detail:#?}");
    let signed = |d: &JobDetail| d.logged.iter().any(|a| a.words() == "failed" && a.statement.is_some());
    network.job_until((job, "the log names what the builder signed about itself"), WITHIN, signed).await;
}
