//! Jobs that were asked for together: found by their group, and asked for again with fresh environments (a *respin*).

use std::collections::BTreeMap;

use anyhow::Context as _;
use protocol::{
    FileName, Hash, JobId, PublicKey,
    environment::{EnvironmentLock, Family},
    job::{Group, JobKind, JobRequest, Schedule},
    limits,
};
use web::{
    Backend,
    api::{JobFilter, JobSummary},
    backend::ByteRange,
};

use super::{
    Until,
    evidence::{self, Asked},
    exit,
    fetch::{self, Evidence},
    find, image,
};
use crate::{
    cli::{
        Context,
        output::{self, Format},
    },
    clock,
    config::Config,
    keys,
    resolve::{
        archive::{Archive, Refresh},
        further::Repository,
    },
    submit::{
        self, Wish,
        variants::{self, Earlier},
    },
};

/// Which jobs to ask for again
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Respin {
    /// A group, or one job, by id or its first digits
    what: String,
    /// The maintainer's key: its name, or the path of its file
    #[arg(long, default_value = "maintainer")]
    key: keys::Word,
    /// Where images reach this network's repositories
    #[arg(long, value_name = "URL")]
    public: Option<String>,
    /// Return when all are accepted
    #[arg(long)]
    queue: bool,
    /// Bring the agreed outputs of all into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "queue")]
    download: Option<std::path::PathBuf>,
}

/// Makes the id of a new group.
pub(super) fn new_id() -> anyhow::Result<Hash> {
    Ok(Hash::of(&keys::random()?))
}

/// Finds a group by its id or its first digits.
pub(super) async fn find_group(context: &Context, text: &str) -> anyhow::Result<Option<Hash>> {
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    let begins = Some(text.to_owned());
    let filter = JobFilter { begins, limit: Some(JobFilter::LIMIT_MAX), ..JobFilter::default() };
    let page = context.client().jobs(filter).await?;
    let groups = page.jobs.iter().filter_map(|job| job.group.as_ref().map(|group| group.id));
    let mut matching: Vec<Hash> = groups.filter(|id| text.len() >= 4 && id.to_string().starts_with(text)).collect();
    matching.sort();
    matching.dedup();
    match matching[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(exit::failure(exit::FAILED, format!("{} groups begin with {text:?}", matching.len()))
            .hint("give more digits")
            .into()),
    }
}

/// Gives the jobs of a group, the oldest first, or the one job that is named.
pub(super) async fn members(context: &Context, text: &str) -> anyhow::Result<Vec<JobId>> {
    if let Some(id) = find_group(context, text).await? {
        let filter = JobFilter { group: Some(id), limit: Some(JobFilter::LIMIT_MAX), ..JobFilter::default() };
        let mut jobs: Vec<JobSummary> = context.client().jobs(filter).await?.jobs;
        if !jobs.is_empty() {
            jobs.sort_by_key(|job| (job.accepted, job.id));
            return Ok(jobs.into_iter().map(|job| job.id).collect());
        }
    }
    Ok(vec![find(context, text).await?])
}

impl Respin {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let key = context.signer(&self.key)?;
        let old = members(context, &self.what).await?;
        let client = context.client();
        let (id, mut now_called, mut origins) = (new_id()?, BTreeMap::new(), Vec::new());
        // All are prepared before the first is submitted: half a respin helps nobody.
        let mut prepared = Vec::new();
        for job in &old {
            let named = || format!("job {}", job.short());
            let (maintainer, earlier) = self.earlier(context, *job).await.with_context(named)?;
            origins.push((maintainer, earlier.request.schedule.group.as_ref().map(|group| group.id)));
            belong_together(&self.what, &origins).with_context(named)?;
            let own = if earlier.system.is_some() {
                let around = image::surroundings(context, &earlier.request.channel, self.public.clone()).await?;
                around.own.into_iter().map(|(_, repository)| repository).collect()
            } else {
                Vec::new()
            };
            anstream::eprintln!("locking the environment of {} anew ...", earlier.request.title());
            prepared.push((*job, again(context, earlier.clone(), own).await?, earlier.request));
        }
        for (job, ready, request) in prepared {
            let schedule = schedule(&request, id, old.len(), &now_called)?;
            let lifetime = request.expires.since(request.created);
            let wish = Wish { channel: request.channel.clone(), limits: request.limits, lifetime, schedule };
            let submitted = submit::submit(&client, &ready, &wish, clock::now(), &key).await?;
            anstream::eprintln!("job {} accepted, as {} was", submitted.job, job.short());
            now_called.insert(job, submitted.job);
        }
        let jobs: Vec<JobId> = old.iter().filter_map(|job| now_called.get(job).copied()).collect();
        finish(context, &jobs, if self.queue { Until::Accepted } else { Until::Over }, self.download.as_deref()).await
    }

    /// Gets who asked for a job and with what, from its evidence.
    async fn earlier(&self, context: &Context, job: JobId) -> anyhow::Result<(PublicKey, Earlier)> {
        let client = context.client();
        let network = Config::load(&context.home)?.network.id;
        let Asked { request, maintainer, environment } = evidence::asked(&client, &network, job).await?;
        if environment.family == Family::Rpm {
            let what = format!("job {} has an environment of RPMs, which respin does not lock", job.short());
            let hint = "lock it with artel env lock, and submit the job with --environment";
            return Err(exit::failure(exit::FAILED, what).hint(hint).into());
        }
        let system = if let JobKind::Image(image) = &request.kind {
            let content = client.blob(image.packages.hash, ByteRange::All).await?.collect(limits::LOCK_MAX).await?;
            anyhow::ensure!(Hash::of(&content) == image.packages.hash, "the packages are not those that the job names");
            Some(EnvironmentLock::from_bytes(&content)?)
        } else {
            None
        };
        Ok((maintainer, Earlier { request, environment, system }))
    }
}

