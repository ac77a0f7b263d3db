//! Published vectors, and what the specification demands of a verifier.

use protocol::testing::{public_key, signing_key};

use p256::ecdsa::signature::Verifier;

use super::*;

/// The vector of the DSSE protocol document: its P-256 signature is over exactly the bytes that we make. The key is the document's, as
/// it gives X and Y.
#[test]
fn the_published_encoding_is_what_the_published_signature_is_over() {
    let coordinates = "67cd390f77aa359cb08c2235f652270493a9ed832b0abcc01f70954c0390d238\
                       0c782bd54e269125a44f4433aff1432ce94e12bca73aa67ac80cea12608ddf74";
    let point = [&[4][..], &HEXLOWER.decode(coordinates.as_bytes()).unwrap()].concat();
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    let sig = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==";
    let signature = p256::ecdsa::Signature::from_slice(&general_purpose::STANDARD.decode(sig).unwrap()).unwrap();
    let verifies = |kind: &str, body: &[u8]| key.verify(&pae(kind, body), &signature).is_ok();
    assert!(verifies("http://example.com/HelloWorld", b"hello world"));
    assert!(!verifies("http://example.com/HelloWorld", b"hello worle"));
    assert!(!verifies("http://example.com/HelloWorl", b"d hello world"));
}

#[test]
fn the_published_encoding() {
    let encoded = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    let accents = "é";
    assert_eq!(pae(accents, b""), "DSSEv1 2 é 0 ".as_bytes(), "lengths are in bytes");
}

/// An envelope that securesystemslib 1.6.0 accepted; the key is test 1 of RFC 8032.
const VECTOR: &str = r#"{"payload":"eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJuYW1lIjoiaGVsbG9fMS4wLTFfYW1kNjQuZGViIiwiZGlnZXN0Ijp7InNoYTI1NiI6IjljZmExNDY4YzkzZmMxODY1MmUzNGEwMDBmMGM2NjE0YjBmYTE4ZjZmNDg4NzQ3N2FkOWIwZDM2Y2E2YTdlYWEifX1dLCJwcmVkaWNhdGVUeXBlIjoiaHR0cHM6Ly9zbHNhLmRldi9wcm92ZW5hbmNlL3YxIiwicHJlZGljYXRlIjp7fX0=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916","sig":"nnJdyLY1cWXIJ9jCj5lvotSr8+VyrGHx1l+yQf74Vqu9RiyjDmNINwpy8dtjQFOCUuZ/fzmlMvm22AU+EpRXBQ=="}]}"#;
const RFC8032_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

fn rfc8032_key() -> SigningKey {
    SigningKey::from_bytes(&HEXLOWER.decode(RFC8032_SEED.as_bytes()).unwrap().try_into().unwrap())
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(key.verifying_key().to_bytes())
}

