//! The client: a [`Backend`] over `http://host:port` or `unix:/path`. What the command line uses.
//!
//! Every answer has a largest size and every wait for one an end; it follows no redirects and keeps nothing on disk.

mod address;
mod connect;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, header};
use hyper_util::{client::legacy, rt::TokioExecutor};
use protocol::{
    ChannelName, Hash, JobId, NodeId, OperatorName, Sha256,
    words::{RecipeName, RelativePath},
};
use serde::de::DeserializeOwned;

pub use address::{Address, AddressError};
use connect::Connector;

use crate::{
    api::{
        ApiError, ArtifactQuery, ArtifactView, Coordination, DifferenceForm, DrainRequest, DutyView, ErrorBody,
        FileView, JobDetail, JobFilter, JobPage, Metrics, News, PackagePage, PeerDetail, PeerView, PolicyHistory,
        PolicyView, RebuilderView, RecipeView, RepositoryView, Status, Stored, Submitted, Time, WitnessAnswer,
        percent_encode,
    },
    backend::{Backend, ByteRange, ByteStream, Content, Follow, LogRequest, NewsStream, Span, collect, ordered_job},
    server::SHUTDOWN,
};

/// The largest JSON answer, in bytes: a page of 1,000 jobs, or one job with every attempt and file.
const JSON_MAX: usize = 16 * 1024 * 1024;
/// The largest bundle, in bytes.
const BUNDLE_MAX: usize = 64 * 1024 * 1024;
/// The largest `.buildinfo`, in bytes.
const BUILDINFO_MAX: usize = 1024 * 1024;
/// The largest checkpoint or evidence against a log, in bytes.
const EVIDENCE_MAX: usize = 4 * 1024 * 1024;
/// The largest file of a transparency log, in bytes: 256 entries of 64 KiB.
const LOG_FILE_MAX: usize = 256 * (64 * 1024 + 2);
/// The largest error, in bytes.
const ERROR_MAX: usize = 64 * 1024;
/// The longest line of news, in bytes.
const LINE_MAX: usize = 64 * 1024;
/// How long a node may take to bring outputs from their builders.
const BRING_TIME: Duration = Duration::from_secs(900);
/// How long the head of an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A connection to a daemon; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: legacy::Client<Connector, Body>,
    address: Address,
}

