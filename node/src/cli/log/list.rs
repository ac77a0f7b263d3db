//! `artel log ls`: entries in words.

use std::collections::BTreeMap;

use anyhow::Context as _;
use attest::log::entry::{Entry, Event, Judgement};
use protocol::{JobId, NodeId};
use web::{Backend, Client, api::Time};

use super::{Known, Whose};
use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    daemon::views::outcome_word,
    tlog::{Reader, Remote},
};

/// List entries in words, the newest last
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    /// The first entry to show, from 0 [default: so that the newest ones are shown]
    #[arg(long, value_name = "PLACE")]
    from: Option<u64>,
    /// How many entries to show
    #[arg(long, default_value_t = 40)]
    count: u64,
    #[command(flatten)]
    whose: Whose,
}

/// An entry with its place.
type Placed = (u64, Entry);

impl List {
    pub(in crate::cli) async fn run(self, context: &Context, known: &Known) -> anyhow::Result<u8> {
        let client = self.whose.client(context)?;
        let head = known.newest(&client).await?.head();
        let from = self.from.unwrap_or(head.size.saturating_sub(self.count));
        let to = from.saturating_add(self.count).min(head.size);
        let source = Remote(client.clone());
        let (mut reader, mut entries) = (Reader::new(&source, head), Vec::<Placed>::new());
        let mut next = from;
        while next < to {
            let broken = || exit::failure(exit::BROKEN, format!("entry {next} cannot be believed"));
            let (first, bundle) = reader.bundle_with(next).await.with_context(broken)?;
            for (index, bytes) in (first..).zip(&bundle).filter(|(index, _)| (next..to).contains(index)) {
                entries.push((index, Entry::from_bytes(bytes).with_context(broken)?));
            }
            next = first + bundle.len() as u64;
        }
        match context.format {
            Format::Json => {
                for (index, entry) in &entries {
                    output::json(
                        &serde_json::json!({ "index": index, "at": Time::from(entry.at), "event": entry.event }),
                    )?;
                }
            }
            Format::People => {
                let names = Names::of(&entries, &client, known).await;
                let row = |(index, entry): &Placed| {
                    let (subject, what) = names.tell(&entry.event);
                    vec![
                        index.to_string(),
                        Time::from(entry.at).to_string(),
                        entry.event.word().to_owned(),
                        subject,
                        what,
                    ]
                };
                output::table(&["PLACE", "AT", "WHAT", "OF", ""], entries.iter().map(row).collect())?;
            }
        }
        Ok(exit::DONE)
    }
}

/// What jobs and nodes are called.
struct Names<'a> {
    titles: BTreeMap<JobId, String>,
    known: &'a Known,
}

impl<'a> Names<'a> {
    /// Asks for the titles of the jobs of these entries; a job that nobody knows any more has only its id.
    async fn of(entries: &[Placed], client: &Client, known: &'a Known) -> Self {
        let mut titles = BTreeMap::new();
        for job in entries.iter().filter_map(|(_, entry)| job_of(&entry.event)) {
            if !titles.contains_key(&job)
                && let Ok(detail) = client.job(job).await
            {
                titles.insert(job, detail.summary.title);
            }
        }
        Self { titles, known }
    }

    fn job(&self, job: &JobId) -> String {
        let title = self.titles.get(job).map(String::as_str).unwrap_or_default();
        format!("{} {title}", job.short()).trim_end().to_owned()
    }

    fn node(&self, node: &NodeId) -> String {
        let operator = self.known.policy.operators.iter().find(|operator| operator.nodes.contains(node));
        operator.map_or_else(|| node.to_string(), |operator| operator.name.to_string())
    }

    /// Says what an entry is about, and what it says of that.
    fn tell(&self, event: &Event) -> (String, String) {
        match event {
            Event::Policy(policy) => (format!("number {}", policy.number), String::new()),
            Event::Accepted(accepted) => (self.job(&accepted.job), String::new()),
            Event::Lease(lease) => (
                self.job(&lease.job),
                format!("{} to {}, profile {}", lease.lease, self.node(&lease.node), lease.profile.0),
            ),
            Event::Commitment(commitment) => {
                (self.job(&commitment.job), format!("{} by {}", commitment.lease, self.node(&commitment.node)))
            }
            Event::Outcome(outcome) => {
                let of = format!("{} of {}", outcome.lease, self.node(&outcome.node));
                (self.job(&outcome.job), format!("{of}: {}", outcome_word(&outcome.end)))
            }
            Event::Verdict(verdict) => {
                let rests = verdict.attestations.len();
                (self.job(&verdict.job), format!("{}, {rests} attestations", judgement(verdict.verdict)))
            }
            Event::Release(release) => (release.channel.to_string(), format!("generation {}", release.generation)),
            Event::Revocation(revocation) => {
                (revocation.key.to_string(), format!("does not count from entry {} on", revocation.from))
            }
        }
    }
}

fn job_of(event: &Event) -> Option<JobId> {
    match event {
        Event::Accepted(accepted) => Some(accepted.job),
        Event::Lease(lease) => Some(lease.job),
        Event::Commitment(commitment) => Some(commitment.job),
        Event::Outcome(outcome) => Some(outcome.job),
        Event::Verdict(verdict) => Some(verdict.job),
        Event::Policy(_) | Event::Release(_) | Event::Revocation(_) => None,
    }
}

fn judgement(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Reproduced => "reproduced",
        Judgement::Disputed => "disputed",
        Judgement::Unreproducible => "unreproducible",
        Judgement::Failed => "failed",
    }
}
