//! The repository's signatures, checked with the verifiers that apt uses, where they are installed.

use std::{fs, process::Command};

use super::{keyring::Keyring, *};

const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn key() -> RepositoryKey {
    RepositoryKey::from_seed("artel test repository", AT, [7; 32]).unwrap()
}

/// Runs a verifier, or says why not.
fn verifies(program: &str, arguments: &[&str]) -> Option<bool> {
    match Command::new(program).args(arguments).output() {
        Ok(out) => Some(out.status.success()),
        Err(_) => {
            eprintln!("skipped: {program} is not installed");
            None
        }
    }
}

#[test]
fn a_key_and_its_signatures_are_deterministic_and_come_back_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.asc");
    let key = key();
    key.save(&path).unwrap();
    assert!(matches!(key.save(&path), Err(Error::File { .. })), "an existing key is never overwritten");
    let again = RepositoryKey::load(&path).unwrap();
    assert_eq!(again.fingerprint(), key.fingerprint());
    assert_eq!(again.sign_clear("a\n", AT).unwrap(), key.sign_clear("a\n", AT).unwrap());
    assert_eq!(again.public_binary().unwrap(), self::key().public_binary().unwrap());
    assert_ne!(RepositoryKey::generate("x", AT).unwrap().fingerprint(), key.fingerprint());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(RepositoryKey::load(&path), Err(Error::Exposed { mode: 0o640, .. })));
    fs::write(&path, "no key").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(RepositoryKey::load(&path), Err(Error::NotOurs { .. })));
}

#[test]
fn gpgv_and_sqv_accept_what_we_sign_and_refuse_what_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let text = "Origin: artel\nDescription: - dashes\n- at the start\nSHA256:\n abc 1 main/x\n";
    fs::write(at("key.gpg"), key().public_binary().unwrap()).unwrap();
    fs::write(at("key.asc"), Keyring::new([key().certificate().unwrap()]).armored().unwrap()).unwrap();
    fs::write(at("Release"), text).unwrap();
    fs::write(at("Other"), text.replace("artel", "other")).unwrap();
    fs::write(at("Release.gpg"), key().sign_detached(text.as_bytes(), AT).unwrap()).unwrap();
    let clear = key().sign_clear(text, AT).unwrap();
    fs::write(at("InRelease"), &clear).unwrap();
    fs::write(at("Changed"), clear.replace("Origin: artel", "Origin: other")).unwrap();
    let gpgv = |files: &[&str]| verifies("gpgv", &[&["--keyring", at("key.gpg").as_str()], files].concat());
    assert_ne!(gpgv(&[&at("InRelease")]), Some(false));
    assert_ne!(gpgv(&[&at("Release.gpg"), &at("Release")]), Some(false));
    assert_ne!(gpgv(&[&at("Changed")]), Some(true));
    assert_ne!(gpgv(&[&at("Release.gpg"), &at("Other")]), Some(true));
    let sqv = |file: &str| verifies("sqv", &["--keyring", &at("key.asc"), &at("Release.gpg"), &at(file)]);
    assert_ne!(sqv("Release"), Some(false));
    assert_ne!(sqv("Other"), Some(true));
}
