//! Source packages: fetched through apt's chain of signatures, or read from a `.dsc` on disk.
//!
//! Either way every file is checked against the `.dsc` (size and SHA-256) before anything names it. The signature inside a
//! `.dsc` is not judged here: apt's index vouches for fetched ones, the maintainer who signs the job for local ones.

pub mod rpm;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{
    FileName, PackageName, Sha256,
    job::{DebJob, SourceFile},
    limits,
    words::{DebVersion, WordError},
};

use super::{
    archive::{self, Archive},
    digest::Digest,
    index,
};

/// The largest `.dsc`, in bytes.
const DSC_MAX: u64 = 1024 * 1024;
/// The lines of a `.dsc` or `.buildinfo` at most: the longest in Debian have a few thousand, and each costs time, empty ones too.
const LINES_MAX: usize = 65_536;

/// Why a source package was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive could not be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Neither a source package's name nor `name=version`.
    #[error("{got:?} is no source package; write NAME or NAME=VERSION")]
    Name {
        /// What was given.
        got: String,
        /// The broken rule.
        #[source]
        source: WordError,
    },
    /// The archive has no such source package.
    #[error("the archive has no source package {name} in suite {suite}: {said}")]
    NoSuchSource {
        /// What was asked for.
        name: String,
        /// The suite that was searched.
        suite: String,
        /// apt's words.
        said: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A file that the `.dsc` names is not beside it.
    #[error("{dsc} names {file}, which is not beside it; put every file of the source package into one folder")]
    MissingFile {
        /// The `.dsc`.
        dsc: PathBuf,
        /// The missing file.
        file: FileName,
    },
    /// A file is not the one that the `.dsc` names.
    #[error(
        "{file} is not the file that the .dsc names: wanted {wanted} ({wanted_size} bytes), got {got} ({got_size} bytes)"
    )]
    WrongFile {
        /// The file.
        file: FileName,
        /// The SHA-256 in the `.dsc`.
        wanted: Sha256,
        /// The size in the `.dsc`.
        wanted_size: u64,
        /// The SHA-256 on disk.
        got: Sha256,
        /// The size on disk.
        got_size: u64,
    },
    /// The `.dsc` itself is not acceptable.
    #[error("{path} is not an acceptable .dsc: {why}")]
    Dsc {
        /// The file.
        path: PathBuf,
        /// The rule.
        why: String,
    },
}

/// The relations that decide what a build of the package needs, as the `.dsc` writes them, on one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRelations {
    /// `Build-Depends`.
    pub depends: String,
    /// `Build-Depends-Arch`.
    pub depends_arch: String,
    /// `Build-Depends-Indep`.
    pub depends_indep: String,
    /// `Build-Conflicts`, `-Arch` and `-Indep` together.
    pub conflicts: String,
}

/// A source package on disk, every file checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePackage {
    /// The folder of the files.
    pub dir: PathBuf,
    /// The `.dsc`.
    pub dsc: PathBuf,
    /// The source package's name.
    pub name: PackageName,
    /// Its version.
    pub version: DebVersion,
    /// The `.dsc` and what it names, sorted by name.
    pub files: Vec<SourceFile>,
    /// What a build needs.
    pub relations: BuildRelations,
    /// The binary packages that the `.dsc` announces, sorted.
    pub binaries: Vec<PackageName>,
}

impl SourcePackage {
    /// Has the environment of a build hold further packages, for instance a linter.
    #[must_use]
    pub fn with_packages(mut self, packages: &[PackageName]) -> Self {
        let names: Vec<String> = packages.iter().map(ToString::to_string).collect();
        self.relations.depends = joined(&[self.relations.depends, names.join(", ")]);
        self
    }

    /// Gives the job's part that names this source; options and profiles are sorted here.
    pub fn job(&self, mut options: Vec<String>, mut profiles: Vec<String>) -> DebJob {
        options.sort();
        options.dedup();
        profiles.sort();
        profiles.dedup();
        DebJob {
            files: self.files.clone(),
            source: self.name.clone(),
            options,
            version: self.version.clone(),
            profiles,
        }
    }

    /// Gives the path of each file, in the order of `files`.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| self.dir.join(f.name.as_str())).collect()
    }
}

