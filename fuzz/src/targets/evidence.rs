//! What builders attest, and what checks it.

use attest::{
    bundle::Bundle,
    commitment,
    dsse::{Envelope, IN_TOTO},
    negative::{NEGATIVE_MAX, Negative},
    statement,
    testing::staple::Sample,
    trust::{self, Demands, Trust},
    verify::{self, Moment, Stapled, verify_stapled},
};
use protocol::{
    Hash, NetworkId, Salt,
    lease::LeaseNumber,
    limits,
    testing::{public_key, samples, signing_key},
};

use crate::{Target, limit};

/// DSSE envelopes of attestations, as a stranger sends them.
pub const ATTESTATION: Target = Target {
    name: "attestation",
    limit: limits::ATTESTATION_MAX,
    run: |bytes| {
        let _ = statement::read(bytes, &samples::network());
        let Ok(envelope) = Envelope::read(bytes, limits::ATTESTATION_MAX) else { return false };
        let _ = envelope.signers(&[public_key(10)]);
        // Other tools write other JSON; ours is read as the same envelope.
        assert_eq!(Envelope::read(&envelope.to_bytes(), usize::MAX), Ok(envelope));
        true
    },
};

/// Statements inside attestations, properly signed, so that the fuzzer gets past the signature.
pub const STATEMENT: Target = Target {
    name: "statement",
    limit: limits::ATTESTATION_MAX / 4 * 3 - 512,
    run: |bytes| {
        let envelope = Envelope::sign(IN_TOTO, bytes.to_vec(), &[&signing_key(10)]);
        let read = statement::read(&envelope.to_bytes(), &samples::network());
        read.map(|attestation| drop((attestation.links(), attestation.signer()))).is_ok()
    },
};

/// Signed negatives: as a stranger sends them, and properly signed.
pub const NEGATIVE: Target = Target {
    name: "negative",
    limit: NEGATIVE_MAX,
    run: |bytes| {
        let network = samples::network();
        let read = Negative::read(bytes, &network);
        if let Ok(negative) = &read {
            let again = negative.sign(&signing_key(10)).expect("the sample builder signed it");
            assert_eq!(Negative::read(&again, &network).as_ref(), Ok(negative));
        }
        let envelope = Envelope::sign(IN_TOTO, bytes.to_vec(), &[&signing_key(10)]);
        read.is_ok() | Negative::read(&envelope.to_bytes(), &network).is_ok()
    },
};

/// Openings of commitments: lease, salt and attestation, of which no other one opens the same commitment.
pub const OPENING: Target = Target {
    name: "opening",
    limit: limits::ATTESTATION_MAX,
    run: |bytes| {
        let Some((lease, rest)) = bytes.split_first_chunk::<8>() else { return false };
        let Some((salt, attestation)) = rest.split_first_chunk::<32>() else { return false };
        let (network, number) = (samples::network(), u64::from_be_bytes(*lease));
        let open = |network: &NetworkId, number: u64, salt: [u8; 32], attestation: &[u8]| {
            commitment::digest(network, LeaseNumber(number), &Salt::from_bytes(salt), attestation)
        };
        let digest = open(&network, number, *salt, attestation);
        let documented = [b"artel-commitment/1\0", &network.as_bytes()[..], lease, salt, attestation].concat();
        assert_eq!(digest, Hash::of(&documented));
        let other = salt.map(|byte| byte ^ 1);
        assert_ne!(digest, open(&NetworkId::from_bytes(*salt), number, *salt, attestation));
        assert_ne!(digest, open(&network, number ^ 1, *salt, attestation));
        assert_ne!(digest, open(&network, number, other, attestation));
        assert_ne!(digest, open(&network, number, *salt, &[attestation, b"\0"].concat()));
        true
    },
};

/// Bundles of evidence, and what is checked of them offline.
pub const BUNDLE: Target = Target {
    name: "bundle",
    limit: limit(attest::bundle::BUNDLE_MAX),
    run: |bytes| {
        let Ok(bundle) = Bundle::from_bytes(bytes) else { return false };
        assert_eq!(bundle.to_bytes(), bytes);
        verify::verify(&bundle, &samples::network(), samples::NOW).is_ok()
    },
};

thread_local! {
    static TRUST: Trust = Sample::of(&Sample::policy(1), &["x", "x"]).trust(Demands::default());
}

/// What is stapled to a package: lines of evidence and the log's proof, the first bytes of the input saying where one ends.
pub const STAPLE: Target = Target {
    name: "staple",
    limit: limit(attest::staple::FILE_MAX),
    run: |bytes| {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
        let (lines, proof) = rest.split_at(rest.len().min(u32::from_be_bytes(*length) as usize));
        let moment = Moment { now: samples::NOW, checkpoint: None };
        let proof = (!proof.is_empty()).then_some(proof);
        TRUST.with(|trust| verify_stapled(&Stapled { lines, proof }, trust, &moment)).is_ok()
    },
};

/// The verifier's policy file: whatever is read writes itself as a file that says the same.
pub const TRUSTED: Target = Target {
    name: "trust",
    limit: limit(trust::FILE_MAX),
    run: |bytes| {
        let Ok(trust) = Trust::read(bytes, samples::NOW) else { return false };
        let again = Trust::read(trust.to_string().as_bytes(), samples::NOW).expect("what is written can be read");
        assert_eq!((again.to_string(), again.demands()), (trust.to_string(), trust.demands()));
        true
    },
};
