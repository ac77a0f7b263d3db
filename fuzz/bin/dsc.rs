//! Source packages' `.dsc` files, alone in a folder.

#![no_main]

use std::fs;

use artel::resolve::source::read_source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("fuzz.dsc");
    fs::write(&path, bytes).expect("a file can be written");
    let _ = read_source(&path);
});
