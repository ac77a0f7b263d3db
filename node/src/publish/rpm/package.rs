//! What the header of an RPM says: checked at the door, and written as the lines that dnf's metadata has for it.
//!
//! A header comes from builders, so it is hostile: its size is limited, nothing of it is run or written to disk, and every text
//! is escaped where it enters the metadata.

use std::{collections::BTreeSet, fmt::Write as _, fs::File, path::Path};

use attest::rpm::{self as form, Header};
use protocol::{
    Arch, FileName, PackageName, Sha256,
    release::ReleaseFile,
    words::{DebVersion, WordError},
};
use serde::{Deserialize, Serialize};

use super::{read_front, refused, unreadable, version::Evr};
use crate::publish::{incoming::Error, sign::check};

/// The most files, and the most relations of one kind, that a package may have.
const ENTRIES_MAX: usize = 500_000;
/// The longest directory of a file, in bytes (`PATH_MAX` of Linux).
const PATH_MAX: usize = 4096;
/// All paths of a package together, in bytes: several times those of the largest package of a distribution.
const PATHS_MAX: usize = 64 << 20;
/// The longest single text, in bytes.
const TEXT_MAX: usize = 1 << 20;
/// The changelog entries that the metadata tells, the newest first.
const CHANGES_MAX: usize = 10;
/// The flag of a file that the package owns but does not bring.
const GHOST: u64 = 1 << 6;
/// The type bits of a file's mode, and those of a directory.
const TYPE: u64 = 0o170_000;
const DIRECTORY: u64 = 0o040_000;
/// Flags of a relation that must hold before the package's scripts run.
const BEFORE: u64 = 1 << 6 | 1 << 9 | 1 << 10;

/// Tags of a header (rpm's `rpmtag.h`).
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const SUMMARY: u32 = 1004;
    pub(super) const DESCRIPTION: u32 = 1005;
    pub(super) const BUILD_TIME: u32 = 1006;
    pub(super) const BUILD_HOST: u32 = 1007;
    pub(super) const SIZE: u32 = 1009;
    pub(super) const VENDOR: u32 = 1011;
    pub(super) const LICENSE: u32 = 1014;
    pub(super) const PACKAGER: u32 = 1015;
    pub(super) const GROUP: u32 = 1016;
    pub(super) const URL: u32 = 1020;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const FILE_MODES: u32 = 1030;
    pub(super) const FILE_FLAGS: u32 = 1037;
    pub(super) const SOURCE_RPM: u32 = 1044;
    pub(super) const CHANGE_TIMES: u32 = 1080;
    pub(super) const CHANGE_NAMES: u32 = 1081;
    pub(super) const CHANGE_TEXTS: u32 = 1082;
    pub(super) const IS_SOURCE: u32 = 1106;
    pub(super) const DIRECTORY_OF: u32 = 1116;
    pub(super) const BASE_NAMES: u32 = 1117;
    pub(super) const DIRECTORIES: u32 = 1118;
    pub(super) const LONG_SIZE: u32 = 5009;
}

/// Texts that the metadata tells, of which the first is read.
const ALONE: [u32; 8] =
    [tag::SUMMARY, tag::DESCRIPTION, tag::BUILD_HOST, tag::VENDOR, tag::LICENSE, tag::PACKAGER, tag::GROUP, tag::URL];

/// Relations: the metadata's word, and the tags of names, flags and versions.
const RELATIONS: [(&str, [u32; 3]); 8] = [
    ("provides", [1047, 1112, 1113]),
    ("requires", [1049, 1048, 1050]),
    ("conflicts", [1054, 1053, 1055]),
    ("obsoletes", [1090, 1114, 1115]),
    ("suggests", [5049, 5051, 5050]),
    ("enhances", [5055, 5057, 5056]),
    ("recommends", [5046, 5048, 5047]),
    ("supplements", [5052, 5054, 5053]),
];

