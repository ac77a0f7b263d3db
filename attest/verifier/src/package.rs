//! One file and what is stapled to it: the check that everything else here is made of.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use attest::{
    log::proof,
    staple,
    verify::{Chain, DebName, Moment, Stapled, rpm_package, verify_stapled},
};
use protocol::{Arch, PackageName, Sha256, words::DebVersion};
use sha2::Digest as _;

use crate::{Error, Verifier, deb, open, read, rpm};

/// Which package a file is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The package's name.
    pub name: PackageName,
    /// Its version, with its epoch; of an RPM with its release.
    pub version: DebVersion,
    /// Its architecture.
    pub arch: Arch,
}

impl Identity {
    /// Takes three words for what they should be.
    ///
    /// # Errors
    /// Words.
    pub fn of(name: &str, version: &str, arch: &str) -> Result<Self, String> {
        let version = version.parse().map_err(|e: protocol::words::WordError| e.to_string())?;
        let name = name.parse().map_err(|e: protocol::words::WordError| e.to_string())?;
        Ok(Self { name, version, arch: arch.parse().map_err(|e: protocol::arch::UnknownArch| e.to_string())? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.arch)
    }
}

/// Where a package and its evidence lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The package.
    pub file: PathBuf,
    /// The lines, see [`staple::SUFFIX`].
    pub lines: PathBuf,
    /// The proof from the log, see [`staple::PROOF_SUFFIX`].
    pub proof: PathBuf,
}

impl Place {
    /// Gives the place of a file whose evidence lies beside it.
    pub fn beside(file: &Path) -> Self {
        let with = |suffix: &str| {
            let mut path = file.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self { file: file.into(), lines: with(staple::SUFFIX), proof: with(staple::PROOF_SUFFIX) }
    }

    /// Gives the place of a file whose evidence lies elsewhere, below a name of its own.
    pub fn elsewhere(file: &Path, stem: &Path) -> Self {
        Self { file: file.into(), ..Self::beside(stem) }
    }
}

/// A file that was proven.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The file.
    pub file: PathBuf,
    /// What the builders attested of it: of an RPM, the digest without the publisher's signature.
    pub sha256: Sha256,
    /// Which package it is; none for a file that is no package.
    pub identity: Option<Identity>,
    /// What its evidence proved.
    pub chain: Chain,
}

/// What kind of file it is, by its name.
enum Kind {
    Deb,
    Rpm,
    Other,
}

impl Kind {
    fn of(file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match name.rsplit_once('.') {
            Some((_, "deb" | "udeb")) => Kind::Deb,
            Some((rest, "rpm")) if !rest.ends_with(".src") && !rest.ends_with(".nosrc") => Kind::Rpm,
            _ => Kind::Other,
        }
    }
}

impl Verifier {
    /// Checks a file against what is stapled to it. The name of the file means nothing for packages: what they say of themselves
    /// must be what was built.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn file(&self, place: &Place) -> Result<Proven, Error> {
        self.file_by(place, self.checkpoint.as_deref())
    }

    /// As [`Verifier::file`], with a newer checkpoint of the log, where there is one.
    ///
    /// # Errors
    /// Likewise.
    pub fn file_by(&self, place: &Place, checkpoint: Option<&[u8]>) -> Result<Proven, Error> {
        let missing = || Error::NotStapled { package: place.file.clone(), lines: place.lines.clone() };
        let mut file = open(&place.file)?;
        let lines = there(read(&place.lines, staple::FILE_MAX))?.ok_or_else(missing)?;
        let log = there(read(&place.proof, proof::FILE_MAX))?;
        let stapled = Stapled { lines: &lines, proof: log.as_deref() };
        let moment = Moment { now: self.now, checkpoint };
        let chain = verify_stapled(&stapled, &self.trust, &moment)?;
        let kind = Kind::of(&place.file);
        let malformed = |why| Error::Form { path: place.file.clone(), why };
        let sha256 = match kind {
            Kind::Rpm => rpm::attested(&mut file).map_err(malformed)?,
            Kind::Deb | Kind::Other => digest(&mut file, &place.file)?,
        };
        // Nothing of a file is read before it is one that operators attested.
        if !chain.proof.outputs.iter().any(|output| output.sha256 == sha256) {
            chain.proof.file(&plain_name(&place.file), &sha256)?;
        }
        let fields = match kind {
            Kind::Deb => Some(deb::fields(&mut rewound(&mut file, &place.file)?)),
            Kind::Rpm => Some(rpm::fields(&mut file)),
            Kind::Other => None,
        };
        let identity =
            fields.map(|fields| fields.and_then(|[name, version, arch]| Identity::of(&name, &version, &arch)));
        let identity = identity.transpose().map_err(malformed)?;
        match &identity {
            Some(Identity { name, version, arch }) => chain.proof.package(name, version, *arch, &sha256)?,
            None => chain.proof.file(&plain_name(&place.file), &sha256)?,
        };
        Ok(Proven { file: place.file.clone(), sha256, identity, chain })
    }
}

