//! Evidence against a log.

#![no_main]

use attest::{
    log::conflict::Conflict,
    testing::log::{ORIGIN, log_key},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(conflict) = Conflict::from_bytes(bytes) {
        assert_eq!(conflict.to_bytes(), bytes);
        let _ = conflict.convicts(&[log_key(ORIGIN)]);
    }
});
