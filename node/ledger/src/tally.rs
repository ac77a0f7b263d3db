//! What the attempts of one job add up to. A pure function of attempts and policy: it changes nothing and asks nobody.
//!
//! * k operators with equal outputs, under at least two profiles where k is more than one: **reproduced**.
//! * Two such groups at once, which a policy with a smaller k may uncover: **disputed**; people must look.
//! * A quorum of operators reports the same failing step: **failed**. Only reports that are heard count, which
//!   [`crate::reputation`] decides: those of operators that have proven in this class that they can build, and the others'
//!   where nobody could know better. A report that is not heard is no opinion: somebody else is asked.
//! * Otherwise more operators are asked: n first, then one more at a time, up to `ask_max` opinions. An opinion is a set of
//!   outputs or a failure that counts on the job; a builder's own fault is none, so another builder gets the chance, and when
//!   there is no other, the same one again after a while.
//! * When nobody is left to ask (`ask_max` opinions, every operator of the policy had its turn, or the job used its
//!   attempts): two or more agree, but fewer than k: **disputed**; two or more built it and no two agree:
//!   **unreproducible**; otherwise there is nothing to compare and the job has **failed** for want of opinions.
//! * One set of outputs and no failure at all is never a verdict: the job waits for an operator to compare it with.

use std::collections::{BTreeMap, BTreeSet};

use attest::compare;
use protocol::{Hash, NodeId, OperatorName, Sha256, limits, policy::Channel, policy::Policy, words::RelativePath};
use serde::{Deserialize, Serialize};

use crate::{
    job::{Attempt, AttemptState, Job, Vote},
    planted::{self, Fault},
};

/// Differing files that a verdict names for one pair of output sets; the attestations name all.
pub const DIFFERENCES_MAX: usize = 32;

/// One file that is not the same in two sets of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// SHA-256 on the other side; none when the file is missing there.
    pub got: Option<Sha256>,
    /// The file's name.
    pub file: RelativePath,
    /// SHA-256 on the agreed (or first) side; none when the file is missing there.
    pub agreed: Option<Sha256>,
}

/// A builder that saw other outputs than were agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dissent {
    /// The builder.
    pub node: NodeId,
    /// The files that differ, at most [`DIFFERENCES_MAX`].
    pub files: Vec<Difference>,
    /// Who answers for it.
    pub operator: OperatorName,
}

/// k operators built the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The digest of the agreed set of outputs.
    pub digest: Hash,
    /// Who differed.
    pub dissent: Vec<Dissent>,
    /// The nodes of the agreeing operators, in the same order.
    pub builders: Vec<NodeId>,
    /// The operators that agree, by name.
    pub operators: Vec<OperatorName>,
}

/// Operators that built the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The digest of their set of outputs.
    pub digest: Hash,
    /// The operators, by name.
    pub operators: Vec<OperatorName>,
}

/// Outputs that do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first two groups' differing files, at most [`DIFFERENCES_MAX`] for each further group.
    pub files: Vec<Difference>,
    /// Who agrees with whom, the largest group first.
    pub groups: Vec<Group>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobFailure {
    /// A quorum reports the same failing step.
    Quorum {
        /// The step.
        step: String,
        /// What the first of them said.
        what: String,
        /// Who reports it.
        operators: Vec<OperatorName>,
    },
    /// It broke out of its sandbox.
    Breach {
        /// The reporting operator's words.
        what: String,
        /// The operator.
        operator: OperatorName,
    },
    /// It lost too many builders.
    Poison {
        /// Builders lost.
        lost: u32,
    },
    /// Nobody is left to ask, and there is nothing to compare.
    Exhausted {
        /// What the attempts gave, in one sentence.
        why: String,
    },
}

impl std::fmt::Display for JobFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JobFailure::Quorum { step, what, operators } => {
                write!(f, "{} operators report that the step {step} fails: {what}", operators.len())
            }
            JobFailure::Poison { lost } => write!(f, "{lost} builders were lost while they built it"),
            JobFailure::Breach { operator, what } => write!(f, "it broke out of its sandbox at {operator}: {what}"),
            JobFailure::Exhausted { why } => f.write_str(why),
        }
    }
}