/// Checks, of the jobs so far, that several are one group that one maintainer asked for: a node lists them, and all get signed.
fn belong_together(what: &str, origins: &[(PublicKey, Option<Hash>)]) -> anyhow::Result<()> {
    if let [first, .., last] = origins {
        anyhow::ensure!(first.0 == last.0, "another maintainer asked for it than for the others of its group");
        let group = last.1.filter(|id| first.1.as_ref() == Some(id) && id.to_string().starts_with(what));
        anyhow::ensure!(group.is_some(), "it does not belong to group {what}");
    }
    Ok(())
}

/// Locks anew; apt runs in a thread of its own.
async fn again(context: &Context, earlier: Earlier, own: Vec<Repository>) -> anyhow::Result<submit::Prepared> {
    let state = context.home.archive();
    tokio::task::spawn_blocking(move || {
        let lock = &earlier.environment;
        let archive = Archive::open(&state, lock.suite.clone(), lock.arch)?;
        archive.update(clock::now(), Refresh::WhenStale)?;
        Ok(variants::again(&archive, &earlier, &own)?)
    })
    .await?
}

/// What a job had to wait for among the others it waits for again; the rest has ended.
fn schedule(
    request: &JobRequest,
    id: Hash,
    count: usize,
    now_called: &BTreeMap<JobId, JobId>,
) -> anyhow::Result<Schedule> {
    let mut after: Vec<JobId> = request.schedule.after.iter().filter_map(|job| now_called.get(job).copied()).collect();
    after.sort();
    let group = match &request.schedule.group {
        Some(group) => Some(Group { id, variant: group.variant.clone() }),
        None if count > 1 => Some(Group { id, variant: FileName::new(request.arch.to_string())? }),
        None => None,
    };
    Ok(Schedule { after, group, not_before: None, ..request.schedule.clone() })
}

/// Says which jobs were accepted, or waits for all of them.
pub(super) async fn finish(
    context: &Context,
    jobs: &[JobId],
    until: Until,
    download: Option<&std::path::Path>,
) -> anyhow::Result<u8> {
    if until == Until::Accepted {
        match context.format {
            Format::Json => output::json(&jobs)?,
            Format::People => {
                for job in jobs {
                    output::line(&job.to_string())?;
                }
            }
        }
        return Ok(exit::DONE);
    }
    let (code, ended) = fetch::wait_and_fetch(context, jobs, download, Evidence::Needed).await?;
    if download.is_none() {
        match context.format {
            Format::Json => output::json(&ended)?,
            Format::People => {
                let row = |detail: &web::api::JobDetail| {
                    let summary = &detail.summary;
                    let variant = summary.group.as_ref().map_or_else(String::new, |group| group.variant.to_string());
                    vec![
                        summary.id.short(),
                        format!("{} {}", summary.state.symbol(), summary.state),
                        variant,
                        summary.title.clone(),
                    ]
                };
                output::table(&["JOB", "STATE", "VARIANT", "WHAT"], ended.iter().map(row).collect())?;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use protocol::testing::public_key;

    use super::*;

    #[test]
    fn jobs_that_are_asked_for_again_are_one_group_of_one_maintainer() {
        let (maria, mallory, group, other) = (public_key(1), public_key(2), Hash::of(b"group"), Hash::of(b"other"));
        let what = &group.to_string()[..8];
        assert!(belong_together("3f2a", &[(maria, None)]).is_ok(), "one job is named by itself");
        assert!(belong_together(what, &[(maria, Some(group)), (maria, Some(group))]).is_ok());
        for strange in [(mallory, Some(group)), (maria, Some(other)), (maria, None)] {
            assert!(belong_together(what, &[(maria, Some(group)), strange]).is_err(), "{strange:?}");
        }
        assert!(
            belong_together(what, &[(maria, Some(other)), (maria, Some(other))]).is_err(),
            "not what was asked for"
        );
    }
}
