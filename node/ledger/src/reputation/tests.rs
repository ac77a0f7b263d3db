//! Who is contradicted, quarantined, disabled and taken back; whose report counts.

use proptest::prelude::*;
use protocol::{
    JobId, NodeId,
    blame::{Blame, Fault},
    lease::Lease,
    limits,
    message::{Refusal, Response},
};

use super::{Class, Hindrance, May};
use crate::{
    Command, Effect, KEPT_AFTER_END, News,
    testing::{Bench, builder, channel, policy},
};

/// A bench whose jobs are numbered.
struct Court {
    bench: Bench,
    jobs: u8,
}

impl Court {
    fn new(operators: u8, nodes: u8, [agree, ask_max]: [u8; 2]) -> Self {
        Self { bench: Bench::new(&policy(operators, nodes, channel(agree, agree, ask_max))), jobs: 0 }
    }

    fn submit(&mut self) -> JobId {
        self.jobs += 1;
        self.bench.submit("command", self.jobs)
    }

    /// Submits a job that may wait for days.
    fn submit_for_days(&mut self) -> JobId {
        self.jobs += 1;
        let answer =
            self.bench.wish("command", self.jobs, |wish| wish.expires = wish.expires.after(3 * KEPT_AFTER_END));
        let Some(Response::Receipt(job, _)) = answer else { panic!("{answer:?}") };
        job
    }

    /// The first builder says something, then two others build the same.
    fn contradict(&mut self, said: impl FnOnce(&mut Bench, &Lease)) -> JobId {
        let job = self.submit();
        let lease = self.bench.lease(builder(0, 0), job);
        said(&mut self.bench, &lease);
        self.reproduce(job);
        job
    }

    /// The second and third operator build the same.
    fn reproduce(&mut self, job: JobId) {
        for operator in [1, 2] {
            let lease = self.bench.lease(builder(operator, 0), job);
            self.bench.reveal(&lease, "true");
        }
        assert_eq!(self.bench.state(job), "reproduced");
    }

    fn may(&self, node: NodeId) -> May {
        let ledger = &self.bench.ledger;
        let operator = ledger.policy_in_force().operator_of(&node).unwrap();
        let class = Class { arch: protocol::Arch::Amd64, kind: "command".into() };
        ledger.may_lease(node, operator, &class, self.bench.now)
    }

    /// The first builder fails three jobs that others build: it is disabled.
    fn disable(&mut self) {
        for _ in 0..3 {
            self.contradict(|bench, lease| drop(bench.fail(lease, Blame::Job, "build")));
            if let May::No(Hindrance::Quarantined { until }) = self.may(builder(0, 0)) {
                self.bench.wait(until.since(self.bench.now).as_secs() + 1);
            }
        }
        assert!(
            matches!(self.may(builder(0, 0)), May::No(Hindrance::Disabled { .. })),
            "{:?}",
            self.may(builder(0, 0))
        );
    }

    fn news(&self) -> Vec<&News> {
        self.bench.effects.iter().filter_map(told).collect()
    }
}

fn told(effect: &Effect) -> Option<&News> {
    if let Effect::Notify(news) = effect { Some(news) } else { None }
}

#[test]
fn what_contradicts_a_builder() {
    type Said = fn(&mut Bench, &Lease);
    let table: &[(bool, Said)] = &[
        (true, |bench, lease| drop(bench.fail(lease, Blame::Job, "build"))),
        (true, |bench, lease| drop(bench.fail(lease, Blame::Timeout, "build"))),
        (true, |bench, lease| drop(bench.fail(lease, Blame::Builder(Fault::DiskFull), "inputs"))),
        (true, |bench, lease| drop(bench.fail(lease, Blame::Builder(Fault::Fetch), "fetch"))),
        (true, |bench, lease| drop(bench.fail(lease, Blame::InputMismatch, "inputs"))),
        (true, |bench, lease| drop(bench.reveal(lease, "lie"))),
        (false, |bench, lease| drop(bench.fail(lease, Blame::Interrupted, "daemon"))),
        (false, |bench, lease| drop(bench.fail(lease, Blame::Cancelled, "lease"))),
        (false, |bench, _| bench.wait(25)),
    ];
    for (at, (contradicted, said)) in table.iter().enumerate() {
        let mut court = Court::new(3, 1, [2, 3]);
        court.contradict(said);
        let quarantined = matches!(court.may(builder(0, 0)), May::No(Hindrance::Quarantined { .. }));
        assert_eq!(quarantined, *contradicted, "row {at}");
        let told = court.news().iter().any(|news| matches!(news, News::Quarantined { .. }));
        assert_eq!(told, *contradicted, "row {at}");
        for other in [1, 2] {
            assert_eq!(court.may(builder(other, 0)), May::Yes, "those who agree are free");
        }
        court.bench.assert_replays();
    }
}

