//! One package of those that must be proven: where it came from, its evidence from there, and the judgement.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use attest::{log::note::NOTE_MAX, staple, verify::Broken};

use super::{
    ask::{Address, Apt, Key, Repositories},
    input::Wanted,
};
use crate::{
    Error, Verifier,
    channel::Channels,
    freshness,
    package::{Identity, Place, Proven, digest},
    read,
};

/// Where a package came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Came {
    /// Where what lies beside it is, by apt's word.
    pub(super) address: Option<String>,
    /// The same where the index says that this very file lies there; of a file that apt did not fetch, where it lies itself.
    pub(super) place: Option<String>,
    /// The beginning of that address which one of this machine's sources names.
    pub(super) source: Option<String>,
    /// Those of other sources of the network that list the same version.
    pub(super) also: Vec<String>,
}

impl Came {
    pub(super) fn of(wanted: &Wanted, addresses: &BTreeMap<Key, Address>, repositories: &Repositories) -> Self {
        let address = addresses.get(&wanted.key());
        // Two repositories may have the name and version; what apt took must be what this address has.
        let place = address.filter(|address| address.is_of(&wanted.file)).map(|address| address.place.clone());
        let named = place.clone().unwrap_or_else(|| wanted.as_address());
        let source = repositories.keys().rev().find(|base| named.starts_with(base.as_str())).cloned();
        Self { address: address.map(|address| address.place.clone()), place, source, also: Vec::new() }
    }
}

/// What packages are judged by.
pub(super) struct Check<'a> {
    pub(super) verifier: &'a Verifier,
    pub(super) channels: &'a Channels,
    pub(super) apt: &'a Apt,
    pub(super) cache: &'a Path,
    /// Newer checkpoints of the log, by the source that was asked.
    pub(super) checkpoints: RefCell<BTreeMap<String, Result<Vec<u8>, String>>>,
}

impl Check<'_> {
    pub(super) fn package(&self, wanted: &Wanted, came: &Came) -> Result<Proven, Error> {
        let malformed = |why| Error::Form { path: wanted.file.clone(), why };
        let identity = Identity::of(&wanted.name, &wanted.version, &wanted.arch).map_err(malformed)?;
        let beside = Place::beside(&wanted.file);
        let proven = match &came.address {
            // A repository on this machine's own disk is not copied.
            _ if beside.lines.exists() => self.judge(&beside, came),
            None => self.judge(&beside, came),
            Some(address) => self.fetched((&wanted.file, address), came),
        }?;
        proven.is(&identity)?;
        Ok(proven)
    }

    /// Checks a package by what was fetched for it before, and where that does not hold by what is to be had now.
    fn fetched(&self, (file, address): (&Path, &str), came: &Came) -> Result<Proven, Error> {
        self.make_cache()?;
        let mut open = fs::File::open(file).map_err(|source| Error::Read { path: file.to_owned(), source })?;
        let stem = self.cache.join(digest(&mut open, file)?.to_string());
        let place = Place::elsewhere(file, &stem);
        if let Ok(proven) = self.judge(&place, came) {
            return Ok(proven);
        }
        let mut told = Vec::new();
        for (suffix, to) in [(staple::SUFFIX, &place.lines), (staple::PROOF_SUFFIX, &place.proof)] {
            let _ = fs::remove_file(to);
            told.extend(self.apt.fetch(&format!("{address}{suffix}"), to).err());
        }
        match self.judge(&place, came) {
            Err(Error::NotStapled { .. }) => {
                Err(Error::NotFetched { address: format!("{address}{}", staple::SUFFIX), why: told.join("; ") })
            }
            result => result,
        }
    }

    /// Checks a package by what lies there, for the channel of where it came from. One that is too old by its own evidence is asked
    /// for once more under the newest checkpoint that is to be had there.
    fn judge(&self, place: &Place, came: &Came) -> Result<Proven, Error> {
        let source = came.source.as_deref();
        let allowed = self.channels.allowed(source, self.verifier)?;
        let proven = match self.verifier.file(place) {
            Err(Error::Broken(stale @ Broken::Stale { .. })) => match self.checkpoint(source) {
                Ok(checkpoint) => self.verifier.file_by(place, Some(&checkpoint)),
                Err(why) => Err(Error::NotFresh { stale, why }),
            },
            judged => judged,
        }?;
        allowed.check(&proven)?;
        // It may be wanted for the sake of any source that lists it.
        for other in &came.also {
            self.channels.allowed(Some(other), self.verifier)?.check(&proven)?;
        }
        Ok(proven)
    }

    /// Gives the log's newest checkpoint as it is to be had where a source is.
    fn checkpoint(&self, source: Option<&str>) -> Result<Vec<u8>, String> {
        let source = source.ok_or("no source has it")?;
        let mut known = self.checkpoints.borrow_mut();
        known.entry(source.to_owned()).or_insert_with(|| self.fetched_checkpoint(source)).clone()
    }

    fn fetched_checkpoint(&self, source: &str) -> Result<Vec<u8>, String> {
        self.make_cache().map_err(|error| error.words())?;
        let to = self.cache.join("checkpoint");
        let mut told = Vec::new();
        for address in freshness::checkpoints(source) {
            let _ = fs::remove_file(&to);
            // Apt does not copy what lies on this machine.
            let at = address.strip_prefix("file:").map_or_else(|| to.clone(), PathBuf::from);
            let fetched = if at == to { self.apt.fetch(&address, &to) } else { Ok(()) };
            match fetched.and_then(|()| read(&at, NOTE_MAX).map_err(|error| error.words())) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(why) => told.push(format!("{address}: {why}")),
            }
        }
        Err(told.join("; "))
    }

    fn make_cache(&self) -> Result<(), Error> {
        fs::create_dir_all(self.cache).map_err(|source| Error::Read { path: self.cache.to_owned(), source })
    }
}
