//! Proofs beside files.

#![no_main]

use artel_fuzz::same_text;
use attest::{
    log::{policy::Policy, proof::Proof},
    testing::log::{ORIGIN, log_key, witness_key},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(proof) = same_text(Proof::read(bytes), bytes) else { return };
    let text = format!("log {}\nwitness w {}\nquorum w\n", log_key(ORIGIN), witness_key(5));
    let policy = Policy::read(text.as_bytes()).expect("the policy is a sample");
    let _ = proof.entry(&policy);
    let _ = proof.check(b"entry", &policy);
});
