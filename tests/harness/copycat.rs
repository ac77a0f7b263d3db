//! A member that does not build: it waits until it can read what others built, and signs that.
//!
//! It runs in the test's own process, in place of a builder that was planned and not started, with its key, and asks what any
//! member may ask: the coordinator's views, bundles, other builders' logs and blobs.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use artel::{
    blobs::{Blobs, Options},
    net::{self, Event, Net, Topic},
};
use attest::{commitment, statement::Attestation};
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, Hash, JobId, NetworkId, NodeId, Salt, Sha256, Signed,
    lease::{Lease, LeaseNumber},
    limits,
    message::{Bid, Commitment, Octets, Renewal, Request, Response, Revealed},
    peer::NodeCard,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Network,
    claim::{claim, request_of},
    hostile::config_of,
    until,
};

/// How long a lease, or another member's address, may take to come.
const WITHIN: Duration = Duration::from_secs(60);

type Addresses = Arc<Mutex<BTreeMap<NodeId, Vec<String>>>>;

/// What a copycat found of a file that others made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The views in which one of its hashes stands.
    pub views: Vec<String>,
    /// The members that gave its content.
    pub givers: Vec<NodeId>,
    /// Attestations in the job's evidence; none when the coordinator gave none.
    pub bundle: Option<usize>,
}

