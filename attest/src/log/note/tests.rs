//! The published examples, and what is no note.

use protocol::testing::{public_key, signing_key};

use super::*;

const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n— example.com/foo \
     Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn key(text: &str, seed: u8, algorithm: Algorithm) -> VerifierKey {
    VerifierKey::new(name(text), algorithm, public_key(seed))
}

fn read(text: &str) -> Result<Note, NoteError> {
    Note::read(text.as_bytes())
}

#[test]
fn the_published_example() {
    let known: [VerifierKey; 1] = [VKEY.parse().unwrap()];
    assert_eq!(known[0].to_string(), VKEY);
    let note = read(NOTE).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.to_string(), NOTE);
    assert_eq!(note.signers(&known), Ok(vec![(&known[0], None)]));
    let changed = read(&NOTE.replacen("example", "excellent", 1)).unwrap();
    assert_eq!(changed.signers(&known), Err(NoteError::BadSignature(name("example.com/foo"))));
}

#[test]
fn several_sign_one_text() {
    let text = "a\n\nb\n";
    let log = Line::sign(&name("log"), &signing_key(1), text);
    let at = Timestamp::from_millis(1_679_315_147_999);
    let seen = Line::cosign(&name("w1"), &signing_key(2), text, at);
    let later = Line::cosign(&name("w1"), &signing_key(2), text, at.after(std::time::Duration::from_secs(9)));
    let note = Note::new(text.into(), vec![log, later, seen.clone()]).unwrap();
    let note = Note::read(note.to_string().as_bytes()).unwrap();
    assert_eq!(note.text(), text, "a text may have empty lines");
    let known = [key("log", 1, Algorithm::Ed25519), key("w1", 2, Algorithm::Cosignature)];
    let second = |second: u64| Some(Timestamp::from_millis(second * 1000));
    assert_eq!(
        note.signers(&known),
        Ok(vec![(&known[0], None), (&known[1], second(1_679_315_156))]),
        "a key counts once, with its newest time"
    );
    // The same key under another name, or for another kind of signature, is another signer.
    let others =
        [key("log", 2, Algorithm::Ed25519), key("w1", 2, Algorithm::Ed25519), key("w2", 2, Algorithm::Cosignature)];
    assert_eq!(note.signers(&others), Ok(vec![]));
    assert_eq!(note.with([seen]).unwrap(), note);
}

/// The format says: a known key whose signature fails spoils the note; an unknown key spoils nothing.
#[test]
fn a_known_key_must_verify() {
    let text = "text\n";
    let good = Line::sign(&name("log"), &signing_key(1), text);
    let bad = Line { signature: vec![0; 64], ..good.clone() };
    let stranger = Line::sign(&name("stranger"), &signing_key(3), "another text\n");
    let unknown_type = Line { id: [1, 2, 3, 4], signature: vec![7; 2420], ..good.clone() };
    let known = [key("log", 1, Algorithm::Ed25519)];
    let note = Note::new(text.into(), vec![stranger, unknown_type, good.clone()]).unwrap();
    assert_eq!(note.signers(&known), Ok(vec![(&known[0], None)]));
    let note = Note::new(text.into(), vec![good, bad]).unwrap();
    assert_eq!(note.signers(&known), Err(NoteError::BadSignature(name("log"))));
}

#[test]
fn a_cosignature_binds_time_and_text() {
    let at = Timestamp::from_millis(1_700_000_000_000);
    let line = Line::cosign(&name("w"), &signing_key(2), "text\n", at);
    let known = [key("w", 2, Algorithm::Cosignature)];
    let signed = |text: &str, line: &Line| Note::new(text.into(), vec![line.clone()]).unwrap().signers(&known).is_ok();
    assert!(signed("text\n", &line));
    assert!(!signed("text.\n", &line));
    for byte in 0..72 {
        let mut changed = line.clone();
        changed.signature[byte] ^= 1;
        assert!(!signed("text\n", &changed), "byte {byte}");
    }
    for length in [1, 8, 64, 71] {
        let shorter = Line { signature: line.signature[..length].to_vec(), ..line.clone() };
        assert!(!signed("text\n", &shorter), "{length} bytes");
    }
    // A time beyond 2^63 - 1, properly signed.
    let seconds = SECOND_MAX + 1;
    let signature = signing_key(2).sign(&cosigned_message("text\n", seconds)).to_bytes();
    let signature = [&seconds.to_be_bytes(), &signature[..]].concat();
    assert!(!signed("text\n", &Line { signature, ..line }));
}

#[test]
fn what_is_no_note() {
    let (text, line) = NOTE.split_at(NOTE.find("\n\n").unwrap() + 2);
    let form = |note: String| assert!(matches!(read(&note), Err(NoteError::Form(_) | NoteError::Name(_))), "{note:?}");
    form(String::new());
    form("\n".into());
    form("text\n".into());
    form(text.into());
    form(line.into());
    form(format!("{text}{}", line.trim_end()));
    form(format!("{text}{line}\n"));
    form(format!("{text}{line}more\n"));
    form(format!("{text}\r{line}"));
    form(format!("\u{0}{NOTE}"));
    form(format!("{text}{}", line.replace('—', "-")));
    form(format!("{text}{}", line.replace("foo ", "foo  ")));
    form(format!("{text}{}", line.replace("foo ", "f+o ")));
    form(format!("{text}{}", line.replace("foo ", "f\u{a0}o ")));
    form(format!("{text}{}", line.replace("example.com/foo ", "")));
    form(format!("{text}{}", line.replace("aQM=", "aQN=")));
    form(format!("{text}{}", line.replace("aQM=", "aQM")));
    form(format!("{text}{DASH}name AAAAAA==\n"));
    form(format!("{text}{}", line.repeat(LINES_MAX + 1)));
    assert!(read(&format!("{text}{}", line.repeat(LINES_MAX))).is_ok());
    assert!(matches!(Note::read(b"\xff\n\n"), Err(NoteError::Form(_))));
    assert_eq!(Note::read(&vec![b'a'; NOTE_MAX + 1]), Err(NoteError::TooLarge { got: NOTE_MAX + 1 }));
    assert!(Note::new("no newline".into(), vec![]).is_err());
}

#[test]
fn what_is_no_key() {
    for (from, to) in [
        ("530d903a", "530D903A"),
        ("530d903a", "530d903b"),
        ("foo", "fop"),
        ("foo", "f oo"),
        ("+530d903a", ""),
        ("AekyeRr", "BukyeRr"),
        ("U2k", "U2k="),
        ("U2k", ""),
        ("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", ""),
        ("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "AQ=="),
    ] {
        let changed = VKEY.replacen(from, to, 1);
        assert!(changed.parse::<VerifierKey>().is_err(), "{changed}");
    }
    let witness = key("witness.example/w1", 9, Algorithm::Cosignature);
    assert_eq!(witness.to_string().parse(), Ok(witness));
}
