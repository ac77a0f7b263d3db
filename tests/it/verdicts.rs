//! What attestations add up to when operators lie, are one and the same, or build something that differs.

use std::time::Duration;

use harness::{BuilderPlan, Ground, Network, Plan};
use protocol::{JobId, NodeId, OperatorName};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState, VerdictWord},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

async fn nothing_is_published(network: &Network) {
    let views = network.coordinator().repositories().await.unwrap();
    assert!(views.iter().all(|view| view.generation == 0 && view.packages == 0), "{views:?}");
}

/// Starts the coordinator and some builders, submits a package and waits until they have built it.
async fn built_by(network: &mut Network, ground: &Ground, builders: &[&str]) -> JobId {
    let names: Vec<&str> = ["coordinator"].iter().chain(builders).copied().collect();
    network.start_some(&names).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let count = builders.len();
    let built = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Built).count() >= count;
    network.job_until((job, "the first ones have built it"), WITHIN, built).await;
    job
}

#[tokio::test]
async fn a_liar_is_named_with_both_hashes_and_the_honest_pair_publishes() {
    let Some(ground) = ground().await else { return };
    let mut plan = Plan::builders(3);
    plan.builders[0] = plan.builders[0].clone().lying();
    let mut network = Network::found(&ground, &plan);
    // The liar and one honest builder first, so that the liar is asked for certain.
    let job = built_by(&mut network, &ground, &["b1", "b2"]).await;
    network.start_some(&["b3"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let verdict = detail.verdict.unwrap();
    let names: Vec<&str> = verdict.agree.iter().map(OperatorName::as_str).collect();
    assert_eq!(names, ["o2", "o3"]);
    let [liar] = &verdict.dissent[..] else { panic!("{:?}", verdict.dissent) };
    assert_eq!((liar.operator.as_str(), liar.node), ("o1", network.id_of("b1")));
    let of = |node: NodeId| detail.attempts.iter().find(|a| a.builder.node == node).unwrap().outputs.clone();
    let sha256 = |node: &str| of(network.id_of(node)).into_iter().find(|o| o.name == liar.file).map(|o| o.sha256);
    assert_eq!((liar.theirs, liar.agreed), (sha256("b1"), sha256("b2")), "both hashes are named");
    assert_eq!(sha256("b2"), sha256("b3"));
    assert!(liar.theirs.is_some() && liar.agreed.is_some() && liar.theirs != liar.agreed);
}

#[tokio::test]
async fn liars_who_differ_publish_nothing() {
    let Some(ground) = ground().await else { return };
    let mut plan = Plan::builders(3);
    for builder in &mut plan.builders[..2] {
        *builder = builder.clone().lying();
    }
    let mut network = Network::found(&ground, &plan);
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Unreproducible, "{detail:#?}");
    assert_eq!(detail.summary.agreement.asked, 3, "the third was asked, too");
    let verdict = detail.verdict.unwrap();
    assert!(verdict.agree.is_empty() && !verdict.differing.is_empty(), "{verdict:?}");
    assert!(detail.published.is_none());
    nothing_is_published(&network).await;
}

#[tokio::test]
async fn two_nodes_of_one_operator_are_one_voice() {
    let Some(ground) = ground().await else { return };
    let builders = ["b1", "b2"].map(|name| BuilderPlan::of(name, "solo"));
    let other = BuilderPlan { operator: None, ..BuilderPlan::of("b3", "") };
    let plan = Plan { builders: builders.into_iter().chain([other]).collect(), ..Plan::builders(2) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "b1", "b2"]).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let waits = |detail: &JobDetail| {
        detail.summary.why.contains("another operator to be added") && detail.attempts.iter().all(|a| a.ended.is_some())
    };
    let detail = network.job_until((job, "it waits for another operator"), WITHIN, waits).await;
    assert!(!detail.summary.state.is_over(), "{detail:#?}");
    assert_eq!((detail.attempts.len(), detail.summary.agreement.asked), (1, 1), "the other node is not asked");
    nothing_is_published(&network).await;

    let third = network.id_of("b3");
    let view = network
        .change_policy(|charter| {
            charter.operators.insert(OperatorName::new("other").unwrap(), vec![third]);
        })
        .await;
    assert_eq!(view.number, 2);
    network.start_some(&["b3"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let agree: Vec<String> = detail.verdict.unwrap().agree.iter().map(ToString::to_string).collect();
    assert_eq!(agree, ["other", "solo"]);
}

#[tokio::test]
async fn a_package_that_writes_the_year_is_unreproducible_and_not_published() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let job = network.submit(&ground.deb("artel-dated_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Unreproducible, "{detail:#?}");
    let verdict = detail.verdict.unwrap();
    assert_eq!(verdict.word, VerdictWord::Unreproducible);
    let [file] = &verdict.differing[..] else { panic!("{:?}", verdict.differing) };
    assert!(file.starts_with("artel-dated_1.0_"), "only the program differs, not its documentation: {file}");
    assert!(detail.published.is_none());
    nothing_is_published(&network).await;
}
