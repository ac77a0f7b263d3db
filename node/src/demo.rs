//! The demonstration: one real package through the whole line, with real daemons on loopback.
//!
//! It is the main job as a new user meets it, and the end-to-end test. It uses what everybody uses: the daemon as a
//! process, the control socket, the archive that this machine is configured for, and apt-get.

mod install;
mod network;
mod ports;
mod report;

use std::{
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use protocol::Arch;
use web::api::{JobDetail, JobState};

pub use ports::free_port;
pub use report::{Reached, Report, Verdict};

use crate::{
    cli::{Until, watch},
    clock,
    resolve::{
        archive::{self, Archive, Refresh},
        source::{self, ArchiveBinary},
    },
    submit::{self, DebWords, Prepared, Wish},
};
use network::{Leave, Network};

/// How long the mirror may take to follow.
const MIRROR_WAIT: Duration = Duration::from_secs(60);

/// What to show.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The source package.
    pub package: String,
    /// Words of `DEB_BUILD_OPTIONS` beside `nocheck`.
    pub options: Vec<String>,
    /// Operators with one builder each.
    pub nodes: u8,
    /// Operators that sign changed outputs.
    pub liars: u8,
    /// Operators that must agree.
    pub agree: u8,
    /// Whether the daemons stay.
    pub keep: bool,
    /// Where the nodes' folders are made.
    pub folder: Option<PathBuf>,
}

/// What came out of the archive: the job's inputs, and the distribution's own packages to compare with.
struct Material {
    prepared: Prepared,
    official: Option<Vec<ArchiveBinary>>,
}

/// Runs the demonstration; gives nothing, and leaves nothing but a folder that was named, when `interrupted` comes before its end.
///
/// # Errors
/// When a part of the machine is missing or a step fails in a way that is no verdict.
pub async fn run(plan: Plan, interrupted: impl Future<Output = ()>) -> anyhow::Result<Option<Report>> {
    let mut interrupted = pin!(interrupted);
    let mut steps = Steps::default();
    step(&format!("taking source package {} from this machine's archive, and locking its environment", plan.package));
    let (package, options) = (plan.package.clone(), plan.options.clone());
    let material = tokio::select! {
        biased;
        () = &mut interrupted => return Ok(None),
        material = tokio::task::spawn_blocking(move || material(&package, options)) => material??,
    };
    steps.done("lock");
    step(&format!("starting a coordinator, {} builders of different operators, and a mirror", plan.nodes));
    let mut network = Network::found(&plan)?;
    let result = tokio::select! {
        biased;
        () = &mut interrupted => None,
        result = Box::pin(story(&plan, &mut network, &material, &mut steps)) => Some(result),
    };
    let Some(result) = result else {
        anstream::eprintln!("interrupted; stopping the daemons");
        network.stop(Leave::Nothing).await;
        return Ok(None);
    };
    if plan.keep {
        anstream::eprintln!("the daemons go on; dashboard: {}", network.dashboard());
        anstream::eprintln!("stop them with: kill {}", network.pids().join(" "));
        network.leave();
    } else {
        network.stop(if result.is_ok() { Leave::Nothing } else { Leave::Logs }).await;
    }
    let mut report = result?;
    report.seconds = steps.seconds;
    Ok(Some(report))
}

fn material(package: &str, options: Vec<String>) -> anyhow::Result<Material> {
    let state = cache_folder()?.join("archive");
    let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
    let archive = Archive::open(&state, archive::system_suite()?, arch)?;
    archive.update(clock::now(), Refresh::WhenStale)?;
    let folder: String = package.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let source = source::fetch_source(&archive, package, &state.join("sources").join(folder))?;
    let options = ["nocheck".to_owned()].into_iter().chain(options).collect();
    let words = DebWords { options, profiles: Vec::new() };
    let prepared = submit::deb(&archive, &source, &words)?;
    let official = source::archive_binaries(&archive, &source.name, &source.version)?;
    anstream::eprintln!("  {} {}: {} source files", source.name, source.version, source.files.len());
    anstream::eprintln!("  environment {}: {} packages", prepared.lock.id().short(), prepared.lock.packages.len());
    Ok(Material { prepared, official })
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let from = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("artel"))
}

async fn story(plan: &Plan, network: &mut Network, material: &Material, steps: &mut Steps) -> anyhow::Result<Report> {
    network.start_first().await?;
    steps.done("start");
    anstream::eprintln!("  dashboard: {}", network.dashboard());
    step("signing the job request and submitting it to the coordinator");
    let client = network.coordinator();
    let wish = Wish {
        channel: network.channel(),
        limits: protocol::job::BuildLimits::default(),
        lifetime: Duration::from_secs(6 * 3600),
        schedule: protocol::job::Schedule::default(),
    };
    let key = network.maintainer();
    let submitted = submit::submit(&client, &material.prepared, &wish, clock::now(), key).await?;
    anstream::eprintln!("  job {}", submitted.job);
    steps.done("submit");
    network.start_rest_when_leased(&client, submitted.job).await?;
    step("building, attesting and comparing");
    let detail = watch(&client, submitted.job, Until::Over).await?;
    steps.done("build");
    let mut report = Report::of(&detail, material.official.as_deref());
    if let (JobState::Published, Some(published)) = (detail.summary.state, &detail.published) {
        report.reached = Reached::Published;
        step("waiting for the mirror, which checks every attestation itself");
        network.mirrored(published.generation, MIRROR_WAIT).await?;
        steps.done("mirror");
        step("installing from the mirror with apt-get into a scratch root");
        if installs(network, &detail).await {
            report.reached = Reached::Installed;
        }
        steps.done("install");
    }
    report.dashboard = format!("{}jobs/{}", network.dashboard(), submitted.job);
    if plan.liars > 0 && report.verdict == Verdict::Reproduced && report.liars.is_empty() {
        anstream::eprintln!("  no liar was asked before the honest ones agreed");
    }
    Ok(report)
}

async fn installs(network: &Network, detail: &JobDetail) -> bool {
    match install::install(network, detail).await {
        Ok(package) => {
            anstream::eprintln!("  apt-get installed {package} from the mirror");
            true
        }
        Err(error) => {
            anstream::eprintln!("  apt-get could not install it: {error:#}");
            false
        }
    }
}

fn step(text: &str) {
    anstream::eprintln!("== {text}");
}

/// Wall time of each step.
struct Steps {
    last: Instant,
    seconds: Vec<(&'static str, f64)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { last: Instant::now(), seconds: Vec::new() }
    }
}

impl Steps {
    fn done(&mut self, name: &'static str) {
        let took = self.last.elapsed().as_secs_f64();
        self.seconds.push((name, (took * 10.0).round() / 10.0));
        self.last = Instant::now();
    }
}
