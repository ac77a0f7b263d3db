//! The explainer: compares the outputs of attempts that disagree with diffoscope, in a sandbox, and tells the ledger what it
//! found. It runs beside the publisher, one comparison at a time, and nothing waits for it.
//!
//! ```text
//! Dispute -> tools (a lock, its environment) -> fetch (both sets, from their builders) -> compare (sandbox) -> read -> Explained
//! ```
//! What cannot be explained here (no sandbox, no archive, outputs that are gone, a limit that was reached) is told in one
//! sentence; it is not tried again.

mod bench;

use std::{path::Path, sync::Arc};

use ledger::{
    Command, Ledger,
    explain::{Dispute, Findings, QUOTES_MAX, Quote, Side},
    service::Account,
};
use protocol::{Hash, JobId, lease::Term};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::bench::{Bench, Comparison};
use super::{Decisions, Shared, chain, runs::Recorder, runs::Runs};
use crate::{
    build::explain::{self, quotes, quotes::Told},
    config::Tools,
};

/// Disputes that may wait.
pub(super) const QUEUE: usize = 64;
/// Lines of the sandbox's log that the explanation's log repeats.
const LOG_LINES: usize = 200;

/// What the explainer does, one after the other.
#[derive(Debug)]
pub struct Errand {
    /// The term in which it was decided.
    pub term: Term,
    /// What to explain.
    pub dispute: Dispute,
}

/// The explainer of one node.
pub(super) struct Explainer {
    shared: Arc<Shared>,
    decisions: Decisions,
    runs: Arc<Runs>,
    /// Opened for the first dispute.
    bench: Option<Bench>,
}

/// What a comparison came to.
struct Report {
    text: Option<Hash>,
    html: Option<Hash>,
    quotes: Vec<Quote>,
    summary: String,
}

impl Explainer {
    /// Makes the explainer; nothing is opened before there is something to explain.
    pub(super) fn new(shared: Arc<Shared>, decisions: Decisions, runs: Arc<Runs>) -> Self {
        Self { shared, decisions, runs, bench: None }
    }

    /// Explains until stopped. A comparison that is under way then is ended; a new leader is asked again.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Errand>, stop: CancellationToken) {
        loop {
            let errand = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = queue.recv() => next,
            };
            let Some(Errand { term, dispute }) = errand else { return };
            if self.shared.leads() != Some(term) {
                debug!(job = %dispute.job, "a dispute of a former office is left to the new leader");
                continue;
            }
            self.explain(&dispute, &stop).await;
        }
    }

    async fn explain(&mut self, dispute: &Dispute, stop: &CancellationToken) {
        let record = self.runs.begin(dispute.id);
        let told = self.compare(dispute, &record, stop).await;
        if stop.is_cancelled() {
            return;
        }
        let findings = match told {
            Ok(told) => {
                info!(job = %dispute.job, summary = %told.summary, "difference explained");
                let account = self.account(dispute, record, &format!("done: {}", told.summary)).await;
                let account = Account { summary: told.summary, ..account };
                Findings { text: told.text, html: told.html, quotes: told.quotes, account, trouble: String::new() }
            }
            Err(why) => {
                warn!(job = %dispute.job, %why, "difference not explained");
                let trouble = format!("cannot explain here: {why}");
                let account = self.account(dispute, record, &trouble).await;
                Findings { account, trouble, ..Findings::default() }
            }
        };
        self.decisions.tell(Command::Explained { explanation: dispute.id, findings }).await;
    }

    /// Ends the log, and keeps it as long as the job's other files.
    async fn account(&self, dispute: &Dispute, record: Recorder, line: &str) -> Account {
        let (log, steps) = record.end(line);
        let log = match self.keep(dispute, "log", log.into_bytes()).await {
            Ok(hash) => Some(hash),
            Err(why) => {
                warn!(job = %dispute.job, %why, "log of an explanation not kept");
                None
            }
        };
        Account { log, steps, ..Account::default() }
    }

    /// Keeps a file of an explanation, and offers it to everybody who asks.
    async fn keep(&self, dispute: &Dispute, name: &str, bytes: Vec<u8>) -> Result<Hash, String> {
        let hash = self.shared.blobs.add_bytes(bytes.into()).await.map_err(|e| chain(&e))?;
        let name = format!("job/{}/explain-{}-{name}", dispute.job, dispute.right.lease);
        self.shared.offer(&name, hash).await.map_err(|e| chain(&e))?;
        Ok(hash)
    }

    async fn compare(
        &mut self,
        dispute: &Dispute,
        record: &Recorder,
        stop: &CancellationToken,
    ) -> Result<Report, String> {
        if self.shared.config.explain.environment == Tools::Off {
            return Err("it is switched off in this node's artel.toml (explain.environment)".to_owned());
        }
        let (left, right) = explain::differing(&dispute.left.outputs, &dispute.right.outputs);
        let bounds = self.shared.config.explain.bounds();
        let bytes: u64 = left.iter().chain(&right).map(|output| output.size).sum();
        if bytes > u64::from(bounds.disk_mib) << 19 {
            let (mib, most) = (bytes >> 20, bounds.disk_mib / 2);
            return Err(format!(
                "the outputs have {mib} MiB; at most {most} of the {} MiB of disk are theirs",
                bounds.disk_mib
            ));
        }
        let comparison = Comparison {
            id: dispute.id,
            command: explain::command(&left, &right, &bounds)?,
            bounds,
            holders: vec![dispute.left.node, dispute.right.node],
        };
        record.step("tools");
        if self.bench.is_none() {
            self.bench = Some(Bench::open(&self.shared).await?);
        }
        let bench = self.bench.as_mut().ok_or("it was opened above")?;
        let tools = bench.tools(&self.shared, record).await?;
        record.step("fetch");
        bench.lay_out(&self.shared, &comparison).await?;
        record.step("compare");
        let compared = bench.compare(&self.shared, (&comparison, &tools), stop).await;
        let said = bench.said();
        said.lines().take(LOG_LINES).for_each(|line| record.say(line));
        let folder = compared.map_err(|why| with_first_difference(why, &said))?;
        record.step("read");
        let told = self.read(dispute, &folder).await;
        bench::discard(&folder);
        told
    }

    /// Reads what diffoscope left, names what shows in it, and keeps it.
    async fn read(&self, dispute: &Dispute, folder: &Path) -> Result<Report, String> {
        let text = bounded(folder, explain::TEXT, explain::TEXT_MAX).await?;
        let html = bounded(folder, explain::HTML, explain::HTML_MAX).await?;
        let (left, right) = self.circumstances(dispute).await;
        let text_read = String::from_utf8_lossy(&text).into_owned();
        let pairs = tokio::task::spawn_blocking(move || quotes::read(&text_read, &left, &right));
        let pairs = pairs.await.map_err(|error| error.to_string())?;
        let summary = summary(&pairs);
        let quote = |pair: quotes::Pair| Quote {
            place: pair.place,
            left: pair.left,
            right: pair.right,
            variation: pair.variation,
        };
        let quotes = first_of_each(pairs).into_iter().map(quote).collect();
        let text = if text.is_empty() { None } else { Some(self.keep(dispute, "text", text).await?) };
        let html = if html.is_empty() { None } else { Some(self.keep(dispute, "html", html).await?) };
        Ok(Report { text, html, quotes, summary })
    }

    /// Gives what both builders signed about their attempts.
    async fn circumstances(&self, dispute: &Dispute) -> (Told, Told) {
        let (job, left, right) = (dispute.job, dispute.left.clone(), dispute.right.clone());
        let look = move |ledger: &Ledger| (told(ledger, job, &left), told(ledger, job, &right));
        self.decisions.view(look).await.unwrap_or_default()
    }
}

