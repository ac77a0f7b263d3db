//! The node's side of [`web::Backend`]: what people may ask of this daemon.
//!
//! It decides nothing: a node that coordinates asks its ledger, another one asks the coordinator over the network and
//! hands the answer on.

mod artifacts;
mod asking;
mod difference;
mod duty;
mod group;
mod peers;
mod policies;
mod recipes;
mod service_log;
mod transparency;
mod upload;
mod witness;

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use ledger::News;
use protocol::{
    ChannelName, Hash, JobId, NodeId, OperatorName, Sha256, Timestamp, Verified,
    envelope::Signed,
    environment::EnvironmentLock,
    job::JobRequest,
    limits,
    message::{Octets, Refusal, Request, Response},
    release::Release,
    words::{RecipeName, RelativePath},
};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::broadcast,
};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use tracing::{info, warn};
use web::{
    Backend,
    api::{
        self, ApiError, ArtifactQuery, ArtifactView, BlobUsage, Coordination, DifferenceForm, DutyView, FileView,
        JobDetail, JobFilter, JobPage, Metrics, NetworkView, PackagePage, PeerDetail, PeerView, PolicyHistory,
        PolicyView, RebuilderView, RecipeView, RepositoryView, Status, Submitted, Time, WitnessAnswer,
    },
    backend::{ByteRange, ByteStream, Content, Follow, LogRequest, NewsStream},
};

use self::asking::OnBehalf;
use crate::{
    blobs, clock,
    daemon::{Decisions, Shared, bundle, chain, views},
    on_behalf::{Budget, Caller},
    serve::{Desk, signed_by_maintainer},
    tlog::Relay,
};

/// How long the coordinator may take to count jobs for this node's status.
const COUNTS_WITHIN: Duration = Duration::from_secs(3);
/// The largest log that is fetched, in bytes.
const LOG_MAX: u64 = 256 << 20;
/// Pieces of a file on their way to a client, in bytes.
const PIECE: usize = 64 * 1024;

/// The daemon, as people reach it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    desk: Desk,
    news: broadcast::Sender<Arc<News>>,
    relay: Relay,
    caller: Caller,
    on_behalf: Arc<OnBehalf>,
    stop: CancellationToken,
}

impl Handle {
    /// Makes the handle of a daemon's parts, for its owner.
    pub fn new(shared: Arc<Shared>, desk: Desk, news: broadcast::Sender<Arc<News>>, stop: CancellationToken) -> Self {
        let budget = Budget::new();
        let relay = Relay::new(Arc::clone(&shared), &budget);
        let on_behalf = Arc::new(OnBehalf::new(&shared, budget));
        Self { shared, desk, news, relay, caller: Caller::Owner, on_behalf, stop }
    }