impl Client {
    /// Makes a client; nothing is dialled before the first call.
    pub fn new(address: Address) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build(Connector::new(address.clone()));
        Self { http, address }
    }

    /// Makes a client of the daemon behind a control socket.
    pub fn at_socket(path: impl Into<std::path::PathBuf>) -> Self {
        Self::new(Address::Unix(path.into()))
    }

    /// Gives the address of the page of a job, where a browser can open it.
    pub fn job_page(&self, job: &JobId) -> Option<String> {
        self.address.authority().map(|authority| format!("http://{authority}/jobs/{job}"))
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap, body: Body) -> Request<Body> {
        let authority = self.address.authority().unwrap_or("localhost");
        let uri = format!("http://{authority}{path}");
        let mut request = Request::builder().method(method).uri(uri).body(body).expect("paths are made of valid words");
        request.headers_mut().extend(headers);
        request
    }

    async fn send(&self, request: Request<Body>, patience: Duration) -> Result<Response<ByteStream>, ApiError> {
        let answer = self.send_any(request, patience).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(failure(answer).await) }
    }

    /// As [`Client::send`], where the status is the caller's business.
    async fn send_any(&self, request: Request<Body>, patience: Duration) -> Result<Response<ByteStream>, ApiError> {
        let unreachable = |why: String| ApiError::Unreachable { reason: format!("{}: {why}", self.address) };
        let answer = match tokio::time::timeout(patience, self.http.request(request)).await {
            Err(_) => return Err(unreachable(format!("no answer within {} s", patience.as_secs()))),
            Ok(Err(error)) => return Err(unreachable(innermost(&error))),
            Ok(Ok(answer)) => answer,
        };
        let address = self.address.to_string();
        Ok(answer.map(|body| -> ByteStream {
            let broken = move |_| ApiError::Unreachable { reason: format!("{address}: the answer broke off") };
            Body::new(body).into_data_stream().map(move |piece| piece.map_err(&broken)).boxed()
        }))
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response<ByteStream>, ApiError> {
        self.send(self.request(Method::GET, path, headers, Body::empty()), ANSWER_TIME).await
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        json(self.get(path, HeaderMap::new()).await?).await
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<Response<ByteStream>, ApiError> {
        self.send(self.request(Method::POST, path, HeaderMap::new(), Body::from(body)), ANSWER_TIME).await
    }

    async fn content(&self, path: &str, range: ByteRange) -> Result<Content, ApiError> {
        let mut headers = HeaderMap::new();
        let wanted = match range {
            ByteRange::All => None,
            ByteRange::From { start, last } => {
                Some(format!("bytes={start}-{}", last.map(|l| l.to_string()).unwrap_or_default()))
            }
            ByteRange::Last(count) => Some(format!("bytes=-{count}")),
        };
        if let Some(wanted) = wanted {
            headers.insert(header::RANGE, wanted.parse().expect("digits are valid in a header"));
        }
        let answer = self.get(path, headers).await?;
        read_content(answer).ok_or_else(|| not_artel("content without size or address"))
    }
}

/// Reads size, span, address and age from the headers of an answer.
fn read_content(answer: Response<ByteStream>) -> Option<Content> {
    let text = |name| answer.headers().get(name)?.to_str().ok();
    let length: u64 = text(header::CONTENT_LENGTH)?.parse().ok()?;
    let hash = text(header::ETAG)?.trim_matches('"').parse().ok()?;
    let modified = text(header::LAST_MODIFIED).and_then(Time::from_http_date);
    let (span, size) = match text(header::CONTENT_RANGE) {
        None => (Span { start: 0, end: length }, length),
        Some(range) => {
            let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
            let (start, last) = range.split_once('-')?;
            let (start, last): (u64, u64) = (start.parse().ok()?, last.parse().ok()?);
            (Span { start, end: last.checked_add(1).filter(|end| *end >= start)? }, size.parse().ok()?)
        }
    };
    Some(Content { size, span, hash, modified, bytes: answer.into_body() })
}

fn not_artel(what: &str) -> ApiError {
    ApiError::Unreachable { reason: format!("what answers there is no artel daemon of this version ({what})") }
}

async fn json<T: DeserializeOwned>(answer: Response<ByteStream>) -> Result<T, ApiError> {
    let bytes = collect(answer.into_body(), JSON_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| not_artel(&error.to_string()))
}

async fn failure(answer: Response<ByteStream>) -> ApiError {
    let status = answer.status().as_u16();
    let bytes = collect(answer.into_body(), ERROR_MAX).await.unwrap_or_default();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let error = format!("status {status} without an explanation");
        ErrorBody { error, hint: String::new(), detail: String::new() }
    });
    ApiError::from_response(status, body)
}

fn of(operator: Option<&OperatorName>) -> String {
    operator.map(|name| format!("?operator={}", percent_encode(name.as_str()))).unwrap_or_default()
}

/// Gives the cause at the bottom: `connection refused` says more than `client error`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Cuts a stream of JSON lines into values; a line that cannot be read ends it.
fn lines<T: DeserializeOwned + Send + 'static>(bytes: ByteStream) -> impl Stream<Item = T> + Send {
    stream::unfold((bytes, Vec::new()), |(mut bytes, mut rest): (ByteStream, Vec<u8>)| async move {
        loop {
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                return serde_json::from_slice(&line).ok().map(|value| (value, (bytes, rest)));
            }
            if rest.len() > LINE_MAX {
                return None;
            }
            rest.extend_from_slice(&bytes.next().await?.ok()?);
        }
    })
}

impl Backend for Client {
    async fn status(&self) -> Result<Status, ApiError> {
        self.get_json("/api/v1/status").await
    }

