//! What the transparency log says, and in which order: a function of the commands, so that every member of the group writes
//! the same log, and a failover can neither fork it nor leave a gap.
//!
//! ```text
//!  policy .. accepted -> lease -> commitment -> outcome -> verdict -> release       revocation: with the policy that says so
//!                          |______________________|  each lease has one: built, failed, stopped, lost, withheld, declined or revoked
//! ```
//! The ledger keeps the tree's right edge and the next place; the entries' bytes are the store's (see [`Effect::Append`]).
//! A ledger of a time before the log begins it with the policies that it has.

use attest::log::{
    entry::{self, Entry, Event},
    tree::{self, Edge, Head},
};
use protocol::{
    Hash, JobId, NodeId, Sha256, Timestamp, Verified,
    lease::{Lease, LeaseNumber},
    message::Failed,
    policy::{Policy, Revoked},
};

use serde::{Deserialize, Serialize};

use crate::{Effect, Ledger, Turn, job::is_interruption, tally::Decision};

pub use attest::log::entry::End;

/// How far the log is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Log {
    edge: Edge,
    enacted: Vec<Enacted>,
}

/// Where a policy stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enacted {
    /// When it came into force.
    pub at: Timestamp,
    /// The place of its entry.
    pub place: u64,
    /// Its version.
    pub number: u64,
}

impl Log {
    /// Gives size and peaks, for a snapshot.
    pub(crate) fn to_parts(&self) -> (u64, Vec<Sha256>) {
        (self.edge.head().size, self.edge.peaks().to_vec())
    }

    /// Reads [`Log::to_parts`]; none where the parts do not belong together.
    pub(crate) fn from_parts((size, peaks): (u64, Vec<Sha256>), enacted: Vec<Enacted>) -> Option<Self> {
        Edge::from_peaks(size, peaks).map(|edge| Self { edge, enacted })
    }

    /// Appends an entry and gives its place and its bytes.
    fn append(&mut self, entry: &Entry) -> (u64, Vec<u8>) {
        let index = self.edge.head().size;
        if let Event::Policy(entry::Policy { number, .. }) = &entry.event {
            self.enacted.push(Enacted { at: entry.at, place: index, number: *number });
        }
        let bytes = entry.to_bytes();
        self.edge.append(tree::leaf(&bytes));
        (index, bytes)
    }
}

impl Ledger {
    /// Gives size and root of the transparency log, as far as it was decided.
    pub fn log_head(&self) -> Head {
        self.log.edge.head()
    }

    /// Gives the places of the policies in the log, the earliest first; without those that were logged before this was noted.
    pub fn enacted(&self) -> &[Enacted] {
        &self.log.enacted
    }

    /// Gives the policy that was in force at a time, as far as the log's times tell, else the one in force.
    pub fn policy_at(&self, at: Timestamp) -> &Verified<Policy> {
        let then = self.log.enacted.iter().rev().find(|enacted| enacted.at <= at);
        let known = then.and_then(|then| self.policies.iter().find(|policy| policy.get().number == then.number));
        known.unwrap_or_else(|| self.policy())
    }

    /// Begins the log with the policies so far, where there is none yet.
    pub(crate) fn begin_log(&self, turn: &mut Turn) {
        if self.log.edge.head().size == 0 {
            self.policies.iter().for_each(|known| turn.log(policy(known)));
        }
    }

    /// Gives what the command added its places in the log.
    pub(crate) fn write_log(&mut self, turn: &mut Turn) {
        for event in std::mem::take(&mut turn.events) {
            let entry = Entry { at: turn.at, event };
            let (index, bytes) = self.log.append(&entry);
            self.note_course(&entry.event, (index, &bytes));
            turn.push(Effect::Append { index, entry: bytes });
        }
    }
}

/// A policy that came into force.
pub(crate) fn policy(policy: &Verified<Policy>) -> Event {
    Event::Policy(entry::Policy { number: policy.get().number, envelope: Hash::of(&policy.to_bytes()) })
}

/// What a policy revokes that the one before did not, or from a later place on.
pub(crate) fn revocations(next: &Verified<Policy>, before: &Policy) -> impl Iterator<Item = Event> {
    let envelope = Hash::of(&next.to_bytes());
    let revocation = move |r: &Revoked| Event::Revocation(entry::Revocation { key: r.key, from: r.from, envelope });
    next.get().revoked_since(before).map(revocation)
}

/// A lease that was granted.
pub(crate) fn lease(lease: &Lease) -> Event {
    let Lease { job, node, number, profile, .. } = *lease;
    Event::Lease(entry::Lease { job, node, lease: number, profile })
}

/// How the attempt under a lease ended.
pub(crate) fn outcome(job: JobId, (node, lease): (NodeId, LeaseNumber), end: End) -> Event {
    Event::Outcome(entry::Outcome { end, job, node, lease })
}

/// How an attempt ended that its builder reports as failed or cut off: the hash of what it signed, or of what earlier versions
/// said.
pub(crate) fn failed(report: &Failed) -> End {
    let signed = report.statement.as_ref().map(|statement| Hash::of(&statement.0));
    match (is_interruption(report.failure.blame), signed) {
        (true, Some(signed)) => End::Stopped(signed),
        (true, None) => End::Interrupted,
        (false, Some(signed)) => End::Failed(signed),
        (false, None) => End::Failed(Hash::of(&protocol::codec::encode(report))),
    }
}

/// What the attempts of a job came to.
pub(crate) fn verdict(job: JobId, decision: &Decision, mut attestations: Vec<Hash>) -> Event {
    attestations.sort_unstable();
    attestations.dedup();
    let verdict = match decision {
        Decision::Reproduced(_) => entry::Judgement::Reproduced,
        Decision::Disputed(_) => entry::Judgement::Disputed,
        Decision::Unreproducible(_) => entry::Judgement::Unreproducible,
        Decision::Failed(_) => entry::Judgement::Failed,
    };
    Event::Verdict(entry::Verdict { job, verdict, attestations })
}
