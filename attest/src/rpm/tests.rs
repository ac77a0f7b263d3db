//! RPM files as rpmbuild writes them, signed ones, and hostile ones.

use proptest::prelude::*;

use super::*;

/// What rpmbuild 4.18 made of `fixtures/rpm/artel-answer.spec`.
const UNSIGNED: &[u8] = include_bytes!("../../../fixtures/rpm/unsigned.rpm");

fn signed(signature: &[u8]) -> Vec<u8> {
    let Unsigned { bytes, instead_of } = sign(UNSIGNED, signature).unwrap();
    [&bytes, &UNSIGNED[instead_of..]].concat()
}

#[test]
fn the_header_says_what_the_package_is() {
    let front = front(UNSIGNED).unwrap();
    assert_eq!(front.header.text(1000), Some("Artel-answer-doc"));
    assert_eq!((front.header.text(1001), front.header.text(1002)), (Some("1.2^git3"), Some("1")));
    assert_eq!(front.header.texts(1117).unwrap(), ["Artel-answer", "answer.c"]);
    assert_eq!(front.header.number(1006), Some(1_795_176_000), "noon of the newest changelog entry");
    assert_eq!(front.header.text(1007), Some("artel.invalid"));
    assert!(front.unpacked.is_some_and(|size| size > 96), "cpio around 96 bytes of files");
    assert!(front.header.has(63) && !front.header.has(1106));
    assert_eq!(UNSIGNED[front.end..][..4], [0x28, 0xb5, 0x2f, 0xfd], "the payload is zstd");
}

#[test]
fn a_signed_file_gives_the_attested_one_back() {
    for length in [1, 2, 71, 120, 121, 122, 123, 124, 125, 126, 127, 4096] {
        let signed = signed(&vec![7; length]);
        assert_ne!(Sha256::of(&signed), Sha256::of(UNSIGNED));
        assert_eq!(attested(&signed), Sha256::of(UNSIGNED), "a signature of {length} bytes");
        let read = front(&signed).unwrap();
        assert_eq!(signed[read.begin..], UNSIGNED[front(UNSIGNED).unwrap().begin..], "header and payload stay");
    }
    assert_eq!(attested(UNSIGNED), Sha256::of(UNSIGNED));
    assert_eq!(attested(b"no RPM"), Sha256::of(b"no RPM"));
}

#[test]
fn one_signature_of_the_header_is_given_and_no_other() {
    assert_eq!(signature(&signed(b"the signature")).unwrap(), b"the signature");
    assert!(signature(UNSIGNED).unwrap_err().to_string().contains("not signed"));
    let mut other = signed(b"x");
    // The tag of a signature by an RSA key: 268 in place of 267.
    let at = other.windows(8).position(|bytes| bytes == [0, 0, 1, 11, 0, 0, 0, 7]).unwrap();
    other[at + 3] = 12;
    assert!(signature(&other).unwrap_err().to_string().contains("other signatures"));
}

#[test]
fn what_is_signed_is_not_signed_again() {
    let error = sign(&signed(b"x"), b"y").unwrap_err();
    assert!(error.to_string().contains("signed already"), "{error}");
}

#[test]
fn sizes_are_told_step_by_step() {
    let (mut have, mut steps) = (0, 0);
    while front_size(&UNSIGNED[..have]).unwrap() > have {
        have = front_size(&UNSIGNED[..have]).unwrap();
        steps += 1;
    }
    assert_eq!((have, steps), (front(UNSIGNED).unwrap().end, 4));
    assert!(front(&UNSIGNED[..have - 1]).is_err());
    assert!(front_size(&[0; 200]).is_err());
}

#[test]
fn a_signature_header_of_another_form_is_refused() {
    let size = signature_size(UNSIGNED).unwrap();
    // The padding, the trailer of the region, the order of the entries.
    for at in [size - 1, size - 8, LEAD + INTRO + 3, LEAD + INTRO + ENTRY + 3] {
        let mut changed = UNSIGNED.to_vec();
        changed[at] ^= 0x40;
        assert!(unsigned(&changed).is_err(), "changed at {at}");
    }
    let mut many = UNSIGNED.to_vec();
    many[LEAD + 8] = 1;
    assert!(unsigned(&many).unwrap_err().to_string().contains("entries"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant: hostile headers never panic, and what is taken for unsigned writes itself again.
    #[test]
    fn garbage_never_panics(changes in prop::collection::vec((0..9000usize, any::<u8>()), 1..8), cut in 0..9000usize) {
        let mut bytes = UNSIGNED.to_vec();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut.max(1));
        if let Ok(front) = front(&bytes) {
            for tag in [1000, 1047, 1118, 1117] {
                let _ = (front.header.texts(tag), front.header.numbers(tag));
            }
        }
        if let Ok(plain) = unsigned(&bytes) {
            prop_assert_eq!(unsigned(&plain.bytes).unwrap().bytes, plain.bytes);
        }
    }
}
