//! The command line: one noun, one verb, one file each.
//!
//! Standard output carries data (tables for people, `--json` for programs), standard error carries talk. Exit codes are
//! few and documented in [`exit`]. Here, and only here, errors are `anyhow`: they are printed once, with a hint.

mod attest;
mod completions;
mod coordinator;
mod demo;
mod env;
mod init;
mod job;
mod keys;
mod log;
mod mirror;
mod node;
mod output;
mod peer;
mod policy;
mod recipe;
mod repo;
mod status;
mod verify;

pub mod exit;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use demo::Demo;
pub(crate) use job::{Until, watch};

use crate::config::Home;

/// A peer-to-peer build network: what k independent operators built bit for bit the same is published.
#[derive(Debug, Parser)]
#[command(name = "artel", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Arguments {
    /// The node's folder [default: $ARTEL_HOME, else ~/.local/state/artel, for root /var/lib/artel]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print data as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a network, or a node that joins one
    Init(init::Init),
    /// Run the daemon, or ask who and where it is
    #[command(subcommand)]
    Node(node::Node),
    /// Say what this node is doing
    Status,
    /// Make and list keys of people (roots, maintainers)
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Show, sign and publish the network's policy
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Lock the environment of a build, or show one
    #[command(subcommand)]
    Env(env::Env),
    /// Submit and watch jobs
    #[command(subcommand)]
    Job(job::Job),
    /// Follow version control and releases: keep recipes and run them
    #[command(subcommand)]
    Recipe(recipe::Recipe),
    /// Show and check evidence
    #[command(subcommand)]
    Attest(attest::Attest),
    /// Prove files, packages or whole repositories by what is stapled to them, offline
    Verify(verify::Words),
    /// Have apt refuse packages without proof: install, uninstall
    AptHook(verify::Words),
    /// Have dnf refuse packages without proof: install, uninstall
    DnfHook(verify::Words),
    /// Read and check the network's transparency log
    #[command(subcommand)]
    Log(log::Log),
    /// Follow repositories and serve them
    #[command(subcommand)]
    Mirror(mirror::Mirror),
    /// Show who coordinates, and hand the role on
    #[command(subcommand)]
    Coordinator(coordinator::Coordinator),
    /// List the nodes that this one knows, and show what a builder has shown
    #[command(subcommand)]
    Peer(peer::Peer),
    /// List and explain repositories
    #[command(subcommand)]
    Repo(repo::Repo),
    /// Show the whole line on this machine, with a real package
    Demo(Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// What every command gets.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) format: output::Format,
}

/// Parses the command line, runs it and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
            // A closed terminal is no reason to panic.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("error: {}", told(&error));
            if let Some(hint) = exit::hint_of(&error) {
                anstream::eprintln!("hint: {}", output::printable(&hint));
            }
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// Gives an error with its causes; what a peer put into them is safe for a terminal.
fn told(error: &anyhow::Error) -> String {
    output::printable(&format!("{error:#}"))
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let format = if arguments.json { output::Format::Json } else { output::Format::People };
    let context = Context { home: Home::find(arguments.home)?, format };
    match arguments.command {
        Command::Completions(command) => command.run(),
        Command::Keys(command) => command.run(&context),
        Command::Node(node::Node::Run(command)) => command.run(&context),
        Command::Verify(words) => Ok(words.run(&context, "verify")),
        Command::AptHook(words) => Ok(words.run(&context, "apt-hook")),
        Command::DnfHook(words) => Ok(words.run(&context, "dnf-hook")),
        Command::Demo(command) => {
            // It hears of Ctrl-C itself, to clear up; what apt does for it meanwhile is not waited for.
            let runtime = runtime()?;
            let code = runtime.block_on(command.run(&context));
            runtime.shutdown_background();
            code
        }
        Command::Init(command) => block(command.run(&context)),
        Command::Node(command) => block(command.run(&context)),
        Command::Status => block(status::run(&context)),
        Command::Policy(command) => block(command.run(&context)),
        Command::Env(command) => block(command.run(&context)),
        Command::Job(command) => block(command.run(&context)),
        Command::Recipe(command) => block(command.run(&context)),
        Command::Attest(command) => block(command.run(&context)),
        Command::Log(command) => block(command.run(&context)),
        Command::Mirror(command) => block(command.run(&context)),
        Command::Coordinator(command) => block(command.run(&context)),
        Command::Peer(command) => block(command.run(&context)),
        Command::Repo(command) => block(command.run(&context)),
    }
}

fn block(future: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    runtime()?.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
            result = future => result,
        }
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

impl Context {
    /// Gives the way to the running daemon: its control socket.
    pub(crate) fn client(&self) -> web::Client {
        web::Client::at_socket(self.home.socket())
    }

    /// Opens a person's key, named as on the command line.
    pub(crate) fn signer(&self, word: &crate::keys::Word) -> Result<crate::keys::Signer, crate::keys::Error> {
        crate::keys::Signer::open(&word.path(&self.home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_peer_does_not_drive_the_terminal() {
        let error = anyhow::anyhow!("job \u{1b}]0;owned\u{7} is gone\r").context("refused");
        assert_eq!(told(&error), "refused: job \u{fffd}]0;owned\u{fffd} is gone\u{fffd}");
    }
}
