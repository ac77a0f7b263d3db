//! The network: everything that this node says to and hears from other nodes.
//!
//! One task owns the sockets ([`Task::run`]); [`Net`] is a cheap handle to it, [`Inbox`] is what came in. Outside this folder
//! nodes have a [`NodeId`] and nothing else: this is the only place that names libp2p. It moves bytes and enforces limits;
//! what a message means, and who may ask what, is decided by the consumer.
//!
//! ```text
//!   Net --commands--> Task (swarm, behaviour) --events--> Inbox
//!    |                  |- gossip      announcements, forwarded after a verdict
//!    |                  |- exchange    one request, one response
//!    |                  |- streams     bytes of blobs, members only; and of the coordinators' group, candidates only
//!    '-- book, peers    '- discovery   whom to dial and when
//! ```

mod behaviour;
mod callers;
mod discovery;
mod exchange;
mod gossip;
mod identity;
mod reputation;
mod streams;
mod swarm;
mod transport;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use protocol::{
    NetworkId, NodeId, limits,
    message::{Request, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    discovery::Book,
    identity::peer_of,
    streams::{Finisher, Slot},
    swarm::Command,
};
pub use self::{
    discovery::{AddressError, check_address},
    exchange::{AskError, FrameError, Reply},
    gossip::{PublishError, Topic, Verdictor},
    identity::address_suffix,
    streams::{ByteStream, Purpose, ReadHalf, StreamError, WriteHalf},
    swarm::Task,
};

/// How long [`Net::ask`] and [`Net::open`] wait, dialling included.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Commands that wait for the task; a caller of a full queue waits.
const COMMANDS: usize = 256;
/// Events that wait for the consumer; when it is full, requests are refused as busy and announcements are ignored.
const INBOX: usize = 1024;

/// Whether nodes on the same LAN are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mdns {
    /// Not looked for.
    Off,
    /// Looked for by multicast.
    On,
}

/// What the network of a node needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's key.
    pub key: SigningKey,
    /// The network that it belongs to.
    pub network: NetworkId,
    /// Multiaddrs to listen on; port 0 takes a free one.
    pub listen: Vec<String>,
    /// Multiaddrs under which a public node is known outside, where they differ from what it listens on.
    pub announce: Vec<String>,
    /// Multiaddrs, with `/p2p/`, of the nodes to stay connected to.
    pub bootstrap: Vec<String>,
    /// Whether nodes on the same LAN are looked for.
    pub mdns: Mdns,
    /// Connections that may be established at one time.
    pub connections: u32,
}

/// Why the network did not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address of the configuration is no use.
    #[error("address in the configuration")]
    Address(#[from] AddressError),
    /// A socket could not be bound.
    #[error("cannot listen on {address}: {why}; is another node running on this port?")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The socket for mdns could not be opened.
    #[error("cannot look for nodes on the LAN; switch mdns off, or allow multicast")]
    Mdns(#[source] io::Error),
    /// The key could not be used for the noise handshake.
    #[error("cannot set up the transport: {0}")]
    Transport(String),
    /// The settings of gossipsub contradict each other.
    #[error("cannot set up gossip: {0}")]
    Gossip(String),
}

/// The nodes that the policy names. Blob streams are only for them, and their connections are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    nodes: BTreeSet<NodeId>,
    candidates: BTreeSet<NodeId>,
}

impl Members {
    /// Says whether a node is a member.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    /// Says who of them may coordinate: only those may open a coordinators' stream, and they keep looking for each other.
    #[must_use]
    pub fn with_candidates(mut self, candidates: impl IntoIterator<Item = NodeId>) -> Self {
        self.candidates = candidates.into_iter().collect();
        self
    }

    /// Says whether a node may coordinate.
    pub fn is_candidate(&self, node: &NodeId) -> bool {
        self.candidates.contains(node)
    }

    /// Says whether a node may open a stream.
    pub(in crate::net) fn may_open(&self, node: &NodeId, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Blobs => self.contains(node),
            Purpose::Coordination => self.is_candidate(node),
        }
    }
}

impl FromIterator<NodeId> for Members {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Self { nodes: nodes.into_iter().collect(), candidates: BTreeSet::new() }
    }
}

/// A connected node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its address on this connection.
    pub address: String,
    /// Since when it is connected.
    pub since: Instant,
    /// The program that it says it runs, once it said so.
    pub agent: Option<String>,
    /// The newest round-trip time, once measured.
    pub rtt: Option<Duration>,
}

