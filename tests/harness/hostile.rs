//! Members of a network that behave badly, on the product's own transport: they bid for every job, get their leases, and then
//! hang, answer nonsense, or answer a byte a second.
//!
//! They run in the test's own process, in place of a daemon that was planned and not started, with its key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use artel::net::{self, Event, Net, Topic};
use attest::negative::Negative;
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, Hash, NetworkId, NodeId, Signed,
    blame::{Blame, Failure},
    job::Announcement,
    lease::Lease,
    message::{Bid, Failed, Octets, Request, Response},
};
use tokio::{io::AsyncWriteExt, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Network, forker};

/// How a member misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It answers nothing, neither questions nor streams.
    Hangs,
    /// It answers every question with something else.
    Garbage,
    /// It fails its attempts and names a log that it then sends at a byte a second.
    Trickles,
}

/// A member that behaves badly until it is dropped.
pub struct Hostile {
    stop: CancellationToken,
    orders: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl Hostile {
    /// Joins a network as a node of its plan that does not run.
    ///
    /// # Panics
    /// When the node has no key or the sockets cannot be made.
    pub async fn join(network: &mut Network, name: &str, manner: Manner) -> Self {
        let coordinator = network.id_of("coordinator");
        let id = network.id;
        let config = config_of(network, name);
        let key = config.key.clone();
        let stop = CancellationToken::new();
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members([coordinator].into_iter().collect());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(task.run().await) });
        net.subscribe(Topic::Jobs(Arch::native().unwrap())).await;
        let orders = Arc::new(AtomicU32::new(0));
        let member = Member { net, key, network: id, coordinator, manner, orders: Arc::clone(&orders) };
        tasks.spawn(async move {
            let (mut asked, mut held) = (JoinSet::new(), Vec::new());
            while let Some(event) = inbox.next().await {
                member.happen(event, &mut asked, &mut held);
            }
        });
        Self { stop, orders, _tasks: tasks }
    }

    /// How many leases it was offered.
    pub fn orders(&self) -> u32 {
        self.orders.load(Ordering::Relaxed)
    }
}

/// Gives how to join a network with the key of a node of its plan that does not run.
pub(crate) fn config_of(network: &mut Network, name: &str) -> net::Config {
    let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()];
    let bootstrap = network.node(name).config().network.bootstrap;
    net::Config { listen, bootstrap, ..forker::config(network, name) }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Member {
    net: Net,
    key: SigningKey,
    network: NetworkId,
    coordinator: NodeId,
    manner: Manner,
    orders: Arc<AtomicU32>,
}

impl Member {
    fn happen(&self, event: Event, asked: &mut JoinSet<()>, held: &mut Vec<Event>) {
        match event {
            Event::Gossip { bytes, verdict, .. } => {
                verdict.accept();
                let this = self.clone();
                asked.spawn(async move { this.bid(&bytes).await });
            }
            Event::Request { request: Request::Grant(_, lease), reply, .. } => {
                self.orders.fetch_add(1, Ordering::Relaxed);
                match self.manner {
                    Manner::Hangs => {
                        asked.spawn(async move {
                            let _held = reply;
                            std::future::pending::<()>().await;
                        });
                    }
                    Manner::Garbage => reply.send(&Response::View(Octets(vec![0xff; 1000]))),
                    Manner::Trickles => {
                        reply.send(&Response::Done);
                        let this = self.clone();
                        asked.spawn(async move { this.fail(lease).await });
                    }
                }
            }
            Event::Request { reply, .. } => match self.manner {
                Manner::Hangs => drop(asked.spawn(async move {
                    let _held = reply;
                    std::future::pending::<()>().await;
                })),
                Manner::Garbage | Manner::Trickles => reply.send(&Response::Lost(Vec::new())),
            },
            Event::Stream { stream, .. } if self.manner == Manner::Trickles => {
                asked.spawn(async move {
                    let (_read, mut write) = stream.split();
                    while write.write_all(&[1]).await.is_ok() && write.flush().await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                });
            }
            Event::Stream { .. } => held.push(event),
            Event::Connected(_) | Event::Disconnected(_) => {}
        }
    }

    async fn bid(&self, announcement: &[u8]) {
        let signed = Signed::<Announcement>::read(announcement).and_then(|s| s.verify(Some(&self.network)));
        let Ok(announcement) = signed else { return };
        let bid = Bid { job: announcement.get().job, memory_mib: 1 << 16 };
        // A refusal is fine, too.
        let _ = self.net.ask(self.coordinator, Request::Bid(bid)).await;
    }

    async fn fail(&self, lease: Lease) {
        let number = lease.number;
        let _ = self.net.ask(self.coordinator, Request::Started(number)).await;
        let log = Some(Hash::of(&number.0.to_be_bytes()));
        let failure = Failure::new(Blame::Job, "build", "said so");
        let node = NodeId::from_bytes(self.key.verifying_key().to_bytes());
        let negative = Negative { network: self.network, job: lease.job, node, lease: number, failure, log };
        let statement = Some(Octets(negative.sign(&self.key).unwrap()));
        let report = Failed { log, lease: number, failure: negative.failure, statement };
        let _ = self.net.ask(self.coordinator, Request::Failed(report)).await;
    }
}
