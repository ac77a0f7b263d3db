//! What one node has shown in one class of jobs: what was validated, what was contradicted, and what follows.

use std::time::Duration;

use protocol::{Hash, JobId, OperatorName, Timestamp, blame::Failure, lease::LeaseNumber};
use serde::{Deserialize, Serialize};

use super::decay::Decaying;

/// The first rest and the first quarantine; doubled each time.
const FIRST: Duration = Duration::from_secs(10);
/// The longest rest and the longest quarantine.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);
/// A quarantine that is longer ends early by a canary, which is offered after this time.
const CANARY_AFTER: Duration = Duration::from_secs(60);
/// Contradictions before a node may be disabled.
const DISABLED_FROM: usize = 3;
/// Contradictions that are kept, the newest; more than decide anything.
pub(crate) const EVIDENCE_MAX: usize = 16;
/// How long a contradiction is kept, so that it may be counted towards [`DISABLED_FROM`].
const EVIDENCE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Unconfirmed failures that are remembered; the rests are the longest long before.
const PENDING_MAX: usize = 32;

/// What others saw otherwise than a builder said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contradiction {
    /// When it came out.
    pub at: Timestamp,
    /// The job.
    pub job: JobId,
    /// What the builder said.
    pub claim: Claim,
    /// The builder's lease.
    pub lease: LeaseNumber,
    /// Operators that agreed on the job's outputs instead.
    pub against: Vec<OperatorName>,
    /// Their attestations.
    pub attestations: Vec<Hash>,
}

/// What a builder said that others contradict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// That it cannot be built, or that it cannot build it.
    Failed(Failure),
    /// Other outputs.
    Differed {
        /// The digest of its set of outputs.
        got: Hash,
        /// The digest that was agreed.
        agreed: Hash,
        /// Its attestation.
        attestation: Hash,
    },
    /// Either of them about a canary, whose answer was known.
    Canary(Box<Claim>),
}

/// Whether the node gets leases in the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum State {
    /// It does.
    #[default]
    Free,
    /// Not until then; where that is long, a canary ends it.
    Quarantined { since: Timestamp, until: Timestamp },
    /// Only canaries, from then on.
    Disabled { since: Timestamp, canary: Timestamp },
}

/// One node in one class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// When others last built the same; none when that never happened.
    pub(crate) proof: Option<Timestamp>,
    /// Until when it rests, because of failures that nobody has confirmed or contradicted so far.
    pub(crate) rests: Option<Timestamp>,
    pub(crate) state: State,
    /// Leases whose failure nobody has confirmed or contradicted so far.
    pub(crate) pending: Vec<LeaseNumber>,
    /// Contradictions since the last build that was validated.
    pub(crate) strikes: u32,
    /// Why, the oldest first.
    pub(crate) evidence: Vec<Contradiction>,
    /// Builds that a quorum agreed with.
    pub(crate) validated: Decaying,
    pub(crate) contradicted: Decaying,
}

/// Gives 10 s, 20 s, 40 s and so on, up to an hour.
fn doubled(times: u32) -> Duration {
    FIRST.saturating_mul(1 << times.min(16)).min(LONGEST)
}

impl Record {
    /// Notes a failure that is neither confirmed nor contradicted. From the second on the node rests, so that one that fails
    /// at once does not spoil a whole queue before the first of its jobs was built by somebody else.
    pub(crate) fn failed(&mut self, lease: LeaseNumber, at: Timestamp) {
        if self.pending.contains(&lease) {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.pending.remove(0);
        }
        self.pending.push(lease);
        if let Some(times) = u32::try_from(self.pending.len()).unwrap_or(u32::MAX).checked_sub(2) {
            self.rests = Some(at.after(doubled(times)));
        }
    }

    /// The failure's job was decided, or ended.
    pub(crate) fn resolved(&mut self, lease: LeaseNumber) {
        self.pending.retain(|pending| *pending != lease);
        if self.pending.len() < 2 {
            self.rests = None;
        }
    }

