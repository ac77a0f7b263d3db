//! The verdicts one by one, and the invariants over random votes.

use proptest::prelude::*;
use protocol::{
    blame::{Blame, Fault},
    lease::Profile,
    testing::{node, samples},
};

use super::*;
use crate::testing::vote;

const TWO_OF_TWO: Rule = Rule { agree: 2, ask: 2, ask_max: 4, fail_quorum: 2 };

fn reach(outstanding: u8, available: u8) -> Reach {
    Reach { outstanding, available }
}

fn report(at: u8, step: &str, blame: Blame) -> FailureReport {
    FailureReport {
        node: node(10 + at),
        lease: LeaseNumber(u64::from(at) + 1),
        failure: Failure::new(blame, step, "status 2"),
        operator: samples::operator(at),
    }
}

/// Gives the verdict on contents by operator 0, 1 and so on, in one line.
fn check(contents: &[&str], reach: Reach) -> String {
    let votes: Vec<Vote> = (0..).zip(contents).map(|(at, content)| vote(at, content)).collect();
    line(&verdict(TWO_OF_TWO, &votes, &[], reach))
}

fn line(verdict: &Verdict) -> String {
    let names = |names: Vec<&OperatorName>| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" ");
    match verdict {
        Verdict::Pending { want_more } => format!("pending, ask {want_more}"),
        Verdict::Reproduced { agree, dissent, .. } => {
            let against = names(dissent.iter().map(|d| &d.operator).collect());
            format!("reproduced by {}; against: {against}", names(agree.iter().collect()))
        }
        Verdict::Disputed { groups } => {
            let groups: Vec<String> = groups.iter().map(|g| names(g.operators.iter().collect())).collect();
            format!("disputed: {}", groups.join(" | "))
        }
        Verdict::Unreproducible { differing } => {
            let files: Vec<String> = differing.iter().map(|f| format!("{} x{}", f.name, f.variants.len())).collect();
            format!("unreproducible: {}", files.join(" "))
        }
        Verdict::Failed { failure, operators } => {
            format!("failed at {} by {}", failure.step, names(operators.iter().collect()))
        }
    }
}

#[test]
fn two_that_agree() {
    assert_eq!(check(&[], reach(0, 3)), "pending, ask 2");
    assert_eq!(check(&[], reach(2, 1)), "pending, ask 0");
    assert_eq!(check(&["x"], reach(1, 1)), "pending, ask 0");
    assert_eq!(check(&["x"], reach(0, 2)), "pending, ask 1", "a builder was lost");
    assert_eq!(check(&["x", "x"], reach(0, 1)), "reproduced by op-a op-b; against: ");
}

#[test]
fn a_liar_is_named_and_the_honest_pair_publishes() {
    assert_eq!(check(&["x", "lie"], reach(0, 1)), "pending, ask 1");
    assert_eq!(check(&["x", "lie"], reach(1, 0)), "pending, ask 0");
    assert_eq!(check(&["x", "lie", "x"], reach(0, 0)), "reproduced by op-a op-c; against: op-b");
    let votes = [vote(0, "x"), vote(1, "lie"), vote(2, "x")];
    let Verdict::Reproduced { dissent, .. } = verdict(TWO_OF_TWO, &votes, &[], Reach::NOBODY) else { panic!() };
    let expected = Difference::Content { left: votes[0].outputs[0].clone(), right: votes[1].outputs[0].clone() };
    assert_eq!(dissent[0].differences, [expected], "both hashes are recorded");
}

#[test]
fn nobody_agrees() {
    let two = "unreproducible: base-files_12.4_amd64.deb x2";
    assert_eq!(check(&["x", "y"], reach(0, 0)), two, "no other operator exists");
    assert_eq!(check(&["x", "y", "z"], reach(0, 1)), "pending, ask 1");
    let four = "unreproducible: base-files_12.4_amd64.deb x4";
    assert_eq!(check(&["x", "y", "z", "w"], reach(0, 1)), four, "ask_max is reached");
}

#[test]
fn two_groups_of_k_are_a_dispute() {
    assert_eq!(check(&["x", "y", "x", "y"], reach(0, 0)), "disputed: op-a op-c | op-b op-d".to_owned());
}

