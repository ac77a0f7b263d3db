//! What sources, recipes and builds say of themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use leaves::{
    build::{explain::quotes, listed},
    recipe::{form::Form, source},
    resolve::{
        buildinfo::Buildinfo,
        source::{read_source, rpm::read_rpm_source},
    },
};
use protocol::job::CommitRecord;
use tempfile::TempDir;

use crate::{Target, limit};

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a folder can be made");
}

/// Lays a file into a folder of this run.
pub(super) fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.with(|folder| folder.path().join(name));
    fs::write(&path, bytes).expect("a file can be written");
    path
}

/// Source packages' `.dsc` files, alone in a folder.
pub const DSC: Target = Target {
    name: "dsc",
    limit: 1 << 20,
    run: |bytes| {
        use leaves::resolve::source::Error;
        // What it names is not there: to have been asked for that it must have been read.
        matches!(
            read_source(&scratch("fuzz.dsc", bytes)),
            Ok(_) | Err(Error::MissingFile { .. } | Error::WrongFile { .. })
        )
    },
};

/// Environments named by `.buildinfo` files.
pub const BUILDINFO: Target = Target {
    name: "buildinfo",
    limit: limit(4 << 20),
    run: |bytes| Buildinfo::read(&scratch("fuzz.buildinfo", bytes)).is_ok(),
};

/// What builds say that they left: `.changes`, and lists of RPMs. Whatever is let in has plain names, each of them once, and says
/// the same when it is written anew.
pub const CHANGES: Target = Target {
    name: "changes",
    limit: limit(4 << 20),
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let (changes, rpms) = (listed::changes(text), listed::rpms(text));
        if let Ok(files) = &changes {
            let lines: String = files.iter().map(|(digest, file)| format!(" {digest} 0 {file}\n")).collect();
            assert_eq!(listed::changes(&format!("Checksums-Sha256:\n{lines}")).as_ref(), Ok(files));
        }
        if let Ok(names) = &rpms {
            let lines: Vec<_> = names.iter().map(ToString::to_string).collect();
            assert_eq!(lines, text.lines().collect::<Vec<_>>());
        }
        let names = changes.iter().flatten().map(|(_, file)| file).chain(rpms.iter().flatten());
        for name in names {
            assert!(Path::new(name.as_str()).components().count() == 1 && !name.as_str().contains('/'), "{name}");
        }
        changes.is_ok() || rpms.is_ok()
    },
};

/// Specs of RPMs, and source RPMs, each alone in a folder.
pub const SPEC: Target = Target {
    name: "spec",
    limit: limit(4 << 20),
    run: |bytes| {
        use leaves::resolve::source::rpm::Error;
        let read = |name| read_rpm_source(&scratch(name, bytes), &["dist .a1".to_owned()]);
        [read("fuzz.spec"), read("fuzz.src.rpm")]
            .iter()
            .any(|read| matches!(read, Ok(_) | Err(Error::MissingFile { .. })))
    },
};

/// Tar files of source packages.
pub const SOURCE_TAR: Target = Target {
    name: "source_tar",
    limit: limit(usize::MAX),
    run: |bytes| {
        let (archive, into) = (scratch("fuzz.tar", bytes), FOLDER.with(|folder| folder.path().join("unpacked")));
        let outside = FOLDER.with(|folder| count(folder.path()));
        fs::create_dir(&into).expect("the folder is not there");
        let read = source::unpack(&archive, &into);
        assert!(count(&into) <= 512, "few files");
        fs::remove_dir_all(&into).expect("what was unpacked can be removed");
        assert_eq!(FOLDER.with(|folder| count(folder.path())), outside, "nothing lies outside");
        read.is_ok()
    },
};

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).expect("the folder is there").count()
}

/// Records of commits, which fetches leave.
pub const COMMIT: Target = Target {
    name: "commit",
    limit: 64 * 1024,
    run: |bytes| {
        let Ok(record) = serde_json::from_slice::<CommitRecord>(bytes) else { return false };
        let written = serde_json::to_vec(&record).expect("a record is plain data");
        assert_eq!(serde_json::from_slice::<CommitRecord>(&written).ok(), Some(record));
        true
    },
};

/// Recipes as their maintainers write them.
pub const FORM: Target = Target {
    name: "form",
    limit: 64 * 1024,
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let Ok(form) = Form::parse(text) else { return false };
        assert_eq!(Form::parse(&form.to_toml()).ok().as_ref(), Some(&form));
        let _ = form.plan();
        true
    },
};

/// What diffoscope says of two builds.
pub const DIFFERENCE: Target = Target {
    name: "difference",
    limit: limit(usize::MAX),
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let told = |host: &str, date: &str| -> BTreeMap<String, String> {
            let told = [("hostname", host), ("date", date), ("build_path", "/build/first"), ("locale", "C.UTF-8")];
            told.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        };
        let (left, right) = (told("artel", "2026-11-21T00:00:00Z"), told("varied-host-1", "2028-01-05T11:00:00Z"));
        let pairs = quotes::read(&text, &left, &right);
        assert!(pairs.len() <= 2000);
        assert!(pairs.iter().all(|pair| pair.left.chars().count() <= 240 && pair.right.chars().count() <= 240));
        !pairs.is_empty()
    },
};
