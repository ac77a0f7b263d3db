//! `artel peer`: the nodes that this one knows, and what a builder has shown.

use std::fmt::Write;

use clap::Subcommand;
use protocol::NodeId;
use web::{
    Backend,
    api::{ClassDetail, PeerDetail, PeerView},
};

use super::{
    Context, exit,
    output::{self, Format},
};

/// List the nodes that this one knows, and show what a builder has shown
#[derive(Debug, Subcommand)]
pub(super) enum Peer {
    /// List the nodes that are connected
    List,
    /// Show what a builder has shown: quarantines, and the jobs and attestations that contradict it
    Show {
        /// The builder's id (`artel peer list` lists them)
        node: NodeId,
    },
}

impl Peer {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Peer::List => list(context, context.client().peers().await?)?,
            Peer::Show { node } => {
                let detail = context.client().peer(node).await?;
                match context.format {
                    Format::Json => output::json(&detail)?,
                    Format::People => output::line(text(&detail).trim_end())?,
                }
            }
        }
        Ok(exit::DONE)
    }
}

fn list(context: &Context, peers: Vec<PeerView>) -> anyhow::Result<()> {
    if context.format == Format::Json {
        return output::json(&peers);
    }
    let row = |peer: PeerView| {
        let operator = peer.operator.map_or_else(|| "-".to_owned(), |name| name.to_string());
        vec![peer.node.to_string(), operator, peer.roles.join(", "), output::printable(&peer.address)]
    };
    output::table(&["NODE", "OPERATOR", "ROLES", "ADDRESS"], peers.into_iter().map(row).collect())
}

/// Writes what a builder has shown as lines.
fn text(detail: &PeerDetail) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", output::printable(&text));
    };
    line(format!("node         {}", detail.node));
    line(format!("operator     {}", detail.operator));
    if let Some(breach) = detail.breach {
        line(format!("breach       a build of job {} broke out of its sandbox, {}", breach.job, breach.at));
    }
    if detail.classes.is_empty() {
        line("shown        nothing that was decided so far".to_owned());
    }
    for class in &detail.classes {
        of_class(class, &mut line);
    }
    out
}

fn of_class(class: &ClassDetail, line: &mut impl FnMut(String)) {
    line(String::new());
    line(format!("jobs         {}: {}", class.class, class.state));
    if !class.why.is_empty() {
        line(format!("why          {}", class.why));
    }
    if let Some(until) = class.until {
        line(format!("until        {until}"));
    }
    let count = |milli: u64| format!("{}.{}", milli / 1000, milli % 1000 / 100);
    line(format!(
        "counts       {} builds that others agreed with, {} contradicted (each counts half after a day)",
        count(class.validated_milli),
        count(class.contradicted_milli)
    ));
    if !class.pending.is_empty() {
        line(format!("undecided    {} failures that nobody has confirmed so far", class.pending.len()));
    }
    if let Some(job) = class.canary {
        line(format!("canary       builds job {job}, whose answer is known"));
    }
    for evidence in &class.evidence {
        let against: Vec<_> = evidence.against.iter().map(ToString::to_string).collect();
        line(format!("evidence     {} job {} attempt {}", evidence.at, evidence.job, evidence.lease));
        line(format!("             it said: {}", evidence.claim));
        line(format!("             built otherwise by {}", against.join(", ")));
        for attestation in &evidence.attestations {
            line(format!("             attestation {attestation}"));
        }
    }
}
