//! Attacks on running networks: each is carried out with keys and messages that the network takes for real, and none counts.
//!
//! Other attacks have modules of their own: `copycat`, `witness` (two histories), `policy` (expired, too few roots, revoked
//! keys), `hostile` (strangers' code), `verdicts` (liars).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use artel::keys;
use attest::statement::{Attestation, Work};
use ed25519_dalek::SigningKey;
use harness::{BuilderPlan, Copycat, Forker, Ground, Memory, Network, Plan, Sybil, Took, run, sybil::LIE, until};
use protocol::{
    Arch, JobId, NetworkId, NodeId, OperatorName, Signed,
    lease::Lease,
    message::{Octets, Refusal, Request, Response},
    release::{Manifest, Release},
    words::RelativePath,
};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState},
    backend::ByteRange,
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// How soon a mirror that follows asks for the newest release.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// The log shows what was decided so soon.
const LOGGED_WITHIN: Duration = Duration::from_secs(20);

fn agreed(detail: &JobDetail) -> Vec<String> {
    detail.verdict.iter().flat_map(|verdict| &verdict.agree).map(OperatorName::to_string).collect()
}

async fn generation(network: &Network, name: &str) -> u64 {
    let views = network.client(name).repositories().await.unwrap();
    views.iter().map(|view| view.generation).max().unwrap_or(0)
}

/// Keys that one person has.
const KEYS: usize = 1000;
/// What they may cost the coordinator, in KiB.
const COST_KIB_MAX: u64 = 64 * 1024;

#[tokio::test]
async fn a_thousand_keys_of_one_operator_are_one_voice() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { ask_max: 3, ..Plan::builders(2) });
    let coordinator = network.node("coordinator");
    let mut config = coordinator.config();
    config.reach.connections = 256;
    config.save(&coordinator.home).unwrap();
    network.start_some(&["coordinator"]).await;
    let package = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let mut jobs = vec![package];
    for name in ["one", "two", "three"] {
        jobs.push(network.submit(&ground.script(name, "echo what was built > out")).await);
    }
    let keys: Vec<SigningKey> = (0..KEYS).map(|_| keys::generate().unwrap()).collect();
    let memory = Memory::of(network.node("coordinator").pid());

    // The policy does not name them.
    let begun = Instant::now();
    let took = attack(&mut network, &keys, &jobs).await;
    assert_eq!(took, Took { strangers: KEYS as u32, ..Took::default() });
    let seconds = begun.elapsed().as_secs_f64();
    println!("figure: {KEYS} strangers' keys: all refused in {seconds:.1} s, {}", memory.cost());
    assert!(memory.peak_kib() <= COST_KIB_MAX, "{}", memory.cost());

    // It does, as one operator's.
    let mut nodes: Vec<NodeId> = keys.iter().map(|key| NodeId::from(keys::public(key))).collect();
    nodes.sort();
    let operator = OperatorName::new("sybil").unwrap();
    network.change_policy(|charter| drop(charter.operators.insert(operator, nodes))).await;
    let begun = Instant::now();
    let took = attack(&mut network, &keys, &jobs).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!("figure: {KEYS} keys of one operator: {took:?} in {seconds:.1} s, {}", memory.cost());
    assert!(memory.peak_kib() <= COST_KIB_MAX, "{}", memory.cost());
    assert_eq!((took.bids + took.late, took.strangers), (KEYS as u32, 0));
    assert_eq!((took.leases, took.results), (4, 4), "each job got one lie, from whichever key came first");
    for job in &jobs {
        let detail = network.job(*job).await;
        assert!(!detail.summary.state.is_over() && agreed(&detail).len() < 2, "{detail:#?}");
    }
    assert_eq!(generation(&network, "coordinator").await, 0, "nothing was published");

    // Two others outvote them.
    network.start_some(&["b1", "b2"]).await;
    for job in &jobs {
        let detail = network.over(*job, WITHIN).await;
        let wanted = if *job == package { JobState::Published } else { JobState::Reproduced };
        assert_eq!(detail.summary.state, wanted, "{detail:#?}");
        assert_eq!(agreed(&detail), ["o1", "o2"], "{detail:#?}");
        let dissent = detail.verdict.unwrap().dissent;
        assert!(!dissent.is_empty() && dissent.iter().all(|d| d.operator.as_str() == "sybil"), "{dissent:#?}");
    }
    let bytes = published(&network, "coordinator").await;
    assert!(bytes.starts_with(b"!<arch>\n") && bytes != LIE, "the honest package is published");
}

