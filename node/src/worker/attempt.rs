//! One attempt, from the grant to the report.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use attest::{
    compare::Output,
    statement::{Attestation, Material, Run, Task as Stated},
};
use protocol::{
    Hash, Verified,
    blame::{Blame, Failure, Fault},
    environment::EnvironmentLock,
    job::JobRequest,
    lease::{Lease, LeaseNumber},
    limits,
    message::Request,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Worker,
    inputs::{Inputs, own_fault},
    reveal::{Hidden, Made},
};
use crate::{
    blobs::Import,
    build::{Built, LogSink, OutputFile, Phase, Slot, Task, slots::Disk},
};

/// How long inputs that cannot be had are asked for again.
const GATHER_WITHIN: Duration = Duration::from_secs(15);
/// The first pause before that, doubled each time.
const GATHER_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The longest pause.
const GATHER_AGAIN_MAX: Duration = Duration::from_secs(4);

/// How long disk is waited for that other attempts have. The ledger knows of it, and of what ends a moment later.
const DISK_WITHIN: Duration = Duration::from_secs(60);

/// How an attempt ended.
enum Ended {
    Built(Hidden),
    Failed(Request),
}

/// What was fetched beside the files.
type Gathered = (Verified<JobRequest>, EnvironmentLock);

impl Worker {
    /// Runs one attempt under its lease and reports how it ended. Never dropped midway: it is stopped by its token.
    pub(super) async fn hold(self: Arc<Self>, lease: Lease, slot: Slot, daemon: CancellationToken) {
        let number = lease.number;
        let Some((stop, log)) = self.state().held.get(&number).map(|h| (h.stop.clone(), h.log.clone())) else {
            return;
        };
        let job = lease.job;
        // The note is for the next start of a daemon that is killed; what it protects, the report, is far away. So the
        // disk writes it while the attempt begins.
        let note = self.shared.store.run(move |store| store.attempt_put(number, job.as_bytes()));
        let (noted, ended) = tokio::join!(note, self.attempt(&lease, &log, &stop));
        let ended = match noted {
            Ok(()) => ended,
            Err(error) => Err(own_fault("store", &error)),
        };
        log.enter(Phase::Done);
        let why = self.state().held.get(&number).and_then(|held| held.why.clone());
        let ended = self.end(&lease, &log, ended, why).await;
        // The slot is free as soon as the work is done; the report may take longer.
        drop(slot);
        self.wanted.notify_one();
        let told = match ended {
            Ended::Built(hidden) => self.note_and_show(number, hidden, &daemon).await,
            Ended::Failed(report) => self.deliver(report, &daemon).await,
        };
        if told {
            self.forget(number).await;
        }
        let path = log.path().to_owned();
        self.state().held.remove(&number);
        if let Err(error) = tokio::fs::remove_file(&path).await {
            warn!(%error, "log file not removed");
        }
    }

    async fn end(&self, lease: &Lease, log: &LogSink, ended: Result<Made, Failure>, why: Option<Failure>) -> Ended {
        let number = lease.number;
        let kept = self.keep(lease, "log", log.path().to_owned()).await;
        // An attestation promises its outputs: they must be here after a crash, too.
        if let Err(error) = self.shared.blobs.settle().await {
            warn!(lease = %number, %error, "outputs may be lost in a crash");
        }
        match (ended, why) {
            // Even under a lease that was just ended it is evidence: who differs is named, at whatever time.
            (Ok(made), _) => {
                info!(lease = %number, job = %lease.job, "attempt built");
                let log = kept.unwrap_or_else(|| Hash::of(b""));
                match Hidden::new((lease.job, log), made) {
                    Ok(hidden) => Ended::Built(hidden),
                    Err(error) => Ended::Failed(self.failed(lease.job, number, (kept, own_fault("attest", &error)))),
                }
            }
            // What stopped it explains the end better than what it ended with.
            (Err(_), Some(failure)) | (Err(failure), None) => {
                info!(lease = %number, job = %lease.job, %failure, "attempt failed");
                Ended::Failed(self.failed(lease.job, number, (kept, failure)))
            }
        }
    }

    /// Puts a file of an attempt into the blob store for as long as its job lives.
    async fn keep(&self, lease: &Lease, name: &str, path: PathBuf) -> Option<Hash> {
        let added = async {
            let (hash, _) = self.shared.blobs.add_file(&path, Import::Copy).await?;
            self.shared.offer(&format!("job/{}/{}-{name}", lease.job, lease.number), hash).await?;
            Ok::<_, crate::blobs::Error>(hash)
        };
        match added.await {
            Ok(hash) => Some(hash),
            Err(error) => {
                warn!(lease = %lease.number, %error, "file of an attempt not kept");
                None
            }
        }
    }

