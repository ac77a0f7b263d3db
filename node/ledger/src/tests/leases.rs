//! Who gets a lease, how it lives and how it ends.

use protocol::{
    blame::Blame,
    lease::Profile,
    limits,
    message::{Refusal, Response},
};

use crate::{
    Command, Effect,
    testing::{Bench, builder, channel, policy},
};

#[test]
fn n_operators_get_a_lease_each_under_its_own_profile() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    assert!(bench.announced());
    let first = bench.lease(builder(0, 0), job);
    let second = bench.lease(builder(1, 0), job);
    assert!(first.number < second.number);
    assert_eq!((first.profile, second.profile), (Profile(0), Profile(1)));
    assert_eq!(first.expires, bench.now.after(limits::LEASE_TTL));
    assert_eq!(bench.bid(builder(2, 0), job), Some(Response::Done), "the third is remembered");
    assert_eq!(bench.granted(), []);
    assert_eq!(bench.ledger.open_jobs(bench.now), []);
    bench.assert_replays();
}

#[test]
fn one_operator_has_one_turn_however_many_nodes_it_runs() {
    let mut bench = Bench::new(&policy(2, 2, channel(2, 2, 3)));
    let job = bench.submit("deb", 1);
    bench.lease(builder(0, 0), job);
    assert!(matches!(bench.bid(builder(0, 1), job), Some(Response::Refused(Refusal::NotAllowed(_)))));
    assert!(matches!(bench.bid(protocol::testing::node(200), job), Some(Response::Refused(Refusal::NotAllowed(_)))));
    bench.assert_replays();
}

#[test]
fn renewals_keep_a_lease_and_name_those_that_are_lost() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let (lease, other) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&lease);
    for _ in 0..5 {
        bench.wait(20);
        assert_eq!(bench.renew(&[&lease]), Some(Response::Lost(vec![])));
    }
    assert_eq!(bench.ledger.lease(lease.number).unwrap().lease.expires, bench.now.after(limits::LEASE_TTL));
    let theirs = protocol::lease::Lease { node: lease.node, ..other };
    assert_eq!(bench.renew(&[&lease, &theirs]), Some(Response::Lost(vec![theirs.number])));
    assert_eq!(bench.start(&theirs), Some(Response::Lost(vec![theirs.number])));
    bench.assert_replays();
}

/// Has a builder live on without a result for so many seconds.
fn hold(bench: &mut Bench, lease: &protocol::lease::Lease, seconds: u64) {
    for _ in 0..seconds / 20 {
        bench.wait(20);
        bench.renew(&[lease]);
    }
}

#[test]
fn who_renews_without_end_loses_the_job_to_another() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let (endless, kept) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&endless);
    bench.reveal(&kept, "a");
    let limit = bench.ledger.request(job).unwrap().get().limits.wall() + limits::ATTEMPT_ROOM;
    hold(&mut bench, &endless, limit.as_secs() - 20);
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "running");
    bench.wait(20);
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "unanswered");
    assert_eq!(bench.revoked(), [endless.number]);
    assert_eq!(bench.renew(&[&endless]), Some(Response::Lost(vec![endless.number])));
    assert_eq!(bench.commit(&endless, "a"), Some(Response::Lost(vec![endless.number])));
    let other = bench.lease(builder(2, 0), job);
    bench.reveal(&other, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn who_had_no_result_in_time_has_another_turn_when_nobody_else_is_left() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("deb", 1);
    let (endless, kept) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.reveal(&kept, "a");
    let limit = bench.ledger.request(job).unwrap().get().limits.wall() + limits::ATTEMPT_ROOM;
    hold(&mut bench, &endless, limit.as_secs());
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "unanswered");
    bench.bid(endless.node, job);
    bench.wait(10);
    let again = bench.granted().pop().expect("nobody else is left");
    bench.reveal(&again, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn a_killed_builder_is_interrupted_and_its_job_goes_to_another() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let (lost, kept) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&lost);
    bench.bid(builder(2, 0), job);
    bench.wait(20);
    bench.renew(&[&kept]);
    bench.wait(5);
    let taken = bench.granted();
    assert_eq!(taken.iter().map(|l| l.node).collect::<Vec<_>>(), [builder(2, 0)]);
    assert_eq!(taken[0].profile, Profile(2), "a profile is never given twice");
    let view = bench.ledger.job(job).unwrap();
    assert_eq!(view.attempts[0].state, "interrupted");
    assert_eq!(bench.reveal(&lost, "late"), Some(Response::Done));
    assert_eq!(bench.reveal(&kept, "a"), Some(Response::Done));
    bench.reveal(&taken[0], "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn two_operators_of_two_go_on_after_one_was_killed_and_restarted() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("deb", 1);
    let (lost, kept) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&lost);
    bench.reveal(&kept, "a");
    assert_eq!(bench.fail(&lost, Blame::Interrupted, "restart"), Some(Response::Done));
    assert!(bench.announced());
    assert_eq!(bench.bid(lost.node, job), Some(Response::Done));
    assert_eq!(bench.granted(), [], "others have the chance first");
    let waiting = bench.ledger.job(job).unwrap().waiting.unwrap();
    let words = "1 built it; 1 builder stands back after an interruption so that others may have it, for 10 s more";
    assert_eq!(waiting, words);
    bench.wait(10);
    let again = bench.granted().pop().expect("its turn after ten seconds");
    assert_eq!((again.node, again.profile), (lost.node, Profile(2)));
    bench.reveal(&again, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn a_declined_lease_goes_to_the_next_bidder_or_is_announced_again() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.bid(builder(1, 0), job);
    bench.apply(Command::Declined { node: lease.node, lease: lease.number, why: "no slot".into() });
    let next = bench.granted().pop().unwrap();
    assert_eq!((next.node, next.profile), (builder(1, 0), Profile(1)));
    bench.apply(Command::Declined { node: next.node, lease: next.number, why: "no slot".into() });
    assert!(bench.announced());
    assert_eq!(bench.state(job), "queued");
    assert_eq!(bench.ledger.job(job).unwrap().attempts, []);
    bench.wait(2);
    bench.lease(builder(0, 0), job);
    bench.assert_replays();
}

