//! DSSE v1.0.2 envelopes as JSON: how attestations travel, readable by tools that nobody here wrote.
//!
//! The envelope says nothing about the payload's meaning; [`crate::statement`] does. Key ids are written because other
//! verifiers want them, and only say whom to try first: who signed is decided by trying keys.

use std::collections::{BTreeMap, BTreeSet};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use protocol::{
    PublicKey, Sha256,
    envelope::{Envelope as Record, Signature, pae, verify_ed25519, verify_signature},
    limits,
};
use serde::{Deserialize, Serialize};

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// What checking an envelope's signatures may cost, in bytes that are hashed, since each signature is over the whole payload: as much
/// as the largest request with every signature that it may have. The largest attestation, which needs one, may have 29.
pub const SIGNED_BYTES_MAX: usize = limits::SIGNATURES_MAX * limits::JOB_MAX;
/// What trying a key costs beside the hash, in bytes that could be hashed meanwhile.
const TRY_COST: usize = 16 * 1024;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_LENIENT: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Why bytes are no DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More bytes than allowed.
    #[error("envelope of {got} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No JSON of this form.
    #[error("not a DSSE envelope: {why}")]
    Json {
        /// The parser's words.
        why: String,
    },
    /// A field is not base64, neither standard nor URL-safe.
    #[error("{field} of the envelope is not base64")]
    Base64 {
        /// The field.
        field: &'static str,
    },
    /// No signature, or too many.
    #[error("an envelope has 1 to {max} signatures, not {got}", max = limits::SIGNATURES_MAX)]
    SignatureCount {
        /// Signatures found.
        got: usize,
    },
    /// Every signature costs as much as the payload is long.
    #[error("{signatures} signatures over {payload} bytes each are more than anybody checks")]
    TooCostly {
        /// Signatures found.
        signatures: usize,
        /// The payload's bytes.
        payload: usize,
    },
}

/// A payload with its type and signatures, believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<WireSignature>,
}

/// The signature as other tools want it: `sig` is base64 in JSON and bytes here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WireSignature {
    keyid: String,
    sig: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<JsonSignature>,
}

#[derive(Serialize, Deserialize)]
struct JsonSignature {
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

/// Gives the key id that securesystemslib computes: SHA-256 of the key's canonical JSON.
pub fn keyid(key: &PublicKey) -> String {
    let json = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{key}"}},"scheme":"ed25519"}}"#);
    HEXLOWER.encode(Sha256::of(json.as_bytes()).as_bytes())
}

impl Envelope {
    /// Signs a payload with one or more keys.
    pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&SigningKey]) -> Self {
        let message = pae(payload_type, &payload);
        let signatures = keys
            .iter()
            .map(|key| WireSignature {
                keyid: keyid(&PublicKey::from_bytes(key.verifying_key().to_bytes())),
                sig: key.sign(&message).to_bytes().to_vec(),
            })
            .collect();
        Self { payload_type: payload_type.to_owned(), payload, signatures }
    }

    /// Gives a record's envelope as JSON: the same type, payload and signatures, since both sign the same encoding.
    pub fn of_record(record: &Record) -> Self {
        let signatures = record.sigs.iter().map(|s| WireSignature { keyid: keyid(&s.key), sig: s.sig.clone() });
        Self { payload_type: record.kind.clone(), payload: record.payload.clone(), signatures: signatures.collect() }
    }

    /// Gives a record's envelope back, with the signatures of those of the candidates that signed; none where nobody of them
    /// did. Where key ids name nobody of them, others are tried until that has cost too much: about a thousand for a small
    /// payload, sixty for the largest.
    pub fn to_record<T: protocol::envelope::Record>(&self, candidates: &[PublicKey]) -> Option<Record> {
        let message = pae(&self.payload_type, &self.payload);
        let mut sigs: BTreeMap<PublicKey, Signature> = BTreeMap::new();
        let by_id: BTreeMap<String, &PublicKey> = candidates.iter().map(|key| (keyid(key), key)).collect();
        let mut tries = SIGNED_BYTES_MAX / (self.payload.len() + TRY_COST);
        for WireSignature { keyid: id, sig } in &self.signatures {
            let by = |key: &PublicKey| Signature { key: *key, sig: sig.clone() };
            let good = |signature: &Signature| verify_signature::<T>(signature, &message).is_ok();
            let named = by_id.get(id).map(|key| by(key)).filter(good);
            let found = named.or_else(|| {
                let tried = candidates.iter().take(tries);
                tries -= tried.len();
                tried.map(by).find(good)
            });
            sigs.extend(found.map(|signature| (signature.key, signature)));
        }
        let sigs: Vec<_> = sigs.into_values().collect();
        let record = Record { sigs, kind: self.payload_type.clone(), payload: self.payload.clone() };
        (!record.sigs.is_empty()).then_some(record)
    }

    /// Reads an envelope: size first, then form. Unknown fields are ignored, as DSSE demands.
    ///
    /// # Errors
    /// [`Error`]; no signature is checked here.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, Error> {
        if bytes.len() > limit {
            return Err(Error::TooLarge { got: bytes.len(), limit });
        }
        let json: JsonEnvelope = serde_json::from_slice(bytes).map_err(|e| Error::Json { why: printable(&e) })?;
        if json.signatures.is_empty() || json.signatures.len() > limits::SIGNATURES_MAX {
            return Err(Error::SignatureCount { got: json.signatures.len() });
        }
        let payload = decode("the payload", &json.payload)?;
        let count = json.signatures.len();
        if count > 1 && count.saturating_mul(payload.len()) > SIGNED_BYTES_MAX {
            return Err(Error::TooCostly { signatures: count, payload: payload.len() });
        }
        let signatures = json.signatures.into_iter().map(|s| {
            let sig = decode("a signature", &s.sig)?;
            Ok(WireSignature { keyid: s.keyid.unwrap_or_default(), sig })
        });
        Ok(Self { payload, signatures: signatures.collect::<Result<_, Error>>()?, payload_type: json.payload_type })
    }

    /// Gives the JSON bytes, always in the same form: standard base64, no spaces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let encode = |bytes: &[u8]| general_purpose::STANDARD.encode(bytes);
        let signatures = self.signatures.iter();
        let json = JsonEnvelope {
            payload: encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: signatures
                .map(|s| JsonSignature { keyid: Some(s.keyid.clone()), sig: encode(&s.sig) })
                .collect(),
        };
        serde_json::to_vec(&json).expect("strings always write as JSON")
    }

    /// Gives the payload's type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// Gives the payload as received. Parse these bytes, no others, after [`Envelope::signers`] named who signed them.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Gives those of the candidates that signed. Distinct public keys count, whatever the key ids say: one key under
    /// two ids is one signer.
    pub fn signers(&self, candidates: &[PublicKey]) -> BTreeSet<PublicKey> {
        let message = pae(&self.payload_type, &self.payload);
        let signed = |key: &&PublicKey| self.signatures.iter().any(|s| verify_ed25519(key, &message, &s.sig).is_ok());
        candidates.iter().filter(signed).copied().collect()
    }
}

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    STANDARD_LENIENT.decode(text).or_else(|_| URL_LENIENT.decode(text)).map_err(|_| Error::Base64 { field })
}

/// Gives a parser's words, which may quote a stranger's text, short and without control characters.
pub(crate) fn printable(error: &serde_json::Error) -> String {
    error.to_string().chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
