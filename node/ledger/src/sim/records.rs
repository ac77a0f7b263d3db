//! Signed records, shared among runs: making and checking signatures would be most of a run's time.

use std::{cell::RefCell, collections::BTreeMap};

use attest::statement::VerifiedAttestation;
use protocol::{
    ChannelName, JobId, NetworkId, NodeId, Signed, Verified,
    job::{Change as Ordered, JobRequest, Order, Promote, ServerJob},
    lease::Lease,
    policy::{Channel, Coordinators, Maintainer, Policy},
    testing::{node, public_key, samples, signing_key},
};

use crate::testing::{attest, channel, policy};

/// Key seeds of the maintainers.
const MAINTAINERS: [u8; 2] = [samples::MAINTAINER_SEED, 3];
/// Key seed of the first coordinator.
const MEMBER_SEED: u8 = 200;
/// Records of one kind that a thread keeps.
const KEPT_MAX: usize = 20_000;

/// What a network looks like at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) operators: u8,
    pub(super) nodes: u8,
    pub(super) agree: u8,
    pub(super) ask: u8,
    /// Coordinators: one, three or five. One more stands by.
    pub(super) members: u8,
}

/// How a new policy differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// The last operator leaves.
    OperatorLeaves,
    /// All operators of the genesis are there.
    OperatorsReturn,
    /// The second maintainer's key is revoked.
    MaintainerLeaves,
    /// A maintainer may have one open job.
    OneJobEach,
    /// The first coordinator is replaced by the one that stood by.
    CoordinatorReplaced,
}

impl Change {
    pub(super) const EVERY: [Change; 5] = [
        Change::OperatorLeaves,
        Change::OperatorsReturn,
        Change::MaintainerLeaves,
        Change::OneJobEach,
        Change::CoordinatorReplaced,
    ];
}

/// What is asked for in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) kind: &'static str,
    pub(super) number: u8,
    pub(super) channel: usize,
    pub(super) maintainer: usize,
}

/// Lease, profile, builder, job and content of an attestation.
type Statement = (u64, u16, NodeId, JobId, String);

#[derive(Default)]
struct Kept {
    nodes: BTreeMap<u8, NodeId>,
    geneses: BTreeMap<Shape, (Verified<Policy>, NetworkId)>,
    policies: BTreeMap<(Shape, Vec<Change>), Verified<Policy>>,
    requests: BTreeMap<(NetworkId, Wanted), Verified<JobRequest>>,
    cancels: BTreeMap<JobId, Verified<Order>>,
    attestations: BTreeMap<Statement, VerifiedAttestation>,
}

std::thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Gives what is kept under a key, or makes and keeps it.
fn keep<K: Ord, V: Clone>(of: impl Fn(&mut Kept) -> &mut BTreeMap<K, V>, key: K, make: impl FnOnce() -> V) -> V {
    if let Some(known) = KEPT.with_borrow_mut(|kept| of(kept).get(&key).cloned()) {
        return known;
    }
    let made = make();
    KEPT.with_borrow_mut(|kept| {
        let map = of(kept);
        if map.len() >= KEPT_MAX {
            map.clear();
        }
        map.insert(key, made.clone());
    });
    made
}

/// Gives the node of a key seed.
pub(super) fn node_of(seed: u8) -> NodeId {
    keep(|kept| &mut kept.nodes, seed, || node(seed))
}

/// Gives the node of a coordinator.
pub(super) fn member(at: usize) -> NodeId {
    node_of(MEMBER_SEED + u8::try_from(at).unwrap())
}

/// Gives the names of the two channels.
pub(super) fn channels() -> [ChannelName; 2] {
    ["edge".parse().unwrap(), "stable".parse().unwrap()]
}

fn coordinators(members: impl Iterator<Item = usize>) -> Coordinators {
    let mut nodes: Vec<NodeId> = members.map(member).collect();
    nodes.sort();
    if let [one] = nodes.as_slice() { Coordinators::Pinned(*one) } else { Coordinators::Elected(nodes) }
}

