//! The hook of apt: asked before dpkg runs, it lets a package of the network in only with its proof (`DPkg::Pre-Install-Pkgs`, protocol
//! version 3, see apt.conf(5)).
//!
//! ```text
//!  apt -> configuration, and a line for each package -> where from? (apt-get's own word) -> of the network, or all are asked for
//!      -> staples: beside the file, or from the cache, or fetched beside the package's address by apt's own methods
//!      -> proven for the channel of its source, and of the name, version and architecture that apt names -> exit 0, or apt stops
//! ```
//! What apt is told by its configuration holds for the questions, too: proxies, private sources, other folders.

mod ask;
mod check;
pub mod input;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use protocol::policy::Policy;

use self::{
    ask::{Apt, Repositories},
    check::{Came, Check},
    input::Wanted,
};
use crate::{
    Error, Verifier,
    channel::{Channels, in_address},
    now,
    package::Proven,
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
    fn mark(&self, address: &str, repositories: &Repositories) -> bool {
        if self.sources.iter().any(|source| address.starts_with(source.as_str())) {
            return true;
        }
        let of = repositories.iter().rev().find(|(base, _)| address.starts_with(base.as_str()));
        of.is_none_or(|(_, repository)| repository.origins.iter().any(|origin| self.origins.contains(origin)))
    }

    /// Says whether a package must be proven.
    fn must(&self, wanted: &Wanted, came: &Came, (repositories, archives): (&Repositories, Option<&Path>)) -> bool {
        match &came.place {
            Some(address) => self.mark(address, repositories),
            // What apt fetched came from a repository, even when it does not say which.
            None if archives.is_none_or(|archives| wanted.file.starts_with(archives)) => true,
            // A file that somebody named, unless it lies in a repository of the network.
            None => {
                let address = wanted.as_address();
                let lies_in = repositories.keys().chain(&self.sources).any(|base| address.starts_with(base));
                lies_in && self.mark(&address, repositories)
            }
        }
    }
}

/// A source of apt whose repository calls itself the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The beginning of its addresses.
    pub address: String,
    /// What its suites call themselves (`Label`).
    pub labels: Vec<String>,
}

/// Gives the sources of this machine, or another root, whose repositories say one of these origins now.
///
/// # Errors
/// Words, when apt does not say which sources there are.
pub fn sources(root: &Path, origins: &[String]) -> Result<Vec<Source>, String> {
    let options = if root == Path::new("/") { Vec::new() } else { vec![format!("Dir={}", root.display())] };
    let repositories = Apt::new(options).repositories()?.into_iter();
    let called_so = repositories.filter(|(_, repository)| repository.origins.iter().any(|name| origins.contains(name)));
    Ok(called_so.map(|(address, repository)| Source { address, labels: repository.labels }).collect())
}

/// How the hook is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The policy file.
    pub policy: PathBuf,
    /// Which packages must be proven.
    pub scope: Scope,
    /// For which channels.
    pub channels: Channels,
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
    let repositories = apt.repositories().map_err(Error::Hook)?;
    let archives = apt.archives();
    let known = (&repositories, archives.as_deref());
    let came = input.wanted.iter().map(|wanted| (wanted, Came::of(wanted, &addresses, &repositories)));
    let must = |(wanted, came): &(&Wanted, Came)| marks.as_ref().is_none_or(|marks| marks.must(wanted, came, known));
    let mut must: Vec<(&Wanted, Came)> = came.filter(must).collect();
    // Who asks for a proof of everything names no marks: the network's own are those that say so, or that a node serves.
    let own = verifier.as_ref().ok().map(|verifier| verifier.trust.newest());
    let is_own = |base: &str| {
        let is_called = |policy: &Policy| {
            let of = repositories.get(base).map_or(&[][..], |repository| repository.origins.as_slice());
            of.iter().any(|origin| *origin == policy.name.as_str()) || in_address(base, policy).is_some()
        };
        own.is_some_and(is_called) || hook.channels.of.iter().any(|(source, _)| base.starts_with(&ask::plain(source)))
    };
    let of_network =
        |base: &&String| marks.as_ref().map_or_else(|| is_own(base), |marks| marks.mark(base, &repositories));
    let of_network: BTreeSet<&String> = repositories.keys().filter(of_network).collect();
    if of_network.len() > 1 && !must.is_empty() {
        let names = must.iter().map(|(wanted, _)| wanted.name.as_str()).collect();
        let listed = apt.listed_by(&names).map_err(Error::Hook)?;
        for (wanted, came) in &mut must {
            let sources = listed.get(&(wanted.name.clone(), wanted.version.clone())).into_iter().flatten();
            let begins = |source: &String| of_network.iter().rev().find(|base| source.starts_with(base.as_str()));
            let others = sources.filter_map(begins).filter(|base| came.source.as_ref() != Some(base));
            came.also = others.map(|base| (*base).clone()).collect();
        }
    }
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(_) if must.is_empty() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let of = hook.channels.of.iter().map(|(source, channel)| (ask::plain(source), channel.clone()));
    let channels = Channels { of: of.collect(), others: hook.channels.others.clone() };
    let checkpoints = RefCell::default();
    let check = Check { verifier: &verifier, channels: &channels, apt: &apt, cache: &hook.cache, checkpoints };
    Ok(must.into_iter().map(|(wanted, came)| (wanted.to_string(), check.package(wanted, &came))).collect())
}

/// Writes addresses as apt's are compared.
fn plainly(marks: &Marks) -> Marks {
    Marks { sources: marks.sources.iter().map(|source| ask::plain(source)).collect(), ..marks.clone() }
}
