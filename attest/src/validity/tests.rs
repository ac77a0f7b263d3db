//! Keys before and after the places at which policies name and revoke them.

use protocol::{
    policy::{Coordinators, Operator},
    testing::{node, public_key, samples, signing_key},
};

use super::*;

const ROOT: u8 = samples::ROOT_SEED;

/// A network of three policies, at places 0, 40 and 90: in the second, `op-b` has another node (21 for 11), `maria` another key and
/// the log another coordinator (30 for 10); the third is what the caller makes of that.
struct Story {
    network: NetworkId,
    envelopes: Vec<Vec<u8>>,
}

const PLACES: [u64; 3] = [0, 40, 90];

impl Story {
    fn new(third: impl FnOnce(&mut Policy)) -> Self {
        let (genesis, network) = samples::signed_genesis(&samples::genesis(3));
        let mut second = samples::second(network, 3);
        second.operators[1] = Operator { name: samples::operator(1), nodes: vec![node(21)] };
        second.maintainers[0].key = public_key(52);
        second.coordinators = Coordinators::Pinned(node(30));
        let mut next = Policy { number: 3, ..second.clone() };
        third(&mut next);
        let sign = |policy: &Policy| Signed::sign(policy, Some(&network), &[&signing_key(ROOT)]).to_bytes();
        Self { network, envelopes: vec![genesis.to_bytes(), sign(&second), sign(&next)] }
    }

    fn entries(&self) -> Vec<(u64, entry::Policy)> {
        let entry = |(number, bytes): (u64, &Vec<u8>)| entry::Policy { number, envelope: Hash::of(bytes) };
        PLACES.into_iter().zip((1..).zip(&self.envelopes).map(entry)).collect()
    }

    fn chain(&self) -> Chain {
        Chain::read(&self.network, &self.envelopes, &self.entries()).unwrap()
    }
}

fn revoke(policy: &mut Policy, key: PublicKey, from: u64) {
    policy.revoked.push(Revoked { key, from, reason: "lost".to_owned() });
    policy.revoked.sort();
}

#[test]
fn who_is_named_counts_from_the_entry_of_its_policy_to_that_of_the_next() {
    let chain = Story::new(|_| ()).chain();
    let operator = |seed: u8, place: u64| chain.operator(&node(seed), place).ok().map(OperatorName::as_str);
    for (place, of_11, of_21) in
        [(0, Some("op-b"), None), (39, Some("op-b"), None), (40, None, Some("op-b")), (200, None, Some("op-b"))]
    {
        assert_eq!((operator(11, place), operator(21, place)), (of_11, of_21), "place {place}");
        assert_eq!(operator(12, place), Some("op-c"), "named throughout");
    }
    let maria = |seed: u8, place: u64| chain.maintainer(&public_key(seed), place).is_ok();
    assert!(maria(samples::MAINTAINER_SEED, 39) && !maria(samples::MAINTAINER_SEED, 40));
    assert!(!maria(52, 39) && maria(52, 40));
    let later = chain.operator(&node(21), 39).unwrap_err().to_string();
    assert!(later.ends_with("policy 1 was in force there and does not name it"), "{later}");
}

#[test]
fn a_revoked_key_counts_before_its_place_and_not_from_there_on() {
    let gone = PublicKey::from(node(12));
    let story = Story::new(|policy| {
        policy.operators.pop();
        revoke(policy, gone, 70);
    });
    let chain = story.chain();
    assert!(chain.operator(&node(12), 69).is_ok());
    for place in [70, 89] {
        let why = chain.operator(&node(12), place).unwrap_err();
        assert_eq!(why, Invalid::Revoked { key: gone, place, from: 70, reason: "lost".to_owned() });
    }
    assert!(chain.operator(&node(11), 39).is_ok(), "others are not touched");
    // Revoked from a place that nobody has reached: its part ended with the policy that names it no more.
    let ahead = Story::new(|policy| {
        policy.operators.pop();
        revoke(policy, gone, 5000);
    });
    assert!(ahead.chain().operator(&node(12), 89).is_ok());
    assert!(matches!(ahead.chain().operator(&node(12), 90), Err(Invalid::NotNamed { number: 3, .. })));
}

#[test]
fn a_key_of_a_policy_that_is_long_superseded_may_be_revoked_too() {
    let old = public_key(samples::MAINTAINER_SEED);
    let chain = Story::new(|policy| revoke(policy, old, 20)).chain();
    assert!(chain.maintainer(&old, 19).is_ok());
    assert!(matches!(chain.maintainer(&old, 20), Err(Invalid::Revoked { from: 20, .. })), "policy 1 named it there");
    let never = Story::new(|policy| revoke(policy, old, 0)).chain();
    assert!(matches!(never.maintainer(&old, 0), Err(Invalid::Revoked { from: 0, .. })));
}

#[test]
fn checkpoints_are_verified_by_the_coordinators_of_their_time() {
    let story = Story::new(|_| ());
    let chain = story.chain();
    let key = |seed| network::log_key(&story.network, &node(seed));
    assert_eq!(chain.log_keys(0), []);
    for (size, seed) in [(1, 10), (40, 10), (41, 30), (500, 30)] {
        assert_eq!(chain.log_keys(size), [key(seed)], "size {size}");
    }
    let stolen = Story::new(|policy| {
        policy.operators.remove(0);
        revoke(policy, PublicKey::from(node(10)), 25);
    });
    let stolen = stolen.chain();
    assert_eq!(stolen.log_keys(25), [key(10)], "the last of its entries is at place 24");
    assert_eq!(stolen.log_keys(26), []);
}

#[test]
fn a_chain_has_no_gap_and_every_policy_is_logged_in_its_order() {
    let story = Story::new(|_| ());
    let (network, entries) = (story.network, story.entries());
    let read = |envelopes: &[Vec<u8>], entries: &[(u64, entry::Policy)]| {
        Chain::read(&network, envelopes, entries).map(|chain| chain.links().len())
    };
    assert_eq!(read(&story.envelopes, &entries), Ok(3));
    assert_eq!(read(&story.envelopes[..2], &entries), Ok(2), "entries of newer policies do not hurt");
    assert_eq!(read(&[], &entries), Err(ChainError::Empty));
    let hidden = [story.envelopes[0].clone(), story.envelopes[2].clone()];
    assert_eq!(read(&hidden, &entries), Err(ChainError::Gap { number: 3, before: 1 }));
    assert_eq!(read(&story.envelopes, &entries[..2]), Err(ChainError::NotLogged { number: 3 }));
    let mut swapped = entries.clone();
    (swapped[1].0, swapped[2].0) = (90, 40);
    assert_eq!(read(&story.envelopes, &swapped), Err(ChainError::Order { number: 3, place: 40 }));
    let other = NetworkId::from_bytes([9; 32]);
    let foreign = Chain::read(&other, &story.envelopes[..1], &entries);
    assert!(matches!(foreign, Err(ChainError::Succession { source: SuccessionError::OtherNetwork, .. })));
    let usurped = Signed::sign(&samples::second(network, 3), Some(&network), &[&signing_key(66)]).to_bytes();
    let logged = entry::Policy { number: 2, envelope: Hash::of(&usurped) };
    let refused = Chain::read(&network, &[story.envelopes[0].clone(), usurped], &[entries[0].clone(), (40, logged)]);
    assert!(matches!(refused, Err(ChainError::Succession { source: SuccessionError::TooFewRoots { .. }, .. })));
}
