//! Why a job waits, in the words that people read.

use std::time::Duration;

use protocol::{Arch, JobId, blame::Blame, job::JobRequest, message::Response, testing::samples};

use crate::{
    Command, Duty,
    testing::{Bench, builder},
};

fn submit(bench: &mut Bench, number: u8, change: impl FnOnce(&mut JobRequest)) -> JobId {
    let mut wish = samples::command_request(bench.network);
    wish.nonce = vec![number; 16];
    change(&mut wish);
    match bench.apply(Command::Submit(samples::signed_request(&wish))) {
        Some(Response::Receipt(job, _)) => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_with_the_architecture() {
    let mut bench = Bench::of(3, 2, 2, 3);
    bench.card(builder(0, 0), Arch::Amd64, (1, 8192), Duty::Ready);
    let job = submit(&mut bench, 1, |wish| wish.arch = Arch::Arm64);
    assert_eq!(bench.why(job), "no online peer offers arm64");
    bench.card(builder(1, 0), Arch::Arm64, (1, 8192), Duty::Ready);
    bench.apply(Command::Lost { node: builder(1, 0) });
    bench.wait(300);
    assert_eq!(bench.why(job), "no online peer offers arm64: 1 known peer away, last seen 5 min ago");
    bench.assert_replays();
}

#[test]
fn too_much_memory_is_said_at_once_and_is_no_failure() {
    let mut bench = Bench::of(3, 2, 2, 3);
    bench.card(builder(0, 0), Arch::Amd64, (1, 16_384), Duty::Ready);
    bench.card(builder(1, 0), Arch::Amd64, (1, 8192), Duty::Ready);
    let job = submit(&mut bench, 1, |wish| wish.limits.memory_mib = 65_536);
    assert_eq!(bench.why(job), "it needs 64 GiB, the largest peer has 16 GiB: it waits for a peer to join");
    assert_eq!(bench.state(job), "queued");
    bench.card(builder(2, 0), Arch::Amd64, (1, 131_072), Duty::Ready);
    bench.offer(builder(2, 0), 1);
    assert_eq!(bench.granted().len(), 1);
    bench.assert_replays();
}

#[test]
fn busy_operators_and_the_next_slot() {
    let mut bench = Bench::of(3, 1, 1, 1);
    for operator in 0..3 {
        bench.card(builder(operator, 0), Arch::Amd64, (1, 8192), Duty::Ready);
    }
    // One ran before, so that it is known how long such jobs take.
    let before = submit(&mut bench, 1, |_| ());
    let lease = bench.lease(builder(0, 0), before);
    bench.start(&lease);
    for _ in 0..15 {
        bench.wait(20);
        bench.renew(&[&lease]);
    }
    bench.reveal(&lease, "a");
    for number in 2..5 {
        let job = submit(&mut bench, number, |_| ());
        let lease = bench.lease(builder(number - 2, 0), job);
        bench.start(&lease);
    }
    let job = submit(&mut bench, 9, |_| ());
    assert_eq!(bench.why(job), "3 of 3 operators busy, next slot in about 5 min");
    let expected = bench.ledger.job(job).unwrap().expected;
    assert_eq!(expected.start, Some(bench.now.after(Duration::from_secs(300))));
    assert_eq!(expected.end, Some(bench.now.after(Duration::from_secs(600))));
    bench.wait(1);
    let behind = submit(&mut bench, 10, |_| ());
    assert_eq!(bench.why(behind), "behind 1 job of maria, next slot in about 5 min");
    bench.assert_replays();
}

#[test]
fn those_that_had_their_turn_and_those_that_drain() {
    let mut bench = Bench::of(3, 2, 2, 3);
    bench.card(builder(0, 0), Arch::Amd64, (1, 8192), Duty::Ready);
    let job = submit(&mut bench, 1, |_| ());
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    let words = "1 built it; it waits for another operator with amd64: those that are online had their turn";
    assert_eq!(bench.why(job), words);
    bench.card(builder(1, 0), Arch::Amd64, (1, 8192), Duty::Draining { reason: "new disk".into() });
    let words = "1 built it; 1 peer that could build it will take nothing new until the drain is over";
    assert_eq!(bench.why(job), words);
    bench.assert_replays();
}

#[test]
fn a_job_waits_for_a_builder_whose_owner_gives_it_the_disk() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let (disk, node) = (1 << 20, builder(0, 0));
    bench.card(node, Arch::Amd64, (1, 65_536), Duty::Ready);
    bench.offer(node, 1);
    let large = submit(&mut bench, 1, |wish| wish.limits.disk_mib = disk + 1);
    assert!(bench.granted().is_empty());
    let line = "`disk_mib` in the [builder] part of its artel.toml";
    assert_eq!(bench.why(large), format!("no other peer's owner lets it use {} MiB of disk: {line}", disk + 1));
    let refused = bench.bid(node, large);
    assert!(
        matches!(&refused, Some(Response::Refused(why)) if why.to_string().contains("does not let it use")),
        "{refused:?}"
    );
    submit(&mut bench, 2, |wish| wish.limits.disk_mib = disk);
    assert_eq!(bench.granted().len(), 1);
    let first = bench.granted().remove(0);
    // A slot is free, and the disk is another job's.
    bench.card(node, Arch::Amd64, (2, 65_536), Duty::Ready);
    bench.offer(node, 1);
    let waits = submit(&mut bench, 3, |wish| wish.limits.disk_mib = 1);
    assert!(bench.granted().is_empty() && bench.state(waits) == "queued");
    bench.fail(&first, Blame::Interrupted, "build");
    bench.offer(node, 2);
    let granted: Vec<JobId> = bench.granted().iter().map(|lease| lease.job).collect();
    assert_eq!(granted, [waits], "who was interrupted stands back for a while");
    bench.assert_replays();
}