/// One `.deb` that the distribution itself published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveBinary {
    /// The file's name in the archive's pool (without the version's epoch).
    pub file: FileName,
    /// The SHA-256 in the archive's signed index.
    pub sha256: Sha256,
}

/// Fetches a source package (`name` or `name=version`) into a folder.
///
/// # Errors
/// When the archive has no such package, or the files are not what the index and the `.dsc` say.
pub fn fetch_source(archive: &Archive, wanted: &str, into: &Path) -> Result<SourcePackage, Error> {
    let (name, version) = wanted.split_once('=').map_or((wanted, None), |(n, v)| (n, Some(v)));
    let refuse = |source| Error::Name { got: wanted.chars().take(120).collect(), source };
    PackageName::new(name).map_err(refuse)?;
    version.map(DebVersion::new).transpose().map_err(refuse)?;
    fs::create_dir_all(into).map_err(archive::file_error("create", into))?;
    let _guard = archive.lock()?;
    let run = |mode: &str, folder: &Path| {
        let arguments = ["-q", "-q", "--only-source", mode, "source", wanted];
        archive.run_in(folder, "apt-get", &arguments, "fetch the source package").map_err(|error| {
            if let archive::Error::Failed { said, .. } = &error
                && (said.contains("Unable to find a source package") || said.contains("deb-src"))
            {
                let (name, suite) = (wanted.to_owned(), archive.suite().to_string());
                return Error::NoSuchSource { name, suite, said: said.clone() };
            }
            Error::Archive(error)
        })
    };
    // apt lists only what the folder lacks, so it is asked in one that has nothing.
    let listed = run("--print-uris", &archive.path("none"))?;
    run("--download-only", into)?;
    let dsc = listed.lines().filter_map(|l| l.split(' ').nth(1)).find(|f| f.ends_with(".dsc"));
    let dsc = dsc.and_then(|name| FileName::new(name).ok());
    let dsc = dsc.ok_or_else(|| archive::Error::Index(format!("the source package {wanted} has no .dsc")))?;
    read_source(&into.join(dsc.as_str()))
}

