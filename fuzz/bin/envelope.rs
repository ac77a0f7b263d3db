//! Signed records: their envelopes, and their payloads properly signed, so that the fuzzer gets past the signature.

#![no_main]

use ed25519_dalek::Signer;
use libfuzzer_sys::fuzz_target;
use protocol::{
    Envelope, Signed, codec,
    envelope::{Record, Signature, pae, type_string},
    job::{Announcement, JobRequest, Order},
    peer::{Leadership, NodeCard},
    policy::Policy,
    release::Release,
    testing::{public_key, samples, signing_key},
};

fuzz_target!(|bytes: &[u8]| {
    any::<Policy>(bytes);
    any::<JobRequest>(bytes);
    any::<Order>(bytes);
    any::<Announcement>(bytes);
    any::<NodeCard>(bytes);
    any::<Leadership>(bytes);
    any::<Release>(bytes);
});

fn any<T: Record>(bytes: &[u8]) {
    let network = samples::network();
    if let Ok(signed) = Signed::<T>::read(bytes) {
        assert_eq!(signed.to_bytes(), bytes);
        let _ = signed.verify(Some(&network));
    }
    let kind = type_string(T::KIND, Some(&network));
    let sig = signing_key(1).sign(&pae(&kind, bytes)).to_bytes().to_vec();
    let sigs = vec![Signature { key: public_key(1), sig }];
    let envelope = codec::encode(&Envelope { sigs, kind, payload: bytes.to_vec() });
    if let Ok(verified) = Signed::<T>::read(&envelope).and_then(|signed| signed.verify(Some(&network))) {
        assert_eq!(codec::encode(verified.get()), bytes);
    }
}
