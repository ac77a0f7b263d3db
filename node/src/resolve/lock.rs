//! Environment locks: the exact packages of one build, and their files.
//!
//! The set is what `mmdebstrap --variant=buildd` installs (required packages, apt, build-essential), libfaketime, locales, and what
//! the source package's relations ask for. apt solves it in one go against an empty status; the SHA-256 of each file comes
//! from the archive's signed index and is checked again after the download. The same index gives the same lock.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{
    Arch, FileName, PackageName, Sha256, SuiteName,
    environment::{EnvironmentLock, Family, LockedPackage},
    words::{DebVersion, RelativePath},
};

use super::{
    archive::{self, Archive, file_error},
    digest::Digest,
    index,
    source::{BuildRelations, SourcePackage, joined, unsigned},
};

/// Packages beside the required ones that every environment has: without apt and build-essential there is no buildd set,
/// and a profile that moves the date preloads libfaketime; packages that need root in their rules are built with fakeroot.
const ALWAYS: &[&str] = &["apt", "build-essential", "fakeroot", "faketime", "libfaketime"];

/// What a profile compiles its locale from; an environment of an archive without it keeps to `C.UTF-8`.
const LOCALES: &str = "locales";

/// Where the RPMs of locks lie, below the private directory of their repository.
pub(super) const RPMS: &str = "rpms";

/// The question to apt, as a source package of its own.
const QUESTION: &str = "environment.dsc";

/// Why no lock was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive could not be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// apt found no solution, or printed something else than files.
    #[error("the environment cannot be solved: {0}")]
    Solve(String),
    /// A downloaded file is not what the index says.
    #[error(
        "{file} is not the file of the archive's index: wanted sha256 {wanted}, got {got}; remove it and try again"
    )]
    WrongFile {
        /// The file.
        file: PathBuf,
        /// What the index says.
        wanted: Sha256,
        /// What was downloaded.
        got: Sha256,
    },
    /// A lock names a package that was never downloaded here.
    #[error("{name} {version} of the lock is not on this machine; lock the environment here with `artel env lock`")]
    NotHere {
        /// The package.
        name: PackageName,
        /// Its version.
        version: DebVersion,
    },
    /// The lock breaks a rule of the protocol.
    #[error("the lock is not acceptable: {0}")]
    Lock(String),
}

/// A lock and the files that it names.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The lock.
    pub lock: EnvironmentLock,
    /// The packages' files, in the order of the lock's packages.
    pub files: Vec<PathBuf>,
}

/// Locks the environment of a source package's build, under build profiles.
///
/// # Errors
/// When apt finds no solution, or a file cannot be had as the index names it.
pub fn lock_for_source(archive: &Archive, source: &SourcePackage, profiles: &[String]) -> Result<Locked, Error> {
    lock(archive, &source.relations, profiles)
}

/// Locks what relations ask for, beside what every environment has.
///
/// # Errors
/// As [`lock_for_source`].
pub(super) fn lock_relations(archive: &Archive, relations: &BuildRelations) -> Result<Locked, Error> {
    lock(archive, relations, &[])
}

/// Finds the files of a lock among those that archives below `state` have downloaded, in the order of its packages.
///
/// # Errors
/// [`Error::NotHere`] names the first package that none has.
pub fn files_of(lock: &EnvironmentLock, state: &Path) -> Result<Vec<PathBuf>, Error> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let elsewhere = below(&state.join("elsewhere")).iter().flat_map(|folder| below(folder)).collect();
    let kept = match lock.family {
        Family::Dpkg => "debs",
        Family::Rpm => RPMS,
    };
    let folders: Vec<PathBuf> = [below(state), elsewhere].concat().iter().map(|root| root.join(kept)).collect();
    let find = |package: &LockedPackage| {
        let here = |folder: &PathBuf| {
            let path = folder.join(package.file.as_str());
            let same = Digest::of_file(&path).is_ok_and(|got| (got.sha256, got.size) == (package.sha256, package.size));
            same.then_some(path)
        };
        let found = folders.iter().find_map(here);
        found.ok_or_else(|| Error::NotHere { name: package.name.clone(), version: package.version.clone() })
    };
    lock.packages.iter().map(find).collect()
}

