//! What is linked: the direction of our own crates, the banned versions and the licences of `deny.toml`, and that no
//! manifest names a crate that its sources do not use. `cargo deny` says the same with more words; this needs no tool.

use std::{collections::BTreeMap, process::Command};

use super::{File, Tree};

/// Our crates by folder, each with those of ours that it may use.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("protocol", &[]),
    ("attest", &["protocol"]),
    ("attest/verifier", &["protocol", "attest"]),
    ("node/ledger", &["protocol", "attest"]),
    ("web", &["protocol"]),
    ("node", &["protocol", "attest", "verifier", "ledger", "web"]),
    ("tests", &["protocol", "attest", "verifier", "ledger", "web", "artel"]),
];
const OURS: [&str; 6] = ["protocol", "attest", "verifier", "ledger", "web", "artel"];

#[test]
fn our_crates_depend_in_one_direction() {
    let tree = Tree::read();
    for (folder, allowed) in MAY_USE {
        let found: Vec<_> = dependencies(tree.file(&format!("{folder}/Cargo.toml"))).collect();
        let wrong: Vec<_> = found.iter().filter(|d| OURS.contains(d) && !allowed.contains(d)).collect();
        assert!(wrong.is_empty(), "{folder} must not use {wrong:?}: that is a change of architecture");
    }
}

#[test]
fn every_named_dependency_is_used() {
    let tree = Tree::read();
    for (folder, _) in MAY_USE.into_iter().filter(|(folder, _)| *folder != "tests") {
        let nested = MAY_USE
            .iter()
            .map(|(other, _)| format!("{other}/"))
            .filter(|other| other.starts_with(&format!("{folder}/")) && other.len() > folder.len() + 1);
        let nested: Vec<_> = nested.collect();
        let inside = |file: &&File| {
            file.path.starts_with(&format!("{folder}/")) && !nested.iter().any(|other| file.path.starts_with(other))
        };
        let code: String = tree.rust().filter(inside).map(File::code).collect();
        for dependency in dependencies(tree.file(&format!("{folder}/Cargo.toml"))) {
            let name = dependency.replace('-', "_");
            assert!(super::names(&code, &name), "{folder}/Cargo.toml names {dependency}, which no source there uses");
        }
    }
    let workspace = tree.file("Cargo.toml").text.as_str();
    let table = workspace.split("[workspace.dependencies]").nth(1).expect("the workspace names its dependencies");
    let table = table.split("\n[").next().unwrap_or_default();
    let used: Vec<_> = MAY_USE.iter().flat_map(|(f, _)| dependencies(tree.file(&format!("{f}/Cargo.toml")))).collect();
    for name in table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
        assert!(used.contains(&name), "the workspace names {name}, which no crate uses");
    }
}

/// The crates that a manifest names, for the program and for its tests.
fn dependencies(manifest: &File) -> impl Iterator<Item = &str> {
    manifest
        .text
        .lines()
        .filter_map(|line| line.strip_suffix(".workspace = true"))
        .filter(|name| !["version", "edition", "rust-version", "license", "repository"].contains(name))
}

#[test]
fn no_banned_version_is_locked() {
    let tree = Tree::read();
    let lock = locked(&tree.file("Cargo.lock").text);
    let mut checked = 0;
    for ban in tree.file("deny.toml").text.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")) {
        let (spec, _) = ban.split_once('"').expect("a crate is named in quotes");
        let (name, below) = spec.split_once(":<").map_or((spec, None), |(name, version)| (name, Some(version)));
        for version in lock.iter().filter(|(locked, _)| locked == name).map(|(_, version)| version) {
            let below = below.unwrap_or_else(|| panic!("{name} is banned and locked at {version}"));
            assert!(numbers(version) >= numbers(below), "{name} {version} is locked; it must be at least {below}");
        }
        checked += 1;
    }
    assert!(checked >= 10, "deny.toml names {checked} bans; were they written otherwise?");
    assert_eq!(numbers("0.13.10"), [0, 13, 10]);
    assert!(numbers("0.13.9") < numbers("0.13.10"), "numbers are compared as numbers");
}

#[test]
fn every_source_is_the_default_registry() {
    let tree = Tree::read();
    for line in tree.file("Cargo.lock").text.lines().filter(|line| line.starts_with("source = ")) {
        assert_eq!(line, "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
    }
}

/// Name and version of every locked package.
fn locked(lock: &str) -> Vec<(String, String)> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    lock.split("[[package]]").filter_map(|block| Some((value(block, "name")?, value(block, "version")?))).collect()
}

