//! Key files of ours, and keys of OpenSSH, made and judged by its own program.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use protocol::{
    NetworkId,
    envelope::EnvelopeError,
    testing::{samples, signing_key},
};

use super::*;

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/ssh").join(name)
}

/// Runs `ssh-keygen` without a terminal.
fn keygen(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("ssh-keygen");
    command.current_dir(folder).args(arguments).env_remove("SSH_AUTH_SOCK");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssh-client is installed, .ci/setup says so");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn make(folder: &Path, name: &str, kind: &str) -> PathBuf {
    let made = keygen(folder, &["-q", "-t", kind, "-N", "", "-C", "alice", "-f", name], b"");
    assert!(made.status.success(), "{made:?}");
    folder.join(name)
}

#[test]
fn a_key_is_made_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = create(&path).unwrap();
    assert_eq!(load(&path).unwrap().to_bytes(), key.to_bytes());
    assert!(matches!(create(&path), Err(Error::Write { .. })), "never overwritten");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    assert!(load(&path).unwrap_err().to_string().contains("artel init"));
    create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "hello\n").unwrap();
    assert!(matches!(load(&path), Err(Error::Form { .. })));
}

#[test]
fn a_record_signed_by_ssh_verifies_and_its_judge_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let path = make(dir.path(), "id", "ed25519");
    // The `.pub` file names the same key; without an agent the secret half beside it signs.
    for path in [path.clone(), path.with_extension("pub")] {
        let signer = Signer::open(&path).unwrap();
        let request = samples::deb_request(NETWORK);
        let verified = sign(&request, Some(&NETWORK), &[&signer, &signing_key(1)]).unwrap();
        let verified = verified.verify(Some(&NETWORK)).unwrap();
        assert_eq!(verified.signers(), [signer.public(), public(&signing_key(1))].into());

        let blob = verified.signatures().iter().find(|s| s.key == signer.public()).unwrap();
        let armor = protocol::ssh::Signature::read(&blob.sig).unwrap().to_armor();
        fs::write(dir.path().join("sig"), armor).unwrap();
        let Signer::Ssh(key) = &signer else { panic!("a key of OpenSSH") };
        fs::write(dir.path().join("allowed"), format!("alice {}\n", key.ssh().to_line())).unwrap();
        let judge = |namespace: &str, message: &[u8]| {
            let arguments = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", namespace, "-s", "sig"];
            keygen(dir.path(), &arguments, message).status.code()
        };
        let message = verified.message();
        assert_eq!(judge("job@artel", &message), Some(0));
        assert_eq!(judge("policy@artel", &message), Some(255));
        assert_eq!(judge("job@artel", &message[1..]), Some(255));
    }
}

#[test]
fn a_signature_for_one_kind_of_record_is_none_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::open(&make(dir.path(), "id", "ed25519")).unwrap();
    let (request, network) = (samples::deb_request(NETWORK), Some(&NETWORK));
    let unsigned = protocol::envelope::Unsigned::new(&request, network);
    let sig = signer.sign("order", &unsigned.message()).unwrap();
    let signature = protocol::envelope::Signature { key: signer.public(), sig };
    let error = unsigned.with(vec![signature]).verify(network).unwrap_err();
    let EnvelopeError::Ssh { why, .. } = &error else { panic!("{error}") };
    assert!(matches!(**why, protocol::ssh::Error::Namespace { .. }), "{error}");
}

#[test]
fn the_judge_agrees_about_a_security_key() {
    let dir = tempfile::tempdir().unwrap();
    let line = fs::read_to_string(fixture("device.pub")).unwrap();
    fs::write(dir.path().join("allowed"), format!("alice {line}")).unwrap();
    fs::copy(fixture("device.sig"), dir.path().join("sig")).unwrap();
    let message = fs::read(fixture("request.message")).unwrap();
    let judge = |namespace: &str| {
        let arguments = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", namespace, "-s", "sig"];
        keygen(dir.path(), &arguments, &message).status.code()
    };
    assert_eq!((judge("job@artel"), judge("order@artel")), (Some(0), Some(255)));
}

#[test]
fn a_key_that_cannot_sign_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for kind in ["rsa", "ecdsa"] {
        let path = make(dir.path(), kind, kind);
        for path in [path.clone(), path.with_extension("pub")] {
            let error = anyhow::Error::from(Signer::open(&path).unwrap_err());
            let words = format!("{error:#}");
            assert!(words.contains("cannot sign here; use one of type ssh-ed25519"), "{words}");
        }
    }
    // Older files of secret keys say nothing that can be read without a passphrase, and are of no type that fits.
    let old = make(dir.path(), "old", "rsa");
    let converted = keygen(dir.path(), &["-q", "-p", "-m", "PEM", "-N", "", "-f", "old"], b"");
    assert!(converted.status.success(), "{converted:?}");
    assert!(matches!(Signer::open(&old), Err(Error::Form { .. })));
    // Its secret half is nowhere.
    let signer = Signer::open(&fixture("ed25519.pub")).unwrap();
    let error = sign(&samples::deb_request(NETWORK), Some(&NETWORK), &[&signer]).unwrap_err();
    assert!(error.to_string().contains("`ssh-add FILE` adds one"), "{error}");
}

#[test]
fn a_named_key_is_ours_or_a_link_to_one_of_ssh() {
    let dir = tempfile::tempdir().unwrap();
    let home = crate::config::Home::find(Some(dir.path().to_owned())).unwrap();
    fs::create_dir(dir.path().join("keys")).unwrap();
    let word: Word = "alice".parse().unwrap();
    assert_eq!(word.path(&home), dir.path().join("keys/alice.key"));
    let file: Word = "./id.pub".parse().unwrap();
    assert_eq!(file, Word::File("./id.pub".into()));
    let other = fixture("encrypted");
    for (file, same) in [(fixture("ed25519.pub"), true), (fixture("ed25519.pub"), true), (other, false)] {
        assert_eq!(link(&file, &word.path(&home)).is_ok(), same, "a name is given once");
    }
    let signer = Signer::open(&word.path(&home)).unwrap();
    assert_eq!(signer.public(), Signer::open(&fixture("ed25519.pub")).unwrap().public());
    let own = create(&home.key("bob")).unwrap();
    assert_eq!(Signer::open(&home.key("bob")).unwrap().public(), public(&own));
    fs::set_permissions(home.key("bob"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Signer::open(&home.key("bob")), Err(Error::Mode { .. })));
}
