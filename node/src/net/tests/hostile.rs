//! A peer that speaks libp2p correctly and our protocols wrongly.

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};

use super::*;
use crate::net::streams::behaviour::Behaviour as Raw;

/// Requests that an attacker has begun at one time.
const HALF_SENT: usize = 40;
/// As many strangers as are let in.
const STRANGERS: u8 = 8;

/// Opens raw streams of the exchange protocol.
struct Attacker {
    swarm: Swarm<Raw>,
    target: PeerId,
}

impl Attacker {
    async fn connect(node: &Node, seed: u8) -> Self {
        let keypair = identity::keypair(&SigningKey::from_bytes(&[seed; 32]));
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

/// Sends the start of a request on each of many streams and nothing more, until the connection is closed.
async fn announce_and_keep_silent(mut attacker: Attacker, starts: watch::Sender<usize>, start: Arc<[u8]>) {
    let mut silent = FuturesUnordered::new();
    for _ in 0..HALF_SENT {
        let (opened, stream) = oneshot::channel();
        attacker.swarm.behaviour_mut().open(attacker.target, opened);
        let (starts, start) = (starts.clone(), Arc::clone(&start));
        silent.push(async move {
            let Ok(Ok(mut stream)) = stream.await else { return };
            // What finds no room may be refused before it is all sent.
            let sent = stream.write_all(&start).await.is_ok() && stream.flush().await.is_ok();
            starts.send_modify(|count| *count += 1);
            if sent {
                drop(stream.read_to_end(&mut Vec::new()).await);
            }
        });
    }
    loop {
        tokio::select! {
            event = attacker.swarm.select_next_some() => if matches!(event, SwarmEvent::ConnectionClosed { .. }) { return },
            Some(()) = silent.next() => {}
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
    let mut attacker = Attacker::connect(&node, 66).await;
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
    let mut attacker = Attacker::connect(&node, 66).await;
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

/// Lets all strangers that are let in begin requests of a size and send no more than a part; gives their tasks.
async fn besiege(node: &Node, announced: u32) -> JoinSet<()> {
    let mut start = announced.to_be_bytes().to_vec();
    start.resize(16 * 1024, 0);
    let start: Arc<[u8]> = start.into();
    let (starts, mut begun) = watch::channel(0);
    let mut strangers = JoinSet::new();
    for seed in 0..STRANGERS {
        let attacker = Attacker::connect(node, 100 + seed).await;
        strangers.spawn(announce_and_keep_silent(attacker, starts.clone(), Arc::clone(&start)));
    }
    let all = usize::from(STRANGERS) * HALF_SENT;
    let begun = begun.wait_for(|begun| *begun >= all);
    drop(tokio::time::timeout(PATIENCE, begun).await.expect("the attack is under way"));
    strangers
}

/// Waits until a node has one peer.
async fn alone_with(node: &Node) {
    let since = Instant::now();
    while node.net.peers().len() > 1 {
        assert!(since.elapsed() < PATIENCE * 3, "strangers stay");
        tokio::task::yield_now().await;
    }
}

/// Asks questions small and large, which are answered before libp2p gives up what the strangers hold: nothing waits for that.
async fn answered_meanwhile(member: &Node, node: NodeId) {
    let since = Instant::now();
    for size in (0..20).map(|round| round * 1024).chain([limits::REQUEST_MAX - 64]) {
        let words = "x".repeat(size);
        let answer = member.net.ask(node, view(&words)).await.unwrap();
        assert_eq!(answer, Response::View(Octets(words.into_bytes())));
    }
    println!("21 answers during an attack: {:?}", since.elapsed());
    assert!(since.elapsed() < exchange::EXCHANGE_TIMEOUT / 2, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_announce_requests_and_send_none_delay_nobody_and_are_cut_off() {
    let mut node = Node::start(config(1, QUIC, &[])).await;
    let member = Node::start(config(2, QUIC, &node.net.listen_addresses())).await;
    node.net.set_members([member.net.node_id()].into_iter().collect());
    node.connected(member.net.node_id()).await;
    node.echo();
    let before = resident_kib();
    let grown = || resident_kib().saturating_sub(before);

    // Each announces far more than its share.
    let strangers = besiege(&node, u32::try_from(limits::REQUEST_MAX).unwrap()).await;
    answered_meanwhile(&member, node.net.node_id()).await;
    assert!(grown() < 64 * 1024, "grew by {} KiB", grown());
    drop(strangers);
    alone_with(&node).await;

    let strangers = besiege(&node, 50 * 1024).await;
    answered_meanwhile(&member, node.net.node_id()).await;
    assert!(grown() < 64 * 1024, "grew by {} KiB", grown());
    let cut_off = strangers.join_all();
    tokio::time::timeout(PATIENCE * 3, cut_off).await.expect("who is late with many is cut off");
    alone_with(&node).await;
    assert_eq!(node.net.peers()[0].node, member.net.node_id(), "the member is not");
    end([node, member]).await;
}
