//! Samples for tests of this and other crates: signed attestations, votes and a whole bundle, over `protocol::testing`.

pub mod course;
pub mod deb;
pub mod log;
pub mod staple;

use std::collections::BTreeMap;

use protocol::{
    Hash, NetworkId, Sha256, Timestamp, Verified,
    job::{JobRequest, job_id},
    lease::{LeaseNumber, Profile},
    message::Octets,
    policy::Policy,
    testing::{node, samples, signing_key},
};

use crate::{
    bundle::Bundle,
    compare::Output,
    independence::Vote,
    statement::{Attestation, Material, Run, Task},
};

/// The name of the package that the sample job builds.
pub const DEB: &str = "base-files_12.4_amd64.deb";

/// Gives the output file of a name and a content.
pub fn output(name: &str, content: &str) -> Output {
    let bytes = content.as_bytes();
    Output {
        hash: Hash::of(bytes),
        name: name.parse().expect("samples are valid words"),
        size: content.len() as u64,
        sha256: Sha256::of(bytes),
    }
}

/// Gives a vote of the sample operator `at` (see `samples::operator`) for a package of this content, under the profile
/// and lease of the same number.
pub fn vote(at: u8, content: &str) -> Vote {
    Vote {
        node: node(10 + at),
        lease: LeaseNumber(u64::from(at) + 1),
        outputs: vec![output(DEB, content)],
        profile: Profile(u16::from(at)),
        operator: samples::operator(at),
    }
}

/// Gives what the sample operator's node `at` says of a request: a package of this content, and its `.buildinfo`.
pub fn attestation(request: &Verified<JobRequest>, at: u8, content: &str) -> Attestation {
    let run = Run {
        node: node(10 + at),
        lease: LeaseNumber(u64::from(at) + 1),
        profile: Profile(u16::from(at)),
        started: samples::NOW,
        finished: Timestamp::from_millis(samples::NOW.as_millis() + 61_000),
        version: "0.1.0".to_owned(),
        node_info: BTreeMap::from([("kernel".to_owned(), "6.1.0-32-amd64".to_owned())]),
    };
    Attestation {
        task: Task::of(job_id(request), request.get()),
        run,
        outputs: vec![output(DEB, content)],
        byproducts: vec![output("base-files_12.4_amd64.buildinfo", &format!("built by {at}"))],
        materials: Material::of(request.get()),
    }
}

/// Gives the signed bytes of [`attestation`].
pub fn signed_attestation(request: &Verified<JobRequest>, at: u8, content: &str) -> Vec<u8> {
    attestation(request, at, content).sign(&signing_key(10 + at)).expect("the sample attestation keeps its own rules")
}

/// Gives a bundle under a genesis policy of this many operators; operator 0 signs the first content, 1 the second, and
/// so on.
pub fn bundle(policy: &Policy, contents: &[&str]) -> (Bundle, NetworkId) {
    let (genesis, network) = samples::signed_genesis(policy);
    let request = samples::signed_request(&samples::deb_request(network));
    let bundle = Bundle {
        lock: Octets(samples::lock().to_bytes()),
        course: None,
        request: Octets(request.to_bytes()),
        policies: vec![Octets(genesis.to_bytes())],
        promotions: Vec::new(),
        attestations: (0u8..)
            .zip(contents)
            .map(|(at, content)| Octets(signed_attestation(&request, at, content)))
            .collect(),
    };
    (bundle, network)
}
