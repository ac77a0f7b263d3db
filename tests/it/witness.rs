//! Witnesses and forked logs: what a real node cosigns and what it refuses, and how two mirrors that were shown two histories
//! of the log find out, keep the proof and stop.

use std::{collections::BTreeMap, time::Duration};

use artel::{charter::CoordinatorsEntry, keys};
use attest::{
    log::{
        checkpoint::Signed,
        conflict::Conflict,
        entry::{Entry, Event},
        network,
        proof::Proof,
        tree,
        witness::{Request, latest_size, monitor_path},
    },
    testing::log::Memory,
    trust::{Demands, Trust},
};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use harness::{Forker, Liar, Network, Plan, free_port, run, until};
use protocol::{
    NetworkId, Sha256, envelope,
    job::{Prune, ServerJob},
    lease::Term,
    release::{Manifest, Release},
    words::RelativePath,
};
use web::{
    Backend,
    api::{ApiError, JobState, WitnessAnswer},
    backend::ByteRange,
};

use crate::{clients::get, ground, log};

/// How soon a package is built and published.
const BUILT_WITHIN: Duration = Duration::from_secs(180);
/// How soon both mirrors must have stopped.
const WITHIN: Duration = Duration::from_secs(60);

/// A log of the network's own, with the coordinator's key.
pub(crate) struct Log {
    pub(crate) key: SigningKey,
    pub(crate) id: NetworkId,
    pub(crate) memory: Memory,
}

impl Log {
    pub(crate) fn request(&self, old: u64, size: u64) -> Bytes {
        self.request_by(&self.key, old, (size, &self.memory))
    }

    fn request_by(&self, key: &SigningKey, old: u64, (size, memory): (u64, &Memory)) -> Bytes {
        let signed = Signed::sign(&network::origin(&self.id), memory.head(size), key);
        let node = protocol::NodeId::from(keys::public(key));
        let checkpoint = signed.verify(&[network::log_key(&self.id, &node)]).unwrap();
        let proof = if old == 0 || old > size { Vec::new() } else { tree::consistency(old, size, memory).unwrap() };
        Request::new(old, proof, &checkpoint).to_string().into()
    }
}

#[tokio::test]
async fn a_node_cosigns_what_continues_and_nothing_else() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(1) };
    let mut network = Network::found(&ground, &plan);
    network.node("mirror").start();
    network.node("mirror").up().await;
    let log = Log {
        key: keys::load(&network.node("coordinator").home.node_key()).unwrap(),
        id: network.id,
        memory: Memory::sized(300),
    };
    let at = network.public("mirror");
    let add = async |request: Bytes| at.add_checkpoint(request).await.unwrap();
    let origin = network::origin(&network.id);
    let monitored = Sha256::of(origin.as_str().as_bytes());
    assert!(matches!(at.witnessed(monitored).await, Err(ApiError::NotFound { .. })), "nothing was cosigned yet");

    let first = add(log.request(0, 7)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let mirror = network::witness_key(&network.id_of("mirror"));
    let bare = Signed::sign(&origin, log.memory.head(7), &log.key);
    let checkpoint = bare.verify(&[network::log_key(&network.id, &network.id_of("coordinator"))]).unwrap();
    let cosigned = checkpoint.with_answer(&first.body, std::slice::from_ref(&mirror)).unwrap();
    assert_eq!(cosigned.cosigners(std::slice::from_ref(&mirror)).unwrap().len(), 1, "{}", first.body);
    let shown = at.witnessed(monitored).await.unwrap();
    assert_eq!(Signed::read(&shown).unwrap().claims().head(), log.memory.head(7));
    assert!(monitor_path(origin.as_str()).starts_with(&monitored.to_string()));

    let stale = add(log.request(0, 300)).await;
    assert_eq!((stale.status, latest_size(&stale.body)), (409, Some(7)), "{stale:?}");
    assert_eq!(stale.content_type, "text/x.tlog.size");
    // Of two that come at one time one is cosigned, and the other is told so.
    let mut seen = 7;
    for round in 0..20 {
        let (one, other) = (add(log.request(seen, seen + 1)), add(log.request(seen, seen + 2)));
        let (one, other) = tokio::join!(one, other);
        let won = if one.status == 200 { (1, &other) } else { (2, &one) };
        seen += won.0;
        let lost = (won.1.status, latest_size(&won.1.body));
        assert_eq!((one.status.min(other.status), lost), (200, (409, Some(seen))), "round {round}: {one:?} {other:?}");
    }
    assert_eq!(add(log.request(seen, 300)).await.status, 200);
    assert_eq!(add(log.request(300, 300)).await.status, 200, "the same again is cosigned again");

    let backwards = add(log.request(300, 7)).await;
    assert_eq!(backwards.status, 400, "{backwards:?}");
    let stranger = keys::generate().unwrap();
    let unsigned = add(log.request_by(&stranger, 300, (300, &log.memory))).await;
    assert_eq!(unsigned.status, 403, "{unsigned:?}");
    let elsewhere = Log { id: NetworkId::from_bytes([9; 32]), key: log.key.clone(), memory: Memory::sized(9) };
    let unknown = add(elsewhere.request(0, 9)).await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
    for garbage in ["", "old 7\n", "old 7\n\nno checkpoint\n", "old 07\n\n"] {
        assert_eq!(add(garbage.into()).await.status, 400, "{garbage:?}");
    }
    assert_eq!(network.client("mirror").status().await.unwrap().conflict, None);

    // A fork is refused, and the request itself is the proof.
    let forked = Memory::forked(301, 5);
    let refused: WitnessAnswer = add(log.request_by(&log.key, 300, (301, &forked))).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let evidence = at.conflict().await.unwrap();
    let keys = [network::log_key(&network.id, &network.id_of("coordinator"))];
    let sizes = Conflict::from_bytes(&evidence).unwrap().convicts(&keys).unwrap().map(|head| head.size);
    assert_eq!(sizes, [300, 301]);
    assert_eq!(add(log.request(300, 300)).await.status, 403, "nothing of a forked log is cosigned");

    // It is not forgotten.
    network.node("mirror").kill();
    network.node("mirror").start();
    network.node("mirror").up().await;
    assert_eq!(network.client("mirror").conflict().await.unwrap(), evidence);
}

