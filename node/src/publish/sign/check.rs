//! Whether signatures hold, for whoever takes a repository in: apt and dnf would refuse them otherwise, and only when it is late.
//!
//! A signature comes from another node, so it is read strictly, in the form in which this program writes it: one, or two while the
//! publisher changes its key. As for apt, one by a key of the keyring is enough; one by any other key says nothing; one that names
//! a key of the keyring, which did not make it, spoils all.

use pgp::{
    composed::{ArmorOptions, CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey},
    packet::{Signature, SignatureType},
    ser::Serialize,
    types::KeyDetails,
};

use super::{Error, keyring::Keyring, keys::KEYS_MAX};

/// The largest signatures of a file, in bytes; ours have about 400 each with their armor.
const SIGNATURE_MAX: usize = 4096;

/// Why signatures of strangers are not taken.
const NONE: &str = "none of its keys made the signature";

/// What a check of a file says in the end: the fingerprints of those of the keyring who signed, one at least.
type Checked = Result<Vec<String>, Error>;

/// Checks a detached, armored signature, as a `Release.gpg` is one.
///
/// # Errors
/// [`Error::Unverified`].
pub fn detached(keyring: &Keyring, what: &str, armored: &[u8], bytes: &[u8]) -> Checked {
    let refuse = refused(what);
    let text = text(armored, SIGNATURE_MAX).map_err(&refuse)?;
    let (read, _) = DetachedSignature::from_string_many(text).map_err(|e| refuse(&e.to_string()))?;
    let read: Result<Vec<_>, _> = read.map(|read| read.map(|detached| detached.signature)).collect();
    let signatures = read.map_err(|e| refuse(&e.to_string()))?;
    if super::armored_signatures(&signatures)? != text {
        return Err(refuse("it is not written as this program writes it"));
    }
    enough(keyring, &signatures, (SignatureType::Binary, bytes)).map_err(|why| refuse(&why))
}

/// Checks a detached signature in its binary form, as the header of an RPM carries it, which has room for one. Gives the
/// fingerprint of who signed.
///
/// # Errors
/// [`Error::Unverified`].
pub fn packet(keyring: &Keyring, what: &str, packet: &[u8], bytes: &[u8]) -> Result<String, Error> {
    let refuse = refused(what);
    let signature = read_packet(packet).map_err(|why| refuse(&why))?;
    let signer = signer(keyring, &signature.signature, (SignatureType::Binary, bytes)).map_err(|why| refuse(&why))?;
    signer.ok_or_else(|| refuse(NONE))
}

/// Gives the fingerprint of the key that a signature in binary form names; whether it holds is not asked.
pub(in crate::publish) fn issuer(packet: &[u8]) -> Option<String> {
    let signature = read_packet(packet).ok()?;
    let issuers = signature.signature.issuer_fingerprint();
    issuers.first().map(ToString::to_string)
}

/// Checks that a text in the cleartext framework is `wanted`, as an `InRelease` is to be the `Release` beside it.
///
/// # Errors
/// [`Error::Unverified`].
pub fn clear(keyring: &Keyring, what: &str, clear: &[u8], wanted: &[u8]) -> Checked {
    let refuse = refused(what);
    let room = wanted.len().saturating_mul(2).saturating_add(SIGNATURE_MAX);
    let (clear, wanted) = (text(clear, room).map_err(&refuse)?, text(wanted, usize::MAX).map_err(&refuse)?);
    let (message, _) = CleartextSignedMessage::from_string(clear).map_err(|e| refuse(&e.to_string()))?;
    let again = message.to_armored_string(ArmorOptions::default());
    if again.map_err(|e| refuse(&e.to_string()))? != clear {
        return Err(refuse("it is not written as this program writes it"));
    }
    let signed = message.signed_text();
    if signed != wanted.strip_suffix('\n').unwrap_or(wanted).replace('\n', "\r\n") {
        return Err(refuse("its text is another one"));
    }
    enough(keyring, message.signatures(), (SignatureType::Text, signed.as_bytes())).map_err(|why| refuse(&why))
}

