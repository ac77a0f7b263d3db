//! Our own repository at one release, as an archive beside the machine's: what a network published is what its next builds use.
//!
//! ```text
//!  manifest of a release + pool --hash every .deb--> a flat repository of exactly that release --> apt, before all others
//! ```
//! The manifest says which bytes the release has, so it is the pin: later generations change nothing, and every file is
//! hashed before apt sees it. Who signed the release is checked where the manifest comes from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::{Arch, ChannelName, Hash, Sha256, release::Manifest};

use super::{
    archive::{self, file_error, output},
    digest::Digest,
};

/// What apt prefers to the same package of another archive, and what it knows the release by.
const PREFERENCE: &str = "Package: *\nPin: release o=artel-release\nPin-Priority: 700\n";

/// Why a release cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// apt or the disk does not do its part.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A package of the release is not in the pool any more.
    #[error("release {release} names {path}, which the pool does not have any more; choose a later release")]
    Gone {
        /// The release's name for people.
        release: String,
        /// The file.
        path: PathBuf,
    },
    /// A package in the pool is not the one of the release.
    #[error("{path} is not the file of release {release}: wanted sha256 {wanted}, got {got}")]
    Wrong {
        /// The release's name for people.
        release: String,
        /// The file.
        path: PathBuf,
        /// What the release names.
        wanted: Sha256,
        /// What lies there.
        got: Sha256,
    },
}

/// One release of one of our repositories.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The channel.
    pub channel: ChannelName,
    /// The generation.
    pub generation: u64,
    /// What it holds.
    pub manifest: Manifest,
    /// The folder of the repository, in which its pool lies.
    pub root: PathBuf,
}

/// What an archive reads beside the machine's sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// deb822 stanzas.
    pub(super) sources: String,
    /// apt_preferences(5).
    pub(super) preferences: String,
}

impl Pinned {
    /// Names the release for people, and for the folder that it gets.
    pub fn name(&self) -> String {
        let digest = Hash::of(&self.manifest.to_bytes());
        format!("{}@{}-{}", self.channel, self.generation, digest.short())
    }

    /// Lays the release out below `state` as a repository that apt reads. What lies there of an earlier run is checked again.
    ///
    /// # Errors
    /// When a file is not the release's, or apt's tools fail.
    pub fn lay_out(&self, state: &Path, arch: Arch) -> Result<Beside, Error> {
        let folder = std::path::absolute(state).map_err(file_error("find", state))?;
        let folder = folder.join("releases").join(format!("{}-{arch}", self.name()));
        let pool = folder.join("pool");
        fs::create_dir_all(&pool).map_err(file_error("create", &pool))?;
        for package in self.manifest.packages.iter().filter(|p| p.arch == arch || p.arch == Arch::All) {
            let Some(file) = self.manifest.file(&package.path) else { continue };
            let name = package.path.as_str().rsplit('/').next().unwrap_or_default();
            self.place(&self.root.join(package.path.as_str()), &pool.join(name), (file.sha256, file.size))?;
        }
        let index = run(&folder, &["packages", "pool"], "index a release")?;
        let path = folder.join("Packages");
        fs::write(&path, index).map_err(file_error("write", &path))?;
        let words =
            ["Origin=artel-release", "Label=artel-release"].map(|word| format!("APT::FTPArchive::Release::{word}"));
        let release = run(&folder, &["-o", &words[0], "-o", &words[1], "release", "."], "describe a release")?;
        // The list of a folder that has an older list would name that one, too.
        let path = folder.join("Release");
        fs::write(&path, release).map_err(file_error("write", &path))?;
        let sources = format!("Types: deb\nURIs: copy:{}\nSuites: ./\nTrusted: yes\n", folder.display());
        Ok(Beside { sources, preferences: PREFERENCE.into() })
    }

    fn place(&self, from: &Path, to: &Path, wanted: (Sha256, u64)) -> Result<(), Error> {
        let gone = || Error::Gone { release: self.name(), path: from.to_owned() };
        if !to.exists() {
            // A link would change with the pool's file, were that ever changed in place.
            fs::copy(from, to).map_err(|_| gone())?;
        }
        let got = Digest::of_file(to).map_err(file_error("read", to))?;
        if (got.sha256, got.size) == wanted {
            return Ok(());
        }
        // The next run takes it from the pool again.
        fs::remove_file(to).map_err(file_error("remove", to))?;
        Err(Error::Wrong { release: self.name(), path: from.to_owned(), wanted: wanted.0, got: got.sha256 })
    }
}

fn run(folder: &Path, arguments: &[&str], purpose: &str) -> Result<String, archive::Error> {
    let mut command = Command::new("apt-ftparchive");
    command.arg("-q").args(arguments).current_dir(folder);
    output(command, "apt-ftparchive", purpose)
}