/// What the attempts add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A verdict.
    Decided(Decision),
    /// So many more leases are wanted now; zero waits for those that run, or for the policy.
    Wants(u32),
    /// Every operator had its turn, and some could not try: these have another one.
    Excuses,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// k agree.
    Reproduced(Agreement),
    /// Some agree, too few.
    Disputed(Comparison),
    /// No two agree.
    Unreproducible(Comparison),
    /// It does not build.
    Failed(JobFailure),
}

/// The policy in force, and who answers for which node by it.
pub(crate) type Voters<'a> = (&'a Policy, &'a BTreeMap<NodeId, OperatorName>);

/// One operator's vote: the operator that the policy names for the node now.
type Ballot<'a> = BTreeMap<&'a OperatorName, (&'a Attempt, &'a Vote)>;

/// Adds up the attempts of a job; `heard` are the operators whose report of a failure counts.
pub(crate) fn stand(
    job: &Job,
    channel: &Channel,
    (policy, operators): Voters<'_>,
    heard: &BTreeSet<OperatorName>,
) -> Standing {
    let ballot = votes(job, operators);
    let groups = groups(&ballot);
    let enough = groups.iter().filter(|(_, members)| satisfies(members, channel)).count();
    match groups.first() {
        Some(first) if enough == 1 => return Standing::Decided(Decision::Reproduced(agreement(first, &groups))),
        Some(_) if enough > 1 => return Standing::Decided(Decision::Disputed(comparison(&groups))),
        Some(_) | None => {}
    }
    if let Some(failure) = quorum(job, channel, heard).or_else(|| poison(job, channel, policy)) {
        return Standing::Decided(Decision::Failed(failure));
    }
    let failures = counted_failures(job).filter(|(attempt, ..)| heard.contains(&attempt.operator)).count();
    let opinions = ballot.len() + failures;
    let live = job.live();
    let target = opinions.saturating_add(1).clamp(channel.ask.into(), channel.ask_max.into());
    let may_go_on = opinions < channel.ask_max.into() && job.attempts.len() < limits::ATTEMPTS_MAX as usize;
    if may_go_on && is_possible(job, (policy, operators)) {
        return Standing::Wants(u32::try_from(target.saturating_sub(opinions + live)).unwrap_or(0));
    }
    // Who is bound waits for others: when too few are, and nobody else is left, those who could not try come again.
    let hidden = job.attempts.iter().filter(|attempt| attempt.state.is_hidden()).count();
    let too_few = ballot.len() + hidden < channel.agree.into();
    if may_go_on && (live == 0 || live == hidden && too_few) && may_excuse(job, operators) {
        return Standing::Excuses;
    }
    if live > 0 || nothing_to_compare(job, &ballot) || too_few_spoke(job, channel, policy) {
        return Standing::Wants(0);
    }
    Standing::Decided(without_agreement(job, &ballot))
}

/// Says whether an operator of the policy could not try, and may have another turn.
pub(crate) fn may_excuse(job: &Job, operators: &BTreeMap<NodeId, OperatorName>) -> bool {
    job.attempts.iter().any(|attempt| attempt.may_be_excused() && operators.contains_key(&attempt.node))
}

/// Says whether some operator of the policy may still get a lease for the job.
pub(crate) fn is_possible(job: &Job, (policy, operators): Voters<'_>) -> bool {
    let schedule = &job.facts.schedule;
    if !schedule.only.is_empty() {
        let asked = schedule.only.iter().filter(|node| schedule.allows(node));
        return asked.filter_map(|node| operators.get(node)).any(|operator| !job.is_spent(operator));
    }
    policy.operators.iter().any(|o| o.nodes.iter().any(|n| schedule.allows(n)) && !job.is_spent(&o.name))
}

/// Gives the votes that count: of nodes that the policy still names, one for each operator, the earliest lease first.
fn votes<'a>(job: &'a Job, operators: &'a BTreeMap<NodeId, OperatorName>) -> Ballot<'a> {
    let mut ballot = Ballot::new();
    for attempt in &job.attempts {
        let known = planted::is(Fault::StrangerVotes).then_some(&attempt.operator);
        if let (Some(vote), Some(operator)) = (attempt.vote(), known.or(operators.get(&attempt.node))) {
            ballot.entry(operator).or_insert((attempt, vote));
        }
    }
    ballot
}

