//! The machine's configured archive, seen through a private apt directory.
//!
//! The directory has its own state, cache and configuration and an empty package status. Its sources are the machine's,
//! narrowed to one suite and, once their Release files are known, to the distribution's own origin: a third party's
//! repository that calls its suite like the distribution's stays out. Every apt run holds the directory's file lock.
//! It never touches the machine's own apt state.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use protocol::{Arch, Hash, SuiteName, Timestamp};

use super::{
    configured::{self, Entry},
    release::Beside,
};

/// How long an index counts as fresh.
pub const INDEX_FRESH_FOR: Duration = Duration::from_secs(3600);

/// Settings of the machine that say how to reach the archive and how strict its dates are.
const CARRIED_SETTINGS: &[&str] = &[
    "acquire::http::",
    "acquire::https::",
    "acquire::ftp::",
    "acquire::check-valid-until ",
    "acquire::check-date ",
    "acquire::max-validtime",
    "acquire::max-futuretime",
];

/// Why the archive could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of apt is missing or cannot start.
    #[error("cannot run {program}; install the package apt, on a system that has Debian packages")]
    Start {
        /// The program.
        program: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A program of apt ended with an error.
    #[error("{program} failed while it should {purpose}: {said}")]
    Failed {
        /// The program.
        program: String,
        /// What it was to do.
        purpose: String,
        /// Its own words, shortened.
        said: String,
    },
    /// The archive did not answer, or its signatures do not hold.
    #[error(
        "the package index could not be fetched; check the network, the proxy and the machine's apt sources: {said}"
    )]
    Unreachable {
        /// apt's own words, shortened.
        said: String,
    },
    /// No configured source is for the suite.
    #[error("no configured apt source has the suite {suite} for {arch}; configured suites: {configured}")]
    NoSource {
        /// The suite that was wanted.
        suite: SuiteName,
        /// The architecture that was wanted.
        arch: Arch,
        /// The suites of the machine's sources.
        configured: String,
    },
    /// The system does not say which suite it is.
    #[error("the system's os-release has no VERSION_CODENAME; name the suite")]
    NoCodename,
    /// The index says something that cannot be used.
    #[error("the archive's index cannot be used: {0}")]
    Index(String),
    /// Another archive's description cannot be used.
    #[error("the archive {url} cannot be used: {why}")]
    Elsewhere {
        /// Its address.
        url: String,
        /// The rule.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// Turns an I/O error into one that names the file.
pub(super) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

/// When an index is fetched anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Only when it is older than [`INDEX_FRESH_FOR`] or the configured sources changed.
    WhenStale,
    /// In any case.
    Always,
}

/// One index file that apt holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) suite: String,
    pub(super) origin: String,
    pub(super) codename: String,
    pub(super) kind: String,
    pub(super) uri: String,
    pub(super) path: PathBuf,
}

/// A private apt directory for one suite and one architecture.
#[derive(Debug, Clone)]
pub struct Archive {
    root: PathBuf,
    etc: PathBuf,
    suite: SuiteName,
    arch: Arch,
    beside: Beside,
}

/// Holds the directory's file lock while it lives.
pub(super) struct Guard {
    _file: File,
}

