//! The hooks with the real apt and dnf: packages with proof are installed into a scratch root, others are not. A machine without one
//! of them skips its tests and says so; `ARTEL_TESTS=required` forbids that.

#![expect(clippy::unwrap_used, reason = "a test that cannot lay out its files has failed")]

mod apt;
mod dnf;
mod server;

use std::{
    path::Path,
    process::{Command, Output},
};

/// The program that the hooks run.
const PROGRAM: &str = env!("CARGO_BIN_EXE_artel-verify");

/// What a program said, and whether it did what it was asked for.
fn said(output: &Output) -> (bool, String) {
    let words = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}

/// Runs `artel-verify`, which must end well.
fn verifier(words: &[&str]) -> String {
    let (good, words) = said(&Command::new(PROGRAM).args(words).output().unwrap());
    assert!(good, "{words}");
    words
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        assert!(std::env::var("ARTEL_TESTS").as_deref() != Ok("required"), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    there
}

/// Gives a command that is root of a scratch folder: as it is for root, in a user namespace of its own for others.
fn as_root(program: &str) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    if status.lines().any(|line| line.starts_with("Uid:\t0\t0\t")) {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", program]);
    command
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}
