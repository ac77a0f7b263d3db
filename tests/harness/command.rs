//! Runs a program to its end and keeps what it said.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

/// How long a command may take.
const WITHIN: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub talk: String,
}

/// Runs a program with a home folder of artel in its environment and nothing on its input.
///
/// # Panics
/// When it cannot be started or does not end within a minute.
pub async fn run(program: &Path, home: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(arguments).env("ARTEL_HOME", home).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} did not end within {WITHIN:?}"));
    let output = output.unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), talk: text(&output.stderr) }
}
