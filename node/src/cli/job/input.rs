//! `--input job:ID/FILE[=PATH]`: an agreed output of one job as an input of another, which then begins after it.

use std::str::FromStr;

use anyhow::Context as _;
use protocol::{JobId, words::RelativePath};
use web::{Backend, Client, api::FileView};

use super::{evidence, find, show, watch, watch::Until};
use crate::{
    cli::{Context, exit},
    config::Config,
    submit::Prepared,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FromJob {
    job: String,
    file: String,
    path: RelativePath,
}

/// An output that lies on the node, and where the new job has it.
pub(super) struct Found {
    pub(super) job: JobId,
    path: RelativePath,
    file: FileView,
}

impl FromStr for FromJob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not job:ID/FILE or job:ID/FILE=PATH");
        let (job, rest) = text.strip_prefix("job:").and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
        let (file, path) = rest.rsplit_once('=').unwrap_or((rest, rest));
        let path = RelativePath::new(path).map_err(|error| format!("{path}: {error}"))?;
        if job.is_empty() || file.is_empty() {
            return Err(form());
        }
        Ok(Self { job: job.to_owned(), file: file.to_owned(), path })
    }
}

/// Whether to wait for jobs that are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Wait,
    Refuse,
}

impl FromJob {
    /// Brings the output onto the node, and proves it: what is signed next names it.
    pub(super) async fn find(&self, context: &Context, patience: Patience) -> anyhow::Result<Found> {
        let client = context.client();
        let job = find(context, &self.job).await?;
        self.wait(&client, job, patience).await?;
        let network = Config::load(&context.home)?.network.id;
        let (files, _) = evidence::bring(&client, &network, job).await?;
        let names = || files.iter().map(|file| file.name.clone()).collect::<Vec<_>>().join(", ");
        let file = files.iter().find(|file| file.name == self.file);
        let file = file.with_context(|| format!("job {} made no {}; it made {}", job.short(), self.file, names()))?;
        Ok(Found { job, path: self.path.clone(), file: file.clone() })
    }

    async fn wait(&self, client: &Client, job: JobId, patience: Patience) -> anyhow::Result<()> {
        let mut detail = client.job(job).await?;
        if !detail.summary.state.is_over() {
            if patience == Patience::Refuse {
                let why = format!("job {} is {}: its outputs are not known yet", job.short(), detail.summary.state);
                return Err(exit::failure(exit::JOB_FAILED, why).hint("wait for it with --wait").into());
            }
            anstream::eprintln!("waiting for job {} ...", job.short());
            detail = watch(client, job, Until::Over).await?;
        }
        if show::exit_code(&detail) == exit::DONE {
            return Ok(());
        }
        let why = format!("job {} is {}: it has no agreed outputs", job.short(), detail.summary.state);
        Err(exit::failure(exit::JOB_FAILED, why).into())
    }
}

/// Gives a prepared job the outputs that were found.
pub(super) fn add(mut prepared: Prepared, found: &[Found]) -> anyhow::Result<Prepared> {
    for one in found {
        prepared = prepared.with_output_of(one.path.clone(), &one.file)?;
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_names_job_file_and_place() {
        let read = |text: &str| text.parse::<FromJob>().map(|one| (one.job, one.file, one.path.to_string()));
        let words = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(read("job:abcd/out/a.iso"), words("abcd", "out/a.iso", "out/a.iso"));
        assert_eq!(read("job:abcd/a.iso=in/live.iso"), words("abcd", "a.iso", "in/live.iso"));
        for wrong in ["abcd/a.iso", "job:abcd", "job:/a", "job:abcd/", "job:abcd/a=../b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
