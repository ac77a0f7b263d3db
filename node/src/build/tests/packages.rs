//! The packages of a lock are anybody's, and so are the scripts that they run while they are installed. Each attack here is
//! the script of one real package, installed by the real tools into an environment that holds nothing else.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use protocol::{
    Arch, FileName, Hash, PackageName, Sha256,
    blame::{Blame, Failure},
    environment::{EnvironmentLock, LockedPackage},
    job::BuildLimits,
    words::DebVersion,
};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, lives, stage},
    census::{Census, Left},
    honest, hostile,
};

/// What installing a package needs beside the programs of every small root file system.
const TOOLS: [&str; 11] = [
    "chroot",
    "diff",
    "dpkg",
    "dpkg-deb",
    "dpkg-split",
    "env",
    "ldconfig",
    "start-stop-daemon",
    "tar",
    "true",
    "truncate",
];

/// Small limits, so that a broken one shows soon.
fn limits() -> BuildLimits {
    BuildLimits { pids: 128, disk_mib: 512, wall_secs: 60, ..super::bench::limits() }
}

/// A workshop, and a folder with one package that is a whole small system.
struct Stranger {
    bench: Bench,
    packages: PathBuf,
    root: PathBuf,
}

impl Stranger {
    async fn open() -> Option<Self> {
        let bench = Bench::open().await?.installing_within(limits());
        let (packages, root) = (bench.folder.join("packages"), bench.folder.join("package"));
        fs::create_dir(&packages).unwrap();
        stage(&root, &TOOLS);
        hostile::compile(&root);
        for folder in ["tmp", "var/lib/dpkg", "sys", "DEBIAN"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Some(Self { bench, packages, root })
    }

    /// Makes the package with a script, and its lock.
    fn lock(&self, script: &str) -> EnvironmentLock {
        let control = "Package: attack\nVersion: 1\nArchitecture: all\nEssential: yes\nPriority: required\n\
                       Maintainer: nobody <nobody@artel.invalid>\nDescription: attack\n";
        fs::write(self.root.join("DEBIAN/control"), control).unwrap();
        let postinst = self.root.join("DEBIAN/postinst");
        fs::write(&postinst, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&postinst, fs::Permissions::from_mode(0o755)).unwrap();
        let file = self.packages.join("attack_1_all.deb");
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "-Znone", "--build"]).arg(&self.root).arg(&file);
        assert!(command.output().unwrap().status.success());
        let bytes = fs::read(&file).unwrap();
        let package = LockedPackage {
            arch: Arch::All,
            file: FileName::new("attack_1_all.deb").unwrap(),
            from: None,
            hash: Hash::of(&bytes),
            name: PackageName::new("attack").unwrap(),
            size: bytes.len() as u64,
            sha256: Sha256::of(&bytes),
            version: DebVersion::new("1").unwrap(),
        };
        let plain = self.bench.task(&honest()).lock;
        EnvironmentLock { packages: vec![package], ..plain }
    }

    /// Installs the package with a script and runs an honest job in it. Gives the environment's root, or the failure; nothing
    /// of either is left then.
    async fn install(&self, script: &str) -> Result<PathBuf, Failure> {
        let lock = self.lock(script);
        let root = self.bench.folder.join(format!("cache/environments/{}/root", lock.id()));
        let task = self.bench.task_in(&honest(), lock, &self.packages);
        let (census, log) = (Census::begin(&self.bench.folder), self.bench.log());
        let result = self.bench.workshop.attempt(task, log.clone(), CancellationToken::new()).await;
        let result = match result {
            Ok(built) => {
                self.bench.workshop.discard(&built).unwrap();
                Ok(root)
            }
            Err(error) => Err(error.failure()),
        };
        assert!(census.processes() > 5, "{} processes were seen", census.processes());
        assert_eq!(census.left(), Left::default(), "after {script}: {result:?}\n{}", log.tail(2000));
        result
    }

    /// Installs a package that fails, and says how.
    async fn fails(&self, script: &str) -> (Blame, String) {
        let failure = self.install(script).await.expect_err(script);
        assert_eq!(failure.step, "environment", "{failure}");
        (failure.blame, failure.what)
    }
}

