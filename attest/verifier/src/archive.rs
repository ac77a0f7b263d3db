//! A repository on disk: which packages its indexes name, and where they lie. Apt's `Packages` below `dists`, and dnf's `primary`
//! below `repodata`; a folder without either is every package in it.
//!
//! Signatures of indexes are apt's and dnf's own business. What an index says a package is, the package must say, too.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use protocol::{Arch, words::RelativePath};

use crate::{Error, package::Identity, read};

/// The largest index that is read, packed or not, in bytes.
const INDEX_MAX: usize = 512 << 20;
/// How deep folders without an index are looked through.
const DEPTH_MAX: usize = 16;

/// A package that a repository has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Where it lies.
    pub file: PathBuf,
    /// What its index says that it is: name, version, architecture; none without an index.
    pub wanted: Option<[String; 3]>,
}

impl Entry {
    /// Gives what the index says, as words of ours.
    ///
    /// # Errors
    /// When no package can be called that.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        let malformed = |why| Error::Form { path: self.file.clone(), why };
        let identity = self.wanted.as_ref().map(|[name, version, arch]| Identity::of(name, version, arch));
        identity.transpose().map_err(malformed)
    }
}

/// Lists the packages of a folder, sorted by path, each once: those that its indexes name, and those that lie in it and that no
/// index read here names, since others read more kinds of indexes.
///
/// # Errors
/// When an index cannot be read, or names a file outside, or there is no package at all.
pub fn entries(root: &Path) -> Result<Vec<Entry>, Error> {
    let mut entries = apt(root)?;
    entries.extend(rpm(root)?);
    let mut lying = Vec::new();
    walk(root, DEPTH_MAX, &mut lying)?;
    let named: BTreeSet<PathBuf> = entries.iter().map(|entry| entry.file.clone()).collect();
    entries.extend(lying.into_iter().filter(|entry| !named.contains(&entry.file)));
    entries.sort();
    entries.dedup();
    if entries.is_empty() {
        return Err(Error::NoSuchPackage { name: "of any kind".into(), folder: root.into() });
    }
    Ok(entries)
}

fn apt(root: &Path) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for suite in folders(&root.join("dists"))? {
        for component in folders(&suite)? {
            for index in folders(&component)? {
                let binary = index.file_name().is_some_and(|name| name.to_string_lossy().starts_with("binary-"));
                if binary && let Some(text) = index_text(&index.join("Packages"))? {
                    let malformed = |why| Error::Form { path: index.join("Packages"), why };
                    entries.extend(packages(&text, root).map_err(malformed)?);
                }
            }
        }
    }
    Ok(entries)
}

/// Reads `Packages`, or else `Packages.gz`.
fn index_text(path: &Path) -> Result<Option<String>, Error> {
    let packed = path.with_extension("gz");
    let bytes = if path.is_file() {
        read(path, INDEX_MAX)?
    } else if packed.is_file() {
        unpacked(&packed)?
    } else {
        return Ok(None);
    };
    match String::from_utf8(bytes) {
        Ok(text) if text.len() <= INDEX_MAX => Ok(Some(text)),
        _ => Err(Error::Form { path: path.into(), why: format!("it is no text of at most {INDEX_MAX} bytes") }),
    }
}

fn unpacked(path: &Path) -> Result<Vec<u8>, Error> {
    let packed = read(path, INDEX_MAX)?;
    let mut bytes = Vec::new();
    let mut limited = flate2::read::MultiGzDecoder::new(packed.as_slice()).take(INDEX_MAX as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(bytes)
}

/// Reads the text of apt's `Packages`, of the repository in a folder.
///
/// # Errors
/// Words, when a package lacks what names it, or names a file outside.
pub fn packages(text: &str, root: &Path) -> Result<Vec<Entry>, String> {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let entry = |paragraph: &str| {
        let field = |wanted: &str| {
            let mut lines = paragraph.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim().to_owned())
        };
        let field = |wanted: &str| field(wanted).ok_or_else(|| format!("a package has no field {wanted}"));
        let wanted = [field("Package")?, field("Version")?, field("Architecture")?];
        Ok(Entry { file: below(root, &field("Filename")?)?, wanted: Some(wanted) })
    };
    paragraphs.map(entry).collect()
}

fn below(root: &Path, path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let path: RelativePath = path.parse().map_err(|e: protocol::words::WordError| e.to_string())?;
    Ok(root.join(path.as_str()))
}

fn rpm(root: &Path) -> Result<Vec<Entry>, Error> {
    let path = root.join("repodata/repomd.xml");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let malformed = |why: String| Error::Form { path: path.clone(), why };
    let text = String::from_utf8(read(&path, INDEX_MAX)?).map_err(|e| malformed(e.to_string()))?;
    let href = primary_of(&text).ok_or_else(|| malformed("it names no primary index".into()))?;
    let primary = below(root, href).map_err(malformed)?;
    if primary.extension() != Some(OsStr::new("gz")) {
        return Err(malformed(format!("{href} is not packed by gzip, which alone is read here")));
    }
    let text = String::from_utf8(unpacked(&primary)?).map_err(|e| malformed(e.to_string()))?;
    primary_packages(&text, root).map_err(malformed)
}

