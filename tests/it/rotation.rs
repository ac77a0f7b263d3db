//! The key of the repository changes beside the running daemon: indexes with two signatures, which a mirror takes, then the new
//! key alone.

use std::time::Duration;

use artel::publish::sign::keyring::Keyring;
use harness::{Network, Plan, Said, run, until};
use protocol::words::RelativePath;
use web::{Backend, api::JobState, backend::ByteRange};

use crate::ground;

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
