//! A real source package of the archive, built in a workshop and by `sbuild --chroot-mode=unshare`, in turn: the same
//! source, the same packages around it, the same user, `DEB_BUILD_OPTIONS` and machine.
//!
//! Two figures. The whole: from a lock whose environment is cached here to hashed outputs, beside `sbuild` from its chroot
//! tarball, not compressed, which has every build dependency in it; what `sbuild` says it spent on those all the same is a
//! figure of its own. And `dpkg-buildpackage` alone: from its first line to its last, as each log brings them.

mod peer;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use artel::{
    build::{self, LogSink, Rig, RigConfig, Task, Workshop},
    clock,
    resolve::{
        archive::{self, Archive, Refresh},
        lock::{self, Locked},
        source::{SourcePackage, fetch_source},
    },
};
use protocol::{
    Arch, ChannelName, JobId, NetworkId, NodeId, Sha256,
    job::{BuildLimits, JobKind, JobRequest, Schedule},
    lease::{Lease, LeaseNumber, Profile},
};
use tokio_util::sync::CancellationToken;

use self::peer::Peer;
use crate::{
    Options,
    table::{Row, Table, percentile},
};

/// Neither side runs the package's tests, which may depend on what a sandbox lets them see.
const OPTION: &str = "nocheck";
/// What a build may take of `sbuild`'s time.
const OF_PEER_MAX: f64 = 1.0;
/// How `dpkg-buildpackage` begins and ends.
const FIRST_LINE: &str = "dpkg-buildpackage: info: source package ";
const LAST_LINE: &str = "dpkg-buildpackage: info: binary-only upload";

/// One build.
struct Measured {
    whole: Duration,
    /// `dpkg-buildpackage` alone.
    alone: Duration,
    /// The packages' digests, sorted.
    packages: Vec<Sha256>,
}

/// When the lines of a log came that begin and end `dpkg-buildpackage`.
#[derive(Default)]
struct Lines {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Lines {
    fn hear(&mut self, line: &str) {
        if line.starts_with(FIRST_LINE) {
            self.first.get_or_insert_with(Instant::now);
        }
        if line.starts_with(LAST_LINE) {
            self.last = Some(Instant::now());
        }
    }

    fn between(&self) -> anyhow::Result<Duration> {
        let (first, last) = self.first.zip(self.last).context("the log has no lines of dpkg-buildpackage")?;
        Ok(last.duration_since(first))
    }
}

/// What both build.
struct Subject {
    source: SourcePackage,
    locked: Locked,
    packages: PathBuf,
    cpus: u32,
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let (name, sources) = (options.source.clone(), folder.join("source"));
    let subject = tokio::task::spawn_blocking(move || Subject::find(&name, &sources)).await??;
    let title = format!("{} {}", subject.source.name, subject.source.version);
    let here = Here::open(folder, subject)?;
    eprintln!("   the environment of {title} is installed, here and for sbuild");
    here.build(0).await?;
    let peer = Peer::prepare(&here.workshop, &folder.join("peer"), &here.subject).await?;
    let (mut ours, mut theirs, mut installs) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=options.amount(3, 1) {
        settle();
        ours.push(here.build(turn).await?);
        settle();
        let (built, install) = peer.build().await?;
        theirs.push(built);
        installs.push(install.as_secs_f64());
    }
    say("here", &ours);
    say("sbuild", &theirs);
    let same = ours.iter().chain(&theirs).all(|built| built.packages == ours[0].packages);
    eprintln!("   packages of all builds: {}", if same { "the same, bit for bit" } else { "they differ" });
    let median = |of: &[Measured], what: fn(&Measured) -> Duration| {
        percentile(&of.iter().map(|one| what(one).as_secs_f64()).collect::<Vec<_>>(), 50)
    };
    let row = |figure: &str, what: fn(&Measured) -> Duration, peer: &str| {
        let row = Row::new(format!("build of {title}, {figure}"), median(&ours, what), "s");
        row.beside(peer, median(&theirs, what)).at_most_of_peer(OF_PEER_MAX)
    };
    table.add(row("environment cached", |one| one.whole, "sbuild --chroot-mode=unshare"));
    table.add(row("dpkg-buildpackage alone", |one| one.alone, "in sbuild"));
    let install = percentile(&installs, 50);
    table.add(Row::new("of sbuild's time, its build dependencies (they are there; whole seconds)", install, "s"));
    Ok(())
}

/// Writes what is waiting to be: an unpacked and removed chroot must not be at the cost of the build that comes next.
fn settle() {
    rustix::fs::sync();
}

fn say(who: &str, builds: &[Measured]) {
    let seconds = |build: &Measured| format!("{:.2} ({:.2})", build.whole.as_secs_f64(), build.alone.as_secs_f64());
    eprintln!("   {who}, s: {}", builds.iter().map(seconds).collect::<Vec<_>>().join(", "));
}

impl Subject {
    fn find(name: &str, sources: &Path) -> anyhow::Result<Self> {
        let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
        let state = sources.with_file_name("archive");
        let archive = Archive::open(&state, archive::system_suite()?, arch)?;
        archive.update(clock::now(), Refresh::WhenStale)?;
        let source = fetch_source(&archive, name, sources)?;
        let locked = lock::lock_for_source(&archive, &source, &[])?;
        let cpus = std::thread::available_parallelism()?;
        Ok(Self { source, locked, packages: archive.debs(), cpus: u32::try_from(cpus.get())? })
    }

