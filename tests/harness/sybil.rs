//! One person with many keys, on the product's own transport: each joins alone, bids for a job, and attests the same lie for
//! whatever it is granted.
//!
//! They run in the test's own process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use artel::{
    keys,
    net::{self, Event, Inbox, Mdns, Net},
};
use attest::commitment;
use ed25519_dalek::SigningKey;
use protocol::{
    Hash, JobId, NetworkId, NodeId, Salt,
    lease::Lease,
    message::{Bid, Commitment, Octets, Refusal, Request, Response, Revealed},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use web::api::JobDetail;

use crate::claim::{claim, request_of};

/// Keys that are in the network at one time.
const TOGETHER: usize = 24;
/// How often a key looks whether one of them has the lease.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a key looks, and waits for the lease that it has.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a key knocks again.
const KNOCK_EVERY: Duration = Duration::from_millis(100);
/// How long a key knocks that is not let in, since the door is full.
const KNOCKS_FOR: Duration = Duration::from_secs(60);
/// What all of them claim to have built.
pub const LIE: &[u8] = b"what nobody built";

/// What the keys got, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// Bids that were taken.
    pub bids: u32,
    /// Bids that were refused, since the policy does not name the key.
    pub strangers: u32,
    /// Bids that were refused, since another key of the operator had the job before.
    pub late: u32,
    /// Leases that were granted.
    pub leases: u32,
    /// Results that were taken.
    pub results: u32,
}

/// Where the keys go, and what they want.
pub struct Sybil {
    /// The network.
    pub network: NetworkId,
    /// The coordinator.
    pub coordinator: NodeId,
    /// Where it listens.
    pub bootstrap: Vec<String>,
    /// The jobs: each key bids for one.
    pub jobs: Vec<JobId>,
}

impl Sybil {
    /// Has every key try its luck, some at a time, and sums up what they got.
    ///
    /// # Panics
    /// When sockets cannot be made.
    pub async fn attack(self, keys: Vec<SigningKey>) -> Took {
        let (this, places) = (Arc::new(self), Arc::new(Semaphore::new(TOGETHER)));
        let mut tasks = JoinSet::new();
        for (number, key) in keys.into_iter().enumerate() {
            let (this, places) = (Arc::clone(&this), Arc::clone(&places));
            tasks.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                this.one(&key, this.jobs[number % this.jobs.len()]).await
            });
        }
        let mut all = Took::default();
        while let Some(took) = tasks.join_next().await {
            let took = took.unwrap();
            all.bids += took.bids;
            all.strangers += took.strangers;
            all.late += took.late;
            all.leases += took.leases;
            all.results += took.results;
        }
        all
    }

    async fn one(&self, key: &SigningKey, job: JobId) -> Took {
        let config = net::Config {
            key: key.clone(),
            network: self.network,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: self.bootstrap.clone(),
            mdns: Mdns::Off,
            connections: 4,
        };
        let stop = CancellationToken::new();
        let (net, mut inbox, task) = net::start(config, stop.clone()).await.unwrap();
        net.set_members([self.coordinator].into_iter().collect());
        let mut running = JoinSet::new();
        running.spawn(async move { drop(task.run().await) });
        let took = self.bid(&net, &mut inbox, (key, job)).await;
        stop.cancel();
        while running.join_next().await.is_some() {}
        took
    }

    async fn bid(&self, net: &Net, inbox: &mut Inbox, (key, job): (&SigningKey, JobId)) -> Took {
        let mut took = Took::default();
        let knocks = async {
            loop {
                if let Ok(answer) = net.ask(self.coordinator, Request::Bid(Bid { job, memory_mib: 1 << 16 })).await {
                    return answer;
                }
                tokio::time::sleep(KNOCK_EVERY).await;
            }
        };
        let answer = tokio::time::timeout(KNOCKS_FOR, knocks).await.expect("the coordinator answers each key");
        if answer == Response::Done {
            took.bids = 1;
        } else if let Response::Refused(Refusal::NotAllowed(why)) = &answer {
            took.strangers = u32::from(why.contains("is not in the network's policy"));
            took.late = u32::from(why.contains("has had its turn"));
        }
        assert_eq!(took.bids + took.strangers + took.late, 1, "a bid was answered by {answer:?}");
        if took.bids == 1
            && let Some(lease) = self.granted(net, inbox, (key, job)).await
        {
            took.leases += 1;
            took.results += u32::from(self.lie(net, key, &lease).await);
        }
        took
    }

    /// Waits for the lease of a job; none when another key has it.
    async fn granted(&self, net: &Net, inbox: &mut Inbox, (key, job): (&SigningKey, JobId)) -> Option<Lease> {
        let (node, deadline) = (NodeId::from(keys::public(key)), Instant::now() + PATIENCE);
        loop {
            let grant = async {
                loop {
                    let event = inbox.next().await.expect("the network runs");
                    if let Event::Request { request: Request::Grant(_, lease), reply, .. } = event {
                        reply.send(&Response::Done);
                        return lease;
                    }
                }
            };
            if let Ok(lease) = tokio::time::timeout(LOOK_EVERY, grant).await {
                return Some(lease);
            }
            let attempts = self.detail(net, job).await.map(|detail| detail.attempts).unwrap_or_default();
            // Who has it is told before this node is asked: a grant on its way is waited for.
            if !attempts.is_empty() && attempts.iter().all(|attempt| attempt.builder.node != node) {
                return None;
            }
            assert!(Instant::now() < deadline, "a bid was taken, and nobody has the lease: {attempts:?}");
        }
    }

    async fn detail(&self, net: &Net, job: JobId) -> Option<JobDetail> {
        let answer = net.ask(self.coordinator, Request::View(format!("job/{job}"))).await.ok()?;
        let Response::View(Octets(json)) = answer else { return None };
        serde_json::from_slice(&json).ok()
    }

    /// Attests what was never built; gives true when the coordinator took it.
    async fn lie(&self, net: &Net, key: &SigningKey, lease: &Lease) -> bool {
        let request = request_of(net, (self.network, self.coordinator), lease.job).await;
        let attestation = claim(&request, (lease, NodeId::from(keys::public(key))), LIE).sign(key).unwrap();
        let (number, salt) = (lease.number, Salt::from_bytes([7; 32]));
        let digest = commitment::digest(&self.network, number, &salt, &attestation);
        let revealed =
            Revealed { log: Hash::of(b""), salt: Some(salt), lease: number, attestation: Octets(attestation) };
        let signature = Some(commitment::sign(key, &self.network, (&lease.job, number), &digest));
        let committed = Commitment { lease: number, digest, signature };
        for said in [Request::Started(number), Request::Commit(committed)] {
            let _ = net.ask(self.coordinator, said).await;
        }
        matches!(net.ask(self.coordinator, Request::Revealed(revealed)).await, Ok(Response::Done))
    }
}
