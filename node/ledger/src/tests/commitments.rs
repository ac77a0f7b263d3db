//! Commit, then reveal: when a result may be shown, whose counts, and who may see it.

use std::collections::BTreeMap;

use attest::log::entry::{End, Entry, Event};
use protocol::{
    Hash, JobId, NodeId,
    blame::Blame,
    codec,
    lease::{Lease, LeaseNumber},
    limits,
    message::{Octets, Refusal, Response},
};

use crate::{
    Command, Effect, News, Opening,
    testing::{Bench, SALT, attest, builder},
    view::ResultView,
};

/// Gives the leases whose results were asked for.
fn asked(bench: &Bench) -> Vec<LeaseNumber> {
    let one = |effect: &Effect| if let Effect::Reveal { lease, .. } = effect { Some(*lease) } else { None };
    bench.effects.iter().filter_map(one).collect()
}

fn opened(bench: &Bench) -> Vec<NodeId> {
    let one = |effect: &Effect| if let Effect::Disclose { node, .. } = effect { Some(*node) } else { None };
    bench.effects.iter().filter_map(one).collect()
}

fn logged(bench: &Bench) -> Vec<Event> {
    let one = |effect: &Effect| {
        if let Effect::Append { entry, .. } = effect { Some(Entry::from_bytes(entry).unwrap().event) } else { None }
    };
    bench.effects.iter().filter_map(one).collect()
}

fn results(bench: &Bench, job: JobId) -> Vec<ResultView> {
    bench.ledger.job(job).unwrap().attempts.into_iter().map(|attempt| attempt.result).collect()
}

fn two(bench: &mut Bench) -> (JobId, Lease, Lease) {
    let job = bench.submit("deb", 1);
    let (first, second) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    (job, first, second)
}

#[test]
fn nobody_shows_anything_before_k_are_bound_and_nobody_sees_it_before_the_verdict() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, first, second) = two(&mut bench);
    assert_eq!(bench.commit(&first, "a"), Some(Response::Done));
    let [Event::Commitment(entry)] = &logged(&bench)[..] else { panic!("{:?}", bench.effects) };
    assert_eq!((entry.job, entry.node, entry.lease), (job, first.node, first.number));
    assert_eq!(asked(&bench), []);
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "committed");

    assert_eq!(bench.commit(&second, "b"), Some(Response::Reveal), "k are bound: who asks is answered");
    assert_eq!(asked(&bench), [first.number], "and the others are told");
    assert_eq!(bench.show(&first, "a"), Some(Response::Done));
    assert_eq!(bench.show(&second, "b"), Some(Response::Done));
    assert!(
        results(&bench, job).iter().all(|result| *result == ResultView::Sealed),
        "a third is asked and may not copy"
    );
    assert!(bench.ledger.evidence(job).unwrap().attestations.is_empty() && opened(&bench).is_empty());

    let third = bench.lease(builder(2, 0), job);
    assert_eq!(bench.commit(&third, "a"), Some(Response::Reveal));
    bench.show(&third, "a");
    assert_eq!(bench.state(job), "publishing");
    assert_eq!(opened(&bench).len(), 3, "everybody's outputs are open now");
    assert!(results(&bench, job).iter().all(|result| matches!(result, ResultView::Outputs { .. })));
    assert_eq!(bench.ledger.evidence(job).unwrap().attestations.len(), 3);
    bench.assert_replays();
}

#[test]
fn an_attestation_without_a_commitment_is_evidence_and_no_vote() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    assert!(matches!(bench.show(&lease, "a"), Some(Response::Refused(Refusal::Invalid(_)))));
    let view = bench.ledger.job(job).unwrap();
    assert_eq!((view.attempts[0].state.as_str(), view.late.len()), ("failed", 1));
    assert_eq!(view.late[0].digest, None, "nobody sees what it was before the verdict");
    assert_ne!(bench.state(job), "publishing");
    let honest = bench.lease(builder(1, 0), job);
    assert_eq!(bench.commit(&honest, "b"), Some(Response::Reveal));
    bench.show(&honest, "b");
    assert_eq!(bench.state(job), "publishing");
    assert_eq!(bench.ledger.evidence(job).unwrap().late.len(), 1);
    bench.assert_replays();
}

