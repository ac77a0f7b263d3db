//! What is stapled to a package: lines of evidence and the log's proof, the first bytes of the input saying where one ends.

#![no_main]

use attest::{
    testing::staple::Sample,
    trust::Demands,
    verify::{Moment, Stapled, verify_stapled},
};
use libfuzzer_sys::fuzz_target;
use protocol::testing::samples;

thread_local! {
    static TRUST: attest::trust::Trust = Sample::of(&Sample::policy(1), &["x", "x"]).trust(Demands::default());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let (lines, proof) = rest.split_at(rest.len().min(u32::from_be_bytes(*length) as usize));
    let moment = Moment { now: samples::NOW, checkpoint: None };
    let proof = (!proof.is_empty()).then_some(proof);
    TRUST.with(|trust| drop(verify_stapled(&Stapled { lines, proof }, trust, &moment)));
});
