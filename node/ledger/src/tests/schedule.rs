//! When and where a job may run, as its maintainer signed it.

use std::time::Duration;

use protocol::{
    job::{JobRequest, Schedule},
    message::{Refusal, Response},
    testing::samples,
};

use crate::{
    Command,
    testing::{Bench, builder},
};

/// Submits a job with a schedule.
fn submit(bench: &mut Bench, number: u8, schedule: Schedule) -> protocol::JobId {
    let wish = JobRequest { schedule, nonce: vec![number; 16], ..samples::command_request(bench.network) };
    match bench.apply(Command::Submit(samples::signed_request(&wish))) {
        Some(Response::Receipt(job, _)) => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_named_nodes_build_and_excluded_ones_never_do() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let only = submit(&mut bench, 1, Schedule { only: vec![builder(1, 0)], ..Schedule::default() });
    let without = submit(&mut bench, 2, Schedule { without: vec![builder(0, 0)], ..Schedule::default() });
    let announced = bench.ledger.open_jobs(bench.now);
    let announced = announced.iter().find(|a| a.job == without).unwrap();
    assert_eq!(announced.excluded, [builder(0, 0)]);
    for job in [only, without] {
        assert!(matches!(bench.bid(builder(0, 0), job), Some(Response::Refused(Refusal::NotAllowed(_)))));
    }
    bench.lease(builder(1, 0), only);
    bench.lease(builder(2, 0), without);
    bench.assert_replays();
}

#[test]
fn a_job_for_nobody_in_the_policy_waits_and_says_so() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let stranger = protocol::testing::node(200);
    let job = submit(&mut bench, 1, Schedule { only: vec![stranger], ..Schedule::default() });
    assert_eq!(bench.state(job), "queued");
    let why = bench.ledger.job(job).unwrap().waiting.unwrap();
    assert_eq!(why, "it waits for the nodes that it asks for: the policy names none of them");
    bench.assert_replays();
}

#[test]
fn a_job_does_not_begin_before_its_time() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let begin = bench.now.after(Duration::from_secs(3600));
    let job = submit(&mut bench, 1, Schedule { not_before: Some(begin), ..Schedule::default() });
    assert!(!bench.announced());
    assert_eq!(bench.ledger.open_jobs(bench.now), []);
    let why = bench.ledger.job(job).unwrap().waiting.unwrap();
    assert_eq!(why, "it does not begin before 2026-11-21 01:00 UTC");
    bench.bid(builder(0, 0), job);
    assert_eq!(bench.granted(), []);
    bench.wait(3599);
    assert_eq!(bench.granted(), []);
    bench.wait(1);
    assert!(bench.announced() || !bench.granted().is_empty(), "its time has come");
    bench.assert_replays();
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_what_has_begun() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let begin = bench.now.after(Duration::from_secs(3600));
    let job = submit(&mut bench, 1, Schedule { not_before: Some(begin), ..Schedule::default() });
    bench.wait(3600);
    let lease = bench.lease(builder(0, 0), job);
    bench.now = samples::NOW;
    bench.reveal(&lease, "a");
    assert_eq!(bench.state(job), "reproduced");
    bench.assert_replays();
}

#[test]
fn a_job_that_would_begin_after_its_end_is_refused() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let mut wish = samples::command_request(bench.network);
    wish.schedule.not_before = Some(wish.expires);
    match bench.apply(Command::Submit(samples::signed_request(&wish))) {
        Some(Response::Refused(refusal)) => assert!(refusal.to_string().contains("give it more time"), "{refusal}"),
        other => panic!("{other:?}"),
    }
}
