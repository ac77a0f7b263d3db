//! Builds: one attempt of one job in one sandbox, from checked inputs to hashed outputs.
//!
//! ```text
//! Task -> inputs (checked copies) -> environment (from the lock, cached) -> sandbox (the build) -> outputs (copied, hashed) -> Built
//! ```
//! Every failure says who is at fault ([`Error::blame`]). Nothing of an attempt outlives it: processes, mounts and
//! folders go when [`Workshop::attempt`] returns or is dropped, and what a crash left goes in [`Workshop::sweep`].
//!
//! This module does not fetch, does not sign, and does not decide which job comes next.

mod command;
mod complaint;
mod deb;
mod environment;
pub mod explain;
mod fetch;
mod image;
mod info;
mod inputs;
mod lint;
pub mod listed;
pub mod log;
mod phases;
mod rpm;
mod sandbox;
pub mod slots;
pub mod vary;
mod verdict;
mod workshop;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use protocol::{
    JobId, Timestamp,
    blame::{Blame, Failure, Fault},
    environment::EnvironmentLock,
    job::JobRequest,
    lease::Lease,
};

pub use environment::EnvironmentError;
pub use inputs::InputError;
pub use log::{LogError, LogReader, LogSink, Phase, Progress};
pub use sandbox::{
    SandboxError,
    outputs::{OutputError, OutputFile},
    rig::{Account, Rig, RigConfig, RigError},
};
pub use slots::{Slot, Slots};
pub use workshop::{Config, Workshop, WorkshopError};

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Task {
    /// The job.
    pub job: JobId,
    /// What to build.
    pub request: JobRequest,
    /// The right to build it, with the profile.
    pub lease: Lease,
    /// The environment; its id must be the request's.
    pub lock: EnvironmentLock,
    /// A folder with the source or input files by the names that the request gives them. Each is checked again.
    pub inputs: PathBuf,
    /// A folder with the lock's packages by file name, needed when the environment is not here yet. Each is checked.
    pub packages: PathBuf,
}

/// What an attempt gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What is compared and published, sorted by name.
    pub outputs: Vec<OutputFile>,
    /// What only informs: `.buildinfo` and `.changes`.
    pub byproducts: Vec<OutputFile>,
    /// The folder that holds both; [`Workshop::discard`] removes it.
    pub folder: PathBuf,
    /// When the sandbox was started.
    pub started: Timestamp,
    /// When the outputs were hashed.
    pub finished: Timestamp,
    /// CPU time, where it is known.
    pub cpu: Option<Duration>,
    /// The most memory at one time, page cache included, in bytes, where it is known.
    pub memory_peak: Option<u64>,
    /// How long the environment took: a cold one is installed, a cached one is found.
    pub environment_took: Duration,
    /// What differed, or may have, between this attempt and another: profile, kernel, CPU, date and the like.
    pub node_info: BTreeMap<String, String>,
}

