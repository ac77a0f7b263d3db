//! The log of a network follows from its policy.

use protocol::{
    Hash, Timestamp,
    testing::{samples, signing_key},
};

use super::*;
use crate::log::{
    checkpoint::Signed,
    note::{Line, Note},
    tree::Head,
};

/// Three operators with a node each, of the seeds 10 to 12; the first coordinates.
fn world() -> (Policy, NetworkId) {
    let policy = samples::genesis(3);
    let network = samples::signed_genesis(&policy).1;
    (policy, network)
}

fn cosigned(signed: &Signed, seeds: &[u8]) -> Signed {
    let lines = seeds.iter().map(|seed| {
        let (node, at) = (protocol::testing::node(*seed), Timestamp::from_millis(1_700_000_000_000));
        Line::cosign(&witness_name(&node), &signing_key(*seed), signed.note().text(), at)
    });
    let note: Note = signed.note().with(lines).unwrap();
    Signed::read(note.to_string().as_bytes()).unwrap()
}

#[test]
fn a_coordinator_signs_and_operators_see() {
    let (policy, network) = world();
    let signed = Signed::sign(&origin(&network), Head::empty(), &signing_key(10));
    let none = log_policy(&network, &policy, 0).unwrap();
    assert!(none.check(signed.clone()).unwrap().seen.is_empty());
    let two = log_policy(&network, &policy, 2).unwrap();
    assert_eq!(two.check(cosigned(&signed, &[10])).unwrap_err(), PolicyError::Quorum { seen: 1 });
    assert_eq!(two.check(cosigned(&signed, &[10, 12])).unwrap().seen.len(), 2);
    let stranger = two.check(cosigned(&signed, &[10, 40]));
    assert_eq!(stranger.unwrap_err(), PolicyError::Quorum { seen: 1 }, "a mirror is no operator's node");
}

#[test]
fn a_stranger_and_another_network_are_no_log_of_this_one() {
    let (policy, network) = world();
    let all = log_policy(&network, &policy, 0).unwrap();
    assert!(all.check(Signed::sign(&origin(&network), Head::empty(), &signing_key(12))).is_err());
    let elsewhere = NetworkId::from(Hash::of(b"another"));
    assert!(all.check(Signed::sign(&origin(&elsewhere), Head::empty(), &signing_key(10))).is_err());
}

#[test]
fn no_quorum_is_larger_than_the_operators() {
    let (policy, network) = world();
    assert!(log_policy(&network, &policy, 3).is_ok());
    assert!(log_policy(&network, &policy, 4).is_err());
}
