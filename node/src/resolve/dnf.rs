//! Environment locks of RPMs, from a repository given by address and key.
//!
//! ```text
//!  URL, key --dnf, repomd.xml.asc checked--> packages solved --downloaded, each signature checked--> EnvironmentLock + RPMs
//! ```
//! dnf solves against an empty root of its own and installs nothing; this machine's repositories, plugins and variables are not
//! read. Repository and packages must both be signed by the key. What is locked is what each file's own header says.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use attest::rpm::{self, Header};
use protocol::{
    Arch, FileName, Hash, PackageName, SuiteName, Timestamp,
    environment::{EnvironmentLock, Family, LockedPackage},
    words::DebVersion,
};

use super::{
    archive::{self, file_error, output},
    digest::Digest,
    elsewhere::read_key,
    lock::{Locked, RPMS},
};

/// What every environment has beside what was asked for: a shell, the program with which a build gives up its rights, and
/// what profiles preload to move the date.
const ALWAYS: [&str; 3] = ["/bin/sh", "/usr/bin/setpriv", "libfaketime"];
/// Tags of a header (rpm's `rpmtag.h`).
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const BUILD_TIME: u32 = 1006;
    pub(super) const ARCH: u32 = 1022;
}

/// Why no lock was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// dnf is missing, or the key or a file cannot be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The repository's list of packages is not signed.
    #[error("the repository {url} is not signed: it has no repodata/repomd.xml.asc")]
    Unsigned {
        /// Its address.
        url: String,
    },
    /// The repository's list of packages is signed by another key, or was changed.
    #[error(
        "the signature of the repository {url} does not verify with the key {key}: another key made it, or the index changed"
    )]
    WrongKey {
        /// Its address.
        url: String,
        /// The key's file.
        key: PathBuf,
    },
    /// A package is unsigned, or signed by another key.
    #[error("a package of {url} is not signed by the key {key}: {said}")]
    Package {
        /// The repository's address.
        url: String,
        /// The key's file.
        key: PathBuf,
        /// dnf's words.
        said: String,
    },
    /// The repository has no such package.
    #[error("the repository {url} has no package {name}{}", because(name))]
    Missing {
        /// Its address.
        url: String,
        /// What was asked for.
        name: String,
    },
    /// There is no repository, or it does not answer.
    #[error("no repository was reached at {url} (its repodata/repomd.xml): check the address and the network: {said}")]
    Unreachable {
        /// Its address.
        url: String,
        /// dnf's words.
        said: String,
    },
    /// There is no solution, or something else is wrong.
    #[error("dnf cannot solve the environment from {url}: {said}")]
    Solve {
        /// The repository's address.
        url: String,
        /// dnf's words.
        said: String,
    },
    /// A package came that cannot be in a lock.
    #[error("{file} cannot be in a lock: {why}")]
    Refused {
        /// The file.
        file: String,
        /// The rule.
        why: String,
    },
}

fn because(name: &str) -> &'static str {
    if ALWAYS.contains(&name) { ", which every environment needs" } else { "" }
}

/// A repository of RPMs by address and key.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'a> {
    /// The folder that holds `repodata`, perhaps with `$releasever` in it.
    pub url: &'a str,
    /// The file of the key that signs the repository and its packages, armored.
    pub key: &'a Path,
    /// What `$releasever` stands for.
    pub release: &'a SuiteName,
}

/// A private dnf directory.
struct Private<'a> {
    root: PathBuf,
    repository: Repository<'a>,
}