/// What a publisher remembers of an RPM beside what every package has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::publish) struct Entry {
    /// The SHA-256 that the builders attested.
    pub(in crate::publish) attested: Sha256,
    /// The fingerprint of the key that signed it; none where that was not noted.
    #[serde(default)]
    pub(in crate::publish) signer: Option<String>,
    /// The package in `primary.xml`.
    pub(in crate::publish) primary: String,
    /// The package in `filelists.xml`.
    pub(in crate::publish) filelists: String,
    /// The package in `other.xml`.
    pub(in crate::publish) other: String,
}

/// An RPM that may enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::publish) struct Package {
    pub(in crate::publish) name: PackageName,
    /// `[epoch:]version-release`.
    pub(in crate::publish) version: DebVersion,
    pub(in crate::publish) arch: Arch,
    pub(in crate::publish) source: PackageName,
    pub(in crate::publish) source_version: DebVersion,
    /// The fingerprint of the key that signed it, as it says itself; none of an unsigned one.
    pub(in crate::publish) signer: Option<String>,
    front: form::Front,
}

/// Reads and checks an RPM that lies at `path` and is called `file`.
///
/// # Errors
/// The first rule that it breaks.
pub(in crate::publish) fn inspect(path: &Path, file: &FileName, arches: &[Arch]) -> Result<Package, Error> {
    let mut rpm = File::open(path).map_err(|source| unreadable(file, source))?;
    let bytes = read_front(&mut rpm, file)?;
    let front = form::front(&bytes).map_err(|e| refused(file, &e))?;
    let signer = form::signature(&bytes).ok().and_then(|packet| check::issuer(&packet));
    let package = package(front).map_err(|why| Error::Control { file: file.clone(), why })?;
    let wanted = format!(
        "{}-{}.{}.rpm",
        package.name,
        super::super::version::without_epoch(&package.version),
        package.arch.rpm_name()
    );
    if wanted != file.as_str() {
        return Err(Error::Name { file: file.clone(), wanted });
    }
    if package.arch != Arch::All && !arches.contains(&package.arch) {
        return Err(Error::Arch { file: file.clone(), arch: package.arch });
    }
    Ok(Package { signer, ..package })
}

fn package(front: form::Front) -> Result<Package, String> {
    let header = &front.header;
    if header.has(tag::IS_SOURCE) {
        return Err("it is a source package".into());
    }
    let field = |tag: u32, name: &str| header.text(tag).ok_or_else(|| format!("it has no {name}"));
    let word = |error: WordError| error.to_string();
    let (version, release) = (field(tag::VERSION, "version")?, field(tag::RELEASE, "release")?);
    if [version, release].iter().any(|part| part.is_empty() || part.contains(['-', ':'])) {
        return Err(format!("version {version:?} and release {release:?} must be words without - and :"));
    }
    let text = match header.number(tag::EPOCH) {
        None | Some(0) => format!("{version}-{release}"),
        Some(epoch) => format!("{epoch}:{version}-{release}"),
    };
    let arch = field(tag::ARCH, "architecture")?;
    let arch = Arch::from_rpm_name(arch).ok_or_else(|| format!("its architecture {arch:?} is unknown"))?;
    let srpm = field(tag::SOURCE_RPM, "source")?;
    let source = srpm.strip_suffix(".src.rpm").and_then(|stem| {
        let (rest, release) = stem.rsplit_once('-')?;
        let (name, version) = rest.rsplit_once('-')?;
        Some((name, format!("{version}-{release}")))
    });
    let (source, source_version) = source.ok_or_else(|| format!("its source {srpm:?} is no source RPM's name"))?;
    check_lists(header)?;
    check_texts(header)?;
    check_paths(header)?;
    Ok(Package {
        name: PackageName::new(field(tag::NAME, "name")?).map_err(word)?,
        version: DebVersion::new(text).map_err(word)?,
        arch,
        source: PackageName::new(source).map_err(word)?,
        source_version: DebVersion::new(source_version).map_err(word)?,
        signer: None,
        front,
    })
}