#[test]
fn fewer_than_k_that_agree_are_a_dispute() {
    let rule = Rule { agree: 3, ask: 3, ask_max: 4, fail_quorum: 2 };
    let votes = [vote(0, "x"), vote(1, "x"), vote(2, "y"), vote(3, "z")];
    let verdict = |votes: &[Vote], reach| line(&verdict(rule, votes, &[], reach));
    assert_eq!(verdict(&votes[..3], reach(0, 1)), "pending, ask 1");
    let text = verdict(&votes, reach(0, 0));
    assert!(text.starts_with("disputed: op-a op-b |"), "{text}");
}

#[test]
fn two_nodes_of_one_operator_are_one_vote() {
    let mut second = vote(1, "x");
    second.operator = samples::operator(0);
    assert_eq!(line(&verdict(TWO_OF_TWO, &[vote(0, "x"), second], &[], reach(0, 2))), "pending, ask 1");
}

#[test]
fn an_operator_that_contradicts_itself_counts_for_nobody() {
    let mut second = vote(1, "y");
    second.operator = samples::operator(0);
    let votes = [vote(0, "x"), second, vote(2, "x")];
    assert_eq!(line(&verdict(TWO_OF_TWO, &votes, &[], reach(0, 1))), "pending, ask 1");
    let votes = [&votes[..], &[vote(3, "x")]].concat();
    let text = line(&verdict(TWO_OF_TWO, &votes, &[], Reach::NOBODY));
    assert_eq!(text, "reproduced by op-c op-d; against: op-a");
    assert_eq!(Count::of(&votes).contradictory, BTreeSet::from([samples::operator(0)]));
}

#[test]
fn agreement_spans_two_profiles() {
    let mut second = vote(1, "x");
    second.profile = Profile(0);
    let votes = [vote(0, "x"), second];
    assert_eq!(line(&verdict(TWO_OF_TWO, &votes, &[], reach(0, 1))), "pending, ask 1");
    assert_eq!(line(&verdict(TWO_OF_TWO, &votes, &[], Reach::NOBODY)), "disputed: op-a op-b");
    let one = Rule { agree: 1, ask: 1, ask_max: 1, fail_quorum: 1 };
    assert_eq!(line(&verdict(one, &votes[..1], &[], Reach::NOBODY)), "reproduced by op-a; against: ");
}

#[test]
fn failure_needs_a_quorum_of_the_same_step() {
    let failed = |reports: &[FailureReport], votes: &[Vote], reach| line(&verdict(TWO_OF_TWO, votes, reports, reach));
    let build = |at| report(at, "build", Blame::Job);
    assert_eq!(failed(&[build(0)], &[], reach(1, 1)), "pending, ask 0");
    assert_eq!(failed(&[build(0)], &[], reach(0, 2)), "pending, ask 1");
    assert_eq!(failed(&[build(0), build(1)], &[], reach(1, 1)), "failed at build by op-a op-b");
    assert_eq!(failed(&[build(0), build(0)], &[], reach(0, 2)), "pending, ask 1", "one operator, one report");
    assert_eq!(failed(&[build(0), report(1, "unpack", Blame::Job)], &[], reach(0, 2)), "pending, ask 1");
    assert_eq!(failed(&[build(0), build(1)], &[vote(2, "x")], reach(0, 1)), "pending, ask 1", "somebody built it");
    assert_eq!(failed(&[build(0), build(1)], &[vote(2, "x")], Reach::NOBODY), "failed at build by op-a op-b");
    assert_eq!(
        failed(&[build(0), build(1)], &[vote(2, "x"), vote(3, "x")], Reach::NOBODY),
        "reproduced by op-c op-d; against: "
    );
}

#[test]
fn a_builders_fault_is_never_the_jobs() {
    for blame in [Blame::Builder(Fault::Other), Blame::Interrupted, Blame::InputMismatch, Blame::Cancelled] {
        let reports = [report(0, "build", blame), report(1, "build", blame), report(2, "build", blame)];
        assert_eq!(line(&verdict(TWO_OF_TWO, &[], &reports, reach(0, 3))), "pending, ask 2", "{blame:?}");
    }
    let reports = [report(0, "build", Blame::Timeout), report(1, "build", Blame::Job)];
    assert_eq!(line(&verdict(TWO_OF_TWO, &[], &reports, reach(0, 3))), "failed at build by op-a op-b");
}

