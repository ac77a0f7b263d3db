//! `artel job`: submit and watch jobs.

mod buildinfo;
mod diff;
pub(super) mod evidence;
mod fetch;
mod group;
mod image;
mod input;
mod limits;
mod many;
mod orders;
mod rpm;
mod show;
mod signature;
mod watch;
mod when;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use futures::StreamExt;
use protocol::{
    Arch, ChannelName, JobId, PackageName, SuiteName, Verified,
    job::{Change, Group, Priority},
    lease::LeaseNumber,
};
use web::{
    Backend,
    api::{JobFilter, JobState, Submitted},
    backend::{Follow, LogRequest},
};

pub(super) use rpm::mapping;
pub(super) use show::exit_code;
pub(crate) use watch::{Until, watch};
pub(super) use when::Begin;

use self::input::Patience;
use super::{
    Context, exit,
    output::{self, Format},
    policy,
};
use crate::{
    clock,
    config::Config,
    keys,
    resolve::{
        archive::{self, Archive, Refresh},
        source,
    },
    submit::{
        self, DebWords, Prepared, Wish,
        image::{Recipe, Surroundings},
        variants::Variant,
    },
};

/// Submit and watch jobs
#[derive(Debug, Subcommand)]
pub(super) enum Job {
    /// Submit a job and return when it is accepted
    Queue(Submit),
    /// Submit a job and wait until a build starts
    Start(Submit),
    /// Submit a job, wait for its end, and exit with its result
    Run(Submit),
    /// List jobs, newest first
    Ls(List),
    /// Show one job: attempts, verdict, why it waits
    Show {
        /// The job's id, or its first digits
        job: String,
    },
    /// Wait for jobs or groups of jobs, and bring their agreed outputs into a folder
    Fetch(fetch::Fetch),
    /// Ask for a job, or for all jobs of a group, once more, with the newest packages
    Respin(group::Respin),
    /// Print what diffoscope found between the attempts of a job that differ
    Diff(diff::Diff),
    /// Print the .buildinfo that the build of one operator wrote
    Buildinfo(buildinfo::Buildinfo),
    /// Print the log of one attempt
    Log(Log),
    /// Write a maintainer's SSH signature of a job for `ssh-keygen -Y verify`
    Signature(signature::Export),
    /// End a job; every copy that runs is stopped
    Cancel(orders::Target),
    /// Have a job rest: copies that run are stopped, none begins, its deadline goes on
    Suspend(orders::Target),
    /// Let a suspended job go on
    Resume(orders::Target),
    /// Begin again a job that ended badly, with a fresh round of opinions; publish again what could not be published
    Retry(orders::Target),
    /// Change how urgent a job is among your own: 0 is last, 9 is first
    Priority {
        #[command(flatten)]
        target: orders::Target,
        /// 0 to 9
        #[arg(value_parser = clap::value_parser!(u8).range(0..=9))]
        level: u8,
    },
}

