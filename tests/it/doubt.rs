//! A coordinator that tells a node's witness another history than everybody else: the node notices by itself, stops in doubt while
//! nobody serves the other one's tiles, and has the evidence as soon as somebody does.

use std::time::Duration;

use artel::{charter::CoordinatorsEntry, keys};
use attest::testing::log::Memory;
use harness::{Forker, Network, Plan, run, until};
use protocol::message::{Octets, Request, Response};
use web::Backend;

use crate::{clients::get, ground, witness::Log};

/// How soon a node must have stopped.
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_history_that_only_the_witness_is_told_stops_its_node_and_is_evidence_once_it_is_shown() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(1) });
    let (mirror, other) = (network.id_of("mirror"), || Memory::forked(520, 77));
    let forker = Forker::take_over(&mut network, &[(mirror, Memory::sized(300))].into()).await;
    network.node("mirror").start();
    network.node("mirror").up().await;
    let (page, client) = (network.public("mirror"), network.client("mirror"));
    let log = Log { key: forker.key().clone(), id: network.id, memory: other() };
    let cosigned = page.add_checkpoint(log.request(0, 520)).await.unwrap();
    assert_eq!(cosigned.status, 200, "{cosigned:?}");

    // Without the tiles nobody can prove anything, and nothing more is believed.
    let doubt = until("the mirror is in doubt", WITHIN, async || client.status().await.ok()?.doubt).await;
    assert_eq!((doubt.size, doubt.from), (520, mirror));
    assert_eq!(client.status().await.unwrap().conflict, None);
    let refused = page.add_checkpoint(log.request(520, 520)).await.unwrap();
    assert_eq!((refused.status, refused.body.contains("nobody shows")), (403, true), "{refused:?}");
    assert_eq!(page.metrics().await.unwrap().log_doubts, 1);
    let home = network.node("mirror").home.path().to_owned();
    let said = run(&ground.artel, network.folder(), &["--home", home.to_str().unwrap(), "status"]).await;
    assert!(said.out.starts_with("DOUBT") && said.out.contains("520 entries"), "{said:?}");
    let (status, html) = get(&network.public_address("mirror"), "/");
    assert!(status == 200 && html.contains("The log of this network is in doubt"), "{html}");

    forker.show(mirror, &other());
    let conflict = until("the mirror has evidence", WITHIN, async || client.status().await.ok()?.conflict).await;
    assert_eq!(conflict.sizes, [300, 520]);
    assert_eq!(client.status().await.unwrap().doubt, None, "there is evidence, which says more");

    // Under other coordinators the witness begins anew: which of the two histories goes on is not its to say.
    let next = network.id_of("b1");
    let policy = network.next_policy(|charter| charter.coordinators = CoordinatorsEntry::Pinned(next));
    let genesis = std::fs::read(network.node("coordinator").home.genesis()).unwrap();
    forker.tell(Request::Policy, Response::Records([genesis, policy].map(Octets).into()));
    network.node("mirror").kill();
    network.node("mirror").start();
    network.node("mirror").up().await;
    let adopted = async || (client.status().await.ok()?.policy.number == 2).then_some(());
    until("the mirror knows the new policy", WITHIN, adopted).await;
    assert_eq!(client.status().await.unwrap().conflict, None);
    let key = keys::load(&network.node("b1").home.node_key()).unwrap();
    let log = Log { key, id: network.id, memory: Memory::sized(9) };
    let anew = page.add_checkpoint(log.request(0, 9)).await.unwrap();
    assert_eq!(anew.status, 200, "{anew:?}");
}
