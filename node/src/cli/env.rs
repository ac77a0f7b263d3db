//! `artel env`: lock the environment of a build, show locks, compare them.

mod lock;

use std::path::Path;

use anyhow::Context as _;
use clap::Subcommand;
use protocol::{
    Hash,
    environment::{EnvironmentLock, Family, LockedPackage},
    lease::Profile,
    limits,
};
use web::{Backend, backend::ByteRange};

use super::{
    Context, exit, job,
    output::{self, Format},
};
use crate::{
    bounded,
    build::vary::variation,
    resolve::compare::{self, Comparison},
};

/// Profiles that are shown when none is named: the plain one, and enough to see every kind.
const PROFILES: [u16; 4] = [0, 1, 2, 3];
/// CPUs that a shown profile is fitted to.
const CPUS: u32 = 4;

/// Lock the environment of a build, show locks, compare them
#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// Resolve the exact packages of a build's environment and write them to a file
    Lock(lock::Words),
    /// Have operators make an environment as an image, so that it is attested; exits with the job's result
    Build(job::Submit),
    /// Show a lock
    Show {
        /// A lock file as `env lock` wrote it, an environment's id, or a job
        what: String,
    },
    /// Say what is different between two locks
    Diff {
        /// A lock file, an environment's id, or a job
        left: String,
        /// The same, to compare with
        right: String,
    },
    /// Show what a profile makes of a build's circumstances
    Profile {
        /// Numbers of profiles [default: 0 to 3]
        number: Vec<u16>,
    },
}

impl Env {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Env::Lock(words) => words.run(context).await,
            Env::Build(submit) => {
                let ending = format!(".{}", crate::submit::environment::SUFFIX);
                if !submit.what().ends_with(&ending) {
                    let what =
                        format!("{} is not called as a lock: `env lock` writes one, ending in {ending}", submit.what());
                    return Err(exit::failure(exit::USAGE, what).into());
                }
                submit.run(context, job::Until::Over).await
            }
            Env::Show { what } => show(context, &read(context, &what).await?),
            Env::Diff { left, right } => {
                let (left, right) = (read(context, &left).await?, read(context, &right).await?);
                diff(context, &compare::compare(&left, &right))
            }
            Env::Profile { number } => profiles(context, if number.is_empty() { PROFILES.to_vec() } else { number }),
        }
    }
}

/// Finds a lock: a file, or what this node's network has under an environment's id or a job's.
async fn read(context: &Context, what: &str) -> anyhow::Result<EnvironmentLock> {
    if Path::new(what).is_file() {
        return read_file(Path::new(what));
    }
    let client = context.client();
    let id = match what.parse::<Hash>() {
        // An environment's id and a job's look alike.
        Ok(id) => match client.job(protocol::JobId::from(id)).await {
            Ok(detail) => detail.request.environment,
            Err(web::api::ApiError::NotFound { .. }) => id,
            Err(error) => return Err(error.into()),
        },
        Err(_) => client.job(job::find(context, what).await?).await?.request.environment,
    };
    let content = client.blob(id, ByteRange::All).await?;
    Ok(EnvironmentLock::from_bytes(&content.collect(limits::LOCK_MAX).await?)?)
}

/// Reads a lock from a file.
pub(super) fn read_file(path: &Path) -> anyhow::Result<EnvironmentLock> {
    let bytes =
        bounded::read(path, limits::LOCK_MAX as u64).with_context(|| format!("cannot read {}", path.display()))?;
    EnvironmentLock::from_bytes(&bytes).with_context(|| format!("{} is no lock", path.display()))
}

fn show(context: &Context, lock: &EnvironmentLock) -> anyhow::Result<u8> {
    match context.format {
        Format::Json => output::json(lock)?,
        Format::People => {
            let bytes: u64 = lock.packages.iter().map(|p| p.size).sum();
            output::line(&format!(
                "environment {}\n{} {} on {}, {} packages, {:.1} MiB",
                lock.id(),
                match lock.family {
                    Family::Dpkg => "suite",
                    Family::Rpm => "RPMs, release",
                },
                lock.suite,
                lock.arch,
                lock.packages.len(),
                bytes as f64 / f64::from(1 << 20)
            ))?;
            let row = |p: &LockedPackage| {
                let from = p.from.as_ref().map_or_else(|| p.file.to_string(), ToString::to_string);
                vec![p.name.to_string(), p.version.to_string(), p.arch.to_string(), p.sha256.to_string(), from]
            };
            output::table(&["PACKAGE", "VERSION", "ARCH", "SHA256", "FROM"], lock.packages.iter().map(row).collect())?;
        }
    }
    Ok(exit::DONE)
}

fn diff(context: &Context, comparison: &Comparison) -> anyhow::Result<u8> {
    if context.format == Format::Json {
        output::json(comparison)?;
        return Ok(exit::DONE);
    }
    output::line(&comparison.summary())?;
    let cell = |package: &Option<compare::Item>| package.as_ref().map_or_else(|| "-".into(), ToString::to_string);
    let row = |change: &compare::Change| vec![change.name.clone(), cell(&change.left), cell(&change.right)];
    if !comparison.changes.is_empty() {
        output::table(&["WHAT", "LEFT", "RIGHT"], comparison.changes.iter().map(row).collect())?;
    }
    Ok(exit::DONE)
}

fn profiles(context: &Context, numbers: Vec<u16>) -> anyhow::Result<u8> {
    let all: Vec<_> = numbers.into_iter().map(|number| variation(Profile(number), CPUS)).collect();
    let tables: Vec<_> = all.iter().map(|v| v.table()).collect();
    if context.format == Format::Json {
        output::json(&tables)?;
        return Ok(exit::DONE);
    }
    let keys: std::collections::BTreeSet<_> = tables.iter().flat_map(|table| table.keys()).collect();
    let row = |key: &&String| {
        let values = tables.iter().map(|table| table.get(*key).cloned().unwrap_or_else(|| "(not set)".into()));
        std::iter::once((*key).clone()).chain(values).collect()
    };
    let headings: Vec<String> = all.iter().map(|v| format!("PROFILE {}", v.profile)).collect();
    let headings: Vec<&str> = std::iter::once("KEY").chain(headings.iter().map(String::as_str)).collect();
    output::table(&headings, keys.iter().map(row).collect())?;
    Ok(exit::DONE)
}