/// Reads a `.dsc` and checks every file that it names.
///
/// # Errors
/// The first file that is missing or different, or the rule that the `.dsc` breaks.
pub fn read_source(path: &Path) -> Result<SourcePackage, Error> {
    let refuse = |why: String| Error::Dsc { path: path.into(), why };
    let read = |source| Error::Read { path: path.into(), source };
    let size = fs::metadata(path).map_err(read)?.len();
    if size > DSC_MAX {
        return Err(refuse(format!("it has {size} bytes, at most {DSC_MAX} are allowed")));
    }
    let bytes = fs::read(path).map_err(read)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is not UTF-8".into()))?;
    let parsed = control(text).map_err(refuse)?;
    let mut paragraphs = parsed.iter();
    let (Some(fields), None) = (paragraphs.next(), paragraphs.next()) else {
        return Err(refuse("it must hold one paragraph".into()));
    };
    let own = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let own = FileName::new(own).map_err(|e| refuse(e.to_string()))?;
    if !own.as_str().ends_with(".dsc") {
        return Err(refuse("its name must end in .dsc".into()));
    }
    let field = |name: &str| fields.get(name).map(one_line).unwrap_or_default();
    let named = named_files(fields.get("Checksums-Sha256").unwrap_or_default()).map_err(refuse)?;
    let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
    let mut files = vec![source_file(own, &Digest::of(&bytes))];
    for (name, wanted) in named {
        let got = checked_file(&dir, path, &name, wanted)?;
        files.push(source_file(name, &got));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut binaries: Vec<_> = field("Binary").split(',').filter_map(|b| PackageName::new(b.trim()).ok()).collect();
    binaries.sort();
    Ok(SourcePackage {
        dir,
        dsc: path.to_owned(),
        name: PackageName::new(field("Source")).map_err(|e| refuse(e.to_string()))?,
        version: DebVersion::new(field("Version")).map_err(|e| refuse(e.to_string()))?,
        files,
        relations: BuildRelations {
            depends: field("Build-Depends"),
            depends_arch: field("Build-Depends-Arch"),
            depends_indep: field("Build-Depends-Indep"),
            conflicts: joined(&["Build-Conflicts", "Build-Conflicts-Arch", "Build-Conflicts-Indep"].map(field)),
        },
        binaries,
    })
}

/// Finds the distribution's own `.deb`s of exactly this source version; `None` where the archive has none.
///
/// # Errors
/// When the index cannot be read.
pub fn archive_binaries(
    archive: &Archive,
    source: &PackageName,
    version: &DebVersion,
) -> Result<Option<Vec<ArchiveBinary>>, Error> {
    let _guard = archive.lock()?;
    let mut found = Vec::new();
    index::each_package(archive, |package| {
        let from = package.source();
        if from == (source.as_str(), version.as_str()) {
            let file = package.filename.rsplit('/').next().and_then(|n| FileName::new(n).ok());
            let sha256 = package.sha256.parse().ok();
            found.extend(file.zip(sha256).map(|(file, sha256)| ArchiveBinary { file, sha256 }));
        }
    })?;
    found.sort();
    found.dedup();
    Ok(if found.is_empty() { None } else { Some(found) })
}

/// Joins relations that are not empty with commas.
pub(super) fn joined(relations: &[String]) -> String {
    relations.iter().filter(|r| !r.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Reads the paragraphs of a `.dsc` or `.buildinfo`; an inline OpenPGP signature is not judged.
///
/// # Errors
/// When it has over [`LINES_MAX`] lines, or another form.
pub(super) fn control(text: &str) -> Result<deb822_fast::Deb822, String> {
    if text.lines().nth(LINES_MAX).is_some() {
        return Err(format!("it has over {LINES_MAX} lines"));
    }
    unsigned(text).parse().map_err(|e| format!("{e:?}"))
}

/// Takes the text out of an inline OpenPGP signature, where there is one.
pub(super) fn unsigned(text: &str) -> String {
    if !text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
        return text.to_owned();
    }
    let body = text.lines().skip_while(|l| !l.trim_end().is_empty()).skip(1);
    let body = body.take_while(|l| !l.starts_with("-----BEGIN PGP SIGNATURE-----"));
    let mut plain = String::with_capacity(text.len());
    for line in body {
        plain.push_str(line.strip_prefix("- ").unwrap_or(line));
        plain.push('\n');
    }
    plain
}

fn one_line(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(',').to_owned()
}

fn source_file(name: FileName, digest: &Digest) -> SourceFile {
    SourceFile { hash: digest.hash, name, size: digest.size, sha256: digest.sha256 }
}

/// Reads `Checksums-Sha256`: lines of hash, size and name. Of a list that is too long only the beginning is looked at.
fn named_files(value: &str) -> Result<BTreeMap<FileName, (Sha256, u64)>, String> {
    let mut files = BTreeMap::new();
    for line in value.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let parts: Vec<_> = line.split_whitespace().collect();
        let [sha256, size, name] = parts[..] else { return Err(format!("Checksums-Sha256 has the line {line:?}")) };
        let name = FileName::new(name).map_err(|e| e.to_string())?;
        let sha256 = sha256.parse().map_err(|e| format!("Checksums-Sha256 of {name}: {e}"))?;
        let size = size.parse().map_err(|_| format!("Checksums-Sha256 of {name} has the size {size:?}"))?;
        // The .dsc itself is an input, too.
        if files.len() + 1 >= limits::INPUTS_MAX {
            return Err(format!("it names over {} files", limits::INPUTS_MAX - 1));
        }
        match files.entry(name) {
            Entry::Vacant(place) => place.insert((sha256, size)),
            Entry::Occupied(known) => return Err(format!("it names {} twice", known.key())),
        };
    }
    if files.is_empty() { Err("it has no Checksums-Sha256, or an empty one".into()) } else { Ok(files) }
}

fn checked_file(dir: &Path, dsc: &Path, name: &FileName, wanted: (Sha256, u64)) -> Result<Digest, Error> {
    let path = dir.join(name.as_str());
    let got = Digest::of_file(&path).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return Error::MissingFile { dsc: dsc.into(), file: name.clone() };
        }
        Error::Read { path: path.clone(), source }
    })?;
    if (got.sha256, got.size) != wanted {
        return Err(Error::WrongFile {
            file: name.clone(),
            wanted: wanted.0,
            wanted_size: wanted.1,
            got: got.sha256,
            got_size: got.size,
        });
    }
    Ok(got)
}

#[cfg(test)]
mod tests;