    /// A quorum agreed with a build. Only this resets anything.
    pub(crate) fn validated(&mut self, at: Timestamp) {
        self.validated.add(at);
        self.proof = Some(at);
        self.strikes = 0;
        self.rests = None;
        if matches!(self.state, State::Quarantined { .. }) {
            self.state = State::Free;
        }
    }

    /// A canary was answered right: the node gets leases again. Its strikes stay until a build of its own is validated, so
    /// that a relapse rests as long as the last one.
    pub(crate) fn canary_right(&mut self, at: Timestamp) {
        self.state = State::Free;
        self.rests = None;
        self.proof = Some(at);
    }

    /// Notes a contradiction; gives false when it is known.
    pub(crate) fn contradicted(&mut self, evidence: Contradiction, at: Timestamp) -> bool {
        if self.evidence.iter().any(|known| known.lease == evidence.lease) {
            return false;
        }
        self.evidence.retain(|known| known.at.after(EVIDENCE_KEPT) > at);
        if self.evidence.len() >= EVIDENCE_MAX {
            self.evidence.remove(0);
        }
        self.resolved(evidence.lease);
        self.evidence.push(evidence);
        self.contradicted.add(at);
        self.strikes = self.strikes.saturating_add(1);
        let pause = doubled(self.strikes - 1);
        self.state = match self.state {
            State::Disabled { since, .. } => State::Disabled { since, canary: at.after(pause) },
            State::Free | State::Quarantined { .. } if self.is_too_often_wrong(at) => {
                State::Disabled { since: at, canary: at.after(pause) }
            }
            State::Free | State::Quarantined { .. } => State::Quarantined { since: at, until: at.after(pause) },
        };
        true
    }

    /// Says whether the record alone disables the node.
    fn is_too_often_wrong(&self, at: Timestamp) -> bool {
        outweighs(self.evidence.iter(), self.contradicted.read(at), self.validated.read(at))
    }

    /// Disables a node for what it and its operator's other nodes did together.
    pub(crate) fn disable(&mut self, at: Timestamp) {
        self.state = State::Disabled { since: at, canary: at.after(doubled(self.strikes.saturating_sub(1))) };
    }

    pub(crate) fn is_disabled(&self) -> bool {
        matches!(self.state, State::Disabled { .. })
    }

    /// Says from when on a canary may show that the node works.
    pub(crate) fn canary_from(&self) -> Option<Timestamp> {
        match self.state {
            State::Free => None,
            State::Quarantined { since, .. } => Some(since.after(CANARY_AFTER)),
            State::Disabled { canary, .. } => Some(canary),
        }
    }

    /// A canary was given: the next one waits, however this one ends.
    pub(crate) fn canary_given(&mut self, at: Timestamp) {
        match &mut self.state {
            State::Free => {}
            State::Quarantined { since, .. } => *since = at,
            State::Disabled { canary, .. } => *canary = at.after(CANARY_AFTER),
        }
    }

    /// The clock was set back: nothing may last longer than it could have from now.
    pub(crate) fn pull_back(&mut self, at: Timestamp) {
        let latest = at.after(LONGEST);
        self.rests = self.rests.map(|rests| rests.min(latest));
        self.state = match self.state {
            State::Free => State::Free,
            State::Quarantined { since, until } => {
                State::Quarantined { since: since.min(at), until: until.min(latest) }
            }
            State::Disabled { since, canary } => State::Disabled { since: since.min(at), canary: canary.min(latest) },
        };
    }
}

/// At least three contradictions, by at least two operators, and more than the successes that still count. One operator alone
/// never gets another one disabled.
pub(crate) fn outweighs<'a>(
    evidence: impl Iterator<Item = &'a Contradiction>,
    contradicted: u64,
    validated: u64,
) -> bool {
    let mut count = 0;
    let mut operators = std::collections::BTreeSet::new();
    for contradiction in evidence {
        count += 1;
        operators.extend(&contradiction.against);
    }
    count >= DISABLED_FROM && operators.len() >= 2 && contradicted > validated
}
