//! One machine without a network: an environment set up cold and cached, and the sandbox alone. What is installed here is
//! used by the builders afterwards.

use std::{
    fs,
    os::unix::fs::lchown,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use artel::{
    build::{self, Account, LogSink, Phase, Rig, RigConfig, Task, Workshop},
    clock,
    resolve::{
        archive::{self, Archive, Refresh},
        lock::{self, Locked},
    },
    submit::{Prepared, Wish},
};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{
    Arch, ChannelName, FileName, JobId, NetworkId, NodeId,
    job::{BuildLimits, CommandJob, JobKind, Schedule},
    lease::{Lease, LeaseNumber, Profile},
    words::RelativePath,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    table::{Row, Table, percentile},
};

const CACHED_MS_MAX: f64 = 200.0;
/// From the first process of a sandbox to the build's own command.
const START_MS_MAX: f64 = 45.0;
/// Mounts an overlay as a sandbox does, and says how many nanoseconds that took, the start of `mount` included.
const OVERLAY: &str = "cd \"$1\"; mkdir -p upper work merged; begun=$(date +%s%N); \
                       mount -t overlay overlay -o userxattr,lowerdir=\"$2\",upperdir=upper,workdir=work merged; \
                       echo $(($(date +%s%N) - begun))";
/// What a job does: says when it started, and leaves its one output.
const SCRIPT: &str = "echo $EPOCHREALTIME; echo done > out";

/// What jobs are made of.
pub(crate) struct Material {
    pub(crate) prepared: Prepared,
    /// The folder with the installed environment.
    pub(crate) environments: PathBuf,
    /// From the start of the sandbox to the first line of the command, half of them at most.
    pub(crate) sandbox_ms: f64,
    /// Attempts per second with as many at once as the builders have slots.
    pub(crate) attempts_per_second: f64,
}

/// What one attempt may use.
pub(crate) fn limits() -> BuildLimits {
    BuildLimits {
        pids: 64,
        cpu_milli: 2000,
        disk_mib: 64,
        log_kib: 64,
        wall_secs: 60,
        memory_mib: 256,
        silence_secs: 60,
    }
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<Material> {
    let locked = tokio::task::spawn_blocking(lock_environment).await??;
    let first = locked.files.first().context("an environment has packages")?;
    let packages = first.parent().context("a package lies in a folder")?.to_owned();
    let here = Here::open(folder, &locked, packages)?;
    let cold = here.attempt().await?;
    table.add(Row::new("environment set up, cold", cold.environment.as_secs_f64(), "s"));
    let mut alone = Vec::new();
    let mut cached = Vec::new();
    for _ in 0..options.amount(40, 15) {
        let measured = here.attempt().await?;
        alone.push(measured.sandbox.as_secs_f64() * 1000.0);
        cached.push(measured.environment.as_secs_f64() * 1000.0);
    }
    table.add(Row::new("environment set up, cached, p95", percentile(&cached, 95), "ms").at_most(CACHED_MS_MAX));
    let sandbox_ms = percentile(&alone, 50);
    table.add(Row::new("sandbox start, p50", sandbox_ms, "ms").at_most(START_MS_MAX));
    table.add(Row::new("sandbox start, p95", percentile(&alone, 95), "ms"));
    let root = folder.join("environments").join(locked.lock.id().to_string()).join("root");
    let mut overlays = Vec::new();
    for number in 0..options.amount(20, 5) {
        overlays.push(overlay_ms(here.workshop.rig().account(), &folder.join(format!("overlay-{number}")), &root)?);
    }
    table.add(Row::new("of it the overlay, p50", percentile(&overlays, 50), "ms"));
    let attempts_per_second = here.attempts_per_second(options.amount(60, 20), crate::jobs::AT_ONCE).await?;
    table.add(Row::new("attempts per second, 4 at once, no network", attempts_per_second, "/s"));
    let files = locked.lock.packages.iter().map(|p| p.hash).zip(locked.files).collect();
    let prepared = Prepared { kind: kind()?, lock: locked.lock, files };
    Ok(Material { prepared, environments: folder.join("environments"), sandbox_ms, attempts_per_second })
}

/// Mounts an overlay over an environment in namespaces of its own, as the user of builds, and gives how long that took.
fn overlay_ms(account: &Account, folder: &Path, root: &Path) -> anyhow::Result<f64> {
    fs::create_dir_all(folder)?;
    let unshare = ["--user", "--map-root-user", "--map-auto", "--mount", "sh", "-euc", OVERLAY, "overlay"];
    let mut command = Command::new("unshare");
    if let Account::Dedicated { uid, gid } = *account {
        lchown(folder, Some(uid), Some(gid))?;
        command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "unshare"]);
    }
    let output = command.args(unshare).arg(folder).arg(root).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse::<f64>()? / 1e6)
}

