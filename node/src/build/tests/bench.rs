//! A workshop in a folder of its own, with a small root file system made of this machine's own programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, NetworkId, Sha256, SuiteName, Timestamp,
    environment::{EnvironmentLock, Family},
    job::{BuildLimits, CommandJob, InputFile, Isolation, JobKind, JobRequest},
    lease::{Lease, LeaseNumber, Profile},
    words::RelativePath,
};

use crate::build::{Config, LogSink, RigConfig, Task, Workshop, WorkshopError, phases::Patience};

const PROGRAMS: [&str; 33] = [
    "bash",
    "cat",
    "chmod",
    "date",
    "dd",
    "dirname",
    "domainname",
    "grep",
    "head",
    "hostname",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "nproc",
    "printf",
    "readlink",
    "rm",
    "setpriv",
    "setsid",
    "sh",
    "sleep",
    "tail",
    "touch",
    "tr",
    "umount",
    "uname",
    "unshare",
    "yes",
];

/// A fixed instant: nothing here depends on the time.
pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

pub(super) struct Bench {
    pub(super) workshop: Workshop,
    pub(super) folder: PathBuf,
    lock: EnvironmentLock,
    leases: AtomicU64,
    _keep: Option<tempfile::TempDir>,
}

/// What a test's job is.
pub(super) struct Job<'a> {
    pub(super) script: &'a str,
    pub(super) arguments: &'a [&'a str],
    pub(super) outputs: &'a [&'a str],
    pub(super) limits: BuildLimits,
}

/// Small limits, so that a broken one shows soon.
pub(super) fn limits() -> BuildLimits {
    BuildLimits {
        pids: 64,
        log_kib: 256,
        disk_mib: 64,
        cpu_milli: 2000,
        wall_secs: 20,
        memory_mib: 256,
        silence_secs: 20,
    }
}

impl Bench {
    /// Opens a workshop, or says why this machine cannot.
    pub(super) async fn open() -> Option<Self> {
        Self::open_with(|_| ()).await
    }

    /// The same, after something was done to its root file system.
    pub(super) async fn open_with(change: impl FnOnce(&Path)) -> Option<Self> {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().to_owned();
        let mut bench = Self::open_in(&folder)?;
        bench._keep = Some(keep);
        bench.install(change).await;
        Some(bench)
    }