impl Proven {
    /// Checks that it is a package of a name, and of a version where one is given, with or without its epoch.
    ///
    /// # Errors
    /// [`Error::OtherPackage`].
    pub fn is_called(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        let is_it = |identity: &Identity| {
            let of = identity.version.to_string();
            let plain = of.split_once(':').map_or(of.as_str(), |(_, plain)| plain);
            identity.name.as_str() == name && version.is_none_or(|version| version == of || version == plain)
        };
        if self.identity.as_ref().is_some_and(is_it) {
            return Ok(());
        }
        let got = self.identity.as_ref().map_or("no package".to_owned(), ToString::to_string);
        let wanted = version.map_or(name.to_owned(), |version| format!("{name} {version}"));
        Err(Error::OtherPackage { got, wanted: wanted.chars().take(200).collect() })
    }

    /// Checks that a file which has the name of a package is that package: whoever names it asks for that one, and may be given
    /// another, older one. A file with a name of another form says what it is by itself.
    ///
    /// # Errors
    /// [`Error::OtherPackage`].
    pub fn is_named_so(&self) -> Result<(), Error> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let Identity { name, version, arch } = identity;
        let (called, epoch) = plain_and_epoch(&self.file);
        let epoch_of = version.as_str().split_once(':').map_or("0", |(epoch, _)| epoch);
        let plain = |version: &DebVersion| {
            version.as_str().split_once(':').map_or_else(|| version.to_string(), |(_, plain)| plain.to_owned())
        };
        let is_other = match DebName::parse(&called) {
            Some(deb) => (deb.name, plain(&deb.version), deb.arch) != (name.clone(), plain(version), *arch),
            None => {
                let of_rpm = rpm_package(&called).is_some();
                of_rpm && called != format!("{name}-{}.{}.rpm", plain(version), arch.rpm_name())
            }
        };
        if !is_other && epoch.is_none_or(|epoch| epoch == epoch_of) {
            return Ok(());
        }
        Err(Error::OtherPackage { got: identity.to_string(), wanted: called.chars().take(200).collect() })
    }

    /// Checks that it is the package that was asked for.
    ///
    /// # Errors
    /// [`Error::OtherPackage`].
    pub fn is(&self, wanted: &Identity) -> Result<(), Error> {
        if self.identity.as_ref() == Some(wanted) {
            return Ok(());
        }
        let got = self.identity.as_ref().map_or("no package".to_owned(), ToString::to_string);
        Err(Error::OtherPackage { got, wanted: wanted.to_string() })
    }
}

fn rewound<'a>(file: &'a mut File, path: &Path) -> Result<&'a mut File, Error> {
    io::Seek::rewind(file).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(file)
}

/// Gives nothing where a file is not there.
fn there(read: Result<Vec<u8>, Error>) -> Result<Option<Vec<u8>>, Error> {
    match read {
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Hashes a file.
pub(crate) fn digest(file: &mut File, path: &Path) -> Result<Sha256, Error> {
    let mut hasher = sha2::Sha256::new();
    let copied = io::copy(file, &mut rpm::HashedBy(&mut hasher));
    copied.map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(Sha256::from_bytes(hasher.finalize().into()))
}

/// Gives a file's name as its builders wrote it.
fn plain_name(path: &Path) -> String {
    plain_and_epoch(path).0
}

/// Gives a file's name as its builders wrote it, and the epoch, which apt's cache keeps in it (`tiny_1%3a0.5_amd64.deb`).
fn plain_and_epoch(path: &Path) -> (String, Option<String>) {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let Some((before, rest)) = name.split_once("_") else { return (name, None) };
    match rest.split_once("%3a") {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => {
            (format!("{before}_{rest}"), Some(epoch.to_owned()))
        }
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_apts_cache() {
        let plain = |name: &str| plain_name(Path::new(name));
        assert_eq!(plain("/var/cache/tiny_1%3a0.5_amd64.deb"), "tiny_0.5_amd64.deb");
        assert_eq!(plain("tiny_0.5_amd64.deb"), "tiny_0.5_amd64.deb");
        assert_eq!(plain("x.iso"), "x.iso");
    }
}