#[test]
fn who_shows_something_else_than_it_was_bound_to_is_blamed_at_once() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "nonsense");
    bench.commit(&second, "b");
    assert!(matches!(bench.show(&first, "b"), Some(Response::Refused(Refusal::Invalid(_)))));
    let blamed = |e: &Effect| matches!(e, Effect::Notify(News::Quarantined { node, .. }) if *node == first.node);
    assert!(bench.effects.iter().any(blamed), "{:?}", bench.effects);
    bench.show(&second, "b");
    assert_eq!(bench.state(job), "building", "one is not enough");
    let third = bench.lease(builder(2, 0), job);
    bench.reveal(&third, "b");
    let agreed = bench.ledger.job(job).unwrap().verdict;
    let crate::view::VerdictView::Reproduced { agree, .. } = agreed else { panic!("{agreed:?}") };
    assert_eq!(agree.len(), 2);
    bench.assert_replays();
}

#[test]
fn a_commitment_is_said_as_often_as_needed_and_binds_once() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (_, first, second) = two(&mut bench);
    bench.commit(&first, "a");
    assert_eq!(bench.commit(&first, "a"), Some(Response::Done));
    assert!(logged(&bench).is_empty(), "it stands in the log once");
    assert!(matches!(bench.commit(&first, "b"), Some(Response::Refused(Refusal::Invalid(_)))));
    bench.commit(&second, "a");
    bench.apply(Command::Restarted);
    assert_eq!(asked(&bench), [first.number, second.number], "a new leader asks again");
    assert_eq!(bench.commit(&first, "a"), Some(Response::Reveal));
    bench.show(&first, "a");
    assert_eq!(bench.show(&first, "a"), Some(Response::Done), "a report that was answered may come again");
    bench.show(&second, "a");
    assert_eq!(bench.commit(&second, "a"), Some(Response::Lost(vec![second.number])));
    bench.assert_replays();
}

#[test]
fn a_result_waits_neither_for_who_failed_nor_for_ever() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let (_, first, second) = two(&mut bench);
    assert_eq!(bench.commit(&first, "a"), Some(Response::Done));
    bench.fail(&second, Blame::Job, "build");
    assert_eq!(asked(&bench), [first.number], "the other has said that it failed: nobody is left who could copy");

    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.commit(&lease, "a");
    for _ in 0..limits::REVEAL_WAIT.as_secs() / 20 {
        assert_eq!(asked(&bench), []);
        bench.renew(&[&lease]);
        bench.wait(20);
    }
    assert_eq!(asked(&bench), [lease.number], "its time is up");
    bench.assert_replays();
}

#[test]
fn who_is_asked_and_keeps_silent_withholds_and_has_no_other_turn() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "a");
    bench.commit(&second, "a");
    for _ in 0..limits::LEASE_TTL.as_secs() / 5 {
        assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "committed");
        bench.renew(&[&first]);
        bench.wait(5);
    }
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "withheld", "renewing is no answer");
    let withheld = |event: &Event| matches!(event, Event::Outcome(one) if one.end == End::Withheld);
    assert!(logged(&bench).iter().any(withheld));
    assert_eq!(bench.show(&first, "a"), Some(Response::Done), "late, it is evidence");
    assert!(matches!(bench.bid(first.node, job), Some(Response::Refused(Refusal::NotAllowed(_)))), "it could copy");
    bench.wait(3600);
    assert!(matches!(bench.bid(first.node, job), Some(Response::Refused(Refusal::NotAllowed(_)))));
    let third = bench.lease(builder(2, 0), job);
    assert_eq!(bench.commit(&third, "a"), Some(Response::Reveal));
    bench.assert_replays();
}

