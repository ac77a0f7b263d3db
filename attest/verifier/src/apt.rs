//! The hook of apt: asked before dpkg runs, it lets a package of the network in only with its proof (`DPkg::Pre-Install-Pkgs`, protocol
//! version 3, see apt.conf(5)).
//!
//! ```text
//!  apt -> configuration, and a line for each package -> where from? (apt-get's own word) -> of the network, or all are asked for
//!      -> staples: beside the file, or from the cache, or fetched beside the package's address by apt's own methods
//!      -> proven, and of the name, version and architecture that apt names -> exit 0, or apt stops
//! ```
//! What apt is told by its configuration holds for the questions, too: proxies, private sources, other folders.

mod ask;
pub mod input;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use attest::staple;

use self::{ask::Apt, input::Wanted};
use crate::{
    Error, Verifier, now,
    package::{Identity, Place, Proven, digest},
    report::printable,
};

/// Where fetched staples are kept by default.
pub const CACHE: &str = "/var/cache/artel/staples";

/// Which packages must be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// Those of repositories that have one of these marks; where there is none, that have the `Origin` of the policy's network.
    Marked(Marks),
}

/// What a repository of the network is known by. A source's own entry is this machine's, so the repository cannot change it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// The beginnings of addresses, as apt's sources name them.
    pub sources: Vec<String>,
    /// The `Origin` that a repository says of itself: more packages are asked for by it, never fewer.
    pub origins: Vec<String>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.origins.is_empty()
    }

    /// Says whether what lies at an address is of a repository with a mark. One that no source names has nobody to say whose it is.
    fn mark(&self, address: &str, repositories: &BTreeMap<String, Vec<String>>) -> bool {
        if self.sources.iter().any(|source| address.starts_with(source.as_str())) {
            return true;
        }
        let of = repositories.iter().rev().find(|(base, _)| address.starts_with(base.as_str()));
        of.is_none_or(|(_, origins)| origins.iter().any(|origin| self.origins.contains(origin)))
    }

    /// Adds the sources of this machine, or another root, whose repositories say one of the origins now: from then on it is the
    /// sources that count.
    ///
    /// # Errors
    /// Words, when apt does not say which sources there are.
    pub fn found_in(mut self, root: &Path) -> Result<Self, String> {
        let options = if root == Path::new("/") { Vec::new() } else { vec![format!("Dir={}", root.display())] };
        let called_so = |(_, origins): &(String, Vec<String>)| origins.iter().any(|name| self.origins.contains(name));
        let found: Vec<String> =
            Apt::new(options).repositories()?.into_iter().filter(called_so).map(|(base, _)| base).collect();
        self.sources.extend(found);
        self.sources.sort();
        self.sources.dedup();
        Ok(self)
    }
}

/// How the hook is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The policy file.
    pub policy: PathBuf,
    /// Which packages must be proven.
    pub scope: Scope,
    /// Where fetched staples are kept.
    pub cache: PathBuf,
}

/// Answers apt: reads what it is about to install, says on `talk` what is proven and what is not, and gives the exit code; apt goes
/// on only after 0.
pub fn answer(hook: &Hook, from_apt: &mut impl Read, talk: &mut impl Write) -> u8 {
    let mut say = |line: String| drop(writeln!(talk, "artel: {}", printable(&line)));
    match judged(hook, from_apt) {
        Err(error) => {
            say(error.words());
            say(stopped());
            error.exit_code().max(1)
        }
        Ok(judged) => {
            let mut worst = 0;
            for (identity, result) in judged {
                match result {
                    Ok(proven) => {
                        let agree: Vec<_> = proven.chain.proof.agree.iter().map(ToString::to_string).collect();
                        say(format!("{identity} is proven: {} built the same", agree.join(", ")));
                    }
                    Err(error) => {
                        worst = worst.max(error.exit_code().max(1));
                        say(format!("{identity} is REFUSED: {}", error.words()));
                    }
                }
            }
            if worst > 0 {
                say(stopped());
            }
            worst
        }
    }
}

fn stopped() -> String {
    "apt stops here, and nothing was installed. Leave the refused packages out, get a newer policy file (`artel policy export` on a \
     node), or take the hook out with `artel apt-hook uninstall`"
        .to_owned()
}

type Judged = Vec<(String, Result<Proven, Error>)>;