#[test]
fn the_ed25519_vector_verifies_and_is_what_we_write() {
    let key = rfc8032_key();
    let envelope = Envelope::read(VECTOR.as_bytes(), 4096).unwrap();
    assert_eq!(envelope.signers(&[public(&key)]), BTreeSet::from([public(&key)]));
    let ours = Envelope::sign(IN_TOTO, envelope.payload().to_vec(), &[&key]);
    assert_eq!(ours.to_bytes(), VECTOR.as_bytes());
    assert_eq!(keyid(&public(&key)), "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
}

#[test]
fn url_safe_base64_missing_padding_and_unknown_fields_are_accepted() {
    let url_safe = VECTOR.replace('+', "-").replace("/fzml", "_fzml").replace("application_", "application/");
    let url_safe = url_safe.replace("vnd.in-toto-json", "vnd.in-toto+json").replace("==\"", "\"");
    let extra = url_safe.replacen('{', r#"{"later":[1,{"x":null}],"#, 1);
    assert_ne!(extra, VECTOR);
    let envelope = Envelope::read(extra.as_bytes(), 4096).unwrap();
    assert_eq!(envelope, Envelope::read(VECTOR.as_bytes(), 4096).unwrap());
}

#[test]
fn the_key_id_decides_nothing() {
    let candidates = [public(&rfc8032_key())];
    for keyid in [r#""keyid":"ffff","#, r#""keyid":"","#, r#""keyid":null,"#, ""] {
        let text =
            VECTOR.replace(r#""keyid":"74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916","#, keyid);
        assert_ne!(text, VECTOR);
        let envelope = Envelope::read(text.as_bytes(), 4096).unwrap();
        assert_eq!(envelope.signers(&candidates).len(), 1, "{keyid}");
    }
}

/// securesystemslib counts one key under two key ids as two; nobody here does.
#[test]
fn one_key_twice_is_one_signer() {
    let mut envelope = Envelope::sign(IN_TOTO, b"{}".to_vec(), &[&signing_key(1), &signing_key(1)]);
    envelope.signatures[1].keyid = "another".to_owned();
    let one = public_key(1);
    assert_eq!(envelope.signers(&[one, one, public_key(2)]), BTreeSet::from([one]));
}

#[test]
fn type_payload_and_signature_are_bound() {
    let envelope = Envelope::sign(IN_TOTO, b"{}".to_vec(), &[&signing_key(1)]);
    let signed = |change: fn(&mut Envelope)| {
        let mut changed = envelope.clone();
        change(&mut changed);
        !changed.signers(&[public_key(1)]).is_empty()
    };
    assert!(signed(|_| ()));
    assert!(!signed(|e| e.payload_type.push(' ')));
    assert!(!signed(|e| e.payload.push(b' ')));
    assert!(!signed(|e| e.signatures[0].sig[5] ^= 1));
    assert!(!signed(|e| e.signatures[0].sig.truncate(63)));
    assert!(!signed(|e| e.signatures[0].sig.push(0)));
}

#[test]
fn what_is_no_envelope_says_why() {
    let refused = |text: &str| Envelope::read(text.as_bytes(), 4096).unwrap_err();
    assert!(matches!(refused("{"), Error::Json { .. }));
    assert!(matches!(refused(&"[".repeat(2000)), Error::Json { .. }), "depth is bounded");
    assert!(matches!(refused(r#"{"payload":"e30=","payloadType":"t"}"#), Error::Json { .. }));
    assert!(matches!(refused(&format!("{VECTOR} {{}}")), Error::Json { .. }), "one document only");
    let none = r#"{"payload":"e30=","payloadType":"t","signatures":[]}"#;
    assert_eq!(refused(none), Error::SignatureCount { got: 0 });
    let twice = none.replacen('{', r#"{"payload":"e30=","#, 1);
    assert!(matches!(refused(&twice), Error::Json { .. }), "a field stands once");
    let junk = r#"{"payload":"*","payloadType":"t","signatures":[{"sig":"AA=="}]}"#;
    assert_eq!(refused(junk), Error::Base64 { field: "the payload" });
    assert_eq!(Envelope::read(VECTOR.as_bytes(), 10), Err(Error::TooLarge { got: VECTOR.len(), limit: 10 }));
}

#[test]
fn signatures_that_would_cost_too_much_are_refused_before_one_is_checked() {
    let many = |count: usize, length: usize| {
        let signature = WireSignature { keyid: String::new(), sig: vec![1; 64] };
        let (payload, signatures) = (vec![b'x'; length], vec![signature; count]);
        let envelope = Envelope { payload_type: IN_TOTO.to_owned(), payload, signatures };
        Envelope::read(&envelope.to_bytes(), limits::ATTESTATION_MAX)
    };
    // As base64, with every signature beside it.
    let largest = limits::ATTESTATION_MAX / 4 * 3 - 16 * 1024;
    assert!(many(1, largest).is_ok() && many(29, largest).is_ok());
    let refused = Error::TooCostly { signatures: 30, payload: largest };
    assert_eq!(many(30, largest), Err(refused));
    assert!(matches!(many(limits::SIGNATURES_MAX, limits::JOB_MAX + 1), Err(Error::TooCostly { .. })));
}

/// No record that [`Signed::read`](protocol::Signed::read) lets in is more than its lines may cost.
#[test]
fn the_largest_request_with_every_signature_is_read() {
    let one = |seed: u8| Signature { key: public_key(seed), sig: vec![seed; limits::SSH_SIGNATURE_MAX] };
    let count = u8::try_from(limits::SIGNATURES_MAX).unwrap();
    let kind = "application/vnd.artel.job-request.v1+cbor".to_owned();
    let record = Record { sigs: (1..=count).map(one).collect(), kind, payload: vec![0xff; limits::JOB_MAX] };
    let envelope = Envelope::of_record(&record);
    assert_eq!(Envelope::read(&envelope.to_bytes(), limits::ATTESTATION_MAX), Ok(envelope));
}

#[test]
fn where_no_key_id_names_a_signer_keys_are_tried_for_a_while() {
    let candidates: Vec<PublicKey> = (1..=200).map(public_key).collect();
    let signed = |seed: u8, payload: usize, junk: usize, id: &str| {
        let mut envelope = Envelope::sign("t", vec![b'x'; payload], &[&signing_key(seed)]);
        envelope.signatures[0].keyid = id.to_owned();
        let junk = std::iter::repeat_n(WireSignature { keyid: String::new(), sig: vec![0; 64] }, junk);
        envelope.signatures.splice(0..0, junk);
        envelope.to_record::<protocol::job::JobRequest>(&candidates).map(|record| record.sigs.len())
    };
    let named = keyid(&public_key(200));
    assert_eq!(signed(200, 1, 63, &named), Some(1), "who is named is always tried");
    assert_eq!(signed(200, limits::JOB_MAX, 1, &named), Some(1));
    assert_eq!((signed(200, 1, 0, ""), signed(200, 1, 4, ""), signed(200, 1, 5, "")), (Some(1), Some(1), None));
    assert_eq!((signed(60, limits::JOB_MAX, 0, ""), signed(61, limits::JOB_MAX, 0, "")), (Some(1), None));
}
