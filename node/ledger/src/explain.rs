//! Explanations: two attempts of one job left different outputs, and somebody is to say what is different in them, and which
//! of the varied circumstances shows in that.
//!
//! ```text
//!   a second set of outputs          Explained
//!  ------------------------> wanted -----------> told | not told
//! ```
//! An explanation is wanted as soon as there is a verdict and two attempts disagree, whatever it is: it decides nothing, and no verdict
//! and no publication waits for it. It is shown as a job of its own, whose id follows from the job and the two leases; nobody
//! signs it. The leader's node does the work, outside the publishers' line, and a new leader is told again what is wanted.

use attest::compare::Output;
use protocol::{
    Hash, JobId, NodeId, OperatorName, Timestamp,
    lease::{LeaseNumber, Profile},
};
use serde::{Deserialize, Serialize};

use crate::{
    Effect, Ledger, Turn, commitments,
    job::{Job, LateReport, Vote},
    schedule::cut,
    service::{Account, STEPS_MAX, Step},
};

/// Explanations of one job at most; each further set of outputs is compared with the first one.
pub const EXPLANATIONS_MAX: usize = 3;
/// Quotations that are kept of one explanation; its text has them all.
pub const QUOTES_MAX: usize = 6;

/// One comparison of two attempts' outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The attempt whose outputs came first.
    pub left: LeaseNumber,
    /// The attempt whose outputs differ from them.
    pub right: LeaseNumber,
    /// What came of it.
    pub state: Telling,
    /// When that was seen.
    pub wanted: Timestamp,
}

/// How far an explanation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Telling {
    /// Somebody works on it, or will.
    Wanted,
    /// It is over.
    Ended {
        /// When.
        at: Timestamp,
        /// What was found.
        findings: Box<Findings>,
    },
}

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// BLAKE3 of the comparison as HTML; a hostile file.
    pub html: Option<Hash>,
    /// BLAKE3 of the comparison as text.
    pub text: Option<Hash>,
    /// Lines in which a varied circumstance shows, at most [`QUOTES_MAX`].
    pub quotes: Vec<Quote>,
    /// Steps, log and summary.
    pub account: Account,
    /// Why there is nothing to read; empty when there is.
    pub trouble: String,
}

/// A place where the outputs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quote {
    /// The first attempt's line.
    pub left: String,
    /// What it is a part of, for instance a file of a package.
    pub place: String,
    /// The other attempt's line.
    pub right: String,
    /// The key of the circumstance that shows in both, for instance `hostname`; empty when none was recognised.
    pub variation: String,
}

/// One of two attempts, as far as a comparison needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The attempt.
    pub lease: LeaseNumber,
    /// Who has its outputs.
    pub node: NodeId,
    /// Under which variation it ran.
    pub profile: Profile,
    /// Who answers for it.
    pub operator: OperatorName,
    /// What it left.
    pub outputs: Vec<Output>,
}

/// Two sets of outputs to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    /// The explanation, as a job.
    pub id: JobId,
    /// The job that both built.
    pub job: JobId,
    /// Whose outputs came first.
    pub left: Side,
    /// Whose outputs differ.
    pub right: Side,
}

/// Gives the id of the explanation of two attempts' difference.
pub fn explanation_id(job: &JobId, left: LeaseNumber, right: LeaseNumber) -> JobId {
    let words = [left.0.to_be_bytes(), right.0.to_be_bytes()].concat();
    JobId::from(Hash::of(&[b"artel explain ".as_slice(), job.as_bytes(), &words].concat()))
}

impl Explanation {
    /// Gives its id.
    pub fn id(&self, job: &JobId) -> JobId {
        explanation_id(job, self.left, self.right)
    }

    /// Ends it with nothing to read, unless it has ended: what it was to compare is no longer known.
    pub(crate) fn give_up(&mut self) {
        if self.state == Telling::Wanted {
            let trouble = "nobody explained it while the outputs were known".to_owned();
            let findings = Findings { trouble, ..Findings::default() };
            self.state = Telling::Ended { at: self.wanted, findings: Box::new(findings) };
        }
    }
}

