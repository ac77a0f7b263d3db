//! `artel recipe`: keep recipes in the network, and run them.

mod kept;
mod refs;
mod run;
mod steps;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use protocol::{
    NetworkId,
    envelope::Record as _,
    recipe::{Decision, Flavour, GitSource, Product, Recipe as Record, RecipeRun, RunState, Upstream},
    words::RecipeName,
};
use web::{
    Backend,
    api::{ApiError, RecipeView, Time},
};

use self::kept::Kept;
use super::{
    Context, exit,
    output::{self, Format},
    policy,
};
use crate::{clock, config::Config, keys, recipe::form::Form};

/// Follow version control and releases: keep recipes and run them
#[derive(Debug, Subcommand)]
pub(super) enum Recipe {
    /// Keep a recipe, or replace the one of its name
    Add {
        /// The recipe, in TOML
        file: PathBuf,
        #[command(flatten)]
        signer: Signer,
    },
    /// List recipes
    #[command(visible_alias = "ls")]
    List,
    /// Show a recipe and its runs
    Show {
        /// The recipe
        name: RecipeName,
    },
    /// Print a recipe as TOML, as `add` reads it
    Export {
        /// The recipe
        name: RecipeName,
    },
    /// Remove a recipe; what it built stays
    Remove {
        /// The recipe
        name: RecipeName,
        #[command(flatten)]
        signer: Signer,
    },
    /// Fetch the sources, make the source package, and build it when its version asks for it
    Run(run::Run),
}

/// Who signs
#[derive(Debug, clap::Args)]
pub(super) struct Signer {
    /// The maintainer's key: its name, or the path of its file
    #[arg(long, default_value = "maintainer")]
    key: keys::Word,
}

impl Recipe {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Recipe::Add { file, signer } => add(context, &file, &signer).await,
            Recipe::List => list(context).await,
            Recipe::Show { name } => show(context, name).await,
            Recipe::Export { name } => {
                let form = Form::of(&find(context, &name).await?.recipe).expect("find gives no removed recipe");
                output::line(form.to_toml().trim_end())?;
                Ok(exit::DONE)
            }
            Recipe::Remove { name, signer } => {
                let kept = find(context, &name).await?;
                let gone = Record { plan: None, at: clock::now(), number: kept.recipe.number + 1, ..kept.recipe };
                keep(context, &gone, &signer).await
            }
            Recipe::Run(run) => run.run(context).await,
        }
    }
}

/// Finds a recipe that is not removed, as maintainers signed it.
async fn find(context: &Context, name: &RecipeName) -> anyhow::Result<Kept> {
    let network: NetworkId = Config::load(&context.home)?.network.id;
    let policy = policy::in_force(context).await?;
    let kept = Kept::prove(&look(context, name).await?, name, &network, policy.get())?;
    if kept.recipe.plan.is_some() { Ok(kept) } else { Err(unknown(name)) }
}

/// Finds what the coordinator says about a recipe that is not removed.
async fn look(context: &Context, name: &RecipeName) -> anyhow::Result<RecipeView> {
    match context.client().recipe(name.clone()).await {
        Ok(view) if view.recipe.plan.is_some() => Ok(view),
        Ok(_) | Err(ApiError::NotFound { .. }) => Err(unknown(name)),
        Err(error) => Err(error.into()),
    }
}

fn unknown(name: &RecipeName) -> anyhow::Error {
    exit::failure(exit::FAILED, format!("no recipe {name}")).hint("`artel recipe list` lists them").into()
}

async fn add(context: &Context, file: &std::path::Path, signer: &Signer) -> anyhow::Result<u8> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let form = Form::parse(&text).with_context(|| file.display().to_string())?;
    let plan = form.plan()?;
    let network: NetworkId = Config::load(&context.home)?.network.id;
    let number = match context.client().recipe(form.name.clone()).await {
        Ok(view) => view.recipe.number + 1,
        Err(ApiError::NotFound { .. }) => 1,
        Err(error) => return Err(error.into()),
    };
    let (name, channel) = (form.name, form.channel);
    keep(context, &Record { at: clock::now(), name, plan: Some(plan), number, channel, network }, signer).await
}

