//! What a sandbox leaves in its folder while it runs, so that a later daemon can clean up after one that was killed:
//! processes, mounts, control groups, the folder itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{cgroup, rig::Rig, watch};

/// How long a removal waits for processes that were just killed.
const REMOVE_WITHIN: Duration = Duration::from_secs(2);

/// What stands in an attempt's folder so that a later daemon can clean up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::build) struct Trace {
    /// The first process and its start time in ticks since boot, once it runs.
    pub(in crate::build) process: Option<(u32, u64)>,
    /// The attempt's control groups.
    pub(in crate::build) groups: Vec<PathBuf>,
}

impl Trace {
    const FILE: &'static str = "trace.json";

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        fs::write(folder.join(Self::FILE), bytes)
    }
}

/// Ends what an interrupted sandbox left in its folder, and removes that.
///
/// # Errors
/// When the folder cannot be removed; blocks until what was killed is gone.
pub(in crate::build) fn clean(rig: &Rig, folder: &Path) -> io::Result<()> {
    end_leftovers(folder);
    unmount_below(folder);
    remove_patiently(rig, folder)
}

/// Removes a folder in which killed processes may still be ending.
///
/// # Errors
/// When something cannot be removed after a moment.
pub(in crate::build) fn remove_patiently(rig: &Rig, folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_WITHIN;
    loop {
        match rig.remove_tree(folder) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
}

/// Kills what a folder's trace names, if it is still the same process.
fn end_leftovers(folder: &Path) {
    let Ok(bytes) = fs::read(folder.join(Trace::FILE)) else { return };
    let Ok(trace) = serde_json::from_slice::<Trace>(&bytes) else { return };
    if let Some((pid, started)) = trace.process.filter(|(pid, started)| watch::started(*pid) == Some(*started)) {
        tracing::warn!(pid, started, "process of an interrupted attempt is killed");
        for pid in watch::children(pid).into_iter().chain([pid]).filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // A process that ended meanwhile is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for group in &trace.groups {
        if let Err(error) = cgroup::clear(group) {
            tracing::warn!(group = %group.display(), %error, "control group left behind");
        }
    }
}

/// Unmounts what stands below a folder in this mount namespace: normally nothing, mounts end with their namespace.
fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    for point in points.filter(|point| point.starts_with(folder)) {
        if let Err(error) = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH) {
            tracing::warn!(mount = %point.display(), %error, "mount left behind");
        }
    }
}
