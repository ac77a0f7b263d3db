//! Negatives: a builder's signed statement that its attempt ended without outputs, and why.
//!
//! An in-toto Statement v1 in a DSSE envelope, with a predicate of our own, [`PREDICATE_TYPE`], since none is vetted for a
//! rebuild that failed. The transparency log names the hash of each, so that whoever withholds one leaves a gap.
//!
//! | outcome | when |
//! |---|---|
//! | `job-failed` | the job's own step failed, or broke its limits |
//! | `builder-failed` | the builder could not try |
//! | `interrupted` | it was cut off, or its lease was taken back |
//!
//! There is no statement for outputs that *differ*: a builder does not know what others built when it signs. Its own
//! attestation is the signed proof of that, beside those of the operators that agree.

use ed25519_dalek::SigningKey;
use protocol::{
    Hash, JobId, NetworkId, NodeId, PublicKey,
    blame::{Blame, Failure},
    lease::LeaseNumber,
    limits,
};
use serde::{Deserialize, Serialize};

use crate::{
    dsse,
    statement::{EXACT_MAX, Error},
};

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://artel.example/rebuild-result/v1";
/// The largest envelope, in bytes.
pub const NEGATIVE_MAX: usize = 16 * 1024;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const BUILDER: &str = "https://artel.example/builder/";

/// A builder's word that its attempt has no outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negative {
    /// The network.
    pub network: NetworkId,
    /// The job.
    pub job: JobId,
    /// The builder; the statement is signed by it.
    pub node: NodeId,
    /// The attempt's lease.
    pub lease: LeaseNumber,
    /// Class, step and words.
    pub failure: Failure,
    /// BLAKE3 of the build log, where there is one.
    pub log: Option<Hash>,
}

/// Gives the outcome's word for a class of failure.
pub const fn outcome(blame: Blame) -> &'static str {
    match blame {
        Blame::Job | Blame::Timeout => "job-failed",
        Blame::Builder(_) | Blame::InputMismatch | Blame::IsolationBreach => "builder-failed",
        Blame::Interrupted | Blame::Cancelled => "interrupted",
    }
}

impl Negative {
    /// Signs the statement and gives the DSSE envelope's bytes; equal statements give equal bytes.
    ///
    /// # Errors
    /// When the key is not the builder's, or the envelope would be too large.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, Error> {
        if key.verifying_key().as_bytes() != self.node.as_bytes() {
            return Err(Error::BadSignature { node: self.node });
        }
        let payload = serde_json::to_vec(&Statement::of(self)).expect("a statement is plain data");
        let bytes = dsse::Envelope::sign(dsse::IN_TOTO, payload, &[key]).to_bytes();
        match bytes.len() {
            got if got > NEGATIVE_MAX => Err(dsse::Error::TooLarge { got, limit: NEGATIVE_MAX }.into()),
            _ => Ok(bytes),
        }
    }

    /// Reads a statement: limits, form, the signature of the node that it names, and the network.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn read(bytes: &[u8], network: &NetworkId) -> Result<Self, Error> {
        let envelope = dsse::Envelope::read(bytes, NEGATIVE_MAX)?;
        if envelope.payload_type() != dsse::IN_TOTO {
            return Err(Error::PayloadType { got: envelope.payload_type().chars().take(120).collect() });
        }
        let form = |why: String| Error::Form { why };
        let statement: Statement = serde_json::from_slice(envelope.payload()).map_err(|e| form(e.to_string()))?;
        let negative = statement.meaning().map_err(form)?;
        if envelope.signers(&[PublicKey::from(negative.node)]).is_empty() {
            return Err(Error::BadSignature { node: negative.node });
        }
        if negative.network != *network {
            return Err(Error::OtherNetwork { got: negative.network, wanted: *network });
        }
        Ok(negative)
    }
}

/// Says whether a statement's payload is a negative.
pub(crate) fn is_one(payload: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|said| said["predicateType"] == PREDICATE_TYPE)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Digest {
    blake3: Hash,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    builder: Builder,
    failure: Told,
    job: JobId,
    lease: LeaseNumber,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    log: Option<Log>,
    network: NetworkId,
    outcome: String,
}

#[derive(Serialize, Deserialize)]
struct Builder {
    id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    class: Blame,
    step: String,
    what: String,
}

#[derive(Serialize, Deserialize)]
struct Log {
    digest: Digest,
}

