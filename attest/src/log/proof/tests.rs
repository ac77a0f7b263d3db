//! A proof beside a file: honest, changed, and of something else.

use protocol::{Timestamp, testing::signing_key};

use super::*;
use crate::{
    log::{note::Line, tree::Head},
    testing::log::{Memory, ORIGIN, entries, log_key, signed, witness_key},
};

/// A log of all our entries, and 300 others around them.
fn log() -> Memory {
    let others = |from: u64| (from..from + 150).map(|at| at.to_be_bytes().to_vec());
    Memory::of(others(0).chain(entries().iter().map(Entry::to_bytes)).chain(others(1000)))
}

fn cosigned(head: Head) -> Signed {
    let checkpoint = signed(ORIGIN, head);
    let text = checkpoint.as_signed().note().text().to_owned();
    let at = Timestamp::from_millis(1_700_000_000_000);
    let line = Line::cosign(witness_key(5).name(), &signing_key(5), &text, at);
    checkpoint.with_answer(&line.to_string(), &[witness_key(5)]).unwrap().as_signed().clone()
}

fn policy() -> Policy {
    let text = format!("log {}\nwitness w {}\nquorum w\n", log_key(ORIGIN), witness_key(5));
    Policy::read(text.as_bytes()).unwrap()
}

#[test]
fn every_entry_is_proven() {
    let log = log();
    let size = log.entries().len() as u64;
    for (index, entry) in (150..).zip(entries()) {
        let path = tree::inclusion(index, size, &log).unwrap();
        let proof = Proof::of_entry(&entry, index, path.clone(), cosigned(log.head(size)));
        let text = proof.to_string();
        let read = Proof::read(text.as_bytes()).unwrap();
        assert_eq!((&read, read.to_string()), (&proof, text));
        let (proven, logged) = read.entry(&policy()).unwrap();
        assert_eq!((proven, logged.index), (entry.clone(), index));
        assert_eq!(logged.witnessed.seen[0].witness, witness_key(5));
        let without = Proof::new(index, path, cosigned(log.head(size)));
        let without = Proof::read(without.to_string().as_bytes()).unwrap();
        assert!(without.check(&entry.to_bytes(), &policy()).is_ok());
        assert_eq!(without.entry(&policy()), Err(Error::NoEntry));
    }
}

#[test]
fn the_example_in_the_document_has_this_form() {
    let log = log();
    let proof = Proof::of_entry(&entries()[0], 150, tree::inclusion(150, 163, &log).unwrap(), cosigned(log.head(163)));
    insta::assert_snapshot!(proof.to_string());
    let one = Memory::of([b"one".to_vec()]);
    let alone = Proof::new(0, vec![], cosigned(one.head(1))).to_string();
    assert!(alone.starts_with("c2sp.org/tlog-proof@v1\nindex 0\n\nartel.example/log\n1\n"), "{alone}");
    assert!(Proof::read(alone.as_bytes()).unwrap().check(b"one", &policy()).is_ok());
}

#[test]
fn what_proves_nothing() {
    let log = log();
    let size = log.entries().len() as u64;
    let path = tree::inclusion(150, size, &log).unwrap();
    let good = Proof::of_entry(&entries()[0], 150, path.clone(), cosigned(log.head(size)));
    assert!(good.entry(&policy()).is_ok());
    let refused = |proof: Proof| proof.entry(&policy()).unwrap_err();
    let swapped = Proof { extra: Some(entries()[1].to_bytes()), ..good.clone() };
    assert!(matches!(refused(swapped), Error::Inclusion(ProofError::Root { .. })));
    assert!(matches!(refused(Proof { index: 151, ..good.clone() }), Error::Inclusion(_)));
    assert!(matches!(refused(Proof { index: size, ..good.clone() }), Error::Inclusion(ProofError::Index { .. })));
    assert!(matches!(refused(Proof { path: path[1..].to_vec(), ..good.clone() }), Error::Inclusion(_)));
    let smaller = cosigned(log.head(150));
    assert!(matches!(refused(Proof { checkpoint: smaller, ..good.clone() }), Error::Inclusion(_)));
    let unseen = log.checkpoint(size).as_signed().clone();
    assert!(matches!(
        refused(Proof { checkpoint: unseen, ..good.clone() }),
        Error::Policy(PolicyError::Quorum { seen: 0 })
    ));
    let elsewhere = signed("artel.example/other", log.head(size)).as_signed().clone();
    assert!(matches!(
        refused(Proof { checkpoint: elsewhere, ..good.clone() }),
        Error::Policy(PolicyError::Checkpoint(_))
    ));
    // Of what others may log into the same tree, nothing is taken for an entry.
    let other = Proof::new(0, tree::inclusion(0, size, &log).unwrap(), cosigned(log.head(size)));
    assert!(matches!(refused(Proof { extra: Some(vec![0; 8]), ..other }), Error::Entry(_)));
}

/// Invariant: whatever byte of the file is changed, it proves nothing.
#[test]
fn every_byte_counts() {
    let log = Memory::of(entries().iter().map(Entry::to_bytes));
    let proof = Proof::of_entry(&entries()[4], 4, tree::inclusion(4, 13, &log).unwrap(), cosigned(log.head(13)));
    let bytes = proof.to_string().into_bytes();
    let proves = |bytes: &[u8]| Proof::read(bytes).and_then(|proof| proof.entry(&policy())).is_ok();
    assert!(proves(&bytes));
    for at in 0..bytes.len() {
        for bit in [0x01, 0x20] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            assert!(!proves(&changed), "byte {at} of {}", String::from_utf8_lossy(&changed));
        }
        assert!(!proves(&bytes[..at]));
    }
}

#[test]
fn what_is_no_proof() {
    let log = Memory::sized(3);
    let proof = Proof::new(1, tree::inclusion(1, 3, &log).unwrap(), cosigned(log.head(3)));
    let good = Proof { extra: Some(b"extra".to_vec()), ..proof }.to_string();
    assert!(Proof::read(good.as_bytes()).is_ok());
    for (from, to) in [
        ("@v1", "@v2"),
        ("extra ", "extra  "),
        ("extra ", "Extra "),
        ("extra ZXh0cmE=\n", "extra ZXh0cmE=\nextra ZXh0cmE=\n"),
        ("ZXh0cmE=", "ZXh0cmE"),
        ("index 1", "index 01"),
        ("index 1", "index -1"),
        ("index 1", "place 1"),
        ("index 1\n", ""),
        ("index 1\n", "index 1\nAAAA\n"),
        ("index 1\n", "index 1\n\n"),
        ("artel", "\rartel"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert!(Proof::read(changed.as_bytes()).is_err(), "{changed}");
    }
    let long = good.replacen("index 1\n", &format!("index 1\n{}", format!("{}\n", "A".repeat(43) + "=").repeat(64)), 1);
    assert_eq!(Proof::read(long.as_bytes()), Err(Error::Form("its path is too long")));
    assert_eq!(Proof::read(&vec![b'a'; FILE_MAX + 1]), Err(Error::TooLarge { got: FILE_MAX + 1 }));
}
