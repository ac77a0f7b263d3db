//! Headers that no rpmbuild writes: whatever they hold, dnf reads text, or the package is refused.

use std::{collections::BTreeMap, process::Command};

use proptest::{
    prelude::any,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use protocol::{Hash, Timestamp};

use super::*;

/// What rpmbuild 4.18 made; its lead and signature header stand before ours.
const UNSIGNED: &[u8] = include_bytes!("../../../../../fixtures/rpm/unsigned.rpm");

/// Types of values.
const INT16: u32 = 3;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;

/// A header in the making: type, count and bytes by tag.
#[derive(Clone)]
struct Made(BTreeMap<u32, (u32, usize, Vec<u8>)>);

impl Made {
    /// One that may enter.
    fn good() -> Self {
        let mut made = Made(BTreeMap::new());
        for (tag, text) in [(tag::NAME, "xy"), (tag::VERSION, "1"), (tag::RELEASE, "1"), (tag::ARCH, "noarch")] {
            made.text(tag, text.as_bytes());
        }
        made.text(tag::SOURCE_RPM, b"xy-1-1.src.rpm");
        made
    }

    fn text(&mut self, tag: u32, text: &[u8]) {
        self.0.insert(tag, (STRING, 1, [text, b"\0"].concat()));
    }

    fn texts<T: AsRef<[u8]>>(&mut self, tag: u32, texts: &[T]) {
        let bytes = texts.iter().flat_map(|text| [text.as_ref(), b"\0"].concat()).collect();
        self.0.insert(tag, (STRINGS, texts.len(), bytes));
    }

    fn numbers(&mut self, tag: u32, kind: u32, count: usize, value: u32) {
        let bytes = if kind == INT16 { value.to_be_bytes()[2..].to_vec() } else { value.to_be_bytes().to_vec() };
        self.0.insert(tag, (kind, count, bytes.repeat(count)));
    }

    /// Adds files below `/x/`.
    fn files<T: AsRef<[u8]>>(&mut self, names: &[T]) {
        self.texts(tag::BASE_NAMES, names);
        self.texts(tag::DIRECTORIES, &["/x/"]);
        self.numbers(tag::DIRECTORY_OF, INT32, names.len(), 0);
        self.numbers(tag::FILE_MODES, INT16, names.len(), 0o100_644);
        self.numbers(tag::FILE_FLAGS, INT32, names.len(), 0);
    }

    /// Adds relations without versions of the kind at `place`.
    fn relations<T: AsRef<[u8]>>(&mut self, place: usize, names: &[T]) {
        let (_, [name, flags, version]) = RELATIONS[place];
        self.texts(name, names);
        self.numbers(flags, INT32, names.len(), 0);
        self.texts(version, &vec![""; names.len()]);
    }

    fn changes<T: AsRef<[u8]>>(&mut self, changes: &[T]) {
        self.texts(tag::CHANGE_NAMES, changes);
        self.texts(tag::CHANGE_TEXTS, changes);
        self.numbers(tag::CHANGE_TIMES, INT32, changes.len(), 7);
    }

    fn bytes(&self) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for (tag, (kind, count, bytes)) in &self.0 {
            let width = if *kind == INT32 { 4 } else { usize::from(*kind == INT16) + 1 };
            data.resize(data.len().next_multiple_of(width), 0);
            let fields = [*tag, *kind, u32::try_from(data.len()).unwrap(), u32::try_from(*count).unwrap()];
            index.extend(fields.map(u32::to_be_bytes).concat());
            data.extend(bytes);
        }
        let before = form::signature_size(UNSIGNED).unwrap();
        let counts = [self.0.len(), data.len()].map(|count| u32::try_from(count).unwrap().to_be_bytes());
        [&UNSIGNED[..before], &[0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0], &counts.concat(), &index, &data].concat()
    }

    fn package(&self) -> Result<Package, String> {
        package(form::front(&self.bytes()).map_err(|e| e.to_string())?)
    }
}

fn refused(change: impl FnOnce(&mut Made)) -> String {
    let mut made = Made::good();
    change(&mut made);
    made.package().unwrap_err()
}

#[test]
fn what_may_be_missing_may_be_missing() {
    let package = Made::good().package().unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str(), package.arch), ("xy", "1-1", Arch::All));
}

#[test]
fn lists_are_counted_before_they_are_read() {
    let many = vec!["y"; ENTRIES_MAX + 1];
    assert!(refused(|made| made.files(&many)).contains("over 500000 files"));
    assert!(refused(|made| made.relations(0, &many)).contains("over 500000 provides"));
    assert!(refused(|made| made.changes(&many)).contains("over 500000 changes"));
    assert!(refused(|made| made.texts(tag::DIRECTORIES, &many)).contains("directories"));
    // A count that the data does not have.
    for (kind, data) in [(STRINGS, b"y\0".as_slice()), (INT32, b"0123")] {
        let why = refused(|made| drop(made.0.insert(tag::BASE_NAMES, (kind, 0xffff_ffff, data.to_vec()))));
        assert!(why.contains("malformed"), "{why}");
    }
}