/// Locks an environment for commands: the buildd set and further packages.
///
/// # Errors
/// As [`lock_for_source`].
pub fn lock_plain(archive: &Archive, extra: &[PackageName]) -> Result<Locked, Error> {
    let depends = extra.iter().map(PackageName::as_str).collect::<Vec<_>>().join(", ");
    lock(archive, &BuildRelations { depends, ..BuildRelations::default() }, &[])
}

/// Locks nothing: the environment of a command that finds a builder's own programs.
///
/// # Errors
/// As [`lock_for_source`].
pub fn lock_nothing(archive: &Archive) -> Result<EnvironmentLock, Error> {
    let (suite, epoch) = release(archive)?;
    Ok(EnvironmentLock { arch: archive.arch(), epoch, suite, family: Family::Dpkg, packages: Vec::new() })
}

/// Locks the packages of an earlier environment as the archive has them now. A package that the archive no longer has is left out:
/// what needed it needs another one now.
///
/// # Errors
/// As [`lock_for_source`].
pub fn lock_again(archive: &Archive, earlier: &EnvironmentLock) -> Result<Locked, Error> {
    lock_plain(archive, &still_there(archive, earlier)?)
}

/// The same for the packages of a system.
///
/// # Errors
/// As [`lock_for_source`].
pub fn lock_system_again(archive: &Archive, earlier: &EnvironmentLock) -> Result<Locked, Error> {
    lock_system(archive, Base::Required, &still_there(archive, earlier)?)
}

fn still_there(archive: &Archive, earlier: &EnvironmentLock) -> Result<Vec<PackageName>, Error> {
    let mut known = BTreeSet::new();
    index::each_package(archive, |package| {
        known.insert(package.name.clone());
    })?;
    let names = earlier.packages.iter().map(|package| &package.name);
    Ok(names.filter(|name| known.contains(name.as_str())).cloned().collect())
}

/// What a system has that is not asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// What every system has: essential and required packages.
    Required,
    /// The same and apt.
    Apt,
}

