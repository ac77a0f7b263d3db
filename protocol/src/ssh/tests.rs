//! Signatures that `ssh-keygen` made, each way to get one wrong, and a security key's signatures made by its rules.

use std::{fs, path::PathBuf};

use ed25519_dalek::Signer;
use proptest::prelude::*;
use sha2::{Digest, Sha256, Sha512};

use super::*;
use crate::{
    NetworkId, PublicKey, Signed, Verified,
    envelope::{self, EnvelopeError, Unsigned},
    job::JobRequest,
    testing::{public_key, samples, signing_key},
};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/ssh").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn alice() -> Key {
    Key::parse(&text("ed25519.pub")).unwrap()
}

fn request() -> Unsigned<JobRequest> {
    Unsigned::new(&samples::deb_request(NETWORK), Some(&NETWORK))
}

/// Takes a blob as a signature of the sample request, the whole way in.
fn enter(key: PublicKey, sig: Vec<u8>) -> Result<Verified<JobRequest>, EnvelopeError> {
    let bytes = request().with(vec![envelope::Signature { key, sig }]).to_bytes();
    Signed::<JobRequest>::read(&bytes)?.verify(Some(&NETWORK))
}

fn refused(blob: &[u8]) -> Error {
    match enter(alice().public, blob.to_vec()) {
        Err(EnvelopeError::Ssh { key, why }) if key == alice().public => *why,
        other => panic!("{other:?}"),
    }
}

/// A security key's signature, made by the rules of `PROTOCOL.u2f`.
fn by_device(flags: u8, namespace: &str, message: &[u8]) -> Vec<u8> {
    let application = "ssh:artel".to_owned();
    let key = Key { public: public_key(9), algorithm: Algorithm::Device { application: application.clone() } };
    let put = |parts: &[&[u8]]| {
        let mut out = Vec::new();
        parts.iter().for_each(|part| wire::put(&mut out, part));
        out
    };
    let signed = [b"SSHSIG".to_vec(), put(&[namespace.as_bytes(), b"", b"sha512", &Sha512::digest(message)])].concat();
    let told = [&Sha256::digest(application)[..], &[flags], &41u32.to_be_bytes(), &Sha256::digest(signed)].concat();
    let given = signing_key(9).sign(&told).to_bytes();
    let mut inner = put(&[b"sk-ssh-ed25519@openssh.com", &given]);
    inner.extend_from_slice(&[flags, 0, 0, 0, 41]);
    let rest = put(&[&key.to_blob(), namespace.as_bytes(), b"", b"sha512", &inner]);
    [b"SSHSIG\0\0\0\x01".to_vec(), rest].concat()
}

#[test]
fn the_message_that_was_signed_is_the_one_in_the_fixtures() {
    if std::env::var_os("ARTEL_BLESS").is_some() {
        fs::write(path("request.message"), request().message()).unwrap();
    }
    assert_eq!(fs::read(path("request.message")).unwrap(), request().message());
}

/// `ssh-keygen` judges these files beside the code that reads key files.
#[test]
fn the_security_keys_signature_is_the_one_in_the_fixtures() {
    let signature = Signature::read(&by_device(5, "job@artel", &request().message())).unwrap();
    let files = [("device.sig", signature.to_armor()), ("device.pub", format!("{}\n", signature.key().to_line()))];
    for (name, made) in files {
        if std::env::var_os("ARTEL_BLESS").is_some() {
            fs::write(path(name), &made).unwrap();
        }
        assert_eq!(text(name), made);
    }
}

#[test]
fn what_ssh_keygen_signed_is_a_signature_of_the_request() {
    for name in ["job.sig", "job-sha256.sig"] {
        let signature = Signature::parse(&text(name)).unwrap();
        assert_eq!(signature.key(), &alice());
        assert_eq!(signature.to_armor(), text(name), "armor comes back as OpenSSH writes it");
        let verified = enter(alice().public, signature.to_blob()).unwrap();
        assert_eq!(verified.signers(), [alice().public].into());
        assert_eq!(verified.message(), request().message());
        assert_eq!(verified.signatures()[0].sig, signature.to_blob());
    }
}

#[test]
fn a_raw_and_an_ssh_signature_stand_beside_each_other() {
    let raw = Signed::sign(&samples::deb_request(NETWORK), Some(&NETWORK), &[&signing_key(1)]);
    let raw = raw.verify(Some(&NETWORK)).unwrap().signatures().to_vec();
    let blob = Signature::parse(&text("job.sig")).unwrap().to_blob();
    let both = [raw, vec![envelope::Signature { key: alice().public, sig: blob }]].concat();
    let verified = request().with(both).verify(Some(&NETWORK)).unwrap();
    assert_eq!(verified.signers(), [alice().public, public_key(1)].into());
}

#[test]
fn another_namespace_key_or_message_is_refused_in_words() {
    let blob = Signature::parse(&text("policy.sig")).unwrap().to_blob();
    let wanted = "job@artel".to_owned();
    assert_eq!(refused(&blob), Error::Namespace { got: "policy@artel".into(), wanted });
    let job = Signature::parse(&text("job.sig")).unwrap();
    let why = Box::new(Error::OtherKey { got: alice().public, wanted: public_key(1) });
    let why = EnvelopeError::Ssh { key: public_key(1), why };
    assert_eq!(enter(public_key(1), job.to_blob()).unwrap_err(), why);
    let message = request().message();
    assert_eq!(job.verify(&alice().public, "job@artel", &message), Ok(()));
    for at in [0, message.len() / 2, message.len() - 1] {
        let mut other = message.clone();
        other[at] ^= 1;
        assert_eq!(job.verify(&alice().public, "job@artel", &other), Err(Error::Mismatch));
    }
}