    /// The same node as strangers reach it: what they make it ask of others is little.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self { caller: Caller::Stranger, ..self.clone() }
    }

    fn group_here(&self) -> Result<Decisions, ApiError> {
        self.desk.decisions().ok_or_else(|| ApiError::Refused {
            reason: "this node is no coordinator; ask one that the policy names".into(),
        })
    }

    /// Looks at the leader's ledger: here, while this node leads, else there. While nobody leads, a coordinator shows its own,
    /// which may be behind.
    async fn see<T>(
        &self,
        path: String,
        look: impl FnOnce(&ledger::Ledger) -> T + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let here = self.desk.decisions();
        let best = here.as_ref().is_some_and(|d| self.shared.leads().is_some() || d.standing().leader.is_none());
        if let Some(decisions) = here.as_ref().filter(|_| best) {
            return decisions.view(look).await.ok_or_else(stopping);
        }
        match (self.view(path).await, here) {
            (Err(ApiError::Unavailable { .. }), Some(decisions)) => decisions.view(look).await.ok_or_else(stopping),
            (answer, _) => answer,
        }
    }

    /// Offers what a job needs, as far as it lies here, under the job's name.
    async fn offer_inputs(&self, request: &Verified<JobRequest>) -> Result<(), ApiError> {
        let blobs = &self.shared.blobs;
        let job = protocol::job::job_id(request);
        let mut hashes = request.get().inputs();
        for id in request.get().locks() {
            let lock = blobs.read(&id, limits::LOCK_MAX as u64).await.map_err(|_| ApiError::Refused {
                reason: format!("the lock {id} of the job is not on this node; upload it first"),
            })?;
            let lock = EnvironmentLock::from_bytes(&lock).map_err(|e| ApiError::Refused { reason: e.to_string() })?;
            hashes.extend(lock.packages.iter().map(|p| p.hash));
        }
        if let Some(hash) = blobs.absent(&hashes).await.map_err(|e| internal("blobs", &e))?.first() {
            let reason = format!("input {hash} of the job is not on this node; upload it first");
            return Err(ApiError::Refused { reason });
        }
        let name = format!("job/{job}/inputs");
        self.shared.offer_all(&name, &hashes).await.map_err(|e| internal("blobs", &e))?;
        // The receipt promises that the job can be built, after a crash too.
        blobs.settle().await.map_err(|e| internal("blobs", &e))
    }

    /// Brings a finished log here, from its builder or whoever has it.
    async fn finished_log(&self, job: JobId, attempt: &api::AttemptView, hash: Hash) -> Result<(), ApiError> {
        if self.shared.offers.contains(&hash) {
            return Ok(());
        }
        let here = self.shared.blobs.size(&hash).await.map_err(|e| internal("blobs", &e))?;
        if here.is_some() {
            // A builder names its log; it must not name content that lies here for another reason.
            return Err(ApiError::NotFound { what: format!("log of attempt {}", attempt.number) });
        }
        let node = attempt.builder.node;
        let mut from = vec![node];
        from.extend(self.shared.net.peers().into_iter().map(|p| p.node).filter(|n| *n != node));
        from.retain(|n| *n != self.shared.id);
        self.fetch((hash, LOG_MAX), &from, &format!("job/{job}/{}-log", attempt.number)).await
    }

    async fn repository(&self, channel: &protocol::policy::Channel) -> Result<Option<RepositoryView>, ApiError> {
        if self.desk.root_of(&channel.name).is_none() {
            return Ok(None);
        }
        let name = channel.name.clone();
        let stored = self.shared.store.run(move |store| store.release(&name)).await;
        let Some(stored) = stored.map_err(|e| internal("store", &e))? else { return Ok(None) };
        let release = Signed::<Release>::read(&stored.bytes).and_then(|s| s.verify(Some(&self.shared.network)));
        let release = release.map_err(|e| internal("release", &e))?.into_inner();
        let stocked = self.desk.stocked(&channel.name).await;
        let (packages, fingerprints) =
            stocked.map_or_else(Default::default, |known| (known.packages, known.fingerprints));
        let valid_until = release.at.after(Duration::from_secs(channel.valid_secs.into()));
        Ok(Some(RepositoryView {
            channel: channel.name.clone(),
            suite: channel.suite.clone(),
            generation: release.generation,
            packages,
            published: Some(Time::from(release.at)),
            valid_until: Some(Time::from(valid_until)),
            manifest: Some(release.manifest),
            fingerprints,
        }))
    }
}

impl Backend for Handle {
    async fn status(&self) -> Result<Status, ApiError> {
        let shared = &self.shared;
        let policies = shared.policies();
        let policy = policies.current();
        let jobs = match self.desk.decisions() {
            Some(decisions) => decisions.view(views::counts).await.unwrap_or_default(),
            // A node whose coordinator cannot be reached still says what it is.
            None => tokio::time::timeout(COUNTS_WITHIN, self.view(views::COUNTS.to_owned()))
                .await
                .unwrap_or_else(|_| Ok(BTreeMap::new()))
                .unwrap_or_default(),
        };
        Ok(Status {
            at: Time::from(clock::now()),
            node: shared.id,
            network: NetworkView { id: shared.network, name: policy.name.to_string() },
            roles: shared.roles(&self.desk),
            coordinator: shared.leader(),
            policy: PolicyView { number: policy.number, expires: Time::from(policy.expires) },
            jobs,
            peers: shared.net.peers().len() as u64,
            blobs: BlobUsage { count: 0, bytes: shared.blobs.usage(), quota: shared.config.storage.quota_mib << 20 },
            repositories: self.repositories().await?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: clock::now().since(shared.began).as_secs(),
            addresses: shared.net.listen_addresses(),
            draining: self.desk.worker().and_then(|worker| worker.draining()),
            conflict: witness::view(shared),
            doubt: witness::doubt(shared),
            clock_behind: shared.clock_behind(),
        })
    }

    async fn submit(&self, request: Bytes) -> Result<Submitted, ApiError> {
        let refused = |reason: String| ApiError::Refused { reason };
        let verified: Verified<JobRequest> = Signed::read(&request)
            .and_then(|s| s.verify(Some(&self.shared.network)))
            .map_err(|e| refused(e.to_string()))?;
        signed_by_maintainer(&verified, self.shared.policies().current()).map_err(from_refusal)?;
        if verified.get().server().is_none() {
            self.offer_inputs(&verified).await?;
        }
        let response = self.hand_in(Request::Submit(Octets(request.to_vec()))).await?;
        let Response::Receipt(job, at) = response else { return Err(unexpected(&response)) };
        Ok(Submitted { job, accepted_at: Time::from(at) })
    }