#[test]
fn when_all_were_asked_there_is_always_a_word() {
    let step = |at, step: &str| report(at, step, Blame::Job);
    let apart = [step(0, "unpack"), step(1, "build"), step(2, "outputs"), step(3, "fetch")];
    assert_eq!(line(&verdict(TWO_OF_TWO, &[], &apart, reach(0, 4))), "failed at unpack by op-a");
    let mixed = line(&verdict(TWO_OF_TWO, &[vote(3, "x")], &apart[..3], reach(0, 4)));
    assert_eq!(mixed, "unreproducible: ", "one built it, three failed, each elsewhere");
}

/// What the ledger stores and sends has one byte string.
#[test]
fn votes_reports_and_verdicts_are_canonical() {
    let votes = [vote(0, "x"), vote(1, "lie"), vote(2, "x")];
    let reports = [report(0, "build", Blame::Job), report(1, "build", Blame::Job)];
    let verdicts = [
        verdict(TWO_OF_TWO, &[], &[], reach(0, 3)),
        verdict(TWO_OF_TWO, &votes, &[], Reach::NOBODY),
        verdict(Rule { agree: 3, ..TWO_OF_TWO }, &votes, &[], Reach::NOBODY),
        verdict(TWO_OF_TWO, &votes[..2], &[], Reach::NOBODY),
        verdict(TWO_OF_TWO, &[], &reports, Reach::NOBODY),
    ];
    let words: Vec<&str> = verdicts.iter().map(Verdict::word).collect();
    assert_eq!(words, ["pending", "reproduced", "disputed", "unreproducible", "failed"]);
    verdicts.iter().for_each(protocol::testing::assert_canonical);
    votes.iter().for_each(protocol::testing::assert_canonical);
    reports.iter().for_each(protocol::testing::assert_canonical);
    let left = votes[0].outputs[0].clone();
    [Difference::OnlyLeft(left.clone()), Difference::OnlyRight(left)]
        .iter()
        .for_each(protocol::testing::assert_canonical);
}

/// Votes of five operators with up to three nodes each, three contents and four profiles; also repetitions.
fn votes(least: usize) -> impl Strategy<Value = Vec<Vote>> {
    let vote = (0..5u8, 0..3u8, 0..3usize, 0..4u16).prop_map(|(operator, machine, content, profile)| Vote {
        node: node(10 + operator * 3 + machine),
        lease: LeaseNumber(u64::from(operator) * 12 + u64::from(machine) * 4 + u64::from(profile)),
        profile: Profile(profile),
        operator: samples::operator(operator),
        ..vote(0, ["x", "y", "z"][content])
    });
    prop::collection::vec(vote, least..9)
}

fn rule() -> impl Strategy<Value = Rule> {
    (1..4u8, 0..2u8, 0..3u8, 1..3u8).prop_map(|(agree, ask, more, fail_quorum)| Rule {
        agree,
        ask: agree + ask,
        ask_max: agree + ask + more,
        fail_quorum,
    })
}

