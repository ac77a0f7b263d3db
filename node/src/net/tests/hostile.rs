//! A peer that speaks libp2p correctly and our protocols wrongly.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};

use super::*;
use crate::net::streams::behaviour::Behaviour as Raw;

/// Opens raw streams of the exchange protocol.
struct Attacker {
    swarm: Swarm<Raw>,
    target: PeerId,
}

impl Attacker {
    async fn connect(node: &Node) -> Self {
        let keypair = identity::keypair(&SigningKey::from_bytes(&[66; 32]));
        let local = keypair.public().to_peer_id();
        let raw = Raw::new(behaviour::exchange_name(network()));
        let mut swarm = Swarm::new(transport::build(&keypair).unwrap(), raw, local, transport::swarm_config());
        let target = peer_of(node.net.node_id()).unwrap();
        let address: Multiaddr = place(node).parse().unwrap();
        swarm.dial(DialOpts::peer_id(target).addresses(vec![address]).build()).unwrap();
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        Self { swarm, target }
    }

    /// Writes bytes as they are and reads what comes back.
    async fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (opened, stream) = oneshot::channel();
        self.swarm.behaviour_mut().open(self.target, opened);
        let spoken = async {
            let mut stream = stream.await.unwrap().unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            answer
        };
        tokio::select! {
            answer = spoken => answer,
            () = async { loop { self.swarm.select_next_some().await; } } => unreachable!("a swarm does not end"),
            () = tokio::time::sleep(PATIENCE) => panic!("no answer to {bytes:02x?}"),
        }
    }
}

fn refusal(answer: &[u8]) -> String {
    match exchange::decode_own(answer) {
        Ok(Response::Refused(Refusal::Invalid(why))) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_length_is_refused_before_anything_is_allocated() {
    let node = Node::start(config(1, QUIC, &[])).await;
    let mut attacker = Attacker::connect(&node).await;
    let before = resident_kib();
    let why = refusal(&attacker.say(&u32::MAX.to_be_bytes()).await);
    assert!(why.contains("4294967295 bytes is over the limit of 1048576"), "{why}");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "grew by {grown} KiB");
    end([node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_canonical_is_refused_and_who_repeats_it_is_cut_off() {
    let mut node = Node::start(config(1, TCP, &[])).await;
    let mut attacker = Attacker::connect(&node).await;
    // Requests `Policy` and `Open` are text strings; the first is written with a length that a shorter form could carry.
    let why = refusal(&attacker.say(b"\0\0\0\x08\x78\x06Policy").await);
    assert!(why.contains("not canonical CBOR") && why.contains("shortest form"), "{why}");
    let why = refusal(&attacker.say(b"\0\0\0\x08\x66Policy\0").await);
    assert!(why.contains("trailing bytes"), "{why}");
    let why = refusal(&attacker.say(b"\0\0\0\x05\x64Opeq").await);
    assert!(why.contains("does not decode"), "{why}");
    let peer = identity::node_of(attacker.swarm.local_peer_id()).unwrap();
    node.connected(peer).await;
    assert_eq!(node.net.peers().len(), 1, "three times are forgiven");

    let (opened, stream) = oneshot::channel();
    attacker.swarm.behaviour_mut().open(attacker.target, opened);
    let fourth = async {
        let mut stream = stream.await.unwrap().unwrap();
        drop(stream.write_all(&u32::MAX.to_be_bytes()).await);
        drop(stream.flush().await);
        stream
    };
    let closed =
        async { while !matches!(attacker.swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
    let both = futures::future::join(fourth, closed);
    tokio::time::timeout(PATIENCE, both).await.expect("cut off after the fourth");
    while !matches!(node.next().await, Event::Disconnected(lost) if lost == peer) {}
    end([node]).await;
}
