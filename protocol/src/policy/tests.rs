//! Who may change the policy, and what a policy may not say.

use super::*;
use crate::{
    Signed, codec,
    envelope::EnvelopeError,
    testing::{node, public_key, samples, signing_key},
};

fn genesis() -> (Verified<Policy>, NetworkId) {
    samples::signed_genesis(&samples::genesis(3))
}

fn signed(policy: &Policy, network: &NetworkId, seeds: &[u8]) -> Verified<Policy> {
    let keys: Vec<_> = seeds.iter().map(|seed| signing_key(*seed)).collect();
    Signed::sign(policy, Some(network), &keys.iter().collect::<Vec<_>>()).verify(Some(network)).unwrap()
}

fn succession(change: impl FnOnce(&mut Policy), seeds: &[u8]) -> Result<(), SuccessionError> {
    let (current, network) = genesis();
    let mut next = samples::second(network, 3);
    change(&mut next);
    check_successor(current.get(), &network, &signed(&next, &network, seeds), samples::NOW)
}

#[test]
fn the_network_is_its_genesis() {
    let (policy, network) = genesis();
    assert_eq!(check_genesis(&policy, samples::NOW), Ok(network));
    let expiry = policy.get().expires;
    assert_eq!(check_genesis(&policy, expiry), Err(SuccessionError::Expired));
}

#[test]
fn a_genesis_signed_by_a_stranger_makes_no_network() {
    let policy = Signed::sign(&samples::genesis(3), None, &[&signing_key(9)]).verify(None).unwrap();
    assert_eq!(check_genesis(&policy, samples::NOW), Err(SuccessionError::TooFewRoots { got: 0, wanted: 1 }));
}

#[test]
fn a_successor_needs_the_previous_roots() {
    assert_eq!(succession(|_| (), &[1]), Ok(()));
    assert_eq!(succession(|_| (), &[9]), Err(SuccessionError::TooFewRoots { got: 0, wanted: 1 }));
    let takeover = |next: &mut Policy| next.roots = Roots { keys: vec![public_key(9)], threshold: 1 };
    assert_eq!(succession(takeover, &[9]), Err(SuccessionError::TooFewRoots { got: 0, wanted: 1 }));
    assert_eq!(succession(takeover, &[1, 9]), Ok(()), "the previous root may hand over");
}

#[test]
fn a_threshold_counts_distinct_roots() {
    let (_, network) = genesis();
    let mut current = samples::second(network, 3);
    current.roots.keys = vec![public_key(1), public_key(3)];
    current.roots.keys.sort();
    current.roots.threshold = 2;
    let next = Policy { number: 3, ..current.clone() };
    let check = |seeds: &[u8]| check_successor(&current, &network, &signed(&next, &network, seeds), samples::NOW);
    assert_eq!(check(&[1, 1]), Err(SuccessionError::TooFewRoots { got: 1, wanted: 2 }));
    assert_eq!(check(&[1, 9]), Err(SuccessionError::TooFewRoots { got: 1, wanted: 2 }));
    assert_eq!(check(&[1, 3]), Ok(()));
}

#[test]
fn a_successor_is_newer_unexpired_and_for_this_network() {
    let (current, network) = genesis();
    let second = samples::second(network, 3);
    let next = signed(&second, &network, &[1]);
    let replayed = check_successor(&second, &network, &next, samples::NOW);
    assert_eq!(replayed, Err(SuccessionError::NotNewer { got: 2, current: 2 }));
    let late = check_successor(current.get(), &network, &next, second.expires);
    assert_eq!(late, Err(SuccessionError::Expired));
    let other = NetworkId::from_bytes([9; 32]);
    let foreign = Policy { network: Some(other), ..second };
    assert_eq!(succession(|next| *next = foreign, &[1]), Err(SuccessionError::OtherNetwork));
}

