//! Links of in-toto's first format: what clients of rebuilders ask for, which knew signed statements before DSSE.
//!
//! A builder signs, beside its statement, one link for each Debian package that it made. The link is a function of the
//! package's file name and SHA-256 alone, so that all builders sign the same bytes and one document carries everybody's
//! signatures. It proves nothing more than the statement does: who has both believes the statement.
//!
//! The form is what two readers need that nobody here wrote. in-toto-rs writes what it read again before it verifies, so
//! there is no field beyond its own; in-toto for Python wants an object, not `null`, for the environment. The signed text
//! begins with `{"_type":"link"`, so it is no signed text of another kind of ours (a DSSE one begins with `DSSEv1`, a note
//! with a name).

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use protocol::{PublicKey, Sha256, envelope::verify_ed25519};

/// What an ed25519 key begins with as in-toto-rs reads it: an algorithm with a NULL parameter, which RFC 8410 leaves out.
const KEY_INFO: [u8; 14] = [0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00, 0x03, 0x21, 0x00];
/// The longest file name that gets a link, in bytes.
const NAME_MAX: usize = 255;

/// The link of one package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    file: &'a str,
    sha256: &'a Sha256,
}

/// A signature on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Whose it is.
    pub key: PublicKey,
    /// Its 64 bytes.
    pub bytes: Vec<u8>,
}

impl<'a> Link<'a> {
    /// Gives the link of a Debian package; other files have none, nor have those with a name that JSON would escape.
    pub fn of(file: &'a str, sha256: &'a Sha256) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.:_~".contains(&b);
        let fits = file.len() <= NAME_MAX && file.bytes().all(plain);
        let package = file.ends_with(".deb") || file.ends_with(".udeb");
        (package && fits).then_some(Self { file, sha256 })
    }

    /// Gives what is signed: canonical JSON, sorted and without spaces.
    pub fn text(&self) -> String {
        let Self { file, sha256 } = self;
        format!(
            "{{\"_type\":\"link\",\"byproducts\":{{}},\"command\":[],\"environment\":{{}},\"materials\":{{}},\
             \"name\":\"rebuild {file}\",\"products\":{{\"{file}\":{{\"sha256\":\"{sha256}\"}}}}}}"
        )
    }

    /// Signs the link; equal links give equal signatures.
    pub fn sign(&self, key: &SigningKey) -> Signature {
        let bytes = key.sign(self.text().as_bytes()).to_bytes().to_vec();
        Signature { key: PublicKey::from_bytes(key.verifying_key().to_bytes()), bytes }
    }

    /// Says whether a signature holds.
    pub fn is_signed_by(&self, signature: &Signature) -> bool {
        verify_ed25519(&signature.key, self.text().as_bytes(), &signature.bytes).is_ok()
    }
}

/// Gives a signature's bytes as text.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads a signature's bytes; none where the text is no 64 bytes in lower-case hexadecimal.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 64)
}

/// Gives the key id that in-toto-rs computes, and by which it looks for a key's signature.
pub fn keyid(key: &PublicKey) -> String {
    let json = format!(
        "{{\"keyid_hash_algorithms\":[\"sha256\",\"sha512\"],\"keytype\":\"ed25519\",\
         \"keyval\":{{\"public\":\"{key}\"}},\"scheme\":\"ed25519\"}}"
    );
    HEXLOWER.encode(Sha256::of(json.as_bytes()).as_bytes())
}

/// Gives a key as a PEM file of the form that in-toto-rs reads.
pub fn pem(key: &PublicKey) -> String {
    let info = [KEY_INFO.as_slice(), key.as_bytes()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&info))
}

#[cfg(test)]
mod tests {
    use protocol::testing::signing_key;

    use super::*;

    #[test]
    fn the_text_is_canonical_and_bound_to_name_and_digest() {
        let sha256 = Sha256::of(b"x");
        let link = Link::of("hello_2.10-3~bpo+1_amd64.deb", &sha256).unwrap();
        let value: serde_json::Value = serde_json::from_str(&link.text()).unwrap();
        assert_eq!(value.to_string(), link.text(), "sorted keys, no spaces");
        assert_eq!(value["products"]["hello_2.10-3~bpo+1_amd64.deb"]["sha256"], sha256.to_string());
        let signature = link.sign(&signing_key(1));
        assert_eq!(from_hex(&to_hex(&signature.bytes)), Some(signature.bytes.clone()));
        assert!(link.is_signed_by(&signature));
        assert!(!Link::of("hello_2.10-4_amd64.deb", &sha256).unwrap().is_signed_by(&signature));
        assert!(!Link::of("hello_2.10-3~bpo+1_amd64.deb", &Sha256::of(b"y")).unwrap().is_signed_by(&signature));
        let stranger = Signature { key: PublicKey::from_bytes(signing_key(2).verifying_key().to_bytes()), ..signature };
        assert!(!link.is_signed_by(&stranger));
    }

    #[test]
    fn only_packages_with_plain_names_have_one() {
        let sha256 = Sha256::of(b"x");
        let long = format!("{}.deb", "x".repeat(255));
        for name in ["hello.rpm", "out/hello.deb", "he\"llo.deb", "h\\.deb", "h .deb", "h\u{e9}.deb", "", &long] {
            assert_eq!(Link::of(name, &sha256), None, "{name}");
        }
    }

    /// The key of the rebuilder of Debian's amd64, as repro-threshold 0.1.2 has it among its test data, and the id in its links.
    #[test]
    fn keys_have_the_form_and_the_id_of_a_rebuilder_that_is_used() {
        let published = "-----BEGIN PUBLIC KEY-----\n\
            MCwwBwYDK2VwBQADIQATuimKMfCOSfiKc2AT/T1NKQhn9y39Kz5Suo0w5UUXGA==\n-----END PUBLIC KEY-----\n";
        let body: String = published.lines().filter(|line| !line.starts_with('-')).collect();
        let info = BASE64.decode(body.as_bytes()).unwrap();
        let key = PublicKey::from_bytes(info[KEY_INFO.len()..].try_into().unwrap());
        assert_eq!(pem(&key), published);
        assert_eq!(keyid(&key), "2980aa6249ad89ce0ef0f0f5e6d0896214301b2818aad33443444cf460df6ed6");
    }
}
