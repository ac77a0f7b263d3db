//! Knows every process that attempts in a folder ever had, so that what is left of them can be counted.
//!
//! It looks while they run: the first process of an attempt names the folder in its command line, and all others are below
//! it. A process is known by its number and the time of its start: numbers of namespaces are used again at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::build::sandbox::{self, watch};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the kernel may take to end what was killed, on a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A process: its number and when it started.
type Identity = (u32, u64);

/// What attempts left: everything is empty when nothing did.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Left {
    pub(super) processes: Vec<String>,
    pub(super) mounts: Vec<String>,
    pub(super) groups: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

/// Looks at attempts below a folder until it is dropped.
pub(super) struct Census {
    folder: PathBuf,
    seen: Arc<Mutex<BTreeSet<Identity>>>,
    over: Arc<AtomicBool>,
    looking: Option<thread::JoinHandle<()>>,
}

impl Census {
    /// Begins to look; `folder` is the workshop's.
    pub(super) fn begin(folder: &Path) -> Self {
        let (seen, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (into, stop, of) = (Arc::clone(&seen), Arc::clone(&over), folder.to_owned());
        let looking = thread::Builder::new().name("census".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                look(&of, &into);
                thread::sleep(LOOK_EVERY);
            }
        });
        Self { folder: folder.to_owned(), seen, over, looking: Some(looking.unwrap()) }
    }

    /// Gives how many processes were seen.
    pub(super) fn processes(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Gives what is left after a moment.
    pub(super) fn left(&self) -> Left {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let left = self.count();
            if left == Left::default() || Instant::now() > deadline {
                return left;
            }
            thread::yield_now();
        }
    }

    fn count(&self) -> Left {
        let (name, seen) = (self.folder.to_string_lossy().into_owned(), self.seen.lock().unwrap());
        let of = |(pid, process): &(u32, Process)| {
            process.words.contains(&name) || seen.contains(&(*pid, process.started)) || below(&seen, process)
        };
        let processes = processes().into_iter().filter(of).map(|(_, process)| process.words).collect();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect();
        let files = ["state/attempts", "state/outputs"].map(|folder| self.folder.join(folder));
        let files = files.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
        let environments = fs::read_dir(self.folder.join("cache/environments")).unwrap();
        let half = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-"));
        let half = environments.map(|entry| entry.unwrap().path()).filter(half);
        Left { processes, mounts, groups: groups(&self.folder), files: files.chain(half).collect() }
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            looking.join().unwrap();
        }
    }
}

struct Process {
    parent: u32,
    started: u64,
    words: String,
}

/// Says whether a process is the child of one that was seen, and not of another with the same number.
fn below(seen: &BTreeSet<Identity>, process: &Process) -> bool {
    let parent = watch::started(process.parent);
    parent.is_some_and(|started| seen.contains(&(process.parent, started)))
}

fn look(folder: &Path, seen: &Mutex<BTreeSet<Identity>>) {
    let (all, name) = (processes(), folder.to_string_lossy().into_owned());
    let mut inside: BTreeSet<u32> =
        all.iter().filter(|(_, process)| process.words.contains(&name)).map(|(pid, _)| *pid).collect();
    // Children have larger numbers but for the rare time when numbers start again.
    for (pid, process) in &all {
        if inside.contains(&process.parent) {
            inside.insert(*pid);
        }
    }
    seen.lock().unwrap().extend(inside.iter().map(|pid| (*pid, all[pid].started)));
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let (parent, started) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    (pid != std::process::id()).then_some(Process { parent, started, words })
}

/// Finds control groups that are named after attempts in a folder, which have small numbers, and after installations.
fn groups(folder: &Path) -> Vec<PathBuf> {
    let attempt = |number: u32| folder.join("state/attempts").join(number.to_string());
    let locks = fs::read_dir(folder.join("cache/environments")).unwrap().flatten();
    let ids = locks.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".lock")?.to_owned()));
    let installed = ids.map(|id| folder.join(format!("cache/environments/new-{id}")));
    let names: BTreeSet<_> = (0..200).map(attempt).chain(installed).map(|path| sandbox::name(&path)).collect();
    let folders = walkdir::WalkDir::new("/sys/fs/cgroup").into_iter().flatten();
    let found = folders.filter(|entry| entry.file_name().to_str().is_some_and(|name| names.contains(name)));
    found.map(walkdir::DirEntry::into_path).collect()
}
