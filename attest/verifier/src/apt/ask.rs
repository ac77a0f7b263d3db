//! Questions to apt's own programs: which address a package comes from, which repositories there are, and to fetch a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use protocol::Sha256;
use sha2::Digest as _;

use super::input::Wanted;
use crate::{open, package::digest};

/// The program that fetches a file as apt does.
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// The largest staple that is fetched, in the shell's blocks of 512 bytes: 32 MiB.
const BLOCKS_MAX: u32 = 1 << 16;

/// Name, version and architecture.
pub(super) type Key = (String, String, String);

/// Where a package comes from, by apt's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: String,
    /// What the index says that lies there.
    digest: Option<Digest>,
}

/// The strongest digest of a file that its index has: apt tells no other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Digest {
    Sha256(Sha256),
    /// In hexadecimal digits.
    Sha512(String),
}

impl Address {
    /// Says whether a file is what the index says that lies there; an index without digest says nothing.
    pub(super) fn is_of(&self, file: &Path) -> bool {
        match &self.digest {
            Some(Digest::Sha256(wanted)) => {
                open(file).and_then(|mut open| digest(&mut open, file)).ok() == Some(*wanted)
            }
            Some(Digest::Sha512(wanted)) => sha512(file).as_ref() == Some(wanted),
            None => false,
        }
    }
}

/// Repositories by the beginning of their addresses.
pub(super) type Repositories = BTreeMap<String, Repository>;

/// What a repository says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    /// The `Origin` of each of its suites.
    pub(super) origins: Vec<String>,
    /// The `Label` of each.
    pub(super) labels: Vec<String>,
}

/// Apt's programs, with the settings of the apt that asks.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(super) fn new(options: Vec<String>) -> Self {
        Self { options }
    }

    fn with_options<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command.env("LC_ALL", "C")
    }

    /// Gives the address of each package; those that no repository has are missing, a file from the command line for one.
    pub(super) fn addresses(&self, wanted: &[Wanted]) -> BTreeMap<Key, Address> {
        let words: Vec<String> = wanted.iter().map(word).collect();
        match self.print_uris(&words) {
            Some(found) => found,
            // One that is unknown lets the others go unanswered.
            None => words.iter().filter_map(|word| self.print_uris(std::slice::from_ref(word))).flatten().collect(),
        }
    }

    fn print_uris(&self, words: &[String]) -> Option<BTreeMap<Key, Address>> {
        let mut command = Command::new("apt-get");
        let output =
            self.with_options(&mut command).args(["-qq", "download", "--print-uris", "--"]).args(words).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).lines().filter_map(address).collect())
    }

    /// Gives the addresses of all sources that list each of these packages, by name and version: apt tells of one of them where a package
    /// comes from, and another one may be why it wants it.
    ///
    /// # Errors
    /// Words, when apt does not say.
    pub(super) fn listed_by(
        &self,
        names: &BTreeSet<&str>,
    ) -> Result<BTreeMap<(String, String), BTreeSet<String>>, String> {
        let mut command = Command::new("apt-cache");
        let output = self.with_options(&mut command).args(["madison", "--"]).args(names).output();
        let output =
            output.map_err(|error| format!("apt-cache cannot be asked which sources have a package: {error}"))?;
        if !output.status.success() {
            return Err(format!("apt-cache does not say which sources have a package: {}", last_words(&output)));
        }
        let mut listed: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (key, source) in String::from_utf8_lossy(&output.stdout).lines().filter_map(listing) {
            listed.entry(key).or_default().insert(source);
        }
        Ok(listed)
    }

    /// Gives the folder that apt fetches packages into; none when apt does not say.
    pub(super) fn archives(&self) -> Option<PathBuf> {
        let mut command = Command::new("apt-config");
        let output =
            self.with_options(&mut command).args(["shell", "FOLDER", "Dir::Cache::archives/d"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(PathBuf::from(text.trim().strip_prefix("FOLDER='")?.strip_suffix('\'')?))
    }

    /// Gives the repositories that apt's sources name, by the beginning of their addresses, with what their own signed indexes say.
    ///
    /// # Errors
    /// Words, when apt does not say.
    pub(super) fn repositories(&self) -> Result<Repositories, String> {
        let mut command = Command::new("apt-get");
        let output = self.with_options(&mut command).args(["indextargets", "Created-By: Packages"]).output();
        let output = output.map_err(|error| format!("apt-get cannot be asked for its repositories: {error}"))?;
        if !output.status.success() {
            return Err(format!("apt-get does not say which repositories there are: {}", last_words(&output)));
        }
        let mut repositories = Repositories::new();
        for target in String::from_utf8_lossy(&output.stdout).split("\n\n") {
            let field = |wanted: &str| {
                let line = target.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == wanted);
                line.map(|(_, value)| value.to_owned())
            };
            if let Some(base) = field("Repo-URI") {
                let found = repositories.entry(plain(&base)).or_default();
                found.origins.extend(field("Origin"));
                found.labels.extend(field("Label"));
            }
        }
        Ok(repositories)
    }

    /// Fetches a file by apt's own methods, no larger than any staple.
    ///
    /// # Errors
    /// Words.
    pub(super) fn fetch(&self, address: &str, to: &Path) -> Result<(), String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -f {BLOCKS_MAX} && exec \"$@\""), "fetch", HELPER]);
        let output = self.with_options(&mut command).args(["download-file", address]).arg(to).output();
        let output = output.map_err(|error| format!("{HELPER} cannot be run: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(last_words(&output)) }
    }
}

