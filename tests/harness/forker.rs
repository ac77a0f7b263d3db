//! A coordinator that shows each member a history of the log of its own, and any release that it likes, on the product's own
//! transport and with its own key.
//!
//! It runs in the test's own process, in place of the coordinator that was planned and not started.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use artel::{
    blobs::{Blobs, Options},
    keys,
    net::{self, Event, Mdns},
};
use attest::{
    log::{checkpoint::Signed, network, tile::Resource},
    testing::log::Memory,
};
use ed25519_dalek::SigningKey;
use protocol::{
    Hash, NetworkId, NodeId,
    message::{Octets, Refusal, Request, Response},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Network;

/// A coordinator with several histories, until it is dropped.
pub struct Forker {
    blobs: Blobs,
    key: SigningKey,
    network: NetworkId,
    offered: Arc<Mutex<Offered>>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// The release that it calls the newest, and what else it answers.
#[derive(Default)]
struct Offered {
    /// The history that each member is shown.
    shown: BTreeMap<NodeId, Shown>,
    /// What it answers to some questions, and to whom it did.
    told: Vec<(Request, Response, BTreeSet<NodeId>)>,
    /// The signed release; none while it has none to show.
    release: Option<Vec<u8>>,
    /// How often it was asked for it since it has it.
    asked: u32,
}

impl Forker {
    /// Takes the coordinator's place; each member is shown its history.
    ///
    /// # Panics
    /// When the coordinator runs, or the sockets cannot be made.
    pub async fn take_over(network: &mut Network, histories: &BTreeMap<NodeId, Memory>) -> Self {
        let id = network.id;
        let config = config(network, "coordinator");
        let key = config.key.clone();
        let blobs = Blobs::open(&network.folder().join("forker"), Options::new(1 << 30)).await.unwrap();
        let shown = histories.iter().map(|(node, history)| (*node, shown(&key, &id, history))).collect();
        let offered = Arc::new(Mutex::new(Offered { shown, ..Offered::default() }));
        let stop = CancellationToken::new();
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members(network.ids().collect());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(task.run().await) });
        let (store, of_release) = (blobs.clone(), Arc::clone(&offered));
        tasks.spawn(async move {
            let (_net, mut served) = (net, JoinSet::new());
            while let Some(event) = inbox.next().await {
                match event {
                    Event::Request { from, request, reply } => {
                        let answered = of_release.lock().unwrap().answer(&from, &request);
                        reply.send(&answered);
                    }
                    Event::Stream { from, stream, .. } => {
                        let store = store.clone();
                        served.spawn(async move { drop(store.serve(from, stream, |_, _| true).await) });
                    }
                    Event::Gossip { .. } | Event::Connected(_) | Event::Disconnected(_) => {}
                }
            }
        });
        Self { blobs, key, network: id, offered, stop, _tasks: tasks }
    }

    /// Shows a member another history from now on.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn show(&self, member: NodeId, history: &Memory) {
        self.offered.lock().unwrap().shown.insert(member, shown(&self.key, &self.network, history));
    }

    /// Calls a release the newest from now on, whichever it is.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn offer(&self, release: Vec<u8>) {
        let mut offered = self.offered.lock().unwrap();
        (offered.release, offered.asked) = (Some(release), 0);
    }

    /// Answers a question like this from now on, whoever asks.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn tell(&self, request: Request, response: Response) {
        let mut offered = self.offered.lock().unwrap();
        offered.told.retain(|(told, ..)| *told != request);
        offered.told.push((request, response, BTreeSet::new()));
    }

    /// Who was given the answer that it was told to give.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn answered(&self, request: &Request) -> BTreeSet<NodeId> {
        let offered = self.offered.lock().unwrap();
        offered.told.iter().find(|(told, ..)| told == request).map(|(.., to)| to.clone()).unwrap_or_default()
    }

    /// How often it was asked for the release that it offers.
    ///
    /// # Panics
    /// When a task panicked before.
    pub fn asked(&self) -> u32 {
        self.offered.lock().unwrap().asked
    }

    /// Signs with the coordinator's key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Has a content for whoever asks.
    ///
    /// # Panics
    /// When it cannot be stored.
    pub async fn hold(&self, bytes: Vec<u8>) -> Hash {
        self.blobs.add_bytes(bytes.into()).await.unwrap()
    }
}

/// Gives what it takes to be a node for the others, which does not run.
pub(crate) fn config(network: &mut Network, name: &str) -> net::Config {
    let id = network.id;
    let node = network.node(name);
    assert!(!node.runs(), "{name} is there itself");
    net::Config {
        key: keys::load(&node.home.node_key()).unwrap(),
        network: id,
        listen: node.config().reach.listen,
        announce: Vec::new(),
        bootstrap: Vec::new(),
        mdns: Mdns::Off,
        connections: 32,
    }
}

impl Offered {
    fn answer(&mut self, from: &NodeId, request: &Request) -> Response {
        if let Request::Release(_) = request {
            let Some(release) = &self.release else { return nothing() };
            self.asked += 1;
            return Response::Record(Octets(release.clone()));
        }
        let Some((_, response, to)) = self.told.iter_mut().find(|(told, ..)| told == request) else {
            return answer(self.shown.get(from), request);
        };
        to.insert(*from);
        response.clone()
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a log serves, by path.
type Shown = BTreeMap<String, Vec<u8>>;

fn shown(key: &SigningKey, id: &NetworkId, history: &Memory) -> Shown {
    let size = history.entries().len() as u64;
    let checkpoint = Signed::sign(&network::origin(id), history.head(size), key).to_string();
    let mut files = history.files(size);
    files.insert(Resource::Checkpoint.to_string(), checkpoint.into_bytes());
    files
}

fn nothing() -> Response {
    Response::Refused(Refusal::Unknown("nothing but its log".into()))
}

fn answer(shown: Option<&Shown>, request: &Request) -> Response {
    let Request::View(path) = request else { return nothing() };
    let file = path.strip_prefix("transparency/").and_then(|path| shown?.get(path));
    file.map_or_else(nothing, |bytes| Response::View(Octets(bytes.clone())))
}
