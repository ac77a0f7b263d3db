//! Which job a free slot goes to.

use protocol::{
    Arch, JobId, Signed,
    blame::Blame,
    job::{JobRequest, Priority},
    lease::Lease,
    message::{Offer, Response},
    policy::Maintainer,
    testing::{public_key, samples, signing_key},
};

use crate::{
    Command, Duty,
    testing::{Bench, builder, channel, policy},
};

/// The key seeds of two more maintainers.
const ALICE: u8 = 3;
const BOB: u8 = 4;

/// A network of one operator where Alice and Bob may submit beside Maria.
fn bench(operators: u8) -> Bench {
    let mut policy = policy(operators, 1, channel(1, 1, 1));
    for (key, name) in [(ALICE, "alice"), (BOB, "bob")] {
        let channels = policy.maintainers[0].channels.clone();
        policy.maintainers.push(Maintainer { key: public_key(key), name: name.parse().unwrap(), channels });
    }
    policy.maintainers.sort();
    policy.limits.open_jobs = 10_000;
    Bench::new(&policy)
}

fn submit(bench: &mut Bench, key: u8, number: u16, change: impl FnOnce(&mut JobRequest)) -> JobId {
    let mut wish = samples::command_request(bench.network);
    wish.nonce[..2].copy_from_slice(&number.to_be_bytes());
    wish.nonce[2] = key;
    change(&mut wish);
    let signed = Signed::sign(&wish, Some(&bench.network), &[&signing_key(key)]);
    match bench.apply(Command::Submit(signed.verify(Some(&bench.network)).unwrap())) {
        Some(Response::Receipt(job, _)) => job,
        other => panic!("{other:?}"),
    }
}

/// Lets a builder offer one slot, build what it gets within `seconds`, and gives the lease.
fn work(bench: &mut Bench, operator: u8, seconds: u64) -> Lease {
    assert_eq!(bench.offer(builder(operator, 0), 1), Some(Response::Done));
    let lease = bench.granted().pop().expect("something waits");
    bench.start(&lease);
    for _ in 0..seconds / 20 {
        bench.wait(20);
        bench.renew(&[&lease]);
    }
    bench.wait(seconds % 20);
    bench.reveal(&lease, "a");
    lease
}

fn maintainer(bench: &Bench, lease: &Lease) -> String {
    bench.ledger.job(lease.job).unwrap().maintainer.to_string()
}

#[test]
fn three_thousand_jobs_of_one_do_not_starve_the_other() {
    let mut bench = bench(1);
    for number in 0..3000 {
        submit(&mut bench, ALICE, number, |_| ());
    }
    for _ in 0..5 {
        let lease = work(&mut bench, 0, 1);
        assert_eq!(maintainer(&bench, &lease), "alice");
    }
    let job = submit(&mut bench, BOB, 0, |_| ());
    assert_eq!(work(&mut bench, 0, 1).job, job, "the next slot is Bob's");
    bench.assert_replays();
}

#[test]
fn two_bursts_share_evenly() {
    let mut bench = bench(1);
    for number in 0..40 {
        submit(&mut bench, ALICE, number, |_| ());
    }
    for number in 0..40 {
        submit(&mut bench, BOB, number, |_| ());
    }
    let mut served = Vec::new();
    for _ in 0..40 {
        let lease = work(&mut bench, 0, 5);
        served.push(maintainer(&bench, &lease));
        let of = |name: &str| served.iter().filter(|n| *n == name).count();
        assert!(of("alice").abs_diff(of("bob")) <= 1, "{served:?}");
    }
    bench.assert_replays();
}

#[test]
fn machine_time_is_shared_and_not_the_number_of_jobs() {
    let mut bench = bench(1);
    let long = |wish: &mut JobRequest| match &mut wish.kind {
        protocol::job::JobKind::Command(command) => command.name = "long".parse().unwrap(),
        protocol::job::JobKind::Deb(_)
        | protocol::job::JobKind::Rpm(_)
        | protocol::job::JobKind::Image(_)
        | protocol::job::JobKind::Server(_)
        | protocol::job::JobKind::Fetch(_) => {
            panic!("the sample is a command")
        }
    };
    for number in 0..60 {
        submit(&mut bench, ALICE, number, |_| ());
        submit(&mut bench, BOB, number, long);
    }
    let mut seconds = [0, 0];
    for _ in 0..60 {
        assert_eq!(bench.offer(builder(0, 0), 1), Some(Response::Done));
        let lease = bench.granted().pop().unwrap();
        let bobs = maintainer(&bench, &lease) == "bob";
        let takes = if bobs { 100 } else { 10 };
        bench.start(&lease);
        for _ in 0..takes / 10 {
            bench.wait(10);
            bench.renew(&[&lease]);
        }
        bench.reveal(&lease, "a");
        seconds[usize::from(bobs)] += takes;
    }
    let [alice, bob] = seconds;
    assert!(alice * 10 >= bob * 5 && bob * 10 >= alice * 5, "alice {alice} s, bob {bob} s");
    bench.assert_replays();
}

#[test]
fn who_was_away_saves_up_no_monopoly() {
    let mut bench = bench(1);
    for number in 0..100 {
        submit(&mut bench, ALICE, number, |_| ());
    }
    for _ in 0..50 {
        work(&mut bench, 0, 1);
    }
    for number in 0..20 {
        submit(&mut bench, BOB, number, |_| ());
    }
    let leases: Vec<_> = (0..10).map(|_| work(&mut bench, 0, 1)).collect();
    let served: Vec<_> = leases.iter().map(|lease| maintainer(&bench, lease)).collect();
    let bobs = served.iter().filter(|name| *name == "bob").count();
    assert!((5..=6).contains(&bobs), "{served:?}");
    bench.assert_replays();
}

