//! A backend in memory, for tests of whoever speaks to a [`Backend`], and a sample network to look at.
//!
//! It keeps what it is given and checks signed requests with the real rules of `protocol`; it builds nothing and decides
//! nothing. Its clock stands still.

mod sample;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use protocol::{
    ChannelName, Hash, JobId, NetworkId, NodeId, OperatorName, Sha256, Signed, Timestamp,
    job::{self, Change, JobRequest, Order},
    lease::{LeaseNumber, Term},
    message::Octets,
    policy::Policy,
    recipe::{Recipe, RecipeRun},
    words::{RecipeName, RelativePath},
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use sample::{SampleJobs, detail, sample};

use crate::{
    api::{
        ApiError, ArtifactQuery, ArtifactView, Coordination, DifferenceForm, DrainRequest, DutyView, FileView,
        JobDetail, JobFilter, JobPage, JobState, JobSummary, Majority, MemberRole, MemberView, Metrics, News, Numbers,
        PackagePage, PackageView, PeerDetail, PeerView, PolicyHistory, PolicyRecord, PolicyView, RebuilderView,
        RecipeView, RepositoryView, Status, Submitted, Time, WitnessAnswer,
    },
    backend::{Backend, ByteRange, ByteStream, Content, Follow, LogRequest, NewsStream, collect},
};

/// News that a slow reader may fall behind.
const NEWS_CAPACITY: usize = 64;
/// The largest upload, in bytes.
const UPLOAD_MAX: u64 = 256 * 1024 * 1024;

/// Everything in memory; clones share it.
#[derive(Debug, Clone)]
pub struct Fake {
    network: NetworkId,
    at: Time,
    stopped: CancellationToken,
    news: broadcast::Sender<News>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    status: Status,
    coordination: Coordination,
    peers: Vec<PeerView>,
    /// Newest first.
    jobs: Vec<JobDetail>,
    logs: BTreeMap<(JobId, LeaseNumber), watch::Sender<Log>>,
    bundles: BTreeMap<JobId, Bytes>,
    blobs: BTreeMap<Hash, Bytes>,
    files: BTreeMap<(ChannelName, RelativePath), (Bytes, Time)>,
    policy: Bytes,
    rebuilders: Rebuilders,
    /// The transparency log's files, by path.
    transparency: BTreeMap<RelativePath, Bytes>,
    recipes: BTreeMap<RecipeName, RecipeView>,
}

/// What clients of rebuilders look at.
#[derive(Debug, Default)]
struct Rebuilders {
    artifacts: Vec<(ArtifactView, Option<PackageView>)>,
    packages: Vec<PackageView>,
    operators: Vec<RebuilderView>,
    buildinfos: BTreeMap<(JobId, OperatorName), Bytes>,
}

/// A log, and whether more will come.
#[derive(Debug, Clone)]
enum Log {
    Growing(Bytes),
    Complete(Bytes),
}

impl Fake {
    /// Makes a node that says this of itself. Requests must be signed for its network.
    pub fn new(status: Status) -> Self {
        let leader = status.coordinator.unwrap_or(status.node);
        let member = |node, role, applied| MemberView { node, role, log: Some(41), applied, ledger: None };
        let coordination = Coordination {
            at: status.at,
            term: Term(3),
            leader: Some(leader),
            since: Some(status.at),
            majority: Majority::Reachable,
            disk: None,
            members: vec![
                member(leader, MemberRole::Leader, Some(41)),
                member(crate::testing::other_coordinator(), MemberRole::Follower, None),
            ],
        };
        let state = State {
            coordination,
            peers: Vec::new(),
            jobs: Vec::new(),
            logs: BTreeMap::new(),
            bundles: BTreeMap::new(),
            blobs: BTreeMap::new(),
            files: BTreeMap::new(),
            policy: Bytes::new(),
            rebuilders: Rebuilders::default(),
            transparency: BTreeMap::new(),
            recipes: BTreeMap::new(),
            status: status.clone(),
        };
        Self {
            network: status.network.id,
            at: status.at,
            stopped: CancellationToken::new(),
            news: broadcast::channel(NEWS_CAPACITY).0,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Adds a job as the newest.
    pub fn add_job(&self, job: JobDetail) {
        self.state().jobs.insert(0, job);
    }

    /// Adds a peer.
    pub fn add_peer(&self, peer: PeerView) {
        self.state().peers.push(peer);
    }

    /// Adds content and gives its address.
    pub fn add_blob(&self, bytes: impl Into<Bytes>) -> Hash {
        let bytes = bytes.into();
        let hash = Hash::of(&bytes);
        self.state().blobs.insert(hash, bytes);
        hash
    }

    /// Adds a file to a repository.
    pub fn add_file(&self, channel: ChannelName, path: RelativePath, bytes: impl Into<Bytes>) {
        self.state().files.insert((channel, path), (bytes.into(), self.at));
    }

    /// Sets the bundle of a job.
    pub fn add_bundle(&self, job: JobId, bytes: impl Into<Bytes>) {
        self.state().bundles.insert(job, bytes.into());
    }

    /// Adds a file that operators attest, and the package that it is.
    pub fn add_artifact(&self, artifact: ArtifactView, package: Option<PackageView>) {
        let rebuilders = &mut self.state().rebuilders;
        rebuilders.packages.extend(package.clone());
        rebuilders.artifacts.push((artifact, package));
    }

    /// Adds a package of which nothing is attested.
    pub fn add_package(&self, package: PackageView) {
        self.state().rebuilders.packages.push(package);
    }

    /// Adds an operator with its keys; the first one answers for this node.
    pub fn add_rebuilder(&self, rebuilder: RebuilderView) {
        self.state().rebuilders.operators.push(rebuilder);
    }

    /// Sets what a builder's build wrote of itself.
    pub fn add_buildinfo(&self, job: JobId, operator: OperatorName, bytes: impl Into<Bytes>) {
        self.state().rebuilders.buildinfos.insert((job, operator), bytes.into());
    }

    /// Adds a file to the transparency log.
    pub fn add_log_file(&self, path: RelativePath, bytes: impl Into<Bytes>) {
        self.state().transparency.insert(path, bytes.into());
    }

    /// Says by how many milliseconds the coordinators' clocks are ahead.
    pub fn set_clock_behind(&self, millis: i64) {
        self.state().status.clock_behind = Some(millis);
    }

    /// Sets the signed policy.
    pub fn set_policy(&self, bytes: impl Into<Bytes>) {
        self.state().policy = bytes.into();
    }

    /// Appends to a log, which begins with the first piece.
    pub fn append_log(&self, job: JobId, attempt: LeaseNumber, piece: &[u8]) {
        let mut state = self.state();
        let log = state.logs.entry((job, attempt)).or_insert_with(|| watch::channel(Log::Growing(Bytes::new())).0);
        log.send_modify(|log| *log = Log::Growing([log.bytes(), piece].concat().into()));
    }

    /// Ends a log: nothing more will come.
    pub fn end_log(&self, job: JobId, attempt: LeaseNumber) {
        if let Some(log) = self.state().logs.get(&(job, attempt)) {
            log.send_modify(|log| *log = Log::Complete(Bytes::copy_from_slice(log.bytes())));
        }
    }

    /// Tells whoever listens. With no listener it is lost, as on a real node.
    pub fn announce(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// Is cancelled once somebody asked the node to stop.
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Log {
    fn bytes(&self) -> &[u8] {
        match self {
            Log::Growing(bytes) | Log::Complete(bytes) => bytes,
        }
    }
}

fn refused(error: impl std::fmt::Display) -> ApiError {
    ApiError::Refused { reason: error.to_string() }
}

fn not_found(what: impl Into<String>) -> ApiError {
    ApiError::NotFound { what: what.into() }
}

impl State {
    fn job(&mut self, id: &JobId) -> Result<&mut JobDetail, ApiError> {
        let found = self.jobs.iter_mut().find(|job| job.summary.id == *id);
        found.ok_or_else(|| not_found(format!("job {}", id.short())))
    }

    fn counts(&self) -> BTreeMap<JobState, u64> {
        let mut counts = BTreeMap::new();
        for job in &self.jobs {
            *counts.entry(job.summary.state).or_insert(0) += 1;
        }
        counts
    }

    fn leases(&self) -> u64 {
        self.jobs.iter().flat_map(|job| &job.attempts).filter(|a| a.ended.is_none()).count() as u64
    }

    fn duty(&self) -> DutyView {
        DutyView { draining: self.status.draining.clone(), running: self.leases() }
    }

    fn blob_bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.len() as u64).sum()
    }
}

/// Gives what a log holds from a byte on, and what is appended while `follow` says to stay.
fn follow_log(log: watch::Receiver<Log>, from: u64, follow: Follow) -> ByteStream {
    let start = usize::try_from(from).unwrap_or(usize::MAX);
    stream::unfold((log, start), move |(mut log, at)| async move {
        loop {
            let now = log.borrow_and_update().clone();
            if let Some(piece) = now.bytes().get(at..).filter(|piece| !piece.is_empty()) {
                let next = at + piece.len();
                return Some((Ok(Bytes::copy_from_slice(piece)), (log, next)));
            }
            match (now, follow) {
                (Log::Complete(_), _) | (_, Follow::No) => return None,
                (Log::Growing(_), Follow::Yes) => log.changed().await.ok()?,
            }
        }
    })
    .boxed()
}

impl Backend for Fake {
    async fn status(&self) -> Result<Status, ApiError> {
        let state = self.state();
        Ok(Status { jobs: state.counts(), ..state.status.clone() })
    }

    async fn submit(&self, request: Bytes) -> Result<Submitted, ApiError> {
        let signed = Signed::<JobRequest>::read(&request).map_err(refused)?;
        let request = signed.verify(Some(&self.network)).map_err(refused)?;
        let id = job::job_id(&request);
        if let Ok(job) = self.state().job(&id) {
            return Ok(Submitted { job: id, accepted_at: job.summary.accepted });
        }
        self.add_job(detail(id, request.get(), self.at));
        Ok(Submitted { job: id, accepted_at: self.at })
    }

    async fn order(&self, order: Bytes) -> Result<(), ApiError> {
        let signed = Signed::<Order>::read(&order).map_err(refused)?;
        let order = signed.verify(Some(&self.network)).map_err(refused)?.into_inner();
        let mut state = self.state();
        let job = state.job(&order.job)?;
        if job.summary.state.is_over() && order.what != Change::Retry {
            return Err(refused(format!("the job is {} already", job.summary.state)));
        }
        let (next, ended) = match order.what {
            Change::Cancel => (JobState::Cancelled, Some(self.at)),
            Change::Suspend | Change::Resume | Change::Retry => (JobState::Waiting, None),
            Change::Reprioritise(_) => (job.summary.state, None),
        };
        (job.summary.state, job.summary.ended) = (next, ended);
        job.summary.why.clone_from(&order.reason);
        drop(state);
        self.announce(News { at: self.at, job: order.job, state: next, text: order.reason });
        Ok(())
    }

    async fn keep_recipe(&self, envelope: Bytes) -> Result<(), ApiError> {
        let signed = Signed::<Recipe>::read(&envelope).map_err(refused)?;
        let recipe = signed.verify(Some(&self.network)).map_err(refused)?.into_inner();
        let mut state = self.state();
        let (runs, envelopes) = (Vec::new(), vec![Octets(envelope.to_vec())]);
        let new = RecipeView { recipe: recipe.clone(), runs, envelopes };
        let kept = state.recipes.entry(recipe.name.clone()).or_insert(new);
        (kept.recipe, kept.envelopes[0]) = (recipe, Octets(envelope.to_vec()));
        Ok(())
    }

    async fn keep_run(&self, envelope: Bytes) -> Result<(), ApiError> {
        let signed = Signed::<RecipeRun>::read(&envelope).map_err(refused)?;
        let run = signed.verify(Some(&self.network)).map_err(refused)?.into_inner();
        let mut state = self.state();
        let kept = state.recipes.get_mut(&run.recipe).ok_or_else(|| not_found(format!("recipe {}", run.recipe)))?;
        kept.runs.push(run);
        kept.envelopes.push(Octets(envelope.to_vec()));
        Ok(())
    }

    async fn recipes(&self) -> Result<Vec<RecipeView>, ApiError> {
        let state = self.state();
        let listed = state.recipes.values().filter(|kept| kept.recipe.plan.is_some());
        Ok(listed.map(|kept| RecipeView { runs: Vec::new(), envelopes: Vec::new(), ..kept.clone() }).collect())
    }

    async fn recipe(&self, name: RecipeName) -> Result<RecipeView, ApiError> {
        self.state().recipes.get(&name).cloned().ok_or_else(|| not_found(format!("recipe {name}")))
    }

    async fn bring(&self, job: JobId) -> Result<Vec<FileView>, ApiError> {
        let detail = self.job(job).await?;
        if detail.summary.state != JobState::Reproduced {
            return Err(refused("the job is not reproduced"));
        }
        Ok(detail.attempts.into_iter().next().map(|attempt| attempt.outputs).unwrap_or_default())
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, ApiError> {
        let state = self.state();
        let start = match filter.after {
            None => 0,
            Some(after) => state.jobs.iter().position(|job| job.summary.id == after).map_or(usize::MAX, |at| at + 1),
        };
        let mut rest = state.jobs.iter().skip(start).map(|job| &job.summary).filter(|job| filter.matches(job));
        let jobs: Vec<JobSummary> = rest.by_ref().take(filter.limit()).cloned().collect();
        let next = rest.next().and(jobs.last()).map(|job| job.id);
        Ok(JobPage { jobs, next })
    }

    async fn job(&self, job: JobId) -> Result<JobDetail, ApiError> {
        self.state().job(&job).cloned()
    }

    async fn log(&self, request: LogRequest) -> Result<ByteStream, ApiError> {
        let mut state = self.state();
        state.job(&request.job)?;
        let mut logs = state.logs.iter().filter(|((job, _), _)| *job == request.job);
        let log = match request.attempt {
            None => logs.next_back(),
            Some(number) => logs.find(|((_, attempt), _)| *attempt == number),
        };
        let (_, log) = log.ok_or_else(|| not_found("a log of this attempt"))?;
        Ok(follow_log(log.subscribe(), request.from, request.follow))
    }

    async fn difference(&self, explanation: JobId, form: DifferenceForm) -> Result<Bytes, ApiError> {
        let state = self.state();
        let known = state.jobs.iter().flat_map(|job| &job.explanations).find(|known| known.id == explanation);
        let hash = known.and_then(|known| known.hash(form));
        let bytes = hash.and_then(|hash| state.blobs.get(&hash).cloned());
        bytes.ok_or_else(|| not_found(format!("a comparison of job {}", explanation.short())))
    }

    async fn bundle(&self, job: JobId) -> Result<Bytes, ApiError> {
        self.state().bundles.get(&job).cloned().ok_or_else(|| not_found(format!("a bundle of job {}", job.short())))
    }

    async fn artifacts(&self, wanted: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        let state = self.state();
        let matches = |(artifact, package): &&(ArtifactView, Option<PackageView>)| match &wanted {
            ArtifactQuery::Digest(sha256) => artifact.sha256 == *sha256,
            ArtifactQuery::Numbers(numbers) => Numbers::of(&artifact.sha256) == *numbers,
            ArtifactQuery::Package { name, version, architecture } => package.as_ref().is_some_and(|package| {
                (package.name.as_str(), package.version.as_str(), package.architecture)
                    == (name.as_str(), version.as_str(), *architecture)
            }),
        };
        Ok(state.rebuilders.artifacts.iter().filter(matches).map(|(artifact, _)| artifact.clone()).collect())
    }

    async fn packages(&self, after: Option<String>) -> Result<PackagePage, ApiError> {
        let state = self.state();
        let start = after.map_or(Ok(0), |after| after.parse::<usize>()).map_err(refused)?;
        let rest = state.rebuilders.packages.get(start..).unwrap_or_default();
        let packages: Vec<_> = rest.iter().take(PackagePage::PACKAGES_MAX).cloned().collect();
        let next = (packages.len() < rest.len()).then(|| (start + packages.len()).to_string());
        Ok(PackagePage { packages, next })
    }

    async fn rebuilder(&self, operator: Option<OperatorName>) -> Result<RebuilderView, ApiError> {
        let state = self.state();
        let mut known = state.rebuilders.operators.iter();
        let found = known.find(|known| operator.as_ref().is_none_or(|wanted| known.operator == *wanted));
        found.cloned().ok_or_else(|| not_found("an operator of this name"))
    }

    async fn buildinfo(&self, job: JobId, operator: Option<OperatorName>) -> Result<Bytes, ApiError> {
        let state = self.state();
        let mut all = state.rebuilders.buildinfos.iter();
        let wanted = |(of, by): &(JobId, OperatorName)| *of == job && operator.as_ref().is_none_or(|name| by == name);
        let found = all.find(|(key, _)| wanted(key)).map(|(_, bytes)| bytes.clone());
        found.ok_or_else(|| not_found("a .buildinfo of this job"))
    }

    async fn log_file(&self, path: RelativePath) -> Result<Bytes, ApiError> {
        self.state().transparency.get(&path).cloned().ok_or_else(|| not_found(format!("{path} of the log")))
    }

    async fn policy(&self) -> Result<Bytes, ApiError> {
        Ok(self.state().policy.clone())
    }

    async fn policies(&self) -> Result<PolicyHistory, ApiError> {
        let state = self.state();
        let PolicyView { number, expires } = state.status.policy;
        let envelope = Octets(state.policy.to_vec());
        let record = PolicyRecord { number, place: Some(0), since: None, expires, signers: Vec::new(), envelope };
        Ok(PolicyHistory { log_size: Some(1), policies: vec![record] })
    }

    async fn adopt_policy(&self, policy: Bytes) -> Result<PolicyView, ApiError> {
        let signed = Signed::<Policy>::read(&policy).map_err(refused)?;
        let verified = signed.verify(Some(&self.network)).map_err(refused)?;
        let mut state = self.state();
        let view = PolicyView { number: verified.get().number, expires: Time::from(verified.get().expires) };
        if view.number <= state.status.policy.number {
            return Err(refused(format!("policy number {} is not above {}", view.number, state.status.policy.number)));
        }
        state.status.policy = view;
        state.policy = policy;
        Ok(view)
    }

    async fn peers(&self) -> Result<Vec<PeerView>, ApiError> {
        Ok(self.state().peers.clone())
    }

    async fn peer(&self, node: NodeId) -> Result<PeerDetail, ApiError> {
        let known = self.state().peers.iter().find(|peer| peer.node == node).and_then(|peer| peer.operator.clone());
        let operator = known.ok_or_else(|| not_found(format!("an operator for node {}", node.short())))?;
        Ok(PeerDetail { node, operator, breach: None, classes: Vec::new() })
    }

    async fn repositories(&self) -> Result<Vec<RepositoryView>, ApiError> {
        Ok(self.state().status.repositories.clone())
    }

    async fn blob(&self, hash: Hash, range: ByteRange) -> Result<Content, ApiError> {
        let blob = self.state().blobs.get(&hash).cloned();
        Content::of(&blob.ok_or_else(|| not_found(format!("blob {}", hash.short())))?, range)
    }

    async fn put_blob(&self, bytes: ByteStream, size: u64) -> Result<Hash, ApiError> {
        let limit = usize::try_from(size.min(UPLOAD_MAX)).unwrap_or(usize::MAX);
        let bytes = collect(bytes, limit).await?;
        if bytes.len() as u64 != size {
            return Err(refused(format!("{} bytes came, {size} were declared", bytes.len())));
        }
        Ok(self.add_blob(bytes))
    }

    async fn repository_file(
        &self,
        channel: ChannelName,
        path: RelativePath,
        range: ByteRange,
    ) -> Result<Content, ApiError> {
        let file = self.state().files.get(&(channel, path.clone())).cloned();
        let (bytes, modified) = file.ok_or_else(|| not_found(format!("file {path}")))?;
        Ok(Content { modified: Some(modified), ..Content::of(&bytes, range)? })
    }

    async fn news(&self) -> Result<NewsStream, ApiError> {
        let news = stream::unfold(self.news.subscribe(), |mut news| async move {
            loop {
                match news.recv().await {
                    Ok(item) => return Some((item, news)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(news.boxed())
    }

    async fn coordination(&self) -> Result<Coordination, ApiError> {
        Ok(self.state().coordination.clone())
    }

    async fn step_down(&self) -> Result<Coordination, ApiError> {
        let other = self.state().coordination.members.iter().find(|m| m.role == MemberRole::Follower).map(|m| m.node);
        match other {
            Some(node) => self.transfer(node).await,
            None => Err(ApiError::Refused { reason: "there is no other coordinator".to_owned() }),
        }
    }

    async fn transfer(&self, to: NodeId) -> Result<Coordination, ApiError> {
        let mut state = self.state();
        let coordination = &mut state.coordination;
        if !coordination.members.iter().any(|m| m.node == to) {
            return Err(ApiError::Refused { reason: format!("{to} is no coordinator") });
        }
        for member in &mut coordination.members {
            member.role = if member.node == to { MemberRole::Leader } else { MemberRole::Follower };
        }
        (coordination.leader, coordination.term) = (Some(to), Term(coordination.term.0 + 1));
        Ok(coordination.clone())
    }

    async fn drain(&self, reason: String) -> Result<DutyView, ApiError> {
        let asked = DrainRequest { reason };
        asked.check()?;
        let mut state = self.state();
        state.status.draining = Some(asked.reason);
        Ok(state.duty())
    }

    async fn resume(&self) -> Result<DutyView, ApiError> {
        let mut state = self.state();
        state.status.draining = None;
        Ok(state.duty())
    }

    async fn shutdown(&self) -> Result<(), ApiError> {
        self.stopped.cancel();
        Ok(())
    }

    async fn add_checkpoint(&self, _: Bytes) -> Result<WitnessAnswer, ApiError> {
        let (content_type, body) = ("text/plain; charset=utf-8".to_owned(), "no log is known here\n".to_owned());
        Ok(WitnessAnswer { status: 404, content_type, body })
    }

    async fn witnessed(&self, log: Sha256) -> Result<Bytes, ApiError> {
        Err(not_found(format!("a checkpoint of log {log}")))
    }

    async fn conflict(&self) -> Result<Bytes, ApiError> {
        let found = self.state().status.conflict.as_ref().map(|conflict| Bytes::from(conflict.evidence.to_string()));
        found.ok_or_else(|| not_found("evidence against the log".to_owned()))
    }

    async fn metrics(&self) -> Result<Metrics, ApiError> {
        let state = self.state();
        Ok(Metrics {
            jobs: state.counts(),
            leases: state.leases(),
            peers: state.status.peers,
            blob_bytes: state.blob_bytes(),
            log_conflicts: u64::from(state.status.conflict.is_some()),
            log_doubts: u64::from(state.status.doubt.is_some()),
            relayed: 0,
            uptime_seconds: state.status.uptime_seconds,
        })
    }
}

/// Gives the coordinator of the samples that follows.
pub fn other_coordinator() -> NodeId {
    protocol::testing::node(8)
}

/// Gives an instant of the samples: so many seconds after 2026-11-21T10:00:00Z.
pub fn at(seconds: u64) -> Time {
    Time::from(Timestamp::from_millis((1_795_255_200 + seconds) * 1000))
}
