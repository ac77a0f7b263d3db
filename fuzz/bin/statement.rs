//! Statements inside attestations, properly signed, so that the fuzzer gets past the signature.

#![no_main]

use attest::{
    dsse::{Envelope, IN_TOTO},
    statement,
};
use libfuzzer_sys::fuzz_target;
use protocol::testing::{samples, signing_key};

fuzz_target!(|bytes: &[u8]| {
    let envelope = Envelope::sign(IN_TOTO, bytes.to_vec(), &[&signing_key(10)]);
    let _ = statement::read(&envelope.to_bytes(), &samples::network());
});
