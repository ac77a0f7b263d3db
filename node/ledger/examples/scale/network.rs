//! A large network to measure: peers spread over operators, jobs of several maintainers, and a clock of CPU time.

use std::time::Duration;

use attest::{
    compare::Output,
    statement::{self, Attestation, Material, Run, Task, VerifiedAttestation},
};
use ed25519_dalek::SigningKey;
use ledger::{Command, Duty, Effect, Ledger, News, Opening};
use protocol::{
    Arch, Hash, NetworkId, NodeId, PublicKey, Salt, Sha256, Signed, Timestamp,
    job::{Isolation, job_id},
    lease::Lease,
    message::{Commitment, Offer, Renewal},
    peer::Capacity,
    policy::{Maintainer, Operator, Policy},
    testing::{public_key, samples, signing_key},
};
use rustix::time::{ClockId, clock_gettime};

/// Nodes of each operator.
const NODES: usize = 10;
/// Maintainers, whose jobs come in turn.
const MAINTAINERS: u8 = 8;
/// The key seed of the first maintainer.
const FIRST: u8 = 200;
/// Of so many leases one is declined.
const DECLINED_OF: u64 = 10;

/// A ledger, its peers, and the CPU time that it took.
pub(crate) struct Network {
    pub(crate) ledger: Ledger,
    pub(crate) peers: Vec<NodeId>,
    /// What the commands took so far.
    pub(crate) spent: Duration,
    pub(crate) commands: u64,
    /// Jobs that ended since the last fill.
    over: u32,
    id: NetworkId,
    at: Timestamp,
    submitted: u32,
    turn: usize,
}

impl Network {
    /// Begins a network of so many peers that have shown their cards.
    pub(crate) fn new(peers: usize) -> Self {
        let nodes: Vec<NodeId> = (0..peers).map(|peer| node(&key(peer))).collect();
        let mut policy = samples::genesis(1);
        policy.operators = nodes.chunks(NODES).zip(0..).map(operator).collect();
        policy.maintainers = (FIRST..FIRST + MAINTAINERS).map(|seed| maintainer(&policy, seed)).collect();
        policy.maintainers.sort_by_key(|maintainer| maintainer.key);
        policy.limits.open_jobs = u32::MAX;
        let (genesis, id) = samples::signed_genesis(&policy);
        let ledger = Ledger::new(id, genesis).expect("the genesis is signed by its root");
        let at = samples::NOW;
        let mut network =
            Self { ledger, id, at, peers: nodes, spent: Duration::ZERO, commands: 0, over: 0, submitted: 0, turn: 0 };
        for peer in 0..peers {
            network.card(peer);
        }
        network
    }

    /// Applies a command a millisecond after the last one.
    pub(crate) fn apply(&mut self, command: Command) -> Vec<Effect> {
        self.at = self.at.after(Duration::from_millis(1));
        let began = cpu();
        let effects = self.ledger.apply(self.at, command);
        self.spent += cpu().saturating_sub(began);
        self.commands += 1;
        let over = |e: &&Effect| matches!(e, Effect::Notify(News::Verdict { .. }));
        self.over += u32::try_from(effects.iter().filter(over).count()).expect("few verdicts in one command");
        effects
    }

    /// Forgets what was measured.
    pub(crate) fn begin(&mut self) {
        (self.spent, self.commands) = (Duration::ZERO, 0);
    }

    /// Has a peer show its card.
    pub(crate) fn card(&mut self, peer: usize) {
        let (capacity, duty) = card();
        self.apply(Command::Card { node: self.peers[peer], capacity: Some(capacity), duty });
    }

    /// Submits jobs.
    pub(crate) fn submit(&mut self, jobs: u32) -> Vec<Lease> {
        let mut granted = Vec::new();
        for _ in 0..jobs {
            let mut request = samples::command_request(self.id);
            request.nonce[..4].copy_from_slice(&self.submitted.to_be_bytes());
            let key = signing_key(FIRST + u8::try_from(self.submitted % u32::from(MAINTAINERS)).expect("few"));
            self.submitted += 1;
            let signed = Signed::sign(&request, Some(&self.id), &[&key]).verify(Some(&self.id));
            let request = signed.expect("the sample request keeps its own rules");
            granted.extend(leases(self.apply(Command::Submit(request))));
        }
        granted
    }

    /// Replaces the jobs that ended.
    pub(crate) fn fill(&mut self) {
        let over = std::mem::take(&mut self.over);
        self.submit(over);
    }

