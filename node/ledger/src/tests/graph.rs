//! Jobs that wait for jobs.

use protocol::{
    JobId,
    blame::Blame,
    message::{Refusal, Response},
    testing::samples,
};

use crate::{
    graph::CHAIN_MAX,
    testing::{Bench, builder},
    view::{Relation, VerdictView},
};

fn bench() -> Bench {
    Bench::of(2, 1, 1, 2)
}

/// Has a job built and reproduced.
fn build(bench: &mut Bench, job: JobId) {
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
}

fn fail(bench: &mut Bench, job: JobId) {
    for operator in [0, 1] {
        let lease = bench.lease(builder(operator, 0), job);
        bench.fail(&lease, Blame::Job, "build");
    }
    assert_eq!(bench.state(job), "failed");
}

fn waiting(bench: &Bench, job: JobId) -> String {
    bench.ledger.job(job).unwrap().waiting.unwrap()
}

#[test]
fn a_job_begins_when_all_that_it_waits_for_ended_well() {
    let mut bench = bench();
    let (first, second) = (bench.submit("command", 1), bench.submit("command", 2));
    let last = bench.submit_after("command", 3, &[first, second]);
    assert!(!bench.announced());
    assert!(waiting(&bench, last).starts_with("it waits for job "), "{}", waiting(&bench, last));
    assert!(matches!(bench.bid(builder(0, 0), last), Some(Response::Refused(Refusal::Busy(_)))));
    build(&mut bench, first);
    assert!(!bench.announced(), "one is not over yet");
    assert!(waiting(&bench, last).contains(&second.short()));
    build(&mut bench, second);
    assert!(bench.announced());
    build(&mut bench, last);
    assert_eq!(bench.state(last), "reproduced");
    let links: Vec<_> = bench.ledger.links(first).into_iter().map(|l| (l.relation, l.job)).collect();
    assert_eq!(links, [(Relation::After, last)]);
    assert_eq!(bench.ledger.links(last).iter().filter(|l| l.relation == Relation::Before).count(), 2);
    bench.assert_replays();
}

#[test]
fn a_failure_skips_everything_behind_it_at_once() {
    let mut bench = bench();
    let first = bench.submit("command", 1);
    let second = bench.submit_after("command", 2, &[first]);
    let third = bench.submit_after("deb", 3, &[second]);
    let beside = bench.submit("command", 4);
    fail(&mut bench, first);
    assert_eq!([second, third, beside].map(|job| bench.state(job)), ["skipped", "skipped", "queued"]);
    let VerdictView::Skipped { of, why } = bench.ledger.job(second).unwrap().verdict else { panic!() };
    assert_eq!(of, first);
    assert_eq!(why, format!("job {} (command answer amd64) that it waits for is failed", first.short()));
    let VerdictView::Skipped { of, .. } = bench.ledger.job(third).unwrap().verdict else { panic!() };
    assert_eq!(of, second);
    assert!(matches!(bench.cancel(second, samples::MAINTAINER_SEED), Some(Response::Refused(_))));
    bench.assert_replays();
}

#[test]
fn what_was_cancelled_or_expired_skips_too() {
    let mut bench = bench();
    let cancelled = bench.submit("command", 1);
    let behind = bench.submit_after("command", 2, &[cancelled]);
    bench.cancel(cancelled, samples::MAINTAINER_SEED);
    assert_eq!(bench.state(behind), "skipped");
    let expiring = bench.submit("command", 3);
    let behind = match bench.wish("command", 4, |wish| {
        wish.schedule.after = vec![expiring];
        wish.expires = wish.expires.after(std::time::Duration::from_secs(3600));
    }) {
        Some(Response::Receipt(job, _)) => job,
        other => panic!("{other:?}"),
    };
    bench.wait(86_400);
    assert_eq!([expiring, behind].map(|job| bench.state(job)), ["expired", "skipped"]);
    bench.assert_replays();
}

#[test]
fn a_job_behind_one_that_is_over_begins_or_is_skipped_when_it_comes() {
    let mut bench = bench();
    let (good, bad) = (bench.submit("command", 1), bench.submit("command", 2));
    build(&mut bench, good);
    fail(&mut bench, bad);
    let begins = bench.submit_after("command", 3, &[good]);
    assert!(bench.announced());
    let skipped = bench.submit_after("command", 4, &[good, bad]);
    assert_eq!([begins, skipped].map(|job| bench.state(job)), ["queued", "skipped"]);
    bench.assert_replays();
}

#[test]
fn a_package_counts_once_it_is_published() {
    let mut bench = bench();
    let package = bench.submit("deb", 1);
    let next = bench.submit_after("command", 2, &[package]);
    build(&mut bench, package);
    assert!(!bench.announced(), "it is reproduced, and not published yet");
    bench.apply(crate::Command::Published { job: package, generation: 1 });
    assert!(bench.announced());
    assert_eq!(bench.state(next), "queued");
    bench.assert_replays();
}

#[test]
fn unknown_jobs_and_endless_chains_are_refused() {
    let mut bench = bench();
    let nowhere = JobId::from_bytes([9; 32]);
    let answer = bench.wish("command", 1, |wish| wish.schedule.after = vec![nowhere]);
    assert!(matches!(&answer, Some(Response::Refused(Refusal::Unknown(why))) if why.contains("submit it first")));
    let mut last = bench.submit("command", 0);
    for number in 1..u8::try_from(CHAIN_MAX).unwrap() {
        last = bench.submit_after("command", number, &[last]);
    }
    let answer = bench.wish("command", 200, |wish| wish.schedule.after = vec![last]);
    assert!(matches!(&answer, Some(Response::Refused(Refusal::Invalid(why))) if why.contains("at most 64 jobs")));
    let first = bench.ledger.jobs().into_iter().find(|job| bench.ledger.links(job.id).len() == 1 && job.id != last);
    bench.cancel(first.unwrap().id, samples::MAINTAINER_SEED);
    assert_eq!(bench.state(last), "skipped", "the whole chain ends in one command");
    bench.assert_replays();
}

#[test]
fn a_restart_holds_a_waiting_job_still() {
    let mut bench = bench();
    let first = bench.submit("command", 1);
    let second = bench.submit_after("command", 2, &[first]);
    bench.apply(crate::Command::Restarted);
    assert_eq!(bench.ledger.open_jobs(bench.now).iter().map(|a| a.job).collect::<Vec<_>>(), [first]);
    build(&mut bench, first);
    build(&mut bench, second);
    assert_eq!(bench.state(second), "reproduced");
    bench.assert_replays();
}