/// Why an attempt gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task contradicts itself.
    #[error("the task is not acceptable: {what}")]
    Task {
        /// What does not fit.
        what: String,
        /// Who is at fault.
        blame: Blame,
    },
    /// An input is not what the request names, or is not there.
    #[error("input of the build")]
    Input(#[source] InputError),
    /// There is no environment.
    #[error("environment of the build")]
    Environment(#[source] EnvironmentError),
    /// The sandbox did not run.
    #[error("sandbox")]
    Sandbox(#[source] SandboxError),
    /// The build ended without success, or was ended.
    #[error("{0}")]
    Ended(Failure),
    /// An output was not taken.
    #[error("output of the build")]
    Output(#[source] OutputError),
    /// The disk of this node does not do its part.
    #[error("cannot use the attempt's folder {folder}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Says who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Error::Task { blame, .. } => *blame,
            Error::Input(error) | Error::Environment(EnvironmentError::Package(error)) => input_blame(error),
            Error::Environment(EnvironmentError::Cancelled) => Blame::Cancelled,
            Error::Environment(EnvironmentError::Disk { source, .. }) => system(source, Fault::Sandbox),
            Error::Environment(EnvironmentError::Install { failure, .. }) => failure.blame,
            // Whoever names the packages of an environment answers for what they make.
            Error::Environment(EnvironmentError::Refused { .. }) => Blame::Job,
            Error::Environment(EnvironmentError::Seal { said }) => Blame::Builder(said_fault(said)),
            Error::Environment(EnvironmentError::Slow | EnvironmentError::Tool { .. }) => {
                Blame::Builder(Fault::Sandbox)
            }
            Error::Sandbox(error) | Error::Environment(EnvironmentError::Sandbox(error)) => sandbox_blame(error),
            Error::Folder { source, .. } | Error::Output(OutputError::Copy { source, .. }) => {
                system(source, Fault::Other)
            }
            Error::Ended(failure) => failure.blame,
            Error::Output(
                OutputError::Missing { .. }
                | OutputError::Link { .. }
                | OutputError::Kind { .. }
                | OutputError::HardLink { .. }
                | OutputError::TooLarge { .. }
                | OutputError::Name { .. }
                | OutputError::List { .. }
                | OutputError::Listed { .. },
            ) => Blame::Job,
        }
    }

    /// Names the step that failed.
    pub fn step(&self) -> &str {
        match self {
            Error::Task { .. } => "task",
            Error::Input(_) => "inputs",
            Error::Environment(_) => "environment",
            Error::Sandbox(_) | Error::Folder { .. } => "sandbox",
            Error::Ended(failure) => &failure.step,
            Error::Output(_) => "outputs",
        }
    }

    /// Gives the failure as it is reported to the coordinator.
    pub fn failure(&self) -> Failure {
        if let Error::Ended(failure) = self {
            return failure.clone();
        }
        let mut what = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            what = format!("{what}: {error}");
            source = error.source();
        }
        Failure::new(self.blame(), self.step(), what)
    }
}

fn input_blame(error: &InputError) -> Blame {
    match error {
        InputError::Tampered { .. } | InputError::Size { .. } => Blame::InputMismatch,
        InputError::Missing { .. } => Blame::Builder(Fault::Fetch),
        InputError::Copy { source, .. } => system(source, Fault::Other),
    }
}

fn sandbox_blame(error: &SandboxError) -> Blame {
    match error {
        SandboxError::Prepare(source)
        | SandboxError::Group(source)
        | SandboxError::Spawn(source)
        | SandboxError::Wait(source)
        | SandboxError::Log(LogError::Write { source, .. }) => system(source, Fault::Sandbox),
        SandboxError::Start { said } => Blame::Builder(said_fault(said)),
        SandboxError::Log(LogError::Full { .. }) => Blame::Builder(Fault::Sandbox),
        SandboxError::Root(OutputError::Copy { source, .. }) => system(source, Fault::Sandbox),
        // Whoever names the packages of an environment answers for what they put there.
        SandboxError::Root(_) => Blame::Job,
        SandboxError::Outlived { .. } => Blame::IsolationBreach,
    }
}

/// Gives the builder's fault behind an error: a full disk and memory that ran out have their own words, however deep they are.
pub fn fault_behind(error: &(dyn std::error::Error + 'static), otherwise: Fault) -> Fault {
    use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(StorageFull | QuotaExceeded) => return Fault::DiskFull,
            Some(OutOfMemory) => return Fault::Memory,
            Some(_) | None => next = error.source(),
        }
    }
    otherwise
}

fn system(error: &std::io::Error, otherwise: Fault) -> Blame {
    Blame::Builder(fault_behind(error, otherwise))
}

/// Gives the builder's fault behind what a helper said in the C locale before the build's own command ran.
fn said_fault(said: &str) -> Fault {
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(&["No space left on device", "Disk quota exceeded"]) {
        Fault::DiskFull
    } else if any(&["Cannot allocate memory", "Out of memory"]) {
        Fault::Memory
    } else {
        Fault::Sandbox
    }
}

/// Removes a tree, some of whose files may belong to the ids that builds are mapped to.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_tree(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let mut command = std::process::Command::new("unshare");
            command.args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"]).arg(path);
            if command.status()?.success() { Ok(()) } else { Err(error) }
        }
        done => done,
    }
}

#[cfg(test)]
mod tests;
