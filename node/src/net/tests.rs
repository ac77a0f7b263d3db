//! Real nodes on loopback: each test is a small network of its own.

mod company;
mod hostile;

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use protocol::{Hash, NetworkId, NodeId, message::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::*;

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const PATIENCE: Duration = Duration::from_secs(10);
/// Less than a heartbeat of gossipsub.
const AT_ONCE: Duration = Duration::from_millis(300);
/// So often is tried what a busy machine may keep from being in time.
const TRIES_MAX: u32 = 5;

fn network() -> NetworkId {
    NetworkId::from(Hash::of(b"test network"))
}

fn config(seed: u8, listen: &str, bootstrap: &[String]) -> Config {
    Config {
        key: SigningKey::from_bytes(&[seed; 32]),
        network: network(),
        listen: vec![listen.to_owned()],
        announce: Vec::new(),
        bootstrap: bootstrap.to_vec(),
        mdns: Mdns::Off,
        connections: 32,
    }
}

struct Node {
    net: Net,
    inbox: Inbox,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    async fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let (net, inbox, task) = start(config, stop.clone()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { task.run().await.unwrap() });
        Self { net, inbox, stop, tasks }
    }

    /// Starts a node where another one was: in one process its socket closes a moment later than its task ends.
    async fn restart(config: &Config) -> Self {
        let since = Instant::now();
        loop {
            let stop = CancellationToken::new();
            match start(config.clone(), stop.clone()).await {
                Ok((net, inbox, task)) => {
                    let mut tasks = JoinSet::new();
                    tasks.spawn(async move { task.run().await.unwrap() });
                    return Self { net, inbox, stop, tasks };
                }
                Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn next(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.inbox.next()).await.expect("an event in time").expect("the network runs")
    }

    async fn connected(&mut self, node: NodeId) {
        while !matches!(self.next().await, Event::Connected(other) if other == node) {}
    }

    /// Waits until so many connected nodes listen to the topic.
    async fn listened_to(&self, topic: Topic, count: usize) {
        let since = Instant::now();
        while self.net.listeners(topic).await.len() < count {
            assert!(since.elapsed() < PATIENCE, "nobody listens to {topic:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the next announcement and gives the verdict on it.
    async fn announced(&mut self, judge: impl Fn(&[u8], Verdictor)) -> Vec<u8> {
        loop {
            if let Event::Gossip { bytes, verdict, .. } = self.next().await {
                judge(&bytes, verdict);
                return bytes;
            }
        }
    }

    /// Waits until it hears this announcement, and accepts all on the way.
    async fn hears(&mut self, said: &[u8], patience: Duration) -> Result<(), tokio::time::error::Elapsed> {
        let heard = async { while self.announced(|_, verdict| verdict.accept()).await != said {} };
        tokio::time::timeout(patience, heard).await
    }

    /// Answers every question with its own words from now on.
    fn echo(&mut self) {
        let (_, empty) = tokio::sync::mpsc::channel(1);
        let mut inbox = std::mem::replace(&mut self.inbox, Inbox { events: empty });
        self.tasks.spawn(async move {
            while let Some(event) = inbox.next().await {
                if let Event::Request { request: Request::View(words), reply, .. } = event {
                    reply.send(&Response::View(Octets(words.into_bytes())));
                }
            }
        });
    }

    async fn end(mut self) {
        self.stop.cancel();
        drop((self.net, self.inbox));
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn end(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.end().await;
    }
}

fn view(words: &str) -> Request {
    Request::View(words.to_owned())
}

async fn ask_and_answer(listen: &str) {
    let mut a = Node::start(config(1, listen, &[])).await;
    let b = Node::start(config(2, listen, &a.net.listen_addresses())).await;
    a.net.set_members([b.net.node_id()].into_iter().collect());
    a.echo();
    let node = a.net.node_id();
    let mut times = Vec::new();
    for round in 0..200 {
        let words = format!("round {round}");
        let since = Instant::now();
        let answer = b.net.ask(node, view(&words)).await.unwrap();
        times.push(since.elapsed());
        assert_eq!(answer, Response::View(Octets(words.into_bytes())));
    }
    times.sort();
    println!("ask over {listen}: p50 {:?}, p99 {:?}", times[100], times[198]);
    let mut many = JoinSet::new();
    for round in 0..100 {
        let net = b.net.clone();
        many.spawn(async move { net.ask(node, view(&"x".repeat(round))).await.unwrap() });
    }
    assert_eq!(many.join_all().await.len(), 100, "more than may be in flight wait their turn");
    let large = "y".repeat(1024 * 1024 - 64);
    assert_eq!(b.net.ask(node, view(&large)).await.unwrap(), Response::View(Octets(large.into_bytes())));
    let peers = b.net.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].node, peers[0].agent.as_deref()), (node, Some(concat!("artel/", env!("CARGO_PKG_VERSION")))));
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ask_and_answer_over_quic() {
    ask_and_answer(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ask_and_answer_over_tcp() {
    ask_and_answer(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_cannot_be_answered_fail_fast_and_say_why() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let stranger = NodeId::from_bytes(SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes());
    let since = Instant::now();
    let error = a.net.ask(stranger, Request::Policy).await.unwrap_err();
    assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
    assert!(matches!(a.net.open(stranger, Purpose::Blobs).await, Err(StreamError::Unreachable { .. })));
    a.net.add_address(stranger, "/ip4/127.0.0.1/tcp/1").unwrap();
    assert!(matches!(a.net.ask(stranger, Request::Policy).await, Err(AskError::Unreachable { .. })));
    // Far sooner than a question, or a single dial, that waits until its time is over.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());

    let error = a.net.ask(stranger, view(&"z".repeat(2 * 1024 * 1024))).await.unwrap_err();
    assert!(matches!(error, AskError::TooLarge(FrameError::TooLarge { limit: 1_048_576, .. })), "{error}");
    let error = a.net.publish(Topic::Facts, vec![0; 9000]).await.unwrap_err();
    assert_eq!(error, PublishError::TooLarge { got: 9000, limit: 8192 });
    assert_eq!(a.net.publish(Topic::Facts, vec![1]).await, Err(PublishError::NobodyListens(Topic::Facts)));

    let net = a.net.clone();
    a.tasks.spawn(async move { drop(net.ask(net.node_id(), Request::Open).await) });
    assert!(matches!(a.next().await, Event::Request { from, request: Request::Open, .. } if from == a.net.node_id()));
    end([a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_in_use_and_a_bad_address_are_refused_at_start() {
    let a = Node::start(config(1, TCP, &[])).await;
    let taken = a.net.listen_addresses()[0].clone();
    let refused = |listen: &str, bootstrap: &[String]| start(config(2, listen, bootstrap), CancellationToken::new());
    assert!(matches!(refused(taken.split("/p2p/").next().unwrap(), &[]).await, Err(Error::Listen { .. })));
    assert!(matches!(refused("nonsense", &[]).await, Err(Error::Address(AddressError::Malformed { .. }))));
    assert!(matches!(refused(TCP, &[TCP.to_owned()]).await, Err(Error::Address(AddressError::Nobody(_)))));
    end([a]).await;
}

/// Lets the last node say something; says whether all others heard it in time, those in the middle first.
async fn all_hear(nodes: &mut [Node], said: &[u8], patience: Duration) -> bool {
    let (speaker, listeners) = nodes.split_last_mut().unwrap();
    speaker.net.publish(Topic::Facts, said.to_vec()).await.unwrap();
    let mut heard = true;
    for listener in listeners {
        heard &= listener.hears(said, patience).await.is_ok();
    }
    heard
}

/// Five nodes around the first: what one of the outer four says, the others hear through the middle.
async fn gossip_reaches_everybody(listen: &str) {
    let mut nodes = vec![Node::start(config(1, listen, &[])).await];
    let bootstrap = nodes[0].net.listen_addresses();
    for seed in 2..=5 {
        nodes.push(Node::start(config(seed, listen, &bootstrap)).await);
    }
    for node in &nodes {
        node.net.subscribe(Topic::Facts).await;
    }
    nodes[0].listened_to(Topic::Facts, 4).await;
    for node in &nodes[1..] {
        node.listened_to(Topic::Facts, 1).await;
    }
    // The mesh is complete some milliseconds after the subscriptions; what is said before may miss a neighbour's neighbour.
    let since = Instant::now();
    let mut said = b"warm-up".to_vec();
    while !all_hear(&mut nodes, &said, AT_ONCE).await {
        assert!(since.elapsed() < PATIENCE, "the mesh stays incomplete");
        said.push(b'!');
    }
    let mut times = Vec::new();
    for round in 0..20_u8 {
        let since = Instant::now();
        assert!(all_hear(&mut nodes, &[round; 300], PATIENCE).await);
        times.push(since.elapsed());
    }
    times.sort();
    println!("gossip over {listen}, two hops, last of four: p50 {:?}, p95 {:?}", times[10], times[18]);
    assert!(times[10] < AT_ONCE, "what is said is forwarded at once, not at the next heartbeat: {times:?}");
    assert_eq!(nodes[4].net.publish(Topic::Facts, vec![0; 300]).await, Err(PublishError::Duplicate));
    end(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_everybody_over_quic() {
    gossip_reaches_everybody(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_everybody_over_tcp() {
    gossip_reaches_everybody(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_accepted_in_time_is_forwarded() {
    let mut middle = Node::start(config(1, QUIC, &[])).await;
    let bootstrap = middle.net.listen_addresses();
    let speaker = Node::start(config(2, QUIC, &bootstrap)).await;
    let mut listener = Node::start(config(3, QUIC, &bootstrap)).await;
    for node in [&middle, &speaker, &listener] {
        node.net.subscribe(Topic::Nodes).await;
    }
    middle.listened_to(Topic::Nodes, 2).await;
    speaker.listened_to(Topic::Nodes, 1).await;
    let judge = |bytes: &[u8], verdict: Verdictor| match bytes[0] {
        b'a' => verdict.accept(),
        b'r' => verdict.reject(),
        b'd' => drop(verdict),
        b'l' => {
            std::thread::sleep(gossip::VERDICT_WITHIN + Duration::from_millis(50));
            verdict.accept();
        }
        _ => verdict.ignore(),
    };
    for tried in 0.. {
        assert!(tried < TRIES_MAX, "the test itself is never in time");
        let mut in_time = true;
        for said in ["accepted first", "rejected", "dropped", "ignored", "late", "accepted last"] {
            let (said, since) = (format!("{said} {tried}"), Instant::now());
            speaker.net.publish(Topic::Nodes, said.clone().into()).await.unwrap();
            assert_eq!(middle.announced(judge).await, said.as_bytes());
            in_time &= !said.starts_with("accepted") || since.elapsed() < gossip::VERDICT_WITHIN;
        }
        if in_time {
            let mut heard = Vec::new();
            let last = format!("accepted last {tried}").into_bytes();
            while heard.last() != Some(&last) {
                heard.push(listener.announced(judge).await);
            }
            assert!(heard.iter().all(|said| said.starts_with(b"accepted")), "{heard:?}");
            assert!(heard.contains(&format!("accepted first {tried}").into_bytes()), "{heard:?}");
            break;
        }
    }
    end([middle, speaker, listener]).await;
}

/// The listening address of a node without its id, to listen there again.
fn place(node: &Node) -> String {
    node.net.listen_addresses()[0].split("/p2p/").next().unwrap().to_owned()
}

/// Repeats what takes its time until that is short enough, and prints each.
async fn soon(what: &str, within: Duration, scenario: impl AsyncFn() -> Duration) {
    for tried in 1..=TRIES_MAX {
        let took = scenario().await;
        println!("{what} after {took:?}");
        if took < within {
            return;
        }
        assert!(tried < TRIES_MAX, "{what} after {took:?}");
    }
}

async fn found_again(listen: &str) -> Duration {
    let a = Node::start(config(1, listen, &[])).await;
    let (node, place) = (a.net.node_id(), place(&a));
    let mut b = Node::start(config(2, listen, &a.net.listen_addresses())).await;
    b.connected(node).await;
    a.end().await;
    while !matches!(b.next().await, Event::Disconnected(lost) if lost == node) {}
    assert!(b.net.peers().is_empty());
    let since = Instant::now();
    let a = Node::restart(&config(1, &place, &[])).await;
    b.connected(node).await;
    let took = since.elapsed();
    end([a, b]).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_is_found_again_over_quic() {
    soon("found again over QUIC", Duration::from_secs(5), async || found_again(QUIC).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_is_found_again_over_tcp() {
    soon("found again over TCP", Duration::from_secs(5), async || found_again(TCP).await).await;
}

/// A node that dies with its runtime says goodbye to nobody, as after `kill -9`.
async fn killed_and_found_again() -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut starting = JoinSet::new();
    starting.spawn_on(Node::start(config(1, QUIC, &[])), runtime.handle());
    let a = starting.join_next().await.unwrap().unwrap();
    let (node, place) = (a.net.node_id(), place(&a));
    let mut b = Node::start(config(2, QUIC, &a.net.listen_addresses())).await;
    b.connected(node).await;
    runtime.shutdown_background();
    drop(a);
    let since = Instant::now();
    let a = Node::restart(&config(1, &place, &[])).await;
    b.connected(node).await;
    let took = since.elapsed();
    end([a, b]).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_that_comes_back_is_found_again() {
    // Counted from the death: four seconds of silence, then the first retry.
    soon("a killed node was found again", Duration::from_secs(6), killed_and_found_again).await;
}

async fn streams(listen: &str) {
    const SIZE: usize = 64 * 1024 * 1024;
    let mut a = Node::start(config(1, listen, &[])).await;
    let b = Node::start(config(2, listen, &a.net.listen_addresses())).await;
    a.net.set_members([b.net.node_id()].into_iter().collect());
    let (mut from_a, mut to_a) = b.net.open(a.net.node_id(), Purpose::Blobs).await.unwrap().split();
    to_a.write_all(b"64 MiB, please").await.unwrap();
    drop(to_a);
    let Event::Stream { from, stream, .. } = a.stream().await else { unreachable!("stream() gives a stream") };
    assert_eq!(from, b.net.node_id());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut read, mut write) = stream.split();
        let mut asked = String::new();
        read.read_to_string(&mut asked).await.expect("the dropped half ends, it does not reset");
        assert_eq!(asked, "64 MiB, please");
        let block = vec![0xa5; 256 * 1024];
        for _ in 0..SIZE / block.len() {
            write.write_all(&block).await.unwrap();
        }
    });
    let since = Instant::now();
    let mut block = vec![0; 64 * 1024];
    let mut got = 0;
    loop {
        match from_a.read(&mut block).await.expect("dropped after the last byte, it ends, it does not reset") {
            0 => break,
            count => got += count,
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    assert_eq!(got, SIZE);
    println!("stream over {listen}: {:.0} MiB/s", 64.0 / seconds);
    serving.join_all().await;
    end([a, b]).await;
}

impl Node {
    async fn stream(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if matches!(event, Event::Stream { .. }) {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_megabytes_and_end_by_halves_over_quic() {
    streams(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_megabytes_and_end_by_halves_over_tcp() {
    streams(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_for_members_and_bounded() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let b = Node::start(config(2, QUIC, &a.net.listen_addresses())).await;
    let node = a.net.node_id();
    let mut refused = b.net.open(node, Purpose::Blobs).await.unwrap();
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, refused.read_to_end(&mut nothing)).await.expect("refused at once");
    assert!(ended.is_err() || nothing.is_empty());

    a.net.set_members([b.net.node_id()].into_iter().collect());
    let mut opened = JoinSet::new();
    for _ in 0..streams::INBOUND_MAX {
        let net = b.net.clone();
        opened.spawn(async move {
            let mut stream = net.open(node, Purpose::Blobs).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream
        });
    }
    let mut taken = Vec::new();
    for _ in 0..streams::INBOUND_MAX {
        taken.push(a.stream().await);
    }
    let mut ours = opened.join_all().await;
    let mut refused = b.net.open(node, Purpose::Blobs).await.unwrap();
    drop(refused.write_all(b"!").await);
    let ended = tokio::time::timeout(PATIENCE, refused.read_to_end(&mut nothing)).await.expect("refused at once");
    assert!(ended.is_err() || nothing.is_empty());
    drop((taken.pop(), ours.pop()));
    let stream = b.net.open(node, Purpose::Blobs).await.unwrap();
    a.stream().await;
    drop(stream);
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_streams_are_for_candidates_alone() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let b = Node::start(config(2, QUIC, &a.net.listen_addresses())).await;
    let (node, other) = (a.net.node_id(), b.net.node_id());
    let members: Members = [other].into_iter().collect();
    a.net.set_members(members.clone());
    let mut refused = b.net.open(node, Purpose::Coordination).await.unwrap();
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, refused.read_to_end(&mut nothing)).await.expect("refused at once");
    assert!(ended.is_err() || nothing.is_empty(), "a member that may not coordinate");

    a.net.set_members(members.with_candidates([other]));
    let mut opened = b.net.open(node, Purpose::Coordination).await.unwrap();
    opened.write_all(b"?").await.unwrap();
    let Event::Stream { from, purpose, mut stream } = a.stream().await else { unreachable!("stream() gives a stream") };
    assert_eq!((from, purpose), (other, Purpose::Coordination));
    assert_eq!(stream.read_u8().await.unwrap(), b'?');
    drop((stream, opened));
    end([a, b]).await;
}