fn told(ledger: &Ledger, job: JobId, side: &Side) -> Told {
    let its = ledger.attested(job).map(|attestation| &attestation.get().run);
    let run = its.into_iter().find(|run| run.lease == side.lease && run.node == side.node);
    run.map(|run| run.node_info.clone()).unwrap_or_default()
}

/// Reads a file that the sandbox left; one that is longer than it may be is not taken.
async fn bounded(folder: &Path, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let path = folder.join(name);
    let unreadable = |error: std::io::Error| format!("{name} cannot be read: {error}");
    let size = tokio::fs::metadata(&path).await.map_err(unreadable)?.len();
    // diffoscope ends its reports soon after the limit, not at it.
    if size > 2 * most {
        return Err(format!("diffoscope wrote {size} bytes into {name}, more than {}", 2 * most));
    }
    tokio::fs::read(&path).await.map_err(unreadable)
}

/// Says which circumstances show, and how often.
fn summary(pairs: &[quotes::Pair]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for pair in pairs.iter().filter(|pair| !pair.variation.is_empty()) {
        match counts.iter_mut().find(|(key, _)| *key == pair.variation) {
            Some((_, count)) => *count += 1,
            None => counts.push((&pair.variation, 1)),
        }
    }
    let lines = format!("{} differing line{}", pairs.len(), if pairs.len() == 1 { "" } else { "s" });
    match counts.len() {
        0 => format!("{lines}; none of the varied circumstances was recognised in what differs"),
        _ => {
            let named: Vec<String> = counts.iter().map(|(key, count)| format!("{key} in {count}")).collect();
            format!("{lines}; circumstances that show: {}", named.join(", "))
        }
    }
}

/// Chooses what to quote: one place for each circumstance, then others.
fn first_of_each(pairs: Vec<quotes::Pair>) -> Vec<quotes::Pair> {
    let mut chosen: Vec<quotes::Pair> = Vec::new();
    let (firsts, rest): (Vec<_>, Vec<_>) = {
        let mut seen = std::collections::BTreeSet::new();
        pairs.into_iter().partition(|pair| !pair.variation.is_empty() && seen.insert(pair.variation.clone()))
    };
    chosen.extend(firsts.into_iter().chain(rest).take(QUOTES_MAX));
    chosen
}

/// Adds where the first difference is: what diffoscope could not tell, `cmp` could.
fn with_first_difference(why: String, said: &str) -> String {
    match said.lines().find(|line| line.contains(" differ: ") || line.starts_with("only ")) {
        Some(line) => format!("{why}; {line}"),
        None => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(variation: &str, left: &str) -> quotes::Pair {
        let (left, variation) = (left.to_owned(), variation.to_owned());
        quotes::Pair { place: "out".into(), left, right: "r".into(), variation }
    }

    #[test]
    fn the_summary_counts_and_each_circumstance_is_quoted_first() {
        let pairs = vec![pair("date", "1"), pair("date", "2"), pair("hostname", "3"), pair("", "4")];
        assert_eq!(summary(&pairs), "4 differing lines; circumstances that show: date in 2, hostname in 1");
        let chosen: Vec<String> = first_of_each(pairs).into_iter().map(|p| p.left).collect();
        assert_eq!(chosen, ["1", "3", "2", "4"]);
        assert_eq!(
            summary(&[pair("", "x")]),
            "1 differing line; none of the varied circumstances was recognised in what differs"
        );
    }

    #[test]
    fn a_failure_still_says_where_the_first_difference_is() {
        let said = "artel: x\nleft/out right/out differ: byte 5, line 1\n";
        let why = with_first_difference("disk limit of 64 MiB reached".into(), said);
        assert_eq!(why, "disk limit of 64 MiB reached; left/out right/out differ: byte 5, line 1");
    }
}
