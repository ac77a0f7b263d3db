//! What an attempt at an image fetches: the files that its request names, and the packages that its lock names.

use std::path::{Path, PathBuf};

use protocol::{Hash, environment::EnvironmentLock, job::ImageJob};

/// Gives every file of an image with its size and where it is laid out.
pub(super) fn image_inputs(image: &ImageJob, lock: &EnvironmentLock, folder: &Path) -> Vec<(Hash, u64, PathBuf)> {
    let below = |path: &str| folder.join(path);
    let debs = below(ImageJob::PACKAGES);
    let files = image.inputs().map(|(hash, size, path)| (hash, size, below(&path)));
    let packages = lock.packages.iter().map(|p| (p.hash, p.size, debs.join(p.file.as_str())));
    files.chain(packages).collect()
}