#[test]
fn a_quarantine_doubles_is_said_and_ends_by_itself() {
    let mut court = Court::new(3, 1, [2, 3]);
    let mut lengths = Vec::new();
    for _ in 0..2 {
        let job = court.contradict(|bench, lease| drop(bench.reveal(lease, "lie")));
        let May::No(Hindrance::Quarantined { until }) = court.may(builder(0, 0)) else { panic!("in quarantine") };
        lengths.push(until.since(court.bench.now).as_secs());
        let next = court.submit();
        let Some(Response::Refused(Refusal::Busy(why))) = court.bench.bid(builder(0, 0), next) else {
            panic!("a bid in quarantine is refused")
        };
        assert!(why.contains("in quarantine"), "{why}");
        court.reproduce(next);
        let peer = court.bench.ledger.peer(builder(0, 0), court.bench.now).unwrap();
        assert_eq!(peer.classes[0].evidence.last().unwrap().job, job, "the evidence is shown");
        court.bench.wait(until.since(court.bench.now).as_secs());
        assert_eq!(court.may(builder(0, 0)), May::Yes);
    }
    assert_eq!(lengths, [10, 20]);
    court.bench.assert_replays();
}

#[test]
fn only_a_validated_build_resets() {
    let mut court = Court::new(3, 1, [2, 3]);
    court.contradict(|bench, lease| drop(bench.reveal(lease, "lie")));
    court.bench.wait(10);
    let job = court.submit();
    court.bench.lease(builder(0, 0), job);
    let strikes = |court: &Court| court.bench.ledger.peer(builder(0, 0), court.bench.now).unwrap().classes[0].strikes;
    assert_eq!(strikes(&court), 1, "a lease resets nothing");
    let lease = court.bench.ledger.leases.values().next().unwrap().clone();
    court.bench.reveal(&lease, "true");
    let lease = court.bench.lease(builder(1, 0), job);
    court.bench.reveal(&lease, "true");
    assert_eq!((court.bench.state(job).as_str(), strikes(&court)), ("reproduced", 0));
    court.bench.assert_replays();
}

#[test]
fn a_disabled_builder_comes_back_by_a_canary() {
    let mut court = Court::new(3, 1, [2, 3]);
    court.disable();
    let job = court.submit();
    assert!(matches!(court.bench.bid(builder(0, 0), job), Some(Response::Refused(Refusal::Busy(_)))), "not yet");
    court.bench.wait(60);
    let canary = court.bench.lease(builder(0, 0), job);
    assert_ne!(canary.job, job, "it gets a job whose answer is known");
    assert_eq!(court.bench.ledger.job(canary.job).unwrap().state, "reproduced");
    // Nobody else can end it by naming its number.
    court.bench.fail(&Lease { node: builder(1, 0), ..canary.clone() }, Blame::Job, "build");
    assert_eq!(court.bench.start(&canary), Some(Response::Done));
    assert_eq!(court.bench.renew(&[&canary]), Some(Response::Lost(vec![])));
    let again = court.bench.lease(builder(0, 0), job);
    assert_eq!(again.number, canary.number, "one at a time; a lost grant is said again");
    let before = court.bench.ledger.job(canary.job).unwrap();
    let bound = |court: &Court| court.bench.ledger.grounds(canary.node, canary.number).unwrap().bound;
    assert!(!bound(&court).contains(&canary.number));
    assert_eq!(court.bench.commit(&canary, "true"), Some(Response::Reveal));
    assert!(
        bound(&court).contains(&canary.number),
        "its builder looks for its own commitment before it shows anything"
    );
    assert_eq!(court.bench.show(&canary, "true"), Some(Response::Done));
    assert!(court.news().iter().any(|news| matches!(news, News::Restored { .. })));
    assert_eq!(court.bench.ledger.job(canary.job).unwrap(), before, "it changes nothing about the job");
    assert_eq!(court.may(builder(0, 0)), May::Yes);
    let lease = court.bench.lease(builder(0, 0), job);
    assert_eq!(lease.job, job);
    court.bench.assert_replays();
}