#[test]
fn a_key_of_another_type_is_told_what_to_do() {
    for (name, got) in [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")] {
        let error = Key::parse(&text(&format!("{name}.pub"))).unwrap_err();
        assert_eq!(error, Error::Algorithm { got: got.into() });
        assert!(error.to_string().contains("ssh-keygen -t ed25519"), "{error}");
    }
    assert_eq!(Signature::parse(&text("ecdsa.sig")), Err(Error::Algorithm { got: "ecdsa-sha2-nistp256".into() }));
    // A signature by RSA is longer than any that is let in.
    assert!(matches!(Signature::parse(&text("rsa.sig")), Err(Error::Form { .. })));
}

#[test]
fn a_security_key_signs_while_somebody_touches_it() {
    let touched = by_device(5, "job@artel", &request().message());
    assert!(touched.len() <= crate::limits::SSH_SIGNATURE_MAX, "{} bytes", touched.len());
    assert_eq!(enter(public_key(9), touched.clone()).unwrap().signers(), [public_key(9)].into());
    let untouched = by_device(4, "job@artel", &request().message());
    let touch = EnvelopeError::Ssh { key: public_key(9), why: Box::new(Error::Touch) };
    assert_eq!(enter(public_key(9), untouched).unwrap_err(), touch);
    // Flags and counter are signed, too: five bytes at the end.
    for back in 1..=5 {
        let mut other = touched.clone();
        let at = other.len() - back;
        other[at] ^= 0x40;
        let mismatch = EnvelopeError::Ssh { key: public_key(9), why: Box::new(Error::Mismatch) };
        assert_eq!(enter(public_key(9), other).unwrap_err(), mismatch, "{back} from the end");
    }
}

#[test]
fn an_application_of_web_pages_is_no_key_of_ssh() {
    for application in ["https://example.org", "", &"ssh:".repeat(20)] {
        let algorithm = Algorithm::Device { application: application.to_owned() };
        let key = Key { public: public_key(1), algorithm };
        assert!(matches!(Key::read(&key.to_blob()), Err(Error::Form { .. })), "{application:?}");
    }
}

#[test]
fn no_node_signs_by_ssh() {
    let release = Unsigned::new(&samples::release(), Some(&NETWORK));
    let sig = by_device(1, "release@artel", &release.message());
    let error = release.with(vec![envelope::Signature { key: public_key(9), sig }]).verify(Some(&NETWORK)).unwrap_err();
    assert_eq!(error, EnvelopeError::BadSignature { key: public_key(9) });
}

#[test]
fn every_changed_byte_of_a_blob_is_refused_and_nothing_is_added_or_left_out() {
    let blob = Signature::parse(&text("job.sig")).unwrap().to_blob();
    for at in 0..blob.len() {
        let mut other = blob.clone();
        other[at] ^= 1;
        assert!(enter(alice().public, other).is_err(), "byte {at}");
        assert!(enter(alice().public, blob[..at].to_vec()).is_err(), "cut at {at}");
    }
    assert!(matches!(
        refused(&[blob.clone(), vec![0]].concat()),
        Error::Form { why: "more follows after its end", .. }
    ));
    assert!(matches!(refused(&[blob, vec![0; 400]].concat()), Error::Form { why: "it is too long", .. }));
}

#[test]
fn a_public_key_has_one_line_and_is_read_from_an_encrypted_file() {
    assert_eq!(format!("{} alice@example\n", alice().to_line()), text("ed25519.pub"));
    assert!(Key::is_line(&text("rsa.pub")) && !Key::is_line(&text("encrypted")) && Key::is_secret(&text("encrypted")));
    assert_eq!(Key::of_secret(&text("encrypted")), Key::parse(&text("encrypted.pub")));
    assert_eq!(Key::plain(alice().public), alice());
    let twice = text("ed25519.pub").repeat(2);
    let wrong = text("ed25519.pub").replacen("ssh-ed25519", "ssh-rsa", 1);
    for line in ["", "ssh-ed25519", "ssh-ed25519 !!!", &twice, &wrong] {
        assert!(matches!(Key::parse(line), Err(Error::Form { .. })), "{line:?}");
    }
    for broken in ["", "-----BEGIN OPENSSH PRIVATE KEY-----", &text("encrypted").replacen("b3", "c3", 1)] {
        assert!(matches!(Key::of_secret(broken), Err(Error::Form { .. })), "{broken:?}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_has_one_spelling(blob in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..190, byte: u8) {
        let mut near = Signature::parse(&text("job.sig")).unwrap().to_blob();
        let at = at % near.len();
        near[at] = byte;
        for bytes in [blob, near] {
            if let Ok(signature) = Signature::read(&bytes) {
                prop_assert_eq!(signature.to_blob(), bytes);
            }
        }
    }
}
