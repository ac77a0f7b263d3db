//! Packages as a hostile builder would make them: only well-formed ones come through the door.

use std::{fs, io::Write};

use super::*;
use crate::publish::testing::{ar, control, deb, gz, tar};

fn check(bytes: &[u8], name: &str) -> Result<Control, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deb");
    fs::write(&path, bytes).unwrap();
    inspect(&path, &FileName::new(name).unwrap(), &[Arch::Amd64])
}

fn refused(bytes: &[u8], why: &str) {
    let error = check(bytes, "tiny_1_amd64.deb").unwrap_err();
    let said = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(said.contains(why), "wanted {why:?}, got {said}");
}

fn with_control(member: &str, bytes: &[u8]) -> Vec<u8> {
    ar(&[("debian-binary", b"2.0\n"), (member, bytes), ("data.tar.xz", b"")])
}

#[test]
fn each_packing_is_read() {
    let text = control("tiny", "1:1-2", "amd64").replace("Maintainer", "Source: tine (2:3)\nMaintainer");
    let inner = tar("./control", text.as_bytes());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&inner).unwrap();
    let packed = [
        ("control.tar", inner.clone()),
        ("control.tar.gz", gz(&inner)),
        ("control.tar.xz", xz.finish().unwrap()),
        ("control.tar.zst", zstd::encode_all(&inner[..], 1).unwrap()),
    ];
    for (member, bytes) in packed {
        let control = check(&with_control(member, &bytes), "tiny_1-2_amd64.deb").unwrap();
        assert_eq!((control.name.as_str(), control.version.as_str()), ("tiny", "1:1-2"), "{member}");
        assert_eq!((control.source.as_str(), control.source_version.as_str()), ("tine", "2:3"));
        assert_eq!(control.text, text);
    }
}

#[test]
fn hostile_containers_are_refused() {
    let good = gz(&tar("./control", control("tiny", "1", "amd64").as_bytes()));
    refused(b"PK\x03\x04 not an archive at all, but long enough to be read", "does not begin as an ar");
    let mut claims = ar(&[("debian-binary", b"2.0\n"), ("//", b"x")]);
    claims.truncate(claims.len() - 2);
    let at = claims.len() - 12;
    claims[at..at + 10].copy_from_slice(b"9999999999");
    refused(&claims, "ends within");
    let mut claims = ar(&[("debian-binary", b"2.0\n")]);
    claims[56..66].copy_from_slice(b"-1        ");
    refused(&claims, "no number");
    refused(&ar(&[("debian-binary", b"3.0\n"), ("control.tar.gz", &good), ("data.tar.xz", b"")]), "not 2.0");
    refused(&ar(&[("control.tar.gz", &good), ("debian-binary", b"2.0\n"), ("data.tar.xz", b"")]), "first member");
    refused(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &good)]), "2 members");
    refused(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &good), ("evil", b"")]), "third member");
    let more = [("debian-binary", &b"2.0\n"[..]), ("control.tar.gz", &good), ("data.tar", b""), ("more", b"")];
    refused(&ar(&more), "further member");
    refused(&with_control("control.tar.lz", b""), "packed in a way");
    refused(&with_control("control.tar.gz", b"no gzip"), "control.tar");
    refused(&with_control("control.tar.gz", &gz(&tar("./other", b""))), "no file called control");
    let cut = deb(&control("tiny", "1", "amd64"), "a");
    refused(&cut[..cut.len() / 3], "ends within");
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let bomb = tar("./huge", &vec![0; 80 << 20]);
    refused(&with_control("control.tar.zst", &zstd::encode_all(&bomb[..], 1).unwrap()), "unpacks to more than");
    let fat = tar("./control", &vec![b'a'; 1 << 20]);
    refused(&with_control("control.tar.gz", &gz(&fat)), "at most");
}

#[test]
fn hostile_control_files_are_refused() {
    let base = control("tiny", "1", "amd64");
    let with = |text: &str| deb(text, "a");
    refused(&with(&format!("{base}\nPackage: second\nVersion: 1\n")), "does not belong");
    refused(&with(&format!("{base}Filename: pool/other.deb\n")), "belongs to the index");
    refused(&with(&format!("{base}version: 2\n")), "twice");
    refused(&with(&base.replace("Version: 1\n", "")), "Version is missing");
    refused(&with(&base.replace("Version: 1\n", "Version: ../1\n")), "version");
    refused(&with(&base.replace("tiny", "../tiny")), "package");
    refused(&with(&base.replace("a test", "a\rtest")), "control characters");
    refused(&with(&base.replace("amd64", "vax")), "unknown architecture");
    refused(&with(&format!("Essential: yes\n{base}")), "begin with");
    refused(&with(&control("tiny", "2", "amd64")), "should be called tiny_2_amd64.deb");
    assert!(matches!(check(&with(&control("t1", "1", "arm64")), "t1_1_arm64.deb"), Err(Error::Arch { .. })));
}

/// Every byte of the container and of the packed control file, changed three ways: refused or read, never a panic.
#[test]
fn no_changed_byte_brings_the_door_down() {
    let good = deb(&control("tiny", "1", "amd64"), "a");
    let dir = tempfile::tempdir().unwrap();
    let (path, name) = (dir.path().join("deb"), FileName::new("tiny_1_amd64.deb").unwrap());
    let mut refused = 0;
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            fs::write(&path, bytes).unwrap();
            if let Ok(control) = inspect(&path, &name, &[Arch::Amd64]) {
                assert_eq!(control.name.as_str(), "tiny");
            } else {
                refused += 1;
            }
        }
    }
    assert!(refused > 300, "{refused} of {}", 3 * good.len());
}
