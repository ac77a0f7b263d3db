//! The kinds of jobs, each with the fields that only it has.

mod fetch;
mod rpm;

use serde::{Deserialize, Serialize};

pub(crate) use fetch::check_hosts;
pub use fetch::{
    CommitRecord, Endpoint, FetchJob, FetchSource, FileOrigin, GitOrigin, NamedOrigin, Origin, Pointer, reaches,
};
pub use rpm::{RpmJob, RpmSource};

use super::{ImageJob, ServerJob};
use crate::{
    ChannelName, FileName, Hash, PackageName, Sha256,
    envelope::check_set,
    limits,
    words::{DebVersion, RelativePath},
};

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    /// Binary packages from a Debian source package.
    Deb(DebJob),
    /// RPM packages from a source RPM, or from a spec and its sources.
    Rpm(RpmJob),
    /// Any command with declared inputs and outputs.
    Command(CommandJob),
    /// File system images of packages.
    Image(ImageJob),
    /// What the network does for itself; no builder is asked.
    Server(ServerJob),
    /// Sources from elsewhere; the only builds with a network.
    Fetch(FetchJob),
}

impl JobKind {
    /// Gives the kind's word: `deb`, `rpm`, `command`, `image`, `fetch`, or one of [`ServerJob::WORDS`].
    pub fn word(&self) -> &'static str {
        match self {
            JobKind::Deb(_) => "deb",
            JobKind::Rpm(_) => "rpm",
            JobKind::Command(_) => "command",
            JobKind::Image(_) => "image",
            JobKind::Server(server) => server.word(),
            JobKind::Fetch(_) => "fetch",
        }
    }

    pub(super) fn check(&self, channel: &ChannelName) -> Result<(), String> {
        match self {
            JobKind::Deb(deb) => deb.check(),
            JobKind::Rpm(rpm) => rpm.check(),
            JobKind::Command(command) => command.check(),
            JobKind::Image(image) => image.check(),
            JobKind::Server(server) => server.check(channel),
            JobKind::Fetch(fetch) => fetch.check(),
        }
    }
}

/// One file of a source package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The file's BLAKE3: how peers ask for it.
    pub hash: Hash,
    /// The file's name.
    pub name: FileName,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256: checked again on the node that builds.
    pub sha256: Sha256,
}

fn check_sources(files: &[SourceFile]) -> Result<(), String> {
    check_set("source files", &files.iter().map(|f| &f.name).collect::<Vec<_>>(), limits::INPUTS_MAX)
}

/// A Debian source package to build with `dpkg-buildpackage -b`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebJob {
    /// The `.dsc` and what it names, sorted by name; exactly one ends in `.dsc`.
    pub files: Vec<SourceFile>,
    /// The source package's name.
    pub source: PackageName,
    /// Words of `DEB_BUILD_OPTIONS`, without `parallel`, which the profile sets; sorted.
    pub options: Vec<String>,
    /// The source package's version.
    pub version: DebVersion,
    /// Words of `DEB_BUILD_PROFILES`, sorted.
    pub profiles: Vec<String>,
}

impl DebJob {
    /// Gives the `.dsc`.
    pub fn dsc(&self) -> &SourceFile {
        self.files.iter().find(|f| f.name.as_str().ends_with(".dsc")).expect("check() wants exactly one .dsc")
    }

    fn check(&self) -> Result<(), String> {
        check_sources(&self.files)?;
        if !self.source.is_debian() || !self.version.is_debian() {
            return Err("a Debian source package has a Debian name and version".into());
        }
        if self.files.iter().filter(|f| f.name.as_str().ends_with(".dsc")).count() != 1 {
            return Err("a source package has exactly one .dsc".into());
        }
        check_set("build options", &self.options, 32)?;
        check_set("build profiles", &self.profiles, 32)?;
        let word = |w: &String| {
            !w.is_empty() && w.len() <= 64 && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.=+".contains(c))
        };
        if !self.options.iter().chain(&self.profiles).all(word) {
            return Err("build options and profiles are words of A-Z a-z 0-9 - _ . = +".into());
        }
        Ok(())
    }
}

/// One input file of a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// The file's BLAKE3.
    pub hash: Hash,
    /// Where it appears below the build directory.
    pub path: RelativePath,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's SHA-256.
    pub sha256: Sha256,
}

/// A command to run in the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandJob {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What the job is called.
    pub name: FileName,
    /// Input files, sorted by path.
    pub inputs: Vec<InputFile>,
    /// Files, relative to the build directory, that the command must leave; sorted. Nothing else is kept.
    pub outputs: Vec<RelativePath>,
    /// Whose programs it finds.
    #[serde(default, skip_serializing_if = "Isolation::is_rootfs")]
    pub isolation: Isolation,
}

/// Whose programs a command finds. The walls around it are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Its environment's.
    #[default]
    Rootfs,
    /// The builder's own `/usr`, read-only; its environment's lock is empty. Only for builders whose owner allows it.
    Light,
}

impl Isolation {
    /// Says whether this is the usual one.
    pub fn is_rootfs(&self) -> bool {
        *self == Isolation::Rootfs
    }
}

impl CommandJob {
    fn check(&self) -> Result<(), String> {
        if self.argv.is_empty() || self.argv.len() > limits::ARGUMENTS_MAX {
            return Err(format!("a command has 1 to {} arguments", limits::ARGUMENTS_MAX));
        }
        if self.argv.iter().any(|a| a.len() > limits::TEXT_MAX || a.contains('\0')) {
            return Err(format!("an argument has at most {} bytes and no NUL", limits::TEXT_MAX));
        }
        check_set("inputs", &self.inputs.iter().map(|f| &f.path).collect::<Vec<_>>(), limits::INPUTS_MAX)?;
        if self.outputs.is_empty() {
            return Err("a command declares at least one output: operators agree on outputs".into());
        }
        check_set("outputs", &self.outputs, limits::OUTPUTS_MAX)
    }
}
