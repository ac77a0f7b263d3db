//! What the log must say before a result is shown, and what a lying coordinator tells instead.

use std::collections::BTreeMap;

use protocol::{
    Timestamp,
    blame::{Blame, Failure},
    lease::Profile,
    testing::{node, samples, signing_key},
};

use super::*;
use crate::{log::entry, testing::log::Memory};

const DIGEST: &[u8] = b"what the builder made";

/// A log of one job, as its coordinator has it.
struct Told {
    network: NetworkId,
    policy: Policy,
    job: JobId,
    log: Memory,
    negatives: Vec<Octets>,
}

impl Told {
    fn new() -> Self {
        let policy = samples::genesis(4);
        let (_, network) = samples::signed_genesis(&policy);
        let mut told =
            Self { network, policy, job: Hash::of(b"job").into(), log: Memory::default(), negatives: Vec::new() };
        let envelope = Hash::of(b"envelope");
        told.append(Event::Policy(entry::Policy { number: 1, envelope }));
        told.append(Event::Accepted(entry::Accepted { job: told.job, envelope }));
        told
    }

    fn append(&mut self, event: Event) -> u64 {
        let entry = Entry { at: Timestamp::from_millis(1_700_000_000_000), event };
        self.log.append(entry.to_bytes());
        self.log.entries().len() as u64 - 1
    }

    /// A node is leased the job and commits to it, with a signature by this key.
    fn bound(&mut self, by: u8, key: u8) -> u64 {
        let (job, lease, digest) = (self.job, LeaseNumber(by.into()), Hash::of(DIGEST));
        self.append(Event::Lease(entry::Lease { job, node: node(by), lease, profile: Profile(0) }));
        let signature = Some(commitment::sign(&signing_key(key), &self.network, (&job, lease), &digest));
        self.append(Event::Commitment(entry::Commitment { job, node: node(by), lease, digest, signature }))
    }

    fn failed(&mut self, by: u8) -> u64 {
        let (network, job, lease) = (self.network, self.job, LeaseNumber(by.into()));
        let failure = Failure::new(Blame::Job, "build", "it does not compile");
        let negative = Negative { network, job, node: node(by), lease, failure, log: None };
        let signed = negative.sign(&signing_key(by)).unwrap();
        let end = End::Failed(Hash::of(&signed));
        self.negatives.push(Octets(signed));
        self.append(Event::Outcome(Outcome { end, job, node: node(by), lease }))
    }

    fn checkpoint(&self, size: u64) -> Verified {
        signed(&self.network, self.log.head(size), 10)
    }

    fn grounds(&self, places: &[u64], from: u64) -> Grounds {
        let size = self.log.entries().len() as u64;
        let logged = |index: &u64| Logged {
            path: tree::inclusion(*index, size, &self.log).unwrap(),
            entry: Octets(self.log.entries()[*index as usize].clone()),
            index: *index,
        };
        Grounds {
            entries: places.iter().map(logged).collect(),
            negatives: self.negatives.clone(),
            checkpoint: Octets(self.checkpoint(size).as_signed().to_string().into_bytes()),
            consistency: if from == 0 { Vec::new() } else { tree::consistency(from, size, &self.log).unwrap() },
        }
    }

    /// The question of node 10, which may show its result when two are bound.
    fn question<'a>(&'a self, believed: Option<&'a Verified>) -> Question<'a> {
        let own = Some((node(10), LeaseNumber(10), Hash::of(DIGEST)));
        Question { network: self.network, job: self.job, own, agree: 2, policy: &self.policy, believed }
    }

    fn decide(&self, places: &[u64]) -> Result<Reason, Doubt> {
        check(&self.question(None), &self.grounds(places, 0)).unwrap().1
    }
}

fn signed(network: &NetworkId, head: Head, by: u8) -> Verified {
    let signed = Signed::sign(&network::origin(network), head, &signing_key(by));
    signed.verify(&[network::log_key(network, &node(by))]).unwrap()
}

