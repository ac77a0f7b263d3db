//! The program `artel`: the daemon and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    artel::cli::main()
}
