//! A coordinator that tells of the log what it likes, and asks builders for what they have too early, on the product's own
//! transport and with its own key.
//!
//! It runs in the test's own process, in place of a node that was planned and does not run.

use std::sync::{Arc, Mutex, MutexGuard};

use artel::net::{self, Event, Net};
use attest::{
    log::{checkpoint::Signed, network, tile::Resource, tree},
    testing::log::Memory,
};
use ed25519_dalek::SigningKey;
use protocol::{
    NetworkId, NodeId,
    lease::{LeaseNumber, Term},
    message::{Grounds, Logged, Octets, Refusal, Request, Response},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Network, forker::config};

/// A term that no honest coordinator reaches.
const TERM: Term = Term(1 << 32);

/// A coordinator that lies, until it is dropped.
pub struct Liar {
    net: Net,
    key: SigningKey,
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// What it tells, and what became of it.
struct Told {
    key: SigningKey,
    network: NetworkId,
    log: Memory,
    /// The places of the entries that it shows as grounds.
    places: Vec<u64>,
    /// How often it was asked for grounds since it tells this.
    asked: u32,
    /// Results that it got.
    results: u32,
}

impl Liar {
    /// Takes a node's place.
    ///
    /// # Panics
    /// When the node runs, or the sockets cannot be made.
    pub async fn take_over(network: &mut Network, name: &str) -> Self {
        let (config, stop) = (config(network, name), CancellationToken::new());
        let (key, id) = (config.key.clone(), network.id);
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members(network.ids().collect());
        let (log, places) = (Memory::default(), Vec::new());
        let told = Told { key: key.clone(), network: id, log, places, asked: 0, results: 0 };
        let told = Arc::new(Mutex::new(told));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(task.run().await) });
        let teller = Arc::clone(&told);
        tasks.spawn(async move {
            while let Some(event) = inbox.next().await {
                match event {
                    Event::Request { request, reply, .. } => {
                        reply.send(&teller.lock().unwrap().answer(&request));
                    }
                    Event::Gossip { .. } | Event::Stream { .. } | Event::Connected(_) | Event::Disconnected(_) => {}
                }
            }
        });
        Self { net, key, told, stop, _tasks: tasks }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// The coordinator's key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Tells of this log from now on, and shows these entries as grounds.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn tell(&self, log: Memory, places: Vec<u64>) {
        let mut told = self.told();
        (told.log, told.places, told.asked) = (log, places, 0);
    }

    /// Asks a builder for what it has; gives false when it cannot be reached.
    pub async fn demand(&self, node: NodeId, lease: LeaseNumber) -> bool {
        matches!(self.net.ask(node, Request::Reveal(TERM, lease)).await, Ok(Response::Done))
    }

    /// The newest checkpoint that a member believes, as it tells its own; none while it has none or cannot be reached.
    pub async fn believed_by(&self, node: NodeId) -> Option<Vec<u8>> {
        match self.net.ask(node, Request::Checkpoint(Octets(Vec::new()))).await {
            Ok(Response::Checkpoint(Octets(bytes))) if !bytes.is_empty() => Some(bytes),
            Ok(_) | Err(_) => None,
        }
    }

    /// How often it was asked for grounds since it tells what it tells.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn asked(&self) -> u32 {
        self.told().asked
    }

    /// How many results it got.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn results(&self) -> u32 {
        self.told().results
    }
}

impl Told {
    fn answer(&mut self, request: &Request) -> Response {
        if let Request::Grounds(_, known) = request {
            self.asked += 1;
            return Response::Grounds(self.grounds(*known));
        }
        if let Request::View(path) = request
            && self.size() > 0
        {
            return self.file(path).map_or_else(nothing, |bytes| Response::View(Octets(bytes)));
        }
        self.results += u32::from(matches!(request, Request::Revealed(_)));
        if matches!(request, Request::Commit(_)) { Response::Reveal } else { nothing() }
    }

    fn size(&self) -> u64 {
        self.log.entries().len() as u64
    }

    fn checkpoint(&self) -> Vec<u8> {
        let origin = network::origin(&self.network);
        Signed::sign(&origin, self.log.head(self.size()), &self.key).to_string().into_bytes()
    }

    fn grounds(&self, known: u64) -> Grounds {
        let size = self.size();
        let logged = |index: &u64| Logged {
            path: tree::inclusion(*index, size, &self.log).unwrap(),
            entry: Octets(self.log.entries()[usize::try_from(*index).unwrap()].clone()),
            index: *index,
        };
        let entries = self.places.iter().map(logged).collect();
        let consistency = if known == 0 { Ok(Vec::new()) } else { tree::consistency(known, size, &self.log) };
        let (checkpoint, consistency) = (Octets(self.checkpoint()), consistency.unwrap_or_default());
        Grounds { entries, negatives: Vec::new(), checkpoint, consistency }
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        let path = path.strip_prefix("transparency/")?;
        if path == Resource::Checkpoint.to_string() {
            return Some(self.checkpoint());
        }
        self.log.files(self.size()).remove(path)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn nothing() -> Response {
    Response::Refused(Refusal::Unknown("nothing but its log".into()))
}
