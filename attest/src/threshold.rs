//! Thresholds: what the votes and failure reports of one job add up to.
//!
//! ```text
//!            one group of k operators, two profiles          -> reproduced
//!  votes --> two groups of k                                 -> disputed      (k colluders at least: people must look)
//!            a quorum reports the same step, nobody built it -> failed
//!            more operators may be asked, or are at work     -> pending
//!            all asked: two or more agree, fewer than k      -> disputed
//!            all asked: a quorum reports the same step       -> failed
//!            all asked: no two agree                         -> unreproducible
//! ```
//!
//! The function is pure and does not depend on the order of the votes. It does not decide when to ask whom.
//!
//! **Monotony.** Whoever leaves attestations out should never make something reproduced. Agreement is by counting, and
//! a dissenter only fails to add to it, so leaving out a dissenter changes nothing. Two exceptions are wanted, and both
//! need that somebody signed two truths: leaving out one of two contradictory votes of *one operator* gives it its vote
//! back (it could have kept silent in the first place, so a liar gains nothing); and leaving out one of *two groups of
//! k* hides that at least k operators lie (such a group could have published its own files, so an attacker gains
//! nothing either). In both cases the votes left out are signed evidence; the transparency log is what makes leaving
//! them out visible.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{NodeId, OperatorName, blame::Failure, lease::LeaseNumber, policy::Channel, words::RelativePath};
use serde::{Deserialize, Serialize};

use crate::{
    compare::{self, Difference, Output},
    independence::{Count, Group, Vote},
};

/// Files that a verdict names at most, for each dissenter and for a job: verdicts are stored and sent, and strangers choose
/// how many files there are. [`compare::differences`] over the attestations gives all.
pub const NAMED_FILES_MAX: usize = 256;

/// How many operators must agree, and how many are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Operators that must agree (k).
    pub agree: u8,
    /// Operators that are asked first (n).
    pub ask: u8,
    /// Operators that are asked at most.
    pub ask_max: u8,
    /// Operators that must report the same failing step.
    pub fail_quorum: u8,
}

impl From<&Channel> for Rule {
    fn from(channel: &Channel) -> Self {
        let Channel { agree, ask, ask_max, fail_quorum, .. } = channel;
        Self { agree: *agree, ask: *ask, ask_max: *ask_max, fail_quorum: *fail_quorum }
    }
}

impl Rule {
    /// Gives how many profiles a group must span: any two attempts differ in profile, so two tell more than one.
    fn profiles(self) -> usize {
        usize::from(self.agree.min(2))
    }

    fn satisfied_by(self, group: &Group) -> bool {
        // A rule of 0 would make silence proof.
        group.operators.len() >= usize::from(self.agree.max(1)) && group.profiles.len() >= self.profiles()
    }
}

/// One operator's report that an attempt ended without outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureReport {
    /// The builder.
    pub node: NodeId,
    /// The attempt's lease.
    pub lease: LeaseNumber,
    /// What happened.
    pub failure: Failure,
    /// Who answers for the builder.
    pub operator: OperatorName,
}

/// Operators that have not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Operators at work: they hold a lease of the job and have neither built nor failed.
    pub outstanding: u8,
    /// Further operators that could be asked some day, busy and absent ones included.
    pub available: u8,
}

impl Reach {
    /// Nobody else will ever answer: how a bundle is judged.
    pub const NOBODY: Self = Self { outstanding: 0, available: 0 };
}

/// A vote for something else than what was reproduced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dissent {
    /// The builder.
    pub node: NodeId,
    /// Its lease.
    pub lease: LeaseNumber,
    /// Who answers for it.
    pub operator: OperatorName,
    /// The files that differ, at most [`NAMED_FILES_MAX`]: left what was agreed, right what this builder signed.
    pub differences: Vec<Difference>,
}

/// What one content of a file is and who signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The file, or nothing where these operators have no such file.
    pub output: Option<Output>,
    /// The operators.
    pub operators: BTreeSet<OperatorName>,
}

