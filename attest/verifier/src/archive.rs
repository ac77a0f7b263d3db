//! A repository on disk: which packages its indexes name, and where they lie. Apt's `Packages` below `dists`, and dnf's `primary`
//! below `repodata`; a folder without either is every package in it.
//!
//! Signatures of indexes are apt's and dnf's own business. What an index says a package is, the package must say, too.

pub mod dnf;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use protocol::{Sha256, words::RelativePath};

use crate::{Error, package::Identity, read};

/// The largest index that is read, packed or not, in bytes.
const INDEX_MAX: usize = 512 << 20;
/// The largest `Release` that is read, in bytes.
const RELEASE_MAX: usize = 64 << 20;
/// Packages that one folder may name: many times those of a large suite, and few enough to be held in memory.
const ENTRIES_MAX: usize = 1 << 20;
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
/// When an index cannot be read, or names a file outside, or there is no package at all; and where somebody else may find packages that
/// are not found here: by an index of another kind or place, behind a link, or very deep.
pub fn entries(root: &Path) -> Result<Vec<Entry>, Error> {
    let mut read = BTreeMap::new();
    let mut entries = apt(root, &mut read)?;
    entries.extend(rpm(root, &mut read)?);
    let mut found = Found::default();
    walk(root, (DEPTH_MAX, &read), &mut found)?;
    found.by_hash_is_read(&read)?;
    let named: BTreeSet<PathBuf> = entries.iter().map(|entry| entry.file.clone()).collect();
    entries.extend(found.packages.into_iter().filter(|entry| !named.contains(&entry.file)));
    entries.sort();
    entries.dedup();
    if entries.is_empty() {
        return Err(Error::NoSuchPackage { name: "of any kind".into(), folder: root.into() });
    }
    Ok(entries)
}

/// The indexes that were read, and the SHA-256 of each.
type Indexes = BTreeMap<PathBuf, Sha256>;

fn apt(root: &Path, known: &mut Indexes) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for suite in folders(&root.join("dists"))? {
        for component in folders(&suite)? {
            for index in folders(&component)? {
                let binary = index.file_name().is_some_and(|name| name.to_string_lossy().starts_with("binary-"));
                if binary && let Some(text) = index_text(&index.join("Packages"), known)? {
                    let malformed = |why| Error::Form { path: index.join("Packages"), why };
                    entries.extend(packages(&text, root).map_err(malformed)?);
                    if entries.len() > ENTRIES_MAX {
                        return Err(malformed(too_many()));
                    }
                }
            }
        }
    }
    Ok(entries)
}

/// Reads `Packages` in each form that is there: apt may take any, so all must say the same.
fn index_text(path: &Path, known: &mut Indexes) -> Result<Option<String>, Error> {
    let malformed = |path: &Path, why: String| Error::Form { path: path.into(), why };
    let mut found: Option<String> = None;
    for form in [path.to_owned(), path.with_extension("gz"), path.with_extension("xz")] {
        if !form.is_file() {
            continue;
        }
        let (bytes, sha256) = unpacked(&form)?;
        let text = match String::from_utf8(bytes) {
            Ok(text) if text.len() <= INDEX_MAX && !text.contains('\r') => text,
            _ => {
                return Err(malformed(
                    &form,
                    format!("it is no text of at most {INDEX_MAX} bytes, or has other ends of lines"),
                ));
            }
        };
        if found.as_ref().is_some_and(|found| *found != text) {
            return Err(malformed(&form, "it says something else than the same index in another form".into()));
        }
        found = Some(text);
        known.insert(form, sha256);
    }
    Ok(found)
}

/// Reads a file, unpacked where its name says that it is packed, and gives the SHA-256 of what lies there.
fn unpacked(path: &Path) -> Result<(Vec<u8>, Sha256), Error> {
    let packed = read(path, INDEX_MAX)?;
    let sha256 = Sha256::of(&packed);
    let mut bytes = Vec::new();
    let limit = INDEX_MAX as u64 + 1;
    let done = match path.extension().and_then(OsStr::to_str) {
        Some("gz") => flate2::read::MultiGzDecoder::new(packed.as_slice()).take(limit).read_to_end(&mut bytes),
        Some("xz") => {
            liblzma::read::XzDecoder::new_multi_decoder(packed.as_slice()).take(limit).read_to_end(&mut bytes)
        }
        Some(_) | None => return Ok((packed, sha256)),
    };
    done.map_err(|source| Error::Read { path: path.into(), source })?;
    Ok((bytes, sha256))
}