/// Refuses lists that are too long, before any of them is read, and lists that belong together and have not one length.
fn check_lists(header: &Header) -> Result<(), String> {
    let files = [tag::BASE_NAMES, tag::DIRECTORY_OF, tag::FILE_MODES, tag::FILE_FLAGS];
    let changes = [tag::CHANGE_NAMES, tag::CHANGE_TEXTS, tag::CHANGE_TIMES];
    let relations = RELATIONS.iter().map(|(word, tags)| (*word, tags.as_slice()));
    for (word, tags) in relations.chain([("files", files.as_slice()), ("changes", &changes)]) {
        let counts: Vec<usize> = tags.iter().map(|tag| header.count(*tag)).collect();
        if counts.iter().any(|count| *count > ENTRIES_MAX) {
            return Err(format!("it has over {ENTRIES_MAX} {word}"));
        }
        if counts.iter().any(|count| *count != counts[0]) {
            return Err(format!("its lists of {word} have different lengths: {counts:?}"));
        }
    }
    let directories = header.count(tag::DIRECTORIES);
    let strays = |at: u64| usize::try_from(at).map_or(true, |at| at >= directories);
    if directories > ENTRIES_MAX || header.numbers(tag::DIRECTORY_OF).unwrap_or_default().into_iter().any(strays) {
        return Err(format!("a file lies in none of its {directories} directories, or those are over {ENTRIES_MAX}"));
    }
    Ok(())
}

/// Refuses what the metadata could not tell as it is: a text of another type or that is not UTF-8, and one that is longer than
/// anybody reads. What is missing may be missing.
fn check_texts(header: &Header) -> Result<(), String> {
    for tag in ALONE.into_iter().filter(|tag| header.has(*tag)) {
        let text = header.text(tag).ok_or_else(|| format!("tag {tag} is not a text in UTF-8"))?;
        if text.len() > TEXT_MAX {
            return Err(format!("tag {tag} has a text of {} bytes, at most {TEXT_MAX} are allowed", text.len()));
        }
    }
    let names = RELATIONS.iter().flat_map(|(_, [names, _, versions])| [*names, *versions]);
    let lists = [tag::BASE_NAMES, tag::DIRECTORIES, tag::CHANGE_NAMES, tag::CHANGE_TEXTS];
    for tag in names.chain(lists).filter(|tag| header.has(*tag)) {
        let texts = header.texts(tag).ok_or_else(|| format!("tag {tag} is not a list of texts in UTF-8"))?;
        if let Some(text) = texts.iter().find(|text| text.len() > TEXT_MAX) {
            return Err(format!("tag {tag} has a text of {} bytes, at most {TEXT_MAX} are allowed", text.len()));
        }
    }
    Ok(())
}

/// Refuses lists of files whose paths, written out, are larger than any package's: in the header a directory stands once.
fn check_paths(header: &Header) -> Result<(), String> {
    let folders: Vec<usize> =
        header.texts(tag::DIRECTORIES).unwrap_or_default().iter().map(|text| text.len()).collect();
    let of = header.numbers(tag::DIRECTORY_OF).unwrap_or_default();
    let names = header.texts(tag::BASE_NAMES).unwrap_or_default();
    let folder = |at: usize| of.get(at).and_then(|index| folders.get(usize::try_from(*index).ok()?)).copied();
    let sum: usize = names.iter().enumerate().map(|(at, name)| name.len() + folder(at).unwrap_or(0)).sum();
    if folders.iter().any(|length| *length > PATH_MAX) || sum > PATHS_MAX {
        return Err(format!("its paths have over {PATHS_MAX} bytes together, or one has over {PATH_MAX}"));
    }
    Ok(())
}