impl Statement {
    fn of(negative: &Negative) -> Self {
        let Failure { blame, step, what } = negative.failure.clone();
        let blake3 = Hash::from_bytes(*negative.job.as_bytes());
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name: format!("job/{}", negative.job), digest: Digest { blake3 } }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                builder: Builder { id: format!("{BUILDER}{}", negative.node) },
                outcome: outcome(blame).to_owned(),
                failure: Told { class: blame, step, what },
                job: negative.job,
                lease: negative.lease,
                log: negative.log.map(|blake3| Log { digest: Digest { blake3 } }),
                network: negative.network,
            },
        }
    }

    fn meaning(self) -> Result<Negative, String> {
        let Predicate { builder, failure, job, lease, log, network, outcome: told } = self.predicate;
        if self.statement_type != STATEMENT_TYPE || self.predicate_type != PREDICATE_TYPE {
            return Err(format!("it is no {PREDICATE_TYPE} in a {STATEMENT_TYPE}"));
        }
        let about = |subject: &Subject| subject.digest.blake3.as_bytes() == job.as_bytes();
        if self.subject.len() != 1 || !self.subject.iter().all(about) {
            return Err("its subject is not the job that its predicate names".into());
        }
        if told != outcome(failure.class) {
            return Err(format!("a failure of class {} is no outcome {told:?}", failure.class.word()));
        }
        if lease.0 > EXACT_MAX {
            return Err(format!("a lease number is at most {EXACT_MAX}"));
        }
        let node = builder.id.strip_prefix(BUILDER).and_then(|id| id.parse::<NodeId>().ok());
        let node =
            node.ok_or_else(|| format!("builder {:?} is no node", builder.id.chars().take(120).collect::<String>()))?;
        let failure = Failure { blame: failure.class, step: failure.step, what: failure.what };
        Ok(Negative { network, job, node, lease, failure, log: log.map(|log| log.digest.blake3) })
    }
}

const _: () = assert!(NEGATIVE_MAX <= limits::ATTESTATION_MAX, "a negative fits where an attestation does");

#[cfg(test)]
mod tests {
    use protocol::testing::{node, samples, signing_key};
    use serde_json::Value;

    use super::*;

    fn negative() -> Negative {
        Negative {
            network: samples::network(),
            job: protocol::job::job_id(&samples::signed_request(&samples::deb_request(samples::network()))),
            node: node(10),
            lease: LeaseNumber(7),
            failure: samples::failure(),
            log: Some(Hash::of(b"log")),
        }
    }

    /// Signs a changed payload with the builder's own key and gives what the reader says of it.
    fn resigned(change: impl FnOnce(&mut Value)) -> Result<Negative, Error> {
        let bytes = negative().sign(&signing_key(10)).unwrap();
        let envelope = dsse::Envelope::read(&bytes, NEGATIVE_MAX).unwrap();
        let mut json: Value = serde_json::from_slice(envelope.payload()).unwrap();
        change(&mut json);
        let payload = serde_json::to_vec(&json).unwrap();
        let bytes = dsse::Envelope::sign(dsse::IN_TOTO, payload, &[&signing_key(10)]).to_bytes();
        Negative::read(&bytes, &samples::network())
    }

    #[test]
    fn what_was_signed_is_read_and_every_class_has_an_outcome() {
        for blame in Blame::EVERY {
            let failure = Failure::new(blame, "build", "words");
            for log in [None, Some(Hash::of(b"log"))] {
                let said = Negative { failure: failure.clone(), log, ..negative() };
                let bytes = said.sign(&signing_key(10)).unwrap();
                assert_eq!(Negative::read(&bytes, &samples::network()).unwrap(), said);
            }
        }
    }

    #[test]
    fn a_negative_as_json() {
        let bytes = negative().sign(&signing_key(10)).unwrap();
        let envelope = dsse::Envelope::read(&bytes, NEGATIVE_MAX).unwrap();
        let json: Value = serde_json::from_slice(envelope.payload()).unwrap();
        assert_eq!(json["predicateType"], PREDICATE_TYPE);
        assert_eq!(json["predicate"]["outcome"], "job-failed");
        assert_eq!(json["predicate"]["failure"]["class"], "job");
        assert_eq!(json["subject"][0]["digest"]["blake3"], json["predicate"]["job"]);
    }

    #[test]
    fn what_is_not_the_builders_word_is_refused() {
        assert!(resigned(|_| {}).is_ok());
        assert!(resigned(|json| json["predicate"]["outcome"] = "builder-failed".into()).is_err());
        assert!(resigned(|json| json["predicateType"] = "https://slsa.dev/provenance/v1".into()).is_err());
        assert!(resigned(|json| json["subject"][0]["digest"]["blake3"] = Hash::of(b"x").to_string().into()).is_err());
        assert!(resigned(|json| json["predicate"]["more"] = 1.into()).is_err());
        let other = resigned(|json| json["predicate"]["builder"]["id"] = format!("{BUILDER}{}", node(11)).into());
        assert!(matches!(other, Err(Error::BadSignature { .. })), "{other:?}");
        let elsewhere =
            resigned(|json| json["predicate"]["network"] = NetworkId::from_bytes([9; 32]).to_string().into());
        assert!(matches!(elsewhere, Err(Error::OtherNetwork { .. })), "{elsewhere:?}");
        assert!(matches!(negative().sign(&signing_key(11)), Err(Error::BadSignature { .. })));
    }
}