    /// Opens a workshop in a folder that somebody else removes.
    pub(super) fn open_in(folder: &Path) -> Option<Self> {
        // The build user must get through.
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let config = Config {
            state_dir: folder.join("state"),
            cache_dir: folder.join("cache"),
            environment_bytes_max: 1 << 30,
            rig: RigConfig::default(),
            now,
        };
        let workshop = match Workshop::open(config) {
            Ok(workshop) => workshop,
            Err(WorkshopError::Rig(error)) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let arch = Arch::native().unwrap();
        let (suite, family) = (SuiteName::new("test").unwrap(), Family::Dpkg);
        let lock = EnvironmentLock { arch, epoch: 1_000_000_000, suite, family, packages: vec![] };
        Some(Self { workshop, folder: folder.to_owned(), lock, leases: AtomicU64::new(1), _keep: None })
    }

    /// Makes the root file system and installs it.
    pub(super) async fn install(&self, change: impl FnOnce(&Path)) {
        let (staging, tar) = (self.folder.join("staging"), self.folder.join("root.tar"));
        stage(&staging, &[]);
        change(&staging);
        let mut command = Command::new("tar");
        command.arg("-C").arg(&staging).args(["--owner=0", "--group=0", "-cf"]).arg(&tar).arg(".");
        assert!(command.status().unwrap().success());
        self.workshop.adopt_environment(self.lock.id(), &tar).await.unwrap();
    }

    /// Makes a task of a job, with `in/name.txt` as its input.
    pub(super) fn task(&self, job: &Job<'_>) -> Task {
        let inputs = self.folder.join("inputs");
        fs::create_dir_all(inputs.join("in")).unwrap();
        fs::write(inputs.join("in/name.txt"), b"artel\n").unwrap();
        let input = InputFile {
            hash: Hash::of(b"artel\n"),
            path: RelativePath::new("in/name.txt").unwrap(),
            size: 6,
            sha256: Sha256::of(b"artel\n"),
        };
        let shell = ["bash", "-c", job.script, "test"].into_iter().chain(job.arguments.iter().copied());
        let kind = JobKind::Command(CommandJob {
            isolation: Isolation::Rootfs,
            argv: shell.map(str::to_owned).collect(),
            name: FileName::new("test").unwrap(),
            inputs: vec![input],
            outputs: job.outputs.iter().map(|name| RelativePath::new(name).unwrap()).collect(),
        });
        let number = LeaseNumber(self.leases.fetch_add(1, Ordering::Relaxed));
        let id = JobId::from_bytes([1; 32]);
        let request = JobRequest {
            arch: self.lock.arch,
            kind,
            nonce: vec![0; 16],
            limits: job.limits,
            channel: ChannelName::new("test").unwrap(),
            created: now(),
            expires: now(),
            network: NetworkId::from_bytes([0; 32]),
            schedule: protocol::job::Schedule::default(),
            environment: self.lock.id(),
        };
        let node = protocol::testing::node(1);
        let lease = Lease { job: id, node, number, expires: now(), profile: Profile(0), memory_mib: 1024 };
        Task { job: id, request, lease, lock: self.lock.clone(), inputs, packages: self.folder.clone() }
    }

    /// The same with the environment of another lock, whose packages lie in a folder.
    pub(super) fn task_in(&self, job: &Job<'_>, lock: EnvironmentLock, packages: &Path) -> Task {
        let mut task = self.task(job);
        task.request.environment = lock.id();
        Task { lock, packages: packages.to_owned(), ..task }
    }

    /// Changes what an installation may use.
    pub(super) fn installing_within(self, limits: BuildLimits) -> Self {
        Self { workshop: self.workshop.installing_within(limits), ..self }
    }

    /// Allows an isolation.
    pub(super) fn allowing(self, isolation: Isolation) -> Self {
        Self { workshop: self.workshop.allowing(isolation), ..self }
    }

    /// Puts a file into the installed environment.
    pub(super) fn place(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(format!("cache/environments/{}/root/{name}", self.lock.id()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn log(&self) -> LogSink {
        LogSink::create(self.folder.join("log"), 1 << 30).unwrap()
    }

    /// Changes how long phases may take.
    pub(super) fn with_patience(self, patience: Patience) -> Self {
        Self { workshop: self.workshop.with_patience(patience), ..self }
    }

    /// Gives what stands in the folder of attempts.
    pub(super) fn attempts(&self) -> usize {
        fs::read_dir(self.folder.join("state/attempts")).unwrap().count()
    }
}

/// Says whether a process with this argument lives, outside or inside of any sandbox.
pub(super) fn lives(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

/// Makes a small root file system of this machine's own programs, those of `more` among them.
pub(super) fn stage(staging: &Path, more: &[&str]) {
    for name in ["usr/bin", "usr/lib", "usr/lib64", "etc", "proc", "dev", "run", "mnt"] {
        fs::create_dir_all(staging.join(name)).unwrap();
    }
    for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(target, staging.join(name)).unwrap();
    }
    fs::write(staging.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(staging.join("etc/group"), "root:x:0:\n").unwrap();
    for program in PROGRAMS.iter().chain(more) {
        let folders = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
        let found = folders.map(|folder| Path::new(folder).join(program)).into_iter().find(|path| path.exists());
        let path = found.unwrap_or_else(|| panic!("this machine has no {program}"));
        fs::copy(&path, staging.join("usr/bin").join(program)).unwrap();
        let said = Command::new("ldd").arg(&path).output().unwrap().stdout;
        for library in String::from_utf8(said).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
            let into = staging.join("usr").join(library.trim_start_matches("/usr").trim_start_matches('/'));
            fs::create_dir_all(into.parent().unwrap()).unwrap();
            fs::copy(library, into).unwrap();
        }
    }
}