impl Package {
    /// Writes what the metadata says of the package whose signed file is `file`.
    pub(in crate::publish) fn entry(&self, attested: Sha256, file: &ReleaseFile) -> Entry {
        let files = self.files();
        let title = format!(
            "<package pkgid=\"{}\" name=\"{}\" arch=\"{}\">\n  {}\n",
            file.sha256,
            self.name,
            self.arch.rpm_name(),
            self.version_element()
        );
        let listed: String = files.iter().map(|f| f.element("  ")).collect();
        Entry {
            attested,
            signer: self.signer.clone(),
            primary: self.primary(file, &files),
            filelists: format!("{title}{listed}</package>\n"),
            other: format!("{title}{}</package>\n", self.changes()),
        }
    }

    fn header(&self) -> &Header {
        &self.front.header
    }

    fn version_element(&self) -> String {
        let Evr { epoch, version, release } = Evr::of(&self.version);
        format!("<version epoch=\"{epoch}\" ver=\"{version}\" rel=\"{release}\"/>")
    }

    fn primary(&self, file: &ReleaseFile, files: &[Listed]) -> String {
        let (header, number) = (self.header(), |tag| self.header().number(tag).unwrap_or(0));
        let text = |name: &str, tag: u32| element(name, header.text(tag).unwrap_or_default());
        let installed = header.number(tag::LONG_SIZE).unwrap_or_else(|| number(tag::SIZE));
        let built = number(tag::BUILD_TIME);
        let mut xml = format!("<package type=\"rpm\">\n  <name>{}</name>\n", self.name);
        let lines = [
            element("arch", self.arch.rpm_name()),
            self.version_element(),
            format!("<checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>", file.sha256),
            text("summary", tag::SUMMARY),
            text("description", tag::DESCRIPTION),
            text("packager", tag::PACKAGER),
            text("url", tag::URL),
            format!("<time file=\"{built}\" build=\"{built}\"/>"),
            format!(
                "<size package=\"{}\" installed=\"{installed}\" archive=\"{}\"/>",
                file.size,
                self.front.unpacked.unwrap_or(0)
            ),
            format!("<location href=\"{}\"/>", escaped(file.path.as_str())),
        ];
        lines.iter().for_each(|line| xml += &format!("  {line}\n"));
        xml += "  <format>\n";
        let lines = [
            text("rpm:license", tag::LICENSE),
            text("rpm:vendor", tag::VENDOR),
            text("rpm:group", tag::GROUP),
            text("rpm:buildhost", tag::BUILD_HOST),
            text("rpm:sourcerpm", tag::SOURCE_RPM),
            format!("<rpm:header-range start=\"{}\" end=\"{}\"/>", self.front.begin, self.front.end),
        ];
        lines.iter().for_each(|line| xml += &format!("    {line}\n"));
        for (word, tags) in RELATIONS {
            xml += &self.relations(word, tags);
        }
        files.iter().filter(|f| f.is_primary()).for_each(|f| xml += &f.element("    "));
        xml + "  </format>\n</package>\n"
    }