/// Locks the packages of a system: a base and further packages, with what they depend on and nothing that they recommend.
///
/// # Errors
/// As [`lock_for_source`].
pub fn lock_system(archive: &Archive, base: Base, extra: &[PackageName]) -> Result<Locked, Error> {
    let _guard = archive.lock()?;
    let mut names: BTreeSet<String> = extra.iter().map(ToString::to_string).collect();
    index::each_package(archive, |package| {
        // A new system has one /usr from its beginning, and needs no program to move its files there.
        if package.is_required() || package.name == "usr-is-merged" {
            names.insert(package.name.clone());
        }
    })?;
    if base == Base::Apt {
        names.insert("apt".into());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    complete(archive, |mode, debs| install(archive, mode, &names, debs))
}

/// One file that apt would download.
struct Wanted {
    file: FileName,
    from: Option<RelativePath>,
    name: PackageName,
    version: DebVersion,
    arch: Arch,
    size: u64,
    sha256: Sha256,
}

fn lock(archive: &Archive, relations: &BuildRelations, profiles: &[String]) -> Result<Locked, Error> {
    let _guard = archive.lock()?;
    archive.write(QUESTION, &question(&base_set(archive)?, relations))?;
    let locked = complete(archive, |mode, debs| build_dep(archive, mode, profiles, debs))?;
    match ALWAYS.iter().find(|name| locked.lock.package(name).is_none()) {
        Some(missing) => Err(Error::Solve(format!("apt left out {missing}"))),
        None => Ok(locked),
    }
}

/// Has apt solve and fetch what `ask` asks it for, and gives the lock of that.
fn complete(archive: &Archive, ask: impl Fn(&str, &Path) -> Result<String, Error>) -> Result<Locked, Error> {
    let mut wanted = solve(&ask("--print-uris", &archive.path("none"))?)?;
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    let (suite, epoch) = release(archive)?;
    remove_wrong(archive, &wanted)?;
    ask("--download-only", &archive.debs())?;
    let (mut packages, mut files) = (Vec::new(), Vec::new());
    for package in wanted {
        let path = archive.debs().join(package.file.as_str());
        let got = Digest::of_file(&path).map_err(file_error("read", &path))?;
        if (got.sha256, got.size) != (package.sha256, package.size) {
            return Err(Error::WrongFile { file: path, wanted: package.sha256, got: got.sha256 });
        }
        let Wanted { file, from, name, version, arch, size, sha256 } = package;
        packages.push(LockedPackage { arch, file, from, hash: got.hash, name, size, sha256, version });
        files.push(path);
    }
    let lock = EnvironmentLock { arch: archive.arch(), epoch, suite, family: Family::Dpkg, packages };
    lock.check().map_err(Error::Lock)?;
    Ok(Locked { lock, files })
}

fn base_set(archive: &Archive) -> Result<BTreeSet<String>, Error> {
    let mut names: BTreeSet<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    index::each_package(archive, |package| {
        if package.is_required() || package.name == LOCALES {
            names.insert(package.name.clone());
        }
    })?;
    Ok(names)
}

/// Writes what the environment must satisfy as a `.dsc`: apt reads build dependencies from one, with architecture lists,
/// build profiles and conflicts.
fn question(base: &BTreeSet<String>, relations: &BuildRelations) -> String {
    let base = base.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "Format: 1.0\nSource: environment\nBinary: environment\nArchitecture: any\nVersion: 1\n\
         Maintainer: artel <artel@localhost>\nBuild-Depends: {}\n",
        joined(&[base, relations.depends.clone()])
    );
    let others = [
        ("Build-Depends-Arch", &relations.depends_arch),
        ("Build-Depends-Indep", &relations.depends_indep),
        ("Build-Conflicts", &relations.conflicts),
    ];
    for (field, value) in others.iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("{field}: {value}\n");
    }
    text
}

fn build_dep(archive: &Archive, mode: &str, profiles: &[String], debs: &Path) -> Result<String, Error> {
    let profiles = format!("--build-profiles={}", profiles.join(","));
    let debs = format!("Dir::Cache::archives={}", debs.display());
    let question = format!("./{QUESTION}");
    let arguments = ["-y", "-q", "-o", &debs, &profiles, mode, "build-dep", &question];
    archive.run("apt-get", &arguments, "solve the build dependencies").map_err(|error| {
        if let archive::Error::Failed { said, .. } = error { Error::Solve(said) } else { Error::Archive(error) }
    })
}

fn install(archive: &Archive, mode: &str, names: &[&str], debs: &Path) -> Result<String, Error> {
    let debs = format!("Dir::Cache::archives={}", debs.display());
    let arguments: Vec<&str> =
        ["-y", "-q", "-o", &debs, mode, "install"].into_iter().chain(names.iter().copied()).collect();
    archive.run("apt-get", &arguments, "solve the packages of a system").map_err(|error| {
        if let archive::Error::Failed { said, .. } = error { Error::Solve(said) } else { Error::Archive(error) }
    })
}

/// Reads what apt would download into an empty folder.
fn solve(printed: &str) -> Result<Vec<Wanted>, Error> {
    printed.lines().filter(|line| line.starts_with('\'')).map(wanted).collect()
}

/// Reads `'uri' name_version_arch.deb size SHA256:hex`.
fn wanted(line: &str) -> Result<Wanted, Error> {
    let parse = || {
        let mut parts = line.rsplit(' ');
        let (sha256, size, file) = (parts.next()?, parts.next()?, parts.next()?);
        let mut stem = file.strip_suffix(".deb")?.split('_');
        let (name, version, arch) = (stem.next()?, stem.next()?, stem.next()?);
        Some(Wanted {
            file: FileName::new(file).ok()?,
            from: below_pool(parts.next()?),
            name: PackageName::new(name).ok()?,
            version: DebVersion::new(version.replace("%3a", ":")).ok()?,
            arch: arch.parse().ok()?,
            size: size.parse().ok()?,
            sha256: sha256.strip_prefix("SHA256:")?.parse().ok()?,
        })
    };
    parse().ok_or_else(|| Error::Solve(format!("apt printed {line:?}, which names no .deb with its SHA-256")))
}

