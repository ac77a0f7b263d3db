//! The overview: what this node is, what it works on, whom it knows.

use std::collections::BTreeSet;

use askama::Template;
use protocol::{Arch, job::ServerJob};

use super::phrase;
use crate::api::{JobFilter, JobPage, JobState, JobSummary, PeerView, Status};

/// Jobs on one page.
pub(super) const JOBS: u16 = 50;

/// What stands in the page.
#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Page {
    title: String,
    status: Status,
    counts: Vec<Count>,
    jobs: Vec<Line>,
    chosen: Option<JobState>,
    filter: JobFilter,
    older: Option<String>,
    peers: Vec<PeerView>,
    json: String,
}

/// One state and how many jobs are in it.
struct Count {
    state: JobState,
    jobs: u64,
}

/// One job of the list.
struct Line {
    job: JobSummary,
    took: String,
}

impl Page {
    /// Arranges what the backend said.
    pub(super) fn new(status: Status, page: JobPage, mut peers: Vec<PeerView>, filter: &JobFilter) -> Self {
        let count = |state: &JobState| Count { state: *state, jobs: status.jobs.get(state).copied().unwrap_or(0) };
        let counts = JobState::EVERY.iter().map(count).filter(|count| count.jobs > 0).collect();
        let older = page.next.map(|after| JobFilter { after: Some(after), limit: None, ..filter.clone() }.to_query());
        let line = |job: JobSummary| {
            let took = phrase::between(job.accepted, job.ended.unwrap_or(status.at));
            Line { job, took }
        };
        let jobs = page.jobs.into_iter().map(line).collect();
        peers.sort_by(|a, b| (!a.member, &a.operator, a.node).cmp(&(!b.member, &b.operator, b.node)));
        let json = match filter.to_query() {
            query if query.is_empty() => "/api/v1/jobs".to_owned(),
            query => format!("/api/v1/jobs?{query}"),
        };
        let title = status.network.name.clone();
        Self { title, counts, jobs, chosen: filter.state, filter: filter.clone(), older, peers, json, status }
    }

    fn uptime(&self) -> String {
        phrase::duration(std::time::Duration::from_secs(self.status.uptime_seconds))
    }

    fn blobs(&self) -> String {
        let used = phrase::bytes(self.status.blobs.bytes);
        match self.status.blobs.quota {
            0 => used,
            quota => format!("{used} of {}", phrase::bytes(quota)),
        }
    }

    /// The kinds that may be chosen, with their names.
    fn kinds(&self) -> [(&'static str, &'static str); 3] {
        [("", "every kind"), ("build", "builds"), ("server", "server jobs")]
    }

    /// Gives the query that shows one kind, in the state and for the architecture that are chosen.
    fn with_kind(&self, kind: &str) -> String {
        let kind = Some(kind.to_owned()).filter(|kind| !kind.is_empty());
        query(&JobFilter { state: self.chosen, kind, arch: self.filter.arch, ..JobFilter::default() })
    }

    /// The architectures that may be chosen: what peers build for.
    fn arches(&self) -> BTreeSet<Arch> {
        self.peers.iter().flat_map(|peer| peer.arches.iter().copied()).chain(self.filter.arch).collect()
    }

    /// Gives the query that shows one architecture, or every one, in the state and of the kind that are chosen.
    fn with_arch(&self, arch: Option<&Arch>) -> String {
        let (kind, arch) = (self.filter.kind.clone(), arch.copied());
        query(&JobFilter { state: self.chosen, kind, arch, ..JobFilter::default() })
    }

    fn is_arch(&self, arch: &Arch) -> bool {
        self.filter.arch.as_ref() == Some(arch)
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.filter.kind.as_deref().unwrap_or_default() == kind
    }

    fn is_server(&self, job: &JobSummary) -> bool {
        ServerJob::WORDS.contains(&job.kind.as_str())
    }

    fn is_chosen(&self, count: &Count) -> bool {
        self.chosen == Some(count.state)
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.jobs).sum()
    }
}

fn query(filter: &JobFilter) -> String {
    match filter.to_query() {
        query if query.is_empty() => query,
        query => format!("?{query}"),
    }
}

/// Says a round trip in milliseconds.
fn round_trip(peer: &PeerView) -> String {
    peer.rtt_us.map_or_else(|| "–".to_owned(), |us| format!("{}.{} ms", us / 1000, us % 1000 / 100))
}