/// Gives the first policy of a shape: channel `stable` as the shape wants, channel `edge` where one operator is enough.
pub(super) fn genesis(shape: Shape) -> (Verified<Policy>, NetworkId) {
    keep(
        |kept| &mut kept.geneses,
        shape,
        || {
            let most = shape.operators.max(shape.ask);
            let mut genesis = policy(shape.operators, shape.nodes, channel(shape.agree, shape.ask, most));
            let [edge, stable] = channels();
            let first = Channel { name: edge.clone(), ..channel(1, 1, most) };
            genesis.channels.insert(0, first);
            genesis.coordinators = coordinators(0..shape.members.into());
            let maintainer = |(at, seed): (usize, u8)| Maintainer {
                key: public_key(seed),
                name: ["maria", "nora"][at].parse().unwrap(),
                channels: vec![edge.clone(), stable.clone()],
            };
            genesis.maintainers = MAINTAINERS.into_iter().enumerate().map(maintainer).collect();
            genesis.maintainers.sort();
            samples::signed_genesis(&genesis)
        },
    )
}

/// Gives the policy after some changes, one version each.
pub(super) fn successor(shape: Shape, changes: &[Change]) -> Verified<Policy> {
    let (genesis, network) = genesis(shape);
    let make = || {
        let mut next = genesis.get().clone();
        next.network = Some(network);
        for change in changes {
            next.number += 1;
            match change {
                Change::OperatorLeaves => drop(next.operators.pop()),
                Change::OperatorsReturn => next.operators.clone_from(&genesis.get().operators),
                Change::MaintainerLeaves => next.maintainers.retain(|m| m.key == public_key(MAINTAINERS[0])),
                Change::OneJobEach => next.limits.open_jobs = 1,
                Change::CoordinatorReplaced => next.coordinators = coordinators(1..usize::from(shape.members) + 1),
            }
        }
        let signed = Signed::sign(&next, Some(&network), &[&signing_key(samples::ROOT_SEED)]);
        signed.verify(Some(&network)).unwrap()
    };
    keep(|kept| &mut kept.policies, (shape, changes.to_vec()), make)
}

/// Gives a signed request.
pub(super) fn request(network: NetworkId, wanted: Wanted) -> Verified<JobRequest> {
    let make = || {
        let mut request = match wanted.kind {
            "deb" => samples::deb_request(network),
            _ => samples::command_request(network),
        };
        request.nonce = vec![wanted.number; 16];
        request.channel = channels()[wanted.channel].clone();
        // So that who goes on without end is stopped within a run.
        request.limits.wall_secs = 600;
        let key = signing_key(MAINTAINERS[wanted.maintainer]);
        Signed::sign(&request, Some(&network), &[&key]).verify(Some(&network)).unwrap()
    };
    keep(|kept| &mut kept.requests, (network, wanted), make)
}

/// Gives a signed request to take everything of the first channel over into the second.
pub(super) fn promotion(network: NetworkId, number: u8) -> Verified<JobRequest> {
    let [edge, stable] = channels();
    let wanted = Wanted { kind: "promote", number, channel: 1, maintainer: usize::from(number % 2) };
    let make = || {
        let promote = ServerJob::Promote(Promote { from: edge, packages: Vec::new() });
        let nonce = vec![number; 16];
        let request = JobRequest { channel: stable, nonce, ..samples::server_request(network, promote) };
        let key = signing_key(MAINTAINERS[wanted.maintainer]);
        Signed::sign(&request, Some(&network), &[&key]).verify(Some(&network)).unwrap()
    };
    keep(|kept| &mut kept.requests, (network, wanted), make)
}

/// Gives a wish to cancel, signed by a root.
pub(super) fn cancel(network: NetworkId, job: JobId) -> Verified<Order> {
    let make = || {
        let cancel = Order { at: samples::NOW, job, what: Ordered::Cancel, reason: "wrong version".to_owned() };
        let signed = Signed::sign(&cancel, Some(&network), &[&signing_key(samples::ROOT_SEED)]);
        signed.verify(Some(&network)).unwrap()
    };
    keep(|kept| &mut kept.cancels, job, make)
}

/// Gives what a builder attests.
pub(super) fn attestation(
    request: &Verified<JobRequest>,
    lease: &Lease,
    key: u8,
    content: &str,
) -> VerifiedAttestation {
    let statement = (lease.number.0, lease.profile.0, lease.node, lease.job, content.to_owned());
    keep(|kept| &mut kept.attestations, statement, || attest(request, lease, key, content))
}