fn judged(hook: &Hook, from_apt: &mut impl Read) -> Result<Judged, Error> {
    let input = input::read(from_apt).map_err(Error::Hook)?;
    if input.wanted.is_empty() {
        return Ok(Vec::new());
    }
    // Without a policy nobody knows which packages are the network's.
    let verifier = match (&hook.scope, Verifier::open(&hook.policy, |_| (), now())) {
        (_, Ok(verifier)) => Ok(verifier),
        (Scope::Marked(marks), Err(error)) if !marks.is_empty() => Err(error),
        (_, Err(error)) => return Err(error),
    };
    let marks = match (&hook.scope, &verifier) {
        (Scope::All, _) => None,
        (Scope::Marked(marks), Ok(verifier)) if marks.is_empty() => {
            Some(Marks { origins: vec![verifier.trust.newest().name.to_string()], ..Marks::default() })
        }
        (Scope::Marked(marks), _) => Some(plainly(marks)),
    };
    let apt = Apt::new(input.options);
    let addresses = apt.addresses(&input.wanted);
    let repositories = if marks.is_some() { apt.repositories().map_err(Error::Hook)? } else { BTreeMap::new() };
    let archives = apt.archives();
    let must = |wanted: &&Wanted| match &marks {
        None => true,
        Some(marks) => {
            // Two repositories may have the name and version; what apt took must be what this address has.
            let address = addresses.get(&wanted.key()).filter(|address| address.is_of(&wanted.file)).cloned();
            // What apt fetched came from a repository, even when it does not say which.
            let fetched = archives.as_ref().is_none_or(|archives| wanted.file.starts_with(archives));
            match address.map(|address| address.place) {
                Some(address) => marks.mark(&address, &repositories),
                None if fetched => true,
                // A file that somebody named, unless it lies in a repository of the network.
                None => {
                    let address = wanted.as_address();
                    let lies_in = repositories.keys().chain(&marks.sources).any(|base| address.starts_with(base));
                    lies_in && marks.mark(&address, &repositories)
                }
            }
        }
    };
    let must: Vec<&Wanted> = input.wanted.iter().filter(must).collect();
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(_) if must.is_empty() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let check = Check { verifier: &verifier, apt: &apt, cache: &hook.cache };
    Ok(must.into_iter().map(|w| (w.to_string(), check.package(w, addresses.get(&w.key()).map(|a| &a.place)))).collect())
}

/// Writes addresses as apt's are compared.
fn plainly(marks: &Marks) -> Marks {
    Marks { sources: marks.sources.iter().map(|source| ask::plain(source)).collect(), ..marks.clone() }
}

struct Check<'a> {
    verifier: &'a Verifier,
    apt: &'a Apt,
    cache: &'a Path,
}

impl Check<'_> {
    fn package(&self, wanted: &Wanted, address: Option<&String>) -> Result<Proven, Error> {
        let malformed = |why| Error::Form { path: wanted.file.clone(), why };
        let identity = Identity::of(&wanted.name, &wanted.version, &wanted.arch).map_err(malformed)?;
        let beside = Place::beside(&wanted.file);
        let proven = match address {
            // A repository on this machine's own disk is not copied.
            _ if beside.lines.exists() => self.verifier.file(&beside),
            None => self.verifier.file(&beside),
            Some(address) => self.fetched(&wanted.file, address),
        }?;
        proven.is(&identity)?;
        Ok(proven)
    }

    /// Checks a package by what was fetched for it before, and where that does not hold by what is to be had now.
    fn fetched(&self, file: &Path, address: &str) -> Result<Proven, Error> {
        let failed = |path: &Path, source| Error::Read { path: path.to_owned(), source };
        fs::create_dir_all(self.cache).map_err(|e| failed(self.cache, e))?;
        let mut open = fs::File::open(file).map_err(|e| failed(file, e))?;
        let stem = self.cache.join(digest(&mut open, file)?.to_string());
        let place = Place::elsewhere(file, &stem);
        if let Ok(proven) = self.verifier.file(&place) {
            return Ok(proven);
        }
        let mut told = Vec::new();
        for (suffix, to) in [(staple::SUFFIX, &place.lines), (staple::PROOF_SUFFIX, &place.proof)] {
            let _ = fs::remove_file(to);
            told.extend(self.apt.fetch(&format!("{address}{suffix}"), to).err());
        }
        match self.verifier.file(&place) {
            Err(Error::NotStapled { .. }) => {
                Err(Error::NotFetched { address: format!("{address}{}", staple::SUFFIX), why: told.join("; ") })
            }
            result => result,
        }
    }
}
