//! The corpus of the fuzz targets, as an ordinary test: no decoder of bytes from outside panics at it, and what the seeds hold is let
//! in. Fuzzing itself is `make fuzz`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use artel_fuzz::targets;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a target's corpus, by their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(|entry| read(entry.unwrap())).collect()
}

/// Says whether the fuzzer named a file: after the SHA-1 of its content.
fn is_found(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn every_seed_is_let_in_and_nothing_panics() {
    let mut refused = Vec::new();
    for target in targets::ALL {
        let corpus = corpus(target.name);
        assert!(corpus.iter().any(|(name, _)| !is_found(name)), "{} has no seed", target.name);
        for (name, bytes) in corpus {
            assert!(bytes.len() <= target.limit, "{}/{name} is longer than the target takes", target.name);
            let is_in = (target.run)(&bytes);
            // Bytes that a decoder must refuse are called so.
            if !is_found(&name) && is_in == name.starts_with("refused") {
                refused.push(format!("{}/{name}: let in is {is_in}", target.name));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// What nobody decodes is refused by every target that lets anything in by its form.
#[test]
fn noise_is_refused() {
    let noise: Vec<u8> = (0..2048u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let anything = ["opening", "tree"];
    for target in targets::ALL.iter().filter(|target| !anything.contains(&target.name)) {
        assert!(!(target.run)(&noise), "{} lets noise in", target.name);
    }
}

#[test]
fn every_target_has_a_program_and_is_listed_with_files_that_are_there() {
    let names: BTreeSet<&str> = targets::ALL.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), targets::ALL.len(), "every name once");
    let listed = fs::read_to_string(fuzz().join("decoders")).unwrap();
    let mut rows = BTreeSet::new();
    for row in listed.lines() {
        let [name, files, what, found] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row:?}") };
        assert!(!what.is_empty() && !found.is_empty());
        for file in files.split(' ') {
            assert!(fuzz().join("..").join(file).exists(), "{name}: there is no {file}");
        }
        rows.insert(name);
    }
    assert_eq!(rows, names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no program");
        assert!(fuzz().join("bin").join(format!("{name}.rs")).is_file());
    }
}