    /// Has so many peers offer one free slot, the next in turn, and gives what they were granted.
    pub(crate) fn offer(&mut self, peers: usize) -> Vec<Lease> {
        let mut granted = Vec::new();
        for _ in 0..peers {
            // Neighbours belong to different operators.
            self.turn = (self.turn + NODES + 1) % self.peers.len();
            let node = self.peers[self.turn];
            granted.extend(leases(self.apply(Command::Offer { node, offer: offer() })));
        }
        granted
    }

    /// Has a lease declined, or started, renewed and revealed; gives the leases that follow from it.
    pub(crate) fn end(&mut self, lease: &Lease) -> Vec<Lease> {
        let (node, number) = (lease.node, lease.number);
        if number.0 % DECLINED_OF == 0 {
            let why = "its disk is full".to_owned();
            return leases(self.apply(Command::Declined { node, lease: number, why }));
        }
        let attestation = self.attest(lease);
        let renewals = vec![Renewal { lease: number, phase: "build".to_owned() }];
        self.apply(Command::Started { node, lease: number });
        self.apply(Command::Renewed { node, renewals });
        let salt = Salt::from_bytes([7; 32]);
        let digest = attest::commitment::digest(&self.ledger.network(), number, &salt, attestation.bytes());
        let commitment = Commitment { lease: number, digest, signature: None };
        let mut granted = leases(self.apply(Command::Committed { node, commitment }));
        let (log, opening) = (Hash::of(b"log"), Opening::Salt(salt));
        granted.extend(leases(self.apply(Command::Revealed { node, lease: number, log, opening, attestation })));
        granted
    }

    fn attest(&self, lease: &Lease) -> VerifiedAttestation {
        let request = self.ledger.request(lease.job).expect("an open job has its request");
        let (name, content) = ("out/answer.txt".parse().expect("a valid name"), b"answer".as_slice());
        let output = Output { hash: Hash::of(content), name, size: 6, sha256: Sha256::of(content) };
        let run = Run {
            node: lease.node,
            lease: lease.number,
            profile: lease.profile,
            started: samples::NOW,
            finished: samples::NOW,
            version: "0.1.0".to_owned(),
            node_info: std::collections::BTreeMap::new(),
        };
        let attestation = Attestation {
            task: Task::of(job_id(request), request.get()),
            run,
            outputs: vec![output],
            byproducts: Vec::new(),
            materials: Material::of(request.get()),
        };
        let peer = self.peers.iter().position(|node| *node == lease.node).expect("leases are its peers'");
        let signed = attestation.sign(&key(peer)).expect("the attestation keeps its own rules");
        statement::read(&signed, &self.id).expect("it was signed just now")
    }
}

/// Gives the CPU time of this thread: others may use the machine.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Gives what every peer says of itself.
pub(crate) fn card() -> (Capacity, Duty) {
    (
        Capacity {
            fetch: Vec::new(),
            isolation: Isolation::Rootfs,
            slots: 4,
            arches: vec![Arch::Amd64],
            disk_mib: 1 << 20,
            memory_mib: 1 << 15,
        },
        Duty::Ready,
    )
}

/// Gives what every peer offers.
pub(crate) fn offer() -> Offer {
    Offer { free: 1, held: Vec::new(), arches: vec![Arch::Amd64], memory_mib: 1 << 15 }
}

fn leases(effects: Vec<Effect>) -> Vec<Lease> {
    let lease = |effect| if let Effect::Grant(lease) = effect { Some(lease) } else { None };
    effects.into_iter().filter_map(lease).collect()
}

fn key(peer: usize) -> SigningKey {
    SigningKey::from_bytes(Hash::of(format!("peer {peer}").as_bytes()).as_bytes())
}

fn node(key: &SigningKey) -> NodeId {
    NodeId::from_bytes(key.verifying_key().to_bytes())
}

fn operator((nodes, number): (&[NodeId], usize)) -> Operator {
    let mut nodes = nodes.to_vec();
    nodes.sort();
    Operator { name: format!("op-{number:04}").parse().expect("a valid name"), nodes }
}

fn maintainer(policy: &Policy, seed: u8) -> Maintainer {
    let key: PublicKey = public_key(seed);
    Maintainer {
        key,
        name: format!("maria-{seed}").parse().expect("a valid name"),
        channels: policy.channels.iter().map(|channel| channel.name.clone()).collect(),
    }
}