async fn attack(network: &mut Network, keys: &[SigningKey], jobs: &[JobId]) -> Took {
    let bootstrap = network.node("b1").config().network.bootstrap[..1].to_vec();
    let (coordinator, jobs) = (network.id_of("coordinator"), jobs.to_vec());
    Sybil { network: network.id, coordinator, bootstrap, jobs }.attack(keys.to_vec()).await
}

/// The package of the fixture, as a node serves it.
async fn published(network: &Network, name: &str) -> Vec<u8> {
    let arch = Arch::native().unwrap();
    let path: RelativePath = format!("pool/main/a/artel-tiny/artel-tiny_1.0_{arch}.deb").parse().unwrap();
    let file = network.client(name).repository_file(network.channel.clone(), path, ByteRange::All).await.unwrap();
    file.collect(1 << 20).await.unwrap().to_vec()
}

/// What the job's builders make.
const SAME: &[u8] = b"the same\n";

#[tokio::test]
async fn an_attestation_of_something_else_is_refused_and_never_counted() {
    let Some(ground) = ground().await else { return };
    let names = ["x1", "x2", "x3", "x4", "x5"];
    let mut plan = Plan { ask_max: 7, ..Plan::builders(2) };
    plan.builders.extend(names.map(|name| BuilderPlan::of(name, name)));
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1"]).await;

    // Under its own lease the same statement counts, so nothing else is wrong with it.
    let mut first = join(&mut network, "x1").await;
    let other = network.submit(&ground.script("same", "echo the same > out")).await;
    let lease = first.lease(other).await;
    let counted = first.sign(&first.claim(&lease, SAME).await);
    let digest = first.bind(lease.number, &counted);
    until("it may show its result", WITHIN, async || {
        (first.commit(&lease, digest).await == Response::Reveal).then_some(())
    })
    .await;
    assert_eq!(first.show_statement(lease.number, counted.clone()).await, Response::Done);
    let detail = network.over(other, WITHIN).await;
    assert_eq!((detail.summary.state, agreed(&detail)), (JobState::Reproduced, vec!["o1".into(), "x1".into()]));

    // For another job of the same bytes, nothing of it does.
    let job = network.submit(&ground.script("same", "echo the same > out")).await;
    let lease = first.lease(job).await;
    refused(&first, &lease, counted, &format!("attestation says job {other}")).await;
    drop(first);
    changed(&mut network, ("x2", job), |claim| claim.task.job = other, "attestation says job").await;
    let foreign = if Arch::native() == Some(Arch::Arm64) { Arch::Amd64 } else { Arch::Arm64 };
    changed(&mut network, ("x3", job), |claim| claim.task.arch = foreign, "attestation says architecture").await;
    let elsewhere = NetworkId::from_bytes([9; 32]);
    changed(&mut network, ("x4", job), |claim| claim.task.network = elsewhere, "attestation is for network").await;
    let package = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let newer = |claim: &mut Attestation| {
        let Work::Deb { version, .. } = &mut claim.task.work else { panic!("{claim:?}") };
        *version = "1.1".parse().unwrap();
    };
    changed(&mut network, ("x5", package), newer, "attestation says work deb artel-tiny 1.1").await;

    network.start_some(&["b2"]).await;
    for (job, state) in [(job, JobState::Reproduced), (package, JobState::Published)] {
        let detail = network.over(job, WITHIN).await;
        assert_eq!((detail.summary.state, agreed(&detail)), (state, vec!["o1".into(), "o2".into()]), "{detail:#?}");
        assert!(detail.verdict.unwrap().dissent.is_empty(), "it is not even an opinion");
    }
    for name in names {
        let id = network.id_of(name);
        let attempts = [network.job(job).await, network.job(package).await].map(|detail| detail.attempts).concat();
        let attempt = attempts.into_iter().find(|attempt| attempt.builder.node == id).unwrap();
        let view = network.coordinator().peer(id).await.unwrap();
        let blamed = view.classes.iter().any(|class| !class.evidence.is_empty());
        // What is signed for another network is turned away at the door: it stays a commitment that was never opened.
        let (ends, blames) = if name == "x4" { (AttemptState::Lost, false) } else { (AttemptState::Failed, true) };
        assert_eq!((attempt.state, blamed), (ends, blames), "{name}: {attempt:#?} {view:#?}");
    }
}

