//! Golden bytes of every kind of entry, and the rules.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use protocol::testing::assert_canonical;

use super::*;
use crate::testing::log::entries;

#[test]
fn golden_bytes() {
    let all = entries();
    let kinds: BTreeSet<&str> = all.iter().map(|entry| entry.event.word()).collect();
    assert_eq!(kinds.len(), 8, "each kind has a sample");
    let lines = all.iter().map(|entry| {
        assert_canonical(entry);
        let bytes = entry.to_bytes();
        assert_eq!(Entry::from_bytes(&bytes).as_ref(), Ok(entry));
        format!("{} {}\n", entry.event.word(), HEXLOWER.encode(&bytes))
    });
    insta::assert_snapshot!(lines.collect::<String>());
}

#[test]
fn the_largest_entry_fits_twice() {
    let attestations = (0..limits::ATTEMPTS_MAX as u8).map(|at| Hash::from_bytes([at; 32])).collect();
    let verdict = Verdict { job: Hash::of(b"").into(), verdict: Judgement::Reproduced, attestations };
    let bytes = Entry { at: Timestamp::from_millis(u64::MAX), event: Event::Verdict(verdict) }.to_bytes();
    assert!(bytes.len() * 2 <= ENTRY_MAX, "{} bytes", bytes.len());
    assert!(Entry::from_bytes(&bytes).is_ok());
}

#[test]
fn what_is_no_entry() {
    let refused = |event: Event| {
        let refused = Entry::from_bytes(&Entry { at: Timestamp::ZERO, event }.to_bytes()).unwrap_err();
        assert!(matches!(refused, EntryError::Meaning(_)), "{refused}");
    };
    let envelope = Hash::of(b"envelope");
    let verdict = |verdict, attestations| Event::Verdict(Verdict { job: envelope.into(), verdict, attestations });
    refused(Event::Policy(Policy { number: 0, envelope }));
    refused(Event::Release(Release { channel: ChannelName::new("stable").unwrap(), envelope, generation: 0 }));
    refused(verdict(Judgement::Reproduced, vec![]));
    refused(verdict(Judgement::Failed, vec![envelope, envelope]));
    refused(verdict(
        Judgement::Disputed,
        (0..=limits::ATTEMPTS_MAX as u8).map(|at| Hash::from_bytes([at; 32])).collect(),
    ));
    for entry in entries() {
        let bytes = entry.to_bytes();
        for length in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..length]).is_err());
        }
        assert!(Entry::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }
    assert!(matches!(Entry::from_bytes(&[0; ENTRY_MAX + 1]), Err(EntryError::Door(DoorError::TooLarge { .. }))));
}
