//! The verifier's policy file: whatever is read writes itself as a file that says the same.

#![no_main]

use attest::trust::Trust;
use libfuzzer_sys::fuzz_target;
use protocol::testing::samples;

fuzz_target!(|bytes: &[u8]| {
    let Ok(trust) = Trust::read(bytes, samples::NOW) else { return };
    let again = Trust::read(trust.to_string().as_bytes(), samples::NOW).expect("what is written can be read");
    assert_eq!((again.to_string(), again.demands()), (trust.to_string(), trust.demands()));
});
