//! What a maintainer orders after a job was submitted.

use protocol::{
    JobId, Signed,
    blame::Blame,
    job::{Change, Order, Priority},
    message::{Refusal, Response},
    testing::{samples, signing_key},
};

use crate::{
    Command, KEPT_AFTER_END,
    testing::{Bench, builder},
};

const MARIA: u8 = samples::MAINTAINER_SEED;

/// Orders something a second later, so that it is the newest order.
fn order(bench: &mut Bench, job: JobId, what: Change) -> Result<(), String> {
    bench.wait(1);
    match bench.order(job, MARIA, what) {
        Some(Response::Done) => Ok(()),
        Some(Response::Refused(refusal)) => Err(refusal.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_suspended_job_gives_its_leases_back_and_punishes_nobody() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("command", 1);
    let (first, second) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&first);
    bench.reveal(&second, "a");
    order(&mut bench, job, Change::Suspend).unwrap();
    assert_eq!(bench.revoked(), [first.number]);
    assert_eq!(bench.why(job), "suspended by maria: wrong version");
    assert_eq!(
        bench.renew(&[&first]),
        Some(Response::Lost(vec![first.number])),
        "also for a node that comes back later"
    );
    bench.offer(builder(0, 0), 1);
    assert_eq!(bench.granted(), [], "no new leases");
    assert_eq!(bench.fail(&first, Blame::Cancelled, "lease"), Some(Response::Done), "a late report harms nobody");
    bench.wait(3600);
    assert_eq!(bench.state(job), "building");
    bench.offer(builder(0, 0), 1);
    order(&mut bench, job, Change::Resume).unwrap();
    let again = bench.granted().pop().expect("the same operator has its turn");
    assert_eq!(again.node, first.node);
    bench.reveal(&again, "a");
    assert_eq!(bench.state(job), "reproduced", "what was built before counts");
    bench.assert_replays();
}

#[test]
fn a_suspended_job_still_ends_at_its_deadline() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("command", 1);
    order(&mut bench, job, Change::Suspend).unwrap();
    bench.wait(86_400);
    assert_eq!(bench.state(job), "expired");
    assert!(order(&mut bench, job, Change::Resume).is_err());
    bench.assert_replays();
}

#[test]
fn an_older_order_is_refused_and_the_newest_answered_again() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("command", 1);
    let old = Order { at: bench.now, job, what: Change::Suspend, reason: String::new() };
    bench.wait(10);
    assert_eq!(bench.order(job, MARIA, Change::Suspend), Some(Response::Done));
    assert_eq!(bench.order(job, MARIA, Change::Suspend), Some(Response::Done), "the same order again");
    order(&mut bench, job, Change::Resume).unwrap();
    let replayed = Signed::sign(&old, Some(&bench.network), &[&signing_key(MARIA)]);
    let answer = bench.apply(Command::Order(replayed.verify(Some(&bench.network)).unwrap()));
    assert!(format!("{answer:?}").contains("a newer order"), "{answer:?}");
    assert_eq!(bench.why(job), "no online peer offers amd64", "it is not suspended again");
    bench.now = protocol::Timestamp::from_millis(bench.now.as_millis() + 120_000);
    let early = Order { at: bench.now.after(std::time::Duration::from_secs(61)), ..old };
    let early = Signed::sign(&early, Some(&bench.network), &[&signing_key(MARIA)]);
    let answer = bench.apply(Command::Order(early.verify(Some(&bench.network)).unwrap()));
    assert!(format!("{answer:?}").contains("in the future"), "{answer:?}");
    bench.assert_replays();
}

#[test]
fn only_its_maintainer_or_a_root_orders_a_job() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("command", 1);
    for what in [Change::Suspend, Change::Retry, Change::Reprioritise(Priority(9))] {
        assert!(matches!(bench.order(job, 9, what), Some(Response::Refused(Refusal::NotAllowed(_)))));
    }
    assert_eq!(bench.order(job, samples::ROOT_SEED, Change::Suspend), Some(Response::Done));
    assert_eq!(bench.why(job), "suspended by a root: wrong version");
    bench.assert_replays();
}

#[test]
fn a_failed_job_begins_again_with_a_fresh_round() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("deb", 1);
    let leases: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    assert!(order(&mut bench, job, Change::Retry).unwrap_err().contains("only one that ended badly"));
    bench.reveal(&leases[0], "a");
    bench.reveal(&leases[1], "b");
    assert_eq!(bench.state(job), "unreproducible");
    order(&mut bench, job, Change::Retry).unwrap();
    let view = bench.ledger.job(job).unwrap();
    assert_eq!((view.state.as_str(), view.attempts.len(), view.earlier.len()), ("queued", 0, 2));
    let leases: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.reveal(&leases[0], "b");
    bench.reveal(&leases[1], "b");
    assert_eq!(bench.state(job), "publishing");
    assert_eq!(bench.ledger.evidence(job).unwrap().attestations.len(), 2, "only this round's votes");
    bench.apply(Command::Published { job, generation: 1 });
    assert!(order(&mut bench, job, Change::Retry).unwrap_err().contains("ended well"));
    bench.assert_replays();
}

#[test]
fn what_a_job_needs_is_let_go_a_day_after_its_end_and_then_it_is_not_retried() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let longer = |wish: &mut protocol::job::JobRequest| wish.expires = wish.expires.after(2 * KEPT_AFTER_END);
    let Some(Response::Receipt(job, _)) = bench.wish("deb", 1, longer) else { panic!("accepted") };
    order(&mut bench, job, Change::Cancel).unwrap();
    bench.wait(KEPT_AFTER_END.as_secs() - 2);
    order(&mut bench, job, Change::Retry).unwrap();
    order(&mut bench, job, Change::Cancel).unwrap();
    bench.wait(KEPT_AFTER_END.as_secs() - 1);
    assert!(order(&mut bench, job, Change::Retry).unwrap_err().contains("submit it anew"));
    bench.assert_replays();
}

#[test]
fn rounds_are_bounded_and_a_job_whose_time_is_over_is_not_retried() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("deb", 1);
    for _ in 1..crate::orders::ROUNDS_MAX {
        order(&mut bench, job, Change::Cancel).unwrap();
        order(&mut bench, job, Change::Retry).unwrap();
    }
    order(&mut bench, job, Change::Cancel).unwrap();
    assert!(order(&mut bench, job, Change::Retry).unwrap_err().contains("had its 8 rounds"));
    let other = bench.submit("deb", 2);
    bench.wait(86_400);
    assert_eq!(bench.state(other), "expired");
    assert!(order(&mut bench, other, Change::Retry).unwrap_err().contains("time is over"));
    bench.assert_replays();
}

#[test]
fn a_new_priority_changes_the_order() {
    let mut bench = Bench::of(1, 1, 1, 1);
    bench.submit("command", 1);
    bench.wait(1);
    let second = bench.submit("command", 2);
    order(&mut bench, second, Change::Reprioritise(Priority(9))).unwrap();
    bench.offer(builder(0, 0), 1);
    assert_eq!(bench.granted()[0].job, second);
    bench.assert_replays();
}
