//! What dnf finds in a repository: `repomd.xml`, and the primary index that it names.
//!
//! Readers of XML differ in what they make of what is rare: an instruction, another encoding, a prefix. An index that has such things, or
//! says a thing twice or in another place than writers of such files do, is refused, since dnf might find something else in it.

use std::{collections::BTreeMap, path::Path};

use protocol::Arch;
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::{ENTRIES_MAX, Entry, below, too_many};

/// Elements that say which packages there are, each with the depth at which it says so.
const READ: [(&str, usize); 6] =
    [("data", 1), ("package", 1), ("location", 2), ("name", 2), ("arch", 2), ("version", 2)];

/// The kinds of indexes that are read.
const KINDS: [&str; 3] = ["primary", "filelists", "other"];
/// How deep elements may lie in each other, and how long the beginning of one that is read may be, in bytes: many times those of such
/// files.
const DEPTH_MAX: usize = 16;
const TAG_MAX: usize = 64 << 10;

/// Why an index is refused.
fn unread() -> String {
    "it is not written as such indexes are".into()
}

/// Where the indexes of a repository lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The index that says which packages there are.
    pub primary: String,
    /// Those that only say more of them: which files they have, and what was changed.
    pub lists: Vec<String>,
}

/// Gives where the indexes lie, by the text of `repomd.xml`.
///
/// # Errors
/// Words, where there is an index of another kind (of those that begin with `primary` dnf likes some better), or the same one twice, or
/// the text is not written as such files are.
pub fn indexes_of(text: &str) -> Result<Places, String> {
    let (mut found, mut inside) = (BTreeMap::new(), None);
    let mut elements = Elements::of(text, &["repomd"], &[])?;
    while let Some(step) = elements.next()? {
        match step {
            Step::Begin("data", element) => {
                let kind = element.only("type").ok_or_else(unread)?;
                let known = KINDS.into_iter().find(|known| *known == kind).ok_or_else(|| {
                    format!("it names an index of the kind {kind:?}, and none but {} are read here", KINDS.join(", "))
                })?;
                inside = Some(known);
            }
            Step::Begin("location", element) => {
                let place = element.place().ok_or_else(unread)?;
                if found.insert(inside.ok_or_else(unread)?, place).is_some() {
                    return Err(unread());
                }
            }
            Step::End("data") => inside = None,
            Step::End(_) | Step::Text(_) => {}
            Step::Begin(..) => return Err(unread()),
        }
    }
    let primary = found.remove("primary").ok_or("it names no primary index")?;
    Ok(Places { primary, lists: found.into_values().collect() })
}

/// Checks that an index only says more of packages: dnf reads all of them with the same reader, and would take packages, and places of
/// packages, out of each.
///
/// # Errors
/// Words, when it says anything else.
pub fn only_lists(text: &str) -> Result<(), String> {
    let mut elements = Elements::of(text, &["filelists", "otherdata"], &["file", "changelog"])?;
    while let Some(step) = elements.next()? {
        let is_fine = match step {
            Step::Begin("package", element) => element.only("pkgid").is_some(),
            Step::Begin(name, _) => name == "version",
            Step::End(_) | Step::Text(_) => true,
        };
        if !is_fine {
            return Err(unread());
        }
    }
    Ok(())
}

/// Reads the text of a primary index, of the repository in a folder.
///
/// # Errors
/// Words, when a package lacks what names it, or names a file outside.
pub fn primary_packages(text: &str, root: &Path) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut package: Option<Package> = None;
    let mut elements = Elements::of(text, &["metadata"], &[])?;
    while let Some(step) = elements.next()? {
        match step {
            // With a `pkgid` it would be more of another one.
            Step::Begin("package", element) if package.is_none() && element.only("pkgid").is_none() => {
                package = Some(Package::default());
            }
            Step::Begin(name, element) => {
                package.as_mut().and_then(|package| package.take(name, element)).ok_or_else(unread)?;
            }
            Step::Text(text) => package.iter_mut().for_each(|package| package.text(&text)),
            Step::End("package") => {
                let (href, wanted) = package.take().and_then(Package::named).ok_or_else(lacking)?;
                entries.push(Entry { file: below(root, &href)?, wanted: Some(wanted) });
                if entries.len() > ENTRIES_MAX {
                    return Err(too_many());
                }
            }
            Step::End(_) => package.iter_mut().for_each(|package| package.open = None),
        }
    }
    Ok(entries)
}

