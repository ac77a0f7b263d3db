//! Bundles of evidence, and what is checked of them offline.

#![no_main]

use attest::{bundle::Bundle, verify};
use libfuzzer_sys::fuzz_target;
use protocol::{Timestamp, testing::samples};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::from_bytes(bytes) {
        assert_eq!(bundle.to_bytes(), bytes);
        let _ = verify::verify(&bundle, &samples::network(), Timestamp::from_millis(1_800_000_000_000));
    }
});
