//! `artel job fetch`, and what `--download` does: waits for jobs, and brings their agreed outputs into a folder.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use attest::{bundle::Bundle, verify};
use futures::StreamExt;
use protocol::{JobId, Sha256, words::RelativePath};
use sha2::Digest as _;
use web::{
    Backend, Client,
    api::{ApiError, FileView, JobDetail},
    backend::ByteRange,
};

use super::{group, show, watch, watch::Until};
use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    clock,
};

/// Which jobs, and where to
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Fetch {
    /// Jobs, or groups of jobs, by id or its first digits
    #[arg(required = true)]
    what: Vec<String>,
    /// The folder; each job of a group gets its own in it
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

/// A file that was brought.
#[derive(Debug, serde::Serialize)]
pub(super) struct Fetched {
    job: JobId,
    file: PathBuf,
    sha256: Sha256,
}

impl Fetch {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let mut jobs = Vec::new();
        for what in &self.what {
            jobs.extend(group::members(context, what).await?);
        }
        wait_and_fetch(context, &jobs, Some(&self.into)).await.map(|(code, _)| code)
    }
}

/// Waits for jobs, fetches what they made where that was asked for, and gives the first exit code that is not 0.
pub(super) async fn wait_and_fetch(
    context: &Context,
    jobs: &[JobId],
    into: Option<&Path>,
) -> anyhow::Result<(u8, Vec<JobDetail>)> {
    let (client, mut code, mut ended) = (context.client(), exit::DONE, Vec::new());
    let mut fetched = Vec::new();
    for job in jobs {
        let detail = watch(&client, *job, Until::Over).await?;
        let own = show::exit_code(&detail);
        code = if code == exit::DONE { own } else { code };
        if let Some(folder) = into.filter(|_| own == exit::DONE) {
            let folder = match &detail.summary.group {
                Some(group) => folder.join(&group.variant),
                None => folder.to_owned(),
            };
            fetched.extend(fetch(context, &client, *job, &folder).await?);
        } else if into.is_some() {
            anstream::eprintln!("job {} is {}: it has no agreed outputs", job.short(), detail.summary.state);
        }
        ended.push(detail);
    }
    if into.is_some() {
        match context.format {
            Format::Json => output::json(&fetched)?,
            Format::People => {
                for one in &fetched {
                    output::line(&format!("{} {}", one.sha256, one.file.display()))?;
                }
            }
        }
    }
    Ok((code, ended))
}

/// Brings a job's agreed outputs here and checks each, against the job's evidence where the node has it.
async fn fetch(context: &Context, client: &Client, job: JobId, folder: &Path) -> anyhow::Result<Vec<Fetched>> {
    let files = client.bring(job).await?;
    let proof = proof(context, client, job).await?;
    let mut fetched = Vec::new();
    for file in &files {
        // The node is ours, but what it repeats is a builder's word.
        let name = RelativePath::new(file.name.as_str()).map_err(|error| anyhow::anyhow!("{}: {error}", file.name))?;
        if let Some(proof) = &proof {
            proof.file(&file.name, &file.sha256).with_context(|| format!("{} is not proven", file.name))?;
        }
        let path = folder.join(name.as_str());
        write(client, file, &path).await?;
        fetched.push(Fetched { job, file: path, sha256: file.sha256 });
    }
    Ok(fetched)
}

/// Checks the evidence of a job, without belief in who gave it.
async fn proof(context: &Context, client: &Client, job: JobId) -> anyhow::Result<Option<verify::Proof>> {
    let bytes = match client.bundle(job).await {
        Ok(bytes) => bytes,
        Err(ApiError::Unavailable { reason }) => {
            anstream::eprintln!("not checked against the evidence: {reason}");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let network = crate::config::Config::load(&context.home)?.network.id;
    let proof = verify::verify(&Bundle::from_bytes(&bytes)?, &network, clock::now())?;
    anyhow::ensure!(proof.job == job, "the evidence is for job {}", proof.job);
    Ok(Some(proof))
}

/// Writes one file; it appears under its name only when its content is what was agreed.
async fn write(client: &Client, file: &FileView, path: &Path) -> anyhow::Result<()> {
    let hash = file.hash.with_context(|| format!("nobody knows where {} is", file.name))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let part = path.with_added_extension("part");
    let cannot = || format!("{} cannot be written", part.display());
    let mut new = std::fs::File::create(&part).with_context(cannot)?;
    let (mut digest, mut size) = (sha2::Sha256::new(), 0);
    let mut content = client.blob(hash, ByteRange::All).await?.bytes;
    while let Some(piece) = content.next().await {
        let piece = piece?;
        digest.update(&piece);
        size += piece.len() as u64;
        new.write_all(&piece).with_context(cannot)?;
    }
    if size != file.size || Sha256::from_bytes(digest.finalize().into()) != file.sha256 {
        // What is wrong must not lie there for somebody to take.
        let _ = std::fs::remove_file(&part);
        return Err(exit::failure(exit::FAILED, format!("{} is not what was agreed", file.name)).into());
    }
    std::fs::rename(&part, path).with_context(cannot)?;
    Ok(())
}
