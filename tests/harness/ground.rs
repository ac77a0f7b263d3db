//! What all networks of a machine share: the programs, one locked environment with its packages, installed once.
//!
//! ```text
//!  <cache>/archive          private apt directory and packages
//!  <cache>/locked           the lock, resolved anew when it is a day old
//!  <cache>/environments     installed from the lock by the product itself, kept between runs
//! ```
//! A file lock makes one process prepare while others wait. A machine that cannot make sandboxes or has no archive is no
//! ground, and says why.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use artel::{
    build::{LogSink, Rig, RigConfig, Task, Workshop, WorkshopError},
    clock,
    config::{Explain, Home, Tools},
    resolve::{
        archive::{self, Archive, Refresh},
        lock::lock_plain,
        source::{SourcePackage, read_source, rpm::read_rpm_source},
    },
    submit::Prepared,
};
use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, NetworkId, NodeId, PackageName, Sha256,
    environment::EnvironmentLock,
    job::{BuildLimits, CommandJob, InputFile, Isolation, JobKind, JobRequest},
    lease::{Lease, LeaseNumber, Profile},
    words::RelativePath,
};
use tokio_util::sync::CancellationToken;

/// How long a resolved lock is used before the archive is asked again.
const LOCK_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Set to `required` where the tests must not be skipped.
const REQUIRED: &str = "ARTEL_TESTS";

/// Where this run's programs and folders are; the tests know it from cargo.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// The program `artel`.
    pub artel: &'static str,
    /// The program `artel-verify`.
    pub verify: &'static str,
    /// A folder below the target folder that cargo gives to tests.
    pub folder: &'static str,
    /// The folder of fixtures.
    pub fixtures: &'static str,
}

/// The shared ground of all networks.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The program `artel`.
    pub artel: PathBuf,
    /// The program `artel-verify`.
    pub verify: PathBuf,
    /// The folder that is kept between runs.
    pub cache: PathBuf,
    /// The environment of every job: the buildd set.
    pub lock: EnvironmentLock,
    fixtures: PathBuf,
    packages: PathBuf,
}

/// Why this machine is no ground.
enum Unfit {
    /// It cannot be here: the test is skipped.
    Lacking(String),
    /// It should be: the test fails.
    Broken(String),
}

impl Ground {
    /// Prepares the ground, or prints why this machine cannot be one.
    ///
    /// # Panics
    /// When something fails that should work here, or `ARTEL_TESTS=required` forbids to skip.
    pub async fn find(site: Site) -> Option<Self> {
        match prepare(site).await {
            Ok(ground) => Some(ground),
            Err(Unfit::Broken(why)) => panic!("{why}"),
            Err(Unfit::Lacking(why)) => {
                assert!(std::env::var(REQUIRED).as_deref() != Ok("required"), "must not be skipped: {why}");
                println!("SKIPPED: {why}");
                None
            }
        }
    }

    /// Prepares a fixture's source package as a job.
    ///
    /// # Panics
    /// When there is no such fixture.
    pub fn deb(&self, dsc: &str) -> Prepared {
        self.deb_at(&self.fixtures.join("deb").join(dsc))
    }

    fn deb_at(&self, dsc: &Path) -> Prepared {
        let source: SourcePackage = read_source(dsc).unwrap();
        let mut files: Vec<(Hash, PathBuf)> = source.files.iter().map(|f| f.hash).zip(source.paths()).collect();
        files.extend(self.package_files());
        Prepared { kind: JobKind::Deb(source.job(Vec::new(), Vec::new())), lock: self.lock.clone(), files }
    }

    /// Gives the path of a fixture.
    pub fn fixture(&self, path: &str) -> PathBuf {
        self.fixtures.join(path)
    }

    /// Gives a ground whose environment has further packages of the archive; installed once, too.
    ///
    /// # Panics
    /// When they cannot be had.
    pub async fn with(&self, packages: &[&str]) -> Self {
        let extra: Vec<PackageName> = packages.iter().map(|name| name.parse().unwrap()).collect();
        let guard = File::create(self.cache.join("prepare.lock")).unwrap();
        guard.lock().unwrap();
        let cache = self.cache.clone();
        let resolved = tokio::task::spawn_blocking(move || resolve(&cache, &extra)).await.unwrap();
        let found = async {
            let (lock, packages) = resolved?;
            let ground = Self { lock, packages, ..self.clone() };
            install(&ground).await.map(|()| ground)
        };
        found.await.unwrap_or_else(|(Unfit::Lacking(why) | Unfit::Broken(why))| panic!("{why}"))
    }

