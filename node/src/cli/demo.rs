//! `artel demo`: the whole line on this machine, with a real package.

use std::path::PathBuf;

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::demo::{self, Plan, Reached, Verdict};

/// Show the whole line on this machine, with a real package
///
/// Starts a coordinator, builders of different operators and a mirror as real daemons on loopback, takes a source package
/// from this machine's configured archive, has it built, compared, published and mirrored, and installs it from the mirror
/// with apt-get into a scratch root.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Source package of the archive
    #[arg(long, value_name = "NAME", default_value = "base-files")]
    package: String,
    /// Words of DEB_BUILD_OPTIONS beside nocheck
    #[arg(long, value_delimiter = ',', value_name = "WORD")]
    option: Vec<String>,
    /// Operators with one builder each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Operators that sign changed outputs
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    liar: u8,
    /// Operators that must agree (k)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    agree: u8,
    /// Leave the daemons and their folder in place at the end
    #[arg(long)]
    keep: bool,
    /// Where the demo keeps its nodes [default: a new folder in the system's temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Demo {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        if self.liar > self.nodes || self.agree > self.nodes {
            return Err(exit::failure(exit::USAGE, "more liars or agreeing operators than nodes").into());
        }
        let plan = Plan {
            package: self.package,
            options: self.option,
            nodes: self.nodes,
            liars: self.liar,
            agree: self.agree,
            keep: self.keep,
            folder: self.dir,
        };
        // A signal that cannot be listened to interrupts nothing.
        let interrupted = async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        };
        let Some(report) = demo::run(plan, interrupted).await? else { return Ok(exit::INTERRUPTED) };
        match context.format {
            Format::Json => output::json(&report)?,
            Format::People => output::line(&report.text())?,
        }
        let expected = report.verdict == Verdict::Reproduced && report.reached == Reached::Installed;
        Ok(if expected { exit::DONE } else { exit::JOB_FAILED })
    }
}
