//! The one door through which people reach a node.
//!
//! Three implementations: the node itself (in the process), `Client` (over HTTP or the unix socket) and
//! `testing::Fake`. A test written against `B: Backend` runs on all three.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use protocol::{
    ChannelName, Envelope, Hash, JobId, NodeId, OperatorName, Sha256, codec,
    job::Order,
    lease::LeaseNumber,
    words::{RecipeName, RelativePath},
};

use crate::api::{
    ApiError, ArtifactQuery, ArtifactView, Coordination, DifferenceForm, DutyView, FileView, JobDetail, JobFilter,
    JobPage, Metrics, News, PackagePage, PeerDetail, PeerView, PolicyView, RebuilderView, RecipeView, RepositoryView,
    Status, Submitted, Time, WitnessAnswer,
};

/// Bytes that arrive one piece after the other; an error ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// News that arrive as they happen.
pub type NewsStream = Pin<Box<dyn Stream<Item = News> + Send>>;

/// Which part of a content is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it.
    All,
    /// From `start` on; up to and including `last` where given.
    From {
        /// The first byte.
        start: u64,
        /// The last byte, when not the end.
        last: Option<u64>,
    },
    /// The last so many bytes.
    Last(u64),
}

/// A part of a content: `start` up to, but not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// One after the last byte.
    pub end: u64,
}

impl Span {
    /// Gives the number of bytes.
    pub const fn length(&self) -> u64 {
        self.end - self.start
    }
}

impl ByteRange {
    /// Finds the part in a content of `size` bytes (RFC 9110, 14.1.2).
    ///
    /// # Errors
    /// [`ApiError::Range`] when no byte of the content is in the range.
    pub fn resolve(self, size: u64) -> Result<Span, ApiError> {
        let span = match self {
            ByteRange::All => return Ok(Span { start: 0, end: size }),
            ByteRange::From { start, last } => {
                Span { start, end: last.map_or(size, |last| last.saturating_add(1).min(size)) }
            }
            ByteRange::Last(count) => Span { start: size.saturating_sub(count), end: size },
        };
        if span.start < span.end { Ok(span) } else { Err(ApiError::Range { size }) }
    }
}

/// A content, or a part of it, ready to be read. Nothing is read before the stream is polled.
pub struct Content {
    /// Size of the whole content in bytes.
    pub size: u64,
    /// The part that `bytes` gives.
    pub span: Span,
    /// The content's address: an equal hash is equal content.
    pub hash: Hash,
    /// When it became what it is; absent for blobs, which never change.
    pub modified: Option<Time>,
    /// The bytes of the part.
    pub bytes: ByteStream,
}

impl Content {
    /// Makes the content of bytes in memory; they are cut to the range.
    ///
    /// # Errors
    /// [`ApiError::Range`].
    pub fn of(bytes: &Bytes, range: ByteRange) -> Result<Self, ApiError> {
        let size = bytes.len() as u64;
        let span = range.resolve(size)?;
        let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.slice(cut(span.start)..cut(span.end));
        let stream = futures::stream::once(async move { Ok(part) }).boxed();
        Ok(Self { size, span, hash: Hash::of(bytes), modified: None, bytes: stream })
    }

    /// Reads all of it into memory, up to a limit.
    ///
    /// # Errors
    /// What the stream says, or [`ApiError::Refused`] when there is more than the limit.
    pub async fn collect(self, limit: usize) -> Result<Bytes, ApiError> {
        collect(self.bytes, limit).await
    }
}

/// Reads a stream into memory, up to a limit.
///
/// # Errors
/// What the stream says, or [`ApiError::Refused`] when there is more than the limit.
pub async fn collect(mut bytes: ByteStream, limit: usize) -> Result<Bytes, ApiError> {
    let mut all = bytes::BytesMut::new();
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        if all.len() + piece.len() > limit {
            return Err(ApiError::Refused { reason: format!("the content has more than {limit} bytes") });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// Which log to read, from where, and whether to stay for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRequest {
    /// The job.
    pub job: JobId,
    /// The attempt; absent means the newest one that has a log.
    pub attempt: Option<LeaseNumber>,
    /// The first byte wanted.
    pub from: u64,
    /// Whether the stream goes on until the attempt is over.
    pub follow: Follow,
}

/// Whether a log's stream waits for what is not yet written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// End with what is there.
    No,
    /// End when the attempt is over.
    Yes,
}

/// Reads which job a signed order names. Its signature is not checked here.
///
/// # Errors
/// [`ApiError::Refused`] when the bytes are no such order.
pub fn ordered_job(order: &[u8]) -> Result<JobId, ApiError> {
    let refused = |error: codec::DoorError| ApiError::Refused { reason: format!("not a signed order: {error}") };
    let envelope: Envelope = codec::decode(order, 64 * 1024).map_err(refused)?;
    let order: Order = codec::decode(&envelope.payload, 64 * 1024).map_err(refused)?;
    Ok(order.job)
}

