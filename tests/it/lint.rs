//! A linter in the environment looks over what was built, and decides nothing.

use std::time::Duration;

use harness::{Network, Plan};
use web::api::JobState;

use crate::ground;

const WITHIN: Duration = Duration::from_secs(180);

#[tokio::test]
async fn each_builder_says_what_lintian_says_and_the_package_is_published_all_the_same() {
    let Some(plain) = ground().await else { return };
    let ground = plain.with(&["lintian"]).await;
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let said: Vec<&str> = detail.attempts.iter().filter_map(|attempt| attempt.lint()).collect();
    assert_eq!(said.len(), 2, "{detail:#?}");
    assert!(said.iter().all(|said| said.starts_with("lintian: ") && said.contains(" error")), "{said:?}");
    assert!(said[0].contains("; E: artel-tiny") || said[0].contains("; W: artel-tiny"), "{said:?}");
    assert!(detail.circumstances().iter().all(|circumstance| circumstance.key != "lint"));
}

#[tokio::test]
async fn each_builder_says_what_rpmlint_says_of_rpms() {
    let Some(plain) = ground().await else { return };
    let ground = plain.with(&["rpm", "rpmlint"]).await;
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let job = network.submit(&ground.rpm("artel-answer.spec", &["dist .art1"])).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let said: Vec<&str> = detail.attempts.iter().filter_map(|attempt| attempt.lint()).collect();
    assert_eq!(said.len(), 2, "{detail:#?}");
    assert!(said.iter().all(|said| said.starts_with("rpmlint: ") && said.contains(".x86_64: ")), "{said:?}");
}