    /// Prepares a fixture's spec as a job; `macros` are each NAME VALUE. The ground must have the package rpm.
    ///
    /// # Panics
    /// When there is no such fixture.
    pub fn rpm(&self, spec: &str, macros: &[&str]) -> Prepared {
        self.rpm_at(&self.fixtures.join("rpm").join(spec), macros)
    }

    /// As [`Ground::rpm`], for a spec or source RPM anywhere.
    ///
    /// # Panics
    /// When it is not one.
    pub fn rpm_at(&self, path: &Path, macros: &[&str]) -> Prepared {
        let macros: Vec<String> = macros.iter().map(ToString::to_string).collect();
        let source = read_rpm_source(path, &macros).unwrap();
        let mut files: Vec<(Hash, PathBuf)> = source.files.iter().map(|f| f.hash).zip(source.paths()).collect();
        files.extend(self.package_files());
        Prepared { kind: JobKind::Rpm(source.job(macros)), lock: self.lock.clone(), files }
    }

    /// Prepares another version of `artel-tiny` as a job, made from the fixture below a folder of the test.
    ///
    /// # Panics
    /// When the machine's tar or xz fails.
    pub fn tiny_version(&self, version: &str, folder: &Path) -> Prepared {
        let (from, to) = (self.fixtures.join("deb"), folder.join(format!("tiny-{version}")));
        fs::create_dir_all(&to).unwrap();
        let tar = |arguments: &[&str]| {
            let status = std::process::Command::new("tar").current_dir(&to).args(arguments).status().unwrap();
            assert!(status.success(), "tar {arguments:?}");
        };
        tar(&["-xf", from.join("artel-tiny_1.0.tar.xz").to_str().unwrap()]);
        let tree = format!("artel-tiny-{version}");
        fs::rename(to.join("artel-tiny-1.0"), to.join(&tree)).unwrap();
        let changelog = to.join(&tree).join("debian/changelog");
        let text = fs::read_to_string(&changelog).unwrap().replace("(1.0)", &format!("({version})"));
        fs::write(&changelog, text).unwrap();
        let tarball = format!("artel-tiny_{version}.tar.xz");
        tar(&["-cJf", &tarball, &tree]);
        let bytes = fs::read(to.join(&tarball)).unwrap();
        let old = fs::read(from.join("artel-tiny_1.0.tar.xz")).unwrap();
        let text = fs::read_to_string(from.join("artel-tiny_1.0.dsc")).unwrap();
        let text = text
            .replace("1.0.tar.xz", &format!("{version}.tar.xz"))
            .replace("Version: 1.0", &format!("Version: {version}"));
        let text = text.replace(&Sha256::of(&old).to_string(), &Sha256::of(&bytes).to_string());
        let text = text.replace(&format!(" {} ", old.len()), &format!(" {} ", bytes.len()));
        let dsc = to.join(format!("artel-tiny_{version}.dsc"));
        fs::write(&dsc, text).unwrap();
        self.deb_at(&dsc)
    }

    /// Prepares a shell script as a job; it must leave the file `out`.
    ///
    /// # Panics
    /// When the script breaks a rule of jobs.
    pub fn script(&self, name: &str, script: &str) -> Prepared {
        let argv = ["sh", "-euc", script].map(str::to_owned).to_vec();
        let outputs = vec![RelativePath::new("out").unwrap()];
        let command = CommandJob {
            argv,
            name: FileName::new(name).unwrap(),
            inputs: Vec::new(),
            outputs,
            isolation: Isolation::Rootfs,
        };
        Prepared { kind: JobKind::Command(command), lock: self.lock.clone(), files: self.package_files().collect() }
    }

