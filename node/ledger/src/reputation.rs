//! What builders have shown, for each operator, each of its nodes, and each class of jobs (kind and architecture).
//!
//! ```text
//!             contradicted                contradicted: three, by two operators, more than the validated ones
//!     free ----------------> quarantined ----------------------------------------------------------> disabled
//!      ^  ^                   |  10 s, 20 s .. 1 h                                                       |
//!      |  +-------------------+  time, a validated build, or after a minute a canary                     |
//!      +------------------------------------------------------------------------------ a right canary --+
//! ```
//!
//! # Rules
//!
//! * **Contradicted** is who reported a failure, of whatever class but an interruption, where others agreed on outputs; and who
//!   showed other outputs than k of at least two agreed on. What nobody else managed contradicts nobody; a job that is
//!   disputed, unreproducible, failed, cancelled or expired blames no builder.
//! * **Validated** is a build that a quorum agreed with. Only it resets anything; being given a lease never does. Both counts
//!   halve every day.
//! * **Quarantine** is for the node, since what is broken is a machine. A node is **disabled** in a class by its own record, or
//!   by that of its operator's nodes together, so that spreading faults over nodes gains nothing. **Proof** is the operator's.
//! * **Rest**: a second failure that nobody has confirmed or contradicted yet makes the node rest, 10 s, doubled with each
//!   further one. It blames nobody and ends when the jobs are decided. Without it a builder that fails at once spoils a
//!   queue before the first of its jobs was built elsewhere.
//! * **Isolation breach**: the node gets no lease of any class any more, as long as the policy names it. Its key may be lost:
//!   it comes back with a new one.
//!
//! Only nodes of operators of the policy have a record; when the policy no longer names them, it is dropped.
//!
//! It does not say what a job's attempts add up to (`tally`), and it grants nothing (`schedule`).

mod again;
mod canary;
mod decay;
mod judge;
mod record;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Arch, JobId, NodeId, OperatorName, Timestamp,
    lease::{Lease, LeaseNumber},
};
use serde::{Deserialize, Serialize};

pub use record::{Claim, Contradiction};

pub(crate) use canary::Canary;
pub(crate) use judge::{PROVEN_WAIT, Turned, is_breach};
pub(crate) use record::LONGEST;
use record::{Record, State, outweighs};

use crate::{
    job::Facts,
    peers::Peers,
    view::{BreachView, ClassView},
};

/// Jobs whose success proves the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The architecture that they build on.
    pub arch: Arch,
    /// Their kind, for instance `deb`.
    pub kind: String,
}

impl Class {
    pub(crate) fn of(facts: &Facts) -> Self {
        Self { arch: facts.arch, kind: facts.kind.clone() }
    }

    /// Says whether a job is of this class.
    pub(crate) fn is_of(&self, facts: &Facts) -> bool {
        self.arch == facts.arch && self.kind == facts.kind
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.arch.name())
    }
}

/// Whether a node may have a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// It may.
    Yes,
    /// A job whose answer is known is what it may have.
    Canary,
    /// It may not.
    No(Hindrance),
}

/// Why a node gets no lease of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Hindrance {
    /// It reported failures that nobody has confirmed or contradicted.
    Resting {
        /// Until when.
        until: Timestamp,
    },
    /// It was contradicted.
    Quarantined {
        /// Until when.
        until: Timestamp,
    },
    /// It was contradicted too often.
    Disabled {
        /// From when on a canary may show that it works again.
        canary: Timestamp,
    },
    /// Its sandbox was broken.
    Breached,
}

impl Hindrance {
    /// Gives the word for people.
    pub const fn word(&self) -> &'static str {
        match self {
            Hindrance::Resting { .. } => "resting",
            Hindrance::Quarantined { .. } => "quarantined",
            Hindrance::Disabled { .. } => "disabled",
            Hindrance::Breached => "breached",
        }
    }

    /// Says for whoever asked when it ends, seen from `at`.
    pub fn sentence(&self, class: &Class, at: Timestamp) -> String {
        let wait = |until: &Timestamp| until.since(at).as_secs().max(1);
        match self {
            Hindrance::Resting { until } => format!(
                "this node rests for {} s: it reported several failures of {class} jobs that nobody has confirmed so far",
                wait(until)
            ),
            Hindrance::Quarantined { until } => format!(
                "this node is in quarantine for {class} jobs for {} s: others built what it could not, or otherwise",
                wait(until)
            ),
            Hindrance::Disabled { canary } => format!(
                "this node is disabled for {class} jobs, since others often built what it could not, or otherwise; mend it: \
                 in {} s it gets a job with a known answer",
                wait(canary)
            ),
            Hindrance::Breached => {
                "a build broke out of this node's sandbox: make a new key on a clean machine, and let the \
                                    roots name that in a new policy"
                    .to_owned()
            }
        }
    }
}

/// What changed for a node; told to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Quarantined { until: Timestamp },
    Disabled,
    Restored,
}

/// A breach of isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breach {
    pub(crate) at: Timestamp,
    pub(crate) job: JobId,
    pub(crate) lease: LeaseNumber,
}