#[test]
fn lists_that_belong_together_have_one_length() {
    let why = refused(|made| {
        made.files(&["a", "b"]);
        made.numbers(tag::FILE_MODES, INT16, 1, 0);
    });
    assert!(why.contains("lists of files have different lengths: [2, 2, 1, 2]"), "{why}");
    let why = refused(|made| {
        made.relations(1, &["a", "b"]);
        made.texts(RELATIONS[1].1[2], &["1"]);
    });
    assert!(why.contains("lists of requires"), "{why}");
    let why = refused(|made| {
        made.files(&["a"]);
        made.numbers(tag::DIRECTORY_OF, INT32, 1, 1);
    });
    assert!(why.contains("none of its 1 directories"), "{why}");
}

#[test]
fn texts_that_are_none_are_refused() {
    let bad = b"caf\xe9".as_slice();
    for tag in ALONE {
        assert!(refused(|made| made.text(tag, bad)).contains("UTF-8"));
        assert!(refused(|made| made.numbers(tag, INT32, 1, 5)).contains("not a text"));
    }
    assert!(refused(|made| made.files(&[bad])).contains("UTF-8"));
    assert!(refused(|made| made.changes(&[bad])).contains("UTF-8"));
    (0..RELATIONS.len()).for_each(|place| assert!(refused(|made| made.relations(place, &[bad])).contains("UTF-8")));
    assert!(refused(|made| made.text(tag::NAME, bad)).contains("no name"));
    assert!(refused(|made| made.text(tag::NAME, b"<x>")).contains("<x>"));
    let long = vec![b'"'; TEXT_MAX + 1];
    assert!(refused(|made| made.text(tag::DESCRIPTION, &long)).contains("at most 1048576"));
    assert!(refused(|made| made.changes(&[&long])).contains("at most 1048576"));
}

/// Gives what a reader of XML has to get back.
fn shown(text: &str) -> String {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

/// An element's name, attributes and text.
type Element = (String, BTreeMap<String, String>, String);

/// Reads the metadata of a package with Python's reader: every element, in order.
fn read_back(package: &Package) -> Option<Vec<Element>> {
    let file = ReleaseFile {
        hash: Hash::of(b"x"),
        path: "pool/main/x/xy/xy-1-1.noarch.rpm".parse().unwrap(),
        size: 1,
        sha256: Sha256::of(b"x"),
    };
    let entry = package.entry(file.sha256, &file);
    let folder = tempfile::tempdir().unwrap();
    let files = super::super::metadata::generate(&[&entry], Timestamp::from_millis(0));
    for (at, (_, bytes)) in files.iter().enumerate().take(3) {
        std::fs::write(folder.path().join(at.to_string()), bytes).unwrap();
    }
    let script = "import sys,gzip,json,xml.etree.ElementTree as E\n\
        print(json.dumps([(e.tag.split('}')[-1],e.attrib,e.text or '') for n in '012' \
        for e in E.fromstring(gzip.open(sys.argv[1]+'/'+n).read()).iter()]))";
    let out = Command::new("python3").args(["-c", script]).arg(folder.path()).output().ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(serde_json::from_slice(&out.stdout).unwrap())
}

#[test]
fn hostile_texts_stay_texts() {
    let mut runner = TestRunner::deterministic();
    let made = any::<String>().prop_map(|text| text.replace('\0', ""));
    let evil = "</description><package>&lt;]]>\"'\u{1}\u{7f}\u{85}\u{fffe}\u{2028}\r\n\t<!-- 𝄞";
    let generated = std::iter::repeat_with(|| made.new_tree(&mut runner).unwrap().current());
    let texts: Vec<String> = std::iter::once(evil.to_owned()).chain(generated.take(200)).collect();
    let mut header = Made::good();
    ALONE.iter().for_each(|tag| header.text(*tag, evil.as_bytes()));
    header.files(&texts);
    header.relations(0, &texts);
    header.changes(&texts[..CHANGES_MAX]);
    let Some(elements) = read_back(&header.package().unwrap()) else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let of = |name: &'static str| elements.iter().filter(move |(tag, _, _)| tag == name);
    for name in ["summary", "description", "packager", "url", "license", "vendor", "group", "buildhost"] {
        let [(_, _, text)] = of(name).collect::<Vec<_>>()[..] else { panic!("not one {name}") };
        assert_eq!(*text, shown(evil), "{name}");
    }
    let files: Vec<&String> = of("file").map(|(_, _, text)| text).collect();
    // Those of `filelists.xml` come last; `primary.xml` has some of them before.
    let paths: Vec<String> = texts.iter().map(|name| format!("/x/{}", shown(name))).collect();
    assert_eq!(files[files.len() - texts.len()..], paths.iter().collect::<Vec<_>>()[..]);
    let names: BTreeSet<&String> = of("entry").map(|(_, attributes, _)| &attributes["name"]).collect();
    assert_eq!(names, texts.iter().map(|text| shown(text)).collect::<Vec<_>>().iter().collect());
    let changes: Vec<_> = of("changelog").map(|(_, with, text)| (with["author"].clone(), text.clone())).collect();
    let told = texts[..CHANGES_MAX].iter().rev().map(|text| (shown(text), shown(text)));
    assert_eq!(changes, told.collect::<Vec<_>>());
    assert_eq!((of("package").count(), of("name").count()), (3, 1), "nothing came beside the package");
}
