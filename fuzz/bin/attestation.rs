//! DSSE envelopes of attestations, as a stranger sends them.

#![no_main]

use attest::{dsse::Envelope, statement};
use libfuzzer_sys::fuzz_target;
use protocol::{
    limits,
    testing::{public_key, samples},
};

fuzz_target!(|bytes: &[u8]| {
    let _ = statement::read(bytes, &samples::network());
    if let Ok(envelope) = Envelope::read(bytes, limits::ATTESTATION_MAX) {
        let _ = envelope.signers(&[public_key(10)]);
        // Other tools write other JSON; ours is read as the same envelope.
        assert_eq!(Envelope::read(&envelope.to_bytes(), usize::MAX), Ok(envelope));
    }
});
