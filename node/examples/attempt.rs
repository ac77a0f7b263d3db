//! Makes one attempt by hand: `attempt STATE DEBS SOURCES NAME_VERSION.dsc PROFILE [OPTION ...]`.
//!
//! DEBS is a folder of `.deb` files, which become the environment's lock; SOURCES holds the `.dsc` and what it names.
//! Without a network, a key or a daemon: for trying the sandbox on a machine.

use std::{fs, path::Path};

use artel::build::{Config, LogSink, RigConfig, Task, Workshop};
use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, NetworkId, NodeId, PackageName, Sha256, SuiteName, Timestamp,
    environment::{EnvironmentLock, Family, LockedPackage},
    job::{BuildLimits, DebJob, JobKind, JobRequest, SourceFile},
    lease::{Lease, LeaseNumber, Profile},
    words::DebVersion,
};
use tokio_util::sync::CancellationToken;

fn now() -> Timestamp {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp::from_millis(since.tv_sec.unsigned_abs() * 1000 + since.tv_nsec.unsigned_abs() / 1_000_000)
}

fn lock(debs: &Path) -> anyhow::Result<EnvironmentLock> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(debs)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".deb") else { continue };
        let [name, _, arch] = stem.split('_').collect::<Vec<_>>()[..] else { continue };
        // The file's name has no epoch.
        let said = std::process::Command::new("dpkg-deb").arg("-f").arg(entry.path()).arg("Version").output()?;
        let bytes = fs::read(entry.path())?;
        packages.push(LockedPackage {
            arch: arch.parse()?,
            file: FileName::new(&file)?,
            from: None,
            hash: Hash::of(&bytes),
            name: PackageName::new(name)?,
            size: bytes.len() as u64,
            sha256: Sha256::of(&bytes),
            version: DebVersion::new(String::from_utf8(said.stdout)?.trim())?,
        });
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let arch = Arch::native().unwrap_or(Arch::Amd64);
    Ok(EnvironmentLock {
        arch,
        epoch: 1_747_699_200,
        suite: SuiteName::new("bookworm")?,
        family: Family::Dpkg,
        packages,
    })
}

fn job(sources: &Path, dsc: &str, options: &[String]) -> anyhow::Result<DebJob> {
    let text = fs::read_to_string(sources.join(dsc))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let listed =
        text.lines().skip_while(|line| *line != "Checksums-Sha256:").skip(1).take_while(|l| l.starts_with(' '));
    let names = listed.filter_map(|line| line.split_whitespace().nth(2)).chain([dsc]);
    let mut files = Vec::new();
    for name in names {
        let bytes = fs::read(sources.join(name))?;
        let (hash, sha256) = (Hash::of(&bytes), Sha256::of(&bytes));
        files.push(SourceFile { hash, name: FileName::new(name)?, size: bytes.len() as u64, sha256 });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(DebJob {
        files,
        source: PackageName::new(field("Source: "))?,
        options: options.to_vec(),
        version: DebVersion::new(field("Version: "))?,
        profiles: Vec::new(),
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [state, debs, sources, dsc, profile, options @ ..] = &words[..] else {
        anyhow::bail!("usage: attempt STATE DEBS SOURCES FILE.dsc PROFILE [OPTION ...]")
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (state, profile) = (Path::new(state), Profile(profile.parse()?));
    let lock = lock(Path::new(debs))?;
    let request = JobRequest {
        arch: lock.arch,
        kind: JobKind::Deb(job(Path::new(sources), dsc, options)?),
        nonce: vec![0; 16],
        limits: BuildLimits::default(),
        channel: ChannelName::new("try")?,
        created: now(),
        expires: now().after(std::time::Duration::from_secs(3600)),
        network: NetworkId::from_bytes([0; 32]),
        schedule: protocol::job::Schedule::default(),
        environment: lock.id(),
    };
    let id = JobId::from_bytes([1; 32]);
    let number = LeaseNumber(u64::from(std::process::id()));
    let lease = Lease {
        job: id,
        node: NodeId::from_bytes([2; 32]),
        number,
        expires: request.expires,
        profile,
        memory_mib: request.limits.memory_mib,
    };
    fs::create_dir_all(state)?;
    let workshop = Workshop::open(Config {
        state_dir: state.to_owned(),
        cache_dir: state.to_owned(),
        environment_bytes_max: 8 << 30,
        rig: RigConfig::default(),
        now,
    })?;
    eprintln!("weaknesses: {:?}", workshop.rig().weaknesses());
    let log = LogSink::create(state.join(format!("{number}.log")), 64 << 20)?;
    let task = Task { job: id, request, lease, lock, inputs: sources.into(), packages: debs.into() };
    let built = workshop.attempt(task, log.clone(), CancellationToken::new()).await;
    let built = built.map_err(|error| anyhow::anyhow!("{}\n{}", error.failure(), log.tail(3000)))?;
    for output in built.outputs.iter().chain(&built.byproducts) {
        println!("{} {} {}", output.sha256, output.size, output.name);
    }
    println!("{:#?} cpu {:?} memory {:?}", built.node_info, built.cpu, built.memory_peak);
    println!("environment took {:?}", built.environment_took);
    Ok(workshop.discard(&built)?)
}