/// What came in from other nodes.
#[derive(Debug)]
pub enum Event {
    /// An announcement, which waits for its verdict before it is forwarded.
    Gossip {
        /// What it is about.
        topic: Topic,
        /// Who handed it to us; who wrote it is in the bytes.
        from: NodeId,
        /// The bytes, at most [`limits::GOSSIP_MAX`].
        bytes: Vec<u8>,
        /// To be answered within a second.
        verdict: Verdictor,
    },
    /// A question.
    Request {
        /// Who asks; the transport has proven it.
        from: NodeId,
        /// The question.
        request: Request,
        /// To be answered within 15 seconds.
        reply: Reply,
    },
    /// A member opened a stream to read blobs, or a candidate one between coordinators.
    Stream {
        /// Who opened it.
        from: NodeId,
        /// What it is for; the node may open it.
        purpose: Purpose,
        /// The stream.
        stream: ByteStream,
    },
    /// A node is connected. Sent before anything else from it.
    Connected(NodeId),
    /// A node is no longer connected.
    Disconnected(NodeId),
}

/// What came in, in order. A consumer that stops reading makes this node refuse requests.
#[derive(Debug)]
pub struct Inbox {
    events: mpsc::Receiver<Event>,
}

impl Inbox {
    /// Waits for the next event; none when the network has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// What the handle and the task both know.
#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    addresses: Mutex<Vec<String>>,
    asking: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

/// Locks for a few instructions; a panic of another holder left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle to the network of this node.
#[derive(Debug, Clone)]
pub struct Net {
    node: NodeId,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    events: mpsc::Sender<Event>,
    members: Arc<watch::Sender<Members>>,
    finisher: Finisher,
}

/// Starts the network: sockets are bound, and their addresses known, when it returns. Nothing happens before [`Task::run`].
///
/// # Errors
/// When an address is malformed or a socket cannot be bound.
pub async fn start(config: Config, stop: CancellationToken) -> Result<(Net, Inbox, Task), Error> {
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let (events, inbox) = mpsc::channel(INBOX);
    let (members, members_in) = watch::channel(Members::default());
    let (finisher, unfinished) = Finisher::new();
    let shared = Arc::new(Shared::default());
    let node = NodeId::from_bytes(config.key.verifying_key().to_bytes());
    let net = Net {
        node,
        shared: Arc::clone(&shared),
        commands,
        events: events.clone(),
        members: Arc::new(members),
        finisher: finisher.clone(),
    };
    let inputs = swarm::Inputs::new(commands_in, members_in, unfinished, finisher);
    let task = Task::bind(&config, shared, inputs, (events, stop)).await?;
    Ok((net, Inbox { events: inbox }, task))
}

impl Net {
    /// Gives this node's id.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Gives the addresses under which other nodes reach this one, each with `/p2p/`.
    pub fn listen_addresses(&self) -> Vec<String> {
        lock(&self.shared.addresses).clone()
    }

    /// Gives the connected nodes.
    pub fn peers(&self) -> Vec<Peer> {
        lock(&self.shared.peers).values().cloned().collect()
    }

    /// Announces bytes to everybody who listens to the topic.
    ///
    /// # Errors
    /// [`PublishError::NobodyListens`] when no connected node does; the others name their reason.
    pub async fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        if bytes.len() > limits::GOSSIP_MAX {
            return Err(PublishError::TooLarge { got: bytes.len(), limit: limits::GOSSIP_MAX });
        }
        let (done, result) = oneshot::channel();
        self.command(Command::Publish { topic, bytes, done }).await;
        result.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Listens to a topic, and forwards what is accepted on it.
    pub async fn subscribe(&self, topic: Topic) {
        self.command(Command::Subscribe(topic)).await;
    }

    /// Stops listening to a topic.
    pub async fn unsubscribe(&self, topic: Topic) {
        self.command(Command::Unsubscribe(topic)).await;
    }

    /// Gives the connected nodes that listen to a topic: what is published now reaches them. (A node that has just connected
    /// listens some milliseconds later; what it missed it has to ask for.)
    pub async fn listeners(&self, topic: Topic) -> Vec<NodeId> {
        let (listeners, result) = oneshot::channel();
        self.command(Command::Listeners(topic, listeners)).await;
        result.await.unwrap_or_default()
    }

