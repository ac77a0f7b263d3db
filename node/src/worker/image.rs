//! What an attempt at an image fetches: the files that its request names, and the packages that its lock names.

use std::path::{Path, PathBuf};

use protocol::{Hash, blame::Failure, job::ImageJob, lease::Lease};

use super::Worker;

impl Worker {
    /// Gives every file of an image with its size and where it is laid out. Fetches the lock of its packages for that.
    pub(super) async fn image_inputs(
        &self,
        lease: &Lease,
        image: &ImageJob,
        folder: &Path,
    ) -> Result<Vec<(Hash, u64, PathBuf)>, Failure> {
        let lock = self.lock_of(lease.job, image.packages.hash).await?;
        let below = |path: &str| folder.join(path);
        let debs = below(ImageJob::PACKAGES);
        let files = image.inputs().map(|(hash, size, path)| (hash, size, below(&path)));
        let packages = lock.packages.iter().map(|p| (p.hash, p.size, debs.join(p.file.as_str())));
        Ok(files.chain(packages).collect())
    }
}