/// Reads the text of apt's `Packages`, of the repository in a folder.
///
/// # Errors
/// Words, when a package lacks what names it, or names a file outside.
pub fn packages(text: &str, root: &Path) -> Result<Vec<Entry>, String> {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let entry = |paragraph: &str| {
        let [name, version, arch, file] = fields(paragraph)?;
        Ok(Entry { file: below(root, file)?, wanted: Some([name, version, arch].map(str::to_owned)) })
    };
    few(paragraphs.map(entry))
}

/// Collects entries, as many as fit into memory.
fn few(entries: impl Iterator<Item = Result<Entry, String>>) -> Result<Vec<Entry>, String> {
    let entries: Vec<Entry> = entries.take(ENTRIES_MAX + 1).collect::<Result<_, _>>()?;
    if entries.len() > ENTRIES_MAX { Err(too_many()) } else { Ok(entries) }
}

fn too_many() -> String {
    format!("it names more than {ENTRIES_MAX} packages: check its parts one after the other")
}

/// The fields of a package in apt's index that are read here.
const FIELDS: [&str; 4] = ["Package", "Version", "Architecture", "Filename"];

/// Finds them in a paragraph; each stands once, however it is written.
fn fields(paragraph: &str) -> Result<[&str; 4], String> {
    let mut found = [None; 4];
    for (name, value) in paragraph.lines().filter_map(|line| line.split_once(':')) {
        if let Some(at) = FIELDS.iter().position(|field| field.eq_ignore_ascii_case(name))
            && found[at].replace(value.trim()).is_some()
        {
            return Err(format!("a package has the field {} twice", FIELDS[at]));
        }
    }
    let lacks = |at: usize| format!("a package has no field {}", FIELDS[at]);
    let field = |at: usize| found[at].ok_or_else(|| lacks(at));
    Ok([field(0)?, field(1)?, field(2)?, field(3)?])
}

fn below(root: &Path, path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let path: RelativePath = path.parse().map_err(|e: protocol::words::WordError| e.to_string())?;
    Ok(root.join(path.as_str()))
}

fn rpm(root: &Path, known: &mut Indexes) -> Result<Vec<Entry>, Error> {
    let path = root.join("repodata/repomd.xml");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = dnf_text(&path, known)?;
    let places = dnf::indexes_of(&text).map_err(|why| Error::Form { path: path.clone(), why })?;
    let mut index = |place: &str| -> Result<(PathBuf, String), Error> {
        let malformed = |why: String| Error::Form { path: path.clone(), why };
        let index = below(root, place).map_err(malformed)?;
        if index.extension() != Some(OsStr::new("gz")) {
            return Err(malformed(format!("{place} is not packed by gzip, which alone is read here")));
        }
        let text = dnf_text(&index, known)?;
        Ok((index, text))
    };
    for list in &places.lists {
        let (path, text) = index(list)?;
        dnf::only_lists(&text).map_err(|why| Error::Form { path, why })?;
    }
    let (path, text) = index(&places.primary)?;
    dnf::primary_packages(&text, root).map_err(|why| Error::Form { path, why })
}