/// Locks packages, what they require, and libfaketime; nothing that they only recommend. The RPMs lie below `state` afterwards.
///
/// # Errors
/// When dnf finds no solution, a signature does not verify, or a package cannot be in a lock.
pub fn lock(
    state: &Path,
    repository: Repository<'_>,
    arch: Arch,
    asked: &[String],
    now: Timestamp,
) -> Result<Locked, Error> {
    let plain = |word: &str| word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_');
    if let Some(word) = asked.iter().find(|word| !plain(word) || word.contains(['*', '?', '[', ' ', '<', '>', '='])) {
        return Err(Error::Refused { file: word.clone(), why: "it names no package".to_owned() });
    }
    let private = Private::open(state, repository)?;
    let _guard = private.lock()?;
    let new = private.root.join("new");
    remove(&new)?;
    private.download(asked, &new)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&new).map_err(file_error("list", &new))?.flatten() {
        found.push(read(&entry.path())?);
    }
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let epoch = found.iter().map(|(_, built)| *built).max().unwrap_or_default();
    if epoch > now.as_secs() {
        let late = found.iter().find(|(_, built)| *built == epoch).map(|(package, _)| package.file.to_string());
        let why = "its header says that it will be built in the future; look at this machine's clock".to_owned();
        return Err(Error::Refused { file: late.unwrap_or_default(), why });
    }
    let packages: Vec<LockedPackage> = found.into_iter().map(|(package, _)| package).collect();
    let (suite, family) = (repository.release.clone(), Family::Rpm);
    let lock = EnvironmentLock { arch, epoch, suite, family, packages };
    lock.check().map_err(|why| Error::Solve { url: repository.url.to_owned(), said: why })?;
    let files = lock.packages.iter().map(|package| private.keep(&new, package)).collect::<Result<_, _>>()?;
    remove(&new)?;
    Ok(Locked { lock, files })
}