    /// Writes relations of one kind, each once. What rpm itself must be able to do is no package's business.
    fn relations(&self, word: &str, [names, flags, versions]: [u32; 3]) -> String {
        let header = self.header();
        let names = header.texts(names).unwrap_or_default();
        let (flags, versions) = (header.numbers(flags).unwrap_or_default(), header.texts(versions).unwrap_or_default());
        let (mut seen, mut xml) = (BTreeSet::new(), String::new());
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !name.starts_with("rpmlib(")) {
            let (flags, version) = (flags.get(at).copied().unwrap_or(0), versions.get(at).copied().unwrap_or(""));
            let line = relation(name, flags, version, word == "requires");
            if seen.insert(line.clone()) {
                xml += &format!("      {line}\n");
            }
        }
        if xml.is_empty() { xml } else { format!("    <rpm:{word}>\n{xml}    </rpm:{word}>\n") }
    }

    fn files(&self) -> Vec<Listed> {
        let header = self.header();
        let (folders, of) = (header.texts(tag::DIRECTORIES), header.numbers(tag::DIRECTORY_OF));
        let (folders, of) = (folders.unwrap_or_default(), of.unwrap_or_default());
        let (modes, flags) = (header.numbers(tag::FILE_MODES), header.numbers(tag::FILE_FLAGS));
        let (modes, flags) = (modes.unwrap_or_default(), flags.unwrap_or_default());
        let names = header.texts(tag::BASE_NAMES).unwrap_or_default();
        let listed = |(at, name): (usize, &&str)| {
            let folder = of.get(at).and_then(|index| folders.get(usize::try_from(*index).ok()?)).copied();
            let ghost = flags.get(at).is_some_and(|flags| flags & GHOST != 0);
            let directory = modes.get(at).is_some_and(|mode| mode & TYPE == DIRECTORY);
            let kind = match (ghost, directory) {
                (true, _) => FileKind::Ghost,
                (false, true) => FileKind::Directory,
                (false, false) => FileKind::Plain,
            };
            Listed { path: format!("{}{name}", folder.unwrap_or_default()), kind }
        };
        names.iter().enumerate().map(listed).collect()
    }

    fn changes(&self) -> String {
        let header = self.header();
        let texts = |tag| header.texts(tag).unwrap_or_default();
        let (names, changes) = (texts(tag::CHANGE_NAMES), texts(tag::CHANGE_TEXTS));
        let times = header.numbers(tag::CHANGE_TIMES).unwrap_or_default();
        let newest = names.iter().zip(&changes).zip(&times).take(CHANGES_MAX);
        // The oldest of them comes first, as createrepo_c writes them.
        let lines: Vec<String> = newest
            .map(|((name, change), time)| {
                let (name, change) = (attribute(name), escaped(change));
                format!("  <changelog author=\"{name}\" date=\"{time}\">{change}</changelog>\n")
            })
            .collect();
        lines.into_iter().rev().collect()
    }
}

fn relation(name: &str, flags: u64, version: &str, may_be_before: bool) -> String {
    let mut line = format!("<rpm:entry name=\"{}\"", attribute(name));
    let comparison = match flags >> 1 & 0b111 {
        0b001 => Some("LT"),
        0b010 => Some("GT"),
        0b100 => Some("EQ"),
        0b101 => Some("LE"),
        0b110 => Some("GE"),
        _ => None,
    };
    if let Some(comparison) = comparison.filter(|_| !version.is_empty()) {
        let Evr { epoch, version, release } = Evr::parse(version);
        let _ = write!(line, " flags=\"{comparison}\" epoch=\"{}\" ver=\"{}\"", attribute(epoch), attribute(version));
        if !release.is_empty() {
            let _ = write!(line, " rel=\"{}\"", attribute(release));
        }
    }
    let before = if may_be_before && flags & BEFORE != 0 { " pre=\"1\"" } else { "" };
    format!("{line}{before}/>")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Plain,
    Directory,
    Ghost,
}

/// A file of the package.
struct Listed {
    path: String,
    kind: FileKind,
}

impl Listed {
    fn element(&self, indent: &str) -> String {
        let kind = match self.kind {
            FileKind::Plain => "",
            FileKind::Directory => " type=\"dir\"",
            FileKind::Ghost => " type=\"ghost\"",
        };
        format!("{indent}<file{kind}>{}</file>\n", escaped(&self.path))
    }

    /// Says whether others may require the file without reading all lists of files.
    fn is_primary(&self) -> bool {
        self.path.starts_with("/etc/") || self.path.contains("bin/") || self.path == "/usr/lib/sendmail"
    }
}

fn element(name: &str, text: &str) -> String {
    if text.is_empty() { format!("<{name}/>") } else { format!("<{name}>{}</{name}>", escaped(text)) }
}

/// Writes text as the value of an attribute, where a reader would take a line's end for a space.
fn attribute(text: &str) -> String {
    escaped(text).replace('\n', "&#10;").replace('\t', "&#9;")
}

/// Writes text so that it is nothing but text in XML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