/// Gives the suite of the system that we run on: `VERSION_CODENAME` of os-release(5).
///
/// # Errors
/// [`Error::NoCodename`].
pub fn system_suite() -> Result<SuiteName, Error> {
    os_release("VERSION_CODENAME").and_then(|name| SuiteName::new(name).ok()).ok_or(Error::NoCodename)
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

impl Archive {
    /// Prepares the private directory below `state`; the index is fetched by [`Archive::update`].
    ///
    /// # Errors
    /// When the machine has no source for the suite, apt is missing, or the directory cannot be written.
    pub fn open(state: &Path, suite: SuiteName, arch: Arch) -> Result<Self, Error> {
        Self::open_configured(Path::new("/etc/apt"), state, suite, arch)
    }

    /// As [`Archive::open`], with the sources and keys of another folder than `/etc/apt`.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn open_configured(etc: &Path, state: &Path, suite: SuiteName, arch: Arch) -> Result<Self, Error> {
        Self::open_beside(etc, state, (suite, arch), Beside::default())
    }

    /// Gives the same archive together with further repositories, in a private directory beside this one.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub(super) fn together_with(&self, stanzas: &str) -> Result<Self, Error> {
        let beside = Beside { sources: format!("{}{stanzas}", self.beside.sources), ..self.beside.clone() };
        let state = self.root.parent().expect("the private directory lies in another");
        Self::open_beside(&self.etc, state, (self.suite.clone(), self.arch), beside)
    }

    /// As [`Archive::open_configured`], with a release of our own beside the sources.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn open_beside(
        etc: &Path,
        state: &Path,
        (suite, arch): (SuiteName, Arch),
        beside: Beside,
    ) -> Result<Self, Error> {
        let plain = std::path::absolute(state).map_err(file_error("find", state))?.join(format!("{suite}-{arch}"));
        // An index of its own: who locks without the release at the same time must not see it.
        let digest = Hash::of(beside.sources.as_bytes()).short();
        // Not as an ending: a suite's own name may have a point, and what follows it would be replaced.
        let root = if beside == Beside::default() {
            plain.clone()
        } else {
            plain.with_file_name(format!("{suite}-{arch}.{digest}"))
        };
        let archive = Self { root, etc: etc.into(), suite, arch, beside };
        for folder in [
            "state/lists/partial",
            "debs/partial",
            "none/partial",
            "etc/sources.list.d",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "log",
        ] {
            let path = archive.root.join(folder);
            fs::create_dir_all(&path).map_err(file_error("create", &path))?;
        }
        let _guard = archive.lock()?;
        archive.write("state/status", "")?;
        archive.write("apt.conf", &archive.settings()?)?;
        archive.write("etc/preferences.d/release", &archive.beside.preferences)?;
        archive.share(&plain.join("debs"));
        Ok(archive)
    }

    /// Takes over what the machine's archive alone has downloaded; what is not whole is seen by its hash later.
    fn share(&self, from: &Path) {
        if from == self.debs() {
            return;
        }
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            // A package that cannot be linked is downloaded.
            let _ = fs::hard_link(entry.path(), self.debs().join(entry.file_name()));
        }
    }

    /// Gives the suite.
    pub fn suite(&self) -> &SuiteName {
        &self.suite
    }

    /// Gives the architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Gives the folder of downloaded `.deb`s, shared by every lock of this archive.
    pub fn debs(&self) -> PathBuf {
        self.root.join("debs")
    }

    /// Gives a path below the private directory.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Fetches the index, if it is not fresh.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with apt's words, [`Error::NoSource`], or a file error.
    pub fn update(&self, now: Timestamp, refresh: Refresh) -> Result<(), Error> {
        let entries = self.configured()?;
        let wanted = self.sources(&entries);
        let _guard = self.lock()?;
        let (stamp, age) = (format!("{}\n{wanted}", now.as_millis()), self.age(now, &wanted));
        match (refresh, age) {
            (Refresh::WhenStale, Some(age)) if age < INDEX_FRESH_FOR => return Ok(()),
            (Refresh::WhenStale | Refresh::Always, _) => {}
        }
        let first = self.fetch_index(&wanted);
        let own = self.own_origin(&entries)?;
        if own == entries {
            first?;
        } else {
            // Whatever a stranger's repository said or failed to say in the first round does not matter now.
            self.fetch_index(&self.sources(&own))?;
        }
        self.write("updated", &stamp)
    }

    /// Gives how old the index is, where it was made from these sources.
    fn age(&self, now: Timestamp, sources: &str) -> Option<Duration> {
        let stamp = fs::read_to_string(self.root.join("updated")).ok()?;
        let (time, made_from) = stamp.split_once('\n')?;
        let time = Timestamp::from_millis(time.parse().ok()?);
        (made_from == sources && time <= now).then(|| now.since(time))
    }

    fn sources(&self, entries: &[Entry]) -> String {
        let own = configured::write(entries);
        if self.beside.sources.is_empty() { own } else { format!("{own}\n{}", self.beside.sources) }
    }

    fn configured(&self) -> Result<Vec<Entry>, Error> {
        let all = configured::read(&self.etc);
        let entries = configured::narrow(&all, self.suite.as_str(), self.arch.name());
        if entries.is_empty() {
            let suites: BTreeSet<_> = all.iter().flat_map(|e| &e.suites).map(String::as_str).collect();
            let configured = if suites.is_empty() { "none".into() } else { Vec::from_iter(suites).join(", ") };
            return Err(Error::NoSource { suite: self.suite.clone(), arch: self.arch, configured });
        }
        Ok(entries)
    }

    fn fetch_index(&self, sources: &str) -> Result<(), Error> {
        self.write("etc/sources.list.d/machine.sources", sources)?;
        match self.run("apt-get", &["-q", "-o", "APT::Update::Error-Mode=any", "update"], "fetch the package index") {
            Err(Error::Failed { said, .. }) => Err(Error::Unreachable { said }),
            other => other.map(drop),
        }
    }

    /// Leaves out the entries whose Release file names another origin than the system's own distribution.
    fn own_origin(&self, entries: &[Entry]) -> Result<Vec<Entry>, Error> {
        let indexes = self.indexes()?;
        let Some(id) = os_release("ID").filter(|id| indexes.iter().any(|i| i.origin.eq_ignore_ascii_case(id))) else {
            return Ok(entries.to_vec());
        };
        let foreign = |entry: &&Entry| {
            // apt shows file:///x, which was written as copy:///x, as copy:/x/.
            let local = |uri: &str| uri.replacen("file:", "copy:", 1).replacen("copy:///", "copy:/", 1);
            let at = |uri: &str| local(uri).trim_end_matches('/').to_owned();
            let mine = |i: &&Index| entry.uris.iter().any(|u| at(u) == at(&i.uri)) && entry.suites.contains(&i.suite);
            let mut origins = indexes.iter().filter(mine).peekable();
            origins.peek().is_some() && !origins.any(|i| i.origin.eq_ignore_ascii_case(&id))
        };
        Ok(entries.iter().filter(|e| !foreign(e)).cloned().collect())
    }

    /// Lists the index files that apt holds.
    pub(super) fn indexes(&self) -> Result<Vec<Index>, Error> {
        let format = "$(REPO_URI)\t$(RELEASE)\t$(ORIGIN)\t$(CODENAME)\t$(CREATED_BY)\t$(FILENAME)";
        let out = self.run("apt-get", &["indextargets", "--format", format], "list its index files")?;
        let index = |line: &str| {
            let mut parts = line.split('\t').map(str::to_owned);
            let mut next = || parts.next();
            let (uri, suite, origin, codename, kind) = (next()?, next()?, next()?, next()?, next()?);
            Some(Index { suite, origin, codename, kind, uri, path: next()?.into() })
        };
        Ok(out.lines().filter_map(index).collect())
    }

    /// Takes the directory's lock; waits for another process that has it.
    pub(super) fn lock(&self) -> Result<Guard, Error> {
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(file_error("open", &path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| file_error("lock", &path)(e.into()))?;
        Ok(Guard { _file: file })
    }

    pub(super) fn write(&self, relative: &str, text: &str) -> Result<(), Error> {
        let path = self.root.join(relative);
        fs::write(&path, text).map_err(file_error("write", &path))
    }

    /// Runs a program of apt in the private directory and gives what it printed.
    pub(super) fn run(&self, program: &str, arguments: &[&str], purpose: &str) -> Result<String, Error> {
        self.run_in(&self.root, program, arguments, purpose)
    }

    /// Runs a program of apt with another working directory.
    pub(super) fn run_in(&self, cwd: &Path, program: &str, args: &[&str], purpose: &str) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(args).current_dir(cwd).env("APT_CONFIG", self.root.join("apt.conf"));
        output(command, program, purpose)
    }

    fn settings(&self) -> Result<String, Error> {
        let (root, etc) = (self.root.display(), self.etc.display());
        let mut text = format!(
            "Dir::State \"{root}/state\";\nDir::State::status \"{root}/state/status\";\nDir::Cache \"{root}\";\n\
             Dir::Cache::archives \"{root}/debs\";\nDir::Etc \"{root}/etc\";\nDir::Log \"{root}/log\";\n\
             Dir::Etc::trusted \"{etc}/trusted.gpg\";\nDir::Etc::trustedparts \"{etc}/trusted.gpg.d\";\n\
             Dir::Etc::netrc \"{etc}/auth.conf\";\nDir::Etc::netrcparts \"{etc}/auth.conf.d\";\n\
             APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\nAPT::Install-Recommends \"false\";\n\
             APT::Install-Suggests \"false\";\nAPT::Keep-Downloaded-Packages \"true\";\nAPT::Default-Release \"\";\n\
             Acquire::Languages \"none\";\nAcquire::GzipIndexes \"false\";\nAcquire::ForceHash \"SHA256\";\n\
             Acquire::Retries \"3\";\nDebug::NoLocking \"true\";\n",
            arch = self.arch
        );
        let mut dump = Command::new("apt-config");
        dump.arg("dump");
        let machine = output(dump, "apt-config", "print the machine's settings")?;
        for line in machine.lines() {
            let lower = line.to_lowercase();
            if CARRIED_SETTINGS.iter().any(|prefix| lower.starts_with(prefix)) {
                text += line;
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// Runs a command with a fixed language; a failure carries the last lines of what it said.
pub(super) fn output(mut command: Command, program: &str, purpose: &str) -> Result<String, Error> {
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let out = command.output().map_err(|source| Error::Start { program: program.into(), source })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    let mut said: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("E: ")).collect();
    if said.is_empty() {
        said = text.lines().rev().take(5).collect();
    }
    let printed = String::from_utf8_lossy(&out.stdout);
    said.extend(printed.lines().skip_while(|l| !l.contains("unmet dependencies")).take(8));
    let said: String = said.join("; ").chars().filter(|c| !c.is_control()).take(1200).collect();
    Err(Error::Failed { program: program.into(), purpose: purpose.into(), said })
}

#[cfg(test)]
mod tests;