/// Renewals do not keep a canary for ever, and the next one is another lease.
#[test]
fn a_canary_that_never_ends_is_ended() {
    let mut court = Court::new(3, 1, [2, 3]);
    court.disable();
    let job = court.submit();
    court.bench.wait(60);
    let canary = court.bench.lease(builder(0, 0), job);
    let limit = court.bench.ledger.request(canary.job).unwrap().get().limits.wall() + limits::ATTEMPT_ROOM;
    for _ in 0..limit.as_secs() / 20 - 1 {
        court.bench.wait(20);
        assert_eq!(court.bench.renew(&[&canary]), Some(Response::Lost(vec![])));
    }
    court.bench.wait(20);
    assert_eq!(court.bench.revoked(), [canary.number], "though it was renewed");
    assert_eq!(court.bench.renew(&[&canary]), Some(Response::Lost(vec![canary.number])));
    assert_ne!(court.bench.lease(builder(0, 0), job).number, canary.number);
    court.bench.assert_replays();
}

#[test]
fn a_wrong_canary_doubles_and_an_interrupted_one_says_nothing() {
    let mut court = Court::new(3, 1, [2, 3]);
    court.disable();
    let mut waits = Vec::new();
    let job = court.submit();
    for content in ["lie", "lie"] {
        court.bench.wait(300);
        let canary = court.bench.lease(builder(0, 0), job);
        court.bench.reveal(&canary, content);
        let May::No(Hindrance::Disabled { canary }) = court.may(builder(0, 0)) else { panic!("disabled") };
        waits.push(canary.since(court.bench.now).as_secs());
    }
    assert_eq!(waits, [80, 160]);
    court.bench.wait(300);
    let canary = court.bench.lease(builder(0, 0), job);
    court.bench.fail(&canary, Blame::Interrupted, "daemon");
    court.bench.wait(60);
    let canary = court.bench.lease(builder(0, 0), job);
    court.bench.wait(60);
    let evidence = court.bench.ledger.peer(builder(0, 0), court.bench.now).unwrap().classes[0].evidence.len();
    assert_eq!(evidence, 5, "three jobs, two canaries");
    assert_eq!(court.bench.renew(&[&canary]), Some(Response::Lost(vec![canary.number])), "it expired");
    court.bench.assert_replays();
}

#[test]
fn what_nobody_managed_blames_nobody() {
    let mut court = Court::new(4, 1, [2, 3]);
    for number in 0..20 {
        let job = court.submit();
        for _ in 0..protocol::limits::ATTEMPTS_MAX / 4 {
            for operator in 0..4 {
                let lease = court.bench.lease(builder(operator, 0), job);
                let blame = [Blame::Builder(Fault::Fetch), Blame::Builder(Fault::Sandbox)][number % 2];
                court.bench.fail(&lease, blame, "fetch");
            }
            court.bench.wait(600);
        }
        assert_eq!(court.bench.state(job), "failed", "nobody is left to ask");
        for operator in 0..4 {
            assert_eq!(court.may(builder(operator, 0)), May::Yes, "after {number} such jobs");
        }
    }
    court.bench.assert_replays();
}

