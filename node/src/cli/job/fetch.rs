//! `artel job fetch`, and what `--download` does: waits for jobs, and brings their agreed outputs into a folder.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use futures::StreamExt;
use protocol::{FileName, JobId, Sha256, words::RelativePath};
use sha2::Digest as _;
use web::{
    Backend, Client,
    api::{ApiError, FileView, JobDetail},
    backend::ByteRange,
};

use super::{evidence, group, show, watch, watch::Until};
use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    config::Config,
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
    /// Take also what no evidence can be had for, on this node's word
    #[arg(long)]
    unchecked: bool,
}

/// Whether files may come without evidence of who made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    Needed,
    WhereThereIsAny,
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
        let evidence = if self.unchecked { Evidence::WhereThereIsAny } else { Evidence::Needed };
        wait_and_fetch(context, &jobs, Some(&self.into), evidence).await.map(|(code, _)| code)
    }
}

/// Waits for jobs, fetches what they made where that was asked for, and gives the first exit code that is not 0.
pub(super) async fn wait_and_fetch(
    context: &Context,
    jobs: &[JobId],
    into: Option<&Path>,
    evidence: Evidence,
) -> anyhow::Result<(u8, Vec<JobDetail>)> {
    let (client, mut code, mut ended) = (context.client(), exit::DONE, Vec::new());
    let mut fetched = Vec::new();
    for job in jobs {
        let detail = watch(&client, *job, Until::Over).await?;
        let own = show::exit_code(&detail);
        code = if code == exit::DONE { own } else { code };
        if let Some(folder) = into.filter(|_| own == exit::DONE) {
            let folder = own_folder(folder, detail.summary.group.as_ref().map(|group| &group.variant));
            fetched.extend(fetch(context, *job, &folder, evidence).await?);
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

/// Gives the folder of a job's files: its own where it has a name among others.
fn own_folder(folder: &Path, variant: Option<&FileName>) -> PathBuf {
    variant.map_or_else(|| folder.to_owned(), |variant| folder.join(variant.as_str()))
}

/// Brings a job's agreed outputs here and checks each, against the job's evidence.
async fn fetch(context: &Context, job: JobId, folder: &Path, evidence: Evidence) -> anyhow::Result<Vec<Fetched>> {
    let client = context.client();
    let files = client.bring(job).await?;
    check(context, job, &files, evidence).await?;
    let mut fetched = Vec::new();
    for file in &files {
        // The node is ours, but what it repeats is a builder's word.
        let name = RelativePath::new(file.name.as_str()).map_err(|error| anyhow::anyhow!("{}: {error}", file.name))?;
        let path = folder.join(name.as_str());
        write(&client, file, &path).await?;
        fetched.push(Fetched { job, file: path, sha256: file.sha256 });
    }
    Ok(fetched)
}

/// Checks files against the evidence of the job; none is an error, unless that was allowed.
async fn check(context: &Context, job: JobId, files: &[FileView], evidence: Evidence) -> anyhow::Result<()> {
    let network = Config::load(&context.home)?.network.id;
    match evidence::prove(&context.client(), &network, job).await {
        Ok(proof) => evidence::check(&proof, files),
        Err(error) if evidence == Evidence::WhereThereIsAny && is_missing(&error) => {
            anstream::eprintln!("not checked: {}", output::printable(&format!("{error:#}")));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Says whether there is no evidence to be had, unlike evidence that proves nothing.
fn is_missing(error: &anyhow::Error) -> bool {
    let api = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>());
    matches!(api, Some(ApiError::Unavailable { .. } | ApiError::NotFound { .. }))
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

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use web::api::GroupView;

    use super::*;

    #[test]
    fn a_variant_from_elsewhere_names_a_folder_in_the_one_that_was_given() {
        let read = |variant: &str| {
            let json = serde_json::json!({ "id": protocol::Hash::of(b"group"), "variant": variant });
            serde_json::from_value::<GroupView>(json)
        };
        let group = read("amd64-full").unwrap();
        assert_eq!(own_folder(Path::new("out"), Some(&group.variant)), Path::new("out/amd64-full"));
        for hostile in ["/home/alice/.ssh", "../../.ssh", "..", ".", "", "a/b", "a\u{1b}[2J"] {
            assert!(read(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn evidence_that_proves_nothing_is_not_missing() {
        let busy = Err::<(), _>(ApiError::Unavailable { reason: "busy".into() }).context("the evidence").unwrap_err();
        assert!(is_missing(&busy));
        assert!(!is_missing(&anyhow::anyhow!("no operator attests it")));
    }
}
