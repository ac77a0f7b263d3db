//! Packages are judged by the policy of their verdict's place in the log, whatever a coordinator says and offers.

use std::{fs, path::PathBuf, time::Duration};

use artel::{
    charter::{Charter, RevokedEntry},
    keys,
};
use attest::{
    log::{
        checkpoint,
        entry::{self, Entry, Event},
        network::{log_policy, origin},
        proof::Proof,
        tree,
    },
    testing::log::Memory,
};
use ed25519_dalek::SigningKey;
use harness::{Copycat, Forker, Ground, Network, Plan, run, until};
use protocol::{
    Hash, NodeId, PublicKey, Signed, Timestamp,
    message::{Octets, Request, Response},
    policy::Policy,
    release::{Manifest, Release},
};
use web::{Backend, api::JobState};

use crate::{ground, log};

const WITHIN: Duration = Duration::from_secs(120);
/// How soon a mirror that follows asks for the newest release, or for the policy.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// How soon the log shows what was decided.
const LOGGED_WITHIN: Duration = Duration::from_secs(20);

/// What a coordinator released, with every file of it.
struct Kept {
    signed: Vec<u8>,
    release: Release,
    files: Vec<Vec<u8>>,
}

/// Publishes a version, and gives its release as the coordinator has it then.
async fn publish(network: &Network, ground: &Ground, member: &Copycat, version: &str) -> Kept {
    let job = network.submit(&ground.tiny_version(version, network.folder())).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let answer = member.ask(Request::Release(network.channel.clone())).await;
    let Response::Record(Octets(signed)) = answer else { panic!("{answer:?}") };
    let release = Signed::<Release>::read(&signed).and_then(|s| s.verify(Some(&network.id))).unwrap().get().clone();
    let manifest = member.fetch(release.manifest).await;
    let mut files = Vec::new();
    for file in &Manifest::from_bytes(&manifest).unwrap().files {
        files.push(member.fetch(file.hash).await);
    }
    files.push(manifest);
    Kept { signed, release, files }
}

/// Every entry of the log, once so many are what is asked for.
async fn logged(network: &Network, wanted: fn(&Event) -> bool, count: usize) -> Vec<Vec<u8>> {
    let served = log::served(network, "coordinator");
    until("the log shows what was decided", LOGGED_WITHIN, async || {
        let checkpoint = log::checkpoint(network, &served).await?;
        let entries = log::bytes(&served, &checkpoint).await;
        (entries.iter().filter(|entry| wanted(&event(entry))).count() >= count).then_some(entries)
    })
    .await
}

/// What the log has of a release.
fn entry_of(signed: &[u8], (network, generation): (&Network, u64)) -> Entry {
    let release = entry::Release { channel: network.channel.clone(), envelope: Hash::of(signed), generation };
    Entry { at: Timestamp::ZERO, event: Event::Release(release) }
}

/// Proves an entry by a log that its coordinator signs: whenever it was decided, what it says counts.
fn proof_of(entry: &Entry, log: &Memory, (network, key): (&Network, &SigningKey)) -> Vec<u8> {
    let (size, same) = (log.entries().len() as u64, |bytes: &Vec<u8>| event(bytes) == entry.event);
    let place = log.entries().iter().position(same).expect("the log has it");
    let checkpoint = checkpoint::Signed::sign(&origin(&network.id), log.head(size), key);
    let entry = Entry::from_bytes(&log.entries()[place]).unwrap();
    let path = tree::inclusion(place as u64, size, log).unwrap();
    Proof::of_entry(&entry, place as u64, path, checkpoint).to_string().into_bytes()
}

fn event(entry: &[u8]) -> Event {
    Entry::from_bytes(entry).unwrap().event
}

fn is_verdict(event: &Event) -> bool {
    matches!(event, Event::Verdict(_))
}

async fn generation(network: &Network, name: &str) -> u64 {
    let views = network.client(name).repositories().await.unwrap();
    views.iter().map(|view| view.generation).max().unwrap_or(0)
}

/// The number of the newest policy that a node knows.
async fn policy_of(network: &Network, name: &str) -> Option<u64> {
    let bytes = network.client(name).policy().await.ok()?;
    Some(Signed::<Policy>::read(&bytes).ok()?.verify(Some(&network.id)).ok()?.get().number)
}