async fn keep(context: &Context, recipe: &Record, signer: &Signer) -> anyhow::Result<u8> {
    let key = context.signer(&signer.key)?;
    recipe.check().map_err(|why| exit::failure(exit::USAGE, format!("the recipe is not acceptable: {why}")))?;
    let signed = keys::sign(recipe, Some(&recipe.network), &[&key])?;
    context.client().keep_recipe(signed.to_bytes().into()).await?;
    let what = if recipe.plan.is_some() { "kept" } else { "removed" };
    match context.format {
        Format::Json => output::json(recipe)?,
        Format::People => anstream::eprintln!("recipe {}, number {}: {what}", recipe.name, recipe.number),
    }
    Ok(exit::DONE)
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let views = context.client().recipes().await?;
    match context.format {
        Format::Json => output::json(&views)?,
        Format::People => {
            let row = |view: &RecipeView| {
                let plan = view.recipe.plan.as_ref()?;
                let arches: Vec<&str> = plan.arches.iter().map(|arch| arch.name()).collect();
                let kind = format!("{} {}", kind(plan.kind), flavour(plan.flavour));
                let name = view.recipe.name.to_string();
                Some(vec![name, kind, view.recipe.channel.to_string(), arches.join(" "), upstream(&plan.upstream)])
            };
            let rows = views.iter().filter_map(row).collect();
            output::table(&["RECIPE", "KIND", "CHANNEL", "ARCHES", "UPSTREAM"], rows)?;
        }
    }
    Ok(exit::DONE)
}

async fn show(context: &Context, name: RecipeName) -> anyhow::Result<u8> {
    let view = look(context, &name).await?;
    match context.format {
        Format::Json => output::json(&view)?,
        Format::People => {
            let plan = view.recipe.plan.as_ref().expect("look gives no removed recipe");
            let packaging = plan.packaging.as_ref().map_or_else(|| "with upstream".to_owned(), git);
            output::line(&format!(
                "recipe {name}, number {}: {} {} for channel {}\nupstream   {}\npackaging  {packaging}\n",
                view.recipe.number,
                kind(plan.kind),
                flavour(plan.flavour),
                view.recipe.channel,
                upstream(&plan.upstream),
            ))?;
            let rows = view.runs.iter().map(row).collect();
            output::table(&["RUN", "TIME", "SOURCES", "VERSION", "DECISION", "STATE", "JOBS"], rows)?;
        }
    }
    Ok(exit::DONE)
}

fn row(run: &RecipeRun) -> Vec<String> {
    let short = |revision: &protocol::recipe::Revision| {
        let what = if revision.what.contains('/') { "file" } else { revision.what.get(..8).unwrap_or(&revision.what) };
        format!("{} {what}", revision.name)
    };
    let sources: Vec<String> = run.revisions.iter().map(short).collect();
    let jobs = run.jobs.fetch.iter().chain(&run.jobs.source).chain(&run.jobs.builds);
    let jobs: Vec<String> = jobs.map(protocol::JobId::short).collect();
    vec![
        run.run.to_string(),
        Time::from(run.at).to_string(),
        sources.join(", "),
        run.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        run.decision.as_ref().map(decision).unwrap_or_default(),
        match &run.state {
            RunState::Open => "open".to_owned(),
            RunState::Ended => "done".to_owned(),
            RunState::Failed(why) => format!("failed: {why}"),
        },
        jobs.join(" "),
    ]
}

fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Build(reason) => format!("build: {reason}"),
        Decision::Skip(reason) => reason.clone(),
    }
}

fn kind(product: Product) -> &'static str {
    match product {
        Product::Deb => "deb",
        Product::Rpm => "rpm",
    }
}

fn flavour(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Ci => "ci",
        Flavour::Release => "release",
    }
}

fn git(git: &GitSource) -> String {
    format!("{} of {}", git.reference, git.url)
}

fn upstream(upstream: &Upstream) -> String {
    match upstream {
        Upstream::Git(source) => git(source),
        Upstream::Tarball(tarball) => tarball.url.to_string(),
        Upstream::Named(named) => format!("by the packaging's {}", named.by.word()),
    }
}
