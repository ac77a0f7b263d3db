//! What the tests of this crate share: a network of sample operators, builders' answers, and a ledger with a clock.

use std::time::Duration;

use attest::{
    compare::Output,
    statement::{self, Attestation, Material, Run, Task, VerifiedAttestation},
};
use protocol::{
    Arch, Hash, JobId, NetworkId, NodeId, Salt, Sha256, Signed, Timestamp, Verified,
    blame::{Blame, Failure},
    job::{Change, Isolation, JobRequest, Order, ServerJob, job_id},
    lease::{Lease, LeaseNumber},
    message::{Bid, Commitment, Failed, Offer, Renewal, Response},
    peer::Capacity,
    policy::{Channel, Policy},
    testing::{node, samples, signing_key},
};

use crate::{Command, Duty, Effect, Ledger, Opening};

/// What every builder of the tests hides its attestations with.
pub(crate) const SALT: Salt = Salt::from_bytes([7; 32]);

/// Gives a genesis: `nodes` builders for each of `operators` operators, and a channel.
pub(crate) fn policy(operators: u8, nodes: u8, channel: Channel) -> Policy {
    let mut policy = samples::genesis(operators);
    policy.channels = vec![channel];
    for (at, operator) in (0..).zip(&mut policy.operators) {
        operator.nodes = (0..nodes).map(|n| builder(at, n)).collect();
        operator.nodes.sort();
    }
    policy
}

/// Gives the key seed of an operator's n-th node.
pub(crate) fn seed(operator: u8, n: u8) -> u8 {
    10 + operator + 40 * n
}

/// Gives an operator's n-th node.
pub(crate) fn builder(operator: u8, n: u8) -> NodeId {
    node(seed(operator, n))
}

/// Gives a channel.
pub(crate) fn channel(agree: u8, ask: u8, ask_max: u8) -> Channel {
    Channel { ask_max, fail_quorum: ask_max.min(2), ..samples::channel(agree, ask) }
}

/// Gives the `number`-th request of a kind.
pub(crate) fn request(network: NetworkId, kind: &str, number: u8) -> Verified<JobRequest> {
    let mut request = match kind {
        "deb" => samples::deb_request(network),
        "rpm" => samples::rpm_request(network),
        "fetch" => samples::fetch_request(network),
        "light" => samples::light_request(network),
        "environment" => samples::environment_request(network),
        _ => samples::command_request(network),
    };
    request.nonce = vec![number; 16];
    samples::signed_request(&request)
}

/// Gives what a builder attests under a lease; equal contents give equal outputs.
pub(crate) fn attest(request: &Verified<JobRequest>, lease: &Lease, key: u8, content: &str) -> VerifiedAttestation {
    let image = if let protocol::job::JobKind::Image(image) = &request.get().kind {
        image.outputs(request.get().arch).first().map(ToString::to_string)
    } else {
        None
    };
    let name = match request.get().kind.word() {
        "image" => image.as_deref().expect("an image has a format"),
        "deb" => "base-files_12.4_amd64.deb",
        "rpm" => "Answer-1.2^git3-1.x86_64.rpm",
        _ => "out/answer.txt",
    };
    let output = Output {
        hash: Hash::of(content.as_bytes()),
        name: name.parse().unwrap(),
        size: content.len() as u64,
        sha256: Sha256::of(content.as_bytes()),
    };
    let attestation = Attestation {
        task: Task::of(job_id(request), request.get()),
        run: Run {
            node: lease.node,
            lease: lease.number,
            profile: lease.profile,
            started: samples::NOW,
            finished: samples::NOW,
            version: "0.1.0".to_owned(),
            node_info: std::collections::BTreeMap::new(),
        },
        outputs: vec![output],
        byproducts: Vec::new(),
        materials: Material::of(request.get()),
    };
    statement::read(&attestation.sign(&signing_key(key)).unwrap(), &request.get().network).unwrap()
}

/// Gives what binds a builder to an attestation, with [`SALT`].
pub(crate) fn commitment(network: &NetworkId, lease: LeaseNumber, attestation: &VerifiedAttestation) -> Commitment {
    let digest = attest::commitment::digest(network, lease, &SALT, attestation.bytes());
    Commitment { lease, digest, signature: None }
}

/// A ledger, its clock, and every effect of the last command.
pub(crate) struct Bench {
    pub(crate) ledger: Ledger,
    pub(crate) network: NetworkId,
    pub(crate) now: Timestamp,
    pub(crate) effects: Vec<Effect>,
    pub(crate) journal: Vec<(Timestamp, Vec<u8>)>,
    pub(crate) genesis: Verified<Policy>,
}

impl Bench {
    pub(crate) fn new(policy: &Policy) -> Self {
        let (genesis, network) = samples::signed_genesis(policy);
        let ledger = Ledger::new(network, genesis.clone()).unwrap();
        Self { ledger, network, now: samples::NOW, effects: Vec::new(), journal: Vec::new(), genesis }
    }

