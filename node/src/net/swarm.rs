//! The task that owns the swarm: takes commands and the network's events, one at a time.
//!
//! Nothing in its loop waits for anybody else: the consumer's queue is filled with `try_send`, and what does not fit has a
//! stated answer (a request is refused as busy, an announcement is ignored, a stream is closed). Only who is connected is
//! never lost: the task remembers what it has not told yet.

mod dialling;
mod events;
mod outlet;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm,
    request_response::{OutboundRequestId, ResponseChannel},
    swarm::ConnectionId,
};
use protocol::{NodeId, message::Response};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{dialling::Errand, outlet::Outlet};
use super::{
    AskError, Config, Error, Event, Members, PublishError, Shared, StreamError, Topic,
    behaviour::{Behaviour, network_name},
    discovery,
    exchange::Frame,
    gossip::{self, Door, Judged, Topics},
    identity::{keypair, node_of},
    lock,
    reputation::{BAN_TIME, Reputation},
    streams::{self, Finisher, Purpose, Unfinished, behaviour::KeepAlive},
    transport,
};

/// How often dials, bans and the like are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long the listeners may take to say where they listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shutdown may take to tell the peers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Verdicts that wait for the task; as many as announcements can wait in the inbox, and some more.
const VERDICTS: usize = 4096;
/// Dropped streams that are being finished at one time.
const FINISHING_MAX: usize = 1024;

/// Writes an error with its sources: libp2p's outer errors often say nothing themselves.
fn whole(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = sources.map(ToString::to_string).filter(|words| !words.is_empty()).collect();
    words.join(": ")
}

/// What a [`super::Net`] asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Publish { topic: Topic, bytes: Vec<u8>, done: oneshot::Sender<Result<(), PublishError>> },
    Subscribe(Topic),
    Unsubscribe(Topic),
    Listeners(Topic, oneshot::Sender<Vec<NodeId>>),
    Ask { peer: PeerId, frame: Vec<u8>, answer: Answer },
    Open { peer: PeerId, purpose: Purpose, opened: oneshot::Sender<Result<Stream, StreamError>> },
    Disconnect(PeerId),
    Ban(PeerId),
}

/// Where the answer to our question goes.
type Answer = oneshot::Sender<Result<Response, AskError>>;
/// Where our answer to a peer's question goes, and the answer once the consumer gave it.
type Answered = (ResponseChannel<Frame<Response>>, Option<Vec<u8>>);

/// The queues that the task drains.
pub(super) struct Inputs {
    commands: mpsc::Receiver<Command>,
    members: watch::Receiver<Members>,
    unfinished: mpsc::Receiver<Unfinished>,
    finisher: Finisher,
    judged: mpsc::Receiver<Judged>,
    judge: mpsc::Sender<Judged>,
}

impl Inputs {
    pub(super) fn new(
        commands: mpsc::Receiver<Command>,
        members: watch::Receiver<Members>,
        unfinished: mpsc::Receiver<Unfinished>,
        finisher: Finisher,
    ) -> Self {
        let (judge, judged) = mpsc::channel(VERDICTS);
        Self { commands, members, unfinished, finisher, judged, judge }
    }
}

/// What is under way: it ends by itself, by a failure or by a timeout.
#[derive(Default)]
struct Pending {
    /// Our questions that were sent.
    asked: HashMap<OutboundRequestId, Answer>,
    /// Peers' questions that the consumer has.
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// What waits for a connection.
    errands: BTreeMap<PeerId, Vec<Errand>>,
    /// Dropped streams.
    finishing: JoinSet<()>,
}

/// A peer with at least one connection.
struct Connected {
    node: NodeId,
    connections: Vec<ConnectionId>,
    streams: Arc<Semaphore>,
    coordination: Arc<Semaphore>,
}