    /// Adds an input file to a prepared script.
    ///
    /// # Panics
    /// When the job is no command, or the file cannot be read.
    pub fn with_input(&self, mut prepared: Prepared, path: &str, file: &Path) -> Prepared {
        let bytes = fs::read(file).unwrap();
        let hash = Hash::of(&bytes);
        let JobKind::Command(command) = &mut prepared.kind else { panic!("only a command has named inputs") };
        let (size, sha256) = (bytes.len() as u64, Sha256::of(&bytes));
        command.inputs.push(InputFile { hash, path: RelativePath::new(path).unwrap(), size, sha256 });
        prepared.files.push((hash, file.to_owned()));
        prepared
    }

    /// Has coordinators explain differences in this environment, which must have diffoscope.
    ///
    /// # Panics
    /// When its lock cannot be written.
    pub fn explain(&self) -> Explain {
        let path = self.cache.join("locked").join(format!("explain-{}.lock", self.lock.id().short()));
        fs::write(&path, self.lock.to_bytes()).unwrap();
        Explain { environment: Tools::Lock(path), ..Explain::default() }
    }

    /// Lends a node the packages and environments of this machine's tests, for its comparisons.
    ///
    /// # Panics
    /// When the node has its own already.
    pub fn lend(&self, home: &Home) {
        fs::create_dir_all(home.explain()).unwrap();
        std::os::unix::fs::symlink(self.environments(), home.explain().join("environments")).unwrap();
        std::os::unix::fs::symlink(self.cache.join("archive"), home.archive()).unwrap();
    }

    /// Gives the environments that the product installed here.
    pub fn environments(&self) -> PathBuf {
        self.cache.join("environments")
    }

    fn package_files(&self) -> impl Iterator<Item = (Hash, PathBuf)> + '_ {
        self.lock.packages.iter().map(|p| (p.hash, self.packages.join(p.file.as_str())))
    }
}

async fn prepare(site: Site) -> Result<Ground, Unfit> {
    let broken = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Unfit::Broken(format!("{what}: {error}"))
    };
    if !Path::new("/etc/debian_version").exists() {
        return Err(Unfit::Lacking("this is no Debian system: environments come from apt".into()));
    }
    let config = RigConfig::default();
    // Only root may prepare the user; the rig says what is missing otherwise.
    let _ = Rig::prepare_user(&config);
    Rig::find(&config).map_err(|error| Unfit::Lacking(format!("this machine cannot build: {error}")))?;
    let cache = cache_folder(site)?;
    let guard = File::create(cache.join("prepare.lock")).map_err(broken("the cache folder"))?;
    guard.lock().map_err(broken("the lock of the cache folder"))?;
    let archive = tokio::task::spawn_blocking({
        let cache = cache.clone();
        move || resolve(&cache, &[])
    });
    let (lock, packages) = archive.await.map_err(|error| Unfit::Broken(error.to_string()))??;
    let ground = Ground {
        artel: site.artel.into(),
        verify: site.verify.into(),
        fixtures: site.fixtures.into(),
        cache,
        lock,
        packages,
    };
    install(&ground).await?;
    Ok(ground)
}

/// Finds a folder that the build user can reach: below the target folder, else below the system's temporary one.
fn cache_folder(site: Site) -> Result<PathBuf, Unfit> {
    let candidates = [PathBuf::from(site.folder), std::env::temp_dir().join("artel-tests")];
    let mut why = String::new();
    for folder in candidates.map(|folder| folder.join("ground")) {
        match fs::create_dir_all(&folder).map_err(|e| e.to_string()).and_then(|()| workshop(&folder)) {
            Ok(_) => return Ok(folder),
            Err(error) => why = error,
        }
    }
    Err(Unfit::Lacking(format!("no folder for environments: {why}")))
}