fn names(reason: Result<Reason, Doubt>) -> Vec<String> {
    match reason {
        Ok(Reason::Bound(operators)) => operators.iter().map(OperatorName::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn k_operators_must_be_bound_by_their_own_word() {
    let mut told = Told::new();
    let own = told.bound(10, 10);
    assert!(matches!(told.decide(&[own]), Err(Doubt::TooFew { bound: 1, agree: 2 })));
    assert!(matches!(told.decide(&[own, own]), Err(Doubt::TooFew { bound: 1, .. })), "one is one, however often");
    let forged = told.bound(11, 10);
    assert!(matches!(told.decide(&[own, forged]), Err(Doubt::TooFew { .. })), "the coordinator signed it itself");
    let stranger = told.bound(30, 30);
    assert!(matches!(told.decide(&[own, stranger]), Err(Doubt::TooFew { .. })), "nobody answers for it");
    let second = told.bound(12, 12);
    assert!(matches!(told.decide(&[second, forged]), Err(Doubt::OwnMissing)));
    assert_eq!(names(told.decide(&[own, second])), ["op-a", "op-c"]);
}

#[test]
fn a_failure_counts_where_its_builder_signed_it() {
    let mut told = Told::new();
    let own = told.bound(10, 10);
    let (job, lease) = (told.job, LeaseNumber(11));
    let end = End::Failed(Hash::of(b"what nobody signed"));
    let said = told.append(Event::Outcome(Outcome { end, job, node: node(11), lease }));
    assert!(matches!(told.decide(&[own, said]), Err(Doubt::TooFew { .. })));
    let failed = told.failed(12);
    assert_eq!(names(told.decide(&[own, failed])), ["op-a", "op-c"]);
    told.negatives.clear();
    assert!(matches!(told.decide(&[own, failed]), Err(Doubt::TooFew { .. })));
}

#[test]
fn a_verdict_needs_nobody_else() {
    let mut told = Told::new();
    let verdict = |job| entry::Verdict { job, verdict: entry::Judgement::Failed, attestations: Vec::new() };
    let of_another = told.append(Event::Verdict(verdict(Hash::of(b"another").into())));
    let of_this = told.append(Event::Verdict(verdict(told.job)));
    assert!(matches!(told.decide(&[of_another]), Err(Doubt::OwnMissing)));
    assert_eq!(told.decide(&[of_this]).unwrap(), Reason::Judged);
}

#[test]
fn what_is_not_in_the_log_is_no_reason() {
    let mut told = Told::new();
    let places = [told.bound(10, 10), told.bound(11, 11)];
    let fine = told.grounds(&places, 0);
    let broken: BTreeMap<&str, Grounds> = BTreeMap::from([
        ("another entry", {
            let mut grounds = fine.clone();
            grounds.entries[1].entry = grounds.entries[0].entry.clone();
            grounds
        }),
        ("another place", {
            let mut grounds = fine.clone();
            grounds.entries[1].index -= 1;
            grounds
        }),
        ("another path", {
            let mut grounds = fine.clone();
            grounds.entries[1].path.pop();
            grounds
        }),
    ]);
    for (what, grounds) in broken {
        let (_, reason) = check(&told.question(None), &grounds).unwrap();
        assert!(matches!(reason, Err(Doubt::Inclusion { .. })), "{what}: {reason:?}");
    }
    let of_stranger = signed(&told.network, told.log.head(6), 11).as_signed().to_string();
    let unsigned = Grounds { checkpoint: Octets(of_stranger.into_bytes()), ..fine.clone() };
    assert!(matches!(check(&told.question(None), &unsigned), Err(Doubt::Checkpoint(_))));
    let endless = Grounds { entries: vec![fine.entries[0].clone(); 100], ..fine };
    assert!(matches!(check(&told.question(None), &endless), Err(Doubt::TooMany)));
}

#[test]
fn another_history_for_this_builder_is_a_proof_against_who_signed_it() {
    let (mut honest, mut liar) = (Told::new(), Told::new());
    let own = honest.bound(10, 10);
    let complete = honest.checkpoint(honest.log.entries().len() as u64);
    honest.append(Event::Policy(entry::Policy { number: 2, envelope: Hash::of(b"envelope") }));
    let believed = honest.checkpoint(honest.log.entries().len() as u64);
    let second = honest.bound(11, 11);
    let grounds = honest.grounds(&[own, second], believed.head().size);
    let (newer, reason) = check(&honest.question(Some(&believed)), &grounds).unwrap();
    assert_eq!((newer.head().size, names(reason).len()), (7, 2));
    let back = check(&honest.question(Some(&newer)), &Grounds { checkpoint: octets(&believed), ..grounds.clone() });
    assert!(matches!(back, Err(Doubt::GoesBack { got: 5, known: 7 })), "{back:?}");

    // The liar tells this builder of a second one that nobody else is told of.
    let places = [liar.bound(11, 11), liar.bound(10, 10)];
    liar.append(Event::Policy(entry::Policy { number: 2, envelope: Hash::of(b"envelope") }));
    let lie = liar.grounds(&places, believed.head().size);
    let Err(Doubt::Fork(conflict)) = check(&liar.question(Some(&believed)), &lie) else { panic!("it is a fork") };
    let keys = network::log_keys(&liar.network, &liar.policy);
    assert_eq!(conflict.convicts(&keys).unwrap(), [believed.head(), liar.log.head(7)]);
    let unproven = Grounds { consistency: Vec::new(), ..lie };
    assert!(matches!(check(&liar.question(Some(&believed)), &unproven), Err(Doubt::Consistency)));
    // Of a complete tree the proof does not hold the root: the tiles do, which whoever follows the log asks for.
    let lie = liar.grounds(&places, complete.head().size);
    assert!(matches!(check(&liar.question(Some(&complete)), &lie), Err(Doubt::Consistency)));
}

fn octets(checkpoint: &Verified) -> Octets {
    Octets(checkpoint.as_signed().to_string().into_bytes())
}