/// What to build, and how
#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    /// A .dsc, .spec or .src.rpm file, a command file or the recipe of an image (.toml), a live system to start (.iso), an
    /// environment to make as an image (.lock), or the name of a source package of the archive (NAME or NAME=VERSION)
    what: String,
    /// The channel
    #[arg(long, default_value = "main")]
    channel: ChannelName,
    /// The maintainer's key: its name, or the path of its file
    #[arg(long, default_value = "maintainer")]
    key: keys::Word,
    /// Words of DEB_BUILD_OPTIONS, for instance nocheck
    #[arg(long, value_delimiter = ',')]
    option: Vec<String>,
    /// Words of DEB_BUILD_PROFILES
    #[arg(long, value_delimiter = ',')]
    profile: Vec<String>,
    /// Further packages in the environment of a source's build; with lintian or rpmlint, each builder looks over what it built
    #[arg(long, value_delimiter = ',', value_name = "PACKAGE")]
    with: Vec<PackageName>,
    #[command(flatten)]
    rpm: rpm::RpmWords,
    /// The archive's suite that gives sources and environment [default: this system's]
    #[arg(long)]
    suite: Option<SuiteName>,
    /// A lock as `env lock` wrote it, instead of what the archive has now
    #[arg(long, value_name = "FILE")]
    environment: Option<PathBuf>,
    #[command(flatten)]
    limits: limits::LimitWords,
    #[command(flatten)]
    many: many::Many,
    /// An agreed output of another job as an input, which appears at PATH; the job begins after that one; may be repeated
    #[arg(long = "input", value_name = "job:ID/FILE[=PATH]")]
    inputs: Vec<input::FromJob>,
    /// Wait for the jobs that inputs come from
    #[arg(long)]
    wait: bool,
    /// Bring the agreed outputs into this folder; each variant gets its own in it
    #[arg(long, value_name = "DIR")]
    download: Option<PathBuf>,
    /// Where images reach this network's repositories, for @REPOSITORY@ in recipes [default: this node's own address]
    #[arg(long, value_name = "URL")]
    public: Option<String>,
    /// Begin only when these jobs have ended well; when one does not, this one is skipped (ids, or their first digits)
    #[arg(long, value_delimiter = ',', value_name = "JOB")]
    after: Vec<String>,
    #[command(flatten)]
    when: when::When,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only jobs in this state
    #[arg(long)]
    state: Option<State>,
    /// Only jobs of this channel
    #[arg(long)]
    channel: Option<ChannelName>,
    /// Only jobs of this kind: deb, rpm, command, image, publish, promote, prune, derive, diff, explain; or build, or server
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs of this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Only jobs of this group (its id, or its first digits)
    #[arg(long)]
    group: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Waiting,
    Building,
    Publishing,
    Running,
    Published,
    Reproduced,
    Done,
    Disputed,
    Unreproducible,
    Failed,
    Skipped,
    Cancelled,
    Expired,
}

#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// The job's id, or its first digits
    job: String,
    /// Which attempt, by the number that `job show` prints [default: the newest]
    #[arg(long)]
    attempt: Option<u64>,
    /// Stay until the attempt is over
    #[arg(short, long)]
    follow: bool,
}

impl Job {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Job::Queue(submit) => submit.run(context, Until::Accepted).await,
            Job::Start(submit) => submit.run(context, Until::Started).await,
            Job::Run(submit) => submit.run(context, Until::Over).await,
            Job::Ls(list) => list.run(context).await,
            Job::Show { job } => show::run(context, find(context, &job).await?).await,
            Job::Diff(diff) => diff.run(context).await,
            Job::Buildinfo(buildinfo) => buildinfo.run(context).await,
            Job::Fetch(fetch) => fetch.run(context).await,
            Job::Respin(respin) => respin.run(context).await,
            Job::Log(log) => log.run(context).await,
            Job::Signature(export) => export.run(context).await,
            Job::Cancel(target) => target.order(context, Change::Cancel).await,
            Job::Suspend(target) => target.order(context, Change::Suspend).await,
            Job::Resume(target) => target.order(context, Change::Resume).await,
            Job::Retry(target) => target.order(context, Change::Retry).await,
            Job::Priority { target, level } => target.order(context, Change::Reprioritise(Priority(level))).await,
        }
    }
}

