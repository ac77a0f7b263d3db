//! Each way in which a story can be wrong.

use protocol::{Timestamp, lease::Profile, testing::node};

use super::*;
use crate::log::entry::{Accepted, Judgement, Policy, Release};

fn job(seed: u8) -> JobId {
    Hash::of(&[seed]).into()
}

fn at(event: Event) -> Entry {
    Entry { at: Timestamp::from_millis(1), event }
}

fn policy(number: u64) -> Entry {
    at(Event::Policy(Policy { number, envelope: Hash::of(b"policy") }))
}

fn accepted(seed: u8) -> Entry {
    at(Event::Accepted(Accepted { job: job(seed), envelope: Hash::of(b"request") }))
}

fn lease(of: u8, by: u8, number: u64) -> Entry {
    at(Event::Lease(Lease { job: job(of), node: node(by), lease: LeaseNumber(number), profile: Profile(0) }))
}

fn commitment(of: u8, by: u8, number: u64) -> Entry {
    let digest = Hash::of(b"salted");
    at(Event::Commitment(Commitment {
        job: job(of),
        node: node(by),
        lease: LeaseNumber(number),
        digest,
        signature: None,
    }))
}

fn outcome(of: u8, by: u8, number: u64, end: End) -> Entry {
    at(Event::Outcome(Outcome { end, job: job(of), node: node(by), lease: LeaseNumber(number) }))
}

fn verdict(of: u8, attestations: &[&[u8]]) -> Entry {
    let attestations = attestations.iter().map(|bytes| Hash::of(bytes)).collect();
    at(Event::Verdict(Verdict { job: job(of), verdict: Judgement::Reproduced, attestations }))
}

fn release(generation: u64) -> Entry {
    let channel = ChannelName::new("stable").unwrap();
    at(Event::Release(Release { channel, envelope: Hash::of(b"release"), generation }))
}

fn built(bytes: &[u8]) -> End {
    End::Built(Hash::of(bytes))
}

/// A whole life.
fn told() -> Vec<Entry> {
    vec![
        policy(1),
        accepted(1),
        lease(1, 10, 1),
        lease(1, 11, 4),
        commitment(1, 10, 1),
        commitment(1, 11, 4),
        accepted(2),
        outcome(1, 10, 1, built(b"a")),
        outcome(1, 11, 4, built(b"b")),
        verdict(1, &[b"a", b"b"]),
        release(1),
        policy(3),
        lease(1, 12, 5),
        outcome(1, 12, 5, End::Lost),
        lease(2, 12, 6),
        release(4),
        release(4),
    ]
}

#[test]
fn a_whole_life_is_read_and_continued() {
    let mut story = Story::default();
    for entry in told() {
        story.read(&entry).unwrap();
        let kept = Story::from_bytes(&story.to_bytes()).unwrap();
        assert_eq!(kept, story);
    }
    assert_eq!((story.open().collect::<Vec<_>>(), story.waiting()), (vec![LeaseNumber(6)], 1));
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let mut story = Story::default();
    told().iter().try_for_each(|entry| story.read(entry)).unwrap();
    let cases = [
        (policy(3), StoryError::Policy { known: 3, got: 3 }),
        (policy(2), StoryError::Policy { known: 3, got: 2 }),
        (accepted(1), StoryError::AcceptedTwice(job(1))),
        (lease(3, 10, 9), StoryError::NotAccepted(job(3))),
        (lease(2, 10, 6), StoryError::Lease { known: LeaseNumber(6), got: LeaseNumber(6) }),
        (outcome(1, 10, 1, built(b"c")), StoryError::NoLease(LeaseNumber(1))),
        (outcome(2, 10, 6, End::Lost), StoryError::NoLease(LeaseNumber(6))),
        (outcome(1, 12, 6, End::Lost), StoryError::NoLease(LeaseNumber(6))),
        (outcome(2, 12, 6, built(b"c")), StoryError::Unbound(LeaseNumber(6))),
        (commitment(2, 12, 7), StoryError::NoLease(LeaseNumber(7))),
        (verdict(1, &[b"a"]), StoryError::JudgedTwice(job(1))),
        (verdict(3, &[b"a"]), StoryError::NotAccepted(job(3))),
        (verdict(2, &[b"a"]), StoryError::Attestation { job: job(2), attestation: Hash::of(b"a") }),
        (release(2), StoryError::Generation { channel: ChannelName::new("stable").unwrap(), known: 4, got: 2 }),
    ];
    for (entry, error) in cases {
        let before = story.clone();
        assert_eq!(story.read(&entry), Err(error));
        assert_eq!(story, before);
    }
    story.read(&commitment(2, 12, 6)).unwrap();
    assert_eq!(story.read(&commitment(2, 12, 6)), Err(StoryError::CommittedTwice(LeaseNumber(6))));
    assert_eq!(Story::default().read(&accepted(1)), Err(StoryError::Beginning));
}