/// The task that owns the sockets.
pub struct Task {
    swarm: Swarm<Behaviour>,
    stop: CancellationToken,
    inputs: Inputs,
    outlet: Outlet,
    pending: Pending,
    connected: HashMap<PeerId, Connected>,
    shared: Arc<Shared>,
    reputation: Reputation,
    topics: Topics,
    door: Door,
    /// What identify must say of a peer of this network.
    network: String,
    announce: Vec<Multiaddr>,
}

impl Task {
    /// Binds the sockets and waits until their addresses are known.
    pub(super) async fn bind(
        config: &Config,
        shared: Arc<Shared>,
        inputs: Inputs,
        (events, stop): (mpsc::Sender<Event>, CancellationToken),
    ) -> Result<Self, Error> {
        let keypair = keypair(&config.key);
        let (topics, door) = (Topics::new(config.network), Door::default());
        let transport = transport::build(&keypair).map_err(|error| Error::Transport(error.to_string()))?;
        let behaviour = Behaviour::new(&keypair, config, (&topics, &door))?;
        let local = keypair.public().to_peer_id();
        let mut task = Self {
            swarm: Swarm::new(transport, behaviour, local, transport::swarm_config()),
            stop,
            inputs,
            outlet: Outlet::new(events),
            pending: Pending::default(),
            connected: HashMap::new(),
            shared,
            reputation: Reputation::default(),
            topics,
            door,
            network: network_name(config.network),
            announce: Vec::new(),
        };
        task.read_addresses(config)?;
        task.listen(&config.listen).await?;
        Ok(task)
    }

    fn read_addresses(&mut self, config: &Config) -> Result<(), Error> {
        for text in &config.announce {
            let (_, address) = discovery::parse(text)?;
            self.swarm.add_external_address(address.clone());
            self.announce.push(address);
        }
        for text in &config.bootstrap {
            let (peer, address) = discovery::parse(text)?;
            let peer = peer.ok_or_else(|| discovery::AddressError::Nobody(text.clone()))?;
            if peer != *self.swarm.local_peer_id() {
                lock(&self.shared.book).bootstrap(peer, address, Instant::now());
            }
        }
        Ok(())
    }

    async fn listen(&mut self, addresses: &[String]) -> Result<(), Error> {
        let failed = |text: &String, why: String| Error::Listen { address: text.clone(), why };
        let mut silent = HashMap::new();
        for text in addresses {
            let (_, address) = discovery::parse(text)?;
            transport::refuse_taken(&address).map_err(|error| failed(text, error.to_string()))?;
            let listener = self.swarm.listen_on(address).map_err(|error| failed(text, whole(&error)))?;
            silent.insert(listener, text);
        }
        let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
        while let Some(text) = silent.values().next().copied() {
            let event = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await;
            let event = event.map_err(|_| failed(text, "the socket has no address".into()))?;
            if let Some((listener, outcome)) = events::listener_outcome(&event) {
                let text = silent.remove(&listener);
                if let (Some(text), Err(why)) = (text, outcome) {
                    return Err(failed(text, why));
                }
            }
            self.on_swarm_event(event);
        }
        Ok(())
    }

