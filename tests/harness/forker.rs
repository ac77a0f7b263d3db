//! A coordinator that shows each member a history of the log of its own, on the product's own transport and with its own key.
//!
//! It runs in the test's own process, in place of the coordinator that was planned and not started.

use std::collections::BTreeMap;

use artel::{
    keys,
    net::{self, Event, Mdns},
};
use attest::{
    log::{checkpoint::Signed, network, tile::Resource},
    testing::log::Memory,
};
use ed25519_dalek::SigningKey;
use protocol::{
    NetworkId, NodeId,
    message::{Octets, Refusal, Request, Response},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Network;

/// A coordinator with several histories, until it is dropped.
pub struct Forker {
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Forker {
    /// Takes the coordinator's place; each member is shown its history.
    ///
    /// # Panics
    /// When the coordinator runs, or the sockets cannot be made.
    pub async fn take_over(network: &mut Network, histories: &BTreeMap<NodeId, Memory>) -> Self {
        let id = network.id;
        let node = network.node("coordinator");
        assert!(!node.runs(), "the coordinator is there itself");
        let key = keys::load(&node.home.node_key()).unwrap();
        let config = net::Config {
            key: key.clone(),
            network: id,
            listen: node.config().reach.listen,
            announce: Vec::new(),
            bootstrap: Vec::new(),
            mdns: Mdns::Off,
            connections: 32,
        };
        let stop = CancellationToken::new();
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members(histories.keys().copied().collect());
        let shown: BTreeMap<NodeId, Shown> =
            histories.iter().map(|(node, history)| (*node, shown(&key, &id, history))).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(task.run().await) });
        tasks.spawn(async move {
            let _net = net;
            while let Some(event) = inbox.next().await {
                if let Event::Request { from, request, reply, .. } = event {
                    reply.send(&answer(shown.get(&from), &request));
                }
            }
        });
        Self { stop, _tasks: tasks }
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

fn answer(shown: Option<&Shown>, request: &Request) -> Response {
    let nothing = || Response::Refused(Refusal::Unknown("nothing but its log".into()));
    let Request::View(path) = request else { return nothing() };
    let file = path.strip_prefix("transparency/").and_then(|path| shown?.get(path));
    file.map_or_else(nothing, |bytes| Response::View(Octets(bytes.clone())))
}
