//! Sources of RPMs on disk: a `.src.rpm`, or a `.spec` with what it names beside it.
//!
//! A spec is read as text and nothing of it is run, since it may hold shell commands: name, version, sources and build
//! requirements are found line by line, with macros that the spec defines in one line each. What cannot be read so is refused
//! with the advice to submit the source RPM, whose header holds everything in plain words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use attest::rpm::{Front, front};
use protocol::{
    FileName, PackageName,
    job::{RpmJob, SourceFile},
    limits::INPUTS_MAX,
    words::DebVersion,
};

use super::source_file;
use crate::resolve::digest::Digest;

/// The largest spec, in bytes.
const SPEC_MAX: u64 = 4 << 20;
/// How deep macros may refer to each other.
const DEPTH_MAX: usize = 16;
/// What all macros of a spec together may stand for where they are used, in bytes.
const EXPANDED_MAX: usize = 1 << 20;
/// How many files a spec may name: a job has no more inputs.
const FILES_MAX: usize = INPUTS_MAX;
/// How many requirements are read: the largest sources have a few thousand, and each costs time.
const REQUIRES_MAX: usize = 16_384;
/// Tags of a source RPM's header.
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const REQUIRE: u32 = 1049;
    pub(super) const IS_SOURCE: u32 = 1106;
}

/// Why a source was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A file that the spec names is not beside it.
    #[error("{spec} names {file}, which is not beside it; put the spec, its sources and its patches into one folder")]
    MissingFile {
        /// The spec.
        spec: PathBuf,
        /// The missing file.
        file: FileName,
    },
    /// The spec or source RPM is not acceptable.
    #[error("{path} is not an acceptable source of RPMs: {why}")]
    Source {
        /// The file.
        path: PathBuf,
        /// The rule.
        why: String,
    },
    /// Something that the build requires has no Debian package yet.
    #[error(
        "the environment is made of Debian packages, and nothing says which of them give: {}; say so with --requires, for \
         instance --requires '{}=DEBIAN-PACKAGE', and with nothing after the = for what is not needed",
        .missing.join(", "),
        .missing.first().map(String::as_str).unwrap_or_default()
    )]
    Unmapped {
        /// The requirements, as the source names them.
        missing: Vec<String>,
    },
}

/// The source of RPMs on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpmSourcePackage {
    /// The folder of the files.
    pub dir: PathBuf,
    /// The source package's name.
    pub name: PackageName,
    /// Its version, without epoch and release.
    pub version: DebVersion,
    /// The `.src.rpm`, or the spec and what it names; sorted by name.
    pub files: Vec<SourceFile>,
    /// What the build requires, as RPM names it, without versions; sorted.
    pub requires: Vec<String>,
}

/// Which Debian packages give what an RPM build requires.
pub type Requires = BTreeMap<String, Vec<PackageName>>;

impl RpmSourcePackage {
    /// Gives the job's part that names this source; macros are sorted here.
    pub fn job(&self, mut macros: Vec<String>) -> RpmJob {
        macros.sort();
        macros.dedup();
        RpmJob { name: self.name.clone(), files: self.files.clone(), macros, version: self.version.clone() }
    }

    /// Gives where the files lie.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.iter().map(|file| self.dir.join(file.name.as_str()))
    }

    /// Gives the Debian packages that the build needs beside the buildd set.
    ///
    /// # Errors
    /// [`Error::Unmapped`].
    pub fn packages(&self, requires: &Requires) -> Result<BTreeSet<PackageName>, Error> {
        let missing: Vec<String> = self.requires.iter().filter(|r| !requires.contains_key(*r)).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::Unmapped { missing });
        }
        Ok(requires.values().flatten().cloned().collect())
    }
}