/// Gives, by digest, the operators that signed it and nothing else, written without the code under test.
fn independent_signers(votes: &[Vote], outputs: &[Output]) -> BTreeSet<OperatorName> {
    let faithful = |operator: &OperatorName| votes.iter().all(|v| v.operator != *operator || v.outputs == outputs);
    votes.iter().map(|v| v.operator.clone()).filter(|operator| faithful(operator)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_nothing_is_reproduced_with_fewer_than_k_independent_signers(rule in rule(), votes in votes(0)) {
        if let Verdict::Reproduced { agree, outputs, .. } = verdict(rule, &votes, &[], Reach::NOBODY) {
            let signers = independent_signers(&votes, &outputs);
            prop_assert!(signers.len() >= usize::from(rule.agree));
            prop_assert_eq!(agree, signers.iter().cloned().collect::<Vec<_>>());
            let profiles: BTreeSet<Profile> =
                votes.iter().filter(|v| signers.contains(&v.operator)).map(|v| v.profile).collect();
            prop_assert!(rule.agree < 2 || profiles.len() >= 2);
        }
    }

    #[test]
    fn invariant_one_builder_twice_is_one(rule in rule(), votes in votes(1), again in any::<prop::sample::Index>()) {
        let once = verdict(rule, &votes, &[], reach(0, 1));
        let twice = [&votes[..], &votes[again.index(votes.len())..]].concat();
        prop_assert_eq!(once, verdict(rule, &twice, &[], reach(0, 1)));
    }

    #[test]
    fn invariant_an_operator_with_two_nodes_is_one_vote(content in "[xyz]", nodes in 2..6u8) {
        let votes: Vec<Vote> =
            (0..nodes).map(|at| Vote { operator: samples::operator(0), ..vote(at, &content) }).collect();
        let verdict = verdict(TWO_OF_TWO, &votes, &[], Reach::NOBODY);
        prop_assert!(matches!(verdict, Verdict::Pending { .. }), "{:?}", verdict);
    }

    #[test]
    fn invariant_order_does_not_matter(rule in rule(), votes in votes(0).prop_shuffle(), more in 0..3u8) {
        let mut sorted = votes.clone();
        sorted.sort_by_key(|v| (v.operator.clone(), v.lease, v.digest()));
        let (one, two) = (verdict(rule, &votes, &[], reach(0, more)), verdict(rule, &sorted, &[], reach(0, more)));
        prop_assert_eq!(one, two);
    }

    /// Leaving votes out makes nothing reproduced, but for the two exceptions that the module names.
    #[test]
    fn invariant_ignoring_a_vote_reproduces_nothing_new(rule in rule(), votes in votes(1), left_out in any::<prop::sample::Index>()) {
        let mut fewer = votes.clone();
        fewer.remove(left_out.index(votes.len()));
        let (all, some) = (verdict(rule, &votes, &[], Reach::NOBODY), verdict(rule, &fewer, &[], Reach::NOBODY));
        if matches!(some, Verdict::Reproduced { .. }) && !matches!(all, Verdict::Reproduced { .. }) {
            let count = Count::of(&votes);
            let two_groups = count.groups.iter().filter(|g| g.operators.len() >= usize::from(rule.agree)).count() >= 2;
            prop_assert!(!count.contradictory.is_empty() || two_groups);
        }
    }

    /// Nobody is asked beyond ask_max, and a job with nobody left to ask never waits for more than new operators.
    #[test]
    fn invariant_never_more_than_ask_max_are_asked(rule in rule(), votes in votes(0), outstanding in 0..4u8, available in 0..4u8) {
        if let Verdict::Pending { want_more } = verdict(rule, &votes, &[], reach(outstanding, available)) {
            let answered = Count::of(&votes).operators().len();
            let asked = answered + usize::from(outstanding);
            prop_assert!(want_more == 0 || asked + usize::from(want_more) <= usize::from(rule.ask_max));
        }
    }

    #[test]
    fn invariant_differences_are_empty_exactly_for_equal_sets(one in votes(0), two in votes(0)) {
        let outputs = |votes: &[Vote]| {
            let mut all: Vec<Output> = votes.iter().flat_map(|v| v.outputs.clone()).collect();
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all.dedup_by(|a, b| a.name == b.name);
            all
        };
        let (one, two) = (outputs(&one), outputs(&two));
        let differences = compare::differences(&one, &two);
        prop_assert_eq!(differences.is_empty(), compare::digest(&one) == compare::digest(&two));
        prop_assert_eq!(differences.is_empty(), one == two);
    }
}

/// Strangers choose how many files there are; the largest job that the limits allow is judged in time.
#[test]
fn the_largest_dispute_is_judged_in_time() {
    use protocol::limits::{ATTEMPTS_MAX, OUTPUTS_MAX};
    let outputs =
        |at: u8| (0..OUTPUTS_MAX).map(move |n| crate::testing::output(&format!("f{at}-{n:04}"), "x")).collect();
    let most = u8::try_from(ATTEMPTS_MAX).unwrap();
    let votes: Vec<Vote> = (0..most).map(|at| Vote { outputs: outputs(at), ..vote(at, "x") }).collect();
    let start = std::time::Instant::now();
    let rule = Rule { agree: 2, ask: 2, ask_max: most, fail_quorum: 2 };
    let Verdict::Unreproducible { differing } = verdict(rule, &votes, &[], Reach::NOBODY) else {
        panic!("nobody agrees")
    };
    assert_eq!(differing.len(), NAMED_FILES_MAX, "what is stored is bounded");
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}
