//! Installs an environment from its lock, in two steps: its packages behind the sandbox's walls, whose scripts anybody may
//! have written; then, when all that ran is gone, the tree is taken and hashed by this machine's own tools, which run nothing
//! of it.

use std::{
    fs, io,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use protocol::{
    environment::{EnvironmentLock, Family},
    job::BuildLimits,
    lease::Profile,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::{Complete, EnvironmentError, Environments, SEAL_WITHIN, includes, variant};
use crate::build::{
    inputs::{self, Placing, Wanted},
    log::LogSink,
    sandbox::{self, Base, Ending, Network, Plan, SandboxError, rights::Rights},
    vary::{Variation, variation},
    verdict::{Host, judge},
};

const INSTALL: &str = include_str!("install.sh");
const INSTALL_RPMS: &str = include_str!("rpm.sh");
pub(super) const SEAL: &str = include_str!("seal.sh");
/// What installs RPMs, as the sandbox finds it.
const DNF: &str = "/usr/bin/dnf";
const SAID_MAX: u64 = 256 * 1024;
/// Lines that are quoted of what an installation said.
const LINES: usize = 9;
/// How long the sandbox of an installation may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// Disk for one byte of packages: twice the packages themselves, and what they hold, compressed up to tenfold.
const DISK_PER_BYTE: u64 = 12;
/// What an installation may use; more disk where its packages are large. A cold one takes under a minute and 300 MiB.
const LIMITS: BuildLimits = BuildLimits {
    pids: 1024,
    log_kib: 16 * 1024,
    disk_mib: 1024,
    cpu_milli: 0,
    wall_secs: 900,
    memory_mib: 2048,
    silence_secs: 900,
};

/// What one installation may use.
pub(super) fn limits(lock: &EnvironmentLock, bytes_max: u64) -> BuildLimits {
    let packages: u64 = lock.packages.iter().map(|package| package.size).sum();
    let disk = u64::from(LIMITS.disk_mib) + packages.saturating_mul(DISK_PER_BYTE) / MIB;
    let disk_mib = u32::try_from(disk.min(bytes_max / MIB).max(1)).unwrap_or(u32::MAX);
    BuildLimits { disk_mib, cpu_milli: u32::try_from(sandbox::allowed_cpus().len() * 1000).unwrap_or(1000), ..LIMITS }
}

impl Environments {
    pub(super) async fn install(
        &self,
        lock: &EnvironmentLock,
        packages: &Path,
        folder: &Path,
        stop: &CancellationToken,
    ) -> Result<(), EnvironmentError> {
        if lock.family == Family::Rpm && !Path::new(DNF).exists() {
            return Err(EnvironmentError::Tool { tool: "dnf" });
        }
        let id = lock.id();
        tracing::info!(environment = %id, packages = lock.packages.len(), "environment is installed");
        let begun = Instant::now();
        let new = self.begin(&id)?;
        let limits = self.limits.unwrap_or_else(|| limits(lock, self.bytes_max));
        let v = variation(Profile(0), limits.cpu_milli.div_ceil(1000)).installing();
        self.lay_out(lock, packages, &new.path, &v).await?;
        self.unpack(lock, &new.path, (&v, &limits), stop).await?;
        let words = [v.place.clone(), lock.epoch.to_string(), limits.disk_mib.to_string()];
        let arguments: Vec<_> = std::iter::once(new.path.to_string_lossy().into_owned()).chain(words).collect();
        let complete = self.seal(SEAL, &arguments, stop).await?;
        self.end(new, &complete, folder)?;
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!(environment = %id, tree = %complete.tree, seconds, "environment is ready");
        Ok(())
    }

    async fn lay_out(
        &self,
        lock: &EnvironmentLock,
        packages: &Path,
        new: &Path,
        v: &Variation,
    ) -> Result<(), EnvironmentError> {
        let disk = |source| EnvironmentError::Disk { what: "lay out an installation", folder: new.to_owned(), source };
        let place = new.join(format!("upper{}", v.place));
        let folders = ["upper", "upper/build"];
        folders.iter().try_for_each(|name| self.rig.make_folder(&new.join(name))).map_err(disk)?;
        let wanted: Vec<_> = lock.packages.iter().map(Wanted::package).collect();
        let to = place.join("repository");
        let placing = Placing { from: packages.to_owned(), to, epoch: lock.epoch, rig: self.rig.clone() };
        inputs::place(wanted, placing).await.map_err(EnvironmentError::Package)?;
        self.rig.give(&place).and_then(|()| Rights::lay_out_root(&self.rig, &place)).map_err(disk)
    }

    /// Runs the packages' scripts, and whatever they start, until all of it is gone.
    async fn unpack(
        &self,
        lock: &EnvironmentLock,
        new: &Path,
        (v, limits): (&Variation, &BuildLimits),
        stop: &CancellationToken,
    ) -> Result<(), EnvironmentError> {
        let log = LogSink::create(new.join("log"), u64::from(limits.log_kib) * 1024);
        let log = log.map_err(|error| EnvironmentError::Sandbox(SandboxError::Log(error)))?;
        let epoch = ("SOURCE_DATE_EPOCH".to_owned(), lock.epoch.to_string());
        let (script, arguments) = installer(lock);
        let plan = Plan {
            folder: new,
            base: Base::Machine,
            variation: v,
            limits,
            start: START_WITHIN,
            variables: vec![epoch, ("HOME".to_owned(), "/nonexistent".to_owned())],
            rights: Rights::Installer,
            network: Network::None,
            script: script.to_owned(),
            arguments,
            name: sandbox::name(new),
        };
        let host = Host::now();
        let ran = sandbox::run(&self.rig, &plan, &log, stop).await.map_err(EnvironmentError::Sandbox)?;
        if ran.ending == Ending::Cancelled {
            return Err(EnvironmentError::Cancelled);
        }
        let said = || end_of(&fs::read(log.path()).unwrap_or_default());
        let judged = judge("install", &ran, limits, &host.since(&self.folder));
        judged.map_err(|failure| EnvironmentError::Install { failure, said: said() })
    }

    /// Runs a script of ours in namespaces of its own and reads what it says about its result.
    pub(super) async fn seal(
        &self,
        script: &str,
        arguments: &[String],
        stop: &CancellationToken,
    ) -> Result<Complete, EnvironmentError> {
        let failed = |error: io::Error| EnvironmentError::Seal { said: error.to_string() };
        let mut command = self.rig.command(&[], &["--net"], script);
        command.args(arguments).env("HOME", "/nonexistent");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (mut result, mut said) = (String::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(SAID_MAX), stderr.take(SAID_MAX));
        // Whoever says more is heard to the end, or it would wait for ever.
        let words = async {
            stderr.read_to_end(&mut said).await?;
            tokio::io::copy(stderr.get_mut(), &mut tokio::io::sink()).await
        };
        let work = async { tokio::try_join!(stdout.read_to_string(&mut result), words) };
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => Err(EnvironmentError::Cancelled),
            () = tokio::time::sleep(SEAL_WITHIN) => Err(EnvironmentError::Slow),
            read = work => read.map_err(failed),
        };
        if let Err(error) = read {
            child.kill().await.map_err(failed)?;
            return Err(error);
        }
        let status = child.wait().await.map_err(failed)?;
        let value = |name: &str| result.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let Some(why) = value("artel:refused ") {
            return Err(EnvironmentError::Refused { why });
        }
        match (status.success(), value("artel:tree "), value("artel:kib ")) {
            (true, Some(tree), Some(kib)) => Ok(Complete { tree, kib: kib.parse().unwrap_or(0) }),
            _ => Err(EnvironmentError::Seal { said: end_of(&said) }),
        }
    }
}

/// Gives what installs a lock's packages, and its arguments.
fn installer(lock: &EnvironmentLock) -> (&'static str, Vec<String>) {
    match lock.family {
        Family::Dpkg => {
            let words = [lock.suite.to_string(), variant(lock).to_owned()];
            (INSTALL, words.into_iter().chain(includes(lock)).collect())
        }
        Family::Rpm => (INSTALL_RPMS, vec![lock.suite.to_string()]),
    }
}

fn end_of(said: &[u8]) -> String {
    // A line may repeat the whole command with every package.
    let short = |line: &str| line.trim().chars().take(160).collect::<String>();
    let text = String::from_utf8_lossy(&said[said.len().saturating_sub(32 * 1024)..]);
    let lines: Vec<_> = text.lines().map(short).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}
