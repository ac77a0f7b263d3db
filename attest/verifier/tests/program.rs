//! The program `artel-verify` as scripts meet it: exit codes, words, JSON.

#![expect(clippy::unwrap_used, reason = "a test that cannot lay out its files has failed")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use attest::{
    bundle::Bundle,
    testing::{DEB, bundle},
};
use protocol::{NetworkId, Timestamp, policy::Policy, testing::samples};
use serde_json::Value;
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    network: NetworkId,
}

impl Bench {
    /// Lays a bundle and an honest file out. The policy never ends, since the program reads the real time.
    fn new(contents: &[&str], change: impl FnOnce(&mut Bundle)) -> Self {
        let policy = Policy { expires: Timestamp::from_millis(u64::MAX), ..samples::genesis(3) };
        let (mut bundle, network) = bundle(&policy, contents);
        change(&mut bundle);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bundle"), bundle.to_bytes()).unwrap();
        fs::write(folder.path().join(DEB), contents.first().unwrap_or(&"")).unwrap();
        Self { folder, network }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the program on the bundle and the named files.
    fn run(&self, options: &[&str], files: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_artel-verify"));
        command.args(["--network", &self.network.to_string()]).args(options).arg(self.path("bundle"));
        command.args(files.iter().map(|file| self.path(file))).output().unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_proven_file() {
    let bench = Bench::new(&["x", "x", "lie"], |_| ());
    let output = bench.run(&[], &[DEB]);
    assert_eq!(code(&output), 0, "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2 operators agree, 2 needed by channel stable"), "{text}");
    assert!(text.contains("op-c") && text.contains("signed something else"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("ok "), "{text}");
    assert!(text.contains("note: a bundle has no proof from the log"), "{text}");
    // What cannot be asked of a bundle is not passed over.
    for demand in [["--log", "2"], ["--agree", "3"], ["--channel", "weak"], ["--max-age", "30d"], ["--policy", "p"]] {
        let output = bench.run(&demand, &[DEB]);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(code(&output) == 2 && said.contains(&format!("{} asks for what", demand[0])), "{said}");
    }
}

#[test]
fn json_for_programs() {
    let bench = Bench::new(&["x", "x", "lie"], |_| ());
    let proven: Value = serde_json::from_slice(&bench.run(&["--json"], &[DEB]).stdout).unwrap();
    assert_eq!(proven["proven"], true);
    assert_eq!(proven["agree"], serde_json::json!(["op-a", "op-b"]));
    assert_eq!(proven["outputs"][0]["name"], DEB);
    fs::write(bench.path(DEB), "tampered").unwrap();
    let output = bench.run(&["--json"], &[DEB]);
    let refused: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &refused["proven"], &refused["exit"]), (12, &Value::Bool(false), &Value::from(12)));
}

#[test]
fn exit_codes() {
    let exit = |contents: &[&str], change: fn(&mut Bundle)| code(&Bench::new(contents, change).run(&[], &[]));
    assert_eq!(exit(&["x", "x"], |_| ()), 0);
    assert_eq!(exit(&[], |_| ()), 10);
    assert_eq!(exit(&["x"], |_| ()), 11);
    assert_eq!(exit(&["x", "y"], |_| ()), 12);
    assert_eq!(exit(&["x", "x"], |b| b.attestations[0].0[100] ^= 1), 13);
    assert_eq!(exit(&["x", "x"], |b| b.lock.0.clear()), 1);
    let bench = Bench::new(&["x", "x"], |_| ());
    assert_eq!(code(&bench.run(&[], &["missing.deb"])), 1);
    fs::write(bench.path("other.deb"), "x").unwrap();
    assert_eq!(code(&bench.run(&[], &["other.deb"])), 10, "the job made no file of this name");
}

#[test]
fn usage() {
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_artel-verify")).args(arguments).output().unwrap();
    assert_eq!(code(&run(&["--help"])), 0);
    assert_eq!(code(&run(&[])), 2);
    assert_eq!(code(&run(&["--network", "abc", "bundle"])), 2);
    assert_eq!(code(&run(&["--network"])), 2);
    assert_eq!(code(&run(&["--frobnicate", "bundle"])), 2);
    for wrong in [["--log", "maybe"], ["--max-age", "5"], ["--agree", "0"], ["--channel", ".."], ["--policy", "p"]] {
        assert_eq!(code(&run(&wrong)), 2, "{wrong:?}");
    }
    let words = String::from_utf8(run(&[]).stderr).unwrap();
    assert!(words.contains("name a FILE") && words.contains("usage:"), "{words}");
}