/// Gives the part of a quoted address that every mirror of an archive has alike.
fn below_pool(uri: &str) -> Option<RelativePath> {
    let path = uri.trim_matches('\'').rsplit_once("/pool/")?.1;
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    RelativePath::new(format!("pool/{path}")).ok()
}

/// Removes what an interrupted run left with a wrong hash, so that it is fetched once more.
fn remove_wrong(archive: &Archive, wanted: &[Wanted]) -> Result<(), Error> {
    for package in wanted {
        let path = archive.debs().join(package.file.as_str());
        match Digest::of_file(&path) {
            Ok(got) if got.sha256 == package.sha256 => {}
            Ok(_) => fs::remove_file(&path).map_err(file_error("remove", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("read", &path)(error).into()),
        }
    }
    Ok(())
}

/// Gives the codename and the date of the suite's own Release file: they change only when the suite itself does, so that
/// source packages with the same dependencies share one environment.
fn release(archive: &Archive) -> Result<(SuiteName, u64), Error> {
    let lists = archive.path("state/lists");
    let mut found: Option<(u64, SuiteName)> = None;
    for entry in fs::read_dir(&lists).map_err(file_error("list", &lists))?.flatten() {
        if !entry.file_name().to_string_lossy().ends_with("Release") {
            continue;
        }
        let path = entry.path();
        let text = fs::read_to_string(&path).map_err(file_error("read", &path))?;
        let Ok(parsed) = unsigned(&text).parse::<deb822_fast::Deb822>() else { continue };
        let Some(fields) = parsed.iter().next() else { continue };
        let (codename, suite) = (fields.get("Codename").unwrap_or_default(), fields.get("Suite").unwrap_or_default());
        let ours = [codename, suite].contains(&archive.suite().as_str());
        if let (true, Some(date), Ok(name)) = (ours, fields.get("Date").and_then(date), SuiteName::new(codename)) {
            found = found.max(Some((date, name)));
        }
    }
    let why = || archive::Error::Index(format!("no Release file names the suite {} with a date", archive.suite()));
    found.map(|(date, suite)| (suite, date)).ok_or_else(|| why().into())
}

/// Reads the date of a Release file, for instance `Sat, 11 Jul 2026 10:16:37 UTC`, as seconds since 1970.
fn date(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches("UTC").trim_end_matches("GMT").trim_end();
    let text = if text.ends_with("+0000") { text.to_owned() } else { format!("{text} +0000") };
    jiff::fmt::rfc2822::parse(&text).ok().and_then(|zoned| zoned.timestamp().as_second().try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_date_is_seconds() {
        assert_eq!(date("Sat, 11 Jul 2026 10:16:37 UTC"), Some(1_783_764_997));
        assert_eq!(date("Sat,  6 Sep 2025 10:11:12 +0000"), Some(1_757_153_472));
        assert_eq!(date("yesterday"), None);
    }

    #[test]
    fn a_printed_line_gives_the_version_with_its_epoch() {
        let hex = "ab".repeat(32);
        let line =
            format!("'http://a.example/p/libcap2_2.66-4_amd64.deb' libcap2_1%3a2.66-4_amd64.deb 27708 SHA256:{hex}");
        let wanted = wanted(&line).unwrap();
        assert_eq!((wanted.version.as_str(), wanted.arch, wanted.size), ("1:2.66-4", Arch::Amd64, 27708));
        assert!(super::wanted("'http://a.example/x.deb' x.deb 3 MD5Sum:00").is_err());
    }
}
