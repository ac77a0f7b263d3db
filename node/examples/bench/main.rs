//! Measures what the product promises and prints one table: each figure beside its target, and beside what this machine
//! can do at most (the sandbox alone, a bare signature, `rsync` on the same disk), measured in the same run.
//!
//! ```text
//! cargo build --release -p artel --bin artel --example bench && target/release/examples/bench [--quick] [--json]
//! ```
//! The daemons are real processes of the `artel` program beside this one, on loopback; packages come from the archive
//! that this machine is configured for. Everything is written below one temporary folder, which is removed at the end.

mod arithmetic;
mod consensus;
mod failover;
mod idle;
mod jobs;
mod log;
mod network;
mod origin;
mod sandbox;
mod sbuild;
mod table;
mod transfer;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use table::Table;

/// One part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The ledger, attestations and bundles alone.
    Arithmetic,
    /// Commits of a group of coordinators, beside what the disk can do.
    Consensus,
    /// Appends to the transparency log, beside what the disk can do.
    Log,
    /// How soon another coordinator serves when the leader was killed.
    Failover,
    /// Memory and CPU of an idle daemon.
    Idle,
    /// Bytes between two nodes against rsync.
    Transfer,
    /// What rebuilds take from the archive.
    Origin,
    /// Environments and the sandbox alone, then jobs through a real network.
    Jobs,
    /// A source package of the archive against sbuild.
    Sbuild,
}

/// What to measure.
#[derive(Debug, Clone, Parser)]
#[command(about = "Measures artel against its targets and against this machine")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Options {
    /// Less of everything: a few minutes.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The folder on the disk that is to be measured.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The source package of the archive that is built against sbuild.
    #[arg(long, default_value = "tree")]
    source: String,
    /// Keep the folder with the daemons' logs.
    #[arg(long)]
    keep: bool,
}

impl Options {
    /// Gives the first number, or with `--quick` the second.
    fn amount<T>(&self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// A folder of our own, removed at the end.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(options: &Options) -> anyhow::Result<Self> {
        let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
        fs::create_dir_all(&base)?;
        let path = tempfile::Builder::new().prefix("artel-bench-").tempdir_in(base.canonicalize()?)?.keep();
        // The build user, who owns nothing here, must be able to pass through.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        Ok(Self { path, keep: options.keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
        } else if let Err(error) = artel::build::remove_tree(&self.path) {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

/// Says which Debian packages are missing.
fn check_tools(options: &Options) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    if options.wants(Part::Transfer) {
        wanted.extend(["rsync", "b3sum"]);
    }
    if options.wants(Part::Jobs) || options.wants(Part::Origin) {
        wanted.extend(["mmdebstrap", "bwrap"]);
    }
    if options.wants(Part::Sbuild) {
        wanted.extend(["mmdebstrap", "bwrap", "sbuild"]);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> =
        wanted.into_iter().filter(|name| !std::env::split_paths(&path).any(|dir| dir.join(name).is_file())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|name| if *name == "bwrap" { "bubblewrap" } else { name }).collect();
    bail!("missing: {}; run `apt-get install {}` as root", missing.join(", "), packages.join(" "))
}

/// The `artel` program of the same build.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().and_then(Path::parent).context("this program lies in a build folder")?.join("artel");
    if !path.is_file() {
        bail!("{} is missing; build it with `cargo build -p artel --bin artel` in the same profile", path.display());
    }
    Ok(path)
}

async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    if options.wants(Part::Arithmetic) {
        eprintln!("== the ledger, attestations and bundles alone");
        arithmetic::measure(options, folder, table)?;
    }
    if options.wants(Part::Consensus) {
        eprintln!("== a group of coordinators");
        consensus::measure(options, &folder.join("consensus"), table).await?;
    }
    if options.wants(Part::Log) {
        eprintln!("== the transparency log");
        log::measure(options, &folder.join("log"), table).await?;
    }
    if options.wants(Part::Failover) {
        eprintln!("== three coordinators, whose leader is killed again and again");
        failover::measure(options, &program()?, &folder.join("failover"), table).await?;
    }
    if options.wants(Part::Idle) {
        eprintln!("== an idle daemon");
        idle::measure(options, &program()?, &folder.join("idle"), table).await?;
    }
    if options.wants(Part::Transfer) {
        eprintln!("== bytes between two nodes, and rsync");
        transfer::measure(options, &folder.join("transfer"), table).await?;
    }
    if options.wants(Part::Origin) {
        eprintln!("== packages from the archive and from peers");
        origin::measure(options, &program()?, &folder.join("origin"), table).await?;
    }
    if options.wants(Part::Jobs) {
        eprintln!("== environment and sandbox alone");
        let material = sandbox::measure(options, &folder.join("workshop"), table).await?;
        eprintln!("== jobs through a coordinator and two builders");
        jobs::measure(options, &program()?, (&folder.join("jobs"), &material), table).await?;
    }
    if options.wants(Part::Sbuild) {
        eprintln!("== a real source package, and sbuild");
        sbuild::measure(options, &folder.join("sbuild"), table).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if std::env::var_os("ARTEL_LOG").is_some() {
        artel::trace::start(artel::trace::Form::Text);
    }
    check_tools(&options)?;
    let folder = Folder::make(&options)?;
    let mut table = Table::default();
    tokio::select! {
        done = Box::pin(measure(&options, &folder.path, &mut table)) => done?,
        // Dropping the measurement ends its daemons; the folder goes after that.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
    drop(folder);
    if options.json {
        println!("{}", table.to_json());
    } else {
        println!("{table}");
    }
    Ok(())
}
