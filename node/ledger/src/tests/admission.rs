//! Who may ask for what.

use std::time::Duration;

use protocol::{
    Arch, Hash, Signed,
    job::{Group, JobRequest},
    message::{Refusal, Response},
    policy::Maintainer,
    testing::{public_key, samples, signing_key},
};

use crate::{
    Command,
    testing::{Bench, builder, request},
};

/// Submits a changed request, signed by a key, and gives the refusal's words.
fn refused(bench: &mut Bench, key: u8, change: impl FnOnce(&mut JobRequest)) -> String {
    let mut wish = samples::deb_request(bench.network);
    change(&mut wish);
    let network = bench.network;
    let request = Signed::sign(&wish, Some(&network), &[&signing_key(key)]).verify(Some(&network)).unwrap();
    let before = bench.ledger.jobs().len();
    let answer = bench.apply(Command::Submit(request));
    assert_eq!(bench.ledger.jobs().len(), before, "nothing is accepted");
    match answer {
        Some(Response::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_accepted_says_why() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let maria = samples::MAINTAINER_SEED;
    let words = refused(&mut bench, 9, |_| ());
    assert!(words.starts_with("not allowed: key ") && words.contains("is no maintainer of this network"), "{words}");
    let words = refused(&mut bench, maria, |r| r.channel = "beta".parse().unwrap());
    assert!(words.contains("maria may not submit to channel beta"), "{words}");
    let words = refused(&mut bench, maria, |r| r.arch = Arch::Riscv64);
    assert_eq!(words, "channel stable builds amd64, arm64, not riscv64");
    let words = refused(&mut bench, maria, |r| r.network = protocol::NetworkId::from_bytes([1; 32]));
    assert!(words.starts_with("the request is for network 0101"), "{words}");
    let words = refused(&mut bench, maria, |r| r.limits.wall_secs = 5 * 3600);
    assert_eq!(words, "a build may take 14400 s here, the request asks for 18000 s");
    let words = refused(&mut bench, maria, |r| r.created = samples::NOW.after(Duration::from_secs(61)));
    assert_eq!(words, "the request was signed 61 s in the future: check the signer's clock");
    bench.now = bench.now.after(Duration::from_secs(86_400));
    assert_eq!(refused(&mut bench, maria, |_| ()), "the request has expired: sign a new one");
    bench.now = bench.now.after(Duration::from_secs(400 * 86_400));
    assert!(refused(&mut bench, maria, |_| ()).contains("policy has expired"));
    bench.assert_replays();
}

#[test]
fn a_channel_that_is_gone_is_named() {
    let mut policy = crate::testing::policy(3, 1, crate::testing::channel(2, 2, 3));
    policy.maintainers[0].channels.insert(0, "beta".parse().unwrap());
    let mut bench = Bench::new(&policy);
    let words = refused(&mut bench, samples::MAINTAINER_SEED, |r| r.channel = "beta".parse().unwrap());
    assert_eq!(words, "there is no channel beta in the policy");
}

#[test]
fn a_replayed_request_gets_the_same_receipt_and_no_second_job() {
    let mut bench = Bench::of(3, 1, 1, 1);
    let job = bench.submit("command", 1);
    let first = bench.now;
    bench.wait(5);
    let again = bench.apply(Command::Submit(request(bench.network, "command", 1)));
    assert_eq!(again, Some(Response::Receipt(job, first)));
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    assert_eq!(bench.state(job), "reproduced");
    bench.wait(2 * 86_400);
    let again = bench.apply(Command::Submit(request(bench.network, "command", 1)));
    assert_eq!(again, Some(Response::Receipt(job, first)), "also after it ended, and after it expired");
    assert_eq!(bench.ledger.jobs().len(), 1);
    bench.assert_replays();
}

#[test]
fn a_group_belongs_to_who_asked_for_it_first() {
    let mut policy = crate::testing::policy(3, 1, crate::testing::channel(2, 2, 3));
    let channels = policy.maintainers[0].channels.clone();
    policy.maintainers.push(Maintainer { key: public_key(9), name: "mallory".parse().unwrap(), channels });
    policy.maintainers.sort();
    let mut bench = Bench::new(&policy);
    let submit = |bench: &mut Bench, key: u8, group: &[u8], number: u8| {
        let mut wish = samples::command_request(bench.network);
        wish.nonce[0] = number;
        wish.schedule.group = Some(Group { id: Hash::of(group), variant: "amd64".parse().unwrap() });
        let signed = Signed::sign(&wish, Some(&bench.network), &[&signing_key(key)]);
        bench.apply(Command::Submit(signed.verify(Some(&bench.network)).unwrap()))
    };
    let accepted = |answer| matches!(answer, Some(Response::Receipt(..)));
    assert!(accepted(submit(&mut bench, samples::MAINTAINER_SEED, b"group", 1)));
    match submit(&mut bench, 9, b"group", 2) {
        Some(Response::Refused(refusal)) => {
            assert!(refusal.to_string().ends_with(" is maintainer maria's"), "{refusal}")
        }
        other => panic!("{other:?}"),
    }
    assert!(accepted(submit(&mut bench, 9, b"other", 3)));
    assert!(accepted(submit(&mut bench, samples::MAINTAINER_SEED, b"group", 4)));
    bench.assert_replays();
}

#[test]
fn a_maintainer_has_only_so_many_open_jobs() {
    let mut policy = crate::testing::policy(3, 1, crate::testing::channel(2, 2, 3));
    policy.limits.open_jobs = 2;
    let mut bench = Bench::new(&policy);
    let first = bench.submit("deb", 1);
    bench.submit("deb", 2);
    let answer = bench.apply(Command::Submit(request(bench.network, "deb", 3)));
    assert!(matches!(answer, Some(Response::Refused(Refusal::Busy(_)))), "{answer:?}");
    assert_eq!(bench.cancel(first, samples::MAINTAINER_SEED), Some(Response::Done));
    bench.submit("deb", 3);
    bench.assert_replays();
}

#[test]
fn only_its_maintainer_or_a_root_cancels_a_job() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    assert!(matches!(bench.cancel(job, 9), Some(Response::Refused(Refusal::NotAllowed(_)))));
    assert_eq!(bench.state(job), "building");
    assert_eq!(bench.cancel(job, samples::ROOT_SEED), Some(Response::Done));
    assert_eq!(bench.revoked(), [lease.number]);
    assert_eq!(bench.state(job), "cancelled");
    assert_eq!(bench.cancel(job, samples::MAINTAINER_SEED), Some(Response::Done), "again is no error");
    assert_eq!(bench.reveal(&lease, "late"), Some(Response::Done), "the late report is kept and harms nobody");
    assert_eq!(bench.ledger.job(job).unwrap().late.len(), 1);
    bench.assert_replays();
}

#[test]
fn a_job_ends_when_its_time_is_over() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    bench.wait(86_400);
    assert_eq!(bench.state(job), "expired");
    assert_eq!(bench.cancel(job, samples::MAINTAINER_SEED).map(|a| format!("{a:?}").contains("too late")), Some(true));
    bench.assert_replays();
}

#[test]
fn a_policy_needs_its_predecessors_roots_and_a_higher_number() {
    let mut bench = Bench::of(2, 2, 2, 3);
    assert_eq!(bench.adopt(|_| ()), Some(Response::Done));
    let words = |answer: Option<Response>| format!("{answer:?}");
    assert!(words(bench.adopt(|p| p.number = 2)).contains("not above 2") || bench.ledger.policy_chain().len() == 2);
    assert!(words(bench.adopt(|p| p.expires = samples::NOW)).contains("expired"));
    assert_eq!(bench.ledger.policy_chain().len(), 2);
    bench.assert_replays();
}

#[test]
fn a_node_that_the_policy_drops_loses_its_lease() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let gone = bench.lease(builder(0, 0), job);
    let kept = bench.lease(builder(1, 0), job);
    bench.bid(builder(2, 0), job);
    bench.adopt(|p| drop(p.operators.remove(0)));
    assert_eq!(bench.revoked(), [gone.number]);
    let third = bench.granted().pop().expect("the third operator takes over");
    assert_eq!(third.node, builder(2, 0));
    bench.reveal(&kept, "a");
    bench.reveal(&third, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}
