//! Keys and signatures of OpenSSH: blobs as envelopes carry them, and the texts that people's own tools write.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    PublicKey,
    ssh::{Key, Signature},
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signature) = Signature::read(bytes) {
        assert_eq!(signature.to_blob(), bytes);
        read_back(&signature);
    }
    if let Ok(key) = Key::read(bytes) {
        assert_eq!(key.to_blob(), bytes);
        assert_eq!(Key::parse(&key.to_line()).as_ref(), Ok(&key));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(signature) = Signature::parse(text) {
        read_back(&signature);
    }
    for key in [Key::parse(text), Key::of_secret(text)].into_iter().flatten() {
        assert_eq!(Key::read(&key.to_blob()).as_ref(), Ok(&key));
    }
});

fn read_back(signature: &Signature) {
    assert_eq!(Signature::read(&signature.to_blob()).as_ref(), Ok(signature));
    assert_eq!(Signature::parse(&signature.to_armor()).as_ref(), Ok(signature));
    // Nobody guesses a signature, whatever else is right.
    let key = signature.key();
    assert!(signature.verify(&key.public, "job@artel", b"nobody signed this").is_err());
    let stranger = PublicKey::from_bytes([7; 32]);
    assert!(signature.verify(&stranger, "job@artel", b"nobody signed this").is_err());
}