#[tokio::test]
async fn two_mirrors_that_were_shown_two_histories_find_out_and_stop() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror-a".into(), "mirror-b".into()], ..Plan::builders(1) };
    let mut network = Network::found(&ground, &plan);
    let mirrors = ["mirror-a", "mirror-b"];
    let known = network.node("mirror-a").config().reach.listen;
    let port = free_port();
    let mut config = network.node("mirror-a").config();
    config.reach.listen = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
    config.save(&network.node("mirror-a").home).unwrap();
    assert_eq!(known.len(), 2);
    let mut config = network.node("mirror-b").config();
    let peer = artel::net::address_suffix(network.id_of("mirror-a"));
    config.network.bootstrap.push(format!("/ip4/127.0.0.1/udp/{port}/quic-v1{peer}"));
    config.save(&network.node("mirror-b").home).unwrap();
    let histories: BTreeMap<_, _> = [("mirror-a", Memory::sized(300)), ("mirror-b", Memory::forked(520, 77))]
        .map(|(name, history)| (network.id_of(name), history))
        .into();
    let forker = Forker::take_over(&mut network, &histories).await;
    for name in mirrors {
        network.node(name).start();
        network.node(name).up().await;
    }
    let log = Log {
        key: keys::load(&network.node("coordinator").home.node_key()).unwrap(),
        id: network.id,
        memory: Memory::sized(300),
    };
    let genesis = std::fs::read(network.node("coordinator").home.genesis()).unwrap();
    let trust = Trust::new(network.id, &[(genesis, None)], Demands::default(), artel::clock::now()).unwrap();
    std::fs::write(network.folder().join("of-verify.policy"), trust.to_string()).unwrap();
    // Both know before either is looked at: the limit is for the two together.
    let clients = mirrors.map(|name| network.client(name));
    let conflicts = until("both mirrors know that the log was forked", WITHIN, async || {
        let [first, second] = &clients;
        Some([first.status().await.ok()?.conflict?, second.status().await.ok()?.conflict?])
    })
    .await;
    for ((name, client), conflict) in mirrors.into_iter().zip(clients).zip(conflicts) {
        assert_eq!(conflict.sizes, [300, 520], "{name}");
        let page = network.public(name);
        assert_eq!(page.metrics().await.unwrap().log_conflicts, 1);
        let home = network.node(name).home.path().to_owned();
        let said = run(&ground.artel, network.folder(), &["--home", home.to_str().unwrap(), "status"]).await;
        assert!(said.out.starts_with("ALARM"), "{said:?}");
        // Offline, with the policy's key alone.
        let evidence = client.conflict().await.unwrap();
        let key = network::log_key(&network.id, &network.id_of("coordinator"));
        assert!(Conflict::from_bytes(&evidence).unwrap().convicts(&[key]).is_ok());
        let other = network::log_key(&network.id, &network.id_of("mirror-a"));
        assert!(Conflict::from_bytes(&evidence).unwrap().convicts(&[other]).is_err(), "it convicts nobody else");
        // As people do it: the file is written, and checked by a program that asks nobody.
        let artel = |words: &[&str]| {
            let words: Vec<String> =
                ["--home", home.to_str().unwrap()].iter().chain(words).map(|w| w.to_string()).collect();
            let (program, folder) = (ground.artel.clone(), network.folder().to_owned());
            async move { run(&program, &folder, &words.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        let path = |name: &str| network.folder().join(format!("of-{name}")).to_str().unwrap().to_owned();
        let written = artel(&["log", "conflict", &path(name)]).await;
        assert!(written.code == 13 && written.out.contains("300 entries"), "{written:?}");
        let checked = artel(&["verify", "conflict", "--policy", &path("verify.policy"), &path(name)]).await;
        assert!(checked.code == 0 && checked.out.contains("was forked"), "{checked:?}");
        let nothing = artel(&["verify", "conflict", "--policy", &path("verify.policy"), &path("verify.policy")]).await;
        assert_eq!(nothing.code, 13, "{nothing:?}");
        let refused = page.add_checkpoint(log.request(0, 7)).await.unwrap();
        assert_eq!((refused.status, refused.body.contains("was forked")), (403, true), "{refused:?}");
        let (status, html) = get(&network.public_address(name), "/");
        assert_eq!(status, 200);
        assert!(html.contains(r#"role="alert""#) && html.contains("The log of this network was forked"), "{html}");
    }
    takes_nothing_more(&mut network, &forker, &mirrors).await;
}

/// A release that the coordinator signs is taken by nobody who knows.
async fn takes_nothing_more(network: &mut Network, forker: &Forker, mirrors: &[&str]) {
    let manifest = forker.hold(Manifest { files: Vec::new(), packages: Vec::new() }.to_bytes()).await;
    let channel = network.channel.clone();
    let release = Release { at: artel::clock::now(), term: Term(1), channel, manifest, generation: 1 };
    forker.offer(envelope::Signed::sign(&release, Some(&network.id), &[forker.key()]).to_bytes());
    for name in mirrors {
        let node = network.node(name);
        until(&format!("{name} refuses a release"), WITHIN, async || {
            let refused = |line: &str| line.contains("release not taken") && line.contains("was forked");
            node.log().lines().any(refused).then_some(())
        })
        .await;
        assert!(network.client(name).repositories().await.unwrap().iter().all(|view| view.generation == 0));
    }
}

#[tokio::test]
async fn what_is_published_was_seen_by_witnesses_and_says_so() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1", "b2", "mirror"]).await;
    network.change_policy(|charter| charter.channels[0].witnesses = 3).await;

    // Two build; without the third operator's node what they made waits, and says for what.
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let waits = (job, "its publication waits for a witness");
    let why = "3 operators must have seen the log";
    let detail = network.job_until(waits, BUILT_WITHIN, |detail| detail.summary.why.contains(why)).await;
    assert!(!detail.summary.state.is_over(), "{detail:#?}");
    network.node("b3").start();
    let detail = network.over(job, BUILT_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");

    // The mirror took it, since it was proven to be logged; each package has its proof beside it, which three operators signed.
    let (channel, mirror) = (network.channel.clone(), network.client("mirror"));
    let path: RelativePath = "pool/main/a/artel-tiny/artel-tiny_1.0_amd64.deb.tlog-proof".parse().unwrap();
    let proof = until("the mirror has the package's proof", WITHIN, async || {
        let file = mirror.repository_file(channel.clone(), path.clone(), ByteRange::All).await.ok()?;
        file.collect(1 << 20).await.ok()
    })
    .await;
    let policy = network.charter.to_policy().unwrap();
    let log = network::log_policy(&network.id, &policy, 3).unwrap();
    let (entry, logged) = Proof::read(&proof).unwrap().entry(&log).unwrap();
    assert_eq!(logged.witnessed.seen.len(), 3, "{logged:?}");
    let Event::Verdict(verdict) = entry.event else { panic!("{entry:?}") };
    assert_eq!((verdict.job, verdict.attestations.len() >= 2), (job, true));
    // What the node serves as its newest checkpoint has the cosignatures, too.
    let served = network.public("mirror").log_file("checkpoint".parse().unwrap()).await.unwrap();
    assert!(log.check(Signed::read(&served).unwrap()).is_ok(), "{}", String::from_utf8_lossy(&served));

    // A change of the repository is not seen by anybody before the witnesses saw its release in the log: its own clients least.
    network.node("b3").kill();
    let own = network.public("coordinator");
    let index: RelativePath = format!("dists/{}/InRelease", ground.lock.suite).parse().unwrap();
    let shown = async || {
        let file = own.repository_file(channel.clone(), index.clone(), ByteRange::All).await.unwrap();
        file.collect(1 << 20).await.unwrap()
    };
    let before = shown().await;
    let prune = ServerJob::Prune(Prune { keep: 0, before: None, packages: vec!["artel-tiny".parse().unwrap()] });
    let pruned = network.serve(&channel, prune, &[]).await;
    let waits = (pruned, "the next generation waits for a witness, and was tried more than once");
    let again = |why: &str| why.contains("3 operators must have seen the log") && why.contains("failed 2 times");
    network.job_until(waits, BUILT_WITHIN, |detail| again(&detail.summary.why)).await;
    assert!(shown().await == before, "nobody sees what is not witnessed");
    network.node("b3").start();
    let detail = network.over(pruned, BUILT_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Done, "{detail:#?}");
    assert!(shown().await != before);
    // Of the tries that no witness saw the log has one release at most.
    let releases = releases(&network).await;
    let newest = releases.last().copied().unwrap();
    assert!(releases.iter().filter(|generation| **generation == newest).count() <= 2, "{releases:?}");
}

/// The generations of the releases in the log that is served, in order.
async fn releases(network: &Network) -> Vec<u64> {
    let served = log::served(network, "coordinator");
    let checkpoint = log::checkpoint(network, &served).await.unwrap();
    let entries = log::bytes(&served, &checkpoint).await;
    let events = entries.iter().map(|bytes| Entry::from_bytes(bytes).unwrap().event);
    events
        .filter_map(|event| if let Event::Release(release) = event { Some(release.generation) } else { None })
        .collect()
}

#[tokio::test]
async fn who_follows_the_log_notices_that_other_coordinators_do_not_continue_it() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(1) });
    let port = free_port();
    let mut config = network.node("b1").config();
    config.reach.listen = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
    config.save(&network.node("b1").home).unwrap();
    let mut config = network.node("mirror").config();
    let peer = artel::net::address_suffix(network.id_of("b1"));
    config.network.bootstrap.push(format!("/ip4/127.0.0.1/udp/{port}/quic-v1{peer}"));
    config.save(&network.node("mirror").home).unwrap();
    network.start_some(&["coordinator", "mirror"]).await;
    let (mirror, next) = (network.id_of("mirror"), network.id_of("b1"));

    // The mirror only follows: it believes what the coordinator has signed, and then there is another coordinator.
    let liar = Liar::take_over(&mut network, "b1").await;
    let believed = until("the mirror believes a checkpoint", WITHIN, async || liar.believed_by(mirror).await).await;
    let size = Signed::read(&believed).unwrap().claims().head().size;
    network.change_policy(|charter| charter.coordinators = CoordinatorsEntry::Pinned(next)).await;
    let client = network.client("mirror");
    let adopted = async || (client.status().await.ok()?.policy.number == 2).then_some(());
    until("the mirror knows the new policy", WITHIN, adopted).await;
    network.node("coordinator").kill();
    liar.tell(Memory::forked(size + 40, 0), Vec::new());
    let evidence = until("the mirror keeps the proof", WITHIN, async || client.conflict().await.ok()).await;
    let keys = ["coordinator", "b1"].map(|name| network::log_key(&network.id, &network.id_of(name)));
    assert!(Conflict::from_bytes(&evidence).unwrap().convicts(&keys).is_ok(), "it names both");
    assert!(
        Conflict::from_bytes(&evidence).unwrap().convicts(&keys[1..]).is_err(),
        "one alone signed no two histories"
    );
    let home = network.node("mirror").home.path().to_owned();
    let said = run(&ground.artel, network.folder(), &["--home", home.to_str().unwrap(), "status"]).await;
    assert!(said.out.starts_with("ALARM"), "{said:?}");

    // A restart forgets nothing of it, though nobody shows it anything any more.
    drop(liar);
    network.node("mirror").kill();
    network.node("mirror").start();
    network.node("mirror").up().await;
    assert!(network.client("mirror").status().await.unwrap().conflict.is_some());
    assert!(network.public("mirror").conflict().await.unwrap() == evidence);
}