impl<'a> Private<'a> {
    fn open(state: &Path, repository: Repository<'a>) -> Result<Self, Error> {
        let url = repository.url;
        let known = ["http://", "https://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
        if !known || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "its address begins with http://, https:// or file:/// and has no spaces".to_owned();
            return Err(archive::Error::Elsewhere { url: url.chars().take(200).collect(), why }.into());
        }
        let key = read_key(repository.key)?;
        if !key.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") {
            let why = format!("{} is no armored public key (`gpg --armor --export`)", repository.key.display());
            return Err(archive::Error::Elsewhere { url: url.to_owned(), why }.into());
        }
        let words = format!("{url} {}\n", repository.release);
        let digest = Hash::of(&[words.as_bytes(), &key[..]].concat()).short();
        let state = std::path::absolute(state).map_err(file_error("find", state))?;
        let root = state.join("elsewhere").join(digest).join("dnf");
        for folder in ["home", "empty", "cache", "log", "persist", RPMS] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(file_error("create", &path))?;
        }
        let private = Self { root, repository };
        private.write("key.asc", &key)?;
        private.write("home/.rpmmacros", b"%_dbpath /var/lib/rpm\n%_pkgverify_level all\n")?;
        private.write("dnf.conf", private.settings().as_bytes())?;
        Ok(private)
    }

    fn settings(&self) -> String {
        let (root, url) = (self.root.display(), self.repository.url);
        format!(
            "[main]\nreposdir={root}/empty\nvarsdir={root}/empty\nplugins=0\ninstall_weak_deps=0\nbest=1\nzchunk=0\n\
             metadata_expire=0\nretries=3\ntimeout=30\ngpgcheck=1\n\
             [repository]\nname=repository\nbaseurl={url}\nrepo_gpgcheck=1\ngpgcheck=1\ngpgkey=file://{root}/key.asc\n"
        )
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(name);
        Ok(fs::write(&path, bytes).map_err(file_error("write", &path))?)
    }

    fn lock(&self) -> Result<fs::File, Error> {
        let path = self.root.join("lock");
        let file = fs::File::create(&path).map_err(file_error("open", &path))?;
        file.lock().map_err(file_error("lock", &path))?;
        Ok(file)
    }

    /// Has dnf solve for an empty root, download into a new folder, and check what it downloaded.
    fn download(&self, asked: &[String], new: &Path) -> Result<(), Error> {
        // Keys and packages that it thinks are there already would change the answer.
        let root = self.root.join("root");
        remove(&root)?;
        for folder in [root.as_path(), new] {
            fs::create_dir_all(folder).map_err(file_error("create", folder))?;
        }
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let setting = |name: &str, value: &str| format!("--setopt={name}={}", self.root.join(value).display());
        // dnf installs for root alone, and asks who it is though it only downloads.
        let root_already = rustix::process::geteuid().is_root();
        let mut command = Command::new(if root_already { "dnf" } else { "unshare" });
        command.args(if root_already { &[][..] } else { &["--map-root-user", "dnf"] });
        command.args(["-y", "-q", "--disableplugin=*", "--downloadonly", "-c"]).arg(self.root.join("dnf.conf"));
        command.args([option("installroot", &root), option("downloaddir", new)]);
        command.args([setting("cachedir", "cache"), setting("logdir", "log"), setting("persistdir", "persist")]);
        command.arg(format!("--releasever={}", self.repository.release)).arg("install").args(ALWAYS).args(asked);
        command.env("HOME", self.root.join("home")).current_dir(&self.root);
        match output(command, "dnf", "solve the environment") {
            Ok(_) => Ok(()),
            Err(archive::Error::Failed { said, .. }) => Err(self.understood(said)),
            Err(archive::Error::Start { source, .. }) => {
                let why = format!("dnf cannot be run ({source}): install the package dnf");
                Err(archive::Error::Elsewhere { url: self.repository.url.to_owned(), why }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says what dnf's words mean, where that is known.
    fn understood(&self, said: String) -> Error {
        let about_keys = ["Importing GPG key", "Userid", "Fingerprint", "From"];
        let lines = said.split("; ").filter(|line| !about_keys.iter().any(|word| line.trim().starts_with(word)));
        let said = lines.map(str::trim).collect::<Vec<_>>().join("; ");
        let (url, key) = (self.repository.url.to_owned(), self.repository.key.to_owned());
        let has = |words: &str| said.contains(words);
        if has("GPG signature is not available") {
            return Error::Unsigned { url };
        }
        if has("GPG signature verification error") {
            return Error::WrongKey { url, key };
        }
        if has("GPG check FAILED") {
            return Error::Package { url, key, said };
        }
        if let Some((_, name)) = said.split_once("Unable to find a match: ") {
            return Error::Missing { url, name: name.split(';').next().unwrap_or(name).trim().to_owned() };
        }
        if has("Failed to download metadata") {
            return Error::Unreachable { url, said };
        }
        Error::Solve { url, said }
    }

    /// Moves a package from the new folder to where locks of old find theirs.
    fn keep(&self, new: &Path, package: &LockedPackage) -> Result<PathBuf, Error> {
        let path = self.root.join(RPMS).join(package.file.as_str());
        fs::rename(new.join(package.file.as_str()), &path).map_err(file_error("keep", &path))?;
        Ok(path)
    }
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", folder)(error).into()),
        _ => Ok(()),
    }
}

/// Reads what a package's header says, and when it was built.
fn read(path: &Path) -> Result<(LockedPackage, u64), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refuse = |why: String| Error::Refused { file: name.clone(), why };
    let digest = Digest::of_file(path).map_err(file_error("read", path))?;
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path).map_err(file_error("read", path))?;
    let header = loop {
        let wanted = rpm::front_size(&bytes).map_err(|error| refuse(error.to_string()))?;
        if wanted <= bytes.len() && !bytes.is_empty() {
            break rpm::front(&bytes).map_err(|error| refuse(error.to_string()))?.header;
        }
        let more = (wanted - bytes.len()) as u64;
        let got = (&mut file).take(more).read_to_end(&mut bytes).map_err(file_error("read", path))?;
        if got == 0 {
            return Err(refuse("it ends within its headers".into()));
        }
    };
    let (name, version, arch) = identity(&header).map_err(refuse)?;
    let file = format!(
        "{name}-{}.{}.rpm",
        version.as_str().split_once(':').map_or(version.as_str(), |v| v.1),
        arch.rpm_name()
    );
    let file = FileName::new(&file).map_err(|error| refuse(error.to_string()))?;
    if path.file_name().and_then(|name| name.to_str()) != Some(file.as_str()) {
        return Err(refuse(format!("its header says that it is {file}")));
    }
    let Digest { hash, sha256, size } = digest;
    let built = header.number(tag::BUILD_TIME).unwrap_or_default();
    Ok((LockedPackage { arch, file, from: None, hash, name, size, sha256, version }, built))
}

fn identity(header: &Header) -> Result<(PackageName, DebVersion, Arch), String> {
    let text = |tag: u32, what: &str| header.text(tag).ok_or(format!("it has no {what}"));
    let name = PackageName::new(text(tag::NAME, "name")?).map_err(|error| error.to_string())?;
    let epoch = header.number(tag::EPOCH).filter(|epoch| *epoch > 0).map_or_else(String::new, |n| format!("{n}:"));
    let version = format!("{epoch}{}-{}", text(tag::VERSION, "version")?, text(tag::RELEASE, "release")?);
    let version = DebVersion::new(version).map_err(|error| error.to_string())?;
    let arch = text(tag::ARCH, "architecture")?;
    let arch = Arch::from_rpm_name(arch).ok_or_else(|| format!("its architecture {arch} is none of ours"))?;
    Ok((name, version, arch))
}
