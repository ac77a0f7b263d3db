//! Server jobs, as people see them, and which jobs belong together. A publication that follows a build is shown as a job.

use protocol::{Hash, JobId, Timestamp, job::ServerJob};
use serde::Serialize;

use super::{Brief, Expected, JobView, Times, VerdictView, verdict};
use crate::{
    Ledger,
    job::{Job, JobState, PublishStep},
    service::{Step, publication_id},
};

/// The publisher's work for one job, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// When its turn came.
    pub began: Option<Timestamp>,
    /// When it is expected to end, while that can be told.
    pub expected: Option<Timestamp>,
    /// The steps of the last try.
    pub steps: Vec<Step>,
    /// BLAKE3 of its log, once a try has ended.
    pub log: Option<Hash>,
    /// BLAKE3 of a result for programs, where there is one.
    pub result: Option<Hash>,
}

/// Another job that one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is to the one that is shown.
    pub relation: Relation,
    /// The job.
    pub job: JobId,
    /// What it does, in one line.
    pub title: String,
}

/// What one job is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// It must end well first.
    Before,
    /// It waits for the one that is shown.
    After,
    /// It puts the outputs of the one that is shown into the repository.
    Publication,
    /// It made what is published.
    Build,
    /// It says what is different in the outputs of the one that is shown.
    Explanation,
    /// Its attempts differ.
    Explained,
}

impl Relation {
    /// Gives the relation's words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Relation::Before => "waits for",
            Relation::After => "before",
            Relation::Publication => "published by",
            Relation::Build => "publishes",
            Relation::Explanation => "explained by",
            Relation::Explained => "explains",
        }
    }
}

impl Ledger {
    /// Gives the publisher's work for a server job or for a publication that follows a build.
    pub fn service_run(&self, id: JobId) -> Option<RunView> {
        let (id, job) = match self.jobs.get(&id) {
            Some(job) if job.facts.is_server() => (id, job),
            Some(_) => return None,
            None => match self.build_of(id) {
                Some(build) => build,
                None => return self.explanation_run(id),
            },
        };
        let account = &job.run.account;
        Some(RunView {
            began: job.run.began,
            expected: self.expected_end(id),
            steps: account.steps.clone(),
            log: account.log,
            result: account.result,
        })
    }

    /// Gives the job whose outputs a publication puts into the repository; the job itself for any other.
    pub fn behind(&self, id: JobId) -> JobId {
        self.build_of(id).map_or(id, |(build, _)| build)
    }

    /// Gives the jobs that one belongs to.
    pub fn links(&self, id: JobId) -> Vec<Link> {
        if let Some((about, _)) = self.explanation(&id) {
            let title = self.jobs.get(&about).map_or("", |job| job.facts.title.as_str());
            return vec![link(Relation::Explained, about, title)];
        }
        let Some(job) = self.jobs.get(&id) else {
            let build = self.build_of(id);
            return build.into_iter().map(|(build, job)| link(Relation::Build, build, &job.facts.title)).collect();
        };
        let one = |relation: Relation, id: &JobId| {
            let title = self.jobs.get(id).map_or("", |job| job.facts.title.as_str());
            link(relation, *id, title)
        };
        let mut links: Vec<Link> = job.facts.schedule.after.iter().map(|id| one(Relation::Before, id)).collect();
        links.extend(job.place.dependents.iter().map(|id| one(Relation::After, id)));
        if let Some(publication) = self.publication(publication_id(&id)) {
            links.push(link(Relation::Publication, publication.id, &publication.title));
        }
        let explanations = job.explanations.iter();
        links.extend(explanations.map(|e| link(Relation::Explanation, e.id(&id), &super::explain::title(job, e))));
        links
    }

    /// Gives a line for every publication.
    pub(super) fn publication_briefs(&self) -> impl Iterator<Item = Brief> {
        let publications = self.lines.values().flat_map(|line| &line.publications);
        publications.filter_map(|(id, build)| {
            let job = self.jobs.get(build)?;
            let (state, _) = publication_state(job)?;
            let (kind, channel) = (ServerJob::WORDS[0].to_owned(), job.facts.channel.clone());
            let (arch, accepted) = (job.facts.arch, job.run.queued?);
            Some(Brief { id: *id, kind, arch, state, channel, accepted, group: None })
        })
    }

    /// Gives one publication as a job.
    pub(super) fn publication(&self, id: JobId) -> Option<JobView> {
        let (_, job) = self.build_of(id)?;
        let (facts, queued) = (&job.facts, job.run.queued?);
        let (state, ended) = publication_state(job)?;
        Some(JobView {
            id,
            title: format!("{} {}", ServerJob::WORDS[0], facts.title),
            kind: ServerJob::WORDS[0].to_owned(),
            arch: facts.arch,
            state: state.to_owned(),
            channel: facts.channel.clone(),
            maintainer: facts.maintainer.clone(),
            times: Times { created: facts.created, accepted: queued, expires: facts.expires, ended },
            attempts: Vec::new(),
            earlier: Vec::new(),
            verdict: served(job),
            late: Vec::new(),
            waiting: self.why_waiting(id, job),
            expected: Expected { start: None, end: None },
            group: facts.schedule.group.clone(),
        })
    }

    fn build_of(&self, publication: JobId) -> Option<(JobId, &Job)> {
        let build = self.lines.values().find_map(|line| line.publications.get(&publication))?;
        Some((*build, self.jobs.get(build)?))
    }
}

/// Gives the word of a publication's state, by that of its build, and when it ended.
fn publication_state(build: &Job) -> Option<(&'static str, Option<Timestamp>)> {
    match &build.state {
        JobState::Publishing(publishing) => Some(match publishing.step {
            PublishStep::Waiting => ("queued", None),
            PublishStep::Running { .. } | PublishStep::Resting { .. } => ("running", None),
        }),
        JobState::Ended(ended) if ended.outcome.is_well() => Some(("done", Some(ended.at))),
        JobState::Ended(ended) => Some(("failed-to-run", Some(ended.at))),
        JobState::Queued | JobState::Building | JobState::Serving(_) => None,
    }
}

fn link(relation: Relation, job: JobId, title: &str) -> Link {
    Link { relation, job, title: title.to_owned() }
}

/// Says how the publication of a build ended.
fn served(job: &Job) -> VerdictView {
    match verdict(job) {
        VerdictView::Reproduced { generation: Some(generation), .. } => {
            VerdictView::Served { generation, summary: job.run.account.summary.clone() }
        }
        VerdictView::Reproduced { unpublished: Some(why), .. } => VerdictView::Unserved { why },
        VerdictView::Pending
        | VerdictView::Reproduced { generation: None, unpublished: None, .. }
        | VerdictView::Disputed { .. }
        | VerdictView::Unreproducible { .. }
        | VerdictView::Failed { .. }
        | VerdictView::Skipped { .. }
        | VerdictView::Cancelled { .. }
        | VerdictView::Served { .. }
        | VerdictView::Unserved { .. } => VerdictView::Pending,
    }
}
