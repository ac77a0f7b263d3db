//! Locks from a `.buildinfo`(5): the packages that were installed when somebody else built, so that the same can be built
//! again. Versions that the archive no longer has are named; nothing is replaced unless that is wished.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use protocol::{PackageName, limits::LOCK_PACKAGES_MAX, words::DebVersion};

use super::{
    archive::{self, Archive},
    index,
    lock::{self, Locked},
    source::{BuildRelations, control},
};

/// The largest `.buildinfo`, in bytes.
const BUILDINFO_MAX: u64 = 4 << 20;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a `.buildinfo`.
    #[error("{path} is not an acceptable .buildinfo: {why}")]
    Form {
        /// The file.
        path: PathBuf,
        /// The rule.
        why: String,
    },
    /// The archive has other versions now.
    #[error(
        "the archive no longer has {} of {of} packages: {}; --nearest takes what it has now",
        missing.len(), sentence(missing)
    )]
    Missing {
        /// What is not there.
        missing: Vec<Missing>,
        /// How many packages the file names.
        of: usize,
    },
    /// The environment cannot be solved.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The archive could not be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

/// A package that an archive does not have in the version wanted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// The package.
    pub name: PackageName,
    /// The version that was installed.
    pub wanted: DebVersion,
    /// The versions that the archive has; none when it has no such package.
    pub has: Vec<String>,
}

fn sentence(missing: &[Missing]) -> String {
    let one = |m: &Missing| match &m.has[..] {
        [] => format!("{} {} (none at all)", m.name, m.wanted),
        has => format!("{} {} (it has {})", m.name, m.wanted, has.join(", ")),
    };
    missing.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What a `.buildinfo` says of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buildinfo {
    /// The source package that was built.
    pub source: String,
    /// Its version.
    pub version: String,
    /// The architecture that it was built on.
    pub arch: String,
    /// Every package that was installed, with its version.
    pub installed: BTreeMap<PackageName, DebVersion>,
}

/// What to do about versions that the archive no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Refuse, and name them.
    Refuse,
    /// Take what the archive has now.
    Nearest,
}

impl Buildinfo {
    /// Reads a file; its signature, if there is one, is not judged.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Form { path: path.into(), why };
        let size = fs::metadata(path).map_err(|e| refuse(e.to_string()))?.len();
        if size > BUILDINFO_MAX {
            return Err(refuse(format!("it has {size} bytes, at most {BUILDINFO_MAX} are allowed")));
        }
        let text = fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        Self::parse(&text).map_err(refuse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = control(text)?;
        let fields = parsed.iter().next().ok_or("it is empty")?;
        let field = |name: &str| fields.get(name).map(str::trim).ok_or(format!("it has no {name}"));
        let mut installed = BTreeMap::new();
        let entries = field("Installed-Build-Depends")?.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (at, entry) in entries.enumerate() {
            if at >= LOCK_PACKAGES_MAX {
                return Err(format!("it names over {LOCK_PACKAGES_MAX} packages, which no environment has"));
            }
            let wrong = || format!("Installed-Build-Depends has the entry {entry:?}");
            let (name, version) = entry.split_once(" (= ").ok_or_else(wrong)?;
            // `name:arch` stands for a package of another architecture, or of one of several that are installed.
            let name = name.split(':').next().unwrap_or(name);
            let name = PackageName::new(name).map_err(|_| wrong())?;
            installed.insert(name, DebVersion::new(version.trim_end_matches(')')).map_err(|_| wrong())?);
        }
        let source = field("Source")?.split(' ').next().unwrap_or_default().to_owned();
        let (version, arch) = (field("Version")?.to_owned(), field("Build-Architecture")?.to_owned());
        Ok(Self { source, version, arch, installed })
    }
}

/// Locks the environment that a `.buildinfo` names, as far as the archive has it: its packages in their versions, and what every
/// environment of ours has beside them.
///
/// # Errors
/// [`Error::Missing`] names what the archive no longer has.
pub fn lock_for_buildinfo(
    archive: &Archive,
    info: &Buildinfo,
    absent: Absent,
) -> Result<(Locked, Vec<Missing>), Error> {
    let missing = missing(archive, info)?;
    if absent == Absent::Refuse && !missing.is_empty() {
        return Err(Error::Missing { missing, of: info.installed.len() });
    }
    let replaced: BTreeMap<_, _> = missing.iter().map(|m| (&m.name, m.has.is_empty())).collect();
    let relation = |(name, version): (&PackageName, &DebVersion)| match replaced.get(name) {
        None => Some(format!("{name} (= {version})")),
        Some(false) => Some(name.to_string()),
        Some(true) => None,
    };
    let depends = info.installed.iter().filter_map(relation).collect::<Vec<_>>().join(", ");
    let locked = lock::lock_relations(archive, &BuildRelations { depends, ..BuildRelations::default() })?;
    Ok((locked, missing))
}

fn missing(archive: &Archive, info: &Buildinfo) -> Result<Vec<Missing>, archive::Error> {
    let mut has: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let wanted: BTreeSet<&str> = info.installed.keys().map(PackageName::as_str).collect();
    index::each_package(archive, |package| {
        if let Some(name) = wanted.get(package.name.as_str()) {
            has.entry(name).or_default().insert(package.version.clone());
        }
    })?;
    let none = BTreeSet::new();
    let versions = |name: &PackageName| has.get(name.as_str()).unwrap_or(&none);
    let absent = info.installed.iter().filter(|(name, version)| !versions(name).contains(version.as_str()));
    let missing = |(name, wanted): (&PackageName, &DebVersion)| Missing {
        name: name.clone(),
        wanted: wanted.clone(),
        has: versions(name).iter().cloned().collect(),
    };
    Ok(absent.map(missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buildinfo_names_what_was_installed() {
        let text = "Format: 1.0\nSource: base-files\nBinary: base-files\nArchitecture: amd64\nVersion: 12.4\n\
                    Build-Architecture: amd64\nInstalled-Build-Depends:\n autoconf (= 2.71-3),\n libc6:amd64 (= 2.36-9)\n\
                    Environment:\n DEB_BUILD_OPTIONS=\"parallel=2\"\n";
        let info = Buildinfo::parse(text).unwrap();
        let installed: Vec<_> = info.installed.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(installed, ["autoconf=2.71-3", "libc6=2.36-9"]);
        assert_eq!((info.source.as_str(), info.version.as_str(), info.arch.as_str()), ("base-files", "12.4", "amd64"));
        assert!(Buildinfo::parse(&text.replace("(= 2.71-3)", "(>= 2.71-3)")).unwrap_err().contains("autoconf"));
        assert_eq!(Buildinfo::parse("Source: x\n").unwrap_err(), "it has no Installed-Build-Depends");
        let many = |count: usize| (0..count).map(|n| format!(" aa{n} (= 1),\n")).collect::<String>();
        let of = |count| Buildinfo::parse(&text.replace(" autoconf (= 2.71-3),\n", &many(count)));
        assert_eq!(of(LOCK_PACKAGES_MAX - 1).unwrap().installed.len(), LOCK_PACKAGES_MAX);
        assert!(of(LOCK_PACKAGES_MAX).unwrap_err().contains("which no environment has"));
    }
}