#[test]
fn priority_orders_the_jobs_of_one_maintainer_and_gives_nobody_more() {
    let mut bench = bench(1);
    let priority = |level| move |wish: &mut JobRequest| wish.schedule.priority = Priority(level);
    let usual = submit(&mut bench, ALICE, 1, |_| ());
    let urgent = submit(&mut bench, ALICE, 2, priority(9));
    let idle = submit(&mut bench, ALICE, 3, priority(0));
    let bobs = submit(&mut bench, BOB, 1, priority(0));
    let order: Vec<JobId> = (0..4).map(|_| work(&mut bench, 0, 60).job).collect();
    let place = |job: JobId| order.iter().position(|j| *j == job).unwrap();
    assert!(place(urgent) < place(usual) && place(usual) < place(idle));
    assert!(place(bobs) < 2, "Alice's urgent job is no reason for Bob to wait longer");
    bench.assert_replays();
}

#[test]
fn a_bid_for_a_job_gets_it_only_when_no_other_maintainer_comes_before() {
    let mut bench = bench(2);
    let (first, second) = (submit(&mut bench, ALICE, 1, |_| ()), submit(&mut bench, ALICE, 2, |_| ()));
    let bobs = submit(&mut bench, BOB, 1, |_| ());
    assert_eq!(bench.lease(builder(0, 0), second).job, second, "of the same maintainer the builder may choose");
    assert_eq!(bench.lease(builder(1, 0), first).job, bobs, "Alice had a lease, so Bob comes before her");
    bench.assert_replays();
}

#[test]
fn a_standing_offer_takes_a_new_job_at_once() {
    let mut bench = Bench::of(3, 2, 2, 3);
    assert_eq!(bench.offer(builder(0, 0), 2), Some(Response::Done));
    let job = bench.submit("deb", 1);
    assert_eq!(bench.granted().len(), 1);
    assert!(bench.announced(), "one more operator is wanted");
    bench.offer(builder(1, 0), 1);
    assert_eq!(bench.granted()[0].job, job);
    let next = bench.submit("deb", 2);
    assert_eq!(bench.granted().iter().map(|l| (l.job, l.node)).collect::<Vec<_>>(), [(next, builder(0, 0))]);
    bench.submit("deb", 3);
    assert_eq!(bench.granted(), [], "both slots are taken");
    bench.assert_replays();
}

#[test]
fn a_slot_is_not_given_twice_while_a_grant_is_on_its_way() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let node = builder(0, 0);
    bench.submit("deb", 1);
    bench.submit("deb", 2);
    bench.offer(node, 1);
    let lease = bench.granted().pop().unwrap();
    let early = Offer { free: 1, held: Vec::new(), arches: vec![Arch::Amd64], memory_mib: 8192 };
    assert!(bench.ledger.offer_stands(node, &early), "said before the grant arrived");
    bench.apply(Command::Offer { node, offer: early });
    assert_eq!(bench.granted(), []);
    let later = Offer { free: 1, held: vec![lease.number], arches: vec![Arch::Amd64], memory_mib: 8192 };
    assert!(!bench.ledger.offer_stands(node, &later));
    bench.apply(Command::Offer { node, offer: later });
    assert_eq!(bench.granted().len(), 1, "it has a second slot");
    bench.assert_replays();
}

#[test]
fn memory_decides_too() {
    let mut bench = bench(1);
    let big = submit(&mut bench, ALICE, 1, |wish| wish.limits.memory_mib = 5000);
    let small = submit(&mut bench, ALICE, 2, |wish| wish.limits.memory_mib = 1000);
    let offer = |memory_mib| Offer { free: 1, held: Vec::new(), arches: vec![Arch::Amd64], memory_mib };
    let node = builder(0, 0);
    bench.apply(Command::Offer { node, offer: offer(4500) });
    let lease = bench.granted().pop().unwrap();
    assert_eq!((lease.job, lease.memory_mib), (small, 1000));
    bench.fail(&lease, Blame::Interrupted, "restart");
    bench.apply(Command::Offer { node, offer: offer(5500) });
    assert_eq!(bench.granted().pop().unwrap().job, big);
    bench.assert_replays();
}

#[test]
fn a_builder_that_drains_or_takes_its_offer_back_gets_nothing() {
    let mut bench = Bench::of(2, 1, 1, 1);
    bench.offer(builder(0, 0), 1);
    bench.offer(builder(0, 0), 0);
    bench.offer(builder(1, 0), 1);
    bench.card(builder(1, 0), Arch::Amd64, (1, 8192), Duty::Draining { reason: "new disk".into() });
    bench.submit("deb", 1);
    assert_eq!(bench.granted(), []);
    bench.offer(builder(1, 0), 1);
    assert_eq!(bench.granted(), [], "it drains still");
    bench.card(builder(1, 0), Arch::Amd64, (1, 8192), Duty::Ready);
    bench.offer(builder(1, 0), 1);
    assert_eq!(bench.granted().len(), 1);
    bench.assert_replays();
}

#[test]
fn a_hundred_waiting_jobs_are_not_all_announced() {
    let mut bench = bench(1);
    let mut announced = 0;
    for number in 0..100 {
        submit(&mut bench, ALICE, number, |_| ());
        announced += usize::from(bench.announced());
    }
    assert_eq!(announced, 16);
    assert_eq!(bench.ledger.open_jobs(bench.now).len(), 64);
    bench.wait(30);
    let again = bench.effects.iter().filter(|e| matches!(e, crate::Effect::Announce(_))).count();
    assert_eq!(again, 16);
    bench.assert_replays();
}
