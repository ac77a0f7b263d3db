//! Builds source packages of the configured archive under two profiles, and compares the results with each other and with
//! the distribution's own files: `packages STATE SOURCE[:OPTION,OPTION] ...`.
//!
//! No network of nodes, no key, no daemon, and no root: an ordinary user with a range in `/etc/subuid` is enough. `nocheck`
//! is among the options unless the word `check` is given. The exit code is 1 when two profiles differ or a build fails.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use artel::{
    build::{Built, Config, LogSink, RigConfig, Task, Workshop},
    resolve::{
        archive::{Archive, Refresh, system_suite},
        lock::lock_for_source,
        source::{ArchiveBinary, SourcePackage, archive_binaries, fetch_source},
    },
};
use protocol::{
    Arch, ChannelName, JobId, NetworkId, NodeId, Sha256, Timestamp,
    environment::EnvironmentLock,
    job::{BuildLimits, JobKind, JobRequest, Schedule},
    lease::{Lease, LeaseNumber, Profile},
};
use tokio_util::sync::CancellationToken;

/// The plain profile, and the one that varies everything.
const PROFILES: [u16; 2] = [0, 1];
const LIMITS: BuildLimits = BuildLimits {
    pids: 2048,
    log_kib: 65_536,
    disk_mib: 8192,
    cpu_milli: 2000,
    wall_secs: 3600,
    memory_mib: 4096,
    silence_secs: 1800,
};

/// A source package with the files of its environment beside it.
struct Subject {
    source: SourcePackage,
    options: Vec<String>,
    lock: EnvironmentLock,
    packages: PathBuf,
    published: Vec<ArchiveBinary>,
}

/// One line of the table.
struct Row {
    source: String,
    file: String,
    agree: Equal,
    archive: Equal,
    sha256: Option<Sha256>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Equal {
    Yes,
    No,
    /// There is nothing to compare with: not built, or the archive has another binary version.
    Nothing,
}

impl std::fmt::Display for Equal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Equal::Yes => "equal",
            Equal::No => "DIFFERS",
            Equal::Nothing => "-",
        })
    }
}

fn now() -> Timestamp {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp::from_millis(since.tv_sec.unsigned_abs() * 1000 + since.tv_nsec.unsigned_abs() / 1_000_000)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, wanted @ ..] = &arguments[..] else {
        anyhow::bail!("usage: packages STATE SOURCE[:OPTION,OPTION] ...")
    };
    let state = std::path::absolute(state)?;
    fs::create_dir_all(&state)?;
    let arch = Arch::native().ok_or_else(|| anyhow::anyhow!("this machine's architecture has no Debian name"))?;
    let archive = Archive::open(&state.join("archive"), system_suite()?, arch)?;
    archive.update(now(), Refresh::WhenStale)?;
    let workshop = Workshop::open(Config {
        state_dir: state.clone(),
        cache_dir: state.clone(),
        environment_bytes_max: 6 << 30,
        rig: RigConfig::default(),
        now,
    })?;
    workshop.sweep()?;
    eprintln!("user {}, weaknesses: {:?}", rustix::process::geteuid().as_raw(), workshop.rig().weaknesses());
    println!("{:<52} {:<48} {:<8} {:<8} sha256", "source [options]", "file", "profiles", "archive");
    let mut rows: Vec<Row> = Vec::new();
    for (number, wanted) in wanted.iter().enumerate() {
        let found = prepare(&archive, &state, wanted);
        let made = match found {
            Ok(subject) => compare(&workshop, &state, &subject, number).await,
            Err(error) => Err(error),
        };
        let made = made.unwrap_or_else(|error| {
            eprintln!("{wanted}: {error:#}");
            let (source, file) = (wanted.clone(), "(not built)".to_owned());
            vec![Row { source, file, agree: Equal::No, archive: Equal::Nothing, sha256: None }]
        });
        // At once: a long list may be interrupted.
        made.iter().for_each(print);
        rows.extend(made);
    }
    sum_up(&rows);
    let bad = rows.iter().any(|row| row.agree != Equal::Yes);
    std::process::exit(i32::from(bad));
}

fn prepare(archive: &Archive, state: &Path, wanted: &str) -> anyhow::Result<Subject> {
    let (name, options) = wanted.split_once(':').unwrap_or((wanted, ""));
    let mut options: Vec<String> = options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    match options.iter().position(|word| word == "check") {
        Some(at) => drop(options.remove(at)),
        None => options.push("nocheck".into()),
    }
    let source = fetch_source(archive, name, &state.join("sources").join(name))?;
    let locked = lock_for_source(archive, &source, &[])?;
    let published = archive_binaries(archive, &source.name, &source.version)?.unwrap_or_default();
    Ok(Subject { source, options, lock: locked.lock, packages: archive.debs(), published })
}