/// A file that did not come out the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferingFile {
    /// The file's name.
    pub name: RelativePath,
    /// Its contents, each with those who signed it.
    pub variants: Vec<Variant>,
}

/// What the answers of one job add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Not decided yet.
    Pending {
        /// Operators to ask now, beside those at work. Zero means wait.
        want_more: u8,
    },
    /// k operators under two profiles gave the same bits.
    Reproduced {
        /// The operators that agree, sorted.
        agree: Vec<OperatorName>,
        /// Who signed something else.
        dissent: Vec<Dissent>,
        /// The files.
        outputs: Vec<Output>,
    },
    /// Some agree, too few; or two groups are each large enough. A person must look.
    Disputed {
        /// The groups, the largest first.
        groups: Vec<Group>,
    },
    /// No two operators agree.
    Unreproducible {
        /// The files that differ, at most [`NAMED_FILES_MAX`]; empty where some built it and others failed.
        differing: Vec<DifferingFile>,
    },
    /// The job itself fails.
    Failed {
        /// The failure, as the first of those operators reported it.
        failure: Failure,
        /// The operators that reported the same step, sorted.
        operators: Vec<OperatorName>,
    },
}

impl Verdict {
    /// Gives the word that people and programs read.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Pending { .. } => "pending",
            Verdict::Reproduced { .. } => "reproduced",
            Verdict::Disputed { .. } => "disputed",
            Verdict::Unreproducible { .. } => "unreproducible",
            Verdict::Failed { .. } => "failed",
        }
    }

    /// Says whether nothing more is awaited: every verdict but pending is the last one.
    pub fn is_final(&self) -> bool {
        !matches!(self, Verdict::Pending { .. })
    }
}

/// Adds up the votes and failure reports of one job.
///
/// The caller says which votes exist (verified, bound to the job and to a lease); this says what they mean.
pub fn verdict(rule: Rule, votes: &[Vote], failures: &[FailureReport], reach: Reach) -> Verdict {
    let count = Count::of(votes);
    let enough: Vec<&Group> = count.groups.iter().filter(|group| rule.satisfied_by(group)).collect();
    match enough.as_slice() {
        [] => undecided(rule, &Answers { count, votes, steps: steps(votes, failures) }, reach),
        [group] => reproduced(group, votes),
        _ => Verdict::Disputed { groups: count.groups },
    }
}

fn reproduced(group: &Group, votes: &[Vote]) -> Verdict {
    let mut others: Vec<&Vote> = votes.iter().filter(|vote| vote.digest() != group.digest).collect();
    others.sort_by_cached_key(|vote| (vote.lease, vote.node, vote.digest()));
    let mut dissent: Vec<Dissent> = others
        .into_iter()
        .map(|vote| Dissent {
            node: vote.node,
            lease: vote.lease,
            operator: vote.operator.clone(),
            differences: named(compare::differences(&group.outputs, &vote.outputs)),
        })
        .collect();
    dissent.dedup();
    Verdict::Reproduced { agree: group.operators.iter().cloned().collect(), dissent, outputs: group.outputs.clone() }
}

fn named(mut differences: Vec<Difference>) -> Vec<Difference> {
    differences.truncate(NAMED_FILES_MAX);
    differences
}

/// Operators that blame the job, by the step that failed.
struct Step {
    failure: Failure,
    operators: BTreeSet<OperatorName>,
}

struct Answers<'a> {
    count: Count,
    votes: &'a [Vote],
    /// The most reported step first.
    steps: Vec<Step>,
}