impl Ledger {
    /// Wants an explanation for each set of outputs that differs from the first one, as far as there is none.
    pub(crate) fn want_explanations(&mut self, id: JobId, turn: &mut Turn) {
        // Before the verdict nobody sees what was built.
        let Some(job) = self.jobs.get(&id).filter(|job| commitments::is_open(job)) else { return };
        let votes = every_vote(job);
        let reference = job.explanations.first().map(|e| e.left).or_else(|| votes.first().map(|(lease, _)| *lease));
        let of = |lease| votes.iter().find(|(known, _)| *known == lease).map(|(_, vote)| vote.digest);
        let Some((left, agreed)) = reference.and_then(|lease| Some((lease, of(lease)?))) else { return };
        let mut known: Vec<Hash> = job.explanations.iter().filter_map(|e| of(e.right)).collect();
        let mut added = Vec::new();
        for (right, vote) in &votes {
            let full = job.explanations.len() + added.len() >= EXPLANATIONS_MAX;
            if !full && vote.digest != agreed && !known.contains(&vote.digest) {
                known.push(vote.digest);
                added.push(Explanation { left, right: *right, wanted: turn.at, state: Telling::Wanted });
            }
        }
        let job = self.jobs.get_mut(&id).expect("seen above");
        job.explanations.extend(added.iter().cloned());
        for explanation in added {
            self.explained.insert(explanation.id(&id), id);
            self.say_explanation(id, &explanation, turn);
        }
    }

    /// Tells whoever leads what is still to be explained.
    pub(crate) fn say_explanations(&self, turn: &mut Turn) {
        for (explanation, job) in &self.explained {
            if let Some((_, wanted)) = self.explanation(explanation).filter(|(_, e)| e.state == Telling::Wanted) {
                self.say_explanation(*job, wanted, turn);
            }
        }
    }

    fn say_explanation(&self, id: JobId, explanation: &Explanation, turn: &mut Turn) {
        let job = &self.jobs[&id];
        let (Some(left), Some(right)) = (side(job, explanation.left), side(job, explanation.right)) else { return };
        turn.push(Effect::Explain(Dispute { id: explanation.id(&id), job: id, left, right }));
    }

    /// Takes what was found, once.
    pub(crate) fn take_findings(&mut self, explanation: JobId, findings: Findings, turn: &Turn) {
        let Some(job) = self.explained.get(&explanation).and_then(|id| self.jobs.get_mut(id)) else { return };
        let id = self.explained[&explanation];
        let wanted = job.explanations.iter_mut().find(|e| e.id(&id) == explanation);
        if let Some(wanted) = wanted.filter(|e| e.state == Telling::Wanted) {
            wanted.state = Telling::Ended { at: turn.at, findings: Box::new(bounded(findings)) };
        }
    }

    /// Gives an explanation with the job that it is about.
    pub(crate) fn explanation(&self, id: &JobId) -> Option<(JobId, &Explanation)> {
        let job = self.explained.get(id)?;
        Some((*job, self.jobs.get(job)?.explanations.iter().find(|e| e.id(job) == *id)?))
    }

    pub(crate) fn forget_explanations(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        for explanation in &job.explanations {
            self.explained.remove(&explanation.id(id));
        }
    }
}

/// Gives every set of outputs that is known, those that count first.
fn every_vote(job: &Job) -> Vec<(LeaseNumber, Vote)> {
    let counted = job.every_attempt().filter_map(|a| Some((a.lease, a.vote()?.clone())));
    let late = job.late.iter().filter_map(|late| match &late.report {
        LateReport::Attested(vote) => Some((late.lease, vote.clone())),
        LateReport::Failed(_) => None,
    });
    counted.chain(late).filter(|(_, vote)| !vote.outputs.is_empty()).collect()
}

fn side(job: &Job, lease: LeaseNumber) -> Option<Side> {
    let attempt = job.attempt(lease)?;
    let outputs = every_vote(job).into_iter().find(|(known, _)| *known == lease)?.1.outputs;
    let (node, profile, operator) = (attempt.node, attempt.profile, attempt.operator.clone());
    Some(Side { lease, node, profile, operator, outputs })
}

/// Cuts what is told to what is kept.
fn bounded(findings: Findings) -> Findings {
    let quote = |quote: Quote| Quote {
        place: cut(quote.place),
        left: cut(quote.left),
        right: cut(quote.right),
        variation: cut(quote.variation),
    };
    let account = findings.account;
    let steps = account.steps.into_iter().take(STEPS_MAX).map(|step| Step { name: cut(step.name), ..step });
    Findings {
        quotes: findings.quotes.into_iter().take(QUOTES_MAX).map(quote).collect(),
        account: Account { steps: steps.collect(), summary: cut(account.summary), ..account },
        trouble: cut(findings.trouble),
        ..findings
    }
}
