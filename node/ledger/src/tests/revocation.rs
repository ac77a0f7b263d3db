//! Keys that a policy revokes: of a builder and of a maintainer.

use attest::log::entry::{Entry, Event};
use protocol::{
    PublicKey,
    job::Change,
    message::{Refusal, Response},
    policy::{Policy, Revoked},
    testing::{public_key, samples},
};

use crate::{
    Command, Effect,
    testing::{Bench, builder, request},
};

fn revoke(policy: &mut Policy, key: PublicKey, from: u64) {
    let node = protocol::NodeId::from(key);
    policy.operators.iter_mut().for_each(|operator| operator.nodes.retain(|n| *n != node));
    policy.maintainers.retain(|maintainer| maintainer.key != key);
    policy.revoked.push(Revoked { key, from, reason: "it was stolen".to_owned() });
    policy.revoked.sort();
}

/// Gives what the last command logged, with the first place.
fn logged(bench: &Bench) -> (u64, Vec<Event>) {
    let entries = bench.effects.iter().filter_map(|effect| {
        let Effect::Append { index, entry } = effect else { return None };
        Some((*index, Entry::from_bytes(entry).unwrap().event))
    });
    let (places, events): (Vec<_>, Vec<_>) = entries.unzip();
    (places[0], events)
}

fn refused(answer: Option<Response>) -> String {
    match answer {
        Some(Response::Refused(refusal @ Refusal::NotAllowed(_))) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_builders_leases_end_and_its_open_votes_do_not_count() {
    let mut bench = Bench::of(4, 2, 2, 4);
    let job = bench.submit("command", 1);
    let (first, second) = (bench.lease(builder(3, 0), job), bench.lease(builder(1, 0), job));
    bench.reveal(&first, "a");
    let other = bench.submit("command", 2);
    let running = bench.lease(builder(3, 0), other);
    let from = bench.ledger.log_head().size;
    assert_eq!(bench.adopt(|p| revoke(p, PublicKey::from(builder(3, 0)), from)), Some(Response::Done));
    assert_eq!(bench.revoked(), [running.number]);
    let (place, events) = logged(&bench);
    assert_eq!(place, from, "its own entry is the first that it does not count for");
    let [Event::Policy(policy), Event::Revocation(revocation), rest @ ..] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((revocation.key, revocation.from), (PublicKey::from(builder(3, 0)), from));
    assert_eq!(revocation.envelope, policy.envelope);
    assert!(matches!(rest, [Event::Outcome(_)]), "the lease that ended: {rest:?}");
    bench.reveal(&second, "a");
    assert_eq!(bench.state(job), "building", "the one vote that is left is not enough");
    assert!(refused(bench.bid(builder(3, 0), other)).contains("no operator"));
    let third = bench.lease(builder(2, 0), job);
    bench.reveal(&third, "a");
    assert_eq!(bench.state(job), "reproduced");
    bench.assert_replays();
}

#[test]
fn what_was_decided_before_stays() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("command", 1);
    for operator in [0, 1] {
        let lease = bench.lease(builder(operator, 0), job);
        bench.reveal(&lease, "a");
    }
    assert_eq!(bench.state(job), "reproduced");
    bench.adopt(|p| revoke(p, PublicKey::from(builder(1, 0)), 0));
    assert_eq!(bench.state(job), "reproduced", "whether it still proves anything, each verifier decides by the place");
    bench.assert_replays();
}

#[test]
fn a_maintainers_open_jobs_are_cancelled_and_nothing_more_is_obeyed() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let maria = samples::MAINTAINER_SEED;
    let over = bench.submit("command", 1);
    for operator in [0, 1] {
        let lease = bench.lease(builder(operator, 0), over);
        bench.reveal(&lease, "a");
    }
    let running = bench.submit("deb", 2);
    let waits = bench.submit_after("deb", 3, &[running]);
    let lease = bench.lease(builder(0, 0), running);
    assert_eq!(bench.adopt(|p| revoke(p, public_key(maria), 0)), Some(Response::Done));
    assert_eq!(bench.revoked(), [lease.number]);
    assert_eq!((bench.state(over), bench.state(running)), ("reproduced".to_owned(), "cancelled".to_owned()));
    assert!(matches!(bench.state(waits).as_str(), "cancelled" | "skipped"), "{}", bench.state(waits));
    let words = refused(bench.apply(Command::Submit(request(bench.network, "deb", 9))));
    assert!(words.contains("is revoked (it was stolen)"), "{words}");
    let words = refused(bench.order(running, maria, Change::Retry));
    assert!(words.contains("is revoked (it was stolen)"), "{words}");
    bench.assert_replays();
}

#[test]
fn who_is_only_no_longer_named_keeps_what_is_open() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("command", 1);
    bench.adopt(|p| p.maintainers.clear());
    assert_eq!(bench.state(job), "queued");
    assert_eq!(bench.cancel(job, samples::MAINTAINER_SEED), Some(Response::Done));
}

#[test]
fn the_log_has_a_revocation_once_and_again_when_it_reaches_further_back() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let key = PublicKey::from(builder(2, 0));
    let revocations = |bench: &Bench| {
        let (_, events) = logged(bench);
        events
            .into_iter()
            .filter_map(|e| if let Event::Revocation(r) = e { Some(r.from) } else { None })
            .collect::<Vec<_>>()
    };
    bench.adopt(|p| revoke(p, key, 1));
    assert_eq!(revocations(&bench), vec![1_u64]);
    bench.adopt(|p| p.limits.open_jobs += 1);
    assert_eq!(revocations(&bench), Vec::<u64>::new());
    bench.adopt(|p| p.revoked[0].from = 0);
    assert_eq!(revocations(&bench), vec![0]);
    assert!(refused(bench.adopt(|p| p.revoked.clear())).contains("must stay so"));
}

#[test]
fn policies_are_numbered_one_after_the_other() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let words = refused(bench.adopt(|p| p.number += 1));
    assert_eq!(words, "not allowed: policy 3 does not follow policy 1: number it 2");
    assert_eq!(bench.adopt(|_| ()), Some(Response::Done));
    let size = bench.ledger.log_head().size;
    let places: Vec<_> = bench.ledger.enacted().iter().map(|enacted| (enacted.number, enacted.place)).collect();
    assert_eq!(places, [(1, 0), (2, size - 1)]);
    // What ended before was decided by the policy of then.
    let (first, before) = (bench.ledger.enacted()[0].at, bench.now);
    bench.wait(10);
    bench.adopt(|_| ());
    let number = |at| bench.ledger.policy_at(at).get().number;
    assert_eq!((number(first), number(before), number(bench.now)), (2, 2, 3), "the first two came in one moment");
    bench.assert_replays();
}
