//! Golden bytes: what is on the wire stays on the wire.
//!
//! `fixtures/wire/v1` holds the bytes of every sample as hexadecimal text. A difference means that old and new nodes no
//! longer understand each other: make a new version of the record instead, or, before the first release, run the tests
//! once with `ARTEL_BLESS=1` and review the difference.

use std::{collections::BTreeSet, fmt::Debug, fs, path::PathBuf};

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::{assert_canonical, samples};
use crate::{
    Envelope, Hash, Signed,
    codec::{self, DoorError},
    envelope::Record,
    job::{Change, Group, JobRequest, Order, Priority, Schedule},
    message::{Refusal, Request, Response},
    recipe::Recipe,
    testing::signing_key,
};

/// What the door makes of bytes that resemble a sample.
#[derive(Debug, PartialEq)]
enum Reading {
    Refused,
    SameValue,
    OtherValue { reencoded: Vec<u8> },
}

type Reader = Box<dyn Fn(&[u8]) -> Reading>;

struct Golden {
    name: String,
    bytes: Vec<u8>,
    read: Reader,
}

fn golden<T>(name: impl Into<String>, value: T) -> Golden
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    assert_canonical(&value);
    let bytes = codec::encode(&value);
    let read = move |bytes: &[u8]| match codec::decode::<T>(bytes, usize::MAX) {
        Err(_) => Reading::Refused,
        Ok(other) if other == value => Reading::SameValue,
        Ok(other) => Reading::OtherValue { reencoded: codec::encode(&other) },
    };
    Golden { name: name.into(), bytes, read: Box::new(read) }
}

fn signed<T: Record>(value: &T) -> Envelope {
    let network = samples::network();
    let bytes = Signed::sign(value, Some(&network), &[&signing_key(1), &signing_key(2)]).to_bytes();
    codec::decode(&bytes, usize::MAX).unwrap()
}

fn all() -> Vec<Golden> {
    let network = samples::network();
    let mut all = vec![
        golden("record-policy-genesis", samples::genesis(3)),
        golden("record-policy-second", samples::second(network, 3)),
        golden("record-policy-third", samples::third(network)),
        golden("record-job-deb", samples::deb_request(network)),
        golden("record-job-rpm", samples::rpm_request(network)),
        golden("record-job-command", samples::command_request(network)),
        golden("record-job-command-light", samples::light_request(network)),
        golden("record-job-image", samples::image_request(network)),
        golden("record-job-fetch", samples::fetch_request(network)),
        golden("record-recipe", samples::recipe(network)),
        golden("record-recipe-named", samples::recipe_named(network)),
        golden("record-recipe-removed", Recipe { plan: None, ..samples::recipe(network) }),
        golden("record-recipe-run", samples::recipe_run(network)),
        golden(
            "record-job-scheduled",
            JobRequest { schedule: samples::schedule(), ..samples::command_request(network) },
        ),
        golden("record-job-grouped", {
            let group = Some(Group { id: Hash::of(b"group"), variant: "arm64".parse().unwrap() });
            let schedule = Schedule { group, ..samples::schedule() };
            JobRequest { schedule, ..samples::command_request(network) }
        }),
        golden("record-leadership", samples::leadership()),
        golden("record-order", samples::order()),
        golden("record-order-priority", Order { what: Change::Reprioritise(Priority(9)), ..samples::order() }),
        golden("record-announcement", samples::announcement()),
        golden("record-node-card", samples::node_card()),
        golden("record-node-card-fetch", samples::node_card_of_fetcher()),
        golden("record-release", samples::release()),
        golden("record-manifest", samples::manifest()),
        golden("record-manifest-rpm", samples::manifest_of_rpm()),
        golden("record-lock", samples::lock()),
        golden("record-lock-rpm", samples::lock_of_rpm()),
        golden("record-lease", samples::lease()),
        golden("record-failure", samples::failure()),
        golden("envelope-job-deb", signed(&samples::deb_request(network))),
        golden("envelope-release", signed(&samples::release())),
    ];
    let server = samples::server_jobs().into_iter();
    all.extend(server.map(|(name, kind)| golden(format!("record-job-{name}"), samples::server_request(network, kind))));
    all.extend(samples::requests().into_iter().map(|(name, value)| golden(format!("request-{name}"), value)));
    all.extend(samples::responses().into_iter().map(|(name, value)| golden(format!("response-{name}"), value)));
    all
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/wire/v1")
}

/// Breaks hexadecimal text into lines that can be reviewed.
fn as_text(bytes: &[u8]) -> String {
    let hex = HEXLOWER.encode(bytes);
    let lines: Vec<&str> = hex.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
    lines.join("\n") + "\n"
}

#[test]
fn every_sample_has_its_golden_bytes() {
    let bless = std::env::var_os("ARTEL_BLESS").is_some();
    for sample in all() {
        let path = folder().join(format!("{}.hex", sample.name));
        if bless {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, as_text(&sample.bytes)).unwrap();
        }
        let kept = fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; run this test once with ARTEL_BLESS=1", sample.name));
        assert_eq!(kept, as_text(&sample.bytes), "{} changed on the wire; see the head of this file", sample.name);
    }
}

#[test]
fn no_golden_file_is_forgotten() {
    let known: Vec<String> = all().into_iter().map(|sample| format!("{}.hex", sample.name)).collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // A folder belongs to the crate of its name.
        assert!(entry.file_type().unwrap().is_dir() || known.contains(&name), "{name} belongs to no sample");
    }
}

