//! The ledger as bytes, so that a restart replays only the journal since then. Signed records are kept as the envelopes that
//! were received, and are verified again when they are read.
//!
//! A ledger has one byte string. What is read must be it: bytes may come from another coordinator, and a list that names a job twice
//! or in another order would be kept in a map, once and sorted, and leave what is counted beside the map wrong.

use std::collections::{BTreeMap, BTreeSet};

use attest::statement::VerifiedAttestation;
use protocol::{
    ChannelName, JobId, NetworkId, NodeId, Sha256, Signed, Verified,
    codec::{self, DoorError},
    envelope::{EnvelopeError, Record},
    lease::Lease,
    message::Octets,
    policy::{self, SuccessionError},
};
use serde::{Deserialize, Serialize};

use crate::{
    Ledger,
    command::{self, CommandError},
    course::Noted,
    deadlines::{Deadlines, Due},
    environments::Environments,
    evidence::Dossier,
    job::Job,
    log::{Enacted, Log},
    pace::Pace,
    peers::{Known, Peers},
    queue::{Queue, Shares},
    recipes::{Book, StoredEntry},
    releases::Line,
    reputation::Reputation,
    shelf::Shelf,
    timer::Clock,
};

/// Why bytes are no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes did not pass the door.
    #[error("snapshot does not pass the door")]
    Door(#[from] DoorError),
    /// A signed record inside does not verify.
    #[error("signed record in the snapshot does not verify")]
    Record(#[from] EnvelopeError),
    /// An attestation inside does not verify.
    #[error("attestation in the snapshot does not verify")]
    Attestation(#[from] CommandError),
    /// The policies are no chain of this network.
    #[error("policy chain in the snapshot does not hold")]
    Policies(#[from] SuccessionError),
    /// Two parts contradict each other.
    #[error("snapshot contradicts itself: {0}")]
    Contradiction(String),
}

/// What builders signed about a job's attempts without outputs.
type StoredNegatives = (JobId, Vec<Octets>);

/// What the log says of a job's attempts.
type StoredCourse = (JobId, Vec<Noted>);

/// Job, request, votes, late attestations.
type StoredDossier = (JobId, Octets, Vec<Octets>, Vec<Octets>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    /// Size and peaks of the transparency log.
    #[serde(default, skip_serializing_if = "is_default")]
    log: (u64, Vec<Sha256>),
    jobs: Vec<(JobId, Job)>,
    pace: Pace,
    clock: Clock,
    ended: Vec<JobId>,
    lines: Vec<(ChannelName, Line)>,
    peers: Known,
    leases: Vec<Lease>,
    shares: Shares,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    courses: Vec<StoredCourse>,
    /// Places of the policies in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    enacted: Vec<Enacted>,
    network: NetworkId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipes: Vec<StoredEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signers: Vec<(NodeId, Octets)>,
    dossiers: Vec<StoredDossier>,
    policies: Vec<Octets>,
    deadlines: Vec<(Due, protocol::Timestamp)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    negatives: Vec<StoredNegatives>,
    last_lease: u64,
    #[serde(default, skip_serializing_if = "Reputation::is_empty")]
    reputation: Reputation,
    #[serde(default, skip_serializing_if = "Environments::is_empty")]
    environments: Environments,
}

/// Whether a field that older snapshots lack may be left out, so that they are read, and written again, as they are.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Ledger {
    /// Gives the whole state; equal ledgers give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let dossier = |(id, dossier): (&JobId, &Dossier)| {
            let bytes = |list: &[VerifiedAttestation]| list.iter().map(|a| Octets(a.bytes().to_vec())).collect();
            (*id, Octets(dossier.request.to_bytes()), bytes(&dossier.attestations), bytes(&dossier.late))
        };
        let negatives = |(id, dossier): (&JobId, &Dossier)| {
            (!dossier.negatives.is_empty()).then(|| (*id, dossier.negatives.clone()))
        };
        let course =
            |(id, dossier): (&JobId, &Dossier)| (!dossier.course.is_empty()).then(|| (*id, dossier.course.clone()));
        codec::encode(&Snapshot {
            log: self.log.to_parts(),
            jobs: self.jobs.iter().map(|(id, job)| (*id, job.clone())).collect(),
            pace: self.pace.clone(),
            clock: self.clock,
            ended: self.ended.iter().copied().collect(),
            lines: self.lines.iter().map(|(name, line)| (name.clone(), line.clone())).collect(),
            leases: self.leases.values().cloned().collect(),
            peers: self.peers.known().clone(),
            shares: self.queue.shares().clone(),
            courses: self.dossiers.iter().filter_map(course).collect(),
            enacted: self.enacted().to_vec(),
            network: self.network,
            signers: self.signers.iter().map(|(node, bytes)| (*node, bytes.clone())).collect(),
            recipes: self.book.entries(),
            dossiers: self.dossiers.iter().map(dossier).collect(),
            policies: self.policies.iter().map(|p| Octets(p.to_bytes())).collect(),
            deadlines: self.deadlines.entries(),
            negatives: self.dossiers.iter().filter_map(negatives).collect(),
            last_lease: self.last_lease,
            reputation: self.reputation.clone(),
            environments: self.environments.clone(),
        })
    }

    /// Reads what [`Ledger::to_bytes`] gave, and verifies everything that is signed.
    ///
    /// # Errors
    /// [`SnapshotError`]; also for the bytes of a ledger that are not those that it writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot: Snapshot = codec::decode(bytes, usize::MAX)?;
        let network = snapshot.network;
        let mut dossiers = Shelf::default();
        for (id, request, attestations, late) in snapshot.dossiers {
            let request = verified(&request, Some(&network))?;
            let read = |Octets(bytes): &Octets| command::attestation(bytes, &network);
            let attestations = attestations.iter().map(read).collect::<Result<_, _>>()?;
            let late = late.iter().map(read).collect::<Result<_, _>>()?;
            dossiers.insert(id, Dossier { attestations, late, ..Dossier::new(request) });
        }
        for (id, course) in snapshot.courses {
            let dossier = dossiers.get_mut(&id);
            dossier
                .ok_or_else(|| SnapshotError::Contradiction(format!("job {id} was logged and is unknown")))?
                .course = course;
        }
        for (id, negatives) in snapshot.negatives {
            let dossier = dossiers.get_mut(&id);
            dossier.ok_or_else(|| SnapshotError::Contradiction(format!("job {id} failed and is unknown")))?.negatives =
                negatives;
        }
        let policies = policies(&snapshot.policies, network)?;
        let mut queue = Queue::with_shares(snapshot.shares);
        for (id, job) in snapshot.jobs.iter().filter(|(_, job)| job.wanted > 0) {
            queue.restore(*id, job);
        }
        let mut held_by: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for lease in &snapshot.leases {
            held_by.entry(lease.node).or_default().insert(lease.number);
        }
        let full = snapshot.jobs.iter().filter(|(id, _)| dossiers.contains_key(id));
        let ledger = Self {
            network,
            peers: Peers::new(snapshot.peers, policies.last().expect("a chain is never empty").get()),
            queue,
            held_by,
            pace: snapshot.pace,
            policies,
            open: snapshot
                .jobs
                .iter()
                .filter(|(_, job)| !job.state.is_ended())
                .map(|(id, job)| (*id, job.facts.key))
                .collect(),
            ended: snapshot.ended.into(),
            job_of_lease: full.flat_map(|(id, job)| job.every_attempt().map(|a| (a.lease, *id))).collect(),
            explained: snapshot
                .jobs
                .iter()
                .flat_map(|(id, job)| job.explanations.iter().map(|e| (e.id(id), *id)))
                .collect(),
            jobs: snapshot.jobs.into_iter().collect(),
            dossiers,
            leases: snapshot.leases.into_iter().map(|lease| (lease.number, lease)).collect(),
            last_lease: snapshot.last_lease,
            reputation: snapshot.reputation,
            environments: snapshot.environments,
            book: Book::from_entries(&snapshot.recipes, &network)?,
            log: Log::from_parts(snapshot.log, snapshot.enacted).ok_or_else(|| {
                SnapshotError::Contradiction("the transparency log's peaks are not those of its size".into())
            })?,
            lines: snapshot.lines.into_iter().collect(),
            signers: snapshot.signers.into_iter().collect(),
            deadlines: Deadlines::from_entries(snapshot.deadlines),
            clock: snapshot.clock,
        };
        ledger.check()?;
        let canonical = ledger.to_bytes() == bytes;
        if canonical { Ok(ledger) } else { Err(DoorError::Alias { wanted: "Ledger" }.into()) }
    }

    /// Checks what every command relies on.
    fn check(&self) -> Result<(), SnapshotError> {
        let contradiction = |what: String| Err(SnapshotError::Contradiction(what));
        if let Some(id) = self.open.ids().iter().find(|id| !self.dossiers.contains_key(id)) {
            return contradiction(format!("open job {id} has no request"));
        }
        let over: BTreeSet<_> = self.ended.iter().collect();
        let wanted: BTreeSet<_> = self.jobs.iter().filter(|(_, job)| job.state.is_ended()).map(|(id, _)| id).collect();
        if over != wanted || over.len() != self.ended.len() {
            return contradiction("the list of ended jobs is not that of the jobs that are over".into());
        }
        if let Some(id) = self.dossiers.keys().find(|id| !self.jobs.contains_key(id)) {
            return contradiction(format!("the request of job {id} has no job"));
        }
        let live: BTreeSet<_> = self.leases.values().map(|l| (l.number, l.job, l.node)).collect();
        let attempts = self.jobs.iter().flat_map(|(id, job)| job.attempts.iter().map(move |a| (id, a)));
        if live != attempts.filter(|(_, a)| a.state.is_live()).map(|(id, a)| (a.lease, *id, a.node)).collect() {
            return contradiction("the live leases are not those of the attempts that run".into());
        }
        match live.last() {
            Some((lease, ..)) if lease.0 > self.last_lease => contradiction(format!("lease {lease} was never given")),
            Some(_) | None => Ok(()),
        }
    }
}

