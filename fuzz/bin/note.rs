//! Signed notes, and the keys that they are checked with.

#![no_main]

use artel_fuzz::same_text;
use attest::log::note::{Note, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (key, note) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    let key = str::from_utf8(key).ok().and_then(|key| key.strip_suffix('\n'));
    let key = key.and_then(|key| same_text(key.parse::<VerifierKey>(), key.as_bytes()));
    for note in [bytes, note] {
        if let Some(note) = same_text(Note::read(note), note) {
            let _ = note.signers(key.as_slice());
        }
    }
});