fn lacking() -> String {
    format!("a package lacks what names it, or {}", unread())
}

/// What is known of a package so far.
#[derive(Debug, Default)]
struct Package {
    /// The element whose text is being read.
    open: Option<&'static str>,
    name: Option<String>,
    arch: Option<String>,
    version: Option<Element>,
    place: Option<String>,
}

impl Package {
    /// Takes the beginning of an element; none where it was there before, or says something else, too.
    fn take(&mut self, of: &'static str, element: Element) -> Option<()> {
        let before = match of {
            "name" => self.name.replace(String::new()).map(drop),
            "arch" => self.arch.replace(String::new()).map(drop),
            "version" => self.version.replace(element).map(drop),
            "location" => self.place.replace(element.place()?).map(drop),
            _ => Some(()),
        };
        self.open = Some(of);
        before.is_none().then_some(())
    }

    fn text(&mut self, text: &str) {
        let into = match self.open {
            Some("name") => self.name.as_mut(),
            Some("arch") => self.arch.as_mut(),
            Some(_) | None => None,
        };
        into.into_iter().for_each(|into| into.push_str(text));
    }

    /// Gives where the package lies, and what it is.
    fn named(self) -> Option<(String, [String; 3])> {
        let version = self.version?;
        let plain = format!("{}-{}", version.only("ver")?, version.only("rel")?);
        let version = match version.only("epoch") {
            None | Some("0") => plain,
            Some(epoch) => format!("{epoch}:{plain}"),
        };
        let arch = Arch::from_rpm_name(&self.arch?).map(|arch| arch.to_string());
        Some((self.place?, [self.name?, version, arch.unwrap_or_default()]))
    }
}

/// The attributes of an element, each once.
#[derive(Debug)]
struct Element {
    attributes: Vec<(String, String)>,
}

impl Element {
    /// Reads the attributes; none where one stands twice, or has to be decoded.
    fn of(start: &BytesStart<'_>) -> Option<Self> {
        let attributes = start.attributes().map(|attribute| {
            let attribute = attribute.ok()?;
            let is_plain = !attribute.value.contains(|c: char| c == '&' || c.is_control());
            is_plain.then(|| (attribute.key.as_ref().to_owned(), attribute.value.into_owned()))
        });
        Some(Self { attributes: attributes.collect::<Option<_>>()? })
    }

    /// Gives the place that it names and nothing else: another attribute might say where that is relative to (`xml:base`).
    fn place(self) -> Option<String> {
        let [(name, href)] = <[_; 1]>::try_from(self.attributes).ok()?;
        (name == "href").then_some(href)
    }

    fn only(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// What comes next in an index.
enum Step {
    /// One of [`READ`].
    Begin(&'static str, Element),
    /// Its end.
    End(&'static str),
    /// Text in one that has no others in it.
    Text(String),
}

/// The parts of an index that are read, one after the other.
struct Elements<'a> {
    reader: Reader<&'a [u8]>,
    /// What the element may be called that has all others in it.
    roots: &'static [&'static str],
    /// The other elements that may be there; any where there are none.
    others: &'static [&'static str],
    /// Elements that are open.
    depth: usize,
    /// Whether the innermost of them says something itself: a name, a place.
    leaf: bool,
}

impl<'a> Elements<'a> {
    fn of(text: &'a str, roots: &'static [&'static str], others: &'static [&'static str]) -> Result<Self, String> {
        // Without a declaration some encodings are told by their first bytes; each of those has a zero, or begins otherwise. What such
        // files never have is not even looked through.
        let is_rare = text.contains('\0') || text.contains("<!") || text.rfind("<?").is_some_and(|at| at > 0);
        if !text.starts_with('<') || is_rare {
            return Err(unread());
        }
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, roots, others, depth: 0, leaf: false })
    }