async fn join(network: &mut Network, name: &str) -> Copycat {
    let folder = network.folder().join(format!("{name}-fetched"));
    Copycat::join(network, name, &folder).await
}

/// Commits to a statement and shows exactly that.
async fn refused(member: &Copycat, lease: &Lease, statement: Vec<u8>, words: &str) {
    let digest = member.bind(lease.number, &statement);
    let answer = member.commit(lease, digest).await;
    assert!(matches!(answer, Response::Done | Response::Reveal), "{answer:?}");
    let answer = member.show_statement(lease.number, statement).await;
    let Response::Refused(Refusal::Invalid(why)) = &answer else { panic!("{words}: {answer:?}") };
    assert!(why.contains(words), "{words}: {why}");
    println!("refused: {why}");
}

/// A member's right statement with one thing changed.
async fn changed(
    network: &mut Network,
    (name, job): (&str, JobId),
    change: impl FnOnce(&mut Attestation),
    words: &str,
) {
    let mut member = join(network, name).await;
    let lease = member.lease(job).await;
    let mut claim = member.claim(&lease, SAME).await;
    change(&mut claim);
    refused(&member, &lease, member.sign(&claim), words).await;
}

#[tokio::test]
async fn a_failure_that_is_kept_silent_is_a_gap_in_the_log() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(3));
    network.start_some(&["coordinator"]).await;
    let mut silent = join(&mut network, "b1").await;
    let job = network.submit(&ground.script("told-by-two", "echo done > out")).await;
    silent.begin(job).await;
    let home = network.node("coordinator").home.path().to_owned();
    let shown = |what: &'static str, open: &'static str| log_shows(&ground.artel, &home, (what, open));
    let listed = shown("the log shows its lease", "1 leases without an outcome").await;
    let of_silent = |listed: &str, word: &str| -> Vec<String> {
        let is_its = |line: &&str| line.contains(&format!(" {word} ")) && line.contains(" o1");
        listed.lines().filter(is_its).map(str::to_owned).collect()
    };
    assert_eq!((of_silent(&listed, "lease").len(), of_silent(&listed, "outcome").len()), (1, 0), "{listed}");

    network.start_some(&["b2", "b3"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!((detail.summary.state, agreed(&detail)), (JobState::Reproduced, vec!["o2".into(), "o3".into()]));
    let attempt = detail.attempts.iter().find(|attempt| attempt.builder.node == silent.id).unwrap();
    assert_eq!(attempt.state, AttemptState::Lost, "{attempt:?}");
    let listed = shown("the log has closed the gap", "0 leases without an outcome").await;
    let outcomes = of_silent(&listed, "outcome");
    assert!(outcomes.len() == 1 && outcomes[0].contains("nothing came"), "{listed}");
    let verdict = listed.lines().find(|line| line.contains(" verdict ")).unwrap();
    assert!(verdict.contains("reproduced, 2 attestations"), "{verdict}");
}

/// What `artel log ls` prints, once `artel log verify` says so much of the open leases.
async fn log_shows(artel: &Path, home: &Path, (what, open): (&str, &str)) -> String {
    until(what, LOGGED_WITHIN, async || {
        let said = run(artel, home, &["log", "verify"]).await;
        (said.code == 0 && said.out.contains(open)).then_some(())
    })
    .await;
    run(artel, home, &["log", "ls", "--from", "0"]).await.out
}

#[tokio::test]
async fn a_mirror_takes_no_older_release_and_keeps_the_proof_of_two_contents() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1", "b2", "mirror"]).await;
    let member = join(&mut network, "b3").await;
    let mut releases = Vec::new();
    for (number, version) in [(1, "1.0"), (2, "1.1")] {
        releases.push(release(&network, &ground, &member, (number, version)).await);
    }
    let newest = read(&network, &releases[1]);
    let manifest = Manifest::from_bytes(&member.fetch(newest.manifest).await).unwrap();
    let index = network.repository_root("mirror").join(format!("dists/{}/InRelease", ground.lock.suite));
    let before = fs::read(&index).unwrap();

    network.node("coordinator").kill();
    let hostile = Forker::take_over(&mut network, &BTreeMap::new()).await;
    hostile.offer(releases[0].clone());
    until("the mirror was shown the older release", ASKED_WITHIN, async || (hostile.asked() >= 1).then_some(())).await;
    assert_eq!((generation(&network, "mirror").await, fs::read(&index).unwrap()), (2, before.clone()));

    // The same generation without its packages.
    let files = manifest.files.into_iter().filter(|file| !file.path.as_str().starts_with("pool/")).collect();
    let manifest = hostile.hold(Manifest { files, packages: Vec::new() }.to_bytes()).await;
    let other = Signed::sign(&Release { manifest, ..newest.clone() }, Some(&network.id), &[hostile.key()]).to_bytes();
    hostile.offer(other.clone());
    let name = format!("evidence/fork-{}-2", network.channel);
    let folder = network.node("mirror").home.path().join(name);
    let kept = until("the mirror keeps both releases", ASKED_WITHIN, async || {
        let kept = fs::read_dir(&folder).ok()?.map(|file| fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>();
        (kept.len() == 2).then_some(kept)
    })
    .await;
    assert!(kept.contains(&releases[1]) && kept.contains(&other), "both signatures are kept");
    assert_eq!((generation(&network, "mirror").await, fs::read(&index).unwrap()), (2, before));
    assert!(network.node("mirror").log().contains("one generation was signed with two contents"));
}

/// Disks lose folders. A coordinator that has its database, but neither its repository nor its blobs, has published by its own ledger.
#[tokio::test]
async fn a_coordinator_that_lost_its_repository_goes_on_from_a_mirrors() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1", "b2", "mirror"]).await;
    let member = join(&mut network, "b3").await;
    release(&network, &ground, &member, (1, "1.0")).await;
    let channel = network.channel.clone();
    let home = &network.node("coordinator").home;
    let lost = [home.repository(&channel), home.blobs()];
    network.node("coordinator").stop().await;
    for folder in lost {
        fs::remove_dir_all(folder).unwrap();
    }
    network.start_some(&["coordinator"]).await;
    release(&network, &ground, &member, (2, "1.1")).await;
    let log = network.node("coordinator").log();
    let writes = |generation: u32| log.matches(&format!("repository published generation={generation} ")).count();
    assert_eq!((writes(1), writes(2)), (2, 1), "it has the first one again, and continues it");
}

/// Publishes a version, waits until the mirror has it, and gives the signed release.
async fn release(network: &Network, ground: &Ground, member: &Copycat, (number, version): (u64, &str)) -> Vec<u8> {
    let job = network.submit(&ground.tiny_version(version, network.folder())).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    until("the mirror has it", ASKED_WITHIN, async || (generation(network, "mirror").await == number).then_some(()))
        .await;
    let answer = member.ask(Request::Release(network.channel.clone())).await;
    let Response::Record(Octets(bytes)) = answer else { panic!("{answer:?}") };
    assert_eq!(read(network, &bytes).generation, number);
    bytes
}

fn read(network: &Network, bytes: &[u8]) -> Release {
    Signed::<Release>::read(bytes).and_then(|signed| signed.verify(Some(&network.id))).unwrap().get().clone()
}