/// Reads an index of dnf's.
fn dnf_text(path: &Path, known: &mut Indexes) -> Result<String, Error> {
    let (bytes, sha256) = unpacked(path)?;
    known.insert(path.to_owned(), sha256);
    let malformed = |why: String| Error::Form { path: path.to_owned(), why };
    if bytes.len() > INDEX_MAX {
        return Err(malformed(format!("it is larger than {INDEX_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))
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

/// What lies in a folder.
#[derive(Debug, Default)]
struct Found {
    packages: Vec<Entry>,
    /// `Release` and `InRelease`, which name apt's indexes by their hashes.
    releases: Vec<PathBuf>,
    /// What apt would take for an index that has this hash.
    by_hash: Vec<PathBuf>,
}

impl Found {
    /// Refuses an index that apt finds by its hash alone and that says something else than those which were read.
    fn by_hash_is_read(&self, known: &Indexes) -> Result<(), Error> {
        if self.by_hash.is_empty() {
            return Ok(());
        }
        let mut listed = BTreeSet::new();
        for path in &self.releases {
            let text = String::from_utf8_lossy(&read(path, RELEASE_MAX)?).into_owned();
            // apt parts words at fewer of them.
            if text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
                let why = "it has control characters, of which others make something else".to_owned();
                return Err(Error::Form { path: path.clone(), why });
            }
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            listed.extend(words.windows(3).filter_map(listed_index).map(str::to_ascii_lowercase));
        }
        let known: BTreeSet<&Sha256> = known.values().collect();
        let hash = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        for path in self.by_hash.iter().filter(|path| listed.contains(&hash(path))) {
            // Whatever hash it is called by, it may be one of those that were read.
            if !known.contains(&Sha256::of(&read(path, INDEX_MAX)?)) {
                let why = "apt reads it as an index, and it is none of those that were read here".to_owned();
                return Err(Error::Form { path: path.clone(), why });
            }
        }
        Ok(())
    }
}

/// Gives the hash where three words of `Release` name an index of packages: apt reads them three by three, whatever line they stand on.
fn listed_index<'a>(words: &[&'a str]) -> Option<&'a str> {
    let [hash, _size, path] = words else { return None };
    let name = path.rsplit('/').next()?;
    (name == "Packages" || name.starts_with("Packages.")).then_some(hash)
}

fn walk(folder: &Path, (depth, known): (usize, &Indexes), found: &mut Found) -> Result<(), Error> {
    for path in listed(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let package = [".deb", ".udeb", ".rpm"].iter().any(|end| name.ends_with(end)) && !name.ends_with(".src.rpm");
        let kind = fs::symlink_metadata(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let is_called_index = name == "Packages" || name.starts_with("Packages.") || name == "repomd.xml";
        // Repositories of RPMs have them in a folder of that name; in `Packages.diff` are changes, which apt may apply.
        let index = is_called_index && !(kind.is_dir() && name == "Packages");
        let unread = |why: &str| Err(Error::Form { path: path.clone(), why: why.to_owned() });
        if kind.is_symlink() && path.is_dir() {
            return unread("a link to a folder is not followed, and what lies behind it was not checked");
        }
        if kind.is_dir() && depth == 0 {
            return unread("what lies so deep was not checked");
        }
        if index && !known.contains_key(&path) {
            return unread(
                "it is an index of a kind or in a place that is not read here: name the folder that it is of",
            );
        }
        if kind.is_dir() {
            walk(&path, (depth - 1, known), found)?;
        } else if package {
            found.packages.push(Entry { file: path, wanted: None });
        } else if name == "Release" || name == "InRelease" {
            found.releases.push(path);
        } else if path.ancestors().nth(2).is_some_and(|above| above.ends_with("by-hash")) {
            found.by_hash.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        dnf::tests::{OTHER, PRIMARY, REPOMD},
        *,
    };

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
    const HIDDEN: &str = "dists/main/main/binary-amd64/by-hash/SHA512/ab12";

    fn release(hash: &str) -> Vec<u8> {
        format!("SHA512:\n {hash} 7 main/binary-amd64/Packages.zst\n").into_bytes()
    }

    #[test]
    fn indexes_of_both_kinds_are_read() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), "dists/main/main/binary-amd64/Packages", PACKAGES.as_bytes());
        lay(dir.path(), "dists/main/main/binary-arm64/Packages.gz", &gz(PACKAGES));
        lay(dir.path(), "repodata/repomd.xml", REPOMD.as_bytes());
        lay(dir.path(), "repodata/p.xml.gz", &gz(PRIMARY));
        lay(dir.path(), "repodata/o.xml.gz", &gz(OTHER));
        let found = entries(dir.path()).unwrap();
        let wanted = |entry: &Entry| entry.identity().unwrap().unwrap().to_string();
        assert_eq!(found.iter().map(wanted).collect::<Vec<_>>(), ["Answer 3:1.2-1 amd64", "tiny 1:2 all"]);
        assert_eq!(found[1].file, dir.path().join("pool/tiny_2_all.deb"));
    }

    #[test]
    fn a_folder_without_index_is_what_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Packages/x.deb", "Packages/x.deb.intoto.jsonl", "y.rpm", "y.src.rpm", "z.txt"] {
            lay(dir.path(), name, b"x");
        }
        let names = entries(dir.path()).unwrap().into_iter().map(|e| e.file.file_name().unwrap().to_owned());
        assert_eq!(names.collect::<Vec<_>>(), ["x.deb", "y.rpm"]);
    }

    type Files<'a> = Vec<(&'a str, Vec<u8>)>;

    fn is_refused(why: &str, files: Files<'_>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in &files {
            lay(dir.path(), &format!("{path}{}", if path.ends_with('/') { "x" } else { "" }), bytes);
        }
        let words = entries(dir.path()).unwrap_err().words();
        assert!(words.contains(why), "{why}: {words}");
    }

    /// What dnf would find, and this program does not, must not look proven.
    #[test]
    fn what_is_not_read_of_dnfs_is_said() {
        let of = |repomd: &str, other: &str, primary: &str| {
            vec![
                ("repodata/repomd.xml", repomd.into()),
                ("repodata/o.xml.gz", gz(other)),
                ("repodata/p.xml.gz", gz(primary)),
            ]
        };
        is_refused("as such indexes", of(REPOMD, OTHER, &format!("{PRIMARY}<package\ntype=\"rpm\"></package>")));
        is_refused("as such indexes", of(REPOMD, PRIMARY, PRIMARY));
        is_refused("of the kind \"primary_zck\"", of(&REPOMD.replace("other", "primary_zck"), OTHER, PRIMARY));
        is_refused("not packed by gzip", of(&REPOMD.replace("o.xml.gz", "o.xml.zst"), OTHER, PRIMARY));
    }

    /// What apt would find, and this program does not, must not look proven.
    #[test]
    fn what_is_not_read_is_said() {
        let index = "dists/main/main/binary-amd64/Packages";
        let xz = |text: &str| {
            let mut bytes = Vec::new();
            liblzma::read::XzEncoder::new(text.as_bytes(), 1).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let other = PACKAGES.replace("tiny_2", "other_2");
        let deep = "deep/".repeat(DEPTH_MAX + 2);
        let refused: Vec<(&str, Files<'_>)> = vec![
            (
                "something else",
                vec![(index, PACKAGES.into()), ("dists/main/main/binary-amd64/Packages.gz", gz(&other))],
            ),
            (
                "something else",
                vec![(index, PACKAGES.into()), ("dists/main/main/binary-amd64/Packages.xz", xz(&other))],
            ),
            ("not read here", vec![(index, PACKAGES.into()), ("dists/main/main/binary-amd64/Packages.zst", vec![1])]),
            ("not read here", vec![("flat/Packages", PACKAGES.into())]),
            ("not read here", vec![("dists/a/b/main/binary-amd64/Packages.gz", gz(PACKAGES))]),
            ("ends of lines", vec![(index, PACKAGES.replace("\n\n", "\n\r\n").into())]),
            (
                "Filename twice",
                vec![(index, PACKAGES.replace("Description", "filename:pool/other.deb\nDescription").into())],
            ),
            (
                "not read here",
                vec![(index, PACKAGES.into()), ("dists/main/main/binary-amd64/Packages.diff/Index", vec![])],
            ),
            ("not checked", vec![(deep.as_str(), vec![])]),
            (
                "none of those that were read",
                vec![(index, PACKAGES.into()), (HIDDEN, vec![1]), ("dists/main/InRelease", release("AB12"))],
            ),
        ];
        refused.into_iter().for_each(|(why, files)| is_refused(why, files));
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), "a/x.deb", b"x");
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert!(entries(dir.path()).unwrap_err().words().contains("link to a folder"));
        let (dir, same) = (tempfile::tempdir().unwrap(), "dists/main/main/binary-amd64/Packages.xz");
        lay(dir.path(), same, &xz(&PACKAGES.replace("Filename: ", "filename:")));
        assert_eq!(entries(dir.path()).unwrap()[0].file, dir.path().join("pool/tiny_2_all.deb"));
    }

    /// What apt finds by its hash alone, as `Release` names it.
    #[test]
    fn what_lies_there_by_its_hash_is_one_of_those_that_were_read() {
        let index = "dists/main/main/binary-amd64/Packages";
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), index, PACKAGES.as_bytes());
        lay(dir.path(), HIDDEN, b"of an earlier generation");
        lay(dir.path(), "dists/main/Release", &release("cd34"));
        assert_eq!(entries(dir.path()).unwrap().len(), 1, "nobody finds what no Release names");
        let of_two = b"SHA512: cd34 7 main/binary-amd64/Packages.xz ab12 7 main/binary-amd64/Packages.zst\n";
        let of_apt = b"SHA512:\n ab12 7\x0cX main/binary-amd64/Packages.zst\n";
        for release in [&release("ab12")[..], b"SHA512: ab12 7 main/binary-amd64/Packages.zst\n", of_two, of_apt] {
            lay(dir.path(), "dists/main/Release", release);
            assert!(entries(dir.path()).is_err(), "{}", String::from_utf8_lossy(release));
        }
        lay(dir.path(), "dists/main/Release", &release("ab12"));
        lay(dir.path(), HIDDEN, PACKAGES.as_bytes());
        assert_eq!(entries(dir.path()).unwrap().len(), 1, "it is the index that was read");
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
