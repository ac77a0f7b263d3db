//! Explanations of differences: when one is wanted, what becomes of it, and that nothing waits for it.

use protocol::Hash;

use crate::{
    Command, Effect,
    explain::{Dispute, EXPLANATIONS_MAX, Findings, Quote, explanation_id},
    service::{Account, Step},
    testing::{Bench, builder},
    view::Relation,
};

fn disputes(bench: &Bench) -> Vec<Dispute> {
    let one = |effect: &Effect| if let Effect::Explain(dispute) = effect { Some(dispute.clone()) } else { None };
    bench.effects.iter().filter_map(one).collect()
}

fn findings(bench: &Bench) -> Findings {
    let quote = Quote { place: "a".into(), left: "l".into(), right: "r".repeat(999), variation: "date".into() };
    let step = Step { name: "compare".into(), began: bench.now, ended: bench.now };
    let account = Account { steps: vec![step; 99], summary: "date in 1".into(), ..Account::default() };
    let text = Some(Hash::of(b"text"));
    Findings { text, quotes: vec![quote; 99], account, ..Findings::default() }
}

#[test]
fn each_further_set_of_outputs_is_compared_with_the_first_and_the_verdict_does_not_wait() {
    let mut bench = Bench::of(5, 2, 2, 5);
    let job = bench.submit("deb", 1);
    let mut wanted = Vec::new();
    for (at, content) in (0..).zip(["a", "b", "c", "b"]) {
        let lease = bench.lease(builder(at, 0), job);
        bench.reveal(&lease, content);
        wanted.push(disputes(&bench).iter().map(|d| (d.left.lease.0, d.right.lease.0)).collect::<Vec<_>>());
    }
    let nothing_yet = [vec![], vec![], vec![], vec![(1, 2), (1, 3)]];
    assert_eq!(wanted, nothing_yet, "one for each set that is new, once everybody may see them");
    assert_eq!(bench.state(job), "publishing");
    let views = bench.ledger.explanations(job);
    let sides: Vec<_> = views.iter().map(|v| (v.left_operators.len(), v.right_operators.len())).collect();
    assert_eq!(sides, [(1, 2), (1, 1)], "the agreeing ones stand on one side");
    assert!(views.len() <= EXPLANATIONS_MAX && views.iter().all(|v| v.ended.is_none()));
    bench.assert_replays();
}

#[test]
fn an_explanation_is_a_job_that_ends_once() {
    let mut bench = Bench::of(2, 2, 2, 2);
    let job = bench.submit("command", 1);
    let leases = [0, 1].map(|at| bench.lease(builder(at, 0), job));
    bench.reveal(&leases[0], "a");
    bench.reveal(&leases[1], "b");
    let [dispute] = &disputes(&bench)[..] else { panic!("{:?}", bench.effects) };
    assert_eq!(dispute.id, explanation_id(&job, leases[0].number, leases[1].number));
    assert_eq!((dispute.left.node, dispute.right.outputs.len()), (builder(0, 0), 1));
    assert_eq!((bench.state(job), bench.state(dispute.id)), ("unreproducible".into(), "running".into()));

    // A new leader is told again, although the job is over.
    let id = dispute.id;
    bench.apply(Command::Restarted);
    assert_eq!(disputes(&bench).iter().map(|d| d.id).collect::<Vec<_>>(), [id]);

    let found = findings(&bench);
    bench.apply(Command::Explained { explanation: id, findings: found });
    let late = Findings { trouble: "cannot explain here: no".into(), ..Findings::default() };
    bench.apply(Command::Explained { explanation: id, findings: late.clone() });
    bench.apply(Command::Explained { explanation: job, findings: late });
    assert_eq!(bench.state(id), "done", "the first word counts");
    let [view] = &bench.ledger.explanations(id)[..] else { panic!("one") };
    assert_eq!((view.summary.as_str(), view.text), ("date in 1", Some(Hash::of(b"text"))));
    assert!(view.quotes.len() == 6 && view.quotes[0].right.len() == 256, "what is kept is bounded");
    assert_eq!(bench.ledger.service_run(id).unwrap().steps.len(), 32);
    let links = |of| bench.ledger.links(of).iter().map(|l| (l.relation, l.job)).collect::<Vec<_>>();
    assert_eq!((links(job), links(id)), (vec![(Relation::Explanation, id)], vec![(Relation::Explained, job)]));
    assert_eq!(bench.ledger.briefs().iter().filter(|b| b.kind == "explain").count(), 1);
    bench.apply(Command::Restarted);
    assert!(disputes(&bench).is_empty());
    bench.assert_replays();
}

#[test]
fn a_difference_that_comes_after_the_verdict_is_explained_too() {
    let mut bench = Bench::of(3, 2, 3, 3);
    let job = bench.submit("deb", 1);
    let leases: Vec<_> = (0..3).map(|at| bench.lease(builder(at, 0), job)).collect();
    bench.reveal(&leases[0], "true");
    bench.reveal(&leases[1], "true");
    assert!(disputes(&bench).is_empty());
    bench.reveal(&leases[2], "lie");
    assert_eq!(disputes(&bench).iter().map(|d| d.right.node).collect::<Vec<_>>(), [builder(2, 0)]);
    let trouble = "cannot explain here: disk limit of 64 MiB reached".to_owned();
    let findings = Findings { trouble, ..Findings::default() };
    let id = bench.ledger.explanations(job)[0].id;
    bench.apply(Command::Explained { explanation: id, findings });
    assert_eq!((bench.state(id), bench.state(job)), ("failed-to-run".into(), "publishing".into()));
    bench.assert_replays();
}