/// Reads and verifies a signed record again.
pub(crate) fn verified<T: Record>(
    Octets(bytes): &Octets,
    network: Option<&NetworkId>,
) -> Result<Verified<T>, EnvelopeError> {
    Signed::read(bytes)?.verify(network)
}

fn policies(chain: &[Octets], network: NetworkId) -> Result<Vec<Verified<policy::Policy>>, SnapshotError> {
    let Some((genesis, rest)) = chain.split_first() else {
        return Err(SnapshotError::Contradiction("there is no policy".into()));
    };
    let mut policies = vec![verified::<policy::Policy>(genesis, None)?];
    if policy::check_genesis(&policies[0], protocol::Timestamp::ZERO)? != network {
        return Err(SuccessionError::OtherNetwork.into());
    }
    for next in rest {
        let next = verified(next, Some(&network))?;
        let current = policies.last().expect("it begins with the genesis").get();
        policy::check_successor(current, &network, &next, protocol::Timestamp::ZERO)?;
        policies.push(next);
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use protocol::message::{Bid, Response};

    use super::*;
    use crate::{
        Command,
        testing::{Bench, builder},
    };

    /// A bench with one queued, one running and one ended job.
    fn bench() -> Bench {
        let mut bench = Bench::of(3, 1, 1, 1);
        bench.submit("deb", 1);
        let (running, over) = (bench.submit("command", 2), bench.submit("command", 3));
        bench.lease(builder(0, 0), running);
        let lease = bench.lease(builder(1, 0), over);
        bench.reveal(&lease, "a");
        bench
    }

    #[test]
    fn a_ledger_from_bytes_goes_on_where_it_was() {
        let mut bench = bench();
        let mut again = Ledger::from_bytes(&bench.ledger.to_bytes()).unwrap();
        let job = *again.open.ids().first().unwrap();
        let bid = Command::Bid { node: builder(2, 0), bid: Bid { job, memory_mib: 8192 } };
        let effects = again.apply(bench.now, bid.clone());
        assert!(bench.apply(bid).is_some_and(|answer| answer == Response::Done));
        assert_eq!(bench.effects, effects);
        assert!(bench.ledger.to_bytes() == again.to_bytes());
    }

    #[test]
    fn lists_that_name_something_twice_or_in_another_order_are_refused() {
        let read = |change: fn(&mut Snapshot)| {
            let mut snapshot: Snapshot = codec::decode(&bench().ledger.to_bytes(), usize::MAX).unwrap();
            change(&mut snapshot);
            Ledger::from_bytes(&codec::encode(&snapshot)).map(drop)
        };
        assert_eq!(read(|_| ()), Ok(()));
        let alias = Err(DoorError::Alias { wanted: "Ledger" }.into());
        assert_eq!(read(|s| s.jobs.push(s.jobs[0].clone())), alias, "its queue would count a job twice");
        assert_eq!(read(|s| s.jobs.reverse()), alias);
        assert_eq!(read(|s| s.leases.push(s.leases[0].clone())), alias);
        assert_eq!(read(|s| s.dossiers.reverse()), alias);
        assert_eq!(read(|s| s.courses.push(s.courses[0].clone())), alias);
        let later = |s: &mut Snapshot| s.deadlines.push((s.deadlines[0].0, protocol::Timestamp::ZERO));
        assert_eq!(read(later), alias, "it would fall due twice");
        let stranger = |s: &mut Snapshot| {
            let (_, peer) = s.peers.peers.pop_first().unwrap();
            s.peers.peers.insert(protocol::testing::node(99), peer);
        };
        assert_eq!(read(stranger), alias, "nobody answers for it");
    }

    #[test]
    fn a_snapshot_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut Ledger)| {
            let mut ledger = bench().ledger;
            change(&mut ledger);
            Ledger::from_bytes(&ledger.to_bytes()).unwrap_err().to_string()
        };
        assert!(refused(|l| l.leases.clear()).contains("the live leases are not"));
        assert!(refused(|l| l.last_lease = 0).contains("was never given"));
        assert!(refused(|l| l.ended.clear()).contains("the list of ended jobs"));
        assert!(refused(|l| l.dossiers.clear()).contains("has no request"));
        assert!(refused(|l| l.policies.clear()).contains("there is no policy"));
        assert!(refused(|l| drop(l.jobs.pop_first())).contains("the"));
        let other = refused(|l| l.network = NetworkId::from_bytes([9; 32]));
        assert!(other.contains("does not verify"), "{other}");
    }
}