/// Who answers for which node in which class.
type Key = (OperatorName, Class, NodeId);
/// The same, to look it up.
type Whom<'a> = (&'a OperatorName, &'a Class, NodeId);

/// All records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reputation {
    #[serde(with = "listed")]
    records: BTreeMap<Key, Record>,
    #[serde(with = "listed")]
    breaches: BTreeMap<NodeId, Breach>,
    #[serde(with = "listed")]
    canaries: BTreeMap<LeaseNumber, Canary>,
}

impl Reputation {
    /// Says whether a canary runs under a lease.
    #[cfg(test)]
    pub(crate) fn has_canary(&self, lease: LeaseNumber) -> bool {
        self.canaries.contains_key(&lease)
    }

    /// Gives the canaries that run, with their jobs.
    pub(crate) fn running_canaries(&self) -> Vec<(LeaseNumber, JobId)> {
        self.canaries.iter().map(|(number, canary)| (*number, canary.lease.job)).collect()
    }

    /// Gives the job that the canary of a lease runs.
    pub(crate) fn canary_job(&self, lease: LeaseNumber) -> Option<JobId> {
        self.canaries.get(&lease).map(|canary| canary.lease.job)
    }

    /// Says that there is nothing to keep.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn record(&self, operator: &OperatorName, class: &Class, node: NodeId) -> Option<&Record> {
        self.records.get(&(operator.clone(), class.clone(), node))
    }

    fn record_mut(&mut self, operator: &OperatorName, class: &Class, node: NodeId) -> &mut Record {
        self.records.entry((operator.clone(), class.clone(), node)).or_default()
    }

    /// Gives the records of an operator's nodes in one class.
    fn fellows<'a>(
        &'a self,
        operator: &'a OperatorName,
        class: &'a Class,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let first = (operator.clone(), class.clone(), NodeId::from_bytes([0; 32]));
        self.records.range(first..).take_while(move |((o, c, _), _)| o == operator && c == class)
    }

    /// Gives the records of one node, by class; it looks at its operator's only.
    fn of_node<'a>(
        &'a self,
        operator: &'a OperatorName,
        node: NodeId,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let first = Class { arch: Arch::EVERY[0], kind: String::new() };
        let from = (operator.clone(), first, NodeId::from_bytes([0; 32]));
        let of_operator = self.records.range(from..).take_while(move |((o, ..), _)| o == operator);
        of_operator.filter(move |((.., n), _)| *n == node)
    }

    /// Says whether a node may have a lease of a class now.
    pub(crate) fn may_lease(&self, operator: &OperatorName, class: &Class, node: NodeId, at: Timestamp) -> May {
        if self.breaches.contains_key(&node) {
            return May::No(Hindrance::Breached);
        }
        let Some(record) = self.record(operator, class, node) else { return May::Yes };
        let hindrance = match record.state {
            State::Quarantined { until, .. } if until > at => Hindrance::Quarantined { until },
            State::Disabled { canary, .. } => Hindrance::Disabled { canary },
            State::Free | State::Quarantined { .. } => match record.rests.filter(|rests| *rests > at) {
                Some(until) => Hindrance::Resting { until },
                // Its word on the failing job counts once it has shown what it can.
                None if !record.pending.is_empty() && !self.is_proven(operator, class) => return May::Canary,
                None => return May::Yes,
            },
        };
        let due = record.canary_from().is_some_and(|from| from <= at);
        if due { May::Canary } else { May::No(hindrance) }
    }

    /// Says whether there is anything against a node, in whatever class.
    pub(crate) fn hinders(&self, operator: &OperatorName, node: NodeId) -> bool {
        let against =
            |record: &Record| record.state != State::Free || record.rests.is_some() || !record.pending.is_empty();
        self.breaches.contains_key(&node) || self.of_node(operator, node).any(|(_, record)| against(record))
    }

    /// Says what a node may have where there is no job with a known answer: the time served is enough then.
    pub(crate) fn may_without_canary(
        &self,
        operator: &OperatorName,
        class: &Class,
        node: NodeId,
        at: Timestamp,
    ) -> May {
        let state = self.record(operator, class, node).map(|record| record.state);
        match state {
            Some(State::Quarantined { until, .. }) if until > at => May::No(Hindrance::Quarantined { until }),
            Some(State::Disabled { canary, .. }) if canary > at => May::No(Hindrance::Disabled { canary }),
            Some(State::Free | State::Quarantined { .. } | State::Disabled { .. }) | None => May::Yes,
        }
    }

    /// Says whether an operator has built something of the class that others built too, on a node that is not disabled now.
    pub(crate) fn is_proven(&self, operator: &OperatorName, class: &Class) -> bool {
        self.fellows(operator, class).any(|(_, record)| record.proof.is_some() && !record.is_disabled())
    }

    /// Says whether an operator that is not among these is proven in a class, on a node that is still its own.
    pub(crate) fn others_are_proven<'a>(
        &self,
        operators: &BTreeSet<OperatorName>,
        class: &Class,
        of: impl Fn(&NodeId) -> Option<&'a OperatorName>,
    ) -> bool {
        self.records.iter().any(|((operator, c, node), record)| {
            let proven = c == class && record.proof.is_some() && !record.is_disabled();
            proven && !operators.contains(operator) && of(node) == Some(operator)
        })
    }

    fn failed(&mut self, (operator, class, node): Whom<'_>, lease: LeaseNumber, at: Timestamp) {
        self.record_mut(operator, class, node).failed(lease, at);
    }

    pub(crate) fn resolved(&mut self, (operator, class, node): Whom<'_>, lease: LeaseNumber) {
        if let Some(record) = self.records.get_mut(&(operator.clone(), class.clone(), node)) {
            record.resolved(lease);
        }
    }

    fn validated(&mut self, (operator, class, node): Whom<'_>, at: Timestamp) -> Option<Change> {
        let record = self.record_mut(operator, class, node);
        let quarantined = matches!(record.state, State::Quarantined { until, .. } if until > at);
        record.validated(at);
        quarantined.then_some(Change::Restored)
    }

    /// Notes a contradiction, and gives what changed for which nodes: disabling one may disable its operator's others.
    fn contradicted(
        &mut self,
        (operator, class, node): Whom<'_>,
        evidence: Contradiction,
        at: Timestamp,
    ) -> Vec<(NodeId, Change)> {
        let record = self.record_mut(operator, class, node);
        let before = record.is_disabled();
        if !record.contradicted(evidence, at) {
            return Vec::new();
        }
        let mut changes = match record.state {
            State::Disabled { .. } if before => Vec::new(),
            State::Disabled { .. } => vec![(node, Change::Disabled)],
            State::Quarantined { until, .. } => vec![(node, Change::Quarantined { until })],
            State::Free => Vec::new(),
        };
        for fellow in self.spread(operator, class, at) {
            self.record_mut(operator, class, fellow).disable(at);
            changes.retain(|(node, _)| *node != fellow);
            changes.push((fellow, Change::Disabled));
        }
        changes
    }

    /// Gives an operator's nodes that together are wrong too often, though each alone is not.
    fn spread(&self, operator: &OperatorName, class: &Class, at: Timestamp) -> Vec<NodeId> {
        let fellows: Vec<_> = self.fellows(operator, class).filter(|(_, record)| !record.is_disabled()).collect();
        let wrong = fellows.iter().filter(|(_, record)| !record.evidence.is_empty()).count();
        let contradicted = fellows.iter().map(|(_, record)| record.contradicted.read(at)).sum();
        let validated = fellows.iter().map(|(_, record)| record.validated.read(at)).sum();
        let evidence = fellows.iter().flat_map(|(_, record)| &record.evidence);
        if wrong < 2 || !outweighs(evidence, contradicted, validated) {
            return Vec::new();
        }
        fellows.into_iter().map(|((.., node), _)| *node).collect()
    }

    /// Stops a node for good.
    fn breached(&mut self, lease: &Lease, at: Timestamp) {
        self.breaches.entry(lease.node).or_insert(Breach { at, job: lease.job, lease: lease.number });
    }

    /// Drops what is about nodes that the policy does not name for the same operator.
    fn forget_strangers(&mut self, peers: &Peers) {
        self.records.retain(|(operator, _, node), _| peers.is_of(node, operator));
        self.breaches.retain(|node, _| peers.operator(node).is_some());
    }

    /// Gives what people see of a node.
    pub(crate) fn view(
        &self,
        operator: &OperatorName,
        node: NodeId,
        at: Timestamp,
    ) -> (Vec<ClassView>, Option<BreachView>) {
        let milli = |units: u64| units * 1000 / decay::ONE;
        let classes = self.of_node(operator, node).map(|((_, class, _), record)| {
            let hindrance = match self.may_lease(operator, class, node, at) {
                May::Yes => None,
                May::No(hindrance) => Some(hindrance),
                May::Canary => record.canary_from().map(|canary| Hindrance::Disabled { canary }),
            };
            ClassView {
                class: class.to_string(),
                hindrance,
                why: hindrance.map(|hindrance| hindrance.sentence(class, at)).unwrap_or_default(),
                proof: record.proof,
                validated_milli: milli(record.validated.read(at)),
                contradicted_milli: milli(record.contradicted.read(at)),
                strikes: record.strikes,
                pending: record.pending.clone(),
                canary: self.canaries.values().find(|c| c.lease.node == node).map(|c| c.lease.job),
                evidence: record.evidence.clone(),
            }
        });
        let breach = self.breaches.get(&node);
        (classes.collect(), breach.map(|b| BreachView { at: b.at, job: b.job, lease: b.lease }))
    }

    /// The clock was set back.
    pub(crate) fn pull_back(&mut self, at: Timestamp) {
        self.records.values_mut().for_each(|record| record.pull_back(at));
    }
}

/// Maps as lists of pairs: a canonical encoding orders a map's keys otherwise than we do.
mod listed {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
