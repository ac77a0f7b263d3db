//! The transparency log of real networks: what it says, who serves it, and that it goes on without a fork.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use artel::{
    keys,
    submit::Prepared,
    tlog::{Reader, Remote, Source},
};
use attest::log::{
    checkpoint::{Signed, Verified},
    entry::{End, Entry, Event},
    network,
    story::Story,
    tile::{self, Resource, Tile},
    tree::Head,
};
use harness::{Network, Plan, run, until};
use protocol::{
    JobId, codec,
    environment::EnvironmentLock,
    job::{CommandJob, Isolation, JobKind},
    message::Octets,
};
use web::{Client, api::JobState};

use crate::{
    SITE,
    elected::{ANOTHER_WITHIN, WITHIN},
    ground,
};

/// A node serves what was decided so soon.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

/// A log over HTTP.
pub(crate) type Served = Remote<Client>;

pub(crate) fn served(network: &Network, name: &str) -> Served {
    Remote(network.public(name))
}

/// The newest checkpoint, once one of the network's coordinators signed it.
pub(crate) async fn checkpoint(network: &Network, served: &Served) -> Option<Verified> {
    let keys = network::log_keys(&network.id, &network.charter.to_policy().unwrap());
    let bytes = served.fetch(Resource::Checkpoint).await.ok()?;
    Some(Signed::read(&bytes).unwrap().verify(&keys).unwrap())
}

/// Every entry up to a checkpoint as bytes, each proven by it.
pub(crate) async fn bytes(served: &Served, checkpoint: &Verified) -> Vec<Vec<u8>> {
    let (mut reader, mut entries) = (Reader::new(served, checkpoint.head()), Vec::new());
    while (entries.len() as u64) < checkpoint.head().size {
        let (first, bundle) = reader.bundle_with(entries.len() as u64).await.unwrap();
        assert_eq!(first, entries.len() as u64);
        entries.extend(bundle);
    }
    entries
}

async fn entries(served: &Served, checkpoint: &Verified) -> Vec<Entry> {
    bytes(served, checkpoint).await.iter().map(|bytes| Entry::from_bytes(bytes).unwrap()).collect()
}

/// Who signed, by name.
fn signer(network: &Network, checkpoint: &Verified) -> String {
    let note = checkpoint.as_signed().note();
    let names = network.candidates().iter();
    let mut signed = names.filter(|name| {
        let key = network::log_key(&network.id, &network.id_of(name));
        note.lines().iter().any(|line| line.is_by(&key))
    });
    signed.next().unwrap().clone()
}

/// Waits until a node serves a checkpoint with the verdict over so many jobs, and gives it with its entries.
async fn with_verdicts(network: &Network, served: &Served, wanted: usize) -> (Verified, Vec<Entry>) {
    until("the log has the verdicts", SERVED_WITHIN, async || {
        let checkpoint = checkpoint(network, served).await?;
        let entries = entries(served, &checkpoint).await;
        let verdicts = entries.iter().filter(|entry| matches!(entry.event, Event::Verdict(_))).count();
        (verdicts >= wanted).then_some((checkpoint, entries))
    })
    .await
}

/// The words of the log, once it tells a whole story: each lease has its one outcome.
fn words(entries: &[Entry]) -> Vec<&'static str> {
    let mut story = Story::default();
    entries.iter().for_each(|entry| story.read(entry).unwrap());
    assert_eq!(story.open().count(), 0, "no lease is without an outcome");
    entries.iter().map(|entry| entry.event.word()).collect()
}

