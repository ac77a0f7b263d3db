//! Kind `image`: the root file system of a lock's packages, as tar, squashfs, ext4 or live ISO.
//!
//! ```text
//!  .debs of the image's lock --mmdebstrap--> root --files, setup--> tar (sorted, times clamped) -+-> squashfs -> ISO
//!                                                                                               `-> ext4
//! ```
//! Every other format is made from the tar file: so it depends on nothing but what the tar file holds. The tools come from
//! the job's environment. The installation runs with [`Rights::Installer`], under the limits of every build.

use std::{fs, io, path::Path};

use protocol::{
    Arch, Sha256,
    blame::Blame,
    environment::{EnvironmentLock, Family},
    job::{ImageFormat, ImageJob, JobKind, JobRequest},
    limits,
};

use super::{
    Error,
    environment::{includes, variant},
    inputs::{InputError, Wanted},
    sandbox::{
        outputs::{Leftovers, OutputError, OutputFile},
        rig::Rig,
        rights::Rights,
    },
    vary::Variation,
};

const MAKE: &str = include_str!("image/make.sh");
const PACK: &str = include_str!("image/pack.sh");

/// Reads the lock of an image's packages from the inputs, checked; gives none for jobs of other kinds.
///
/// # Errors
/// When the file is not the one that the request names, or no lock for the request's architecture.
pub(in crate::build) fn packages(request: &JobRequest, inputs: &Path) -> Result<Option<EnvironmentLock>, Error> {
    match &request.kind {
        JobKind::Image(job) => read_lock(job, request.arch, &inputs.join(ImageJob::LOCK)).map(Some),
        JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Server(_) | JobKind::Fetch(_) => Ok(None),
    }
}

fn read_lock(job: &ImageJob, arch: Arch, path: &Path) -> Result<EnvironmentLock, Error> {
    let name = || ImageJob::LOCK.to_owned();
    let copy = |source: io::Error| Error::Input(InputError::Copy { name: name(), source });
    let got = fs::metadata(path).map_err(copy)?.len();
    if got != job.packages.size || got > limits::LOCK_MAX as u64 {
        return Err(Error::Input(InputError::Size { name: name(), wanted: job.packages.size, got }));
    }
    let bytes = fs::read(path).map_err(copy)?;
    let (wanted, got) = (job.packages.sha256, Sha256::of(&bytes));
    if got != wanted {
        return Err(Error::Input(InputError::Tampered { name: name(), wanted, got }));
    }
    let refuse = |what| Error::Task { what, blame: Blame::Job };
    let lock = EnvironmentLock::from_bytes(&bytes).map_err(|error| refuse(format!("the image's packages: {error}")))?;
    if lock.family == Family::Rpm {
        return Err(refuse("images are made of Debian packages, not of RPMs".to_owned()));
    }
    if lock.arch == arch { Ok(lock) } else { Err(refuse(format!("the image's packages are for {}", lock.arch))) }
}

/// Every input with its path in the build directory.
pub(in crate::build) fn wanted(job: &ImageJob, packages: &EnvironmentLock) -> Vec<Wanted> {
    let files = job.files.iter().map(|file| Wanted::at(file, ImageJob::input_path(file).as_str()));
    let debs = packages.packages.iter().map(|package| Wanted::package(package).below(ImageJob::PACKAGES));
    std::iter::once(Wanted::source(&job.packages)).chain(files).chain(debs).collect()
}

/// Lays out the folder that becomes the image's root, in the build directory on this side of the overlay.
///
/// What is installed may be owned by the account itself and have any mode, so nobody else gets into the attempt's folder.
pub(in crate::build) fn lay_out(rig: &Rig, attempt: &Path, place: &Path) -> io::Result<()> {
    Rights::lay_out_root(rig, place)?;
    fs::set_permissions(attempt, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

/// What the sandbox runs.
pub(in crate::build) fn script(variation: &Variation) -> String {
    format!("{}{MAKE}\n{PACK}", variation.preload())
}

/// The script's arguments: which packages to install.
pub(in crate::build) fn arguments(packages: &EnvironmentLock) -> Vec<String> {
    includes(packages).collect()
}

/// The script's own environment variables.
pub(in crate::build) fn variables(job: &ImageJob, arch: Arch, packages: &EnvironmentLock) -> Vec<(String, String)> {
    let formats: Vec<_> = job.formats.iter().map(|format| ImageFormat::word(*format)).collect();
    let pairs = [
        ("HOME", "/build/home".to_owned()),
        ("SOURCE_DATE_EPOCH", job.epoch.to_string()),
        ("IMAGE_STEM", job.stem(arch)),
        ("IMAGE_SUITE", packages.suite.to_string()),
        ("IMAGE_VARIANT", variant(packages).to_owned()),
        ("IMAGE_FORMATS", formats.join(" ")),
        ("IMAGE_HOSTNAME", job.hostname.clone()),
        ("IMAGE_LOCALE", job.locale.clone()),
        ("IMAGE_SETUP", job.setup.join("\n")),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Takes the images.
pub(in crate::build) fn collect(
    job: &ImageJob,
    arch: Arch,
    leftovers: &mut Leftovers,
    into: &Path,
) -> Result<Vec<OutputFile>, OutputError> {
    job.outputs(arch).iter().map(|name| leftovers.take(name, &into.join(name.as_str()))).collect()
}

#[cfg(test)]
mod tests;