    async fn attempt(&self, lease: &Lease, log: &LogSink, stop: &CancellationToken) -> Result<Made, Failure> {
        self.enter(lease.number, "fetch");
        let inputs = Inputs::new(&self.shared.home.build(), lease.number);
        let gathered = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Failure::new(Blame::Interrupted, "fetch", "stopped")),
            gathered = self.gather(lease, &inputs, log) => gathered,
        };
        let (request, lock) = match gathered {
            Ok(gathered) => gathered,
            Err(failure) => {
                inputs.remove().await;
                return Err(failure);
            }
        };
        let disk = match self.room(lease, request.get(), (log, stop)).await {
            Ok(disk) => disk,
            Err(failure) => {
                inputs.remove().await;
                return Err(failure);
            }
        };
        let task = Task {
            job: lease.job,
            request: request.get().clone(),
            lease: lease.clone(),
            lock: lock.clone(),
            inputs: inputs.files.clone(),
            packages: inputs.packages.clone(),
        };
        let built = self.build(task, log, stop).await;
        inputs.remove().await;
        let built = built?;
        self.enter(lease.number, "attest");
        let channel = request.get().channel.clone();
        let result = self.attest(lease, &request, &built).await.map(|attestation| Made { channel, attestation });
        if let Err(error) = self.workshop.discard(&built) {
            warn!(%error, "outputs not removed; the next start sweeps them");
        }
        drop(disk);
        result
    }

    /// Holds a job to what the lease and this node's owner give it. Disk that other attempts have is waited for.
    async fn room(
        &self,
        lease: &Lease,
        request: &JobRequest,
        (log, stop): (&LogSink, &CancellationToken),
    ) -> Result<Disk, Failure> {
        // Nobody is to blame: the ledger may not know yet what is given here.
        let too_large = |what: String| Failure::new(Blame::Interrupted, "fetch", &what);
        let (memory, disk) = (request.limits.memory_mib, request.limits.disk_mib);
        if memory > lease.memory_mib {
            let leased = lease.memory_mib;
            return Err(too_large(format!("the job may use {memory} MiB of memory, the lease is for {leased}")));
        }
        log.note(&format!("setting {disk} MiB of disk aside"));
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Failure::new(Blame::Interrupted, "fetch", "stopped")),
            () = tokio::time::sleep(DISK_WITHIN) => {
                Err(Failure::new(Blame::Interrupted, "fetch", format!("no {disk} MiB of disk became free")))
            }
            room = self.slots.disk(disk) => room.ok_or_else(|| {
                too_large(format!("the job may use {disk} MiB of disk, this builder gives {}", self.settings.disk_mib))
            }),
        }
    }

    /// Brings everything that the attempt needs here. What cannot be had is asked for again for a while: a coordinator
    /// that restarts, or a provider whose address is still on its way, is no reason to give the job up.
    async fn gather(&self, lease: &Lease, inputs: &Inputs, log: &LogSink) -> Result<Gathered, Failure> {
        let begun = Instant::now();
        let mut wait = GATHER_AGAIN_AFTER;
        loop {
            let failure = match self.gather_once(lease, inputs, log).await {
                Err(failure) if matches!(failure.blame, Blame::Builder(_)) && begun.elapsed() < GATHER_WITHIN => {
                    failure
                }
                ended => return ended,
            };
            log.note(&format!("{failure}; trying again"));
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(GATHER_AGAIN_MAX);
        }
    }

    async fn gather_once(&self, lease: &Lease, inputs: &Inputs, log: &LogSink) -> Result<Gathered, Failure> {
        let request = self.request(lease.job).await?;
        let lock = self.lock(lease.job, &request).await?;
        self.lay_out(lease, (request.get(), &lock), inputs, log).await?;
        Ok((request, lock))
    }

    /// Runs the build, tells the coordinator when the sandbox starts, and keeps the phase for heartbeats.
    async fn build(&self, task: Task, log: &LogSink, stop: &CancellationToken) -> Result<Built, Failure> {
        let lease = task.lease.number;
        let mut progress = log.progress();
        let follow = async {
            let mut told = false;
            while progress.changed().await.is_ok() {
                let phase = progress.borrow_and_update().phase;
                self.enter(lease, phase.word());
                if phase == Phase::Build && !told {
                    told = true;
                    if let Err(error) = self.desk.ask_coordinator(Request::Started(lease)).await {
                        warn!(%lease, %error, "start not reported");
                    }
                }
                if phase == Phase::Done {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            built = self.workshop.attempt(task, log.clone(), stop.clone()) => built.map_err(|e| e.failure()),
            () = follow => Err(Failure::new(Blame::Builder(Fault::Other), "log", "the log ended before the build")),
        }
    }

    /// Hashes, keeps and signs what was built.
    async fn attest(&self, lease: &Lease, request: &Verified<JobRequest>, built: &Built) -> Result<Vec<u8>, Failure> {
        let mut outputs = Vec::new();
        for file in &built.outputs {
            outputs.push(self.kept_output(lease, file).await?);
        }
        let mut byproducts = Vec::new();
        for file in &built.byproducts {
            byproducts.push(self.kept_output(lease, file).await?);
        }
        outputs.sort_by(|a, b| a.name.cmp(&b.name));
        byproducts.sort_by(|a, b| a.name.cmp(&b.name));
        if self.settings.lie {
            warn!("this node signs a changed output, as configured for a demonstration");
            let failed = |why| Failure::new(Blame::Builder(Fault::Other), "attest", why);
            self.lie(lease, &mut outputs).await.map_err(failed)?;
        }
        let attestation = Attestation {
            task: Stated::of(lease.job, request.get()),
            run: Run {
                node: self.shared.id,
                lease: lease.number,
                profile: lease.profile,
                started: built.started,
                finished: built.finished,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node_info: built.node_info.clone(),
            },
            outputs,
            byproducts,
            materials: Material::of(request.get()),
        };
        let signed = attestation.sign(&self.shared.key).map_err(|e| own_fault("attest", &e))?;
        if signed.len() > limits::ATTESTATION_MAX {
            let why = format!("{} outputs do not fit into one attestation: pack them", attestation.outputs.len());
            return Err(Failure::new(Blame::Job, "attest", why));
        }
        Ok(signed)
    }

    async fn kept_output(&self, lease: &Lease, file: &OutputFile) -> Result<Output, Failure> {
        let own = |e: crate::blobs::Error| own_fault("attest", &e);
        let (hash, size) = self.shared.blobs.add_file(&file.path, Import::Copy).await.map_err(own)?;
        if hash != file.hash || size != file.size {
            let what = format!("{} changed on this disk after the build", file.name);
            return Err(Failure::new(Blame::Builder(Fault::Other), "attest", what));
        }
        let name = format!("job/{}/{}-{}", lease.job, lease.number, file.sha256.short());
        self.shared.seal(&name, hash).await.map_err(own)?;
        Ok(Output { hash, name: file.name.clone(), size, sha256: file.sha256 })
    }

    /// Replaces the first output by one with a line of this node's id at its end.
    async fn lie(&self, lease: &Lease, outputs: &mut [Output]) -> Result<(), String> {
        let Some(first) = outputs.first_mut() else { return Ok(()) };
        let mut bytes = self.shared.blobs.read(&first.hash, 1 << 30).await.map_err(|e| e.to_string())?.to_vec();
        bytes.extend_from_slice(format!("\nchanged by {}\n", self.shared.id).as_bytes());
        let sha256 = protocol::Sha256::of(&bytes);
        let size = bytes.len() as u64;
        let hash = self.shared.blobs.add_bytes(bytes.into()).await.map_err(|e| e.to_string())?;
        let name = format!("job/{}/{}-changed", lease.job, lease.number);
        self.shared.seal(&name, hash).await.map_err(|e| e.to_string())?;
        (first.hash, first.size, first.sha256) = (hash, size, sha256);
        Ok(())
    }

    pub(super) fn enter(&self, lease: LeaseNumber, phase: &'static str) {
        if let Some(held) = self.state().held.get_mut(&lease) {
            held.phase = phase;
        }
    }

    pub(super) async fn lock(
        &self,
        job: protocol::JobId,
        request: &Verified<JobRequest>,
    ) -> Result<EnvironmentLock, Failure> {
        self.lock_of(job, request.get().environment).await
    }

    /// Gives the lock with this hash, fetched from whoever has the job's inputs.
    pub(super) async fn lock_of(&self, job: protocol::JobId, id: Hash) -> Result<EnvironmentLock, Failure> {
        if self.shared.blobs.size(&id).await.map_err(|e| own_fault("fetch", &e))?.is_none() {
            let providers = self.providers(job).await;
            self.fetch_one(id, limits::LOCK_MAX as u64, &providers).await?;
        }
        let bytes = self.shared.blobs.read(&id, limits::LOCK_MAX as u64).await.map_err(|e| own_fault("fetch", &e))?;
        EnvironmentLock::from_bytes(&bytes)
            .map_err(|e| Failure::new(Blame::Job, "fetch", format!("lock {} is not valid: {e}", id.short())))
    }
}