fn word(Wanted { name, version, arch, .. }: &Wanted) -> String {
    match arch.as_str() {
        // Of an architecture-independent package apt knows the one of the machine.
        "all" => format!("{name}={version}"),
        arch => format!("{name}:{arch}={version}"),
    }
}

/// Reads a line of `--print-uris`: the address in quotes, the file's name, its size, its digest.
fn address(line: &str) -> Option<(Key, Address)> {
    let (address, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let stem = rest.split(' ').next()?.strip_suffix(".deb")?;
    let digest = rest.split(' ').find_map(|word| match word.split_once(':')? {
        ("SHA256", digits) => Some(Digest::Sha256(digits.parse().ok()?)),
        ("SHA512", digits) => Some(Digest::Sha512(digits.to_ascii_lowercase())),
        _ => None,
    });
    let mut parts = stem.rsplitn(3, '_');
    let (arch, version, name) = (parts.next()?, parts.next()?, parts.next()?);
    let version = version.replace("%3a", ":");
    Some(((name.to_owned(), version, arch.to_owned()), Address { place: plain(address), digest }))
}

/// Reads a line of `apt-cache madison`: `name | version | address suite/component architecture Packages`.
fn listing(line: &str) -> Option<((String, String), String)> {
    let mut parts = line.splitn(3, " | ").map(str::trim);
    let (name, version, source) = (parts.next()?, parts.next()?, parts.next()?);
    // What it calls a source ends without the slash with which its repository's address ends.
    let source = plain(source.split(' ').next()?);
    Some(((name.to_owned(), version.to_owned()), format!("{}/", source.trim_end_matches('/'))))
}

fn sha512(file: &Path) -> Option<String> {
    let (mut file, mut hasher, mut piece) = (open(file).ok()?, sha2::Sha512::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece).ok()? {
            0 => break,
            length => hasher.update(&piece[..length]),
        }
    }
    Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Gives an address in one spelling: a file's may have none, one or three slashes before its path.
pub(super) fn plain(address: &str) -> String {
    match address.strip_prefix("file:").or_else(|| address.strip_prefix("copy:")) {
        Some(path) => format!("file:/{}", path.trim_start_matches('/')),
        None => address.to_owned(),
    }
}

fn last_words(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let mut lines: Vec<&str> = said.lines().filter(|line| line.starts_with("E:") || line.starts_with("Err")).collect();
    lines.truncate(4);
    match lines.as_slice() {
        [] => format!("it ends with {}", output.status),
        lines => lines.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        let line = "'http://x/pool/h/hostname_3.23%2bnmu1_amd64.deb' hostname_3.23+nmu1_amd64.deb 10500 SHA256:17";
        let (key, found) = address(line).unwrap();
        assert_eq!(key, ("hostname".into(), "3.23+nmu1".into(), "amd64".into()));
        assert_eq!(found.place, "http://x/pool/h/hostname_3.23%2bnmu1_amd64.deb");
        let (key, _) = address("'file:///r/tiny_0.5_all.deb' tiny_1%3a0.5_all.deb 1 SHA256:1").unwrap();
        assert_eq!(key.1, "1:0.5");
        assert_eq!(plain("file:///r/x"), "file:/r/x");
        assert_eq!(plain("file:/r/x"), "file:/r/x");
        assert_eq!(address("E: nothing"), None);
        let line = "artel-tiny |  1:1.0 | http://h/repo/main bookworm/main amd64 Packages";
        assert_eq!(listing(line), Some((("artel-tiny".into(), "1:1.0".into()), "http://h/repo/main/".into())));
    }

    #[test]
    fn a_file_is_what_its_index_says_by_whichever_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("x"), dir.path().join("y"));
        std::fs::write(&file, b"abc").unwrap();
        std::fs::write(&other, b"abd").unwrap();
        for digest in [
            "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "SHA512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ] {
            let (_, address) = address(&format!("'http://h/x_1_all.deb' x_1_all.deb 3 {digest}")).unwrap();
            assert!(address.is_of(&file) && !address.is_of(&other), "{digest}");
        }
        let (_, none) = address("'http://h/x_1_all.deb' x_1_all.deb 3 MD5Sum:1").unwrap();
        assert!(!none.is_of(&file), "an index without digest says nothing");
    }
}
