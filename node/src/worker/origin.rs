//! Packages of a lock that no peer has, from the machine's archive: the last resort, shared between the builders of a job.
//!
//! ```text
//!  no peer has them -> wait a little -> my share from the archive, offered -> the others' shares from them
//!                                        ^------------- who does not deliver in time loses its turn to the next
//! ```
//! Each package belongs to one builder first, by a hash of both, so k builders ask the archive for one environment and not for
//! k of them. Nothing here is trusted: the lock's hashes decide.

use std::time::{Duration, Instant};

use protocol::{
    Hash, JobId, NodeId,
    blame::{Blame, Failure, Fault},
    environment::{EnvironmentLock, Family, LockedPackage},
    lease::Lease,
    message::{Request, Response},
};
use tracing::info;
use web::api::{AttemptState, JobDetail};

use super::{Worker, inputs::own_fault};
use crate::{
    blobs::Import,
    build::LogSink,
    clock,
    resolve::{
        archive::{Archive, Refresh},
        origin,
    },
};

/// How long peers are asked again before the archive is: a provider's address may still be on its way.
const PEERS_FIRST: Duration = Duration::from_secs(5);
/// How long each builder has for its share before the next one in the order may take it.
const TURN: Duration = Duration::from_secs(40);
/// How often the others are asked meanwhile.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Gives a package's place in the order of one of the nodes: 0 is first.
fn rank(nodes: &[NodeId], own: &NodeId, package: &Hash) -> usize {
    let score = |node: &NodeId| Hash::of(&[node.as_bytes().as_slice(), package.as_bytes().as_slice()].concat());
    let mine = score(own);
    nodes.iter().filter(|node| *node != own && score(node) < mine).count()
}

impl Worker {
    /// Brings the packages of a lock here that `providers` do not have, from the archive and from the other builders.
    pub(super) async fn ask_origin(
        &self,
        lease: &Lease,
        lock: &EnvironmentLock,
        providers: &[NodeId],
        log: &LogSink,
    ) -> Result<(), Failure> {
        let builders = self.builders(lease.job).await;
        let mut from = providers.to_vec();
        from.extend(builders.iter().filter(|node| **node != self.shared.id && !providers.contains(node)));
        let begun = Instant::now();
        loop {
            let missing = self.missing(lock).await?;
            if missing.is_empty() {
                return Ok(());
            }
            let sizes: Vec<_> = missing.iter().map(|package| (package.hash, package.size)).collect();
            if self.shared.blobs.fetch_many(&self.shared.net, &sizes, &from).await.is_ok() {
                return Ok(());
            }
            let waited = begun.elapsed();
            if waited >= PEERS_FIRST {
                let turn = (waited - PEERS_FIRST).as_secs() / TURN.as_secs();
                let mine = |p: &LockedPackage| rank(&builders, &self.shared.id, &p.hash) as u64 <= turn;
                let share: Vec<_> = self.missing(lock).await?.into_iter().filter(mine).collect();
                if !share.is_empty() {
                    self.take(lease, lock, share, log).await?;
                    continue;
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Fetches packages from the archive, keeps them and offers them.
    async fn take(
        &self,
        lease: &Lease,
        lock: &EnvironmentLock,
        share: Vec<LockedPackage>,
        log: &LogSink,
    ) -> Result<(), Failure> {
        if lock.family == Family::Rpm {
            let what =
                format!("no peer has {} RPMs of the environment: who submitted the job must be there", share.len());
            return Err(Failure::new(Blame::Builder(Fault::Fetch), "fetch", what));
        }
        let bytes: u64 = share.iter().map(|package| package.size).sum();
        log.note(&format!("no peer has {} packages, {bytes} bytes: asking the archive", share.len()));
        let (state, suite, arch) = (self.shared.home.archive(), lock.suite.clone(), lock.arch);
        let folder = self.shared.home.build().join(super::inputs::FOLDER).join(format!("{}-origin", lease.number));
        let (into, packages) = (folder.clone(), share.clone());
        let fetched = tokio::task::spawn_blocking(move || {
            let archive = Archive::open(&state, suite, arch)?;
            archive.update(clock::now(), Refresh::WhenStale)?;
            origin::fetch(&archive, &packages, &into)
        });
        let fetched = match fetched.await {
            Ok(fetched) => fetched.map_err(|error| own_fault("fetch", &error)),
            Err(error) => Err(own_fault("fetch", &error)),
        };
        let kept = match fetched {
            Ok(files) => self.keep_share(lease.job, &share, &files).await,
            Err(failure) => Err(failure),
        };
        // A later start sweeps what cannot be removed.
        let _ = tokio::fs::remove_dir_all(&folder).await;
        kept?;
        log.note(&format!("the archive gave {} packages, {bytes} bytes", share.len()));
        info!(lease = %lease.number, packages = share.len(), bytes, "packages fetched from the archive");
        Ok(())
    }

    async fn keep_share(
        &self,
        job: JobId,
        share: &[LockedPackage],
        files: &[std::path::PathBuf],
    ) -> Result<(), Failure> {
        for (package, file) in share.iter().zip(files) {
            let (hash, _) = self.shared.blobs.add_file(file, Import::Copy).await.map_err(|e| own_fault("fetch", &e))?;
            if hash != package.hash {
                let what = format!("{} changed on this disk after it was fetched", package.name);
                return Err(Failure::new(Blame::Builder(Fault::Other), "fetch", what));
            }
        }
        let hashes: Vec<Hash> = share.iter().map(|package| package.hash).collect();
        let name = format!("job/{job}/origin-{}", hashes[0].short());
        self.shared.offer_all(&name, &hashes).await.map_err(|e| own_fault("fetch", &e))
    }

    async fn missing(&self, lock: &EnvironmentLock) -> Result<Vec<LockedPackage>, Failure> {
        let mut missing = Vec::new();
        for package in &lock.packages {
            if self.shared.blobs.size(&package.hash).await.map_err(|e| own_fault("fetch", &e))?.is_none() {
                missing.push(package.clone());
            }
        }
        Ok(missing)
    }

    /// Who builds a job now, this node included; only this node when the coordinator does not say.
    async fn builders(&self, job: JobId) -> Vec<NodeId> {
        let live = |state: AttemptState| matches!(state, AttemptState::Granted | AttemptState::Running);
        let answer = self.desk.ask_coordinator(Request::View(format!("job/{job}"))).await;
        let Ok(Response::View(json)) = answer else { return vec![self.shared.id] };
        let detail = serde_json::from_slice::<JobDetail>(&json.0).ok();
        let attempts = detail.map(|detail| detail.attempts).unwrap_or_default();
        let mut nodes: Vec<_> = attempts.iter().filter(|a| live(a.state)).map(|a| a.builder.node).collect();
        nodes.push(self.shared.id);
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_first_for_exactly_one_builder_and_shares_are_even() {
        let nodes: Vec<_> = (1..=3).map(|n| NodeId::from_bytes([n; 32])).collect();
        let mut shares = [0; 3];
        for number in 0..300_u32 {
            let package = Hash::of(&number.to_be_bytes());
            let ranks: Vec<_> = nodes.iter().map(|node| rank(&nodes, node, &package)).collect();
            let mut sorted = ranks.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            shares[ranks.iter().position(|rank| *rank == 0).unwrap()] += 1;
        }
        assert!(shares.iter().all(|share| (60..140).contains(share)), "{shares:?}");
    }
}
