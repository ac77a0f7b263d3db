//! A member that waits for what others built and signs that: it reads nothing before the verdict, and is never counted.

use std::time::Duration;

use harness::{Copycat, Network, Plan, Sight, until};
use protocol::{
    Hash, OperatorName,
    lease::LeaseNumber,
    message::{Refusal, Response},
};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);
/// What the honest builders make, as if the copycat had guessed it.
const MADE: &[u8] = b"what honest builders make\n";

#[tokio::test]
async fn a_copycat_reads_nothing_before_the_verdict_and_is_never_counted() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(3));
    network.start_some(&["coordinator", "b2"]).await;
    let folder = network.folder().join("copycat");
    let mut copycat = Copycat::join(&mut network, "b1", &folder).await;
    let job = network.submit(&ground.script("secret", "echo what honest builders make > out")).await;
    let lease = copycat.lease(job).await;
    let honest = network.id_of("b2");
    let its = move |d: &JobDetail| d.attempts.iter().find(|a| a.builder.node == honest).cloned();

    // The honest one is bound, and waits: nobody sees what it has, not even the coordinator.
    let bound = move |d: &JobDetail| its(d).is_some_and(|a| a.state == AttemptState::Built);
    let detail = network.job_until((job, "the honest one has built it"), WITHIN, bound).await;
    let attempt = its(&detail).unwrap();
    assert!(attempt.log.is_none() && attempt.outputs.is_empty(), "{attempt:?}");
    let nothing = Sight { bundle: Some(0), ..Sight::default() };
    let builders: [(_, LeaseNumber); 1] = [(honest, attempt.number)];
    assert_eq!(copycat.look(job, MADE, &builders).await, nothing);

    // The copycat binds itself to nonsense, so that the honest one shows its result: to the coordinator alone.
    assert_eq!(copycat.commit(lease.number, Hash::of(b"nonsense")).await, Response::Reveal);
    let shown = move |d: &JobDetail| its(d).is_some_and(|a| a.log.is_some());
    let detail = network.job_until((job, "the honest one has shown it"), WITHIN, shown).await;
    assert!(its(&detail).unwrap().outputs.is_empty() && detail.verdict.is_none(), "{detail:#?}");
    assert_eq!(copycat.look(job, MADE, &builders).await, nothing);

    // Even if it guesses, it is bound to something else.
    let answer = copycat.show(&lease, MADE).await;
    assert!(matches!(&answer, Response::Refused(Refusal::Invalid(why)) if why.contains("committed")), "{answer:?}");
    network.start_some(&["b3"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let agree: Vec<String> = detail.verdict.unwrap().agree.iter().map(OperatorName::to_string).collect();
    assert_eq!(agree, ["o2", "o3"]);
    let copied = detail.attempts.iter().find(|a| a.builder.node == copycat.id).unwrap();
    assert_eq!(copied.state, AttemptState::Failed, "{copied:?}");
    let view = network.coordinator().peer(copycat.id).await.unwrap();
    assert!(view.classes.iter().any(|class| !class.evidence.is_empty()), "it is blamed: {view:#?}");

    // Now everybody may read it, and signing it is too late.
    until("the outputs are open", WITHIN, async || {
        let sight = copycat.look(job, MADE, &builders).await;
        (!sight.views.is_empty() && sight.givers == [honest] && sight.bundle == Some(2)).then_some(())
    })
    .await;
    let digest = copycat.digest(&lease, MADE).await;
    assert_eq!(copycat.commit(lease.number, digest).await, Response::Lost(vec![lease.number]));
    copycat.show(&lease, MADE).await;
    let after = network.coordinator().job(job).await.unwrap();
    assert_eq!(after.verdict.unwrap().agree.len(), 2, "nothing changes any more");
}
