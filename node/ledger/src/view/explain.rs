//! Explanations, as people see them: each as a job of its own, and beside the attempts that it is about.

use protocol::{Hash, JobId, OperatorName, Timestamp, lease::LeaseNumber};
use serde::Serialize;

use super::{Brief, Expected, JobView, RunView, Times, VerdictView};
use crate::{
    Ledger,
    explain::{Explanation, Findings, Quote, Telling},
    job::{Attempt, Job},
};

/// The word of the kind.
const KIND: &str = "explain";

/// What is known of the difference between two attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplanationView {
    /// Its id as a job.
    pub id: JobId,
    /// The attempt whose outputs came first.
    pub left: LeaseNumber,
    /// The attempt whose outputs differ.
    pub right: LeaseNumber,
    /// Operators that built what the first one did.
    pub left_operators: Vec<OperatorName>,
    /// Operators that built what the other one did.
    pub right_operators: Vec<OperatorName>,
    /// When it ended; none while it is wanted.
    pub ended: Option<Timestamp>,
    /// BLAKE3 of the text.
    pub text: Option<Hash>,
    /// BLAKE3 of the HTML.
    pub html: Option<Hash>,
    /// Lines in which a varied circumstance shows.
    pub quotes: Vec<Quote>,
    /// What came of it, or why nothing did, in one sentence.
    pub summary: String,
}

/// Says what is explained, in one line.
pub(super) fn title(job: &Job, explanation: &Explanation) -> String {
    format!("{KIND} {}: attempts {} and {}", job.facts.title, explanation.left, explanation.right)
}

fn findings(explanation: &Explanation) -> Option<(Timestamp, &Findings)> {
    match &explanation.state {
        Telling::Wanted => None,
        Telling::Ended { at, findings } => Some((*at, findings)),
    }
}

/// Gives the state's word as a job has it.
fn word(explanation: &Explanation) -> &'static str {
    match findings(explanation) {
        None => "running",
        Some((_, findings)) if findings.trouble.is_empty() => "done",
        Some(_) => "failed-to-run",
    }
}

/// Gives the operators that built what an attempt did.
fn alike(job: &Job, lease: LeaseNumber) -> Vec<OperatorName> {
    let Some(digest) = job.attempt(lease).and_then(Attempt::vote).map(|vote| vote.digest) else {
        return job.attempt(lease).map(|a| a.operator.clone()).into_iter().collect();
    };
    let same = job.every_attempt().filter(|a| a.vote().is_some_and(|vote| vote.digest == digest));
    let mut operators: Vec<OperatorName> = same.map(|a| a.operator.clone()).collect();
    operators.sort();
    operators.dedup();
    operators
}

impl Ledger {
    /// Gives what is known of the differences between a job's attempts.
    pub fn explanations(&self, id: JobId) -> Vec<ExplanationView> {
        let (id, job, only) = match self.explanation(&id) {
            Some((about, explanation)) => (about, self.jobs.get(&about), Some(explanation.right)),
            None => (id, self.jobs.get(&id), None),
        };
        let Some(job) = job else { return Vec::new() };
        let shown = job.explanations.iter().filter(|e| only.is_none_or(|right| e.right == right));
        let view = |explanation: &Explanation| {
            let found = findings(explanation);
            let summary = found.map_or("it is being looked into", |(_, found)| match found.trouble.as_str() {
                "" => found.account.summary.as_str(),
                trouble => trouble,
            });
            ExplanationView {
                id: explanation.id(&id),
                left: explanation.left,
                right: explanation.right,
                left_operators: alike(job, explanation.left),
                right_operators: alike(job, explanation.right),
                ended: found.map(|(at, _)| at),
                text: found.and_then(|(_, found)| found.text),
                html: found.and_then(|(_, found)| found.html),
                quotes: found.map(|(_, found)| found.quotes.clone()).unwrap_or_default(),
                summary: summary.to_owned(),
            }
        };
        shown.map(view).collect()
    }

    /// Gives a line for every explanation.
    pub(super) fn explanation_briefs(&self) -> impl Iterator<Item = Brief> {
        self.explained.keys().filter_map(|id| {
            let (about, explanation) = self.explanation(id)?;
            let facts = &self.jobs.get(&about)?.facts;
            let (channel, arch) = (facts.channel.clone(), facts.arch);
            let (state, accepted) = (word(explanation), explanation.wanted);
            Some(Brief { id: *id, kind: KIND.to_owned(), arch, state, channel, accepted, group: None })
        })
    }

    /// Gives an explanation as a job.
    pub(super) fn explanation_job(&self, id: JobId) -> Option<JobView> {
        let (about, explanation) = self.explanation(&id)?;
        let job = self.jobs.get(&about)?;
        let (facts, found) = (&job.facts, findings(explanation));
        let verdict = match found {
            None => VerdictView::Pending,
            Some((_, found)) if found.trouble.is_empty() => {
                VerdictView::Served { generation: 0, summary: found.account.summary.clone() }
            }
            Some((_, found)) => VerdictView::Unserved { why: found.trouble.clone() },
        };
        let times = Times {
            created: facts.created,
            accepted: explanation.wanted,
            expires: facts.expires,
            ended: found.map(|(at, _)| at),
        };
        Some(JobView {
            id,
            title: title(job, explanation),
            kind: KIND.to_owned(),
            arch: facts.arch,
            state: word(explanation).to_owned(),
            channel: facts.channel.clone(),
            maintainer: facts.maintainer.clone(),
            times,
            attempts: Vec::new(),
            earlier: Vec::new(),
            verdict,
            late: Vec::new(),
            waiting: None,
            expected: Expected { start: None, end: None },
            group: facts.schedule.group.clone(),
        })
    }

    /// Gives the work of an explanation.
    pub(super) fn explanation_run(&self, id: JobId) -> Option<RunView> {
        let (_, explanation) = self.explanation(&id)?;
        let account = findings(explanation).map(|(_, found)| found.account.clone()).unwrap_or_default();
        let began = account.steps.first().map(|step| step.began);
        Some(RunView { began, expected: None, steps: account.steps, log: account.log, result: account.result })
    }
}
