//! What attempts add up to.

use protocol::{
    Sha256,
    blame::{Blame, Fault},
    limits,
    message::{Refusal, Response},
};

use crate::{
    Command, Effect, News, Opening,
    testing::{Bench, SALT, attest, builder, channel, commitment, policy},
    view::{Verdict, VerdictView},
};

/// Lets each operator in turn build with the given contents; stops when the job wants nobody.
fn build(bench: &mut Bench, contents: &[&str]) -> (protocol::JobId, String) {
    let job = bench.submit("deb", 1);
    for (at, content) in (0..).zip(contents) {
        let lease = bench.lease(builder(at, 0), job);
        assert_eq!(bench.reveal(&lease, content), Some(Response::Done));
    }
    bench.assert_replays();
    (job, bench.state(job))
}

#[test]
fn verdicts_by_outputs() {
    let table: &[(&str, [u8; 4], &[&str])] = &[
        ("publishing", [3, 2, 2, 3], &["a", "a"]),
        ("building", [3, 2, 2, 3], &["a", "b"]),
        ("publishing", [3, 2, 2, 3], &["a", "b", "a"]),
        ("unreproducible", [3, 2, 2, 3], &["a", "b", "c"]),
        ("unreproducible", [2, 2, 2, 3], &["a", "b"]),
        ("unreproducible", [5, 2, 2, 3], &["a", "b", "c"]),
        ("disputed", [5, 3, 3, 4], &["a", "a", "b", "c"]),
        ("disputed", [5, 3, 3, 4], &["a", "a", "b", "b"]),
        ("disputed", [2, 3, 3, 3], &["a", "a"]),
        ("publishing", [1, 1, 1, 1], &["a"]),
        ("building", [1, 2, 2, 2], &["a"]),
    ];
    for (expect, [operators, agree, ask, ask_max], contents) in table {
        let mut bench = Bench::of(*operators, *agree, *ask, *ask_max);
        let (job, state) = build(&mut bench, contents);
        assert_eq!(state, *expect, "{operators} operators, {agree} of {ask} to {ask_max}: {contents:?}");
        assert_eq!(bench.published().len(), usize::from(state == "publishing"));
        let waits = bench.ledger.job(job).unwrap().waiting.is_some();
        assert_eq!(waits, state == "building", "a job that waits says why");
    }
}

#[test]
fn a_liar_is_named_with_both_hashes() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, state) = build(&mut bench, &["lie", "true", "true"]);
    assert_eq!(state, "publishing");
    let VerdictView::Reproduced { dissent, agree, outputs, .. } = bench.ledger.job(job).unwrap().verdict else {
        panic!("not reproduced");
    };
    assert_eq!(agree.len(), 2);
    assert_eq!(outputs[0].sha256, Sha256::of(b"true"));
    assert_eq!((dissent[0].operator.as_str(), dissent[0].node), ("op-a", builder(0, 0)));
    let file = &dissent[0].files[0];
    assert_eq!((file.agreed, file.got), (Some(Sha256::of(b"true")), Some(Sha256::of(b"lie"))));
    assert!(bench.effects.iter().any(|e| matches!(e, Effect::Notify(News::Dissent { .. }))));
}

#[test]
fn a_liar_that_is_slower_than_the_verdict_is_named_too() {
    let mut bench = Bench::of(3, 2, 3, 3);
    let job = bench.submit("deb", 1);
    let leases: Vec<_> = (0..3).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.reveal(&leases[0], "true");
    bench.reveal(&leases[1], "true");
    assert_eq!(bench.revoked(), [leases[2].number]);
    assert_eq!(bench.reveal(&leases[2], "lie"), Some(Response::Done));
    assert_eq!(bench.state(job), "publishing");
    let VerdictView::Reproduced { dissent, .. } = bench.ledger.job(job).unwrap().verdict else { panic!("reproduced") };
    assert_eq!(dissent[0].node, leases[2].node);
    bench.assert_replays();
}