    /// Runs until `stop` is cancelled, then tells the peers and closes.
    ///
    /// # Errors
    /// None so far: a network that lost all its peers goes on looking for them.
    pub async fn run(mut self) -> Result<(), Error> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        info!(node = %self.outlet_node(), addresses = ?*lock(&self.shared.addresses), "network is up");
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(command) = self.inputs.commands.recv() => self.obey(command),
                Some(judged) = self.inputs.judged.recv() => self.judge(&judged),
                Some((channel, answer)) = self.pending.answers.next() => self.answer(channel, answer),
                Some(stream) = self.inputs.unfinished.recv() => self.finish(stream),
                Some(_) = self.pending.finishing.join_next() => {}
                Ok(()) = self.inputs.members.changed() => self.members_changed(),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                told = self.outlet.tell(), if self.outlet.is_behind() => self.outlet.told(told),
                _ = tick.tick() => self.tick(Instant::now()),
            }
        }
        self.close().await;
        Ok(())
    }

    fn outlet_node(&self) -> String {
        node_of(self.swarm.local_peer_id()).map(|node| node.short()).unwrap_or_default()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes, done } => {
                let got = bytes.len();
                let published = self.swarm.behaviour_mut().gossip.publish(self.topics.ident(topic), bytes);
                // A caller that went away does not want to know.
                drop(done.send(published.map(drop).map_err(|error| gossip::publish_error(topic, got, &error))));
            }
            Command::Subscribe(topic) => {
                self.door.open(self.topics.ident(topic).hash());
                if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&self.topics.ident(topic)) {
                    warn!(?topic, %error, "not subscribed");
                }
            }
            Command::Unsubscribe(topic) => {
                self.swarm.behaviour_mut().gossip.unsubscribe(&self.topics.ident(topic));
            }
            Command::Listeners(topic, listeners) => {
                let hash = self.topics.ident(topic).hash();
                let peers = self.swarm.behaviour().gossip.all_peers();
                let listening = peers.filter(|(_, topics)| topics.contains(&&hash));
                drop(listeners.send(listening.filter_map(|(peer, _)| node_of(peer)).collect()));
            }
            Command::Ask { peer, frame, answer } => self.run_errand(peer, Errand::Ask { frame, answer }),
            Command::Open { peer, purpose, opened } => self.run_errand(peer, Errand::Open { purpose, opened }),
            Command::Disconnect(peer) => self.disconnect(peer),
            Command::Ban(peer) => self.ban(peer, BAN_TIME),
        }
    }

    fn judge(&mut self, judged: &Judged) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&judged.message, &judged.source, judged.acceptance);
    }

    /// Finishes a dropped stream beside the loop; beyond the limit it is reset.
    fn finish(&mut self, stream: Unfinished) {
        if self.pending.finishing.len() < FINISHING_MAX {
            self.pending.finishing.spawn(streams::finish(stream));
        }
    }

    /// Keeps the connections of members, and lets go of those who no longer are.
    fn members_changed(&mut self) {
        let kept: Vec<_> = self.connected.keys().map(|peer| (*peer, self.keep_alive(peer))).collect();
        for (peer, keep) in kept {
            for connection in self.connected.get(&peer).map(|c| c.connections.clone()).unwrap_or_default() {
                self.swarm.behaviour_mut().streams.keep(peer, connection, keep);
            }
        }
    }

    fn keep_alive(&self, peer: &PeerId) -> KeepAlive {
        let known = self.is_member(peer) || lock(&self.shared.book).is_bootstrap(peer);
        if known { KeepAlive::Always } else { KeepAlive::WhileUsed }
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        node_of(peer).is_some_and(|node| self.inputs.members.borrow().contains(&node))
    }

    fn disconnect(&mut self, peer: PeerId) {
        // An error means that it is not connected, which is what was asked for.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn ban(&mut self, peer: PeerId, time: Duration) {
        self.reputation.ban(peer, Instant::now() + time);
        self.swarm.behaviour_mut().blocked.block_peer(peer);
    }

    fn tick(&mut self, now: Instant) {
        for peer in self.reputation.pardoned(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        self.dial_due(now);
    }

    /// Finishes dropped streams and closes every connection, so that peers notice at once.
    async fn close(mut self) {
        let deadline = tokio::time::Instant::now() + CLOSE_TIMEOUT;
        while let Ok(stream) = self.inputs.unfinished.try_recv() {
            self.finish(stream);
        }
        let finished = async { while self.pending.finishing.join_next().await.is_some() {} };
        // Streams need the swarm to move their last bytes.
        tokio::select! {
            () = finished => {}
            () = async { loop { self.swarm.select_next_some().await; } } => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            self.disconnect(peer);
        }
        while self.swarm.connected_peers().next().is_some() {
            if tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await.is_err() {
                break;
            }
        }
        info!("network is down");
    }
}