#[test]
fn who_is_away_when_it_is_asked_and_cannot_be_replaced_is_waited_for() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "a");
    bench.commit(&second, "a");
    bench.show(&second, "a");
    for _ in 0..10 {
        bench.wait(limits::LEASE_TTL.as_secs());
        assert_eq!(asked(&bench), [first.number], "again and again");
        let view = bench.ledger.job(job).unwrap();
        assert_eq!(view.attempts[0].state, "committed");
        assert!(view.waiting.unwrap().contains("was asked for the result that it is bound to"));
    }
    assert_eq!(bench.show(&first, "a"), Some(Response::Done));
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn who_is_asked_and_says_that_it_was_interrupted_or_could_not_withholds_as_well() {
    for blame in [Blame::Interrupted, Blame::Builder(protocol::blame::Fault::DiskFull), Blame::Job] {
        let mut bench = Bench::of(2, 2, 2, 2);
        let (job, first, second) = two(&mut bench);
        bench.commit(&first, "a");
        bench.commit(&second, "a");
        assert_eq!(bench.fail(&first, blame, "attest"), Some(Response::Done));
        assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "withheld", "{blame:?}");
        assert!(matches!(&logged(&bench)[..], [Event::Outcome(one)] if one.end == End::Withheld));
        bench.show(&second, "a");
        for _ in 0..20 {
            bench.wait(60);
            assert!(matches!(bench.bid(first.node, job), Some(Response::Refused(Refusal::NotAllowed(_)))), "{blame:?}");
        }
        bench.assert_replays();
    }
}

#[test]
fn who_shows_something_else_than_it_was_bound_to_is_not_excused() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "nonsense");
    bench.commit(&second, "b");
    bench.show(&second, "b");
    bench.show(&first, "b");
    for _ in 0..20 {
        bench.wait(60);
        assert_ne!(bench.bid(first.node, job), Some(Response::Done), "it could copy");
        assert_eq!(bench.granted(), []);
    }
    bench.assert_replays();
}

#[test]
fn a_commitment_is_not_taken_back_by_declining_its_lease() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "nonsense");
    bench.commit(&second, "a");
    bench.show(&second, "a");
    bench.apply(Command::Declined { node: first.node, lease: first.number, why: "never got it".into() });
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "committed");
    bench.wait(limits::LEASE_TTL.as_secs());
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "withheld");
    bench.assert_replays();
}

#[test]
fn who_is_bound_and_was_not_asked_may_be_away_and_not_begin_anew() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, first, second) = two(&mut bench);
    bench.commit(&first, "a");
    for _ in 0..4 {
        bench.wait(limits::LEASE_TTL.as_secs());
        assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "committed");
        assert_eq!(asked(&bench), []);
    }
    bench.fail(&first, Blame::Interrupted, "restart");
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "withheld");
    assert!(matches!(&logged(&bench)[..], [Event::Outcome(one)] if one.end == End::Withheld));
    assert!(matches!(bench.bid(first.node, job), Some(Response::Refused(Refusal::NotAllowed(_)))));
    assert_eq!(bench.ledger.job(job).unwrap().attempts[1].state, "interrupted", "{second:?} was not bound");
    bench.assert_replays();
}

#[test]
fn what_earlier_versions_wrote_down_counts_as_it_did() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let (job, first, second) = two(&mut bench);
    for lease in [&first, &second] {
        let (node, number, log) = (lease.node, lease.number, Hash::of(b"log"));
        let attestation = attest(bench.ledger.request(job).unwrap(), lease, Bench::key_of(node), "a");
        let octets = Octets(attestation.bytes().to_vec());
        let written = codec::encode(&BTreeMap::from([("Revealed", (node, number, log, octets))]));
        let command = Command::from_bytes(&written, &bench.network).unwrap();
        assert!(matches!(command, Command::Revealed { opening: Opening::EarlierVersion, .. }));
        assert_eq!(bench.apply(command), Some(Response::Done));
    }
    assert_eq!(bench.state(job), "publishing");
    assert_ne!(Opening::Salt(SALT), Opening::EarlierVersion);
    bench.assert_replays();
}