fn refused(what: &str) -> impl Fn(&str) -> Error {
    move |why| Error::Unverified { what: what.to_owned(), why: why.to_owned() }
}

fn text(bytes: &[u8], room: usize) -> Result<&str, &'static str> {
    if bytes.len() > room {
        return Err("it is too long");
    }
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

fn read_packet(packet: &[u8]) -> Result<DetachedSignature, String> {
    if packet.len() > SIGNATURE_MAX {
        return Err("it is too long".into());
    }
    let signature = DetachedSignature::from_bytes(packet).map_err(|e| e.to_string())?;
    if signature.to_bytes().map_err(|e| e.to_string())? != packet {
        return Err("it is not written as this program writes it".into());
    }
    Ok(signature)
}

/// Checks the signatures of a file.
fn enough(keyring: &Keyring, signatures: &[Signature], signed: (SignatureType, &[u8])) -> Result<Vec<String>, String> {
    if signatures.is_empty() || signatures.len() > KEYS_MAX {
        return Err(format!("it has {} signatures instead of one or two", signatures.len()));
    }
    let mut signers = Vec::new();
    for signature in signatures {
        signers.extend(signer(keyring, signature, signed)?);
    }
    if signers.is_empty() { Err(NONE.into()) } else { Ok(signers) }
}