#[test]
fn a_job_that_loses_five_builders_is_poison() {
    let mut bench = Bench::of(6, 1, 1, 2);
    let job = bench.submit("deb", 1);
    for at in 0..5 {
        let lease = bench.lease(builder(at, 0), job);
        bench.start(&lease);
        bench.wait(25);
    }
    assert_eq!(bench.state(job), "failed");
    let why = format!("{:?}", bench.ledger.job(job).unwrap().verdict);
    assert!(why.contains("5 builders were lost"), "{why}");
    bench.assert_replays();
}

#[test]
fn a_lost_connection_forgets_bids_and_keeps_leases() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.bid(builder(1, 0), job);
    bench.apply(Command::Lost { node: builder(1, 0) });
    bench.apply(Command::Lost { node: builder(0, 0) });
    assert!(bench.ledger.lease(lease.number).is_some());
    bench.wait(25);
    assert_eq!(bench.granted(), []);
    assert!(bench.announced());
    bench.assert_replays();
}

#[test]
fn a_restarted_coordinator_gives_time_and_says_again_what_nobody_acknowledged() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let (started, granted) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    bench.start(&started);
    bench.now = bench.now.after(limits::LEASE_TTL * 10);
    bench.apply(Command::Restarted);
    assert_eq!(bench.granted().iter().map(|l| l.number).collect::<Vec<_>>(), [granted.number]);
    let expires = bench.now.after(limits::LEASE_TTL);
    assert_eq!(bench.ledger.lease(started.number).unwrap().lease.expires, expires);
    assert!(bench.effects.contains(&Effect::WakeAt(expires)));
    bench.assert_replays();
}

#[test]
fn a_clock_that_jumps_neither_kills_leases_nor_keeps_them_for_ever() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.start(&lease);
    bench.wait(3600);
    assert!(bench.ledger.lease(lease.number).is_some(), "nobody listened for an hour");
    bench.now = protocol::testing::samples::NOW;
    bench.apply(Command::Woken);
    bench.wait(25);
    assert!(
        bench.ledger.lease(lease.number).is_none(),
        "the clock was set back: the lease does not live an hour longer"
    );
    bench.assert_replays();
}

#[test]
fn a_grant_is_not_said_again_in_the_command_in_which_its_lease_runs_out() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let job = bench.submit("command", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.now = lease.expires;
    assert!(matches!(bench.bid(builder(0, 0), job), Some(Response::Refused(Refusal::Busy(_)))));
    assert!(!bench.granted().contains(&lease), "it is over");
    assert_eq!(bench.ledger.lease(lease.number), None);
    bench.assert_replays();
}

#[test]
fn a_lost_grant_is_sent_again_when_its_node_bids_again() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    assert_eq!(bench.lease(builder(0, 0), job), lease);
    bench.assert_replays();
}

#[test]
fn jobs_that_want_builders_are_announced_every_half_minute() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    bench.wait(29);
    assert!(!bench.announced());
    bench.wait(1);
    assert!(bench.announced());
    assert_eq!(bench.ledger.open_jobs(bench.now)[0].job, job);
    let waiting = bench.ledger.job(job).unwrap().waiting.unwrap();
    assert_eq!(waiting, "no online peer offers amd64");
    bench.assert_replays();
}

#[test]
fn an_ended_job_becomes_small_and_is_still_known() {
    let mut bench = Bench::of(2, 1, 1, 2);
    let mut first = None;
    for number in 0..=u8::MAX {
        let job = bench.submit("command", number);
        let lease = bench.lease(builder(0, 0), job);
        bench.reveal(&lease, "a");
        first.get_or_insert((job, lease));
    }
    let (job, lease) = first.unwrap();
    assert!(bench.ledger.evidence(job).is_some());
    let late = bench.ledger.request(job).unwrap().clone();
    let one_more = protocol::testing::samples::deb_request(bench.network);
    let one_more = protocol::testing::samples::signed_request(&one_more);
    let one_more_job = protocol::job::job_id(&one_more);
    bench.apply(Command::Submit(one_more));
    bench.cancel(one_more_job, protocol::testing::samples::MAINTAINER_SEED);
    assert!(bench.ledger.evidence(job).is_none(), "only the newest keep their evidence");
    assert_eq!(bench.state(job), "reproduced");
    let attestation = crate::testing::attest(&late, &lease, Bench::key_of(lease.node), "b");
    let log = protocol::Hash::of(b"log");
    let opening = crate::Opening::Salt(crate::testing::SALT);
    let answer = bench.apply(Command::Revealed { node: lease.node, lease: lease.number, log, opening, attestation });
    assert!(matches!(answer, Some(Response::Refused(Refusal::Unknown(_)))));
    assert!(bench.ledger.job(job).unwrap().times.ended.is_some());
    bench.assert_replays();
}
