//! Requests to a witness, and what it decides.

#![no_main]

use artel_fuzz::same_text;
use attest::{
    log::witness::{Request, decide},
    testing::log::{Memory, ORIGIN, log_key},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = same_text(Request::read(bytes), bytes) else { return };
    let latest = Memory::sized(21).checkpoint(21);
    for latest in [None, Some(latest.as_signed())] {
        if let Err(refusal) = decide(&request, &[log_key(ORIGIN)], latest) {
            assert!([400, 403, 409, 422].contains(&refusal.status()));
        }
    }
});