/// Groups the reports that count on the job by step. An operator has one say: its newest report, and none once it
/// built.
fn steps(votes: &[Vote], failures: &[FailureReport]) -> Vec<Step> {
    let built: BTreeSet<&OperatorName> = votes.iter().map(|vote| &vote.operator).collect();
    let counts = |report: &&FailureReport| report.failure.blame.counts_on_job() && !built.contains(&report.operator);
    let mut newest: BTreeMap<&OperatorName, &FailureReport> = BTreeMap::new();
    for report in failures.iter().filter(counts) {
        let slot = newest.entry(&report.operator).or_insert(report);
        if (slot.lease, slot.node, &slot.failure) < (report.lease, report.node, &report.failure) {
            *slot = report;
        }
    }
    let mut ordered: Vec<&FailureReport> = newest.into_values().collect();
    ordered.sort_by_key(|report| (report.lease, report.node));
    let mut steps: Vec<Step> = Vec::new();
    for report in ordered {
        match steps.iter_mut().find(|step| step.failure.step == report.failure.step) {
            Some(step) => drop(step.operators.insert(report.operator.clone())),
            None => steps
                .push(Step { failure: report.failure.clone(), operators: BTreeSet::from([report.operator.clone()]) }),
        }
    }
    steps.sort_by_key(|step| std::cmp::Reverse(step.operators.len()));
    steps
}

impl Answers<'_> {
    fn answered(&self) -> usize {
        self.count.operators().len() + self.blaming()
    }

    fn blaming(&self) -> usize {
        self.steps.iter().map(|step| step.operators.len()).sum()
    }

    fn failed(&self, quorum: usize) -> Option<Verdict> {
        let step = self.steps.first().filter(|step| step.operators.len() >= quorum)?;
        let operators = step.operators.iter().cloned().collect();
        Some(Verdict::Failed { failure: step.failure.clone(), operators })
    }
}

fn undecided(rule: Rule, answers: &Answers<'_>, reach: Reach) -> Verdict {
    let quorum = usize::from(rule.fail_quorum.max(1));
    if answers.votes.is_empty()
        && let Some(failed) = answers.failed(quorum)
    {
        return failed;
    }
    let asked = answers.answered() + usize::from(reach.outstanding);
    let room = usize::from(rule.ask_max).saturating_sub(asked);
    let over = reach.outstanding == 0 && (room == 0 || reach.available == 0);
    if over && let Some(last) = last_word(answers, quorum, room) {
        return last;
    }
    let want = match usize::from(rule.ask).saturating_sub(asked) {
        0 if reach.outstanding == 0 => 1,
        first => first,
    };
    Verdict::Pending { want_more: u8::try_from(want.min(room)).unwrap_or(u8::MAX) }
}

/// Judges a job that nobody else will answer, or says nothing where the answers are too few for any word.
fn last_word(answers: &Answers<'_>, quorum: usize, room: usize) -> Option<Verdict> {
    if answers.count.largest() >= 2 {
        return Some(Verdict::Disputed { groups: answers.count.groups.clone() });
    }
    if let Some(failed) = answers.failed(quorum) {
        return Some(failed);
    }
    let differing = differing(answers.votes);
    if !differing.is_empty() {
        return Some(Verdict::Unreproducible { differing });
    }
    // Everybody that may be asked has answered, and no two the same: some built it and some failed, or each in its own
    // step.
    match (room, answers.votes.is_empty()) {
        (0, true) => answers.failed(1),
        (0, false) if answers.blaming() > 0 => Some(Verdict::Unreproducible { differing }),
        _ => None,
    }
}

/// Names the files that are not the same in all votes.
fn differing(votes: &[Vote]) -> Vec<DifferingFile> {
    let sets: Vec<_> = votes.iter().map(|vote| (&vote.operator, compare::by_name(&vote.outputs))).collect();
    let names: BTreeSet<&RelativePath> = sets.iter().flat_map(|(_, set)| set.keys().copied()).collect();
    let variants = |name: &RelativePath| {
        let mut variants: BTreeMap<Option<&Output>, BTreeSet<OperatorName>> = BTreeMap::new();
        for (operator, set) in &sets {
            variants.entry(set.get(name).copied()).or_default().insert((*operator).clone());
        }
        variants
    };
    let all = names.into_iter().map(|name| (name, variants(name)));
    all.filter(|(_, variants)| variants.len() > 1)
        .take(NAMED_FILES_MAX)
        .map(|(name, variants)| DifferingFile {
            name: name.clone(),
            variants: variants
                .into_iter()
                .map(|(output, operators)| Variant { output: output.cloned(), operators })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