    async fn order(&self, order: Bytes) -> Result<(), ApiError> {
        self.hand_in(Request::Order(Octets(order.to_vec()))).await.map(drop)
    }

    async fn keep_recipe(&self, recipe: Bytes) -> Result<(), ApiError> {
        self.hand_in(Request::Recipe(Octets(recipe.to_vec()))).await.map(drop)
    }

    async fn keep_run(&self, run: Bytes) -> Result<(), ApiError> {
        self.hand_in(Request::RecipeRun(Octets(run.to_vec()))).await.map(drop)
    }

    async fn recipes(&self) -> Result<Vec<RecipeView>, ApiError> {
        self.see(views::recipes::LIST.to_owned(), views::recipes::list).await
    }

    async fn recipe(&self, name: RecipeName) -> Result<RecipeView, ApiError> {
        let (path, wanted) = (views::recipes::path(&name), name.clone());
        let found = self.see(path, move |ledger| views::recipes::show(ledger, &wanted)).await?;
        found.ok_or_else(|| ApiError::NotFound { what: format!("recipe {name}") })
    }

    async fn bring(&self, job: JobId) -> Result<Vec<FileView>, ApiError> {
        recipes::bring(self, job).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, ApiError> {
        let path = views::jobs_path(&filter);
        self.see(path, move |ledger| views::page(ledger, &filter)).await
    }

    async fn job(&self, job: JobId) -> Result<JobDetail, ApiError> {
        let detail = self.see(format!("job/{job}"), move |ledger| views::detail(ledger, job)).await?;
        let mut detail = detail.ok_or_else(|| ApiError::NotFound { what: format!("job {job}") })?;
        self.desk.runs().show(&mut detail);
        Ok(detail)
    }

    async fn log(&self, request: LogRequest) -> Result<ByteStream, ApiError> {
        if self.job(request.job).await?.service.is_some() {
            return Ok(service_log::follow(self.clone(), request));
        }
        let state = LogState { handle: self.clone(), request, at: request.from, rest: None };
        find_attempt(self, &request).await?;
        Ok(stream::try_unfold(state, LogState::next).boxed())
    }

    async fn difference(&self, explanation: JobId, form: DifferenceForm) -> Result<Bytes, ApiError> {
        difference::read(self, explanation, form).await
    }

    async fn bundle(&self, job: JobId) -> Result<Bytes, ApiError> {
        let Some(decisions) = self.desk.decisions() else {
            return self.view_bytes(format!("bundle/{job}")).await;
        };
        let bytes = bundle(&self.shared, &decisions, job).await;
        bytes.map(Bytes::from).map_err(|reason| ApiError::NotFound { what: reason })
    }

    async fn artifacts(&self, wanted: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        artifacts::artifacts(self, wanted).await
    }

    async fn packages(&self, after: Option<String>) -> Result<PackagePage, ApiError> {
        artifacts::packages(self, after).await
    }

    async fn rebuilder(&self, operator: Option<OperatorName>) -> Result<RebuilderView, ApiError> {
        artifacts::rebuilder(self, operator)
    }

    async fn buildinfo(&self, job: JobId, operator: Option<OperatorName>) -> Result<Bytes, ApiError> {
        artifacts::buildinfo(self, job, operator).await
    }

    async fn log_file(&self, path: RelativePath) -> Result<Bytes, ApiError> {
        transparency::read(self, &path).await
    }

    async fn policy(&self) -> Result<Bytes, ApiError> {
        Ok(policies::newest(&self.shared))
    }

    async fn policies(&self) -> Result<PolicyHistory, ApiError> {
        policies::history(self).await
    }

    async fn adopt_policy(&self, policy: Bytes) -> Result<PolicyView, ApiError> {
        policies::adopt(self, policy).await
    }

    async fn peers(&self) -> Result<Vec<PeerView>, ApiError> {
        Ok(peers::list(&self.shared))
    }

    async fn peer(&self, node: NodeId) -> Result<PeerDetail, ApiError> {
        let found = self.see(views::peer_path(node), move |ledger| views::peer(ledger, node, clock::now())).await?;
        found.ok_or_else(|| ApiError::NotFound { what: format!("an operator that answers for node {}", node.short()) })
    }

    async fn repositories(&self) -> Result<Vec<RepositoryView>, ApiError> {
        let policies = self.shared.policies();
        let mut views = Vec::new();
        for channel in &policies.current().channels {
            views.extend(self.repository(channel).await?);
        }
        Ok(views)
    }

    async fn blob(&self, hash: Hash, range: ByteRange) -> Result<Content, ApiError> {
        let missing = || ApiError::NotFound { what: format!("blob {hash}") };
        // The store also holds what was just uploaded or half of a release; only what is offered is anybody's business.
        if !self.shared.offers.contains(&hash) {
            return Err(missing());
        }
        let size = self.shared.blobs.size(&hash).await.map_err(|e| internal("blobs", &e))?.ok_or_else(missing)?;
        let span = range.resolve(size)?;
        let bytes =
            self.shared.blobs.read_range(&hash, span.start..span.end).await.map_err(|e| internal("blobs", &e))?;
        let bytes = bytes.map(|piece| piece.map_err(|e| internal("blobs", &e))).boxed();
        Ok(Content { size, span, hash, modified: None, bytes })
    }

    async fn put_blob(&self, mut bytes: ByteStream, size: u64) -> Result<Hash, ApiError> {
        let folder = self.shared.home.uploads();
        let failed = |e: std::io::Error| internal("upload", &e);
        tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
        let name = crate::keys::random().map_err(|e| internal("random", &e))?;
        let path = folder.join(Hash::from_bytes(name).short() + &Hash::of(&name).short());
        let written = upload::write(&path, &mut bytes, size).await;
        let added = match written {
            Ok(()) => self.shared.blobs.add_file(&path, blobs::Import::Copy).await.map_err(|e| {
                if matches!(e, blobs::Error::QuotaExceeded { .. }) {
                    ApiError::Unavailable { reason: chain(&e) }
                } else {
                    internal("blobs", &e)
                }
            }),
            Err(error) => Err(error),
        };
        // The store has its own copy.
        let _ = tokio::fs::remove_file(&path).await;
        Ok(added?.0)
    }

    async fn repository_file(
        &self,
        channel: ChannelName,
        path: RelativePath,
        range: ByteRange,
    ) -> Result<Content, ApiError> {
        let missing = || ApiError::NotFound { what: format!("{channel}/{path}") };
        let full = self.desk.root_of(&channel).ok_or_else(missing)?.join(path.as_str());
        let mut file = tokio::fs::File::open(&full).await.map_err(|_| missing())?;
        let metadata = file.metadata().await.map_err(|e| internal("repository", &e))?;
        if !metadata.is_file() {
            return Err(missing());
        }
        let span = range.resolve(metadata.len())?;
        file.seek(std::io::SeekFrom::Start(span.start)).await.map_err(|e| internal("repository", &e))?;
        let modified = metadata.modified().ok().and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map(|d| Time::from(Timestamp::from_millis(d.as_secs() * 1000)));
        // The tag says which bytes: a name of a repository changes only by a rename. Numbers of files come back.
        let tag =
            format!("{path} {} {} {}.{:09}", metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        let reader = ReaderStream::with_capacity(file.take(span.length()), PIECE);
        let bytes = reader.map(|piece| piece.map_err(|e| internal("repository", &e))).boxed();
        Ok(Content { size: metadata.len(), span, hash: Hash::of(tag.as_bytes()), modified, bytes })
    }

    async fn news(&self) -> Result<NewsStream, ApiError> {
        let news = BroadcastStream::new(self.news.subscribe());
        // A reader that lags loses the oldest news and goes on.
        let news = news.filter_map(|item| async move { views::news(item.ok()?.as_ref(), clock::now()) });
        Ok(news.boxed())
    }

    async fn coordination(&self) -> Result<Coordination, ApiError> {
        Ok(group::view(&self.shared, self.desk.decisions().as_ref()))
    }

    async fn step_down(&self) -> Result<Coordination, ApiError> {
        let decisions = self.group_here()?;
        decisions.group().step_down().await.map_err(group::refusal)?;
        self.coordination().await
    }

    async fn transfer(&self, to: NodeId) -> Result<Coordination, ApiError> {
        let decisions = self.group_here()?;
        decisions.group().transfer(to).await.map_err(group::refusal)?;
        self.coordination().await
    }

    async fn drain(&self, reason: String) -> Result<DutyView, ApiError> {
        duty::set(&self.shared, &self.desk, ledger::Duty::Draining { reason }).await
    }

    async fn resume(&self) -> Result<DutyView, ApiError> {
        duty::set(&self.shared, &self.desk, ledger::Duty::Ready).await
    }

    async fn shutdown(&self) -> Result<(), ApiError> {
        info!("the owner asks to stop");
        self.stop.cancel();
        Ok(())
    }

    async fn add_checkpoint(&self, request: Bytes) -> Result<WitnessAnswer, ApiError> {
        witness::add_checkpoint(&self.shared, &request).await
    }

    async fn witnessed(&self, log: Sha256) -> Result<Bytes, ApiError> {
        witness::witnessed(&self.shared, log).await
    }

    async fn conflict(&self) -> Result<Bytes, ApiError> {
        witness::conflict(&self.shared)
    }

    async fn metrics(&self) -> Result<Metrics, ApiError> {
        let (jobs, leases) = match self.desk.decisions() {
            Some(decisions) => {
                decisions.view(|ledger| (views::counts(ledger), ledger.live_leases())).await.unwrap_or_default()
            }
            None => (BTreeMap::new(), 0),
        };
        Ok(Metrics {
            jobs,
            leases: leases as u64,
            peers: self.shared.net.peers().len() as u64,
            blob_bytes: self.shared.blobs.usage(),
            log_conflicts: u64::from(self.shared.alarm().is_some()),
            log_doubts: u64::from(witness::doubt(&self.shared).is_some()),
            relayed: self.on_behalf.count(),
            uptime_seconds: clock::now().since(self.shared.began).as_secs(),
        })
    }
}

/// A log on its way to a reader.
struct LogState {
    handle: Handle,
    request: LogRequest,
    at: u64,
    rest: Option<ByteStream>,
}

/// Finds the attempt whose log is wanted: the named one, or the newest.
async fn find_attempt(handle: &Handle, request: &LogRequest) -> Result<api::AttemptView, ApiError> {
    let detail = handle.job(request.job).await?;
    let wanted = |a: &&api::AttemptView| request.attempt.is_none_or(|number| a.number == number);
    let found = detail.attempts.iter().rev().find(wanted).cloned();
    found.ok_or_else(|| ApiError::NotFound { what: "an attempt with a log (nobody builds this job yet)".into() })
}

impl LogState {
    /// Gives the next piece: from the finished log when there is one, else live from the builder.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ApiError> {
        loop {
            if let Some(rest) = &mut self.rest {
                return Ok(rest.next().await.transpose()?.map(|piece| (piece, self)));
            }
            let (handle, request) = (self.handle.clone(), self.request);
            let Some(attempt) = handle.or_later(request.follow, find_attempt(&handle, &request).await)? else {
                tokio::time::sleep(handle.log_poll()).await;
                continue;
            };
            self.request.attempt = Some(attempt.number);
            if let Some(hash) = attempt.log {
                self.handle.finished_log(self.request.job, &attempt, hash).await?;
                let range = ByteRange::From { start: self.at, last: None };
                match self.handle.blob(hash, range).await {
                    Ok(content) => self.rest = Some(content.bytes),
                    Err(ApiError::Range { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                }
                continue;
            }
            let chunk = handle.log_chunk((attempt.builder.node, attempt.number), self.at).await;
            let Some(chunk) = handle.or_later(request.follow, chunk)? else {
                tokio::time::sleep(handle.log_poll()).await;
                continue;
            };
            let over = attempt.ended.is_some();
            let complete = chunk.as_ref().is_some_and(|(_, ended)| *ended);
            match (chunk, self.request.follow) {
                (Some((data, _)), _) if !data.is_empty() => {
                    self.at += data.len() as u64;
                    return Ok(Some((data, self)));
                }
                (_, Follow::No) => return Ok(None),
                (None, Follow::Yes) if over => return Ok(None),
                // It is built, and its log kept by the builder alone until it may show its result.
                (Some(_), Follow::Yes) if over && complete => return Ok(None),
                (Some(_) | None, Follow::Yes) => tokio::time::sleep(handle.log_poll()).await,
            }
        }
    }
}

fn unexpected(response: &Response) -> ApiError {
    let word: String = format!("{response:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
    ApiError::Unavailable { reason: format!("the coordinator answered {word}; does it run another version?") }
}

fn stopping() -> ApiError {
    ApiError::Unavailable { reason: "the daemon is stopping".into() }
}

fn from_refusal(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::NotCoordinator(_) => ApiError::Unavailable { reason: "the coordinator is changing".into() },
        Refusal::Unknown(what) => ApiError::NotFound { what },
        Refusal::Invalid(reason) => ApiError::Refused { reason },
        Refusal::NotAllowed(reason) => ApiError::NotAllowed { reason },
        Refusal::Busy(reason) => ApiError::Unavailable { reason },
    }
}

/// Logs what is nobody's business outside, and says only that it failed.
fn internal(part: &'static str, error: &dyn std::error::Error) -> ApiError {
    warn!(part, error = %chain(error), "request failed");
    ApiError::Internal
}