/// A member that copies, until it is dropped.
pub struct Copycat {
    /// Its node.
    pub id: NodeId,
    net: Net,
    key: SigningKey,
    network: NetworkId,
    coordinator: NodeId,
    blobs: Blobs,
    grants: mpsc::Receiver<Lease>,
    addresses: Addresses,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Copycat {
    /// Joins a network as a node of its plan that does not run; `folder` is for what it fetches.
    ///
    /// # Panics
    /// When the node has no key or the sockets cannot be made.
    pub async fn join(network: &mut Network, name: &str, folder: &Path) -> Self {
        let (coordinator, id) = (network.id_of("coordinator"), network.id);
        let config = config_of(network, name);
        let (key, stop) = (config.key.clone(), CancellationToken::new());
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members(network.ids().collect());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(task.run().await) });
        net.subscribe(Topic::Jobs(Arch::native().unwrap())).await;
        net.subscribe(Topic::Nodes).await;
        let (granted, grants) = mpsc::channel(4);
        let addresses = Addresses::default();
        let heard = Arc::clone(&addresses);
        tasks.spawn(async move {
            while let Some(event) = inbox.next().await {
                match event {
                    Event::Request { request: Request::Grant(_, lease), reply, .. } => {
                        reply.send(&Response::Done);
                        drop(granted.try_send(lease));
                    }
                    Event::Request { reply, .. } => reply.send(&Response::Done),
                    Event::Gossip { topic, bytes, verdict, .. } => {
                        verdict.accept();
                        let card = Signed::<NodeCard>::read(&bytes).and_then(|s| s.verify(Some(&id)));
                        if let (Topic::Nodes, Ok(card)) = (topic, card) {
                            let card = card.get();
                            heard.lock().unwrap().insert(card.node, card.addresses.clone());
                        }
                    }
                    Event::Stream { .. } | Event::Connected(_) | Event::Disconnected(_) => {}
                }
            }
        });
        let blobs = Blobs::open(folder, Options::new(1 << 30)).await.unwrap();
        let me = NodeId::from_bytes(key.verifying_key().to_bytes());
        Self { id: me, net, key, network: id, coordinator, blobs, grants, addresses, stop, tasks }
    }

    /// Asks the coordinator.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn ask(&self, request: Request) -> Response {
        self.net.ask(self.coordinator, request).await.unwrap()
    }

    /// Bids for a job until it has a lease, and keeps that alive.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn lease(&mut self, job: JobId) -> Lease {
        let lease = self.begin(job).await;
        let (net, coordinator, number) = (self.net.clone(), self.coordinator, lease.number);
        self.tasks.spawn(async move {
            loop {
                let renewal = Renewal { lease: number, phase: "build".to_owned() };
                let _ = net.ask(coordinator, Request::Renew(vec![renewal])).await;
                tokio::time::sleep(limits::LEASE_RENEW_EVERY).await;
            }
        });
        lease
    }

    /// Bids for a job until it has a lease, says that it has begun, and then no more.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn begin(&mut self, job: JobId) -> Lease {
        let (net, coordinator) = (self.net.clone(), self.coordinator);
        let grants = &mut self.grants;
        let lease = until("the copycat has its lease", WITHIN, async || {
            // A refusal is fine, too.
            let _ = net.ask(coordinator, Request::Bid(Bid { job, memory_mib: 1 << 16 })).await;
            // An old grant may be said twice.
            grants.try_recv().ok().filter(|lease| lease.job == job)
        })
        .await;
        self.ask(Request::Started(lease.number)).await;
        lease
    }

    /// Looks everywhere for what others made of a job: a file of this content.
    ///
    /// # Panics
    /// When a builder's address does not come.
    pub async fn look(&self, job: JobId, content: &[u8], builders: &[(NodeId, LeaseNumber)]) -> Sight {
        let (hash, sha256) = (Hash::of(content), Sha256::of(content));
        let mut sight = Sight::default();
        let mut asked = vec![
            (self.coordinator, Request::View(format!("job/{job}"))),
            (self.coordinator, Request::View("jobs?{}".to_owned())),
        ];
        for (node, lease) in builders {
            asked.push((self.coordinator, Request::View(format!("peer/{node}"))));
            asked.push((*node, Request::Log(*lease, 0)));
            let addresses = &self.addresses;
            let known =
                until("a builder tells its address", WITHIN, async || addresses.lock().unwrap().get(node).cloned());
            known.await.iter().for_each(|address| drop(self.net.add_address(*node, address)));
        }
        for (node, request) in asked {
            let name = format!("{request:?}");
            let said = match self.net.ask(node, request).await {
                Ok(Response::View(Octets(bytes))) => bytes,
                Ok(Response::Log(chunk)) => chunk.data,
                Ok(_) | Err(_) => continue,
            };
            let said = String::from_utf8_lossy(&said);
            if said.contains(&hash.to_string()) || said.contains(&sha256.to_string()) {
                sight.views.push(name);
            }
        }
        if let Response::View(Octets(bundle)) = self.ask(Request::View(format!("bundle/{job}"))).await {
            sight.bundle = Some(attest::bundle::Bundle::from_bytes(&bundle).unwrap().attestations.len());
        }
        for (node, _) in builders {
            if self.blobs.fetch(&self.net, &hash, &[*node], content.len() as u64).await.is_ok() {
                sight.givers.push(*node);
            }
        }
        sight
    }

    /// Fetches a content that every member may have.
    ///
    /// # Panics
    /// When the coordinator does not give it.
    pub async fn fetch(&self, hash: Hash) -> Vec<u8> {
        self.blobs.fetch(&self.net, &hash, &[self.coordinator], 1 << 20).await.unwrap();
        self.blobs.read(&hash, 1 << 20).await.unwrap().to_vec()
    }

    /// Binds itself to something.
    pub async fn commit(&self, lease: &Lease, digest: Hash) -> Response {
        let signature = Some(commitment::sign(&self.key, &self.network, (&lease.job, lease.number), &digest));
        self.ask(Request::Commit(Commitment { lease: lease.number, digest, signature })).await
    }

    /// Gives what binds it to a content.
    pub async fn digest(&self, lease: &Lease, content: &[u8]) -> Hash {
        self.bind(lease.number, &self.attest(lease, content).await)
    }

    /// Shows a content as if it had built it.
    pub async fn show(&self, lease: &Lease, content: &[u8]) -> Response {
        self.show_statement(lease.number, self.attest(lease, content).await).await
    }

    /// Gives what binds it to a statement.
    pub fn bind(&self, lease: LeaseNumber, statement: &[u8]) -> Hash {
        commitment::digest(&self.network, lease, &salt(), statement)
    }

    /// Shows a statement as its result.
    pub async fn show_statement(&self, lease: LeaseNumber, statement: Vec<u8>) -> Response {
        let (log, salt) = (Hash::of(b"log"), Some(salt()));
        self.ask(Request::Revealed(Revealed { log, salt, lease, attestation: Octets(statement) })).await
    }

    /// Gives the statement that it built the job's only output with this content; nothing of it is true.
    pub async fn claim(&self, lease: &Lease, content: &[u8]) -> Attestation {
        let request = request_of(&self.net, (self.network, self.coordinator), lease.job).await;
        claim(&request, (lease, self.id), content)
    }

    /// Signs a statement with its own key.
    ///
    /// # Panics
    /// When the statement breaks a rule of statements.
    pub fn sign(&self, statement: &Attestation) -> Vec<u8> {
        statement.sign(&self.key).unwrap()
    }

    async fn attest(&self, lease: &Lease, content: &[u8]) -> Vec<u8> {
        self.sign(&self.claim(lease, content).await)
    }
}

impl Drop for Copycat {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn salt() -> Salt {
    Salt::from_bytes([3; 32])
}