    /// Asks a node, connecting to it where an address is known. At most 16 questions to one node are in flight; further
    /// ones wait. A question to this node itself arrives in its own inbox. Dropping the future abandons the answer.
    ///
    /// # Errors
    /// [`AskError`] says whether the question can have arrived.
    pub async fn ask(&self, node: NodeId, request: Request) -> Result<Response, AskError> {
        let asked = async {
            let frame = exchange::encode(&request, limits::REQUEST_MAX).map_err(AskError::TooLarge)?;
            if node == self.node {
                return self.ask_self(request).await;
            }
            let Some(peer) = peer_of(node) else {
                return Err(AskError::Unreachable { node, why: "its id is no ed25519 key".into() });
            };
            let _permit = self.permit(node).await;
            let (answer, result) = oneshot::channel();
            self.command(Command::Ask { peer, frame, answer }).await;
            result.await.unwrap_or(Err(AskError::Stopped))
        };
        tokio::time::timeout(ASK_TIMEOUT, asked).await.unwrap_or(Err(AskError::Timeout(node)))
    }

    /// Opens a stream to a node, connecting to it where an address is known.
    ///
    /// # Errors
    /// When the node cannot be reached or serves no streams. A node that refuses *us* lets the stream open and then ends it.
    pub async fn open(&self, node: NodeId, purpose: Purpose) -> Result<ByteStream, StreamError> {
        let Some(peer) = peer_of(node) else {
            return Err(StreamError::Unreachable { node, why: "its id is no ed25519 key".into() });
        };
        let (opened, result) = oneshot::channel();
        self.command(Command::Open { peer, purpose, opened }).await;
        let result = tokio::time::timeout(ASK_TIMEOUT, result).await;
        let stream = result.map_err(|_| StreamError::Interrupted(node))?.unwrap_or(Err(StreamError::Stopped))?;
        Ok(ByteStream::new(stream, self.finisher.clone(), Slot::Ours))
    }

    /// Says who is a member from now on.
    pub fn set_members(&self, members: Members) {
        self.members.send_replace(members);
    }

    /// Notes an address of a node, from its card.
    ///
    /// # Errors
    /// When it is no multiaddr or names another node.
    pub fn add_address(&self, node: NodeId, address: &str) -> Result<(), AddressError> {
        let (named, parsed) = discovery::parse(address)?;
        let peer = peer_of(node).filter(|peer| named.is_none_or(|named| named == *peer));
        let peer = peer.ok_or_else(|| AddressError::OtherNode(address.to_owned()))?;
        lock(&self.shared.book).add(peer, parsed, Instant::now());
        Ok(())
    }

    /// Closes the connections to a node; it may come back.
    pub async fn disconnect(&self, node: NodeId) {
        if let Some(peer) = peer_of(node) {
            self.command(Command::Disconnect(peer)).await;
        }
    }

    /// Closes the connections to a node and refuses it for an hour.
    pub async fn ban(&self, node: NodeId) {
        if let Some(peer) = peer_of(node) {
            self.command(Command::Ban(peer)).await;
        }
    }

    /// Hands a command to the task. Where that is gone, the caller's answer channel says so.
    async fn command(&self, command: Command) {
        drop(self.commands.send(command).await);
    }

    async fn ask_self(&self, request: Request) -> Result<Response, AskError> {
        let (reply, answer) = Reply::new(None);
        let event = Event::Request { from: self.node, request, reply };
        self.events.send(event).await.map_err(|_| AskError::Stopped)?;
        let frame = answer.await.map_err(|_| AskError::Interrupted(self.node))?;
        exchange::decode_own(&frame).map_err(|source| AskError::BadAnswer { node: self.node, source })
    }

    /// Waits for a place among the questions to a node.
    async fn permit(&self, node: NodeId) -> OwnedSemaphorePermit {
        let places = {
            let mut asking = lock(&self.shared.asking);
            asking.retain(|asked, places| *asked == node || Arc::strong_count(places) > 1);
            let places =
                asking.entry(node).or_insert_with(|| Arc::new(Semaphore::new(behaviour::EXCHANGE_OUTBOUND_MAX)));
            Arc::clone(places)
        };
        places.acquire_owned().await.expect("the semaphore is never closed")
    }
}