/// Numbers the variants without a wildcard, so that a new one does not compile until it is here and among the samples.
fn request_ordinal(request: &Request) -> usize {
    match request {
        Request::Submit(_) => 0,
        Request::Order(_) => 1,
        Request::Policy => 2,
        Request::AdoptPolicy(_) => 3,
        Request::Open => 4,
        Request::Job(_) => 5,
        Request::Providers(_) => 6,
        Request::Bid(_) => 7,
        Request::Grant(..) => 8,
        Request::Revoke(..) => 9,
        Request::Renew(_) => 10,
        Request::Started(_) => 11,
        Request::Revealed(_) => 12,
        Request::Failed(_) => 13,
        Request::Log(..) => 14,
        Request::Release(_) => 15,
        Request::View(_) => 16,
        Request::Leader => 17,
        Request::Offer(_) => 18,
        Request::Signer(_) => 19,
        Request::Recipe(_) => 20,
        Request::RecipeRun(_) => 21,
        Request::AddCheckpoint(_) => 22,
        Request::Checkpoint(_) => 23,
        Request::Commit(_) => 24,
        Request::Reveal(..) => 25,
        Request::Disclose(..) => 26,
        Request::ReleaseProof(_) => 27,
        Request::Grounds(..) => 28,
    }
}

fn response_ordinal(response: &Response) -> usize {
    match response {
        Response::Done => 0,
        Response::Receipt(..) => 1,
        Response::Record(_) => 2,
        Response::Records(_) => 3,
        Response::Providers(_) => 4,
        Response::Lost(_) => 5,
        Response::Log(_) => 6,
        Response::View(_) => 7,
        Response::Refused(Refusal::NotCoordinator(_)) => 8,
        Response::Refused(Refusal::Unknown(_)) => 9,
        Response::Refused(Refusal::Invalid(_)) => 10,
        Response::Refused(Refusal::NotAllowed(_)) => 11,
        Response::Refused(Refusal::Busy(_)) => 12,
        Response::Witness(..) => 13,
        Response::Checkpoint(_) => 14,
        Response::Conflict(_) => 15,
        Response::Reveal => 16,
        Response::Grounds(_) => 17,
    }
}

#[test]
fn every_message_variant_has_a_sample() {
    let requests: BTreeSet<usize> = samples::requests().iter().map(|(_, r)| request_ordinal(r)).collect();
    let responses: BTreeSet<usize> = samples::responses().iter().map(|(_, r)| response_ordinal(r)).collect();
    assert_eq!(requests, (0..=28).collect());
    assert_eq!(responses, (0..=17).collect());
}

/// One change of a byte string.
#[derive(Debug, Clone)]
enum Mutation {
    Flip { at: prop::sample::Index, bit: u8 },
    Set { at: prop::sample::Index, byte: u8 },
    Insert { at: prop::sample::Index, byte: u8 },
    Remove { at: prop::sample::Index },
    Truncate { at: prop::sample::Index },
    Repeat { at: prop::sample::Index, count: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert { at, byte }),
        at().prop_map(|at| Mutation::Remove { at }),
        at().prop_map(|at| Mutation::Truncate { at }),
        (at(), 1..9usize).prop_map(|(at, count)| Mutation::Repeat { at, count }),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match mutation {
        Mutation::Flip { at, bit } => bytes[at.index(len)] ^= 1 << bit,
        Mutation::Set { at, byte } => bytes[at.index(len)] = *byte,
        Mutation::Insert { at, byte } => bytes.insert(at.index(len), *byte),
        Mutation::Remove { at } => drop(bytes.remove(at.index(len))),
        Mutation::Truncate { at } => bytes.truncate(at.index(len)),
        Mutation::Repeat { at, count } => {
            let start = at.index(len);
            let part = bytes[start..(start + count).min(len)].to_vec();
            bytes.splice(start..start, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant: one meaning, one byte string. Whatever is done to a record's bytes, the door does not panic, and what
    /// it lets in writes itself as exactly those bytes and means something else.
    #[test]
    fn mutated_records_are_refused_or_mean_something_else(mutations in prop::collection::vec(mutation(), 1..4)) {
        for sample in all() {
            let mut bytes = sample.bytes.clone();
            mutations.iter().for_each(|m| mutate(&mut bytes, m));
            match (sample.read)(&bytes) {
                Reading::Refused => {}
                Reading::SameValue => prop_assert_eq!(&bytes, &sample.bytes, "{} has an alias", sample.name),
                Reading::OtherValue { reencoded } => {
                    prop_assert_eq!(&reencoded, &bytes, "{} is not canonical", sample.name);
                    prop_assert_ne!(&bytes, &sample.bytes);
                }
            }
        }
    }

    /// Invariant: garbage never panics, neither in the form check nor in a decoder.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::check_canonical(&bytes);
        let _ = codec::decode::<Request>(&bytes, 300);
        let _ = codec::decode::<Response>(&bytes, 300);
        let _ = Signed::<crate::policy::Policy>::read(&bytes);
    }
}

#[test]
fn a_record_over_its_limit_is_refused_before_it_is_decoded() {
    let bytes = codec::encode(&samples::genesis(3));
    let limit = bytes.len() - 1;
    let refused = codec::decode::<crate::policy::Policy>(&bytes, limit);
    assert_eq!(refused, Err(DoorError::TooLarge { got: bytes.len(), limit }));
}