#[test]
fn failures_count_by_blame_and_step() {
    use Blame::{InputMismatch, Job, Timeout};
    const BUILDER: Blame = Blame::Builder(Fault::Sandbox);
    let table: &[(&str, &[(Blame, &str)])] = &[
        ("building", &[(Job, "build")]),
        ("failed", &[(Job, "build"), (Job, "build")]),
        ("failed", &[(Job, "build"), (Timeout, "build")]),
        ("building", &[(Job, "build"), (Job, "outputs")]),
        ("failed", &[(Job, "build"), (Job, "outputs"), (Job, "build")]),
        ("building", &[(BUILDER, "build"), (BUILDER, "build"), (InputMismatch, "fetch")]),
        ("building", &[(BUILDER, "sandbox"), (Job, "build"), (BUILDER, "sandbox")]),
        ("failed", &[(BUILDER, "sandbox"), (Job, "build"), (BUILDER, "sandbox"), (Job, "build")]),
        ("building", &[(BUILDER, "a"), (Job, "a"), (BUILDER, "a"), (BUILDER, "a"), (BUILDER, "a")]),
    ];
    for (expect, failures) in table {
        let mut bench = Bench::of(5, 2, 2, 4);
        let job = bench.submit("deb", 1);
        for (at, (blame, step)) in (0..).zip(*failures) {
            let lease = bench.lease(builder(at, 0), job);
            bench.start(&lease);
            assert_eq!(bench.fail(&lease, *blame, step), Some(Response::Done));
        }
        // Nobody has proven anything here: their words count when nobody else comes.
        bench.wait(10);
        assert_eq!(bench.state(job), *expect, "{failures:?}");
        bench.assert_replays();
    }
}

