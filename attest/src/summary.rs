//! Summaries: what a job came to, as its publisher says it to tools that nobody here wrote (in-toto SVR v0.2).
//!
//! A summary adds nothing to what the attestations prove, and [`crate::verify`] does not read it: it is for those who believe
//! the coordinator and want one signature to look at.

use ed25519_dalek::SigningKey;
use protocol::{NodeId, Timestamp};
use serde_json::{Value, json};

use crate::{
    dsse,
    statement::{STATEMENT_TYPE, write_time},
    verify::Proof,
};

/// The predicate's type.
pub const PREDICATE: &str = "https://in-toto.io/attestation/svr/v0.2";
/// How a verifier is named.
const VERIFIER: &str = "https://artel.example/node/";

/// Signs what was proven at a time, and gives the DSSE envelope's bytes: one line. Equal arguments give equal bytes.
pub fn sign(proof: &Proof, at: Timestamp, key: &SigningKey) -> Vec<u8> {
    let node = NodeId::from_bytes(key.verifying_key().to_bytes());
    let payload = serde_json::to_vec(&statement(proof, at, &node)).expect("strings and numbers always write as JSON");
    dsse::Envelope::sign(dsse::IN_TOTO, payload, &[key]).to_bytes()
}

/// Says whether a statement's payload is a summary.
pub(crate) fn is_one(payload: &[u8]) -> bool {
    serde_json::from_slice::<Value>(payload).is_ok_and(|statement| statement["predicateType"] == PREDICATE)
}

fn statement(proof: &Proof, at: Timestamp, node: &NodeId) -> Value {
    let subject = |o: &crate::compare::Output| json!({ "name": o.name, "digest": { "sha256": o.sha256 } });
    let profiles: std::collections::BTreeSet<_> = proof.votes.iter().map(|vote| vote.profile).collect();
    json!({
        "_type": STATEMENT_TYPE,
        "subject": proof.outputs.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": PREDICATE,
        "predicate": {
            "verifier": {
                "id": format!("{VERIFIER}{node}"),
                "policies": [{
                    "uri": format!("https://artel.example/network/{}/policy/{}", proof.network, proof.policy.number),
                    "name": proof.channel,
                }],
            },
            "timeCreated": write_time(at),
            "properties": [
                format!("ARTEL_REPRODUCED_BY_{}", proof.agree.len()),
                format!("ARTEL_WANTED_{}", proof.rule.agree),
                format!("ARTEL_PROFILES_{}", profiles.len()),
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use protocol::testing::{samples, signing_key};

    use super::*;
    use crate::{testing::bundle, verify::verify};

    #[test]
    fn a_summary_names_the_files_and_how_many_made_them() {
        let (bundle, network) = bundle(&samples::genesis(3), &["x", "x", "lie"]);
        let proof = verify(&bundle, &network, samples::NOW).unwrap();
        let bytes = sign(&proof, samples::NOW, &signing_key(10));
        assert_eq!(bytes, sign(&proof, samples::NOW, &signing_key(10)));
        let envelope = dsse::Envelope::read(&bytes, 1 << 16).unwrap();
        assert!(is_one(envelope.payload()) && !is_one(b"{}") && !bytes.contains(&b'\n'));
        let value: Value = serde_json::from_slice(envelope.payload()).unwrap();
        assert_eq!(value["subject"][0]["digest"]["sha256"], proof.outputs[0].sha256.to_string());
        assert_eq!(value["predicate"]["timeCreated"], "2026-11-21T00:00:00Z");
        assert_eq!(value["predicate"]["properties"][0], "ARTEL_REPRODUCED_BY_2");
        assert_eq!(envelope.signers(&[protocol::testing::public_key(10)]).len(), 1);
    }
}