#[tokio::test]
async fn what_a_script_breaks_is_the_jobs_fault_and_nothing_is_left() {
    let Some(stranger) = Stranger::open().await else { return };
    let cases = [
        ("echo it is broken >&2; exit 3", "it is broken"),
        ("bomb() { bomb | bomb & }; bomb; sleep 20", "process limit of 128 reached"),
        ("dd if=/dev/zero of=/large bs=1M count=4096; sleep 20", "disk limit of 512 MiB reached"),
        ("exec yes", "log limit of 256 KiB reached"),
        ("truncate -s 8T /holes", "their files have 8388"),
        ("attack escape /nowhere replace >&2; exit 0", ""),
    ];
    for (script, words) in cases {
        let (blame, what) = stranger.fails(script).await;
        println!("figure: {script:<55} {what:.200}");
        assert_eq!(blame, Blame::Job, "{script}: {what}");
        assert!(what.contains(words), "{script}: {what}");
    }
    let root = stranger.install("true").await.expect("an honest package");
    assert!(!root.join("holes").exists() && root.join("usr/bin/dpkg").exists());
}

#[tokio::test]
async fn an_installation_that_hangs_meets_its_time_limit() {
    let Some(stranger) = Stranger::open().await else { return };
    let bench = stranger.bench.installing_within(BuildLimits { wall_secs: 4, ..limits() });
    let stranger = Stranger { bench, ..stranger };
    let (blame, what) = stranger.fails("sleep 86389").await;
    assert!(blame == Blame::Timeout && what.contains("time limit of 4 s reached"), "{what}");
}

#[tokio::test]
async fn a_script_has_few_rights_and_gets_nowhere() {
    let Some(stranger) = Stranger::open().await else { return };
    let victim = stranger.bench.folder.join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o666)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "exec >/result 2>&1; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status\n\
         mount -t tmpfs none /mnt && echo reached mount; mknod /disk b 254 0 && echo reached device\n\
         unshare -Ur true && echo reached namespace; (exec 3<>/dev/tcp/127.0.0.1/{port}) && echo reached network\n\
         attack escape {0} ''; cat /proc/meminfo; hostname\n\
         setsid sleep 86388 & ln -sf {0} /etc/hostname; ln -sf {0} /etc/resolv.conf; exit 0",
        victim.display()
    );
    let root = stranger.install(&script).await.unwrap();
    let result = fs::read_to_string(root.join("result")).unwrap();
    println!("{result}");
    assert!(!result.contains("reached"), "{result}");
    for said in [
        "NoNewPrivs:\t1\n",
        "Seccomp:\t2\n",
        "MemTotal:         262144 kB\n",
        "\nartel\n",
        "CapEff:\t00000000800400fb\n",
    ] {
        assert!(result.contains(said), "{said:?} is not in {result}");
    }
    for refused in
        ["a file of the machine: No such file", "passwords: No such", "program: Read-only", "disk: Operation not"]
    {
        assert!(result.contains(refused), "{refused:?} is not in {result}");
    }
    assert!(listener.accept().is_err(), "nobody came out");
    assert!(!lives("86388"), "what a script left running is gone");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "no link was followed out of the tree");
}

#[tokio::test]
async fn one_lock_gives_one_tree() {
    let Some(first) = Stranger::open().await else { return };
    let tree = async |stranger: &Stranger| {
        let root = stranger.install("echo made > /made; mkdir /dev/pts /run/here; umask").await.unwrap();
        let text = fs::read_to_string(root.parent().unwrap().join("complete.json")).unwrap();
        let dev: Vec<_> = fs::read_dir(root.join("dev")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(dev, ["pts"], "what the sandbox put there is gone again");
        assert_eq!(fs::read_dir(root.join("proc")).unwrap().count(), 0);
        text
    };
    let second = Stranger::open().await.unwrap();
    assert_eq!(tree(&first).await, tree(&second).await);
}

#[tokio::test]
async fn a_killed_installation_is_swept() {
    let Some(stranger) = Stranger::open().await else { return };
    let lock = stranger.lock("sleep 86387");
    let task = stranger.bench.task_in(&honest(), lock, &stranger.packages);
    let log = stranger.bench.log();
    {
        let attempt = stranger.bench.workshop.attempt(task, log, CancellationToken::new());
        let running = async {
            while !lives("86387") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = attempt => panic!("it sleeps: {ended:?}"),
            () = running => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => panic!("it never came so far"),
        }
    }
    super::wait_until("what was dropped is gone", || !lives("86387"));
    stranger.bench.workshop.sweep().unwrap();
    let census = Census::begin(&stranger.bench.folder);
    assert_eq!(census.left(), Left::default());
}
