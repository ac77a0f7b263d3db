//! `artel job buildinfo`: what a builder's own build of a package wrote of itself.

use protocol::OperatorName;
use web::Backend;

use super::find;
use crate::cli::{Context, exit, output};

/// Whose record of which job
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Buildinfo {
    /// The job's id, or its first digits
    job: String,
    /// The build of this operator; else of one that agrees
    #[arg(long)]
    operator: Option<OperatorName>,
}

impl Buildinfo {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let job = find(context, &self.job).await?;
        let text = context.client().buildinfo(job, self.operator).await?;
        output::line(&output::printable(String::from_utf8_lossy(&text).trim_end()))?;
        Ok(exit::DONE)
    }
}