#[test]
fn unproven_failures_make_a_builder_rest_until_they_are_decided() {
    let mut court = Court::new(5, 1, [2, 4]);
    let mut jobs = Vec::new();
    for rest in [0, 10, 20, 40] {
        let job = court.submit();
        let lease = court.bench.lease(builder(0, 0), job);
        court.bench.fail(&lease, Blame::Job, "build");
        jobs.push(job);
        match court.may(builder(0, 0)) {
            May::Yes | May::Canary => assert_eq!(rest, 0),
            May::No(Hindrance::Resting { until }) => {
                assert_eq!(until.since(court.bench.now).as_secs(), rest);
                court.bench.wait(rest);
            }
            other @ May::No(_) => panic!("{other:?}"),
        }
    }
    for job in jobs {
        court.bench.cancel(job, protocol::testing::samples::MAINTAINER_SEED);
    }
    assert_eq!(court.may(builder(0, 0)), May::Yes);
    court.bench.assert_replays();
}

#[test]
fn a_quorum_needs_proof_where_others_may_know_better() {
    let mut court = Court::new(5, 1, [2, 4]);
    let first = court.submit();
    court.reproduce(first);
    let broken = court.submit();
    for operator in [3, 4] {
        let lease = court.bench.lease(builder(operator, 0), broken);
        court.bench.fail(&lease, Blame::Job, "build");
    }
    court.bench.wait(30);
    assert_eq!(court.bench.state(broken), "building", "two that have proven nothing");
    for operator in [1, 2] {
        assert_eq!(court.bench.state(broken), "building");
        let lease = court.bench.lease(builder(operator, 0), broken);
        court.bench.fail(&lease, Blame::Job, "build");
    }
    assert_eq!(court.bench.state(broken), "failed", "two that have");
    let next = court.submit();
    for operator in [3, 4] {
        let lease = court.bench.lease(builder(operator, 0), next);
        court.bench.fail(&lease, Blame::Job, "build");
    }
    court.bench.wait(600);
    assert_eq!(court.bench.state(next), "failed", "nobody who knows better came for ten minutes");
    court.bench.assert_replays();
}

#[test]
fn a_builder_without_proof_gets_it_by_a_canary() {
    let mut court = Court::new(5, 1, [2, 4]);
    let first = court.submit();
    court.reproduce(first);
    let broken = court.submit();
    for operator in [3, 1] {
        let lease = court.bench.lease(builder(operator, 0), broken);
        court.bench.fail(&lease, Blame::Job, "build");
    }
    let next = court.submit();
    let canary = court.bench.lease(builder(3, 0), next);
    assert_eq!(canary.job, first);
    court.bench.reveal(&canary, "true");
    court.bench.wait(10);
    assert_eq!(court.bench.state(broken), "failed", "its word counts now");
    court.bench.assert_replays();
}

/// Nodes let go what a job needs a day after its end: who gets it later fails, and that would be no fault of his.
#[test]
fn a_canary_is_no_job_whose_inputs_are_let_go() {
    let mut court = Court::new(3, 1, [2, 3]);
    let known = court.submit_for_days();
    court.reproduce(known);
    court.disable();
    court.bench.wait(KEPT_AFTER_END.as_secs() - 2 * 3600);
    let open = court.submit_for_days();
    assert_ne!(court.bench.lease(builder(0, 0), open).job, open, "as long as there is one");
    court.bench.wait(2 * 3600);
    assert_eq!(court.bench.lease(builder(0, 0), open).job, open, "none is left: the time that it served is enough");
    court.bench.assert_replays();
}

#[test]
fn a_breach_of_isolation_stops_job_and_builder_at_once() {
    let mut court = Court::new(3, 2, [2, 3]);
    let (job, other) = (court.submit(), court.submit());
    let lease = court.bench.lease(builder(0, 0), job);
    let held = court.bench.lease(builder(0, 0), other);
    court.bench.fail(&lease, Blame::IsolationBreach, "sandbox");
    assert_eq!(court.bench.revoked(), [held.number], "what else it builds is not believed");
    assert_eq!(court.bench.state(job), "failed");
    assert_eq!(court.may(builder(0, 0)), May::No(Hindrance::Breached));
    assert_eq!(court.may(builder(0, 1)), May::Yes, "another machine of the operator");
    court.bench.wait(3600 * 24);
    assert_eq!(court.may(builder(0, 0)), May::No(Hindrance::Breached), "time does not mend it");
    court.bench.adopt(|policy| policy.operators[0].nodes.retain(|node| *node != builder(0, 0)));
    court.bench.adopt(|policy| {
        policy.operators[0].nodes.push(builder(0, 0));
        policy.operators[0].nodes.sort();
    });
    assert_eq!(court.may(builder(0, 0)), May::Yes, "the roots took it out and back in");
    court.bench.assert_replays();
}

