//! One run of a recipe, step by step. Each step is a job that the maintainer signs here; what was done is recorded in the
//! network after each, so that a run that was interrupted goes on when it is run again.

use std::fmt;

use protocol::{
    JobId,
    recipe::{Decision, Flavour, Plan, RecipeRun, RunJobs, RunState},
    words::{DebVersion, RecipeName},
};
use web::{
    Backend,
    api::{JobDetail, JobState},
};

use super::{Signer, find, kept::Kept, refs, steps::Steps};
use crate::{
    cli::{
        Context, exit,
        job::{Until, watch},
        output::{self, Format},
    },
    clock, keys,
    recipe::{
        decide::{self, Made},
        source,
    },
};

/// Run a recipe
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Run {
    /// The recipe
    name: RecipeName,
    /// Stay until what is built is published
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    signer: Signer,
}

/// A job of the run did not end well.
#[derive(Debug)]
struct Ended {
    step: &'static str,
    job: JobId,
    state: JobState,
    why: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} job {} is {}: {}", self.step, self.job.short(), self.state, self.why)
    }
}

/// A run on its way.
struct Walk<'a> {
    context: &'a Context,
    key: keys::Signer,
    kept: Kept,
    plan: Plan,
    run: RecipeRun,
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let key = context.signer(&self.signer.key)?;
        loop {
            let mut walk = Walk::begin(context, key.clone(), find(context, &self.name).await?).await?;
            // What an earlier run left to be built is finished first; then the sources are looked at again.
            let earlier = !walk.run.jobs.builds.is_empty() || walk.is_outdated();
            let ended = walk.go(self.wait || earlier).await;
            if let Ok(None) = &ended
                && earlier
                && walk.run.state != RunState::Open
            {
                anstream::eprintln!("run {} is over, and the next begins", walk.run.run);
                continue;
            }
            return walk.tell(ended);
        }
    }
}

impl<'a> Walk<'a> {
    /// Continues the open run, or begins the next one at what the references lead to now.
    async fn begin(context: &'a Context, key: keys::Signer, kept: Kept) -> anyhow::Result<Self> {
        let plan = kept.recipe.plan.clone().expect("find gives no removed recipe");
        if let Some(open) = kept.runs.last().filter(|run| run.state == RunState::Open) {
            anstream::eprintln!("run {} of recipe {} goes on", open.run, kept.recipe.name);
            let run = RecipeRun { step: open.step + 1, ..open.clone() };
            return Ok(Self { context, key, run, plan, kept });
        }
        let revisions = source::revisions(&plan, &refs::resolve(&plan).await?)?;
        let run = RecipeRun {
            at: clock::now(),
            run: kept.next,
            jobs: RunJobs::default(),
            step: 0,
            state: RunState::Open,
            number: kept.recipe.number,
            recipe: kept.recipe.name.clone(),
            network: kept.recipe.network,
            version: None,
            decision: None,
            revisions,
        };
        anstream::eprintln!("run {} of recipe {}", run.run, kept.recipe.name);
        Ok(Self { context, key, plan, kept, run })
    }

    /// Goes as far as it gets. A job that ended badly ends the run.
    async fn go(&mut self, wait: bool) -> anyhow::Result<Option<Ended>> {
        if let Some(version) = self.known_already() {
            (self.run.version, self.run.decision) = (Some(version), Some(decide::same_commit()));
            return self.end(None).await;
        }
        if self.is_outdated() {
            self.run.state = RunState::Failed("the recipe was changed meanwhile".to_owned());
            self.record().await?;
            return Ok(None);
        }
        let steps = Steps::open(self.context, &self.kept.recipe, &self.key)?;
        if self.run.jobs.fetch.is_none() {
            self.run.jobs.fetch = match self.fetched_before(&steps).await {
                Some(job) if source::is_pinned(&self.plan) => Some(job),
                Some(_) | None => Some(steps.fetch(&self.plan, &self.run.revisions).await?),
            };
            self.record().await?;
        }
        let fetch = self.run.jobs.fetch.expect("set above");
        if let Some(ended) = self.over("fetch", fetch).await? {
            return self.end(Some(ended)).await;
        }
        if self.run.jobs.source.is_none() {
            self.run.jobs.source = Some(steps.source(&self.plan, &self.run.revisions, fetch).await?);
            self.record().await?;
        }
        let source = self.run.jobs.source.expect("set above");
        if let Some(ended) = self.over("source", source).await? {
            return self.end(Some(ended)).await;
        }
        if self.run.number == self.kept.recipe.number {
            self.build(&steps, fetch, source).await?;
        }
        if self.run.jobs.builds.is_empty() {
            return self.end(None).await;
        }
        if !wait {
            return Ok(None);
        }
        for build in self.run.jobs.builds.clone() {
            if let Some(ended) = self.over("build", build).await? {
                return self.end(Some(ended)).await;
            }
        }
        self.end(None).await
    }