    fn next(&mut self) -> Result<Option<Step>, String> {
        loop {
            let first = self.reader.buffer_position() == 0;
            match self.reader.read_event().map_err(|error| format!("{}: {error}", unread()))? {
                Event::Start(start) => {
                    let known = known(start.local_name().as_ref());
                    let misplaced = |(name, depth)| start.name().as_ref() != name || self.depth != depth;
                    let is_other = match self.depth {
                        0 => self.roots.contains(&start.name().as_ref()),
                        _ => self.others.is_empty() || self.others.contains(&start.name().as_ref()),
                    };
                    let is_huge = self.depth == DEPTH_MAX || known.is_some() && start.len() > TAG_MAX;
                    if self.leaf || is_huge || !known.map_or(is_other, |known| !misplaced(known)) {
                        return Err(unread());
                    }
                    self.depth += 1;
                    if let Some((name, depth)) = known {
                        self.leaf = depth > 1;
                        return Ok(Some(Step::Begin(name, Element::of(&start).ok_or_else(unread)?)));
                    }
                }
                Event::End(end) => {
                    (self.depth, self.leaf) = (self.depth.checked_sub(1).ok_or_else(unread)?, false);
                    if let Some((name, _)) = known(end.local_name().as_ref()) {
                        return Ok(Some(Step::End(name)));
                    }
                }
                Event::Text(text) if self.leaf => return Ok(Some(Step::Text(text.to_string()))),
                Event::GeneralRef(_) if self.leaf => return Err(unread()),
                Event::Text(_) | Event::GeneralRef(_) => {}
                Event::Decl(decl) if first => {
                    let encoding = decl.encoding().transpose().map_err(|_| unread())?;
                    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("utf-8")) {
                        return Err(unread());
                    }
                }
                Event::Eof if self.depth == 0 => return Ok(None),
                Event::Eof
                | Event::Empty(_)
                | Event::Decl(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::PI(_)
                | Event::DocType(_) => return Err(unread()),
            }
        }
    }
}

fn known(name: &str) -> Option<(&'static str, usize)> {
    READ.into_iter().find(|(known, _)| *known == name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::archive) const OTHER: &str =
        "<otherdata><package pkgid=\"ab\"><version/><changelog author=\"a\">b &lt;</changelog></package></otherdata>";
    pub(in crate::archive) const REPOMD: &str = "<repomd>\n<data type=\"other\">\n<location href=\"repodata/o.xml.gz\"/></data>\n  <data type=\"primary\">\n\
                              <location href=\"repodata/p.xml.gz\"/>\n</data></repomd>";
    pub(in crate::archive) const PRIMARY: &str = "<metadata packages=\"1\">\n<package type=\"rpm\"><name>Answer</name><arch>x86_64</arch>\
                               <version epoch=\"3\" ver=\"1.2\" rel=\"1\"/><location href=\"pool/Answer.rpm\"/></package></metadata>";
    const PLACE: &str = "<location href=\"pool/Answer.rpm\"/>";

    /// What another reader of XML takes for the place of a package is what is read here, or nothing is.
    #[test]
    fn places_in_dnfs_index_are_read_in_one_way() {
        let root = Path::new("/r");
        let known = primary_packages(PRIMARY, root).unwrap();
        assert_eq!(known[0].file, root.join("pool/Answer.rpm"));
        let declared = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{PRIMARY}");
        let long = PRIMARY.replace(PLACE, "<location\nhref='pool/Answer.rpm'></location><summary>a &lt; b</summary>");
        for same in [declared.as_str(), long.as_str()] {
            assert_eq!(primary_packages(same, root).unwrap(), known, "{same}");
        }
        for other in [
            "<location xhref=\"pool/Answer.rpm\" href=\"pool/evil.bin\"/>",
            "<location xml:base=\"http://evil.example/\" href=\"pool/Answer.rpm\"/>",
            "<location x=' href=\"pool/Answer.rpm\"' href=\"pool/evil.bin\"/>",
            "<location href=\"pool/Answer.rpm\"/><location href=\"pool/evil.bin\"/>",
            "<format><location href=\"pool/Answer.rpm\"/></format><location\nhref=\"pool/evil.bin\"/>",
            "<location href=\"pool/&#65;nswer.rpm\"/>",
            "<?x <location href=\"pool/Answer.rpm\"/></package> ?><location href=\"pool/evil.bin\"/>",
            "<!-- <location href=\"pool/Answer.rpm\"/></package> --><location href=\"pool/evil.bin\"/>",
            "<![CDATA[<location href=\"pool/Answer.rpm\"/></package>]]><location href=\"pool/evil.bin\"/>",
            "<x:location href=\"pool/Answer.rpm\"/>",
            "",
        ] {
            let why = primary_packages(&PRIMARY.replace(PLACE, other), root).unwrap_err();
            assert!(why.contains("as such indexes are"), "{other}: {why}");
        }
        for (from, to) in [
            ("<arch>", "<arch>noarch</arch><arch>"),
            ("<name>Answer", "<name>An<b>sw</b>er"),
            ("<name>Answer", "<name>An&#115;wer"),
            ("<metadata", "<?xml version=\"1.0\" encoding=\"UTF-7\"?><metadata"),
            ("<metadata", "<!DOCTYPE metadata><metadata"),
            ("<metadata", "\u{feff}<metadata"),
            ("metadata", "otherdata"),
            ("<package", "<package type=\"rpm\"/><package"),
            ("</metadata>", ""),
        ] {
            assert!(primary_packages(&PRIMARY.replace(from, to), root).is_err(), "{to}");
        }
        let wide: String = PRIMARY.chars().flat_map(|c| [c, '\0']).collect();
        assert!(primary_packages(&wide, root).is_err(), "other readers tell UTF-16 by its zeros");
    }

    #[test]
    fn there_is_one_index_of_a_kind() {
        let places = indexes_of(REPOMD).unwrap();
        assert_eq!(
            (places.primary.as_str(), places.lists),
            ("repodata/p.xml.gz", vec!["repodata/o.xml.gz".to_owned()])
        );
        for (from, to) in [
            ("other", "primary"),
            ("other", "primary_db"),
            ("other", "prestodelta"),
            ("<data type=\"other\"", "<data\ntype=\"primary\""),
            ("<location href=\"repodata/p.xml.gz\"/>", ""),
            ("<repomd>", "<?x <data type=\"primary\"><location href=\"repodata/o.xml.gz\"/></data> ?><repomd>"),
            ("</repomd>", "</repomd><location href=\"repodata/o.xml.gz\"/>"),
            ("href=\"repodata/p", "xml:base=\"http://evil.example/\" href=\"repodata/p"),
        ] {
            assert!(indexes_of(&REPOMD.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn what_says_more_of_packages_says_nothing_else() {
        let files = "<filelists packages=\"1\"><package pkgid=\"ab\" name=\"Answer\" arch=\"x86_64\"><version epoch=\"3\" ver=\"1.2\" rel=\"1\"/>\
                     <file type=\"dir\">/usr</file></package></filelists>";
        only_lists(files).unwrap();
        only_lists(OTHER).unwrap();
        for (from, to) in [
            (" pkgid=\"ab\"", ""),
            ("<file ", "<location href=\"pool/evil.bin\"/><file "),
            ("<file ", "<checksum pkgid=\"YES\">cd</checksum><file "),
            ("<file ", "<x:location href=\"pool/evil.bin\"/><file "),
            ("</filelists>", "<patch/></filelists>"),
        ] {
            assert!(only_lists(&files.replace(from, to)).is_err(), "{to}");
        }
        assert!(primary_packages(&PRIMARY.replace("<package ", "<package pkgid=\"ab\" "), Path::new("/r")).is_err());
        let long = PRIMARY.replace("<package ", &format!("<package a=\"{}\" ", "x".repeat(TAG_MAX)));
        let deep = PRIMARY.replace("<name>", &format!("{}<name>", "<a>".repeat(DEPTH_MAX)));
        assert!([long, deep].iter().all(|text| primary_packages(text, Path::new("/r")).is_err()));
    }
}