/// Gives the operator of a node another one, and revokes the node's key from a place on.
fn revoke(charter: &mut Charter, node: NodeId, from: u64) {
    let nodes = charter.operators.values_mut().find(|nodes| nodes.contains(&node)).unwrap();
    *nodes = vec![keys::public(&keys::generate().unwrap()).into()];
    charter.revoked = vec![RevokedEntry { key: PublicKey::from(node), from, reason: "stolen".to_owned() }];
}

/// A coordinator that offers what was accepted before an operator's key was revoked, at a place from which on it is, is refused
/// by a mirror; what stands in the log before that place stays good.
#[tokio::test]
async fn a_mirror_refuses_what_a_revoked_key_proved_from_its_place_on_and_keeps_what_was_before() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) });
    network.start_some(&["coordinator", "b1", "b2", "mirror"]).await;
    let folder = network.folder().join("member");
    let member = Copycat::join(&mut network, "b3", &folder).await;
    let before = publish(&network, &ground, &member, "1.0").await;
    let mirrored = async |network: &Network, number| (generation(network, "mirror").await == number).then_some(());
    until("the mirror has the first release", ASKED_WITHIN, async || mirrored(&network, 1).await).await;
    network.node("mirror").stop().await;
    let after = publish(&network, &ground, &member, "1.1").await;

    let entries = logged(&network, is_verdict, 2).await;
    let place = entries.iter().rposition(|entry| is_verdict(&event(entry))).unwrap() as u64;
    let lost = network.id_of("b1");
    network.change_policy(|charter| revoke(charter, lost, place)).await;
    let history = logged(&network, |event| matches!(event, Event::Policy(policy) if policy.number == 2), 1).await;
    let told = [Request::Policy, Request::View("policies".to_owned())];
    let told =
        [(told[0].clone(), member.ask(told[0].clone()).await), (told[1].clone(), member.ask(told[1].clone()).await)];

    // From now on the coordinator lies: it knows the new policy, and offers what it accepted under the old one. The same key proved
    // the first version, at a place before: that may be released anew, and is logged so.
    network.node("coordinator").kill();
    let key = keys::load(&network.node("coordinator").home.node_key()).unwrap();
    let again = Release { generation: 3, ..before.release.clone() };
    let again = Signed::sign(&again, Some(&network.id), &[&key]).to_bytes();
    let hidden = Release { generation: 5, ..before.release.clone() };
    let hidden = Signed::sign(&hidden, Some(&network.id), &[&key]).to_bytes();
    // A history of the same log that nobody is shown.
    let mut other = Memory::of(history.clone());
    let hidden_entry = entry_of(&hidden, (&network, 5));
    (0..2).for_each(|_| other.append(hidden_entry.to_bytes()));
    let mut history = Memory::of(history);
    history.append(entry_of(&again, (&network, 3)).to_bytes());
    let proofs = [(&after.signed, 2, &history), (&again, 3, &history), (&hidden, 5, &other)];
    let proofs = proofs.map(|(signed, generation, log)| {
        let proof = proof_of(&entry_of(signed, (&network, generation)), log, (&network, &key));
        (Request::ReleaseProof(Hash::of(signed)), Response::Record(Octets(proof)))
    });
    let shown = [(network.id_of("mirror"), history)].into();
    let hostile = Forker::take_over(&mut network, &shown).await;
    told.into_iter().chain(proofs).for_each(|(request, response)| hostile.tell(request, response));
    for file in before.files.iter().chain(&after.files) {
        hostile.hold(file.clone()).await;
    }
    network.node("mirror").start();
    network.node("mirror").up().await;
    let informed = async || (policy_of(&network, "mirror").await? == 2).then_some(());
    until("the mirror knows the new policy", ASKED_WITHIN, informed).await;
    hostile.offer(after.signed.clone());
    says(&mut network, "1 of 2 operators attest job", "generation=2 bytes").await;
    assert_eq!(generation(&network, "mirror").await, 1);

    // Signed alone it is not taken: a release that the log does not have is nobody's.
    let unlogged = Release { generation: 4, ..before.release.clone() };
    hostile.offer(Signed::sign(&unlogged, Some(&network.id), &[&key]).to_bytes());
    says(&mut network, "nobody proves that the release was logged", "generation=4 bytes").await;
    hostile.offer(again);
    until("the mirror takes what was before", ASKED_WITHIN, async || mirrored(&network, 3).await).await;
    let pool = network.repository_root("mirror").join("pool/main/a/artel-tiny");
    assert!(pool.join("artel-tiny_1.0_amd64.deb").exists() && !pool.join("artel-tiny_1.1_amd64.deb").exists());

    // Logged where nobody else can see it, it is not taken either, from the first moment on.
    hostile.offer(hidden);
    says(&mut network, "nobody shows that the checkpoint which proves it", "generation=5 bytes").await;
    assert_eq!(generation(&network, "mirror").await, 3);
}

