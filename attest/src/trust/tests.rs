//! The verifier's policy file: written, read, refused.

use protocol::{
    Signed,
    testing::{samples, signing_key},
};

use super::*;
use crate::testing::staple::Sample;

fn sample() -> Sample {
    Sample::of(&Sample::policy(1), &["x", "x"])
}

#[test]
fn what_is_written_is_read_again() {
    let demands = Demands {
        log: LogDemand::Witnesses(2),
        max_age: Some(Duration::from_secs(30 * 86_400)),
        agree: Some(3),
        channels: vec!["stable".parse().unwrap(), "testing".parse().unwrap()],
    };
    for demands in [demands, Demands::default(), Demands { log: LogDemand::Never, ..Demands::default() }] {
        let trust = sample().trust(demands.clone());
        let read = Trust::read(trust.to_string().as_bytes(), samples::NOW).unwrap();
        assert_eq!((read.demands(), read.to_string()), (&demands, trust.to_string()));
        assert_eq!(read.network(), &sample().network);
    }
}

#[test]
fn files_that_are_not_as_they_must_be() {
    let good = sample().trust(Demands::default()).to_string();
    let refused = |text: &str| Trust::read(text.as_bytes(), samples::NOW).unwrap_err();
    for (from, to, why) in [
        ("policy 1", "policy 2", "it has no line"),
        ("\nnetwork ", "\nnetwork x", "line 3: the network's id"),
        ("\nnetwork ", "\n# network ", "it has no line `network HEX`"),
        ("log policy", "log perhaps", "line 4: write policy, none, or a number"),
        ("log policy", "max-age 5", "line 4: write a time span"),
        ("log policy", "max-age 0s", "line 4: write a time span"),
        ("log policy", "agree 0", "line 4: the number of operators"),
        ("log policy", "channel ..", "line 4: channel"),
        ("log policy", "frobnicate", "line 4: \"frobnicate\" does not belong here"),
        ("\npolicy 0 ", "\npolicy x ", "line 5: a place in the log"),
        ("\npolicy 0 ", "\npolicy 0 !", "line 5: the policy is not base64"),
        ("\npolicy 0 ", "\n# policy 0 ", "its policies do not hold"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        let error = refused(&changed);
        assert!(error.to_string().starts_with(why), "{error}");
        assert_eq!(error.exit_code(), if why.contains("policies") { 13 } else { 3 }, "{error}");
    }
    assert!(Trust::read(good.replace("log policy\n", "\n# a word\n").as_bytes(), samples::NOW).is_ok());
    assert_eq!(Trust::read(b"\xff", samples::NOW).unwrap_err().exit_code(), 3);
    assert_eq!(Trust::read(&vec![b'#'; FILE_MAX + 1], samples::NOW).unwrap_err().exit_code(), 3);
}

#[test]
fn policies_must_lead_from_the_network_to_now() {
    let sample = sample();
    let other = NetworkId::from(protocol::Hash::of(b"other"));
    let new = |network, policies: &[Vec<u8>], now| {
        let policies: Vec<_> = policies.iter().map(|bytes| (bytes.clone(), None)).collect();
        Trust::new(network, &policies, Demands::default(), now).map_err(|error| error.exit_code())
    };
    let genesis = sample.genesis.clone();
    assert_eq!(new(other, std::slice::from_ref(&genesis), samples::NOW).unwrap_err(), 13);
    let second = samples::second(sample.network, 3);
    let sign = |seed| Signed::sign(&second, Some(&sample.network), &[&signing_key(seed)]).to_bytes();
    let chain = [genesis.clone(), sign(samples::ROOT_SEED)];
    assert_eq!(new(sample.network, &chain, samples::NOW).unwrap().newest().number, 2);
    assert_eq!(new(sample.network, &[genesis, sign(9)], samples::NOW).unwrap_err(), 13, "no root signed it");
    assert_eq!(new(sample.network, &chain, second.expires).unwrap_err(), 3, "it has expired");
    let many = sample
        .trust(Demands::default())
        .demanding(Demands { log: LogDemand::Witnesses(9), ..Demands::default() }, samples::NOW);
    assert!(many.is_ok(), "whether nine witnesses can be had is asked of each proof");
}

/// Invariant: whatever character of a policy's line is changed, the file is refused or trusts the very same.
#[test]
fn every_character_of_a_policy_counts() {
    let good = sample().trust(Demands::default()).to_string();
    let begin = good.find("\npolicy 0 ").unwrap() + "\npolicy 0 ".len();
    for at in (begin..good.trim_end().len()).step_by(7) {
        let other = if &good[at..=at] == "B" { "C" } else { "B" };
        let changed = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        match Trust::read(changed.as_bytes(), samples::NOW) {
            // Bits of base64 that mean nothing are refused, too; so is another signature by the same key.
            Ok(trust) => panic!("character {at} counts for nothing: {trust}"),
            Err(error) => assert!([3, 13].contains(&error.exit_code()), "{error}"),
        }
    }
}