/// A version as numbers; what stands after a dash or a plus is left out.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|number| number.parse().expect("versions are numbers")).collect()
}

#[test]
fn every_licence_is_allowed() {
    let tree = Tree::read();
    let deny = &tree.file("deny.toml").text;
    let (_, list) = deny.split_once("allow = [\n").expect("deny.toml lists the licences");
    let (list, _) = list.split_once("\n]").expect("the list ends");
    let allowed: Vec<&str> = list.lines().map(|line| line.trim().trim_end_matches(',').trim_matches('"')).collect();
    assert!(allowed.contains(&"Apache-2.0") && !allowed.iter().any(|l| l.starts_with("GPL") || l.starts_with("LGPL")));
    let refused: Vec<String> = licences()
        .into_iter()
        .filter(|(_, licence)| !licence.as_deref().is_some_and(|l| permits(l, &allowed)))
        .map(|(package, licence)| format!("{package}: {}", licence.unwrap_or_else(|| "none".into())))
        .collect();
    assert!(refused.is_empty(), "not in deny.toml's list of licences: {refused:#?}");
}

/// Crates that `artel-verify` may be made of, ours included: whoever believes it has all of them to read.
const VERIFIER_CRATES_MAX: usize = 55;

#[test]
fn the_verifier_is_made_of_few_crates() {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["tree", "--package=artel-verify", "--edges=normal", "--prefix=none", "--locked", "--offline"])
        .current_dir(super::root())
        .output()
        .expect("cargo is installed");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes text");
    let named = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: std::collections::BTreeSet<String> =
        text.lines().filter(|line| !line.contains("(proc-macro)")).map(named).collect();
    println!("artel-verify is made of {} crates:", crates.len());
    crates.iter().for_each(|name| println!("  {name}"));
    assert!(crates.len() > 10, "cargo tree named {} crates", crates.len());
    assert!(crates.len() <= VERIFIER_CRATES_MAX, "{} crates, at most {VERIFIER_CRATES_MAX} are meant", crates.len());
    let foreign = ["tokio ", "libp2p ", "hyper ", "axum ", "clap ", "openssl "];
    let far = crates.iter().find(|name| foreign.iter().any(|foreign| name.starts_with(foreign)));
    assert_eq!(far, None, "the verifier asks no network");
}

#[test]
fn licence_expressions_are_read() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-2.0-only", false),
        ("MIT OR GPL-2.0-only", true),
        ("MIT AND GPL-2.0-only", false),
        ("MIT AND (GPL-2.0-only OR Apache-2.0)", true),
        ("(MIT OR GPL-2.0-only) AND GPL-2.0-only", false),
        ("GPL-2.0-only AND MIT OR Apache-2.0", true),
        ("MIT/GPL-2.0-only", true),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }
}

/// Every package that is linked on this machine, with its licence.
fn licences() -> BTreeMap<String, Option<String>> {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc is installed");
    let version = String::from_utf8(version.stdout).expect("rustc writes text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned();
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &host])
        .current_dir(super::root())
        .output()
        .expect("cargo is installed");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    assert!(packages.len() > 100, "only {} packages were listed", packages.len());
    let name = |p: &serde_json::Value| format!("{} {}", p["name"].as_str().unwrap_or(""), p["version"]);
    packages.iter().map(|p| (name(p), p["license"].as_str().map(str::to_owned))).collect()
}

/// Evaluates a licence expression: `OR` binds weaker than `AND`, a slash is an old way to write `OR`.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    let permitted = any_of(&mut words, allowed);
    permitted && words.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut permitted = all_of(words, allowed);
    while let Some(("OR", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        permitted |= all_of(words, allowed);
    }
    permitted
}

fn all_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut permitted = one(words, allowed);
    while let Some(("AND", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        permitted &= one(words, allowed);
    }
    permitted
}

fn one(words: &mut &[&str], allowed: &[&str]) -> bool {
    match **words {
        ["(", ref rest @ ..] => {
            *words = rest;
            let permitted = any_of(words, allowed);
            *words = words.strip_prefix(&[")"]).unwrap_or(&["unclosed"]);
            permitted
        }
        [licence, "WITH", exception, ref rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, ref rest @ ..] => {
            *words = rest;
            allowed.contains(&licence)
        }
        [] => false,
    }
}