#[test]
fn a_job_that_nobody_could_try_waits_and_is_tried_again() {
    const FULL: Blame = Blame::Builder(Fault::DiskFull);
    let mut bench = Bench::of(2, 2, 2, 3);
    let job = bench.submit("deb", 1);
    for pause in [10, 20, 40] {
        for operator in 0..2 {
            let lease = bench.lease(builder(operator, 0), job);
            bench.fail(&lease, FULL, "inputs");
        }
        assert_eq!(bench.state(job), "queued", "nobody has had a turn that counts");
        let why = bench.why(job);
        assert!(why.contains("nobody could try it (inputs failed (disk-full)") && why.contains("again in"), "{why}");
        (0..2).for_each(|operator| drop(bench.offer(builder(operator, 0), 1)));
        assert_eq!(bench.granted().len(), 0, "it stands back for {pause} s");
        bench.wait(pause);
    }
    for operator in 0..2 {
        let lease = bench.lease(builder(operator, 0), job);
        bench.reveal(&lease, "a");
    }
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn one_that_could_not_try_has_another_turn_when_the_other_has_built() {
    let mut bench = Bench::of(2, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let leases: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.fail(&leases[0], Blame::Builder(Fault::Fetch), "inputs");
    assert_eq!(bench.state(job), "building");
    bench.reveal(&leases[1], "a");
    assert_eq!(bench.state(job), "building", "one set of outputs is not compared with a full disk");
    bench.wait(10);
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn one_that_could_not_try_has_another_turn_while_the_other_hides_its_result() {
    let mut bench = Bench::of(2, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let leases: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.commit(&leases[1], "a");
    bench.fail(&leases[0], Blame::Builder(Fault::Fetch), "inputs");
    bench.wait(10);
    let again = bench.lease(builder(0, 0), job);
    bench.commit(&again, "a");
    for lease in [&leases[1], &again] {
        bench.show(lease, "a");
    }
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn who_withholds_its_result_is_replaced_by_one_that_could_not_try() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let first: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.fail(&first[0], Blame::Builder(Fault::Fetch), "inputs");
    let third = bench.lease(builder(2, 0), job);
    bench.commit(&first[1], "a");
    bench.commit(&third, "a");
    bench.show(&first[1], "a");
    assert_eq!(bench.state(job), "building");
    bench.wait(30);
    assert_eq!(bench.ledger.job(job).unwrap().attempts[2].state, "committed", "it may only sleep");
    (0..90).for_each(|_| bench.wait(20));
    assert_eq!(bench.ledger.job(job).unwrap().attempts[2].state, "withheld");
    bench.wait(10);
    let again = bench.lease(builder(0, 0), job);
    bench.reveal(&again, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn a_job_whose_attempts_are_used_up_ends() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let job = bench.submit("deb", 1);
    let mut attempts = 0;
    while bench.state(job) != "failed" {
        let lease = bench.lease(builder(0, 0), job);
        bench.fail(&lease, Blame::Builder(Fault::Sandbox), "sandbox");
        attempts += 1;
        bench.wait(600);
    }
    assert_eq!(attempts, limits::ATTEMPTS_MAX);
    bench.assert_replays();
}

#[test]
fn who_is_interrupted_again_and_again_leaves_attempts_to_others() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let mut interrupted = 0;
    // It has a node, and each pause is at most ten minutes.
    for _ in 0..limits::ATTEMPTS_MAX {
        bench.bid(builder(0, 0), job);
        for lease in bench.granted() {
            bench.fail(&lease, Blame::Interrupted, "build");
            interrupted += 1;
        }
        bench.wait(600);
    }
    assert_eq!(interrupted, limits::ATTEMPTS_MAX / 3);
    for operator in 1..3 {
        let lease = bench.lease(builder(operator, 0), job);
        bench.reveal(&lease, "a");
    }
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn a_contradicted_failure_does_not_fail_the_job() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("command", 1);
    let leases: Vec<_> = (0..2).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.fail(&leases[0], Blame::Job, "build");
    bench.reveal(&leases[1], "a");
    let third = bench.lease(builder(2, 0), job);
    bench.reveal(&third, "a");
    assert_eq!(bench.state(job), "reproduced", "a command has nothing to publish");
    bench.assert_replays();
}

#[test]
fn an_attestation_for_another_lease_ends_the_attempt_and_asks_another() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let (first, second) = (bench.lease(builder(0, 0), job), bench.lease(builder(1, 0), job));
    let request = bench.ledger.request(job).unwrap().clone();
    let stolen = attest(&request, &second, Bench::key_of(second.node), "a");
    let log = protocol::Hash::of(b"log");
    let commitment = commitment(&bench.network, first.number, &stolen);
    assert_eq!(bench.apply(Command::Committed { node: first.node, commitment }), Some(Response::Done));
    let opening = Opening::Salt(SALT);
    let (node, lease) = (first.node, first.number);
    let answer = bench.apply(Command::Revealed { node, lease, log, opening, attestation: stolen });
    assert!(matches!(answer, Some(Response::Refused(Refusal::Invalid(_)))), "{answer:?}");
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "failed");
    assert!(bench.announced());
    bench.assert_replays();
}

#[test]
fn a_report_under_another_nodes_lease_or_none_is_refused() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    let theirs = protocol::lease::Lease { node: builder(1, 0), ..lease.clone() };
    assert!(matches!(bench.reveal(&theirs, "a"), Some(Response::Refused(Refusal::Unknown(_)))));
    assert!(matches!(bench.fail(&theirs, Blame::Job, "build"), Some(Response::Refused(Refusal::Unknown(_)))));
    assert_eq!(bench.ledger.job(job).unwrap().attempts[0].state, "granted");
    bench.reveal(&lease, "a");
    assert_eq!(bench.reveal(&lease, "a"), Some(Response::Done), "a repeated report is answered again");
    assert_eq!(bench.ledger.job(job).unwrap().late, []);
    bench.assert_replays();
}

#[test]
fn new_operators_are_asked_by_a_job_that_waits_for_them() {
    let mut bench = Bench::new(&policy(1, 1, channel(2, 2, 3)));
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    let waiting = bench.ledger.job(job).unwrap().waiting.unwrap();
    assert!(waiting.contains("waits for another operator"), "{waiting}");
    bench.adopt(|p| p.operators = policy(2, 1, channel(2, 2, 3)).operators);
    assert!(bench.announced());
    let lease = bench.lease(builder(1, 0), job);
    bench.reveal(&lease, "a");
    assert_eq!(bench.state(job), "publishing");
    bench.assert_replays();
}

#[test]
fn a_smaller_k_that_uncovers_two_groups_publishes_neither() {
    let mut bench = Bench::of(6, 3, 3, 6);
    let job = bench.submit("deb", 1);
    for (at, content) in (0..).zip(["a", "a", "b", "b"]) {
        let lease = bench.lease(builder(at, 0), job);
        bench.reveal(&lease, content);
    }
    assert_eq!(bench.state(job), "building");
    bench.adopt(|p| p.channels = vec![channel(2, 3, 6)]);
    assert_eq!((bench.state(job).as_str(), bench.published().len()), ("disputed", 0));
    bench.assert_replays();
}

#[test]
fn evidence_holds_what_an_offline_check_needs() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let (job, _) = build(&mut bench, &["lie", "true", "true"]);
    let evidence = bench.ledger.evidence(job).unwrap();
    assert_eq!((evidence.attestations.len(), evidence.policies.len()), (3, 1));
    for bytes in &evidence.attestations {
        attest::statement::read(bytes, &bench.network).unwrap();
    }
}

#[test]
fn only_a_job_with_a_verdict_is_told_with_its_attestations() {
    let mut bench = Bench::of(3, 2, 2, 3);
    let job = bench.submit("deb", 1);
    for (at, content) in [(0, "a"), (1, "b"), (2, "c")] {
        let told = (bench.ledger.decided().count(), bench.ledger.undecided().count());
        assert_eq!(told, (0, 1), "before attestation {at}");
        let lease = bench.lease(builder(at, 0), job);
        assert_eq!(bench.reveal(&lease, content), Some(Response::Done));
    }
    assert_eq!((bench.ledger.decided().count(), bench.ledger.undecided().count()), (1, 0));
    let decided = bench.ledger.decided().next().unwrap();
    assert_eq!((decided.job, decided.verdict), (job, Verdict::Unreproducible));
    assert_eq!(decided.attestations().count(), 3, "dissent included");
}