    async fn submit(&self, request: Bytes) -> Result<Submitted, ApiError> {
        json(self.post("/api/v1/jobs", request).await?).await
    }

    async fn order(&self, order: Bytes) -> Result<(), ApiError> {
        let job = ordered_job(&order)?;
        self.post(&format!("/api/v1/jobs/{job}/orders"), order).await.map(drop)
    }

    async fn keep_recipe(&self, recipe: Bytes) -> Result<(), ApiError> {
        self.post("/api/v1/recipes", recipe).await.map(drop)
    }

    async fn keep_run(&self, run: Bytes) -> Result<(), ApiError> {
        self.post("/api/v1/recipe-runs", run).await.map(drop)
    }

    async fn recipes(&self) -> Result<Vec<RecipeView>, ApiError> {
        self.get_json("/api/v1/recipes").await
    }

    async fn recipe(&self, name: RecipeName) -> Result<RecipeView, ApiError> {
        self.get_json(&format!("/api/v1/recipes/{name}")).await
    }

    async fn bring(&self, job: JobId) -> Result<Vec<FileView>, ApiError> {
        let path = format!("/api/v1/jobs/{job}/outputs");
        json(self.send(self.request(Method::POST, &path, HeaderMap::new(), Body::empty()), BRING_TIME).await?).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, ApiError> {
        self.get_json(&format!("/api/v1/jobs?{}", filter.to_query())).await
    }

    async fn job(&self, job: JobId) -> Result<JobDetail, ApiError> {
        self.get_json(&format!("/api/v1/jobs/{job}")).await
    }

    async fn log(&self, request: LogRequest) -> Result<ByteStream, ApiError> {
        let mut path = format!("/api/v1/jobs/{}/log?from={}", request.job, request.from);
        if let Some(number) = request.attempt {
            path += &format!("&attempt={number}");
        }
        if request.follow == Follow::Yes {
            path += "&follow=1";
        }
        Ok(self.get(&path, HeaderMap::new()).await?.into_body())
    }

    async fn difference(&self, explanation: JobId, form: DifferenceForm) -> Result<Bytes, ApiError> {
        let answer = self.get(&form.address(&explanation), HeaderMap::new()).await?;
        collect(answer.into_body(), DifferenceForm::BYTES_MAX).await
    }

    async fn bundle(&self, job: JobId) -> Result<Bytes, ApiError> {
        let answer = self.get(&format!("/api/v1/jobs/{job}/bundle"), HeaderMap::new()).await?;
        collect(answer.into_body(), BUNDLE_MAX).await
    }

    async fn artifacts(&self, wanted: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        self.get_json(&format!("/api/v1/artifacts?{}", wanted.to_query())).await
    }

    async fn packages(&self, after: Option<String>) -> Result<PackagePage, ApiError> {
        let query = after.map(|after| format!("?after={}", percent_encode(&after))).unwrap_or_default();
        self.get_json(&format!("/api/v1/packages{query}")).await
    }

    async fn rebuilder(&self, operator: Option<OperatorName>) -> Result<RebuilderView, ApiError> {
        self.get_json(&format!("/api/v1/rebuilder{}", of(operator.as_ref()))).await
    }

    async fn buildinfo(&self, job: JobId, operator: Option<OperatorName>) -> Result<Bytes, ApiError> {
        let path = format!("/api/v1/jobs/{job}/buildinfo{}", of(operator.as_ref()));
        collect(self.get(&path, HeaderMap::new()).await?.into_body(), BUILDINFO_MAX).await
    }

    async fn log_file(&self, path: RelativePath) -> Result<Bytes, ApiError> {
        let answer = self.get(&format!("/log/{path}"), HeaderMap::new()).await?;
        collect(answer.into_body(), LOG_FILE_MAX).await
    }

    async fn policy(&self) -> Result<Bytes, ApiError> {
        let answer = self.get("/api/v1/policy", HeaderMap::new()).await?;
        collect(answer.into_body(), 2 * protocol::limits::POLICY_MAX).await
    }

    async fn policies(&self) -> Result<PolicyHistory, ApiError> {
        self.get_json("/api/v1/policies").await
    }

    async fn adopt_policy(&self, policy: Bytes) -> Result<PolicyView, ApiError> {
        json(self.post("/api/v1/policy", policy).await?).await
    }

    async fn peers(&self) -> Result<Vec<PeerView>, ApiError> {
        self.get_json("/api/v1/peers").await
    }

    async fn peer(&self, node: NodeId) -> Result<PeerDetail, ApiError> {
        self.get_json(&format!("/api/v1/peers/{node}")).await
    }

    async fn repositories(&self) -> Result<Vec<RepositoryView>, ApiError> {
        self.get_json("/api/v1/repositories").await
    }

    async fn blob(&self, hash: Hash, range: ByteRange) -> Result<Content, ApiError> {
        self.content(&format!("/api/v1/blobs/{hash}"), range).await
    }

    async fn put_blob(&self, bytes: ByteStream, size: u64) -> Result<Hash, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, size.into());
        let request = self.request(Method::POST, "/api/v1/blobs", headers, Body::from_stream(bytes));
        // An upload takes as long as it takes; the server ends one that stops moving.
        let stored: Stored = json(self.send(request, Duration::MAX).await?).await?;
        Ok(stored.hash)
    }

    async fn repository_file(
        &self,
        channel: ChannelName,
        path: RelativePath,
        range: ByteRange,
    ) -> Result<Content, ApiError> {
        let path = path.as_str().replace('%', "%25");
        self.content(&format!("/repo/{channel}/{path}"), range).await
    }

    async fn news(&self) -> Result<NewsStream, ApiError> {
        let answer = self.get("/api/v1/news", HeaderMap::new()).await?;
        Ok(lines::<News>(answer.into_body()).boxed())
    }

    async fn coordination(&self) -> Result<Coordination, ApiError> {
        self.get_json("/api/v1/coordination").await
    }

    async fn step_down(&self) -> Result<Coordination, ApiError> {
        json(self.post("/api/v1/coordination/step-down", Bytes::new()).await?).await
    }

    async fn transfer(&self, to: NodeId) -> Result<Coordination, ApiError> {
        json(self.post(&format!("/api/v1/coordination/transfer/{to}"), Bytes::new()).await?).await
    }

    async fn drain(&self, reason: String) -> Result<DutyView, ApiError> {
        let asked = DrainRequest { reason };
        asked.check()?;
        let body = serde_json::to_vec(&asked).expect("a reason is plain data");
        json(self.post("/api/v1/drain", body.into()).await?).await
    }

    async fn resume(&self) -> Result<DutyView, ApiError> {
        json(self.post("/api/v1/resume", Bytes::new()).await?).await
    }

    async fn shutdown(&self) -> Result<(), ApiError> {
        self.post(SHUTDOWN, Bytes::new()).await.map(drop)
    }

    async fn add_checkpoint(&self, request: Bytes) -> Result<WitnessAnswer, ApiError> {
        let request = self.request(Method::POST, "/witness/add-checkpoint", HeaderMap::new(), Body::from(request));
        let answer = self.send_any(request, ANSWER_TIME).await?;
        let status = answer.status().as_u16();
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = collect(answer.into_body(), ERROR_MAX).await?;
        Ok(WitnessAnswer { status, content_type, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn witnessed(&self, log: Sha256) -> Result<Bytes, ApiError> {
        let answer = self.get(&format!("/witness/{log}/checkpoint"), HeaderMap::new()).await?;
        collect(answer.into_body(), EVIDENCE_MAX).await
    }

    async fn conflict(&self) -> Result<Bytes, ApiError> {
        let answer = self.get("/api/v1/log/conflict", HeaderMap::new()).await?;
        collect(answer.into_body(), EVIDENCE_MAX).await
    }

    async fn metrics(&self) -> Result<Metrics, ApiError> {
        self.get_json("/api/v1/metrics").await
    }
}