/// Gives where the primary index lies, by the text of dnf's `repomd.xml`.
pub fn primary_of(text: &str) -> Option<&str> {
    let primary = elements(text, "data").find(|element| element.contains("type=\"primary\""));
    primary.and_then(|data| attribute(data, "location", "href"))
}

/// Reads the text of dnf's primary index, of the repository in a folder.
///
/// # Errors
/// Words, when a package lacks what names it, or names a file outside.
pub fn primary_packages(text: &str, root: &Path) -> Result<Vec<Entry>, String> {
    let packages = elements(text, "package").map(|package| {
        let (href, wanted) = described(package).ok_or("a package lacks what names it")?;
        Ok(Entry { file: below(root, href)?, wanted: Some(wanted) })
    });
    packages.collect()
}

/// Gives where a package of a primary index lies, and what it is.
fn described(package: &str) -> Option<(&str, [String; 3])> {
    let text = |name: &str| {
        let (_, rest) = package.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let part = |name: &str| attribute(package, "version", name);
    let plain = format!("{}-{}", part("ver")?, part("rel")?);
    let version = match part("epoch") {
        None | Some("0") => plain,
        Some(epoch) => format!("{epoch}:{plain}"),
    };
    let arch = Arch::from_rpm_name(&text("arch")?).map(|arch| arch.to_string());
    Some((attribute(package, "location", "href")?, [text("name")?, version, arch.unwrap_or_default()]))
}

/// Gives the text of each element of a name, from its first attribute to its end. Of XML no more is read than what writers of
/// such files write.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("<{name} "), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(begin.as_str())?;
        let (element, behind) = after.split_once(end.as_str()).unwrap_or((after, ""));
        rest = behind;
        Some(element)
    })
}

fn attribute<'a>(element: &'a str, of: &str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!("<{of} "))?;
    let (tag, _) = rest.split_once('>')?;
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    Some(value.split_once('"')?.0)
}

/// Gives the folders in a folder, sorted; none where it is not there.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(listed(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: folder.into(), source };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>, Error>>()?;
    paths.sort();
    Ok(paths)
}

fn walk(folder: &Path, depth: usize, entries: &mut Vec<Entry>) -> Result<(), Error> {
    for path in listed(folder)? {
        let package = path.extension().is_some_and(|end| ["deb", "udeb", "rpm"].iter().any(|known| end == *known));
        let kind = fs::symlink_metadata(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        if kind.is_dir() && depth > 0 {
            walk(&path, depth - 1, entries)?;
        } else if package && !path.to_string_lossy().ends_with(".src.rpm") {
            entries.push(Entry { file: path, wanted: None });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn gz(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    const PACKAGES: &str = "Package: tiny\nVersion: 1:2\nArchitecture: all\nDescription: a\n Package: b\nFilename: pool/tiny_2_all.deb\n\n";
    const REPOMD: &str = "<repomd>\n<data type=\"other\">\n<location href=\"repodata/o.xml.gz\"/></data>\n  <data type=\"primary\">\n\
                          <location href=\"repodata/p.xml.gz\"/>\n</data></repomd>";
    const PRIMARY: &str = "<metadata packages=\"1\">\n<package type=\"rpm\"><name>Answer</name><arch>x86_64</arch>\
                           <version epoch=\"3\" ver=\"1.2\" rel=\"1\"/><location href=\"pool/Answer.rpm\"/></package></metadata>";

    #[test]
    fn indexes_of_both_kinds_are_read() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), "dists/main/main/binary-amd64/Packages", PACKAGES.as_bytes());
        lay(dir.path(), "dists/main/main/binary-arm64/Packages.gz", &gz(PACKAGES));
        lay(dir.path(), "repodata/repomd.xml", REPOMD.as_bytes());
        lay(dir.path(), "repodata/p.xml.gz", &gz(PRIMARY));
        let found = entries(dir.path()).unwrap();
        let wanted = |entry: &Entry| entry.identity().unwrap().unwrap().to_string();
        assert_eq!(found.iter().map(wanted).collect::<Vec<_>>(), ["Answer 3:1.2-1 amd64", "tiny 1:2 all"]);
        assert_eq!(found[1].file, dir.path().join("pool/tiny_2_all.deb"));
    }

    #[test]
    fn a_folder_without_index_is_what_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.deb", "a/x.deb.intoto.jsonl", "y.rpm", "y.src.rpm", "z.txt"] {
            lay(dir.path(), name, b"x");
        }
        let names = entries(dir.path()).unwrap().into_iter().map(|e| e.file.file_name().unwrap().to_owned());
        assert_eq!(names.collect::<Vec<_>>(), ["x.deb", "y.rpm"]);
    }

    #[test]
    fn an_index_names_no_file_outside() {
        let dir = tempfile::tempdir().unwrap();
        let index = "dists/main/main/binary-amd64/Packages";
        for path in ["../x.deb", "/etc/passwd", "a/../../x"] {
            lay(dir.path(), index, PACKAGES.replace("pool/tiny_2_all.deb", path).as_bytes());
            assert_eq!(entries(dir.path()).unwrap_err().exit_code(), 1, "{path}");
        }
        lay(dir.path(), index, PACKAGES.replace("Version", "Size").as_bytes());
        assert!(entries(dir.path()).unwrap_err().words().contains("no field Version"));
    }
}