impl Submit {
    /// Gives what is to be built, as it was named.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) async fn run(self, context: &Context, until: Until) -> anyhow::Result<u8> {
        let key = context.signer(&self.key)?;
        Config::load(&context.home)?;
        let client = context.client();
        client.status().await?;
        let policy = if self.when.names_peers() { Some(policy::in_force(context).await?) } else { None };
        let after = find_all(context, &self.after).await?;
        // Before the long work: a mistake is told at once.
        self.when.schedule(policy.as_ref().map(Verified::get), clock::now())?;
        let patience = if self.wait { Patience::Wait } else { Patience::Refuse };
        let mut found = Vec::new();
        for wanted in &self.inputs {
            found.push(wanted.find(context, patience).await?);
        }
        let limits = self.limits.limits();
        let mut ready = Vec::new();
        for (arch, variant) in self.many.all()? {
            ready.push((self.many.name(arch, variant.as_ref())?, self.prepare(context, arch, variant).await?));
        }
        let (group, mut jobs) = (group::new_id()?, Vec::new());
        for (variant, prepared) in ready {
            let prepared = input::add(prepared, &found)?;
            let now = clock::now();
            let mut schedule = self.when.schedule(policy.as_ref().map(Verified::get), now)?;
            schedule.after = after.iter().copied().chain(found.iter().map(|one| one.job)).collect();
            schedule.after.sort();
            schedule.after.dedup();
            schedule.group = variant.map(|variant| Group { id: group, variant });
            let wish = Wish { channel: self.channel.clone(), limits, lifetime: self.when.lifetime(), schedule };
            let submitted = submit::submit(&client, &prepared, &wish, now, &key).await?;
            anstream::eprintln!("job {} accepted", submitted.job);
            jobs.push(submitted);
        }
        if self.many.is_several() {
            anstream::eprintln!("group {group}");
            let jobs: Vec<JobId> = jobs.iter().map(|submitted| submitted.job).collect();
            return group::finish(context, &jobs, until, self.download.as_deref()).await;
        }
        self.follow(context, &jobs[0], until).await
    }

    /// Waits for the one job that was submitted, as far as that was asked for.
    async fn follow(&self, context: &Context, submitted: &Submitted, until: Until) -> anyhow::Result<u8> {
        if let (Until::Over, Some(folder)) = (until, &self.download) {
            return group::finish(context, &[submitted.job], until, Some(folder)).await;
        }
        match until {
            Until::Accepted => {
                match context.format {
                    Format::Json => output::json(submitted)?,
                    Format::People => output::line(&submitted.job.to_string())?,
                }
                Ok(exit::DONE)
            }
            Until::Started | Until::Over => {
                let detail = watch(&context.client(), submitted.job, until).await?;
                match context.format {
                    Format::Json => output::json(&detail)?,
                    Format::People => output::line(&show::text(&detail))?,
                }
                Ok(show::exit_code(&detail))
            }
        }
    }

    /// Resolves what was named, for one architecture and variant; apt runs in a thread of its own.
    async fn prepare(&self, context: &Context, arch: Arch, variant: Option<Variant>) -> anyhow::Result<Prepared> {
        let suite = self.suite.clone().map_or_else(archive::system_suite, Ok)?;
        let (what, state) = (self.what.clone(), context.home.archive());
        let (rpm, with) = (self.rpm.clone(), self.with.clone());
        let words = DebWords { options: self.option.clone(), profiles: self.profile.clone() };
        let environment = self.environment.as_deref().map(super::env::read_file).transpose()?;
        let around = match image::is_recipe(Path::new(&what)) {
            true => Some(image::surroundings(context, &self.channel, self.public.clone()).await?),
            false => None,
        };
        many::fits(&what, around.is_some(), variant.as_ref())?;
        anstream::eprintln!("locking the environment of {what} for {arch} ...");
        tokio::task::spawn_blocking(move || {
            let archive = Archive::open(&state, suite, arch)?;
            archive.update(clock::now(), Refresh::WhenStale)?;
            let words = variant.as_ref().map_or_else(|| words.clone(), |variant| variant.words(&words));
            let prepared = match around {
                Some(around) => recipe(&archive, Path::new(&what), &around, variant.as_ref())?,
                None => match rpm.prepare(&archive, &what, &with, environment.as_ref())? {
                    Some(prepared) => prepared,
                    None => prepare(&archive, &what, (&words, &with), &state.join("sources"))?,
                },
            };
            match environment {
                Some(lock) => Ok(prepared.with_environment(lock, &state)?),
                None => Ok(prepared),
            }
        })
        .await?
    }
}

