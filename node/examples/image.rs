//! Makes an image, or starts one, by hand: `image STATE OUT (RECIPE.toml | IMAGE.iso) PROFILE...` makes one attempt under each
//! profile, leaves the outputs of each in `OUT/PROFILE`, and says whether all are the same.
//!
//! Without a network, a key or a daemon: for trying a recipe on a machine.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use artel::{
    build::{Config, LogSink, Rig, RigConfig, Task, Workshop},
    clock,
    resolve::archive::{Archive, Refresh, system_suite},
    submit::{
        Prepared,
        boot::boot,
        image::{Recipe, Surroundings, image},
    },
};
use protocol::{
    Arch, ChannelName, JobId, NetworkId, NodeId,
    job::{BuildLimits, JobKind, JobRequest},
    lease::{Lease, LeaseNumber, Profile},
};
use tokio_util::sync::CancellationToken;

fn prepare(state: &Path, what: &Path) -> anyhow::Result<Prepared> {
    let arch = Arch::native().ok_or_else(|| anyhow::anyhow!("this machine's architecture has no Debian name"))?;
    let archive = Archive::open(&state.join("archive"), system_suite()?, arch)?;
    archive.update(clock::now(), Refresh::WhenStale)?;
    if what.extension().is_some_and(|ending| ending == "iso") {
        return Ok(boot(&archive, what)?);
    }
    let (channel, address) = (ChannelName::new("main")?, "https://artel.example".to_owned());
    let around = Surroundings { channel, address, own: Vec::new(), now: clock::now() };
    let folder = what.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(image(&archive, &Recipe::read(what)?, folder, &around)?)
}

/// Lays out what a worker would have fetched.
fn lay_out(prepared: &Prepared, inputs: &Path, packages: &Path) -> anyhow::Result<()> {
    let find = |hash| prepared.files.iter().find(|(known, _)| *known == hash).map(|(_, path)| path);
    let mut wanted: Vec<(protocol::Hash, std::path::PathBuf)> = match &prepared.kind {
        JobKind::Image(job) => {
            let lock = find(job.packages.hash).ok_or_else(|| anyhow::anyhow!("the lock is not prepared"))?;
            let lock = protocol::environment::EnvironmentLock::from_bytes(&fs::read(lock)?)?;
            let debs = lock.packages.iter().map(|p| (p.hash, inputs.join("packages").join(p.file.as_str())));
            let debs: Vec<_> = debs.collect();
            job.inputs().map(|(hash, _, path)| (hash, inputs.join(path))).chain(debs).collect()
        }
        JobKind::Command(job) => job.inputs.iter().map(|f| (f.hash, inputs.join(f.path.as_str()))).collect(),
        JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Server(_) | JobKind::Fetch(_) => Vec::new(),
    };
    wanted.extend(prepared.lock.packages.iter().map(|p| (p.hash, packages.join(p.file.as_str()))));
    for (hash, to) in wanted {
        fs::create_dir_all(to.parent().unwrap_or(inputs))?;
        let from = find(hash).ok_or_else(|| anyhow::anyhow!("{} is not prepared", to.display()))?;
        if !to.exists() {
            fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop))?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [state, out, what, profiles @ ..] = &words[..] else {
        anyhow::bail!("usage: image STATE OUT (RECIPE.toml | IMAGE.iso) PROFILE...")
    };
    let (state, out) = (std::path::absolute(state)?, Path::new(out));
    fs::create_dir_all(&state)?;
    let prepared = prepare(&state, Path::new(what))?;
    let (inputs, packages) = (state.join("inputs"), state.join("packages"));
    for folder in [&inputs, &packages] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
    }
    lay_out(&prepared, &inputs, &packages)?;
    let rig = RigConfig::default();
    if rustix::process::geteuid().is_root() {
        Rig::prepare_user(&rig)?;
    }
    let workshop = Workshop::open(Config {
        state_dir: state.clone(),
        cache_dir: state.clone(),
        environment_bytes_max: 8 << 30,
        rig,
        now: clock::now,
    })?;
    workshop.sweep()?;
    let mut distinct = BTreeSet::new();
    for profile in profiles {
        let profile = Profile(profile.parse()?);
        let task = task(&prepared, profile, (&inputs, &packages))?;
        let log = LogSink::create(state.join(format!("{}.log", profile.0)), 256 << 20)?;
        let built = workshop.attempt(task, log.clone(), CancellationToken::new()).await;
        let built = built.map_err(|error| anyhow::anyhow!("{}\n{}", error.failure(), log.tail(6000)))?;
        let folder = out.join(profile.0.to_string());
        fs::create_dir_all(&folder)?;
        for output in &built.outputs {
            println!("profile {} {} {} {}", profile.0, output.sha256, output.size, output.name);
            fs::copy(&output.path, folder.join(output.name.as_str()))?;
        }
        let took = built.finished.since(built.started);
        println!("profile {} took {took:.1?}, cpu {:.1?}, memory {:?}", profile.0, built.cpu, built.memory_peak);
        distinct.insert(built.outputs.iter().map(|o| (o.name.clone(), o.sha256)).collect::<Vec<_>>());
        workshop.discard(&built)?;
    }
    println!("{} attempts, {} different results", profiles.len(), distinct.len());
    Ok(())
}

fn task(prepared: &Prepared, profile: Profile, (inputs, packages): (&Path, &Path)) -> anyhow::Result<Task> {
    let now = clock::now();
    let request = JobRequest {
        arch: prepared.lock.arch,
        kind: prepared.kind.clone(),
        nonce: vec![0; 16],
        limits: BuildLimits::default(),
        channel: ChannelName::new("main")?,
        created: now,
        expires: now.after(Duration::from_secs(24 * 3600)),
        network: NetworkId::from_bytes([0; 32]),
        schedule: protocol::job::Schedule::default(),
        environment: prepared.lock.id(),
    };
    let (job, node) = (JobId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let (number, expires) = (LeaseNumber(u64::from(profile.0) + 1), request.expires);
    let lease = Lease { job, node, number, expires, profile, memory_mib: request.limits.memory_mib };
    let lock = prepared.lock.clone();
    Ok(Task { job, request, lease, lock, inputs: inputs.to_owned(), packages: packages.to_owned() })
}
