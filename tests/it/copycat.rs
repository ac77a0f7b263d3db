//! A member that waits for what others built and signs that: it reads nothing before the verdict, and is never counted.

use std::time::Duration;

use attest::{
    commitment,
    log::entry::{Commitment, Entry, Event, Lease},
    testing::log::Memory,
};
use harness::{Copycat, Liar, Network, Plan, Sight, until};
use protocol::{
    Hash, JobId, OperatorName,
    lease::{LeaseNumber, Profile},
    message::{self, Octets, Refusal, Request, Response},
};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState},
};

use crate::{ground, log};

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

    // Who was not granted a lease is told so, and what it did not sign binds nobody.
    let next = LeaseNumber(lease.number.0.max(attempt.number.0) + 1);
    let junk =
        message::Commitment { lease: next, digest: Hash::of(b"junk"), signature: Some(Octets(vec![7; 500_000])) };
    assert_eq!(copycat.ask(Request::Commit(junk.clone())).await, Response::Lost(vec![next]));
    let unsigned = copycat.ask(Request::Commit(message::Commitment { lease: lease.number, ..junk })).await;
    assert!(
        matches!(&unsigned, Response::Refused(Refusal::Invalid(why)) if why.contains("did not sign")),
        "{unsigned:?}"
    );
    let detail = network.job(job).await;
    let own = detail.attempts.iter().find(|a| a.number == lease.number).unwrap();
    assert_ne!(own.state, AttemptState::Built, "nothing binds it: {own:?}");

    // The copycat binds itself to nonsense, so that the honest one shows its result: to the coordinator alone.
    assert_eq!(copycat.commit(&lease, Hash::of(b"nonsense")).await, Response::Reveal);
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
    assert_eq!(copycat.commit(&lease, digest).await, Response::Lost(vec![lease.number]));
    copycat.show(&lease, MADE).await;
    let after = network.coordinator().job(job).await.unwrap();
    assert_eq!(after.verdict.unwrap().agree.len(), 2, "nothing changes any more");
}

/// Every entry of the coordinator's log so far.
async fn entries(network: &Network) -> Vec<Vec<u8>> {
    let served = log::served(network, "coordinator");
    let checkpoint = log::checkpoint(network, &served).await.unwrap();
    log::bytes(&served, &checkpoint).await
}

/// The places of the commitments to a job's results.
fn commitments(entries: &[Vec<u8>], job: JobId) -> Vec<u64> {
    let of_job =
        |bytes: &Vec<u8>| matches!(Entry::from_bytes(bytes).unwrap().event, Event::Commitment(one) if one.job == job);
    (0..).zip(entries).filter(|(_, bytes)| of_job(bytes)).map(|(place, _)| place).collect()
}

#[tokio::test]
async fn a_coordinator_that_asks_too_early_gets_nothing() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start_some(&["coordinator", "b1"]).await;
    let job = network.submit(&ground.script("alone", "echo what honest builders make > out")).await;
    let built = |d: &JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Built);
    let detail = network.job_until((job, "the honest one has built it"), WITHIN, built).await;
    let (node, lease) = (network.id_of("b1"), detail.attempts[0].number);
    let told = until("its commitment is in the log", WITHIN, async || {
        let entries = entries(&network).await;
        (!commitments(&entries, job).is_empty()).then_some(entries)
    })
    .await;
    let own = commitments(&told, job);
    network.node("coordinator").kill();
    let liar = Liar::take_over(&mut network, "coordinator").await;

    // The truth is no reason: nobody else is bound.
    liar.tell(Memory::of(told.clone()), own.clone());
    until("the builder is asked for its result", WITHIN, async || liar.demand(node, lease).await.then_some(())).await;
    until("it asks why, more than once", WITHIN, async || (liar.asked() >= 2).then_some(())).await;
    assert_eq!(liar.results(), 0);

    // Nor is a commitment of another that the coordinator makes up: it is logged, and not signed by whose it is.
    let (other, number, digest) = (network.id_of("b2"), LeaseNumber(lease.0 + 1), Hash::of(b"made up"));
    let signature = Some(commitment::sign(liar.key(), &network.id, (&job, number), &digest));
    let made_up = [
        Event::Lease(Lease { job, node: other, lease: number, profile: Profile(1) }),
        Event::Commitment(Commitment { job, node: other, lease: number, digest, signature }),
    ];
    let at = Entry::from_bytes(told.last().unwrap()).unwrap().at;
    let made_up = made_up.map(|event| Entry { at, event }.to_bytes());
    let longer: Vec<Vec<u8>> = told.iter().cloned().chain(made_up.clone()).collect();
    liar.tell(Memory::of(longer.clone()), commitments(&longer, job));
    until("it is told of another", WITHIN, async || (liar.asked() >= 2).then_some(())).await;
    assert_eq!(liar.results(), 0);

    // And a history that is another one than before is a proof against the coordinator.
    let mut other: Vec<Vec<u8>> = longer.clone();
    other[1] = made_up[1].clone();
    other.extend(made_up);
    liar.tell(Memory::of(other.clone()), own);
    let evidence =
        until("the builder keeps the proof", WITHIN, async || network.client("b1").conflict().await.ok()).await;
    assert!(!evidence.is_empty());
    assert_eq!(liar.results(), 0);
}

#[tokio::test]
async fn a_builder_that_was_killed_after_its_commitment_shows_the_same_result() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start_some(&["coordinator", "b1"]).await;
    let job = network.submit(&ground.script("kept", "echo what honest builders make > out")).await;
    let built = |d: &JobDetail| d.attempts.iter().any(|a| a.state == AttemptState::Built);
    let detail = network.job_until((job, "the first one is bound"), WITHIN, built).await;
    let lease = detail.attempts[0].number;
    network.node("b1").kill();
    network.start_some(&["b1", "b2"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let agree: Vec<String> = detail.verdict.as_ref().unwrap().agree.iter().map(OperatorName::to_string).collect();
    assert_eq!(agree, ["o1", "o2"]);
    let own = network.id_of("b1");
    let leases: Vec<_> = detail.attempts.iter().filter(|a| a.builder.node == own).map(|a| a.number).collect();
    assert_eq!(leases, [lease], "it built once: salt and result were kept");
}