fn lock_environment() -> anyhow::Result<Locked> {
    let from = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    let state = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("artel").join("archive");
    let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
    let archive = Archive::open(&state, archive::system_suite()?, arch)?;
    archive.update(clock::now(), Refresh::WhenStale)?;
    Ok(lock::lock_plain(&archive, &[])?)
}

fn kind() -> anyhow::Result<JobKind> {
    Ok(JobKind::Command(CommandJob {
        isolation: protocol::job::Isolation::Rootfs,
        argv: ["bash", "-c", SCRIPT].map(str::to_owned).to_vec(),
        name: FileName::new("bench")?,
        inputs: Vec::new(),
        outputs: vec![RelativePath::new("out")?],
    }))
}

/// A workshop of this process.
struct Here {
    workshop: Workshop,
    folder: PathBuf,
    task: Task,
    number: AtomicU64,
}

/// What one attempt took.
struct Measured {
    environment: Duration,
    sandbox: Duration,
}

impl Here {
    fn open(folder: &Path, locked: &Locked, packages: PathBuf) -> anyhow::Result<Self> {
        let inputs = folder.join("inputs");
        fs::create_dir_all(&inputs)?;
        let rig = RigConfig::default();
        if rustix::process::geteuid().is_root() {
            Rig::prepare_user(&rig)?;
        }
        let workshop = Workshop::open(build::Config {
            state_dir: folder.to_owned(),
            cache_dir: folder.to_owned(),
            environment_bytes_max: 8 << 30,
            rig,
            now: clock::now,
        })?;
        let wish = Wish {
            channel: ChannelName::new("bench")?,
            limits: limits(),
            lifetime: Duration::from_secs(3600),
            schedule: Schedule::default(),
        };
        let prepared = Prepared { kind: kind()?, lock: locked.lock.clone(), files: Vec::new() };
        let key = artel::keys::generate()?;
        let network = NetworkId::from_bytes([0; 32]);
        let request = prepared.sign(&wish, network, clock::now(), &key)?.verify(Some(&network))?.into_inner();
        let job = JobId::from_bytes([1; 32]);
        let (node, expires) = (NodeId::from_bytes([2; 32]), request.expires);
        let lease = Lease { job, node, number: LeaseNumber(0), expires, profile: Profile(0), memory_mib: 1024 };
        let task = Task { job, request, lease, lock: locked.lock.clone(), inputs, packages };
        Ok(Self { workshop, folder: folder.to_owned(), task, number: AtomicU64::new(1) })
    }

    async fn attempt(&self) -> anyhow::Result<Measured> {
        let mut task = self.task.clone();
        task.lease.number = LeaseNumber(self.number.fetch_add(1, Ordering::Relaxed));
        let log = LogSink::create(self.folder.join(format!("{}.log", task.lease.number)), 1 << 20)?;
        let mut progress = log.progress();
        let watched = async {
            let prepared = progress.wait_for(|now| now.phase >= Phase::Sandbox).await?.since;
            let started = progress.wait_for(|now| now.phase >= Phase::Build).await?.since;
            anyhow::Ok(started.duration_since(prepared))
        };
        let attempt = async {
            let built = self.workshop.attempt(task, log.clone(), CancellationToken::new()).await;
            built.map_err(|error| anyhow::anyhow!("{}\n{}", error.failure(), log.tail(2000)))
        };
        let (built, sandbox) = tokio::try_join!(attempt, watched)?;
        self.workshop.discard(&built)?;
        fs::remove_file(log.path())?;
        Ok(Measured { environment: built.environment_took, sandbox })
    }

    async fn attempts_per_second(&self, count: usize, at_once: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let attempts = stream::iter(0..count).map(|_| self.attempt());
        attempts.buffer_unordered(at_once).try_for_each(|_| async { Ok(()) }).await?;
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }
}
