//! Every way to get a signed record wrong, one by one.

use super::*;
use crate::{
    job::JobRequest,
    policy::Policy,
    testing::{public_key, samples, signing_key},
};

fn network() -> NetworkId {
    samples::network()
}

fn signed() -> Signed<JobRequest> {
    Signed::sign(&samples::deb_request(network()), Some(&network()), &[&signing_key(1), &signing_key(2)])
}

/// Applies a change to the envelope and gives the error of the whole way in: bytes, door, verification.
fn refused(change: impl FnOnce(&mut Envelope)) -> EnvelopeError {
    let mut envelope = signed().envelope;
    change(&mut envelope);
    let bytes = codec::encode(&envelope);
    Signed::<JobRequest>::read(&bytes).and_then(|s| s.verify(Some(&network()))).unwrap_err()
}

#[test]
fn an_honest_record_comes_back_with_its_signers() {
    let signed = signed();
    let verified = Signed::<JobRequest>::read(&signed.to_bytes()).unwrap().verify(Some(&network())).unwrap();
    assert_eq!(verified.get(), &samples::deb_request(network()));
    assert_eq!(verified.signers(), BTreeSet::from([public_key(1), public_key(2)]));
    assert_eq!(verified.id(), signed.id());
    assert_eq!(verified.to_bytes(), signed.to_bytes(), "bytes are forwarded as received");
}

#[test]
fn the_id_does_not_depend_on_the_signatures() {
    let one = Signed::sign(&samples::deb_request(network()), Some(&network()), &[&signing_key(3)]);
    assert_eq!(one.id(), signed().id());
}

#[test]
fn a_record_for_another_network_is_refused() {
    let other = NetworkId::from_bytes([9; 32]);
    let error = signed().verify(Some(&other)).unwrap_err();
    assert!(matches!(error, EnvelopeError::WrongType { .. }), "{error}");
    let retyped = refused(|e| e.kind = type_string("job", Some(&other)));
    assert!(matches!(retyped, EnvelopeError::WrongType { .. }), "{retyped}");
}

#[test]
fn a_signature_for_another_network_does_not_verify_under_this_type() {
    let other = NetworkId::from_bytes([9; 32]);
    let theirs = Signed::sign(&samples::deb_request(network()), Some(&other), &[&signing_key(1)]);
    let error = refused(|e| e.sigs = theirs.envelope.sigs);
    assert_eq!(error, EnvelopeError::BadSignature { key: public_key(1) });
}

#[test]
fn another_kind_of_record_is_refused() {
    let error = refused(|e| e.kind = type_string("cancel", Some(&network())));
    assert!(matches!(error, EnvelopeError::WrongType { .. }), "{error}");
}

#[test]
fn a_wrong_key_is_refused() {
    let error = refused(|e| {
        e.sigs.truncate(1);
        e.sigs[0].key = public_key(5);
    });
    assert_eq!(error, EnvelopeError::BadSignature { key: public_key(5) });
}

#[test]
fn a_tampered_payload_is_refused() {
    let mut request = samples::deb_request(network());
    request.nonce = vec![8; 16];
    let error = refused(|e| e.payload = codec::encode(&request));
    assert!(matches!(error, EnvelopeError::BadSignature { .. }), "{error}");
}

#[test]
fn a_tampered_signature_is_refused() {
    for at in [0, 31, 32, 63] {
        let error = refused(|e| e.sigs[1].sig[at] ^= 1);
        assert!(matches!(error, EnvelopeError::BadSignature { .. }), "byte {at}: {error}");
    }
    let short = refused(|e| e.sigs[0].sig.truncate(63));
    assert!(matches!(short, EnvelopeError::BadSignature { .. }), "{short}");
}

/// One broken signature refuses the record, so nobody can carry junk along with an honest one.
#[test]
fn junk_beside_a_good_signature_is_refused() {
    let error = refused(|e| {
        let junk = Signature { key: public_key(7), sig: vec![1; 64] };
        e.sigs.push(junk);
        e.sigs.sort_by_key(|s| s.key);
    });
    assert_eq!(error, EnvelopeError::BadSignature { key: public_key(7) });
}

#[test]
fn the_list_of_signatures_is_a_sorted_set() {
    assert_eq!(refused(|e| e.sigs.reverse()), EnvelopeError::SignatureList);
    assert_eq!(refused(|e| e.sigs.clear()), EnvelopeError::SignatureList);
    assert_eq!(refused(|e| e.sigs = vec![e.sigs[0].clone(), e.sigs[0].clone()]), EnvelopeError::SignatureList);
    let many = refused(|e| {
        let at = |n: u8| PublicKey::from_bytes([n; 32]);
        e.sigs = (0..65).map(|n| Signature { key: at(n), sig: vec![0; 64] }).collect();
    });
    assert_eq!(many, EnvelopeError::SignatureList);
}

/// The zero point is a small-order key: a lax verifier accepts signatures that nobody made.
#[test]
fn a_small_order_key_never_verifies() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut forged = [0; 64];
    forged[0] = 1;
    assert_eq!(verify_ed25519(&PublicKey::from_bytes(identity), b"anything", &forged), Err(()));
}

#[test]
fn an_oversize_or_padded_envelope_is_refused_at_the_door() {
    let huge = vec![0; JobRequest::LIMIT + limits::ENVELOPE_ROOM + 1];
    assert!(matches!(Signed::<JobRequest>::read(&huge), Err(EnvelopeError::Door(DoorError::TooLarge { .. }))));
    let mut padded = signed().to_bytes();
    padded.push(0);
    assert!(matches!(
        Signed::<JobRequest>::read(&padded),
        Err(EnvelopeError::Door(DoorError::NotCanonical { what: "trailing bytes", .. }))
    ));
}

#[test]
fn a_payload_that_breaks_its_own_rules_is_refused_though_signed() {
    let mut request = samples::deb_request(network());
    request.nonce = vec![1; 15];
    let error = Signed::sign(&request, Some(&network()), &[&signing_key(1)]).verify(Some(&network())).unwrap_err();
    assert!(matches!(error, EnvelopeError::Meaning { kind: "job", .. }), "{error}");
}

#[test]
fn only_a_genesis_policy_is_signed_without_a_network() {
    let genesis = samples::genesis(3);
    let signed = Signed::<Policy>::sign(&genesis, None, &[&signing_key(samples::ROOT_SEED)]);
    let error = signed.verify(Some(&network())).unwrap_err();
    assert!(matches!(error, EnvelopeError::WrongType { .. }), "{error}");
}