async fn compare(workshop: &Workshop, state: &Path, subject: &Subject, number: usize) -> anyhow::Result<Vec<Row>> {
    let mut results = Vec::new();
    for (turn, profile) in PROFILES.into_iter().enumerate() {
        let begun = Instant::now();
        let built = attempt(workshop, state, subject, (number * PROFILES.len() + turn, profile)).await?;
        say(subject, profile, &built, begun.elapsed());
        results.push(built.outputs.iter().map(|o| (o.name.to_string(), o.sha256)).collect::<Vec<_>>());
        workshop.discard(&built)?;
    }
    let own = |name: &str| subject.published.iter().find(|p| p.file.as_str() == name).map(|p| p.sha256);
    let equal = |a: Option<Sha256>, b: Sha256| match a {
        None => Equal::Nothing,
        Some(a) if a == b => Equal::Yes,
        Some(_) => Equal::No,
    };
    let row = |(file, sha256): &(String, Sha256)| Row {
        source: format!("{} {} [{}]", subject.source.name, subject.source.version, subject.options.join(" ")),
        file: file.clone(),
        agree: if results.iter().all(|result| result.contains(&(file.clone(), *sha256))) {
            Equal::Yes
        } else {
            Equal::No
        },
        archive: equal(own(file), *sha256),
        sha256: Some(*sha256),
    };
    Ok(results[0].iter().map(row).collect())
}

async fn attempt(
    workshop: &Workshop,
    state: &Path,
    subject: &Subject,
    (number, profile): (usize, u16),
) -> anyhow::Result<Built> {
    let request = JobRequest {
        arch: subject.lock.arch,
        kind: JobKind::Deb(subject.source.job(subject.options.clone(), Vec::new())),
        nonce: vec![0; 16],
        limits: LIMITS,
        channel: ChannelName::new("packages")?,
        created: now(),
        expires: now(),
        network: NetworkId::from_bytes([0; 32]),
        schedule: Schedule::default(),
        environment: subject.lock.id(),
    };
    let job = JobId::from_bytes([1; 32]);
    let lease = Lease {
        job,
        node: NodeId::from_bytes([2; 32]),
        number: LeaseNumber(number as u64 + 1),
        expires: request.expires,
        profile: Profile(profile),
        memory_mib: request.limits.memory_mib,
    };
    let path = state.join(format!("{}-{profile}.log", subject.source.name));
    // The log of an earlier run would be carried on.
    fs::remove_file(&path)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let log = LogSink::create(path, 64 << 20)?;
    let (inputs, packages) = (subject.source.dir.clone(), subject.packages.clone());
    let task = Task { job, request, lease, lock: subject.lock.clone(), inputs, packages };
    let built = workshop.attempt(task, log.clone(), CancellationToken::new()).await;
    built.map_err(|error| anyhow::anyhow!("profile {profile}: {}\n{}", error.failure(), log.tail(2000)))
}

fn say(subject: &Subject, profile: u16, built: &Built, took: Duration) {
    eprintln!(
        "{} {} profile {profile}: {} files in {:.0} s (environment {:.1} s, {} s of CPU, {} MiB, locale {})",
        subject.source.name,
        subject.source.version,
        built.outputs.len(),
        took.as_secs_f64(),
        built.environment_took.as_secs_f64(),
        built.cpu.map_or_else(|| "?".into(), |cpu| format!("{:.0}", cpu.as_secs_f64())),
        built.memory_peak.map_or(0, |bytes| bytes >> 20),
        built.node_info.get("LC_ALL").map_or("?", String::as_str),
    );
}

fn print(row: &Row) {
    let sha256 = row.sha256.map(|sha256| sha256.to_string()).unwrap_or_default();
    println!("{:<52} {:<48} {:<8} {:<8} {sha256}", row.source, row.file, row.agree, row.archive);
}

fn sum_up(rows: &[Row]) {
    let count = |what: fn(&Row) -> bool| rows.iter().filter(|row| what(row)).count();
    println!(
        "{} files: {} equal under both profiles; {} of {} that the archive has are equal to it",
        rows.len(),
        count(|row| row.agree == Equal::Yes),
        count(|row| row.archive == Equal::Yes),
        count(|row| row.archive != Equal::Nothing),
    );
}