    /// Gives a network of operators with one node each.
    pub(crate) fn of(operators: u8, agree: u8, ask: u8, ask_max: u8) -> Self {
        Self::new(&policy(operators, 1, channel(agree, ask, ask_max)))
    }

    /// Applies a command and gives the answer.
    pub(crate) fn apply(&mut self, command: Command) -> Option<Response> {
        let asked = match &command {
            Command::AdoptPolicy(_)
            | Command::Submit(_)
            | Command::Order(_)
            | Command::Bid { .. }
            | Command::Offer { .. }
            | Command::Renewed { .. }
            | Command::Started { .. }
            | Command::Committed { .. }
            | Command::Revealed { .. }
            | Command::Failed { .. }
            | Command::Found { .. }
            | Command::Recipe(_)
            | Command::RecipeRun(_)
            | Command::Released(_)
            | Command::Signer { .. } => 1,
            Command::Declined { .. }
            | Command::Card { .. }
            | Command::Lost { .. }
            | Command::Woken
            | Command::Restarted
            | Command::Published { .. }
            | Command::PublishFailed { .. }
            | Command::Withdrawn { .. }
            | Command::Ran { .. }
            | Command::Explained { .. }
            | Command::Resign { .. } => 0,
        };
        self.journal.push((self.now, command.to_bytes()));
        self.effects = self.ledger.apply(self.now, command);
        let answers =
            self.effects.iter().filter_map(|e| if let Effect::Answer(answer) = e { Some(answer) } else { None });
        let answers: Vec<_> = answers.cloned().collect();
        assert_eq!(answers.len(), asked, "exactly one answer to who asks, none to the daemon: {:?}", self.effects);
        answers.into_iter().next()
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.apply(Command::Woken);
    }

    /// Submits a request, changed by the caller.
    pub(crate) fn wish(&mut self, kind: &str, number: u8, change: impl FnOnce(&mut JobRequest)) -> Option<Response> {
        let mut wish = request(self.network, kind, number).into_inner();
        change(&mut wish);
        self.apply(Command::Submit(samples::signed_request(&wish)))
    }

