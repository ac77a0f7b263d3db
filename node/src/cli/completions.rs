//! `artel completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, exit};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

impl Completions {
    #[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
    pub(super) fn run(self) -> anyhow::Result<u8> {
        clap_complete::generate(self.shell, &mut Arguments::command(), "artel", &mut std::io::stdout());
        Ok(exit::DONE)
    }
}
