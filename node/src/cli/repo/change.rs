//! `artel repo promote | derive | prune | diff`: server jobs, signed with a maintainer's or a root's key.

use std::time::Duration;

use protocol::{
    Arch, ChannelName, JobId, PackageName, Timestamp,
    envelope::Record,
    job::{BuildLimits, Derive, Diff, JobKind, JobRequest, Promote, Prune, Schedule, ServerJob, Side},
};
use web::{
    Backend,
    api::JobDetail,
    backend::{Follow, LogRequest},
};

use crate::{
    cli::{
        Context, exit,
        job::{self, Begin, Until},
        output::{self, Format},
    },
    clock, keys,
};

/// The largest result of a comparison that is shown, in bytes.
const RESULT_MAX: usize = 64 << 20;

/// How a server job is asked for
#[derive(Debug, clap::Args)]
pub(super) struct Ask {
    /// The maintainer's or root's key: its name, or the path of its file
    #[arg(long, default_value = "maintainer")]
    key: keys::Word,
    /// Begin only when these jobs have ended well (ids, or their first digits)
    #[arg(long, value_delimiter = ',', value_name = "JOB")]
    after: Vec<String>,
    /// Hours until the job is over, waiting included
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=8784))]
    hours: u32,
    /// Return when the job is accepted, instead of when it has ended
    #[arg(long)]
    queue: bool,
}

/// Take packages over from another channel, where enough operators agree for this one too
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PromoteWords {
    /// The channel that has them
    from: ChannelName,
    /// The channel that gets them
    to: ChannelName,
    /// Packages by name [default: every one that qualifies]
    packages: Vec<PackageName>,
    #[command(flatten)]
    ask: Ask,
}

/// Fill a channel with what another one has
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DeriveWords {
    /// The channel to derive from
    parent: ChannelName,
    /// The channel to fill
    channel: ChannelName,
    /// Only packages of these names
    #[arg(long, value_delimiter = ',')]
    package: Vec<PackageName>,
    /// Only packages of these architectures, and those for all
    #[arg(long, value_delimiter = ',')]
    arch: Vec<Arch>,
    #[command(flatten)]
    ask: Ask,
}

/// Take packages out of a channel; their files stay for a day
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneWords {
    /// The channel
    channel: ChannelName,
    /// Only packages of these names
    packages: Vec<PackageName>,
    /// How many versions of each package stay, the newest first
    #[arg(long, default_value_t = 1)]
    keep: u16,
    /// Only what was published so long ago (12h, 90d), or before a time (2026-11-21T14:00:00Z)
    #[arg(long, value_name = "SPAN|TIME")]
    older: Option<Begin>,
    #[command(flatten)]
    ask: Ask,
}

/// Say what is different between two channels, or two generations
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DiffWords {
    /// What was: a channel, or CHANNEL@GENERATION
    left: String,
    /// What is: a channel, or CHANNEL@GENERATION
    right: String,
    #[command(flatten)]
    ask: Ask,
}

impl PromoteWords {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let work = ServerJob::Promote(Promote { from: self.from, packages: sorted(self.packages) });
        self.ask.run(context, self.to, work).await
    }
}

impl DeriveWords {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let (arches, packages) = (sorted(self.arch), sorted(self.package));
        let work = ServerJob::Derive(Derive { arches, parent: self.parent, packages });
        self.ask.run(context, self.channel, work).await
    }
}

impl PruneWords {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let before = self.older.map(|older| match older {
            Begin::In(span) => {
                let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(clock::now().as_millis().saturating_sub(span))
            }
            Begin::At(at) => at,
        });
        let work = ServerJob::Prune(Prune { keep: self.keep, before, packages: sorted(self.packages) });
        self.ask.run(context, self.channel, work).await
    }
}

impl DiffWords {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let (left, right) = (side(&self.left)?, side(&self.right)?);
        let channel = right.channel.clone();
        self.ask.run(context, channel, ServerJob::Diff(Diff { left, right })).await
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

fn side(text: &str) -> anyhow::Result<Side> {
    let (channel, generation) = match text.split_once('@') {
        None => (text, None),
        Some((channel, number)) => {
            let wrong = || exit::failure(exit::USAGE, format!("{text:?} is neither CHANNEL nor CHANNEL@GENERATION"));
            (channel, Some(number.parse().map_err(|_| wrong())?))
        }
    };
    Ok(Side { channel: channel.parse()?, generation })
}

impl Ask {
    async fn run(self, context: &Context, channel: ChannelName, work: ServerJob) -> anyhow::Result<u8> {
        let key = context.signer(&self.key)?;
        let client = context.client();
        let network = client.status().await?.network.id;
        let now = clock::now();
        let request = JobRequest {
            arch: Arch::All,
            kind: JobKind::Server(work),
            nonce: keys::random()?[..16].to_vec(),
            limits: BuildLimits::default(),
            channel,
            created: now,
            expires: now.after(Duration::from_secs(u64::from(self.hours) * 3600)),
            network,
            schedule: Schedule { after: job::find_all(context, &self.after).await?, ..Schedule::default() },
            environment: ServerJob::environment(),
        };
        request.check().map_err(|why| exit::failure(exit::USAGE, why))?;
        let signed = keys::sign(&request, Some(&network), &[&key])?;
        let submitted = client.submit(signed.to_bytes().into()).await?;
        anstream::eprintln!("job {} accepted: {}", submitted.job, request.title());
        if self.queue {
            match context.format {
                Format::Json => output::json(&submitted)?,
                Format::People => output::line(&submitted.job.to_string())?,
            }
            return Ok(exit::DONE);
        }
        let detail = job::watch(&client, submitted.job, Until::Over).await?;
        show(context, submitted.job, &detail).await?;
        Ok(job::exit_code(&detail))
    }
}

/// Shows what came of it: a comparison itself, of everything else its log.
async fn show(context: &Context, job: JobId, detail: &JobDetail) -> anyhow::Result<()> {
    use futures::StreamExt;
    let client = context.client();
    let result = detail.service.as_ref().and_then(|service| service.result);
    match (context.format, result) {
        (Format::Json, Some(hash)) => {
            let content = client.blob(hash, web::backend::ByteRange::All).await?;
            let json: serde_json::Value = serde_json::from_slice(&content.collect(RESULT_MAX).await?)?;
            output::json(&json)?;
        }
        (Format::Json, None) => output::json(detail)?,
        (Format::People, _) => {
            let mut log = client.log(LogRequest { job, attempt: None, from: 0, follow: Follow::No }).await?;
            let mut text = String::new();
            while let Some(piece) = log.next().await {
                text.push_str(&String::from_utf8_lossy(&piece?));
            }
            output::line(output::printable(&text).trim_end())?;
        }
    }
    Ok(())
}
