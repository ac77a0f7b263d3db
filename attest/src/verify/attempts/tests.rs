//! What a bundle tells of attempts: said in words where it holds, refused where it does not.

use protocol::{
    Salt,
    message::Octets,
    testing::{samples, signing_key},
};

use super::*;
use crate::{
    testing::{bundle, course},
    verify::verify,
};

fn sample() -> (Bundle, NetworkId) {
    let (mut bundle, network) = bundle(&samples::genesis(4), &["x", "x"]);
    bundle.course = Some(course::course(&bundle, network));
    (bundle, network)
}

/// Changes the sample's course, and gives what is said of it.
fn changed(change: impl FnOnce(&mut Course)) -> Result<Attempts, Error> {
    let (mut bundle, network) = sample();
    change(bundle.course.as_mut().unwrap());
    let bytes = bundle.to_bytes();
    assert_eq!(Bundle::from_bytes(&bytes).unwrap(), bundle, "it has one form");
    match attempts(&bundle, &network) {
        Ok(attempts) => Ok(attempts),
        Err(super::super::Error::Attempts(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn logged(course: &mut Course) -> &mut Logged {
    course.logged.as_mut().unwrap()
}

#[test]
fn everybody_sees_who_failed_and_why_and_which_attempt_has_no_end() {
    let (bundle, network) = sample();
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    let attempts = attempts(&bundle, &network).unwrap();
    assert_eq!(
        attempts.lines(Some(&proof)),
        [
            "attempts: 2 agreed, 1 failed, 1 without an end (by entries of the log, of 14)".to_owned(),
            format!("  {}, lease 3: failed in build (job-failed, job): {}", samples::operator(2), course::WHY),
            format!("  {}, lease 4: without an end", samples::operator(3)),
            "  2 results are what their builders had committed to in the log".to_owned(),
        ]
    );
    assert!(attempts.summary(None).starts_with("2 built, 1 failed"), "{}", attempts.summary(None));
}

#[test]
fn what_is_left_out_is_told() {
    let lines = |change: fn(&mut Course)| changed(change).unwrap().lines(None).join("\n");
    let withheld = lines(|course| course.negatives.clear());
    assert!(withheld.contains("lease 3: failed; what its builder signed, "), "{withheld}");
    let sealed = lines(|course| course.salts.clear());
    assert!(sealed.contains("lease 1: built; its commitment cannot be opened"), "{sealed}");
    let no_log = lines(|course| course.logged = None);
    assert!(no_log.starts_with("attempts: 1 failed (by what builders signed)"), "{no_log}");
    let (mut bundle, network) = sample();
    bundle.course = None;
    assert_eq!(attempts(&bundle, &network).unwrap(), Attempts::default());
}

#[test]
fn who_withheld_what_it_was_bound_to_is_told() {
    let (bundle, network) = sample();
    let request =
        protocol::Signed::<protocol::job::JobRequest>::read(&bundle.request.0).unwrap().verify(Some(&network)).unwrap();
    let (job, lease, node) = (job_id(&request), LeaseNumber(1), protocol::testing::node(12));
    let events = vec![
        Event::Lease(entry::Lease { job, node, lease, profile: Profile(0) }),
        Event::Commitment(entry::Commitment { job, node, lease, digest: Hash::of(b"hidden"), signature: None }),
        Event::Outcome(entry::Outcome { end: End::Withheld, job, node, lease }),
    ];
    let attempts = changed(|course| *logged(course) = course::logged(network, events)).unwrap();
    let lines = attempts.lines(None).join("\n");
    assert!(lines.contains(&format!("{}, lease 1: withheld", samples::operator(2))), "{lines}");
    assert!(attempts.summary(None).contains("1 withheld"), "{lines}");
}

#[test]
fn a_result_that_was_not_committed_to_is_found_offline() {
    let other = changed(|course| course.salts[1].salt = Salt::from_bytes([9; 32]));
    assert!(matches!(other, Err(Error::Unbound { lease: LeaseNumber(2), .. })), "{other:?}");
    let error = super::super::Error::from(other.unwrap_err());
    assert_eq!(error.exit_code(), 13);
}

#[test]
fn what_does_not_hold_is_refused() {
    let forged = changed(|course| *course.negatives[0].0.last_mut().unwrap() ^= 1);
    assert!(matches!(forged, Err(Error::Negative { position: 1, .. })), "{forged:?}");
    let (bundle, network) = sample();
    let elsewhere = changed(|course| {
        let said = Negative::read(&course.negatives[0].0, &network).unwrap();
        let other = Negative { job: Hash::of(b"other").into(), ..said };
        course.negatives[0] = Octets(other.sign(&signing_key(12)).unwrap());
    });
    assert!(matches!(elsewhere, Err(Error::OtherJob { position: 1, .. })), "{elsewhere:?}");
    let edited = changed(|course| *logged(course).entries[0].entry.0.last_mut().unwrap() ^= 1);
    assert!(matches!(edited, Err(Error::Inclusion { .. })), "{edited:?}");
    let twice = changed(|course| {
        let first = logged(course).entries[0].clone();
        logged(course).entries.insert(1, first);
    });
    assert!(matches!(twice, Err(Error::Story { .. })), "{twice:?}");
    let orphan = changed(|course| drop(logged(course).entries.remove(0)));
    assert!(matches!(orphan, Err(Error::Story { why: "is of no attempt", .. })), "{orphan:?}");
    let stranger = changed(|course| {
        let key = signing_key(11);
        let read = Signed::read(&logged(course).checkpoint.0).unwrap();
        let signed = Signed::sign(&network::origin(&network), read.claims().head(), &key);
        logged(course).checkpoint = Octets(signed.to_string().into_bytes());
    });
    assert!(matches!(stranger, Err(Error::Checkpoint(_))), "{stranger:?}");
    let of_another = changed(|course| {
        let lease = entry::Lease {
            job: Hash::of(b"other").into(),
            node: protocol::testing::node(10),
            lease: LeaseNumber(1),
            profile: Profile(0),
        };
        *logged(course) = course::logged(network, vec![Event::Lease(lease)]);
    });
    assert!(matches!(of_another, Err(Error::Story { .. })), "{of_another:?}");
    assert!(bundle.course.is_some());
}

#[test]
fn a_failure_that_is_stapled_is_told_and_strangers_are_not() {
    use crate::{
        testing::staple::Sample,
        trust::{Demands, LogDemand},
        verify::{Moment, Stapled, verify_stapled},
    };
    let said = |operators: u8| {
        let policy =
            Policy { operators: Sample::policy(0).operators[..usize::from(operators)].to_vec(), ..Sample::policy(0) };
        let (mut bundle, network) = bundle(&policy, &["x", "x"]);
        bundle.course = Some(course::course(&bundle, network));
        let sample = Sample::of_bundle(bundle, network);
        let trust = sample.trust(Demands { log: LogDemand::Never, ..Demands::default() });
        let lines = sample.lines();
        let stapled = Stapled { lines: &lines, proof: None };
        verify_stapled(&stapled, &trust, &Moment { now: samples::NOW, checkpoint: None }).unwrap().lines().join("\n")
    };
    let three = said(3);
    assert!(three.contains("attempts: 2 agreed, 1 failed (by what builders signed)"), "{three}");
    assert!(three.contains(course::WHY), "{three}");
    let two = said(2);
    assert!(!two.contains("failed"), "nobody answers for the third: {two}");
}