fn workshop(cache: &Path) -> Result<Workshop, String> {
    fs::set_permissions(cache, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let config = artel::build::Config {
        state_dir: cache.join("workshop"),
        cache_dir: cache.to_owned(),
        environment_bytes_max: 4 << 30,
        rig: RigConfig::default(),
        now: clock::now,
    };
    Workshop::open(config).map_err(|error: WorkshopError| error.to_string())
}

/// Gives the lock and the folder of its packages: those of the last run, or from the archive.
fn resolve(cache: &Path, extra: &[PackageName]) -> Result<(EnvironmentLock, PathBuf), Unfit> {
    let lacking = |error: archive::Error| Unfit::Lacking(format!("this machine's apt archive cannot be used: {error}"));
    let suite = archive::system_suite().map_err(lacking)?;
    let arch = Arch::native().ok_or_else(|| Unfit::Lacking("dpkg has no name for this architecture".into()))?;
    let stored = cache.join("locked").join(format!("{suite}-{arch}{}.lock", plus(extra)));
    let archive = Archive::open(&cache.join("archive"), suite, arch).map_err(lacking)?;
    let packages = archive.debs();
    if let Some(lock) = stored_lock(&stored, &packages) {
        return Ok((lock, packages));
    }
    archive.update(clock::now(), Refresh::WhenStale).map_err(lacking)?;
    let locked =
        lock_plain(&archive, extra).map_err(|e| Unfit::Broken(format!("the environment is not locked: {e}")))?;
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(stored.parent().expect("a file lies in a folder"))?;
        fs::write(&stored, locked.lock.to_bytes())
    };
    write().map_err(|e| Unfit::Broken(format!("{}: {e}", stored.display())))?;
    Ok((locked.lock, packages))
}

fn plus(extra: &[PackageName]) -> String {
    extra.iter().map(|name| format!("+{name}")).collect()
}

/// Reads the lock of an earlier run, unless it is old or its packages are not all there.
fn stored_lock(path: &Path, packages: &Path) -> Option<EnvironmentLock> {
    let age = fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()?;
    let lock = EnvironmentLock::from_bytes(&fs::read(path).ok()?).ok().filter(|_| age < LOCK_AGE_MAX)?;
    let here = |name: &FileName, size| fs::metadata(packages.join(name.as_str())).is_ok_and(|m| m.len() == size);
    lock.packages.iter().all(|p| here(&p.file, p.size)).then_some(lock)
}

/// Has the product install the environment by building something trivial in it.
async fn install(ground: &Ground) -> Result<(), Unfit> {
    let workshop = workshop(&ground.cache).map_err(Unfit::Broken)?;
    let id = ground.lock.id();
    if workshop.has_environment(&id) {
        return Ok(());
    }
    println!("installing environment {} ({} packages), once", id.short(), ground.lock.packages.len());
    workshop.sweep().map_err(|e| Unfit::Broken(format!("the workshop cannot be swept: {e}")))?;
    let empty = ground.cache.join("empty");
    fs::create_dir_all(&empty).map_err(|e| Unfit::Broken(e.to_string()))?;
    let log = ground.cache.join("install.log");
    let sink = LogSink::create(log.clone(), 1 << 30).map_err(|e| Unfit::Broken(e.to_string()))?;
    let task = trivial(ground, &empty);
    match workshop.attempt(task, sink, CancellationToken::new()).await {
        Ok(built) => workshop.discard(&built).map_err(|e| Unfit::Broken(e.to_string())),
        Err(error) => Err(Unfit::Broken(format!("the environment cannot be used: {}", error.failure()))),
    }
}

fn trivial(ground: &Ground, inputs: &Path) -> Task {
    let prepared = ground.script("trivial", "echo artel > out");
    let now = clock::now();
    let job = JobId::from_bytes([1; 32]);
    let request = JobRequest {
        arch: ground.lock.arch,
        kind: prepared.kind,
        nonce: vec![0; 16],
        limits: BuildLimits::default(),
        channel: ChannelName::new("main").expect("a valid word"),
        created: now,
        expires: now.after(Duration::from_secs(3600)),
        network: NetworkId::from_bytes([1; 32]),
        schedule: protocol::job::Schedule::default(),
        environment: ground.lock.id(),
    };
    let (number, node, profile) = (LeaseNumber(1), NodeId::from_bytes([1; 32]), Profile(0));
    Task {
        job,
        lease: Lease { job, node, number, expires: request.expires, profile, memory_mib: request.limits.memory_mib },
        request,
        lock: ground.lock.clone(),
        inputs: inputs.to_owned(),
        packages: ground.packages.clone(),
    }
}