#[tokio::test]
async fn a_reproduced_job_is_in_the_log_and_a_restart_continues_it() {
    let Some(ground) = ground().await else { return };
    let mirrors = vec!["mirror".to_owned()];
    let mut network = Network::found(&ground, &Plan { mirrors, ..Plan::builders(2) });
    network.start().await;
    let job = network.submit(&ground.script("first", "echo done > out")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Reproduced);
    let served = served(&network, "coordinator");
    let (before, entries) = with_verdicts(&network, &served, 1).await;
    let told = words(&entries);
    assert_eq!(told.first(), Some(&"policy"));
    let of_job: Vec<_> = told.iter().filter(|word| **word != "policy" && **word != "commitment").copied().collect();
    let expected = ["accepted", "lease", "lease", "outcome", "outcome", "verdict"];
    assert_eq!(of_job, expected, "{told:?}");
    let Some(Event::Verdict(verdict)) = entries.last().map(|entry| &entry.event) else { panic!("{told:?}") };
    let ends = entries.iter().filter_map(|entry| {
        let Event::Outcome(outcome) = &entry.event else { return None };
        Some(format!("{:?}", outcome.end))
    });
    let attested: BTreeSet<_> =
        verdict.attestations.iter().map(|hash| End::Built(*hash)).map(|e| format!("{e:?}")).collect();
    assert_eq!(ends.collect::<BTreeSet<_>>(), attested);

    // A node that is no coordinator hands the same on.
    let relayed = Remote(network.public("mirror"));
    let (_, elsewhere) = with_verdicts(&network, &relayed, 1).await;
    assert_eq!(elsewhere, entries);
    let stranger = relayed.fetch("tile/entries/999".parse().unwrap()).await.unwrap_err();
    assert!(stranger.0.contains("not found"), "{stranger}");

    network.node("coordinator").kill();
    network.node("coordinator").start();
    network.node("coordinator").up().await;
    let again = until("the log is served again", SERVED_WITHIN, async || checkpoint(&network, &served).await).await;
    assert!(again.head().size >= before.head().size, "nothing was lost");
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Published);
    let (after, entries) = with_verdicts(&network, &served, 2).await;
    assert_eq!(words(&entries).last(), Some(&"release"), "what is published is in the log");
    let Some(Event::Release(release)) = entries.last().map(|entry| &entry.event) else { panic!("{entries:?}") };
    assert_eq!((&release.channel, release.generation), (&network.channel, 1));
    Reader::new(&served, after.head()).continues(before.head()).await.unwrap();
    on_the_command_line(&mut network, &after).await;
    // It is stopped in order while it works: nothing is left to be derived from its journal.
    for name in ["third", "fourth"] {
        network.submit(&ground.script(name, "echo done > out")).await;
    }
    network.node("coordinator").stop().await;
    let told = network.node("coordinator").log();
    assert!(told.contains("what is decided is kept as a snapshot"), "{told}");
    network.node("coordinator").start();
    network.node("coordinator").up().await;
    let last = until("the log is served again", SERVED_WITHIN, async || checkpoint(&network, &served).await).await;
    Reader::new(&served, last.head()).continues(after.head()).await.unwrap();
}

/// What `artel log verify` keeps once it has seen a checkpoint: a map of two byte strings.
fn kept(checkpoint: Vec<u8>) -> Vec<u8> {
    let octets = |bytes: Vec<u8>| codec::encode(&Octets(bytes));
    [&b"\xa2\x65story"[..], &octets(Story::default().to_bytes()), b"\x6acheckpoint", &octets(checkpoint)].concat()
}

/// The owner lists and verifies the log; what does not continue what was seen is broken.
async fn on_the_command_line(network: &mut Network, newest: &Verified) {
    let home = network.node("coordinator").home.path().to_owned();
    let artel = async |arguments: &[&str]| run(Path::new(SITE.artel), &home, arguments).await;
    let url = format!("http://{}/log", network.public_address("mirror"));
    let size = newest.head().size;
    for arguments in [&["log", "verify"][..], &["log", "verify", &url], &["log", "verify", "--all"]] {
        let said = artel(arguments).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(&format!("{size} entries")) && said.out.contains("each entry follows"), "{said:?}");
    }
    let listed = artel(&["log", "ls", "--from", "0"]).await;
    assert_eq!(listed.out.lines().count() as u64, size + 1, "{listed:?}");
    let verdict = listed.out.lines().find(|line| line.contains("verdict")).unwrap();
    assert!(verdict.contains("first") && verdict.contains("reproduced, 2 attestations"), "{verdict}");
    let signed = artel(&["log", "checkpoint"]).await;
    assert_eq!(Signed::read(signed.out.as_bytes()).unwrap().claims().head(), newest.head());
    let policy = artel(&["log", "policy", "--witnesses", "2"]).await;
    attest::log::policy::Policy::read(policy.out.as_bytes()).unwrap();
    assert_eq!(artel(&["log", "policy", "--witnesses", "9"]).await.code, 2);

    let key = keys::load(&network.node("coordinator").home.node_key()).unwrap();
    let (longer, other) = (Head { size: size + 9, ..newest.head() }, Head { size: size - 1, ..newest.head() });
    for (head, words) in [(other, "does not continue"), (longer, "has gone back")] {
        let checkpoint = Signed::sign(&network::origin(&network.id), head, &key).to_string().into_bytes();
        fs::write(home.join("log.seen"), kept(checkpoint)).unwrap();
        let said = artel(&["log", "verify"]).await;
        assert!(said.code == 13 && said.talk.contains(words), "{said:?}");
    }
    fs::remove_file(home.join("log.seen")).unwrap();
}

