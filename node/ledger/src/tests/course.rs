//! What the log says of a job's attempts: kept with its evidence, those without a result included.

use attest::{
    log::entry::{End, Entry, Event},
    negative::Negative,
};
use protocol::{
    Hash, JobId,
    blame::{Blame, Failure},
    lease::Lease,
    limits,
    message::{Failed, Octets},
    testing::signing_key,
};

use crate::{
    Command, Effect, Ledger,
    testing::{Bench, builder},
};

/// Reports a failure that its builder signed, and gives the hash of what it signed.
fn fail(bench: &mut Bench, lease: &Lease, blame: Blame) -> Hash {
    let failure = Failure::new(blame, "build", "words");
    let Lease { job, node, number, .. } = *lease;
    let said = Negative { network: bench.network, job, node, lease: number, failure: failure.clone(), log: None };
    let signed = said.sign(&signing_key(Bench::key_of(node))).unwrap();
    let hash = Hash::of(&signed);
    let report = Failed { log: None, lease: number, failure, statement: Some(Octets(signed)) };
    bench.apply(Command::Failed { node, report });
    hash
}

fn ends(ledger: &Ledger, job: JobId) -> Vec<Option<End>> {
    ledger.endings(job).into_iter().map(|ending| ending.end).collect()
}

#[test]
fn every_attempt_is_told_with_what_its_builder_signed() {
    let mut bench = Bench::of(6, 2, 2, 6);
    let job = bench.submit("deb", 1);
    let [failing, cut_off] = [0, 1].map(|operator| bench.lease(builder(operator, 0), job));
    let failed = fail(&mut bench, &failing, Blame::Job);
    let stopped = fail(&mut bench, &cut_off, Blame::Interrupted);
    let lost = bench.lease(builder(2, 0), job);
    bench.wait(limits::LEASE_TTL.as_secs() + 1);
    let honest = bench.lease(builder(3, 0), job);
    let expected = |last| [Some(End::Failed(failed)), Some(End::Stopped(stopped)), Some(End::Lost), last].to_vec();
    assert_eq!(ends(&bench.ledger, job), expected(None), "the last one runs");
    assert_eq!(bench.ledger.endings(job)[2].lease.lease, lost.number);

    bench.commit(&honest, "a");
    let committed = bench.ledger.endings(job)[3].committed;
    assert!(committed.is_some());
    assert_eq!(bench.ledger.evidence(job).unwrap().salts, [], "nobody sees one before the verdict");
    let second = bench.lease(builder(4, 0), job);
    bench.commit(&second, "a");
    bench.show(&honest, "a");
    bench.show(&second, "a");
    assert_eq!(bench.state(job), "publishing");

    let evidence = bench.ledger.evidence(job).unwrap();
    assert_eq!(evidence.salts.iter().map(|(lease, _)| *lease).collect::<Vec<_>>(), [honest.number, second.number]);
    let signed: Vec<Hash> = evidence.negatives.iter().map(|bytes| Hash::of(bytes)).collect();
    assert_eq!(signed, [failed, stopped], "what the outcomes name can be had");
    let last = Entry::from_bytes(&evidence.course.last().unwrap().1).unwrap();
    assert!(matches!(last.event, Event::Verdict(_)), "{last:?}");
    let again = Ledger::from_bytes(&bench.ledger.to_bytes()).unwrap();
    assert_eq!(again.endings(job), bench.ledger.endings(job));
    assert_eq!(again.evidence(job), Some(evidence));
    bench.assert_replays();
}

#[test]
fn the_places_are_those_of_the_log() {
    let mut bench = Bench::of(3, 1, 1, 3);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    let appended = |bench: &Bench| -> Vec<(u64, Vec<u8>)> {
        let one = |effect: &Effect| {
            if let Effect::Append { index, entry } = effect { Some((*index, entry.clone())) } else { None }
        };
        bench.effects.iter().filter_map(one).collect()
    };
    let mut logged = appended(&bench);
    bench.commit(&lease, "a");
    logged.extend(appended(&bench));
    bench.show(&lease, "a");
    logged.extend(appended(&bench));
    assert_eq!(logged.len(), 4, "lease, commitment, outcome, verdict");
    assert_eq!(bench.ledger.evidence(job).unwrap().course, logged);
}
