//! The rules of the source tree that no compiler checks: where things are named, which crates stay pure, how large files
//! are, and what no file may say. It builds and runs nothing of artel.

mod dependencies;
mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Names that are no part of the sources; in a second work tree `.git` is a file.
const NOT_OURS: [&str; 4] = [".git", "target", ".demo", "node_modules"];
/// Lines of one source file.
const LINES_MAX: usize = 600;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "common", "types", "helpers", "manager", "errors", "prelude", "misc"];
/// Libraries that are named only at home, so that they can be exchanged there.
const HOMES: [(&str, &str); 9] = [
    ("libp2p", "node/src/net"),
    ("openraft", "node/src/consensus"),
    ("redb", "node/src/store"),
    ("iroh", "node/src/blobs"),
    ("iroh_blobs", "node/src/blobs"),
    ("bao_tree", "node/src/blobs"),
    ("pgp", "node/src/publish"),
    ("axum", "web/src"),
    ("askama", "web/src"),
];
/// What a crate that only decides never touches.
const IMPURE: [&str; 10] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "rand",
    "getrandom",
    "async fn",
];

/// One file of the tree.
struct File {
    /// From the root of the workspace.
    path: String,
    text: String,
}

impl File {
    /// The text without the lines that are comments.
    fn code(&self) -> String {
        let comment = |line: &&str| line.trim_start().starts_with("//");
        self.text.lines().filter(|line| !comment(line)).flat_map(|line| [line, "\n"]).collect()
    }

    fn stem(&self) -> &str {
        self.path.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default()
    }

    fn below(&self, home: &str) -> bool {
        let rest = self.path.strip_prefix(home);
        rest.is_some_and(|rest| rest.starts_with('/') || rest.starts_with('.') || rest.is_empty())
    }
}

/// Every text file of the workspace.
struct Tree(Vec<File>);

impl Tree {
    fn read() -> Self {
        let mut files = Vec::new();
        walk(&root(), &mut files);
        let tree = Self(files);
        assert!(tree.rust().count() > 100, "the sources were not found at {}", root().display());
        tree
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.0.iter().filter(|file| file.path.ends_with(".rs"))
    }

    fn file(&self, path: &str) -> &File {
        self.0.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("there is no {path}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn walk(folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let kind = entry.file_type().expect("an entry has a kind");
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            let path = entry.path().strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            files.push(File { path, text });
        }
    }
}

/// Says whether a text has a name, and not only as a part of a longer one.
fn names(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part) && !text[at + name.len()..].chars().next().is_some_and(part)
    })
}

/// Fails with every file that breaks a rule.
fn check(rule: &str, broken: impl Iterator<Item = String>) {
    let broken: Vec<String> = broken.collect();
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn libraries_are_named_only_at_home() {
    let tree = Tree::read();
    for (library, home) in HOMES {
        let path = format!("{library}::");
        let elsewhere = tree.rust().filter(|file| !file.below(home) && !file.below("tests/it/tidy"));
        let named = elsewhere.filter(|file| {
            let code = file.code();
            code.match_indices(&path).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            })
        });
        check(&format!("{library} is named outside {home}"), named.map(|file| file.path.clone()));
        assert!(tree.rust().any(|file| file.below(home) && file.code().contains(&path)), "{library} has left {home}");
    }
}

#[test]
fn crates_that_decide_stay_pure() {
    let tree = Tree::read();
    // Programs and tests around the pure part may look outside.
    let around = ["/bin/", "/tests", "/testing", "/sim/"];
    let beside = |file: &File| around.iter().any(|part| file.path.contains(part));
    let pure = ["protocol/src/", "attest/src/", "node/ledger/src/"];
    let files = tree.rust().filter(|f| pure.iter().any(|p| f.path.starts_with(p)) && !beside(f));
    let impure = files.flat_map(|file| {
        let code = file.code();
        let found = IMPURE.iter().filter(move |word| names(&code, word));
        found.map(|word| format!("{}: {word}", file.path))
    });
    check("time, chance and the outside world are arguments here", impure);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let tree = Tree::read();
    let long = tree.rust().map(|file| (file.text.lines().count(), file)).filter(|(lines, _)| *lines > LINES_MAX);
    check("longer than 600 lines", long.map(|(lines, file)| format!("{}: {lines}", file.path)));
    let silent = tree.rust().filter(|file| !file.text.starts_with("//!"));
    check("a file opens with //! and what it is for", silent.map(|file| file.path.clone()));
}

#[test]
fn modules_have_names_that_say_something() {
    let tree = Tree::read();
    let empty = tree.rust().filter(|file| EMPTY_NAMES.contains(&file.stem()) || file.stem() == "mod");
    check("a module is named after what it does, and lies beside its folder", empty.map(|file| file.path.clone()));
}

#[test]
fn nothing_is_switched_off_or_left_undone() {
    let tree = Tree::read();
    let banned = ["#[allow(", "#![allow(", "todo!", "unimplemented!", "dbg!(", "#[ignore", "tokio::task::spawn("];
    let found = tree.rust().filter(|file| !file.below("tests/it/tidy")).flat_map(|file| {
        let code = file.code();
        let found = banned.iter().filter(move |word| code.contains(**word));
        found.map(|word| format!("{}: {word}", file.path))
    });
    check("expect a lint with a reason, do the work, join the task", found);
}

#[test]
fn every_module_file_is_declared() {
    let tree = Tree::read();
    let forgotten = tree.rust().filter(|file| {
        let (folder, name) = file.path.rsplit_once('/').expect("sources lie in folders");
        let entry = ["lib.rs", "main.rs"].contains(&name) || file.path == "node/build.rs";
        let alone = ["examples", "bin", "benches"].iter().any(|f| folder.ends_with(f))
            || ["attest/tests", "attest/verifier/tests"].contains(&folder);
        if entry || alone {
            return false;
        }
        let parents = [format!("{folder}.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let line = format!("mod {}", file.stem());
        !tree.rust().filter(|f| parents.contains(&f.path)).any(|parent| names(&parent.code(), &line))
    });
    check("no `mod` line names this file, so it is not compiled", forgotten.map(|file| file.path.clone()));
}

#[test]
fn the_ledger_is_held_to_every_rule_of_the_others() {
    let tree = Tree::read();
    let ledger = &tree.file("node/ledger/clippy.toml").text;
    let missing = tree.file(".clippy.toml").text.lines().filter(|line| !ledger.contains(line));
    check("clippy reads only the nearest file, which must repeat", missing.map(str::to_owned));
    assert!(ledger.contains("std::collections::HashMap") && ledger.contains("std::collections::HashSet"));
}
