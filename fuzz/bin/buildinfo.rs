//! Environments named by `.buildinfo` files.

#![no_main]

use std::fs;

use artel::resolve::buildinfo::Buildinfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("fuzz.buildinfo");
    fs::write(&path, bytes).expect("a file can be written");
    let _ = Buildinfo::read(&path);
});