    /// Gives `DEB_BUILD_OPTIONS` as a workshop makes them.
    fn build_options(&self) -> String {
        format!("{OPTION} parallel={}", self.cpus)
    }
}

/// A workshop of this process.
struct Here {
    workshop: Workshop,
    folder: PathBuf,
    subject: Subject,
}

impl Here {
    fn open(folder: &Path, subject: Subject) -> anyhow::Result<Self> {
        let rig = RigConfig::default();
        if rustix::process::geteuid().is_root() {
            Rig::prepare_user(&rig)?;
        }
        let config = build::Config {
            state_dir: folder.to_owned(),
            cache_dir: folder.to_owned(),
            environment_bytes_max: 8 << 30,
            rig,
            now: clock::now,
        };
        Ok(Self { workshop: Workshop::open(config)?, folder: folder.to_owned(), subject })
    }

    fn task(&self, number: u64) -> anyhow::Result<Task> {
        let lock = self.subject.locked.lock.clone();
        let request = JobRequest {
            arch: lock.arch,
            kind: JobKind::Deb(self.subject.source.job(vec![OPTION.to_owned()], Vec::new())),
            nonce: vec![0; 16],
            limits: BuildLimits { cpu_milli: self.subject.cpus * 1000, ..BuildLimits::default() },
            channel: ChannelName::new("bench")?,
            created: clock::now(),
            expires: clock::now(),
            network: NetworkId::from_bytes([0; 32]),
            schedule: Schedule::default(),
            environment: lock.id(),
        };
        let lease = Lease {
            job: JobId::from_bytes([1; 32]),
            node: NodeId::from_bytes([2; 32]),
            number: LeaseNumber(number + 1),
            expires: request.expires,
            profile: Profile(0),
            memory_mib: request.limits.memory_mib,
        };
        let (inputs, packages) = (self.subject.source.dir.clone(), self.subject.packages.clone());
        Ok(Task { job: lease.job, request, lease, lock, inputs, packages })
    }

    async fn build(&self, number: u64) -> anyhow::Result<Measured> {
        let task = self.task(number)?;
        let log = LogSink::create(self.folder.join(format!("{number}.log")), 64 << 20)?;
        let mut reader = log.follow(0);
        let heard = async {
            let (mut lines, mut rest) = (Lines::default(), Vec::new());
            while let Some(bytes) = reader.next().await? {
                rest.extend(bytes);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let text: Vec<u8> = rest.drain(..whole).collect();
                String::from_utf8_lossy(&text).lines().for_each(|line| lines.hear(line));
            }
            anyhow::Ok(lines)
        };
        let attempt = async {
            let begun = Instant::now();
            let built = self.workshop.attempt(task, log.clone(), CancellationToken::new()).await;
            let built = built.map_err(|error| anyhow::anyhow!("{}\n{}", error.failure(), log.tail(2000)))?;
            Ok((built, begun.elapsed()))
        };
        let ((built, whole), lines) = tokio::try_join!(attempt, heard)?;
        let mut packages: Vec<_> = built.outputs.iter().map(|output| output.sha256).collect();
        packages.sort();
        self.workshop.discard(&built)?;
        fs::remove_file(log.path())?;
        Ok(Measured { whole, alone: lines.between()?, packages })
    }
}