    /// Decides, and has built what is not on its way. All is prepared before the first job is submitted, and each is recorded
    /// at once: who is interrupted does not ask twice.
    async fn build(&mut self, steps: &Steps, fetch: JobId, source: JobId) -> anyhow::Result<()> {
        if self.run.jobs.builds.len() >= self.plan.arches.len() {
            return Ok(());
        }
        let made = steps.made(&self.plan, fetch, source).await?;
        if self.run.decision.is_none() {
            let published = steps.published(&made).await?;
            let decision = self.decide(made.version(), published.as_ref());
            anstream::eprintln!("{}", super::decision(&decision));
            (self.run.version, self.run.decision) = (Some(made.version().clone()), Some(decision));
        }
        if let Some(Decision::Skip(_)) = &self.run.decision {
            return Ok(());
        }
        let begun = steps.arches(&self.run.jobs.builds).await?;
        let mut prepared = Vec::new();
        for arch in self.plan.arches.iter().filter(|arch| !begun.contains(arch)) {
            prepared.push(steps.build(*arch, &self.plan, &made).await?);
        }
        for prepared in prepared {
            self.run.jobs.builds.push(steps.begin(&prepared, source).await?);
            self.record().await?;
        }
        Ok(())
    }

    /// Says whether nothing is to be built yet, and the sources were found by another plan.
    fn is_outdated(&self) -> bool {
        self.run.number != self.kept.recipe.number && self.run.jobs.builds.is_empty()
    }

    /// Gives the version of the last build, when a CI run finds the same commits.
    fn known_already(&self) -> Option<DebVersion> {
        let built = self.built().filter(|built| built.revisions == self.run.revisions);
        let new = self.plan.flavour == Flavour::Ci && self.run.jobs == RunJobs::default();
        built.filter(|_| new).and_then(|built| built.version.clone())
    }

    /// The last run that built.
    fn built(&self) -> Option<&RecipeRun> {
        self.kept.runs.iter().rev().find(|run| run.has_built() && run.run != self.run.run)
    }

    fn decide(&self, version: &DebVersion, published: Option<&DebVersion>) -> Decision {
        let now = Made { version, revisions: &self.run.revisions };
        decide::decide((self.plan.kind, self.plan.flavour), now, self.built().and_then(made), published)
    }

    /// Finds a fetch of the same sources that operators agree on.
    async fn fetched_before(&self, steps: &Steps) -> Option<JobId> {
        let job = source::fetch(&self.kept.recipe.name, &self.plan, &self.run.revisions).ok()?;
        let same = self.kept.runs.iter().rev().filter(|run| run.revisions == self.run.revisions);
        for earlier in same.filter_map(|run| run.jobs.fetch) {
            if steps.has_fetched(earlier, &job).await {
                anstream::eprintln!("job {} has fetched the same sources", earlier.short());
                return Some(earlier);
            }
        }
        None
    }

    /// Waits for a job; says how it ended when not well.
    async fn over(&self, step: &'static str, job: JobId) -> anyhow::Result<Option<Ended>> {
        anstream::eprintln!("{step} job {}", job.short());
        let detail: JobDetail = watch(&self.context.client(), job, Until::Over).await?;
        let (state, why) = (detail.summary.state, output::printable(&detail.summary.why));
        let well = matches!(state, JobState::Reproduced | JobState::Published);
        Ok((!well).then_some(Ended { step, job, state, why }))
    }

    async fn end(&mut self, ended: Option<Ended>) -> anyhow::Result<Option<Ended>> {
        self.run.state = match &ended {
            None => RunState::Ended,
            Some(ended) => RunState::Failed(one_line(&ended.to_string())),
        };
        self.record().await?;
        Ok(ended)
    }

    /// Has the network keep how far the run is.
    async fn record(&mut self) -> anyhow::Result<()> {
        // A later record has a later time, whatever the clock does.
        let last = self.run.at.after(std::time::Duration::from_millis(1));
        self.run.at = clock::now().max(last);
        self.run.jobs.builds.sort();
        let signed = keys::sign(&self.run, Some(&self.run.network), &[&self.key])?;
        self.context.client().keep_run(signed.to_bytes().into()).await?;
        self.run.step += 1;
        Ok(())
    }

    fn tell(&self, ended: anyhow::Result<Option<Ended>>) -> anyhow::Result<u8> {
        let ended = ended?;
        let reason = self.run.decision.as_ref().map(super::decision).unwrap_or_default();
        match self.context.format {
            Format::Json => output::json(&self.run)?,
            Format::People if ended.is_none() => {
                let version = self.run.version.as_ref().map(ToString::to_string).unwrap_or_default();
                output::line(&format!("run {} of {}: {version} {reason}", self.run.run, self.run.recipe))?;
            }
            Format::People => {}
        }
        match ended {
            None => Ok(exit::DONE),
            Some(ended) => Err(exit::failure(exit::JOB_FAILED, ended.to_string())
                .hint(format!("`artel job show {}` says more", ended.job.short()))
                .into()),
        }
    }
}

/// Gives the beginning of a text as a run may say it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

fn made(run: &RecipeRun) -> Option<Made<'_>> {
    Some(Made { version: run.version.as_ref()?, revisions: &run.revisions })
}
