//! `artel job fetch`, and what `--download` does: waits for jobs, and brings their agreed outputs into a folder.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use futures::StreamExt;
use protocol::{FileName, JobId, Sha256, words::RelativePath};
use sha2::Digest as _;
use web::{
    Backend, Client,
    api::{ApiError, FileView, JobDetail, JobSummary},
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
        apart(&folders(context, &jobs).await?)?;
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
            fetched.extend(fetch(context, &detail.summary, folder, evidence).await?);
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

/// Gives the names that jobs have in their groups: what folders they get.
async fn folders(context: &Context, jobs: &[JobId]) -> anyhow::Result<Vec<(JobId, FileName)>> {
    let (client, mut folders) = (context.client(), Vec::new());
    for job in jobs {
        let group = client.job(*job).await?.summary.group;
        folders.extend(group.map(|group| (*job, group.variant)));
    }
    Ok(folders)
}

/// Refuses two jobs with one folder: the files of both would pass for those of one.
fn apart(folders: &[(JobId, FileName)]) -> anyhow::Result<()> {
    let mut taken: BTreeMap<&FileName, JobId> = BTreeMap::new();
    for (job, folder) in folders {
        if let Some(other) = taken.insert(folder, *job).filter(|other| other != job) {
            let what = format!("jobs {} and {} would both get the folder {folder}", other.short(), job.short());
            return Err(exit::failure(exit::FAILED, what)
                .hint("fetch them one by one, each --into its own folder")
                .into());
        }
    }
    Ok(())
}

/// Gives the folder of a job's files: its own where it has a name among others.
fn own_folder(folder: &Path, variant: Option<&FileName>) -> PathBuf {
    variant.map_or_else(|| folder.to_owned(), |variant| folder.join(variant.as_str()))
}

/// Brings a job's agreed outputs here and checks each, against the job's evidence.
async fn fetch(
    context: &Context,
    summary: &JobSummary,
    folder: &Path,
    evidence: Evidence,
) -> anyhow::Result<Vec<Fetched>> {
    let (client, job) = (context.client(), summary.id);
    let files = client.bring(job).await?;
    check(context, summary, &files, evidence).await?;
    let folder = own_folder(folder, summary.group.as_ref().map(|group| &group.variant));
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
async fn check(context: &Context, job: &JobSummary, files: &[FileView], evidence: Evidence) -> anyhow::Result<()> {
    let network = Config::load(&context.home)?.network.id;
    match evidence::prove(&context.client(), &network, job.id).await {
        Ok(proof) => {
            let asked = proof.request.schedule.group.as_ref().map(|group| (group.id, &group.variant));
            let told = job.group.as_ref().map(|group| (group.id, &group.variant));
            anyhow::ensure!(asked == told, "job {} was asked for in another group, or none", job.id.short());
            evidence::check(&proof, files)
        }
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

/// Writes one file; it appears under its name only when its content is what was agreed, and never in the place of another.
async fn write(client: &Client, file: &FileView, path: &Path) -> anyhow::Result<()> {
    let hash = file.hash.with_context(|| format!("nobody knows where {} is", file.name))?;
    if lies_there(path, &file.sha256)? {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let cannot = || format!("{} cannot be written", path.display());
    // What is wrong must not lie there for somebody to take: it goes when this returns.
    let mut new =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(parent).with_context(cannot)?;
    let (mut digest, mut size) = (sha2::Sha256::new(), 0);
    let mut content = client.blob(hash, ByteRange::All).await?.bytes;
    while let Some(piece) = content.next().await {
        let piece = piece?;
        digest.update(&piece);
        size += piece.len() as u64;
        new.write_all(&piece).with_context(cannot)?;
    }
    if size != file.size || Sha256::from_bytes(digest.finalize().into()) != file.sha256 {
        return Err(exit::failure(exit::FAILED, format!("{} is not what was agreed", file.name)).into());
    }
    new.persist_noclobber(path).with_context(cannot)?;
    Ok(())
}

/// Says whether a file lies there already; one of other content is an error.
fn lies_there(path: &Path, wanted: &Sha256) -> anyhow::Result<bool> {
    let cannot = || format!("{} cannot be read", path.display());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(cannot),
    };
    let (mut digest, mut piece) = (sha2::Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece).with_context(cannot)? {
            0 => break,
            size => digest.update(&piece[..size]),
        }
    }
    if Sha256::from_bytes(digest.finalize().into()) == *wanted {
        return Ok(true);
    }
    let what = format!("{} is there with other content, and is not replaced", path.display());
    Err(exit::failure(exit::FAILED, what).hint("move it away, or name another folder").into())
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

    #[test]
    fn two_jobs_get_no_folder_together() {
        let (one, other) = (JobId::from(protocol::Hash::of(b"one")), JobId::from(protocol::Hash::of(b"other")));
        let named = |name: &str| name.parse::<FileName>().unwrap();
        assert!(apart(&[(one, named("amd64")), (other, named("arm64")), (one, named("amd64"))]).is_ok());
        let said = apart(&[(one, named("amd64")), (other, named("amd64"))]).unwrap_err().to_string();
        assert!(said.ends_with("would both get the folder amd64"), "{said}");
    }

    #[test]
    fn a_file_of_other_content_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        assert!(!lies_there(&path, &Sha256::of(b"a")).unwrap());
        std::fs::write(&path, "a").unwrap();
        assert!(lies_there(&path, &Sha256::of(b"a")).unwrap());
        let said = lies_there(&path, &Sha256::of(b"b")).unwrap_err().to_string();
        assert!(said.ends_with("is there with other content, and is not replaced"), "{said}");
    }
}
