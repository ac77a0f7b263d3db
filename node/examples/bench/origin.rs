//! What k rebuilds of one job take from the archive: packages of its environment, each once for all builders.
//!
//! Two cases: the maintainer's node has what it locked, as always; and nobody has it any more, so that the builders ask the
//! archive themselves. Counted are the packages' bytes, by what the lock downloaded and by what the builders' logs say; the
//! archive's index, which each node keeps for an hour, is not.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use artel::{
    clock,
    config::Builder,
    resolve::{
        archive::{self, Archive, Refresh},
        lock::lock_plain,
    },
    submit::{self, Prepared, Wish},
};
use protocol::{
    Arch, FileName,
    job::{BuildLimits, CommandJob, JobKind, Schedule},
    words::RelativePath,
};
use web::{
    Backend,
    api::{AttemptState, AttemptView},
    backend::{self, Follow, LogRequest},
};

use crate::{
    Options,
    network::{Duty, Network, Plan},
    table::{Row, Table},
};

/// Builders, each of its own operator.
const KS: [u8; 2] = [2, 3];
/// What k rebuilds may take, in parts of 1/k.
const SLACK: f64 = 1.1;
/// How long all builders may take to have everything.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(250);
/// How a builder's log says what the archive gave.
const GAVE: &str = "[artel] the archive gave ";

/// Who has the packages of the lock when the job is handed in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Who locked them.
    ByMaintainer,
    /// Nobody: the disk of who had them has lost every package that is a file of its own.
    ByNobody,
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, program: &Path, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let state = folder.join("archive");
    let (prepared, environment) = tokio::task::spawn_blocking(move || prepare(&state)).await??;
    for kept in [Kept::ByMaintainer, Kept::ByNobody] {
        for k in KS.into_iter().take(options.amount(KS.len(), 1)) {
            let case = if kept == Kept::ByMaintainer { "kept" } else { "gone" };
            let place = folder.join(format!("{case}-{k}"));
            let builders = rebuild(program, &place, &prepared, (k, kept)).await?;
            // Who locked has downloaded all of it, once.
            let locked = if kept == Kept::ByMaintainer { environment } else { 0 };
            let share = (locked + builders) as f64 / (f64::from(k) * environment as f64);
            let name = match kept {
                Kept::ByMaintainer => format!("archive's bytes per rebuild, of an environment, k = {k}"),
                Kept::ByNobody => format!("the same when no peer has the packages, k = {k}"),
            };
            let alone = 1.0;
            table.add(Row::new(name, share, "").at_most(SLACK / f64::from(k)).beside("each alone", alone));
        }
    }
    Ok(())
}

/// Locks an environment afresh. Gives a job in it, and how many bytes of packages the archive gave for that.
fn prepare(state: &Path) -> anyhow::Result<(Prepared, u64)> {
    let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
    let archive = Archive::open(state, archive::system_suite()?, arch)?;
    archive.update(clock::now(), Refresh::WhenStale)?;
    let locked = lock_plain(&archive, &[])?;
    let mut bytes = 0;
    for file in &locked.files {
        bytes += fs::metadata(file)?.len();
    }
    let kind = JobKind::Command(CommandJob {
        isolation: protocol::job::Isolation::Rootfs,
        argv: vec!["sh".into(), "-c".into(), "echo done > out".into()],
        name: FileName::new("origin")?,
        inputs: Vec::new(),
        outputs: vec![RelativePath::new("out")?],
    });
    let files = locked.lock.packages.iter().map(|p| p.hash).zip(locked.files).collect();
    Ok((Prepared { kind, lock: locked.lock, files }, bytes))
}

/// Has k builders prepare one job, and gives how many bytes of packages the archive gave them.
async fn rebuild(program: &Path, folder: &Path, prepared: &Prepared, (k, kept): (u8, Kept)) -> anyhow::Result<u64> {
    let mut plans = vec![Plan { name: "coordinator".into(), duty: Duty::Candidate, builder: None }];
    let builder = |n| Plan { name: format!("builder{n}"), duty: Duty::Member, builder: Some(Builder::default()) };
    plans.extend((1..=k).map(builder));
    let mut network = Network::found_for(folder, plans, &[], k)?;
    network.start_coordinator(program).await?;
    let client = network.client();
    let wish = Wish {
        channel: network.channel.clone(),
        limits: BuildLimits::default(),
        lifetime: Duration::from_secs(3600),
        schedule: Schedule::default(),
    };
    let job = submit::submit(&client, prepared, &wish, clock::now(), &network.maintainer).await?.job;
    network.stop().await;
    if kept == Kept::ByNobody {
        let lost = lose(&network.daemons[0].home.blobs(), prepared)?;
        eprintln!("   the coordinator's disk has lost {lost} of {} packages", prepared.lock.packages.len());
    }
    network.start(program).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let detail = client.job(job).await?;
        if let Some(failed) = detail.attempts.iter().find_map(|attempt| attempt.failure.as_ref()) {
            bail!("an attempt failed in {}: {}", failed.step, failed.what);
        }
        let ready = detail.attempts.iter().filter(|attempt| has_inputs(attempt)).count();
        if ready >= usize::from(k) {
            let mut bytes = 0;
            for attempt in &detail.attempts {
                let request = LogRequest { job, attempt: Some(attempt.number), from: 0, follow: Follow::No };
                let log = backend::collect(client.log(request).await?, 1 << 20).await?;
                bytes += given(&String::from_utf8_lossy(&log));
            }
            network.stop().await;
            return Ok(bytes);
        }
        if Instant::now() > deadline {
            bail!("{ready} of {k} builders have everything after {PATIENCE:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Removes the files of packages from a blob store of a daemon that is stopped. Gives how many; small ones have no file.
fn lose(blobs: &Path, prepared: &Prepared) -> anyhow::Result<usize> {
    let names: BTreeSet<String> = prepared.lock.packages.iter().map(|package| package.hash.to_string()).collect();
    let mut lost = 0;
    for entry in walkdir::WalkDir::new(blobs) {
        let entry = entry?;
        let stem = entry.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if names.contains(stem) && entry.path().extension().is_some_and(|ending| ending == "data") {
            fs::remove_file(entry.path())?;
            lost += 1;
        }
    }
    Ok(lost)
}

/// Says whether an attempt is past the fetching of its inputs.
fn has_inputs(attempt: &AttemptView) -> bool {
    let later = ["environment", "sandbox", "build", "outputs", "attest"].contains(&attempt.phase.as_str());
    later || attempt.state == AttemptState::Built
}

/// Adds up the bytes of `[artel] the archive gave 12 packages, 3456 bytes`.
fn given(log: &str) -> u64 {
    let lines = log.lines().filter_map(|line| line.strip_prefix(GAVE)?.split(' ').nth(2)?.parse::<u64>().ok());
    lines.sum()
}