#[test]
fn a_poison_job_disables_nobody_and_one_flapping_operator_poisons_no_job() {
    let mut court = Court::new(6, 1, [1, 2]);
    let job = court.submit();
    for operator in 0..5 {
        let lease = court.bench.lease(builder(operator, 0), job);
        court.bench.start(&lease);
        court.bench.wait(25);
    }
    assert_eq!(court.bench.state(job), "failed");
    (0..5).for_each(|operator| assert_eq!(court.may(builder(operator, 0)), May::Yes));
    let job = court.submit();
    for _ in 0..6 {
        let lease = court.bench.lease(builder(0, 0), job);
        court.bench.start(&lease);
        court.bench.wait(25);
        court.bench.wait(700);
    }
    assert_eq!(court.bench.state(job), "queued");
    court.bench.assert_replays();
}

#[test]
fn faults_spread_over_an_operators_nodes_disable_all_of_them() {
    let mut court = Court::new(3, 3, [2, 3]);
    for n in 0..3 {
        let job = court.submit();
        let lease = court.bench.lease(builder(0, n), job);
        court.bench.reveal(&lease, "lie");
        court.reproduce(job);
    }
    for n in 0..3 {
        assert!(matches!(court.may(builder(0, n)), May::No(Hindrance::Disabled { .. })), "node {n}");
    }
    court.bench.assert_replays();
}

#[test]
fn one_operator_alone_never_disables_another() {
    let mut court = Court::new(2, 1, [1, 2]);
    for _ in 0..12 {
        let job = court.submit();
        let honest = court.bench.lease(builder(0, 0), job);
        court.bench.fail(&honest, Blame::Job, "build");
        let liar = court.bench.lease(builder(1, 0), job);
        court.bench.reveal(&liar, "made up");
        assert_eq!(court.bench.state(job), "reproduced", "with k = 1 whoever comes first decides");
        assert!(!matches!(court.may(builder(0, 0)), May::No(Hindrance::Disabled { .. })));
        court.bench.wait(3600);
    }
    court.bench.assert_replays();
}