/// Reads a `.src.rpm`, or a `.spec` and the files that it names. `macros` are those of the job, each `NAME VALUE`.
///
/// # Errors
/// The first file that is missing, or the rule that the source breaks.
pub fn read_rpm_source(path: &Path, macros: &[String]) -> Result<RpmSourcePackage, Error> {
    let read = |source| Error::Read { path: path.into(), source };
    let refuse = |why: String| Error::Source { path: path.into(), why };
    let own = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let own = FileName::new(own).map_err(|e| refuse(e.to_string()))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let digest = Digest::of_file(path).map_err(read)?;
    let mut files = vec![source_file(own.clone(), &digest)];
    let said = if own.as_str().ends_with(".src.rpm") {
        from_header(&fs::read(path).map_err(read)?).map_err(refuse)?
    } else {
        if digest.size > SPEC_MAX {
            return Err(refuse(format!("it has {} bytes, at most {SPEC_MAX} are allowed", digest.size)));
        }
        from_spec(&fs::read_to_string(path).map_err(read)?, macros).map_err(refuse)?
    };
    for name in &said.files {
        let file = dir.join(name.as_str());
        match Digest::of_file(&file) {
            Ok(digest) => files.push(source_file(name.clone(), &digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::MissingFile { spec: path.into(), file: name.clone() });
            }
            Err(source) => return Err(Error::Read { path: file, source }),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(RpmSourcePackage {
        dir,
        name: said.name,
        version: said.version,
        files,
        requires: said.requires.into_iter().collect(),
    })
}

/// What a source says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    name: PackageName,
    version: DebVersion,
    files: BTreeSet<FileName>,
    requires: BTreeSet<String>,
}

fn from_header(bytes: &[u8]) -> Result<Said, String> {
    let Front { header, .. } = front(bytes).map_err(|e| e.to_string())?;
    if !header.has(tag::IS_SOURCE) {
        return Err("it is a binary package".into());
    }
    let requires = header.texts(tag::REQUIRE).unwrap_or_default();
    few(requires.len(), REQUIRES_MAX, "requirements")?;
    Ok(Said {
        name: PackageName::new(header.text(tag::NAME).unwrap_or_default()).map_err(|e| e.to_string())?,
        version: DebVersion::new(header.text(tag::VERSION).unwrap_or_default()).map_err(|e| e.to_string())?,
        files: BTreeSet::new(),
        requires: requires.into_iter().filter(|r| !r.starts_with("rpmlib(")).map(str::to_owned).collect(),
    })
}

fn from_spec(text: &str, macros: &[String]) -> Result<Said, String> {
    let mut macros = Macros::given(macros);
    let (mut files, mut requires) = (BTreeSet::new(), BTreeSet::new());
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.take_while(|line| !begins_work(line)) {
        if let Some(definition) = line.strip_prefix("%global ").or_else(|| line.strip_prefix("%define ")) {
            if let Some((name, value)) = definition.trim().split_once(char::is_whitespace) {
                macros.known.entry(name.to_owned()).or_insert_with(|| value.trim().to_owned());
            }
            continue;
        }
        let Some((field, value)) = line.split_once(':') else { continue };
        let (field, value) = (field.trim().to_ascii_lowercase(), value.trim());
        let numbered = |word: &str| field.strip_prefix(word).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        match field.as_str() {
            // A subpackage has its own; the first one is the source's.
            "name" | "version" => drop(macros.known.entry(field).or_insert(value.to_owned())),
            "buildrequires" => {
                requires.extend(requirements(&macros.expand(value)?)?);
                few(requires.len(), REQUIRES_MAX, "requirements")?;
            }
            _ if numbered("source") || numbered("patch") => {
                let value = macros.expand(value)?;
                let name = value.rsplit('/').next().unwrap_or_default();
                files.insert(FileName::new(name).map_err(|e| e.to_string())?);
                few(files.len(), FILES_MAX, "sources and patches")?;
            }
            _ => {}
        }
    }
    let mut field = |name: &str| -> Result<String, String> {
        let value = macros.known.get(name).cloned().ok_or_else(|| format!("it has no field {name}"))?;
        macros.expand(&value)
    };
    Ok(Said {
        name: PackageName::new(field("name")?).map_err(|e| e.to_string())?,
        version: DebVersion::new(field("version")?).map_err(|e| e.to_string())?,
        files,
        requires,
    })
}

fn few(count: usize, most: usize, what: &str) -> Result<(), String> {
    if count > most { Err(format!("it names over {most} {what}")) } else { Ok(()) }
}

fn begins_work(line: &str) -> bool {
    // Most lines do not, and a spec may have millions.
    line.starts_with('%')
        && ["%prep", "%build", "%install", "%check", "%files", "%changelog"]
            .contains(&line.split(' ').next().unwrap_or_default())
}

/// Macros that a spec or its job define in one line each.
struct Macros {
    known: BTreeMap<String, String>,
    /// How many bytes more may be put in their places: a long one can be named in every line.
    room: usize,
}

impl Macros {
    /// Begins with those of the job, each `NAME VALUE`.
    fn given(macros: &[String]) -> Self {
        let given = macros.iter().filter_map(|text| text.split_once(' '));
        Self { known: given.map(|(name, value)| (name.into(), value.trim().into())).collect(), room: EXPANDED_MAX }
    }

    /// Replaces the macros that are known; `%{?name}` is empty where it is not.
    fn expand(&mut self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for _ in 0..DEPTH_MAX {
            let Some(at) = text.find('%') else { return Ok(text) };
            let rest = &text[at + 1..];
            let (name, length) = match rest.strip_prefix('{') {
                Some(inner) => {
                    let end = inner.find('}').ok_or_else(|| format!("{text:?} has a macro without end"))?;
                    (&inner[..end], end + 2)
                }
                None => {
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                    (&rest[..end], end)
                }
            };
            let value = self.value(name).ok_or_else(|| {
                let why = "which is not defined in one line; set it with --macro, or submit the .src.rpm";
                format!("{text:?} uses the macro {:?}, {why}", name.strip_prefix('?').unwrap_or(name))
            })?;
            let room = self.room.checked_sub(value.len());
            let room = room.ok_or_else(|| format!("its macros stand for over {EXPANDED_MAX} bytes"))?;
            text.replace_range(at..=at + length, value);
            self.room = room;
        }
        Err(format!("{text:?} expands without end"))
    }

    /// Gives what a macro stands for, `?` before its name included.
    fn value(&self, name: &str) -> Option<&str> {
        let plain = name.strip_prefix('?');
        let wanted = plain.unwrap_or(name);
        let known = self.known.get(&wanted.to_ascii_lowercase()).or_else(|| self.known.get(wanted));
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        known.map(String::as_str).or_else(|| plain.filter(|name| is_name(name)).map(|_| ""))
    }
}

/// Gives the names of a list of requirements: separated by commas or spaces, each perhaps with a comparison and a version.
///
/// # Errors
/// When there are over [`REQUIRES_MAX`].
fn requirements(text: &str) -> Result<Vec<String>, String> {
    let (mut names, mut words) = (Vec::new(), text.split([',', ' ', '\t']).filter(|w| !w.is_empty()));
    while let Some(word) = words.next() {
        if ["<", "<=", "=", ">=", ">"].contains(&word) {
            words.next();
        } else if word.starts_with('(') {
            // A rich requirement, for instance `(a or b)`, is one.
            let count = |word: &str, sign: char| word.matches(sign).count();
            let (mut opened, mut closed) = (count(word, '('), count(word, ')'));
            let mut whole = word.to_owned();
            while opened > closed
                && let Some(next) = words.next()
            {
                (opened, closed) = (opened + count(next, '('), closed + count(next, ')'));
                whole.push(' ');
                whole += next;
            }
            names.push(whole);
        } else {
            names.push(word.to_owned());
        }
        few(names.len(), REQUIRES_MAX, "requirements")?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::assert_linear, *};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/rpm").join(name)
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_spec_names_its_files_and_needs() {
        let source = read_rpm_source(&fixture("artel-answer.spec"), &[]).unwrap();
        assert_eq!((source.name.as_str(), source.version.as_str()), ("Artel-answer", "1.2^git3"));
        let names: Vec<_> = source.files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["Makefile", "answer.c", "artel-answer.spec", "forty-two.patch"]);
        assert_eq!(source.requires, ["gcc", "make"]);
        let missing = source.packages(&Requires::from([("gcc".into(), vec![])])).unwrap_err();
        assert!(missing.to_string().contains("--requires 'make=DEBIAN-PACKAGE'"), "{missing}");
        let all = Requires::from([("gcc".into(), vec![]), ("make".into(), vec!["make".parse().unwrap()])]);
        assert_eq!(source.packages(&all).unwrap().len(), 1);
        assert_eq!(source.job(words(&["z 1", "dist .a", "z 1"])).macros, ["dist .a", "z 1"]);
    }

    #[test]
    fn four_times_the_spec_takes_no_more_than_about_four_times_as_long() {
        let unclosed = |bytes: usize| format!("Name: xy\nVersion: 1\nBuildRequires: ({}\n", " a".repeat(bytes / 2));
        let said = from_spec(&unclosed(1000), &[]).unwrap();
        assert_eq!(said.requires.iter().map(String::len).collect::<Vec<_>>(), [1001], "all of it is one");
        assert_linear(SPEC_MAX as usize / 4, |bytes| drop(from_spec(&unclosed(bytes), &[])));
        let many = |bytes: usize| format!("Name: xy\nVersion: 1\nBuildRequires: {}\n", "(a b) c ".repeat(bytes / 8));
        assert_linear(REQUIRES_MAX * 4, |bytes| assert!(from_spec(&many(bytes), &[]).is_ok()));
    }

    #[test]
    fn there_is_an_end_of_what_a_spec_names() {
        let names = |word: &str, count: usize| (0..count).map(|n| format!("{word}{n}\n")).collect::<String>();
        let of = |lines: String| from_spec(&format!("Name: xy\nVersion: 1\n{lines}"), &[]).map(drop);
        assert!(of(names("Source: a", FILES_MAX) + &names("BuildRequires: b", REQUIRES_MAX)).is_ok());
        let (files, requires) = (names("Patch: a", FILES_MAX + 1), names("BuildRequires: b", REQUIRES_MAX + 1));
        assert_eq!(of(files), Err(format!("it names over {FILES_MAX} sources and patches")));
        let refused = Err(format!("it names over {REQUIRES_MAX} requirements"));
        assert_eq!(of(requires), refused);
        assert_eq!(of(format!("BuildRequires: {}", "b ".repeat(REQUIRES_MAX + 1))), refused, "in one line");
    }

    /// Each line would be as long as the macro.
    #[test]
    fn a_long_macro_is_not_put_into_every_line() {
        let spec = |value: usize, lines: usize| {
            let lines = "Source: %a\n".repeat(lines);
            from_spec(&format!("%global a {}\nName: xy\nVersion: 1\n{lines}", "b".repeat(value)), &[])
        };
        assert!(spec(100, EXPANDED_MAX / 100).is_ok());
        assert_eq!(spec(100, EXPANDED_MAX / 100 + 1), Err(format!("its macros stand for over {EXPANDED_MAX} bytes")));
        assert!(spec(EXPANDED_MAX + 1, 1).is_err() && spec(EXPANDED_MAX + 1, 0).is_ok());
    }

    #[test]
    fn a_source_rpm_says_the_same() {
        let (spec, srpm) = (fixture("artel-answer.spec"), fixture("source.rpm"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Artel-answer-1.2^git3-1.src.rpm");
        fs::copy(srpm, &path).unwrap();
        let (spec, srpm) = (read_rpm_source(&spec, &[]).unwrap(), read_rpm_source(&path, &[]).unwrap());
        assert_eq!((srpm.name, srpm.version, srpm.requires), (spec.name, spec.version, spec.requires));
        assert_eq!(srpm.files.len(), 1);
        let binary = folder.path().join("binary.src.rpm");
        fs::copy(fixture("unsigned.rpm"), &binary).unwrap();
        assert!(read_rpm_source(&binary, &[]).unwrap_err().to_string().contains("binary package"));
    }

    #[test]
    fn macros_are_expanded_where_they_are_known() {
        let spec = "%global major 3\n%define minor 4\nName: %{upstream}-x\nVersion: %major.%{minor}%{?rc}\n\
                    Source0: https://a.example/%{name}-%{version}.tar.gz\nPatch: a.patch\n\
                    BuildRequires: gcc >= 4, pkgconfig(zlib)\nBuildRequires: (a or b) c\n%prep\nSource1: no\n";
        let said = from_spec(spec, &words(&["upstream cow"])).unwrap();
        assert_eq!((said.name.as_str(), said.version.as_str()), ("cow-x", "3.4"));
        assert_eq!(said.files.iter().map(FileName::as_str).collect::<Vec<_>>(), ["a.patch", "cow-x-3.4.tar.gz"]);
        assert_eq!(said.requires.into_iter().collect::<Vec<_>>(), ["(a or b)", "c", "gcc", "pkgconfig(zlib)"]);
        assert!(from_spec(spec, &[]).unwrap_err().contains("--macro"));
        assert!(from_spec("Name: a%{b}\nVersion: 1\n", &words(&["b %{b}"])).unwrap_err().contains("without end"));
        assert!(from_spec("Name: %(date)\nVersion: 1\n", &[]).is_err(), "commands are not run");
        assert!(from_spec("Version: 1\n", &[]).is_err());
    }
}
