//! Keys change beside running daemons: the repository's, with indexes of two signatures, which a mirror takes, before the new key
//! is alone; and the log's, with its coordinators.

use std::{fs, path::Path, time::Duration};

use artel::{
    charter::{CoordinatorsEntry, RevokedEntry},
    publish::sign::keyring::Keyring,
};
use attest::log::entry::{Entry, Event};
use harness::{Ground, Network, Plan, Said, run, until};
use protocol::{PublicKey, words::RelativePath};
use web::{Backend, api::JobState, backend::ByteRange};

use crate::{
    elected::{ANOTHER_WITHIN, grouped},
    ground, log,
};

const BUILD_WITHIN: Duration = Duration::from_secs(120);
/// The publisher looks at its keys every ten seconds, the mirror then follows.
const SIGNED_WITHIN: Duration = Duration::from_secs(60);

/// Waits until the mirror is done with a generation that publishes exactly these keys, and gives the `InRelease` beside them.
async fn mirrored(network: &Network, (generation, fingerprints): (u64, &[&str])) -> String {
    let mirror = network.public("mirror");
    let get = async |path: &str| {
        let path = RelativePath::new(path).unwrap();
        let content = mirror.repository_file(network.channel.clone(), path, ByteRange::All).await.ok()?;
        Some(content.collect(1 << 20).await.ok()?.to_vec())
    };
    until("the mirror has these keys", SIGNED_WITHIN, async || {
        let keyring = Keyring::read(&get("archive-key.gpg").await?).ok()?;
        let known = keyring.certificates();
        let same = known.len() == fingerprints.len() && fingerprints.iter().all(|wanted| keyring.has(wanted));
        let view = mirror.repositories().await.ok()?.into_iter().find(|view| view.channel == network.channel)?;
        let text = String::from_utf8(get(&format!("dists/{}/InRelease", view.suite)).await?).ok()?;
        // While a mirror switches, it has the new keys beside the old index.
        (same && view.generation >= generation).then_some(text)
    })
    .await
}

/// The length of the block of signatures, in characters.
fn signatures(in_release: &str) -> usize {
    in_release.split("-----BEGIN PGP SIGNATURE-----").nth(1).unwrap().len()
}

#[tokio::test]
async fn the_key_changes_with_two_signatures_between() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) });
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    assert_eq!(network.over(job, BUILD_WITHIN).await.summary.state, JobState::Published);
    let name = network.leader().await.unwrap();
    let home = network.node(&name).home.path().to_owned();
    let key = async |words: &[&str]| -> Said {
        let arguments = [&["--home", home.to_str().unwrap(), "--json", "repo", "key"], words].concat();
        run(&ground.artel, network.folder(), &arguments).await
    };
    let fingerprints = |said: &Said| -> Vec<String> {
        assert_eq!(said.code, 0, "{said:?}");
        let view: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let list = view["fingerprints"].as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let old = fingerprints(&key(&["show"]).await);
    let one = mirrored(&network, (1, &[&old[0]])).await;
    assert_eq!(key(&["finish"]).await.code, 1, "there is nothing to finish");

    let both = fingerprints(&key(&["rotate", "--grace", "30"]).await);
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let two = mirrored(&network, (2, &[&both[0], &both[1]])).await;
    assert!(signatures(&two) > signatures(&one) * 3 / 2, "{two}");
    assert_eq!(key(&["rotate"]).await.code, 1, "one change after the other");

    assert_eq!(fingerprints(&key(&["finish"]).await), both[1..]);
    let new = mirrored(&network, (3, &[&both[1]])).await;
    assert_eq!(signatures(&new), signatures(&one), "{new}");
}

/// Publishes a version and waits until a repository has it.
async fn published(network: &Network, ground: &Ground, (version, root): (&str, &Path)) {
    let job = network.submit(&ground.tiny_version(version, network.folder())).await;
    let detail = network.over(job, BUILD_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let index = root.join(format!("dists/{}/main/binary-amd64/Packages", ground.lock.suite));
    until("the repository has it", SIGNED_WITHIN, async || {
        fs::read_to_string(&index).is_ok_and(|index| index.contains(&format!("_{version}_amd64.deb"))).then_some(())
    })
    .await;
}

/// The log is signed by its coordinators: one is replaced by a node that has followed it, and its key is revoked from then on. The log
/// goes on for who has read it before, and strangers believe what was published before and after.
#[tokio::test]
async fn the_log_goes_on_when_the_key_of_its_coordinator_is_revoked() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["next".into()], ..Plan::builders(2) });
    network.start().await;
    published(&network, &ground, ("1.0", &network.repository_root("next"))).await;
    let home = network.node("next").home.clone();
    let proof = "pool/main/a/artel-tiny/artel-tiny_1.0_amd64.deb.tlog-proof";
    let by_the_first = fs::read(network.repository_root("next").join(proof)).unwrap();
    let reads = async |size: u64| {
        let said = run(&ground.artel, home.path(), &["log", "verify"]).await;
        let words: Vec<&str> = said.out.split_whitespace().collect();
        let read =
            words.windows(2).find(|pair| pair[1].starts_with("entries")).and_then(|pair| pair[0].parse::<u64>().ok());
        assert!(said.code == 0 && read >= Some(size), "{size}: {said:?}");
    };
    let before = log::checkpoint(&network, &log::served(&network, "coordinator")).await.unwrap();
    reads(before.head().size).await;

    let (first, next) = (network.id_of("coordinator"), network.id_of("next"));
    network.change_policy(|charter| charter.coordinators = CoordinatorsEntry::Elected(vec![first, next])).await;
    grouped(&mut network, "coordinator", &["coordinator".to_owned(), "next".to_owned()]).await;
    let from = log::checkpoint(&network, &log::served(&network, "coordinator")).await.unwrap().head().size;
    network
        .change_policy(|charter| {
            charter.coordinators = CoordinatorsEntry::Pinned(next);
            charter.revoked =
                vec![RevokedEntry { key: PublicKey::from(first), from, reason: "its disk was sold".into() }];
        })
        .await;
    network.choose_candidates(&["next".to_owned()]);
    network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at("next");
    network.node("coordinator").kill();

    let root = home.repository(&network.channel).join("public");
    published(&network, &ground, ("1.1", &root)).await;
    let served = log::served(&network, "next");
    let after = log::checkpoint(&network, &served).await.unwrap();
    let entries = log::bytes(&served, &after).await;
    let released = |bytes: &Vec<u8>| matches!(Entry::from_bytes(bytes).unwrap().event, Event::Release(_));
    let place = entries.iter().rposition(released).unwrap() as u64;
    assert!(place > from, "what the next coordinator released is in the log that it signs: {place}, {from}");
    artel::tlog::Reader::new(&served, after.head()).continues(before.head()).await.unwrap();
    reads(after.head().size).await;

    assert_eq!(
        fs::read(root.join(proof)).unwrap(),
        by_the_first,
        "what the revoked key had signed before is still the proof"
    );
    let policy = network.folder().join("verify.policy");
    let said = run(&ground.artel, home.path(), &["policy", "export", "--out", policy.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let said =
        run(&ground.verify, network.folder(), &["--policy", policy.to_str().unwrap(), root.to_str().unwrap()]).await;
    assert!(said.code == 0 && said.out.contains("_1.0_amd64.deb") && said.out.contains("_1.1_amd64.deb"), "{said:?}");
}