/// What one of few operators may say.
#[derive(Debug, Clone)]
enum Word {
    Bid { operator: u8, node: u8 },
    Start,
    Fail { blame: u8, step: u8 },
    Lose,
    Wait { seconds: u16 },
    Restart,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        6 => (0..2u8, 0..2u8).prop_map(|(operator, node)| Word::Bid { operator, node }),
        3 => Just(Word::Start),
        4 => (0..10u8, 0..2u8).prop_map(|(blame, step)| Word::Fail { blame, step }),
        1 => Just(Word::Lose),
        4 => (0..2000u16).prop_map(|seconds| Word::Wait { seconds }),
        1 => Just(Word::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two operators say whatever they want, for as long as the job lives; the quorum is three.
    #[test]
    fn fewer_operators_than_the_quorum_never_fail_a_job(words in proptest::collection::vec(word(), 1..120)) {
        let mut policy = policy(5, 2, channel(2, 2, 5));
        policy.channels[0].fail_quorum = 3;
        let mut bench = Bench::new(&policy);
        let job = bench.submit("command", 1);
        let mut leases: Vec<Lease> = Vec::new();
        for word in words {
            match word {
                Word::Bid { operator, node } => drop(bench.bid(builder(operator, node), job)),
                Word::Start => drop(leases.last().cloned().map(|lease| bench.start(&lease))),
                Word::Fail { blame, step } => {
                    let every = Blame::EVERY.into_iter().filter(|b| *b != Blame::IsolationBreach);
                    let blame = every.cycle().nth(blame.into()).unwrap();
                    let step = ["build", "fetch"][usize::from(step)];
                    drop(leases.last().cloned().map(|lease| bench.fail(&lease, blame, step)));
                }
                Word::Lose => drop(bench.apply(Command::Lost { node: builder(0, 0) })),
                Word::Wait { seconds } => bench.wait(seconds.into()),
                Word::Restart => drop(bench.apply(Command::Restarted)),
            }
            leases.extend(bench.granted());
            let state = bench.state(job);
            prop_assert!(state == "queued" || state == "building" || state == "expired", "{state}");
            for operator in 0..5 {
                for n in 0..2 {
                    let name = bench.ledger.policy_in_force().operator_of(&builder(operator, n)).unwrap();
                    let class = Class { arch: protocol::Arch::Amd64, kind: "command".into() };
                    let may = bench.ledger.may_lease(builder(operator, n), name, &class, bench.now);
                    let quarantined = matches!(may, May::No(Hindrance::Quarantined { .. } | Hindrance::Disabled { .. }));
                    prop_assert!(!quarantined, "nobody else managed it: {may:?}");
                }
            }
        }
        bench.assert_replays();
    }
}

#[test]
fn a_standing_offer_is_looked_at_when_what_kept_the_builder_ends() {
    type Kept = fn(&mut Court);
    let table: &[(&str, Kept, u64, &str)] = &[
        (
            "quarantine",
            |court| {
                court.contradict(|bench, lease| drop(bench.reveal(lease, "lie")));
            },
            10,
            "1 builder is in quarantine, for 10 s more",
        ),
        (
            "rest",
            |court| {
                for _ in 0..2 {
                    let job = court.submit();
                    let lease = court.bench.lease(builder(0, 0), job);
                    court.bench.fail(&lease, Blame::Job, "build");
                }
            },
            10,
            "1 builder is at rest after failures that nobody has confirmed, for 10 s more",
        ),
        (
            "canary",
            Court::disable,
            40,
            "1 builder is disabled until a job with a known answer succeeds there, for 40 s more",
        ),
    ];
    for (row, kept, seconds, why) in table {
        let mut court = Court::new(3, 1, [2, 3]);
        kept(&mut court);
        let job = court.bench.wish("command", 200, |wish| wish.schedule.only = vec![builder(0, 0)]);
        let Some(Response::Receipt(job, _)) = job else { panic!("{row}: {job:?}") };
        court.bench.offer(builder(0, 0), 1);
        assert_eq!(court.bench.granted(), [], "{row}");
        assert_eq!(court.bench.why(job), *why, "{row}");
        court.bench.wait(seconds - 1);
        assert_eq!(court.bench.granted(), [], "{row}: not yet");
        court.bench.wait(1);
        let granted = court.bench.granted();
        assert_eq!(granted.len(), 1, "{row}: at once, and without a word from the builder");
        assert_eq!(granted[0].job == job, *row != "canary", "{row}");
        court.bench.assert_replays();
    }
}

#[test]
fn a_standing_offer_is_looked_at_when_its_builder_is_vindicated() {
    let mut court = Court::new(3, 1, [2, 3]);
    let mut failed = Vec::new();
    for _ in 0..2 {
        let job = court.submit();
        let lease = court.bench.lease(builder(0, 0), job);
        court.bench.fail(&lease, Blame::Job, "build");
        failed.push(job);
    }
    let wish = court.bench.wish("command", 200, |wish| wish.schedule.only = vec![builder(0, 0)]);
    let Some(Response::Receipt(job, _)) = wish else { panic!("{wish:?}") };
    court.bench.offer(builder(0, 0), 1);
    assert_eq!(court.bench.granted(), []);
    court.bench.cancel(failed[0], protocol::testing::samples::MAINTAINER_SEED);
    court.bench.cancel(failed[1], protocol::testing::samples::MAINTAINER_SEED);
    let waits = court.bench.ledger.job(job).unwrap().attempts.is_empty();
    assert!(!waits, "nobody has to wait for a rest that is over");
    court.bench.assert_replays();
}
