//! Fetches what an attempt needs, by hash, from whoever has it, and lays it out as files.

use std::path::{Path, PathBuf};

use protocol::{
    Hash, JobId, NodeId,
    blame::{Blame, Failure, Fault},
    environment::EnvironmentLock,
    job::{JobKind, JobRequest},
    lease::{Lease, LeaseNumber},
    message::{Request, Response},
};
use tracing::{debug, info};

use super::{Worker, image::image_inputs};
use crate::{
    build::{LogSink, fault_behind},
    daemon::chain,
};

/// The folder of all attempts' inputs, below the builder's own.
pub(super) const FOLDER: &str = "inputs";

/// An attempt's inputs on disk.
pub(super) struct Inputs {
    folder: PathBuf,
    /// Source or input files.
    pub(super) files: PathBuf,
    /// The environment's packages; empty when the environment is unpacked already.
    pub(super) packages: PathBuf,
}

impl Inputs {
    /// Names the folders of an attempt; nothing is made yet.
    pub(super) fn new(build: &Path, lease: LeaseNumber) -> Self {
        let folder = build.join(FOLDER).join(lease.to_string());
        Self { files: folder.join("files"), packages: folder.join("packages"), folder }
    }

    /// Removes the files.
    pub(super) async fn remove(self) {
        if let Err(error) = tokio::fs::remove_dir_all(&self.folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            debug!(%error, "inputs not removed; the next start sweeps them");
        }
    }
}

/// Gives the failure of an attempt that this node itself is to blame for: a full disk has its own word, whatever was tried.
pub(super) fn own_fault(step: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let full = matches!(error.downcast_ref(), Some(crate::blobs::Error::QuotaExceeded { .. }));
    let otherwise = if step == "fetch" { Fault::Fetch } else { Fault::Other };
    let fault = if full { Fault::DiskFull } else { fault_behind(error, otherwise) };
    Failure::new(Blame::Builder(fault), step, chain(error))
}

