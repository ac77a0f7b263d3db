//! The same questions to the backend itself, over TCP and over the unix socket: the same answers.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use futures::{StreamExt, stream};
use protocol::{
    Arch, Hash, JobId, NetworkId, NodeId, Signed, Timestamp,
    envelope::Record,
    job::{BuildLimits, Change, CommandJob, JobKind, JobRequest, Order},
    lease::LeaseNumber,
    limits,
    testing::signing_key,
};
use web::{
    Access, Address, ApiError, Backend, Client, Limits, Listener, Server,
    api::{JobFilter, JobState, Majority, News},
    backend::{ByteRange, Follow, LogRequest, collect},
    testing::{SampleJobs, at},
};

use crate::{PATIENCE, Site};

fn signed<T: Record>(record: &T) -> Bytes {
    Signed::sign(record, Some(&NetworkId::from_bytes([7; 32])), &[&signing_key(1)]).to_bytes().into()
}

fn request(nonce: u8) -> JobRequest {
    let command = CommandJob {
        isolation: protocol::job::Isolation::Rootfs,
        argv: vec!["true".to_owned()],
        name: "nothing".parse().unwrap(),
        inputs: Vec::new(),
        outputs: vec!["out".parse().unwrap()],
    };
    JobRequest {
        arch: Arch::Amd64,
        kind: JobKind::Command(command),
        nonce: vec![nonce; 16],
        limits: BuildLimits::default(),
        channel: "stable".parse().unwrap(),
        created: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        network: NetworkId::from_bytes([7; 32]),
        schedule: protocol::job::Schedule::default(),
        environment: Hash::of(b"lock"),
    }
}

async fn reads(backend: &impl Backend, jobs: SampleJobs) {
    let status = backend.status().await.unwrap();
    assert_eq!((status.network.name.as_str(), status.jobs[&JobState::Published]), ("orchard", 1));
    assert_eq!(backend.peers().await.unwrap().len(), 3);
    let builder = backend.peers().await.unwrap().into_iter().find(|peer| peer.operator.is_some()).unwrap();
    assert_eq!(Some(backend.peer(builder.node).await.unwrap().operator), builder.operator);
    assert!(matches!(backend.peer(NodeId::from_bytes([77; 32])).await, Err(ApiError::NotFound { .. })));
    assert_eq!(backend.repositories().await.unwrap()[0].generation, 7);
    assert_eq!(backend.metrics().await.unwrap().leases, 2);
    assert_eq!(backend.job(jobs.published).await.unwrap().verdict.unwrap().dissent.len(), 1);
    assert_eq!(&backend.bundle(jobs.published).await.unwrap()[..], b"evidence of the sample");

    let page = JobFilter { limit: Some(2), ..JobFilter::default() };
    let first = backend.jobs(page.clone()).await.unwrap();
    let second = backend.jobs(JobFilter { after: first.next, ..page }).await.unwrap();
    assert_eq!((first.jobs.len(), second.jobs.len()), (2, 2));
    assert!(first.jobs.iter().all(|job| !second.jobs.contains(job)));
    let only = JobFilter { state: Some(JobState::Published), ..JobFilter::default() };
    assert_eq!(backend.jobs(only).await.unwrap().jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [jobs.published]);

    let begins = jobs.published.to_string()[..12].to_owned();
    let begun = backend.jobs(JobFilter { begins: Some(begins), ..JobFilter::default() }).await.unwrap();
    assert_eq!(begun.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs.published]);

    let log = LogRequest { job: jobs.published, attempt: Some(LeaseNumber(11)), from: 19, follow: Follow::Yes };
    assert_eq!(&collect(backend.log(log).await.unwrap(), 100).await.unwrap()[..], b"info: binary-only upload\n");

    let (channel, path) = ("stable".parse().unwrap(), "dists/bookworm/InRelease".parse().unwrap());
    let file = backend.repository_file(channel, path, ByteRange::From { start: 8, last: Some(12) }).await.unwrap();
    assert_eq!((file.size, file.span.start, file.span.end, file.modified), (30, 8, 13, Some(at(3600))));
    assert_eq!(&file.collect(100).await.unwrap()[..], b"artel");

    let coordination = backend.coordination().await.unwrap();
    assert_eq!((coordination.members.len(), coordination.majority), (2, Majority::Reachable));

    assert_eq!(&backend.log_file("tile/entries/x001/234.p/5".parse().unwrap()).await.unwrap()[..], b"entries");
    let beyond = backend.log_file("tile/0/000".parse().unwrap()).await;
    assert!(matches!(beyond, Err(ApiError::NotFound { .. })), "{beyond:?}");

    let nobody = JobId::from_bytes([1; 32]);
    assert_eq!(backend.job(nobody).await, Err(ApiError::NotFound { what: "job 01010101".to_owned() }));
    let missing = backend.blob(Hash::of(b"nothing"), ByteRange::All).await;
    assert!(matches!(missing, Err(ApiError::NotFound { .. })));
}