/// Waits until the mirror says why it takes no release.
async fn says(network: &mut Network, why: &str, taken: &str) {
    let mirror = network.node("mirror");
    until(&format!("the mirror refuses it: {why}"), ASKED_WITHIN, async || {
        assert!(!mirror.log().contains(taken), "it is not taken");
        mirror.log().contains(why).then_some(())
    })
    .await;
}

/// What a node serves of the package that these tests publish, below its repository's root.
fn beside(network: &Network, suffix: &str) -> PathBuf {
    network.repository_root("mirror").join(format!("pool/main/a/artel-tiny/artel-tiny_1.0_amd64.deb{suffix}"))
}

/// Whether so many operators have seen what the mirror's proof says, under the network's policy.
fn seen_by(network: &Network, operators: u8) -> Option<()> {
    let proof = Proof::read(&fs::read(beside(network, ".tlog-proof")).ok()?).ok()?;
    let log = log_policy(&network.id, &network.charter.to_policy().unwrap(), operators).unwrap();
    proof.entry(&log).is_ok().then_some(())
}

/// A package, its lines and its proof, where they are to be.
type Laid = [Option<Vec<u8>>; 3];

/// Judges the mirror's pool offline as strangers do, with a file that the network's owner exported.
async fn judged_by_strangers(network: &mut Network, ground: &Ground, old_proof: &[u8]) {
    let (home, folder) = (network.node("coordinator").home.path().to_owned(), network.folder().join("stranger"));
    fs::create_dir_all(&folder).unwrap();
    let policy = folder.join("verify.policy");
    let said = run(&ground.artel, &home, &["policy", "export", "--out", policy.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let names = ["", ".intoto.jsonl", ".tlog-proof"];
    let good = names.map(|suffix| fs::read(beside(network, suffix)).unwrap());
    let flipped = |at: usize, place: usize| {
        let mut bytes = good[at].clone();
        bytes[place] ^= 1;
        Some(bytes)
    };
    let [deb, lines, proof] = good.clone().map(Some);
    let file = folder.join("artel-tiny_1.0_amd64.deb");
    let verify = async |more: &[&str], contents: Laid| {
        for (suffix, content) in names.iter().zip(contents) {
            let path = folder.join(format!("artel-tiny_1.0_amd64.deb{suffix}"));
            match content {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        let words = [&["--policy", policy.to_str().unwrap()][..], more, &[file.to_str().unwrap()]].concat();
        run(&ground.verify, &folder, &words).await
    };
    let said = verify(&[], [deb.clone(), lines.clone(), proof.clone()]).await;
    assert!(said.code == 0 && said.out.matches("seen by").count() >= 2, "{said:?}");
    let refused: [(i32, &[&str], Laid, &str); 7] = [
        (12, &[], [flipped(0, good[0].len() / 2), lines.clone(), proof.clone()], "a byte of the package"),
        (13, &[], [deb.clone(), flipped(1, 60), proof.clone()], "a byte of the request, the first line"),
        (13, &[], [deb.clone(), lines.clone(), flipped(2, good[2].len() / 2)], "a byte of the proof"),
        (10, &[], [deb.clone(), None, proof.clone()], "no lines"),
        (13, &[], [deb.clone(), lines.clone(), None], "no proof"),
        (13, &[], [deb.clone(), lines.clone(), Some(old_proof.to_vec())], "the proof that nobody had seen"),
        (11, &["--agree", "3"], [deb.clone(), lines.clone(), proof.clone()], "two agree, three are wanted"),
    ];
    // Who is kept from seeing anything newer notices, too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let frozen = verify(&["--max-age", "1s"], good.clone().map(Some)).await;
    assert!(frozen.code == 13 && frozen.out.contains("newest sign of life of the log"), "{frozen:?}");
    let said = verify(&["--max-age", "1h"], good.clone().map(Some)).await;
    assert_eq!(said.code, 0, "{said:?}");
    for (code, more, contents, why) in refused {
        let said = verify(more, contents).await;
        assert_eq!(said.code, code, "{why}: {said:?}");
    }
    // The whole repository, as it is served.
    let root = network.repository_root("mirror");
    let words = ["--policy", policy.to_str().unwrap(), root.to_str().unwrap()];
    let said = run(&ground.verify, &folder, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// Roots that come to ask for witnesses ask for them of what was built before, too, and roots that revoke a key from its
/// beginning take what it proved out of the repository: mirrors follow, and strangers agree.
#[tokio::test]
async fn what_is_published_follows_the_policy_and_proves_itself_to_strangers() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) });
    network.start_some(&["coordinator", "b1", "b2", "mirror"]).await;
    let job = network.submit(&ground.tiny_version("1.0", network.folder())).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let shows = async |network: &Network, wanted| (generation(network, "mirror").await >= wanted).then_some(());
    until("the mirror has the first release", ASKED_WITHIN, async || shows(&network, 1).await).await;
    let old_proof = fs::read(beside(&network, ".tlog-proof")).unwrap();
    assert_eq!((seen_by(&network, 0), seen_by(&network, 2)), (Some(()), None));

    network.change_policy(|charter| charter.channels[0].witnesses = 2).await;
    until("its proof was seen by two operators", ASKED_WITHIN, async || seen_by(&network, 2)).await;
    until("the mirror is done", ASKED_WITHIN, async || shows(&network, 2).await).await;
    judged_by_strangers(&mut network, &ground, &old_proof).await;

    network.start_some(&["b3"]).await;
    let lost = network.id_of("b1");
    network.change_policy(|charter| revoke(charter, lost, 1)).await;
    let index =
        network.repository_root("mirror").join(format!("dists/{}/main/binary-amd64/Packages", ground.lock.suite));
    until("the mirror follows a repository without what the key proved", ASKED_WITHIN, async || {
        fs::read_to_string(&index).is_ok_and(|index| !index.contains("artel-tiny")).then_some(())
    })
    .await;
    assert!(network.node("coordinator").log().contains("a package does not prove itself any more; it is taken out"));
    told_alone(&mut network, &ground).await;
}

/// A node tells what it knows of the policies while nobody coordinates, and what it keeps while it does not run itself.
async fn told_alone(network: &mut Network, ground: &Ground) {
    let [home, coordinator] = ["mirror", "coordinator"].map(|name| network.node(name).home.path().to_owned());
    let export = ["policy", "export"];
    let whole = run(&ground.artel, &coordinator, &export).await;
    assert!(whole.code == 0 && whole.out.matches("\npolicy ").count() == 3, "{whole:?}");
    let informed = async || (policy_of(network, "mirror").await? == 3).then_some(());
    until("the mirror has the newest policy", WITHIN, informed).await;
    network.node("coordinator").stop().await;
    let alone = run(&ground.artel, &home, &export).await;
    // Whether the log has proven to it by now where each stands is a matter of seconds; it says all of it, or nothing.
    let refused = alone.code == 6 && alone.out.is_empty() && alone.talk.contains("stands in the log");
    assert!(refused || (alone.code == 0 && alone.out == whole.out), "{alone:?}");
    network.node("mirror").stop().await;
    let said = run(&ground.artel, &home, &["policy", "show"]).await;
    assert!(said.code == 0 && said.out.contains("number = 3"), "not the genesis: {said:?}");
    assert!(said.talk.contains("policy 3 is the newest that it keeps"), "{said:?}");
    // A node that was not stopped in order: what it keeps is not looked at, and nothing older is told instead.
    fs::write(home.join("artel.redb"), b"cut off").unwrap();
    for words in [&["policy", "show"][..], &["policy", "export", "--signed"], &["log", "policy"]] {
        let said = run(&ground.artel, &home, words).await;
        assert!(said.code == 6 && said.talk.contains("the policy in force is not known here"), "{said:?}");
    }
}