/// Finds the key of the keyring that made a signature; none did when it names another one.
fn signer(
    keyring: &Keyring,
    signature: &Signature,
    (kind, bytes): (SignatureType, &[u8]),
) -> Result<Option<String>, String> {
    if signature.typ() != Some(kind) {
        return Err("the signature is of another kind".into());
    }
    for certificate in keyring.certificates() {
        let key = SignedPublicKey::from_bytes(certificate.bytes()).map_err(|e| e.to_string())?;
        if signature.verify(&key, bytes).is_ok() {
            return Ok(Some(key.fingerprint().to_string()));
        }
        let named = signature.issuer_fingerprint().contains(&&key.fingerprint())
            || signature.issuer_key_id().contains(&&key.legacy_key_id());
        if named {
            return Err(format!("{} did not make the signature that names it", key.fingerprint()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{
        sign::keys::Keys,
        testing::{AT, key, key_of},
    };

    #[test]
    fn what_we_sign_holds_and_what_is_changed_does_not() {
        let keyring = Keyring::new([key().certificate().unwrap(), key_of(9).certificate().unwrap()]);
        let text = "Origin: artel\nDescription: - dashes\n- at the start\nSHA256:\n abc 1 main/x\n";
        let (wanted, other) = (text.as_bytes(), text.replace("artel", "other"));
        let signed = (key().sign_clear(text, AT).unwrap(), key().sign_detached(wanted, AT).unwrap());
        let header = key().sign_packet(b"header").unwrap();
        assert_eq!(clear(&keyring, "x", signed.0.as_bytes(), wanted).unwrap(), [key().fingerprint()]);
        assert_eq!(detached(&keyring, "x", signed.1.as_bytes(), wanted).unwrap(), [key().fingerprint()]);
        assert_eq!(packet(&keyring, "x", &header, b"header").unwrap(), key().fingerprint());
        assert_eq!(issuer(&header), Some(key().fingerprint()));
        let changed = signed.0.replace("artel", "other");
        for (clear_text, wanted) in [(&signed.0, other.as_str()), (&changed, text), (&changed, other.as_str())] {
            assert!(clear(&keyring, "x", clear_text.as_bytes(), wanted.as_bytes()).is_err());
        }
        let twice = format!("{}{}", signed.0, signed.0);
        let early = format!("Package: evil\n{}", signed.0);
        for text_around in [twice, early, format!("{}\n", signed.0), String::new()] {
            assert!(clear(&keyring, "x", text_around.as_bytes(), wanted).is_err(), "{text_around}");
        }
        assert!(detached(&keyring, "x", signed.1.as_bytes(), other.as_bytes()).is_err());
        assert!(detached(&keyring, "x", format!("{0}{0}", signed.1).as_bytes(), wanted).is_err(), "two of them");
        assert!(packet(&keyring, "x", &header, b"another").is_err());
        assert!(packet(&keyring, "x", &[&header[..], &header].concat(), b"header").is_err(), "two of them");
        let stranger = Keyring::new([key_of(9).certificate().unwrap()]);
        let why = packet(&stranger, "the header", &header, b"header").unwrap_err().to_string();
        assert_eq!(why, "the header is not signed by a key of the repository: none of its keys made the signature");
    }

    #[test]
    fn of_two_signatures_one_of_the_keyring_is_enough_and_a_false_one_spoils_both() {
        let ring = |seeds: &[u8]| Keyring::new(seeds.iter().map(|seed| key_of(*seed).certificate().unwrap()));
        let two = Keys::Two { old: key_of(1), new: key_of(2), until: AT };
        let text = "Origin: artel\nSHA256:\n";
        let bytes = text.as_bytes();
        let signed = (two.sign_clear(text, AT).unwrap(), two.sign_detached(bytes, AT).unwrap());
        for (known, wanted) in [(&[1, 2][..], &[1, 2][..]), (&[1], &[1]), (&[2], &[2]), (&[2, 3], &[2])] {
            let wanted: Vec<_> = wanted.iter().map(|seed| key_of(*seed).fingerprint()).collect();
            assert_eq!(clear(&ring(known), "x", signed.0.as_bytes(), bytes).unwrap(), wanted);
            assert_eq!(detached(&ring(known), "x", signed.1.as_bytes(), bytes).unwrap(), wanted);
        }
        assert!(clear(&ring(&[3]), "x", signed.0.as_bytes(), bytes).unwrap_err().to_string().contains("none of its"));
        assert!(detached(&ring(&[3]), "x", signed.1.as_bytes(), bytes).is_err());
        // One that names a key which did not make it, beside a good one.
        let packets = |key: u8, bytes: &[u8]| {
            let signature = key_of(key).sign(SignatureType::Binary, bytes, AT).unwrap();
            [signature]
        };
        let mixed = [packets(1, bytes), packets(2, b"another")].concat();
        let mixed = super::super::armored_signatures(&mixed).unwrap();
        assert_eq!(detached(&ring(&[1]), "x", mixed.as_bytes(), bytes).unwrap(), [key_of(1).fingerprint()]);
        let why = detached(&ring(&[1, 2]), "x", mixed.as_bytes(), bytes).unwrap_err().to_string();
        assert!(why.contains("did not make the signature"), "{why}");
        let three = [packets(1, bytes), packets(2, bytes), packets(3, bytes)].concat();
        let three = super::super::armored_signatures(&three).unwrap();
        let why = detached(&ring(&[1]), "x", three.as_bytes(), bytes).unwrap_err().to_string();
        assert!(why.contains("3 signatures"), "{why}");
    }

    #[test]
    fn a_keyring_is_read_as_it_was_written() {
        let keyring = Keyring::new([key().certificate().unwrap(), key_of(9).certificate().unwrap()]);
        let bytes = keyring.to_bytes();
        assert_eq!(Keyring::read(&bytes).unwrap(), keyring);
        assert!(keyring.has(&key().fingerprint()) && !keyring.has(&key_of(8).fingerprint()));
        let single = key().public_binary().unwrap();
        for wrong in [[&bytes[..], &single].concat(), [&bytes[..], b"x"].concat(), bytes[1..].to_vec(), vec![]] {
            assert!(Keyring::read(&wrong).is_err());
        }
    }
}