#[tokio::test]
async fn the_log_goes_on_under_another_leader_without_a_fork() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { coordinators: 3, ..Plan::builders(2) });
    network.start().await;
    let first = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&first);
    let job = network.submit(&ground.script("first", "echo done > out")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Reproduced);
    let (before, old) = with_verdicts(&network, &served(&network, &first), 1).await;
    assert_eq!(signer(&network, &before), first, "who is asked signs");
    for name in network.candidates().to_vec() {
        let (here, entries) = with_verdicts(&network, &served(&network, &name), 1).await;
        assert_eq!((&entries, signer(&network, &here)), (&old, name.clone()), "every candidate serves the same");
        assert_eq!(here.head(), before.head());
    }

    network.node(&first).kill();
    let second = network.led(ANOTHER_WITHIN, &[&first]).await;
    network.ask_at(&second);
    let job = network.submit(&ground.script("second", "echo again > out")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Reproduced);
    let by_second = served(&network, &second);
    let (after, entries) = with_verdicts(&network, &by_second, 2).await;
    words(&entries);
    assert_eq!(signer(&network, &after), second);
    Reader::new(&by_second, after.head()).continues(before.head()).await.unwrap();
    assert_eq!(entries[..old.len()], old);

    // The one that was away writes the same when it is back.
    network.node(&first).start();
    network.node(&first).up().await;
    let (back, same) = with_verdicts(&network, &served(&network, &first), 2).await;
    assert_eq!(same[..entries.len()], entries);
    let (newest, log) = with_verdicts(&network, &by_second, 2).await;
    let (small, large) = if back.head().size <= newest.head().size { (back, newest) } else { (newest, back) };
    let source = served(&network, &signer(&network, &large));
    Reader::new(&source, large.head()).continues(small.head()).await.unwrap();
    assert!(log.len() >= entries.len());
}

/// How many entries the log has that judges of others are shown.
const LONG: u64 = 10_000;
/// How long a network may take to get there.
const LONG_WITHIN: Duration = Duration::from_secs(1500);
/// Jobs that are submitted at one time.
const PORTION: usize = 100;

