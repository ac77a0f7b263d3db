//! Checkpoints of transparency logs.

#![no_main]

use artel_fuzz::same_text;
use attest::{
    log::checkpoint::{Checkpoint, Signed},
    testing::log::{ORIGIN, log_key, witness_key},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes) {
        same_text(Checkpoint::read(text), bytes);
    }
    let Some(signed) = same_text(Signed::read(bytes), bytes) else { return };
    if let Ok(verified) = signed.verify(&[log_key(ORIGIN)]) {
        let _ = verified.cosigners(&[witness_key(5)]);
        let _ = str::from_utf8(bytes).map(|text| verified.with_answer(text, &[witness_key(5)]));
    }
});