/// Gives the rule that a changed genesis breaks.
fn rule_broken(change: impl FnOnce(&mut Policy)) -> String {
    let mut policy = samples::genesis(3);
    change(&mut policy);
    match Signed::sign(&policy, None, &[&signing_key(samples::ROOT_SEED)]).verify(None) {
        Err(EnvelopeError::Meaning { why, .. }) => why,
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn the_rules_one_by_one() {
    assert!(rule_broken(|p| p.roots.threshold = 0).contains("threshold"));
    assert!(rule_broken(|p| p.roots.threshold = 2).contains("threshold"));
    assert!(rule_broken(|p| p.number = 2).contains("version 1"));
    assert!(rule_broken(|p| p.operators.reverse()).contains("operators"));
    assert!(rule_broken(|p| p.operators[0].nodes = vec![node(10); 1025]).contains("at most 1024"));
    assert!(rule_broken(|p| p.channels[0].agree = 0).contains("channel stable"));
    assert!(rule_broken(|p| p.channels[0].agree = 3).contains("channel stable"));
    assert!(rule_broken(|p| p.channels[0].ask_max = 1).contains("channel stable"));
    assert!(rule_broken(|p| p.channels[0].fail_quorum = 0).contains("channel stable"));
    assert!(rule_broken(|p| p.coordinators = Coordinators::Elected(vec![])).contains("coordinate"));
    assert!(rule_broken(|p| p.bootstrap = vec!["x".repeat(513)]).contains("bootstrap"));
}

/// A node with two operators would have two votes.
#[test]
fn no_node_has_two_operators() {
    assert!(rule_broken(|p| p.operators[1].nodes = vec![node(10)]).contains("two operators"));
}

#[test]
fn members_are_operators_nodes_and_coordinators() {
    let policy = samples::genesis(3);
    assert_eq!(policy.operator_of(&node(11)), Some(&samples::operator(1)));
    assert_eq!(policy.operator_of(&node(99)), None);
    assert!(policy.is_member(&node(10)) && !policy.is_member(&node(99)));
}

#[test]
fn a_channel_that_does_not_ask_for_attested_environments_is_written_as_before() {
    let channel = samples::channel(2, 2);
    let plain = codec::encode(&channel);
    let asks = codec::encode(&Channel { attested_environments: true, ..channel.clone() });
    assert!(asks.len() > plain.len());
    assert_eq!(codec::decode::<Channel>(&plain, 4096).unwrap(), channel);
    assert!(codec::decode::<Channel>(&asks, 4096).unwrap().attested_environments);
    let word = b"attested_environments";
    assert!(!plain.windows(word.len()).any(|bytes| bytes == word));
    let mut no = asks.clone();
    *no.last_mut().unwrap() = 0xf4;
    assert!(codec::decode::<Channel>(&no, 4096).is_err(), "an absent field has one form");
}

#[test]
fn nobody_asks_for_more_witnesses_than_there_are_operators() {
    let mut policy = samples::genesis(2);
    policy.channels[0].witnesses = 2;
    assert_eq!(policy.check(), Ok(()));
    policy.channels[0].witnesses = 3;
    assert!(policy.check().unwrap_err().contains("there are 2 operators"));
}

fn revoke(policy: &mut Policy, key: PublicKey, from: u64) {
    policy.revoked.push(Revoked { key, from, reason: "lost on a train".to_owned() });
    policy.revoked.sort();
}

#[test]
fn a_revoked_key_has_no_part_and_its_revocation_a_reason() {
    for (key, part) in [
        (public_key(samples::ROOT_SEED), "a root"),
        (public_key(samples::MAINTAINER_SEED), "a maintainer"),
        (PublicKey::from(node(11)), "an operator's node"),
        (PublicKey::from(node(40)), "a mirror"),
    ] {
        let why = rule_broken(|p| revoke(p, key, 5));
        assert!(why.contains(&format!("is revoked and is {part}:")), "{why}");
    }
    let why = rule_broken(|p| {
        p.coordinators = Coordinators::Pinned(node(50));
        revoke(p, PublicKey::from(node(50)), 5);
    });
    assert!(why.contains("a coordinator"), "{why}");
    for reason in ["", "two\nlines", &"x".repeat(257)] {
        let why = rule_broken(|p| p.revoked = vec![Revoked { key: public_key(9), from: 0, reason: reason.to_owned() }]);
        assert!(why.contains("needs a reason"), "{why}");
    }
    let twice = rule_broken(|p| {
        revoke(p, public_key(9), 5);
        revoke(p, public_key(9), 6);
    });
    assert!(twice.contains("revoked must be sorted"), "{twice}");
}

#[test]
fn a_revocation_is_never_taken_back_nor_moved_to_a_later_place() {
    let (_, network) = genesis();
    let mut current = samples::second(network, 3);
    revoke(&mut current, public_key(9), 70);
    let successor = |change: &dyn Fn(&mut Policy)| {
        let mut next = Policy { number: 3, ..current.clone() };
        change(&mut next);
        let new: Vec<_> = next.revoked_since(&current).map(|revoked| revoked.from).collect();
        (check_successor(&current, &network, &signed(&next, &network, &[1]), samples::NOW), new)
    };
    assert_eq!(successor(&|_| ()), (Ok(()), vec![]));
    assert_eq!(successor(&|p| p.revoked[0].reason = "other words".to_owned()), (Ok(()), vec![]));
    assert_eq!(successor(&|p| p.revoked[0].from = 69), (Ok(()), vec![69]), "earlier is stricter");
    assert_eq!(successor(&|p| revoke(p, public_key(8), 3)), (Ok(()), vec![3]));
    let key = public_key(9);
    assert_eq!(successor(&|p| p.revoked.clear()).0, Err(SuccessionError::TakenBack { key }));
    let later = SuccessionError::RevokedLater { key, from: 71, before: 70 };
    assert_eq!(successor(&|p| p.revoked[0].from = 71).0, Err(later));
}

#[test]
fn a_policy_that_revokes_nothing_is_written_as_before() {
    let plain = codec::encode(&samples::genesis(3));
    let word = b"revoked";
    assert!(!plain.windows(word.len()).any(|bytes| bytes == word));
    let mut with = samples::genesis(3);
    revoke(&mut with, public_key(9), 1);
    assert_eq!(codec::decode::<Policy>(&codec::encode(&with), limits::POLICY_MAX).unwrap(), with);
}