/// Writes the log of a real network, whose leader dies halfway, as a node serves it, and two forks of it, into the folder that
/// `ARTEL_LOG_FOLDER` names: `make judges` shows them to readers that nobody here wrote.
#[tokio::test]
async fn a_long_log_is_served_for_judges() {
    let Some(folder) = std::env::var_os("ARTEL_LOG_FOLDER").map(PathBuf::from) else {
        return println!("SKIPPED: ARTEL_LOG_FOLDER names no folder; `make judges` does");
    };
    let Some(ground) = ground().await else { return };
    let plan = Plan { coordinators: 3, isolation: Isolation::Light, ..Plan::builders(2) };
    let mut network = Network::found(&ground, &plan);
    network.start().await;
    let prepared = light(ground.script("nothing", "echo done > out"));
    let begun = Instant::now();
    let first = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&first);
    let before = grown(&network, (&first, LONG / 2), (&prepared, begun)).await;
    network.node(&first).kill();
    let second = network.led(ANOTHER_WITHIN, &[&first]).await;
    network.ask_at(&second);
    // What a reader remembers is newer than the failover: the former leader's own history has not the same entries there.
    let older = grown(&network, (&second, before.head().size + 300), (&prepared, begun)).await;
    let newest = grown(&network, (&second, LONG), (&prepared, begun)).await;
    let source = served(&network, &second);
    let log = bytes(&source, &newest).await;
    let mut story = Story::default();
    log.iter().for_each(|bytes| story.read(&Entry::from_bytes(bytes).unwrap()).unwrap());
    for known in [&before, &older] {
        Reader::new(&source, newest.head()).continues(known.head()).await.unwrap();
    }

    let _ = fs::remove_dir_all(&folder);
    let size = newest.head().size;
    let resources = Tile::added(0, size).map(Resource::Tile).chain(tile::bundles_added(0, size).map(Resource::Entries));
    for resource in resources {
        write(&folder.join("honest"), &resource.to_string(), &source.fetch(resource).await.unwrap());
    }
    write(&folder.join("honest"), "checkpoint", newest.as_signed().to_string().as_bytes());
    let mut rewritten = log.clone();
    rewritten[100] = rewritten[101].clone();
    fork(&mut network, &folder.join("rewritten"), (rewritten, &second));
    let mut gone_on = log;
    gone_on[before.head().size as usize..].rotate_left(1);
    fork(&mut network, &folder.join("failover"), (gone_on, &first));
    for place in ["honest", "rewritten", "failover"] {
        write(&folder.join(place), "older", older.as_signed().to_string().as_bytes());
    }
    let vkey = |name: &String| network::log_key(&network.id, &network.id_of(name)).to_string();
    let vkeys: Vec<String> = network.candidates().iter().map(vkey).collect();
    fs::write(folder.join("vkeys"), vkeys.join("\n")).unwrap();
    println!(
        "figure: a log of {size} entries, made in {:.0} s; its leader died after {}",
        begun.elapsed().as_secs_f64(),
        before.head().size
    );
}

/// Gives a node's checkpoint once the log has so many entries; until then the builders are never without work.
async fn grown(network: &Network, (name, size): (&str, u64), (prepared, begun): (&Prepared, Instant)) -> Verified {
    let mut portion = submit_portion(network, prepared).await;
    let source = served(network, name);
    loop {
        let next = submit_portion(network, prepared).await;
        network.over(std::mem::replace(&mut portion, next), LONG_WITHIN).await;
        let now = checkpoint(network, &source).await.unwrap();
        println!("{} entries after {} s", now.head().size, begun.elapsed().as_secs());
        if now.head().size >= size {
            network.over(portion, LONG_WITHIN).await;
            return checkpoint(network, &source).await.unwrap();
        }
        assert!(begun.elapsed() < LONG_WITHIN, "too slow");
    }
}

/// Writes a log with other entries, signed by a coordinator.
fn fork(network: &mut Network, folder: &Path, (entries, signer): (Vec<Vec<u8>>, &str)) {
    let size = entries.len() as u64;
    let forged = attest::testing::log::Memory::of(entries);
    for (path, bytes) in forged.files(size) {
        write(folder, &path, &bytes);
    }
    let key = keys::load(&network.node(signer).home.node_key()).unwrap();
    let signed = Signed::sign(&network::origin(&network.id), forged.head(size), &key);
    write(folder, "checkpoint", signed.to_string().as_bytes());
}

/// The same command by the builders' own programs: a rootfs compiles a locale for the second operator, three seconds a job.
fn light(prepared: Prepared) -> Prepared {
    let JobKind::Command(command) = prepared.kind else { panic!("a script is a command") };
    let kind = JobKind::Command(CommandJob { isolation: Isolation::Light, ..command });
    Prepared { kind, lock: EnvironmentLock { packages: Vec::new(), ..prepared.lock }, files: Vec::new() }
}

/// Submits some jobs and gives the last.
async fn submit_portion(network: &Network, prepared: &Prepared) -> JobId {
    for _ in 1..PORTION {
        network.submit(prepared).await;
    }
    network.submit(prepared).await
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
