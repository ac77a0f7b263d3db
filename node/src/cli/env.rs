//! `artel env`: lock the environment of a build, or show one.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use protocol::{Arch, PackageName, SuiteName, environment::EnvironmentLock};

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::{
    clock,
    resolve::{
        archive::{self, Archive, Refresh},
        lock, source,
    },
};

/// Lock the environment of a build, or show one
#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// Resolve the exact packages of a build's environment and write them to a file
    Lock(Lock),
    /// Show a lock
    Show {
        /// A lock file, as `env lock` wrote it
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Lock {
    /// A .dsc file, or the name of a source package of the archive; without it, the build essentials alone
    source: Option<String>,
    /// Further packages
    #[arg(long, value_delimiter = ',')]
    package: Vec<PackageName>,
    /// The archive's suite [default: this system's]
    #[arg(long)]
    suite: Option<SuiteName>,
    /// Words of DEB_BUILD_PROFILES
    #[arg(long, value_delimiter = ',')]
    profile: Vec<String>,
    /// Where to write the lock
    #[arg(long, short, default_value = "environment.lock")]
    out: PathBuf,
}

impl Env {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Env::Lock(lock) => {
                let home = context.home.archive();
                let out = lock.out.clone();
                let lock = tokio::task::spawn_blocking(move || lock.resolve(&home)).await??;
                fs::write(&out, lock.to_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
                anstream::eprintln!("wrote {} with {} packages", out.display(), lock.packages.len());
                match context.format {
                    Format::Json => output::json(&serde_json::json!({ "environment": lock.id() }))?,
                    Format::People => output::line(&lock.id().to_string())?,
                }
                Ok(exit::DONE)
            }
            Env::Show { file } => {
                let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                show(context, &EnvironmentLock::from_bytes(&bytes)?)
            }
        }
    }
}

impl Lock {
    fn resolve(self, state: &std::path::Path) -> anyhow::Result<EnvironmentLock> {
        let suite = self.suite.map_or_else(archive::system_suite, Ok)?;
        let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
        let archive = Archive::open(state, suite, arch)?;
        archive.update(clock::now(), Refresh::WhenStale)?;
        let Some(what) = self.source else { return Ok(lock::lock_plain(&archive, &self.package)?.lock) };
        if !self.package.is_empty() {
            return Err(exit::failure(exit::USAGE, "--package goes without a source package")
                .hint("a source package's environment is what its build dependencies say")
                .into());
        }
        let source = if what.ends_with(".dsc") {
            source::read_source(std::path::Path::new(&what))?
        } else {
            source::fetch_source(&archive, &what, &state.join("sources").join("lock"))?
        };
        Ok(lock::lock_for_source(&archive, &source, &self.profile)?.lock)
    }
}

fn show(context: &Context, lock: &EnvironmentLock) -> anyhow::Result<u8> {
    match context.format {
        Format::Json => output::json(lock)?,
        Format::People => {
            let bytes: u64 = lock.packages.iter().map(|p| p.size).sum();
            output::line(&format!(
                "environment {}\nsuite {} on {}, {} packages, {:.1} MiB",
                lock.id(),
                lock.suite,
                lock.arch,
                lock.packages.len(),
                bytes as f64 / f64::from(1 << 20)
            ))?;
            let row = |p: &protocol::environment::LockedPackage| {
                vec![p.name.to_string(), p.version.to_string(), p.arch.to_string(), p.sha256.to_string()]
            };
            output::table(&["PACKAGE", "VERSION", "ARCH", "SHA256"], lock.packages.iter().map(row).collect())?;
        }
    }
    Ok(exit::DONE)
}
