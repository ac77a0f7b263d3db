//! Job requests: what a maintainer signs.
//!
//! A job's id is the hash of the signed payload; every input is named by hash, the environment too, so the same request
//! means the same bytes on every node.

mod group;
mod image;
mod kind;
mod order;
mod schedule;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use group::Group;
pub use image::{ImageFormat, ImageJob};
pub(crate) use kind::check_hosts;
pub use kind::{
    CommandJob, CommitRecord, DebJob, Endpoint, FetchJob, FetchSource, FileOrigin, GitOrigin, InputFile, Isolation,
    JobKind, NamedOrigin, Origin, Pointer, RpmJob, RpmSource, SourceFile, reaches,
};
pub use order::{Change, Order};
pub use schedule::{Priority, Schedule};
pub use server::{Derive, Diff, Promote, Prune, ServerJob, Side};

use crate::{
    Arch, ChannelName, Hash, JobId, NetworkId, NodeId, Timestamp, Verified,
    codec::octets,
    envelope::{Record, Signers, check_set},
    limits,
};

/// What one attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildLimits {
    /// Processes and threads at one time.
    pub pids: u32,
    /// The longest build log, in KiB; more ends the attempt.
    pub log_kib: u32,
    /// Disk for the build tree and outputs, in MiB.
    pub disk_mib: u32,
    /// CPUs, in thousandths.
    pub cpu_milli: u32,
    /// Wall time, in seconds.
    pub wall_secs: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The longest time without output, in seconds.
    pub silence_secs: u32,
}

impl Default for BuildLimits {
    /// What a small package needs, with room.
    fn default() -> Self {
        Self {
            pids: 2048,
            cpu_milli: 2000,
            disk_mib: 8192,
            log_kib: 64 * 1024,
            wall_secs: 3 * 3600,
            memory_mib: 4096,
            silence_secs: 1800,
        }
    }
}

impl BuildLimits {
    /// Gives the wall time.
    pub fn wall(&self) -> Duration {
        Duration::from_secs(self.wall_secs.into())
    }

    /// Gives the longest silence.
    pub fn silence(&self) -> Duration {
        Duration::from_secs(self.silence_secs.into())
    }
}

/// A job request's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The architecture that the build runs on; `all` for a server job, which builds nothing.
    pub arch: Arch,
    /// What to build.
    pub kind: JobKind,
    /// 16 bytes that make two equal wishes two jobs.
    #[serde(with = "octets")]
    pub nonce: Vec<u8>,
    /// What one attempt may use.
    pub limits: BuildLimits,
    /// The channel that decides agreement and publication.
    pub channel: ChannelName,
    /// When the maintainer signed.
    pub created: Timestamp,
    /// After this the job is over, whatever its state.
    pub expires: Timestamp,
    /// The network that the request is for.
    pub network: NetworkId,
    /// When and where it may run.
    pub schedule: Schedule,
    /// The environment lock's id; for a server job [`ServerJob::environment`].
    pub environment: Hash,
}

impl JobRequest {
    /// Says in one line what is to be built, for instance `deb base-files 12.4 amd64`.
    pub fn title(&self) -> String {
        match &self.kind {
            JobKind::Deb(deb) => format!("deb {} {} {}", deb.source, deb.version, self.arch),
            JobKind::Rpm(rpm) => format!("rpm {} {} {}", rpm.name, rpm.version, self.arch),
            JobKind::Command(command) => format!("command {} {}", command.name, self.arch),
            JobKind::Image(image) => format!("image {}", image.stem(self.arch)),
            JobKind::Server(server) => server.title(&self.channel),
            JobKind::Fetch(fetch) => format!("fetch {} {}", fetch.name, self.arch),
        }
    }

    /// Gives the server job, where it is one.
    pub fn server(&self) -> Option<&ServerJob> {
        match &self.kind {
            JobKind::Server(server) => Some(server),
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Image(_) | JobKind::Fetch(_) => None,
        }
    }

    /// Gives whose programs it finds.
    pub fn isolation(&self) -> Isolation {
        match &self.kind {
            JobKind::Command(command) => command.isolation,
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Image(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
                Isolation::Rootfs
            }
        }
    }

    /// Gives where a fetch goes; nothing else has a network.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        match &self.kind {
            JobKind::Fetch(fetch) => fetch.endpoints(),
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Image(_) | JobKind::Server(_) => {
                Vec::new()
            }
        }
    }

    /// Gives the hashes of the locks among the inputs, the environment's first: each names further inputs.
    pub fn locks(&self) -> Vec<Hash> {
        match &self.kind {
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Fetch(_) => vec![self.environment],
            JobKind::Image(image) => vec![self.environment, image.packages.hash],
            JobKind::Server(_) => Vec::new(),
        }
    }

    /// Gives every content hash of the request that an attempt fetches, the environment's lock first; none for a server job.
    pub fn inputs(&self) -> Vec<Hash> {
        let mut all = vec![self.environment];
        match &self.kind {
            JobKind::Deb(deb) => all.extend(deb.files.iter().map(|f| f.hash)),
            JobKind::Rpm(rpm) => all.extend(rpm.files.iter().map(|f| f.hash)),
            JobKind::Command(command) => all.extend(command.inputs.iter().map(|f| f.hash)),
            JobKind::Image(image) => all.extend(image.inputs().map(|(hash, ..)| hash)),
            JobKind::Server(_) => all.clear(),
            JobKind::Fetch(_) => {}
        }
        all
    }
}

impl Record for JobRequest {
    const KIND: &'static str = "job";
    const LIMIT: usize = limits::JOB_MAX;
    const SIGNERS: Signers = Signers::People;

    fn check(&self) -> Result<(), String> {
        if self.nonce.len() != 16 {
            return Err("the nonce has 16 bytes".into());
        }
        match (&self.kind, self.arch) {
            (JobKind::Server(_), arch) if arch != Arch::All => {
                return Err("a server job is for all architectures".into());
            }
            (JobKind::Server(_), _) if self.environment != ServerJob::environment() => {
                return Err("a server job has no environment: name the hash of nothing".into());
            }
            (JobKind::Server(_), _) => {}
            (_, Arch::All) => return Err("a build runs on one real architecture, not on all".into()),
            (_, _) => {}
        }
        if self.expires <= self.created {
            return Err("the job expires before it was created".into());
        }
        let l = &self.limits;
        if [l.pids, l.cpu_milli, l.disk_mib, l.log_kib, l.wall_secs, l.memory_mib, l.silence_secs].contains(&0) {
            return Err("every limit is at least 1".into());
        }
        self.schedule.check()?;
        self.kind.check(&self.channel)
    }
}

/// Gives a verified request's job id.
pub fn job_id(request: &Verified<JobRequest>) -> JobId {
    JobId::from(request.id())
}

/// Announces a job on the topic of its architecture; under 1 KiB. The request itself is fetched by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// When it was issued: outside the window it is ignored.
    pub at: Timestamp,
    /// The job.
    pub job: JobId,
    /// The architecture that the build runs on.
    pub arch: Arch,
    /// The channel.
    pub channel: ChannelName,
    /// Operators that already hold or held a lease, by node, sorted: their other nodes need not bid.
    pub excluded: Vec<NodeId>,
    /// Memory that an attempt may use, in MiB, so that small peers need not fetch the request.
    pub memory_mib: u32,
}

impl Record for Announcement {
    const KIND: &'static str = "announcement";
    const LIMIT: usize = 4096;

    fn check(&self) -> Result<(), String> {
        check_set("excluded nodes", &self.excluded, 64)
    }
}

#[cfg(test)]
mod tests;