/// What people may ask of a node. Futures may be dropped at any point; what is signed and accepted stays accepted.
///
/// Every call can fail with [`ApiError`]; the implementation logs what is internal and says only [`ApiError::Internal`].
pub trait Backend: Clone + Send + Sync + 'static {
    /// Says what this node is and does.
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;

    /// Submits a signed job request (envelope bytes); answers when it is durable. The same bytes twice are one job.
    fn submit(&self, request: Bytes) -> impl Future<Output = Result<Submitted, ApiError>> + Send;

    /// Cancels, suspends, resumes, retries or reprioritises a job by a signed order (envelope bytes), which names the job.
    fn order(&self, order: Bytes) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Has a signed recipe kept, or removed (envelope bytes); answers when it is durable.
    fn keep_recipe(&self, recipe: Bytes) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Has the signed record of a recipe's run kept (envelope bytes); answers when it is durable.
    fn keep_run(&self, run: Bytes) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Lists recipes, by name, without their runs.
    fn recipes(&self) -> impl Future<Output = Result<Vec<RecipeView>, ApiError>> + Send;

    /// Shows one recipe with its runs; a removed one too.
    fn recipe(&self, name: RecipeName) -> impl Future<Output = Result<RecipeView, ApiError>> + Send;

    /// Brings the agreed outputs of a reproduced job onto this node (owner only), and says what they are.
    fn bring(&self, job: JobId) -> impl Future<Output = Result<Vec<FileView>, ApiError>> + Send;

    /// Lists jobs, newest first.
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Result<JobPage, ApiError>> + Send;

    /// Shows one job.
    fn job(&self, job: JobId) -> impl Future<Output = Result<JobDetail, ApiError>> + Send;

    /// Streams the log of one attempt, from a byte on.
    fn log(&self, request: LogRequest) -> impl Future<Output = Result<ByteStream, ApiError>> + Send;

    /// Gives the comparison of an explanation, named by its id as a job, at most [`DifferenceForm::BYTES_MAX`] bytes.
    fn difference(
        &self,
        explanation: JobId,
        form: DifferenceForm,
    ) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Gives the bundle of evidence of a job, for an offline check.
    fn bundle(&self, job: JobId) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Finds files of jobs that have a verdict, at most [`ArtifactView::FOUND_MAX`]; none is no error.
    fn artifacts(&self, wanted: ArtifactQuery) -> impl Future<Output = Result<Vec<ArtifactView>, ApiError>> + Send;

    /// Lists Debian's binary packages, a page at a time: from the beginning, or after [`PackagePage::next`].
    fn packages(&self, after: Option<String>) -> impl Future<Output = Result<PackagePage, ApiError>> + Send;

    /// Gives an operator's keys as a rebuilder: the named one's, or those of the operator that answers for this node.
    fn rebuilder(&self, operator: Option<OperatorName>)
    -> impl Future<Output = Result<RebuilderView, ApiError>> + Send;

    /// Gives the `.buildinfo` that a builder's own build of a package wrote: of the named operator, or of one that agrees.
    fn buildinfo(
        &self,
        job: JobId,
        operator: Option<OperatorName>,
    ) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Gives what the transparency log serves under a path below its prefix (C2SP tlog-tiles).
    fn log_file(&self, path: RelativePath) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Gives the signed policy in force (envelope bytes).
    fn policy(&self) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Adopts a signed policy (envelope bytes).
    fn adopt_policy(&self, policy: Bytes) -> impl Future<Output = Result<PolicyView, ApiError>> + Send;

    /// Lists the nodes that this one knows.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerView>, ApiError>> + Send;

    /// Gives what a builder has shown, with the evidence for what keeps it from work.
    fn peer(&self, node: NodeId) -> impl Future<Output = Result<PeerDetail, ApiError>> + Send;

    /// Lists the repositories that this node serves.
    fn repositories(&self) -> impl Future<Output = Result<Vec<RepositoryView>, ApiError>> + Send;

    /// Gives content by hash, or a part of it.
    fn blob(&self, hash: Hash, range: ByteRange) -> impl Future<Output = Result<Content, ApiError>> + Send;

    /// Stores content of exactly `size` bytes (owner only) and gives its address.
    fn put_blob(&self, bytes: ByteStream, size: u64) -> impl Future<Output = Result<Hash, ApiError>> + Send;

    /// Gives one file of a repository, or a part of it.
    fn repository_file(
        &self,
        channel: ChannelName,
        path: RelativePath,
        range: ByteRange,
    ) -> impl Future<Output = Result<Content, ApiError>> + Send;

    /// Streams what happens to jobs from now on. A reader that is too slow loses the oldest news.
    fn news(&self) -> impl Future<Output = Result<NewsStream, ApiError>> + Send;

    /// Says who coordinates and how the group of coordinators is.
    fn coordination(&self) -> impl Future<Output = Result<Coordination, ApiError>> + Send;

    /// Gives the lead to another coordinator (owner of the leader only); answers once another leads.
    fn step_down(&self) -> impl Future<Output = Result<Coordination, ApiError>> + Send;

    /// Gives the lead to a certain coordinator (owner of the leader only); answers once it leads.
    fn transfer(&self, to: NodeId) -> impl Future<Output = Result<Coordination, ApiError>> + Send;

    /// Has this node take no new job, durably (owner of a builder only); what runs is finished.
    fn drain(&self, reason: String) -> impl Future<Output = Result<DutyView, ApiError>> + Send;

    /// Has this node take jobs again, durably (owner of a builder only).
    fn resume(&self) -> impl Future<Output = Result<DutyView, ApiError>> + Send;

    /// Asks the daemon to stop (owner only); answers before it has.
    fn shutdown(&self) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Answers a request to cosign a checkpoint (C2SP tlog-witness, `add-checkpoint`): refusals are answers, too.
    fn add_checkpoint(&self, request: Bytes) -> impl Future<Output = Result<WitnessAnswer, ApiError>> + Send;

    /// Gives the checkpoint that this node cosigned last of the log whose origin has this SHA-256.
    fn witnessed(&self, log: Sha256) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Gives the evidence that the network's log was forked, in its canonical bytes.
    fn conflict(&self) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Gives the node's figures.
    fn metrics(&self) -> impl Future<Output = Result<Metrics, ApiError>> + Send;
}