fn prepare(
    archive: &Archive,
    what: &str,
    (words, with): (&DebWords, &[PackageName]),
    sources: &Path,
) -> anyhow::Result<Prepared> {
    let path = Path::new(what);
    let is_file = |ending: &str| path.extension().is_some_and(|e| e == ending);
    if is_file("toml") {
        return Ok(submit::command(archive, path)?);
    }
    if is_file(submit::environment::SUFFIX) {
        let state = sources.parent().context("the sources lie in the archive's folder")?;
        return Ok(submit::environment::environment(archive, &super::env::read_file(path)?, state)?);
    }
    if is_file("iso") {
        return Ok(submit::boot::boot(archive, path)?);
    }
    let source = if is_file("dsc") {
        source::read_source(path)?
    } else {
        source::fetch_source(archive, what, &folder_for(sources, what))?
    };
    Ok(submit::deb(archive, &source.with_packages(with), words)?)
}

fn recipe(
    archive: &Archive,
    path: &Path,
    around: &Surroundings,
    variant: Option<&Variant>,
) -> anyhow::Result<Prepared> {
    let recipe = Recipe::read(path)?;
    let recipe = variant.map_or_else(|| Ok(recipe.clone()), |variant| recipe.variant(&variant.name))?;
    // A name alone has an empty folder.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(submit::image::image(archive, &recipe, folder, around)?)
}

fn folder_for(sources: &Path, what: &str) -> PathBuf {
    let safe: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() || "+-.".contains(c) { c } else { '_' }).collect();
    sources.join(format!("{safe}_"))
}

/// Finds a job by its id or the beginning of it.
pub(super) async fn find(context: &Context, text: &str) -> anyhow::Result<JobId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let begins = Some(text.to_owned());
    let filter = JobFilter { begins, limit: Some(JobFilter::LIMIT_MAX), ..JobFilter::default() };
    let page = context.client().jobs(filter).await?;
    let matching: Vec<JobId> =
        page.jobs.iter().map(|j| j.id).filter(|id| text.len() >= 4 && id.to_string().starts_with(text)).collect();
    match matching[..] {
        [one] => Ok(one),
        [] => Err(exit::failure(exit::FAILED, format!("no job {text:?}"))
            .hint("`artel job ls` lists jobs; give at least four digits of the id")
            .into()),
        _ => Err(exit::failure(exit::FAILED, format!("{} jobs begin with {text:?}", matching.len()))
            .hint("give more digits")
            .into()),
    }
}

/// Finds jobs by their ids or the beginning of them; sorted, each once.
pub(super) async fn find_all(context: &Context, texts: &[String]) -> anyhow::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    for text in texts {
        jobs.push(find(context, text).await?);
    }
    jobs.sort();
    jobs.dedup();
    Ok(jobs)
}

impl List {
    async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let state = self.state.map(|s| {
            let word = s.to_possible_value().expect("no state is hidden").get_name().to_owned();
            word.parse::<JobState>().expect("both lists have the same words")
        });
        let group = match &self.group {
            Some(text) => Some(group::find_group(context, text).await?.with_context(|| format!("no group {text:?}"))?),
            None => None,
        };
        let filter = JobFilter {
            state,
            kind: self.kind,
            arch: self.arch,
            channel: self.channel,
            group,
            limit: Some(self.limit),
            ..JobFilter::default()
        };
        let page = context.client().jobs(filter).await?;
        match context.format {
            Format::Json => output::json(&page)?,
            Format::People => {
                let row = |job: &web::api::JobSummary| {
                    vec![
                        job.id.short(),
                        format!("{} {}", job.state.symbol(), job.state),
                        format!("{}/{}", job.agreement.agree, job.agreement.needed),
                        many::title(job),
                        job.why.clone(),
                    ]
                };
                let rows = page.jobs.iter().map(row).collect();
                output::table(&["JOB", "STATE", "AGREE", "WHAT", "WHY"], rows)?;
            }
        }
        Ok(exit::DONE)
    }
}

impl Log {
    async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let request = LogRequest {
            job: find(context, &self.job).await?,
            attempt: self.attempt.map(LeaseNumber),
            from: 0,
            follow: if self.follow { Follow::Yes } else { Follow::No },
        };
        let mut log = context.client().log(request).await?;
        while let Some(piece) = log.next().await {
            // Build output is a stranger's text: it must not drive the terminal.
            let text = output::printable(&String::from_utf8_lossy(&piece?));
            let mut out = std::io::stdout().lock();
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
        Ok(exit::DONE)
    }
}