/// Who voted for one digest.
type Members<'a> = Vec<(&'a OperatorName, &'a Attempt, &'a Vote)>;

/// Gives who voted for what, the largest group first.
fn groups<'a>(ballot: &Ballot<'a>) -> Vec<(Hash, Members<'a>)> {
    let mut by_digest: BTreeMap<Hash, Vec<_>> = BTreeMap::new();
    for (operator, (attempt, vote)) in ballot {
        by_digest.entry(vote.digest).or_default().push((*operator, *attempt, *vote));
    }
    let mut groups: Vec<_> = by_digest.into_iter().collect();
    groups.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(&b.0)));
    groups
}

fn satisfies(members: &Members<'_>, channel: &Channel) -> bool {
    let wanted = if planted::is(Fault::OneIsEnough) { 1 } else { usize::from(channel.agree) };
    let profiles: BTreeSet<_> = members.iter().map(|(_, attempt, _)| attempt.profile).collect();
    members.len() >= wanted && profiles.len() >= wanted.min(2)
}

fn agreement((digest, members): &(Hash, Members<'_>), groups: &[(Hash, Members<'_>)]) -> Agreement {
    let agreed = members.first().expect("a group has a member").2;
    let others = groups.iter().skip(1).flat_map(|(_, members)| members);
    Agreement {
        digest: *digest,
        dissent: others.map(|(operator, attempt, vote)| dissent(operator, attempt.node, agreed, vote)).collect(),
        builders: members.iter().map(|(_, attempt, _)| attempt.node).collect(),
        operators: members.iter().map(|(operator, ..)| (*operator).clone()).collect(),
    }
}

/// Names what an operator saw otherwise than was agreed.
pub(crate) fn dissent(operator: &OperatorName, node: NodeId, agreed: &Vote, vote: &Vote) -> Dissent {
    Dissent { node, files: differences(agreed, vote), operator: operator.clone() }
}

fn differences(agreed: &Vote, other: &Vote) -> Vec<Difference> {
    let all = compare::differences(&agreed.outputs, &other.outputs);
    all.into_iter().take(DIFFERENCES_MAX).map(difference).collect()
}

fn difference(difference: compare::Difference) -> Difference {
    match difference {
        compare::Difference::OnlyLeft(left) => Difference { got: None, file: left.name, agreed: Some(left.sha256) },
        compare::Difference::OnlyRight(right) => Difference { got: Some(right.sha256), file: right.name, agreed: None },
        compare::Difference::Content { left, right } => {
            Difference { got: Some(right.sha256), file: left.name, agreed: Some(left.sha256) }
        }
    }
}

fn counted_failures(job: &Job) -> impl Iterator<Item = (&Attempt, &str, &str)> {
    job.attempts.iter().filter_map(|attempt| {
        let failure = attempt.failure().filter(|f| f.blame.counts_on_job())?;
        Some((attempt, failure.step.as_str(), failure.what.as_str()))
    })
}

/// One operator has at most one attempt that failed, so that attempts count as operators.
fn quorum(job: &Job, channel: &Channel, heard: &BTreeSet<OperatorName>) -> Option<JobFailure> {
    let mut steps: BTreeMap<&str, (&str, BTreeSet<&OperatorName>)> = BTreeMap::new();
    for (attempt, step, what) in counted_failures(job).filter(|(a, ..)| heard.contains(&a.operator)) {
        steps.entry(step).or_insert((what, BTreeSet::new())).1.insert(&attempt.operator);
    }
    let enough = |operators: &BTreeSet<_>| operators.len() >= usize::from(channel.fail_quorum);
    steps.into_iter().find(|(_, (_, operators))| enough(operators)).map(|(step, (what, operators))| {
        JobFailure::Quorum { step: step.into(), what: what.into(), operators: operators.into_iter().cloned().collect() }
    })
}

/// A job that takes its builders with it; one operator whose nodes come and go makes no job poisonous.
fn poison(job: &Job, channel: &Channel, policy: &Policy) -> Option<JobFailure> {
    let lost: Vec<_> = job.attempts.iter().filter(|a| a.is_lost()).map(|a| &a.operator).collect();
    let operators = lost.iter().collect::<BTreeSet<_>>().len();
    let lost = u32::try_from(lost.len()).unwrap_or(u32::MAX);
    let many = lost >= limits::LOST_BUILDERS_MAX && operators >= voices(channel, policy);
    many.then_some(JobFailure::Poison { lost })
}