async fn writes(backend: &impl Backend, nonce: u8) {
    let bytes = signed(&request(nonce));
    let receipt = backend.submit(bytes.clone()).await.unwrap();
    assert_eq!(backend.submit(bytes.clone()).await.unwrap(), receipt, "the same bytes are one job");
    let mut broken = bytes.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    assert!(matches!(backend.submit(broken.into()).await, Err(ApiError::Refused { .. })));

    let mut news = backend.news().await.unwrap();
    let cancel = Order { at: Timestamp::ZERO, job: receipt.job, what: Change::Cancel, reason: "not needed".to_owned() };
    backend.order(signed(&cancel)).await.unwrap();
    assert_eq!(backend.job(receipt.job).await.unwrap().summary.state, JobState::Cancelled);
    let told: News = tokio::time::timeout(PATIENCE, news.next()).await.unwrap().unwrap();
    assert_eq!((told.job, told.state), (receipt.job, JobState::Cancelled));
    assert!(matches!(backend.order(signed(&cancel)).await, Err(ApiError::Refused { .. })), "it is over already");
    assert!(matches!(backend.adopt_policy(Bytes::from_static(b"x")).await, Err(ApiError::Refused { .. })));
}

async fn drains(backend: &impl Backend) {
    let duty = backend.drain("new disk".to_owned()).await.unwrap();
    assert_eq!((duty.draining.as_deref(), duty.running), (Some("new disk"), 2));
    assert_eq!(backend.status().await.unwrap().draining.as_deref(), Some("new disk"));
    let long = "x".repeat(protocol::peer::DRAINING_MAX + 1);
    assert!(matches!(backend.drain(long).await, Err(ApiError::Refused { .. })));
    assert_eq!(backend.resume().await.unwrap().draining, None);
    assert_eq!(backend.status().await.unwrap().draining, None);
}

/// 48 pieces are larger than a small body, so only a stream passes.
async fn upload(backend: &impl Backend, pieces: usize) -> Result<Hash, ApiError> {
    let piece = Bytes::from(vec![7; 65536]);
    let stream = stream::repeat(piece).take(pieces).map(Ok).boxed();
    backend.put_blob(stream, 65536 * pieces as u64).await
}

#[tokio::test]
async fn the_backend_itself() {
    let (fake, jobs) = web::testing::sample();
    reads(&fake, jobs).await;
    writes(&fake, 1).await;
    drains(&fake).await;
    upload(&fake, 48).await.unwrap();
}

#[tokio::test]
async fn over_tcp() {
    let site = Site::start(Limits::default()).await;
    reads(&site.tcp_client(), site.jobs).await;
    writes(&site.tcp_client(), 2).await;
    assert!(matches!(upload(&site.tcp_client(), 8).await, Err(ApiError::NotAllowed { .. })), "uploads are the owner's");
    assert!(matches!(site.tcp_client().shutdown().await, Err(ApiError::NotAllowed { .. })));
    assert!(matches!(site.tcp_client().step_down().await, Err(ApiError::NotAllowed { .. })));
    assert!(matches!(site.tcp_client().drain("fun".to_owned()).await, Err(ApiError::NotAllowed { .. })));
    assert!(matches!(site.tcp_client().resume().await, Err(ApiError::NotAllowed { .. })));
    assert_eq!(site.fake.status().await.unwrap().draining, None);
    let other = web::testing::other_coordinator();
    assert!(matches!(site.tcp_client().transfer(other).await, Err(ApiError::NotAllowed { .. })));
    assert!(!site.fake.stopped().is_cancelled());
    site.stop().await;
}

#[tokio::test]
async fn over_the_unix_socket() {
    let site = Site::start(Limits::default()).await;
    let client = site.unix_client();
    reads(&client, site.jobs).await;
    writes(&client, 3).await;
    drains(&client).await;
    let other = web::testing::other_coordinator();
    assert_eq!(client.transfer(other).await.unwrap().leader, Some(other));
    assert_ne!(client.step_down().await.unwrap().leader, Some(other));
    let stranger = NodeId::from_bytes([1; 32]);
    assert!(matches!(client.transfer(stranger).await, Err(ApiError::Refused { .. })));
    let hash = upload(&client, 48).await.unwrap();
    let tail = client.blob(hash, ByteRange::Last(3)).await.unwrap();
    assert_eq!((tail.size, tail.hash), (65536 * 48, hash));
    assert_eq!(&tail.collect(10).await.unwrap()[..], [7, 7, 7]);
    let mode = std::fs::metadata(&site.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    client.shutdown().await.unwrap();
    assert!(site.fake.stopped().is_cancelled());
    site.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let site = Site::start(Limits { body_bytes: 1000, ..Limits::default() }).await;
    let answer = site.unix_client().submit(vec![0; 5000].into()).await;
    assert_eq!(answer, Err(ApiError::Refused { reason: "the body has more than 1000 bytes".to_owned() }));
    let short = stream::iter([Ok(Bytes::from_static(b"abc"))]).boxed();
    assert!(site.unix_client().put_blob(short, 10).await.is_err(), "less than declared");
    site.stop().await;
    assert!(
        limits::JOB_MAX + 16 * 1024 < Limits::default().body_bytes && limits::POLICY_MAX < Limits::default().body_bytes
    );
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let error = Client::new(Address::unix(&socket)).status().await.unwrap_err();
    let ApiError::Unreachable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.starts_with(&format!("unix:{}", socket.display())) && reason.contains("No such file"), "{reason}");
    assert!(error.hint().contains("artel node run"));
}

#[tokio::test]
async fn one_socket_has_one_daemon_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let first = Listener::unix(&socket).unwrap();
    assert!(Listener::unix(&socket).unwrap_err().to_string().contains("another daemon answers"));
    drop(first);
    // What a daemon that was killed leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    let server = Server::new(web::testing::sample().0, Limits::default(), []);
    server.serve(Listener::unix(&socket).unwrap(), Access::Owner, stop).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
