//! Channels that take jobs in attested environments only.

use protocol::{
    Hash,
    job::JobKind,
    message::{Refusal, Response},
    testing::samples,
};

use crate::testing::{Bench, builder};

fn attested(bench: &mut Bench, wanted: bool) {
    bench.adopt(|policy| policy.channels[0].attested_environments = wanted);
}

fn refusal(bench: &mut Bench, number: u8) -> String {
    match bench.wish("command", number, |_| ()) {
        Some(Response::Refused(Refusal::NotAllowed(why))) => why,
        other => panic!("{other:?}"),
    }
}

/// Has operators make the environment as an image, with contents of their own.
fn make(bench: &mut Bench, number: u8, contents: &[&str]) -> protocol::JobId {
    let job = bench.submit("environment", number);
    for (operator, content) in (0..).zip(contents) {
        let lease = bench.lease(builder(operator, 0), job);
        bench.reveal(&lease, content);
    }
    job
}

#[test]
fn a_job_needs_an_environment_that_enough_operators_made_alike() {
    let mut bench = Bench::of(4, 2, 2, 3);
    bench.submit("command", 1);
    attested(&mut bench, true);
    let why = refusal(&mut bench, 2);
    let environment = samples::command_request(bench.network).environment;
    assert!(
        why.contains(&format!("of environment {environment} 0 operators made the same image, 2 are needed")),
        "{why}"
    );
    let disputed = make(&mut bench, 3, &["a", "b", "c"]);
    assert_eq!(
        (bench.state(disputed).as_str(), bench.ledger.attested_environment(&environment)),
        ("unreproducible", None)
    );
    refusal(&mut bench, 4);
    let made = make(&mut bench, 5, &["a", "a"]);
    assert_eq!(bench.state(made), "reproduced");
    assert_eq!(bench.ledger.attested_environment(&environment), Some((made, 2)));
    bench.submit("command", 6);
    bench.assert_replays();
    bench.adopt(|policy| (policy.channels[0].agree, policy.channels[0].ask) = (3, 3));
    assert!(refusal(&mut bench, 7).contains("2 operators made the same image, 3 are needed"));
    attested(&mut bench, false);
    bench.submit("command", 8);
    bench.assert_replays();
}

#[test]
fn an_image_with_anything_beside_the_packages_attests_no_environment() {
    let mut bench = Bench::of(4, 2, 2, 3);
    let environment = samples::command_request(bench.network).environment;
    let answer = bench.wish("environment", 1, |request| {
        if let JobKind::Image(image) = &mut request.kind {
            image.setup = vec!["true".to_owned()];
        }
    });
    let Some(Response::Receipt(job, _)) = answer else { panic!("{answer:?}") };
    for operator in [0, 1] {
        let lease = bench.lease(builder(operator, 0), job);
        bench.reveal(&lease, "a");
    }
    assert_eq!((bench.state(job).as_str(), bench.ledger.attested_environment(&environment)), ("reproduced", None));
    attested(&mut bench, true);
    let answer = bench.wish("environment", 2, |request| {
        if let JobKind::Image(image) = &mut request.kind {
            image.setup = vec!["true".to_owned()];
        }
    });
    assert!(matches!(answer, Some(Response::Refused(Refusal::NotAllowed(_)))), "it is no exception either: {answer:?}");
    assert_ne!(environment, Hash::of(b"tools"));
}
