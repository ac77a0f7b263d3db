//! The overview: what this node is, what it works on, whom it knows.

use askama::Template;

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
        Self { title, counts, jobs, chosen: filter.state, older, peers, json, status }
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

    fn is_chosen(&self, count: &Count) -> bool {
        self.chosen == Some(count.state)
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.jobs).sum()
    }
}

/// Says a round trip in milliseconds.
fn round_trip(peer: &PeerView) -> String {
    peer.rtt_us.map_or_else(|| "–".to_owned(), |us| format!("{}.{} ms", us / 1000, us % 1000 / 100))
}