    /// Submits the `number`-th request to begin after others.
    pub(crate) fn submit_after(&mut self, kind: &str, number: u8, after: &[JobId]) -> JobId {
        let mut after = after.to_vec();
        after.sort();
        match self.wish(kind, number, |wish| wish.schedule.after = after) {
            Some(Response::Receipt(job, _)) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Submits a server job.
    pub(crate) fn serve(&mut self, number: u8, server: ServerJob) -> JobId {
        let wish = JobRequest { nonce: vec![number; 16], ..samples::server_request(self.network, server) };
        match self.apply(Command::Submit(samples::signed_request(&wish))) {
            Some(Response::Receipt(job, _)) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Gives job and generation of each server job that is to be run.
    pub(crate) fn served(&self) -> Vec<(JobId, u64)> {
        let one =
            |e: &Effect| if let Effect::Serve(service) = e { Some((service.job, service.generation)) } else { None };
        self.effects.iter().filter_map(one).collect()
    }

    /// Gives job and generation of each withdrawal, and since and from when there is doubt.
    pub(crate) fn withdrawn(&self) -> Vec<(JobId, u64, (u64, u64))> {
        let one = |e: &Effect| {
            if let Effect::Withdraw(w) = e { Some((w.job, w.generation, (w.since, w.from))) } else { None }
        };
        self.effects.iter().filter_map(one).collect()
    }

    /// Submits the `number`-th request.
    pub(crate) fn submit(&mut self, kind: &str, number: u8) -> JobId {
        match self.apply(Command::Submit(request(self.network, kind, number))) {
            Some(Response::Receipt(job, _)) => job,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn bid(&mut self, node: NodeId, job: JobId) -> Option<Response> {
        self.apply(Command::Bid { node, bid: Bid { job, memory_mib: 1 << 20 } })
    }

    /// Has a builder offer free slots with a lot of memory.
    pub(crate) fn offer(&mut self, node: NodeId, free: u16) -> Option<Response> {
        let held = self.ledger.held_by.get(&node).into_iter().flatten().copied().collect();
        let offer = Offer { free, held, arches: vec![Arch::Amd64], memory_mib: 1 << 20 };
        self.apply(Command::Offer { node, offer })
    }

    /// Has a builder show its card.
    pub(crate) fn card(&mut self, node: NodeId, arch: Arch, (slots, memory_mib): (u16, u32), duty: Duty) {
        let capacity = Some(Capacity {
            fetch: Vec::new(),
            isolation: Isolation::Rootfs,
            slots,
            arches: vec![arch],
            disk_mib: 1 << 20,
            memory_mib,
        });
        self.apply(Command::Card { node, capacity, duty });
    }

    /// Says why a job waits.
    pub(crate) fn why(&self, job: JobId) -> String {
        self.ledger.job(job).expect("a known job").waiting.unwrap_or_default()
    }

    /// Bids and gives the lease that was granted at once.
    pub(crate) fn lease(&mut self, node: NodeId, job: JobId) -> Lease {
        assert_eq!(self.bid(node, job), Some(Response::Done));
        self.granted().into_iter().find(|l| l.node == node).expect("a lease at once")
    }

    pub(crate) fn granted(&self) -> Vec<Lease> {
        let lease = |effect: &Effect| if let Effect::Grant(lease) = effect { Some(lease.clone()) } else { None };
        self.effects.iter().filter_map(lease).collect()
    }

    pub(crate) fn revoked(&self) -> Vec<LeaseNumber> {
        let lease = |effect: &Effect| if let Effect::Revoke { lease, .. } = effect { Some(*lease) } else { None };
        self.effects.iter().filter_map(lease).collect()
    }

    pub(crate) fn published(&self) -> Vec<u64> {
        let generation =
            |e: &Effect| if let Effect::Publish(publication) = e { Some(publication.generation) } else { None };
        self.effects.iter().filter_map(generation).collect()
    }

    pub(crate) fn announced(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Announce(_)))
    }

    /// Finds the key of a lease's node.
    pub(crate) fn key_of(node: NodeId) -> u8 {
        (10..250).find(|seed| protocol::testing::node(*seed) == node).expect("a node of the tests")
    }

    /// Has a builder commit to a content and show it at once.
    pub(crate) fn reveal(&mut self, lease: &Lease, content: &str) -> Option<Response> {
        self.commit(lease, content);
        self.show(lease, content)
    }

    /// Has a builder commit to a content.
    pub(crate) fn commit(&mut self, lease: &Lease, content: &str) -> Option<Response> {
        let attestation = self.attest(lease, content);
        let commitment = commitment(&self.network, lease.number, &attestation);
        self.apply(Command::Committed { node: lease.node, commitment })
    }

    fn attest(&self, lease: &Lease, content: &str) -> VerifiedAttestation {
        let request = self.ledger.request(lease.job).expect("an open job");
        attest(request, lease, Self::key_of(lease.node), content)
    }

    /// Has a builder show a content.
    pub(crate) fn show(&mut self, lease: &Lease, content: &str) -> Option<Response> {
        let attestation = self.attest(lease, content);
        let (log, opening) = (Hash::of(b"log"), Opening::Salt(SALT));
        self.apply(Command::Revealed { node: lease.node, lease: lease.number, log, opening, attestation })
    }

    pub(crate) fn fail(&mut self, lease: &Lease, blame: Blame, step: &str) -> Option<Response> {
        let failure = Failure::new(blame, step, "it did not work");
        self.apply(Command::Failed {
            node: lease.node,
            report: Failed { log: None, lease: lease.number, failure, statement: None },
        })
    }

    pub(crate) fn start(&mut self, lease: &Lease) -> Option<Response> {
        self.apply(Command::Started { node: lease.node, lease: lease.number })
    }

    pub(crate) fn renew(&mut self, leases: &[&Lease]) -> Option<Response> {
        let renewals = leases.iter().map(|l| Renewal { lease: l.number, phase: "build".to_owned() }).collect();
        self.apply(Command::Renewed { node: leases[0].node, renewals })
    }

    pub(crate) fn cancel(&mut self, job: JobId, key: u8) -> Option<Response> {
        self.order(job, key, Change::Cancel)
    }

    pub(crate) fn order(&mut self, job: JobId, key: u8, what: Change) -> Option<Response> {
        let order = Order { at: self.now, job, what, reason: "wrong version".to_owned() };
        let signed = Signed::sign(&order, Some(&self.network), &[&signing_key(key)]);
        self.apply(Command::Order(signed.verify(Some(&self.network)).unwrap()))
    }

    pub(crate) fn adopt(&mut self, change: impl FnOnce(&mut Policy)) -> Option<Response> {
        let mut next = self.ledger.policy().get().clone();
        next.number += 1;
        next.network = Some(self.network);
        change(&mut next);
        let signed = Signed::sign(&next, Some(&self.network), &[&signing_key(samples::ROOT_SEED)]);
        self.apply(Command::AdoptPolicy(signed.verify(Some(&self.network)).unwrap()))
    }

    pub(crate) fn state(&self, job: JobId) -> String {
        self.ledger.job(job).expect("a known job").state
    }

    /// Asserts that the journal gives this ledger again, and that its snapshot does.
    pub(crate) fn assert_replays(&self) {
        let mut again = Ledger::new(self.network, self.genesis.clone()).unwrap();
        for (at, bytes) in &self.journal {
            let command = Command::from_bytes(bytes, &self.network).unwrap();
            assert_eq!(&command.to_bytes(), bytes);
            let _ = again.apply(*at, command);
        }
        let bytes = self.ledger.to_bytes();
        assert!(again.to_bytes() == bytes, "the journal gives another ledger");
        assert!(Ledger::from_bytes(&bytes).unwrap().to_bytes() == bytes, "the snapshot gives another ledger");
    }
}
