//! Paths of tiled logs, and entry bundles: a path, a newline, the bytes.

#![no_main]

use artel_fuzz::same_text;
use attest::log::tile::{Resource, read_bundle, write_bundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(path) = str::from_utf8(&bytes[..end]) else { return };
    let content = &bytes[end + 1..];
    match same_text(path.parse::<Resource>(), path.as_bytes()) {
        Some(Resource::Entries(slice)) => {
            if let Ok(entries) = read_bundle(slice, content) {
                assert_eq!(entries.len() as u64, slice.width());
                assert_eq!(write_bundle(entries).as_deref(), Ok(content));
            }
        }
        Some(Resource::Tile(tile)) => {
            if let Ok(hashes) = tile.hashes(content) {
                assert_eq!(hashes.len() * 32, content.len());
            }
        }
        Some(Resource::Checkpoint) | None => {}
    }
});