impl Worker {
    /// Who has a job's inputs: whom the coordinator names, then every connected member.
    pub(super) async fn providers(&self, job: JobId) -> Vec<NodeId> {
        let mut nodes = match self.desk.ask_coordinator(Request::Providers(job)).await {
            Ok(Response::Providers(nodes)) => nodes,
            Ok(_) | Err(_) => Vec::new(),
        };
        let policies = self.shared.policies();
        let members = self.shared.net.peers().into_iter().map(|p| p.node).filter(|n| policies.current().is_member(n));
        for node in members {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.retain(|n| *n != self.shared.id);
        nodes
    }

    pub(super) async fn fetch_one(&self, hash: Hash, limit: u64, providers: &[NodeId]) -> Result<(), Failure> {
        self.shared
            .blobs
            .fetch(&self.shared.net, &hash, providers, limit)
            .await
            .map(drop)
            .map_err(|e| own_fault("fetch", &e))
    }

    /// Fetches what is missing and writes every input where the sandbox takes it from.
    pub(super) async fn lay_out(
        &self,
        lease: &Lease,
        (request, lock): (&JobRequest, &EnvironmentLock),
        inputs: &Inputs,
        log: &LogSink,
    ) -> Result<(), Failure> {
        // What an interrupted attempt left here has the same number only if it was this one.
        let _ = tokio::fs::remove_dir_all(&inputs.folder).await;
        for path in [&inputs.files, &inputs.packages] {
            tokio::fs::create_dir_all(path).await.map_err(|e| own_fault("fetch", &e))?;
        }
        // Whose packages the archive may have, too.
        let mut locks = vec![lock.clone()];
        let mut wanted: Vec<(Hash, u64, PathBuf)> = match &request.kind {
            JobKind::Deb(deb) => {
                deb.files.iter().map(|f| (f.hash, f.size, inputs.files.join(f.name.as_str()))).collect()
            }
            JobKind::Rpm(rpm) => {
                rpm.files.iter().map(|f| (f.hash, f.size, inputs.files.join(f.name.as_str()))).collect()
            }
            JobKind::Command(command) => {
                command.inputs.iter().map(|f| (f.hash, f.size, inputs.files.join(f.path.as_str()))).collect()
            }
            JobKind::Image(image) => {
                let own = self.lock_of(lease.job, image.packages.hash).await?;
                let wanted = image_inputs(image, &own, &inputs.files);
                locks.push(own);
                wanted
            }
            JobKind::Fetch(_) => Vec::new(),
            JobKind::Server(_) => {
                return Err(Failure::new(Blame::Builder(Fault::Other), "fetch", "a server job is not for builders"));
            }
        };
        if !self.workshop.has_environment(&lock.id()) {
            let packages = lock.packages.iter();
            wanted.extend(packages.map(|p| (p.hash, p.size, inputs.packages.join(p.file.as_str()))));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.fetch_and_export((lease, &locks), &wanted, log).await
    }

    async fn fetch_and_export(
        &self,
        (lease, locks): (&Lease, &[EnvironmentLock]),
        wanted: &[(Hash, u64, PathBuf)],
        log: &LogSink,
    ) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for (hash, size, _) in wanted {
            if self.shared.blobs.size(hash).await.map_err(|e| own_fault("fetch", &e))?.is_none() {
                missing.push((*hash, *size));
            }
        }
        if !missing.is_empty() {
            let providers = self.providers(lease.job).await;
            let bytes: u64 = missing.iter().map(|(_, size)| size).sum();
            log.note(&format!("fetching {} files, {bytes} bytes, from up to {} peers", missing.len(), providers.len()));
            if let Err(error) = self.shared.blobs.fetch_many(&self.shared.net, &missing, &providers).await {
                let (origins, others) = origins(&missing, locks);
                if origins.is_empty() {
                    return Err(own_fault("fetch", &error));
                }
                // What is no package has no other origin than peers.
                let others = self.shared.blobs.fetch_many(&self.shared.net, &others, &providers).await;
                others.map_err(|e| own_fault("fetch", &e))?;
                for lock in origins {
                    self.ask_origin(lease, lock, &providers, log).await?;
                }
            }
            info!(lease = %lease.number, files = missing.len(), bytes, "inputs fetched");
        }
        let mut hashes: Vec<Hash> = wanted.iter().map(|(hash, ..)| *hash).collect();
        hashes.extend(locks.iter().map(EnvironmentLock::id));
        // Beside what the job's coordinator, or who handed it in, offers here: that is more, and stays.
        let name = format!("job/{}/{}-inputs", lease.job, lease.number);
        self.shared.offer_all(&name, &hashes).await.map_err(|e| own_fault("fetch", &e))?;
        for (hash, _, path) in wanted {
            if let Some(parent) = path.parent() {
                tokio::fs::create_dir_all(parent).await.map_err(|e| own_fault("fetch", &e))?;
            }
            self.shared.blobs.export(hash, path).await.map_err(|e| own_fault("fetch", &e))?;
        }
        Ok(())
    }
}

/// Gives the locks whose archive may have some of the missing files, and the files that no archive has.
fn origins<'a>(missing: &[(Hash, u64)], locks: &'a [EnvironmentLock]) -> (Vec<&'a EnvironmentLock>, Vec<(Hash, u64)>) {
    let names = |lock: &EnvironmentLock, hash: &Hash| lock.packages.iter().any(|package| package.hash == *hash);
    let others = missing.iter().filter(|(hash, _)| !locks.iter().any(|lock| names(lock, hash)));
    let of = locks.iter().filter(|lock| missing.iter().any(|(hash, _)| names(lock, hash)));
    (of.collect(), others.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submit::tests::{lock, package};

    #[test]
    fn an_archive_is_asked_for_what_any_lock_of_the_job_names() {
        let (tools, own) = (lock(&[package("tool")]), lock(&[package("shop"), package("kernel")]));
        let file = |name: &str| (package(name).hash, 1);
        let locks = [tools.clone(), own.clone()];
        assert_eq!(origins(&[file("kernel"), file("recipe")], &locks), (vec![&own], vec![file("recipe")]));
        assert_eq!(origins(&[file("tool"), file("shop")], &locks), (vec![&tools, &own], vec![]));
        assert_eq!(origins(&[file("recipe")], &locks), (vec![], vec![file("recipe")]));
    }
}