/// Operators that it takes to fail a job: the channel's quorum, or all where the policy names fewer.
fn voices(channel: &Channel, policy: &Policy) -> usize {
    let operators = policy.operators.iter().filter(|o| !o.nodes.is_empty()).count();
    usize::from(channel.fail_quorum).min(operators)
}

/// The job used its attempts up, but hardly anybody reported anything: it waits for its time to run out, since that says nothing
/// about the package.
fn too_few_spoke(job: &Job, channel: &Channel, policy: &Policy) -> bool {
    let spoke = |a: &&Attempt| a.failure().is_some() || a.vote().is_some();
    let operators: BTreeSet<_> = job.attempts.iter().filter(spoke).map(|a| &a.operator).collect();
    operators.len() < voices(channel, policy)
}

/// One set of outputs, no failure, and attempts left: only the number of operators is too small.
fn nothing_to_compare(job: &Job, ballot: &Ballot<'_>) -> bool {
    ballot.len() < 2
        && job.attempts.iter().all(|a| a.failure().is_none())
        && job.attempts.len() < limits::ATTEMPTS_MAX as usize
}

fn without_agreement(job: &Job, ballot: &Ballot<'_>) -> Decision {
    let groups = groups(ballot);
    if ballot.len() < 2 {
        return Decision::Failed(JobFailure::Exhausted { why: exhausted(job, ballot.len()) });
    }
    let comparison = comparison(&groups);
    if groups[0].1.len() >= 2 { Decision::Disputed(comparison) } else { Decision::Unreproducible(comparison) }
}

fn comparison(groups: &[(Hash, Members<'_>)]) -> Comparison {
    let vote = |group: &(Hash, Members<'_>)| group.1.first().map(|member| member.2.clone());
    let first = groups.first().and_then(vote);
    let mut files: Vec<Difference> = Vec::new();
    for other in groups.iter().skip(1).filter_map(vote) {
        let known: BTreeSet<RelativePath> = files.iter().map(|d| d.file.clone()).collect();
        let all = first.as_ref().map(|first| differences(first, &other)).unwrap_or_default();
        files.extend(all.into_iter().filter(|d| !known.contains(&d.file)));
    }
    files.truncate(DIFFERENCES_MAX);
    let group = |(digest, members): &(Hash, Members<'_>)| Group {
        digest: *digest,
        operators: members.iter().map(|(operator, ..)| (*operator).clone()).collect(),
    };
    Comparison { files, groups: groups.iter().map(group).collect() }
}

fn exhausted(job: &Job, built: usize) -> String {
    let failures: Vec<_> = job.attempts.iter().filter_map(Attempt::failure).collect();
    let on_job = failures.iter().filter(|f| f.blame.counts_on_job()).count();
    let on_builder = failures.len() - on_job;
    let last = failures.last().map(|f| format!("; the last one: {f}")).unwrap_or_default();
    format!(
        "nobody is left to ask: {built} built it, {on_job} reported that it fails, {on_builder} could not try, {} were cut \
         off{last}",
        job.attempts.iter().filter(|a| !a.is_spent() || matches!(a.state, AttemptState::Silent { .. })).count()
    )
}

/// Gives a verdict's word and one sentence.
pub(crate) fn words(decision: &Decision) -> (&'static str, String) {
    let files = |comparison: &Comparison| {
        let names: Vec<_> = comparison.files.iter().take(8).map(|d| d.file.as_str()).collect();
        names.join(", ")
    };
    match decision {
        Decision::Reproduced(agreement) => {
            let (agree, differ) = (agreement.operators.len(), agreement.dissent.len());
            ("reproduced", format!("{agree} operators agree, {differ} differ"))
        }
        Decision::Disputed(comparison) => {
            ("disputed", format!("too few operators agree; these files differ: {}", files(comparison)))
        }
        Decision::Unreproducible(comparison) => {
            ("unreproducible", format!("no two operators agree; these files differ: {}", files(comparison)))
        }
        Decision::Failed(failure) => ("failed", failure.to_string()),
    }
}
