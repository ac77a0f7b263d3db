//! What a checkpoint is, who signs it, and who saw it.

use protocol::testing::{public_key, signing_key};

use super::*;
use crate::testing::log::{Memory, ORIGIN, SEED, log_key, witness_key};

const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn signed() -> Signed {
    Memory::sized(7).checkpoint(7).as_signed().clone()
}

#[test]
fn the_published_example() {
    let checkpoint = Checkpoint::read(EXAMPLE).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.head().size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.to_string(), EXAMPLE);
    let extended = format!("{EXAMPLE}an extension\n");
    assert_eq!(Checkpoint::read(&extended).unwrap().to_string(), extended);
}

#[test]
fn what_is_no_checkpoint() {
    for (from, to) in [
        ("20852163", "020852163"),
        ("20852163", "-1"),
        ("20852163", "+1"),
        ("20852163", "1e3"),
        ("20852163", ""),
        ("20852163", "9223372036854775808"),
        ("example.com/behind-the-sofa", ""),
        ("q2I=", "q2J="),
        ("q2I=", "q2I"),
        ("CsUYapGG", "CsUY"),
        ("q2I=\n", "q2I="),
        ("q2I=\n", "q2I=\n\nmore\n"),
        ("q2I=\n", "q2I=\n\n"),
        ("\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=", ""),
    ] {
        let changed = EXAMPLE.replacen(from, to, 1);
        assert!(matches!(Checkpoint::read(&changed), Err(CheckpointError::Form(_))), "{changed:?}");
    }
    let many = EXAMPLE.to_owned() + &"x\n".repeat(EXTENSIONS_MAX + 1);
    assert!(Checkpoint::read(&many).is_err());
    assert!(Checkpoint::read(&EXAMPLE.replace("20852163", "9223372036854775807")).is_ok());
}

#[test]
fn only_the_logs_own_key_makes_it_believed() {
    let read = Signed::read(signed().to_string().as_bytes()).unwrap();
    assert_eq!(read.clone().verify(&[log_key(ORIGIN)]).unwrap().head().size, 7);
    let refused = |keys: &[VerifierKey]| read.clone().verify(keys).unwrap_err();
    assert_eq!(refused(&[]), NoteError::Unsigned.into());
    let other = VerifierKey::new(name(ORIGIN), Algorithm::Ed25519, public_key(2));
    assert_eq!(refused(&[other]), NoteError::Unsigned.into());
    let as_witness = VerifierKey::new(name(ORIGIN), Algorithm::Cosignature, public_key(SEED));
    assert_eq!(refused(&[as_witness]), NoteError::Unsigned.into());
    // A log's key says nothing about another log.
    let elsewhere = signed().claims().to_string().replace(ORIGIN, "artel.example/other");
    let line = Line::sign(&name(ORIGIN), &signing_key(SEED), &elsewhere);
    let note = Note::new(elsewhere, vec![line]).unwrap();
    let elsewhere = Signed::read(note.to_string().as_bytes()).unwrap();
    assert_eq!(elsewhere.verify(&[log_key(ORIGIN)]).unwrap_err(), NoteError::Unsigned.into());
    let edited = signed().to_string().replace("\n7\n", "\n8\n");
    let edited = Signed::read(edited.as_bytes()).unwrap();
    assert_eq!(edited.verify(&[log_key(ORIGIN)]).unwrap_err(), NoteError::BadSignature(name(ORIGIN)).into());
}

#[test]
fn answers_of_witnesses_are_added() {
    let verified = signed().verify(&[log_key(ORIGIN)]).unwrap();
    let at = Timestamp::from_millis(1_700_000_000_000);
    let cosign =
        |seed| Line::cosign(witness_key(seed).name(), &signing_key(seed), verified.as_signed().note().text(), at);
    let answer = format!("{}{}", cosign(5), cosign(6));
    let known = [witness_key(5), witness_key(7)];
    let with = verified.with_answer(&answer, &known).unwrap();
    assert_eq!(with.cosigners(&known), Ok(vec![Seen { witness: witness_key(5), at }]));
    assert_eq!(with.as_signed().note().lines().len(), 2, "an unknown witness's line is left out");
    assert_eq!(with.bare(), verified);
    let false_one = Line::cosign(witness_key(5).name(), &signing_key(5), "another\n", at).to_string();
    assert_eq!(verified.with_answer(&false_one, &known), Err(NoteError::BadSignature(witness_key(5).name().clone())));
    for bad in ["", "\n", "409\n", &answer[..answer.len() - 1]] {
        assert!(matches!(verified.with_answer(bad, &known), Err(NoteError::Form(_))), "{bad:?}");
    }
}
