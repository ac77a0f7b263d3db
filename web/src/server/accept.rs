//! The accept loop: bounded connections, a timer on every wait, every task joined.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Limits, Listener,
    crowd::{Caller, Crowd},
    listener::Stream,
    stall::Stall,
};

/// How long to wait after a failed accept (usually: no file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// The connections that are open when no more are accepted.
pub(super) struct Open(JoinSet<()>);

impl Open {
    /// Waits for them within the grace time, then closes them.
    pub(super) async fn end(mut self, limits: Limits) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.grace_time, all).await.is_err() {
            self.0.shutdown().await;
        }
    }
}

/// Accepts until the stop.
pub(super) async fn run(listener: &Listener, router: Router, limits: Limits, stop: CancellationToken) -> Open {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (mut connections, crowd) = (JoinSet::new(), Crowd::of(limits.connections_each));
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            next = accept(listener, &slots) => next,
        };
        let (stream, slot) = next;
        let (router, stop) = (router.clone(), stop.clone());
        match stream {
            Stream::Tcp(stream) => {
                let caller = stream.peer_addr().ok().map(|address| Caller::at(address.ip()));
                let place = caller.filter(|caller| !caller.is_here()).map(|caller| crowd.enter(caller).ok_or(caller));
                let Ok(place) =
                    place.transpose().inspect_err(|caller| tracing::debug!(?caller, "too many connections"))
                else {
                    continue;
                };
                let serve = connection(stream, (router, caller), limits, stop, slot);
                drop(connections.spawn(async move {
                    serve.await;
                    drop(place);
                }));
            }
            Stream::Unix(stream) => drop(connections.spawn(connection(stream, (router, None), limits, stop, slot))),
            Stream::Stranger => tracing::warn!("connection of another user to the owner's socket refused"),
        }
    }
    Open(connections)
}

/// Waits for a free slot first, then for a caller: who comes when all slots are taken waits in the kernel's queue.
async fn accept(listener: &Listener, slots: &Arc<Semaphore>) -> (Stream, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok(stream) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S>(
    stream: S,
    (router, caller): (Router, Option<Caller>),
    limits: Limits,
    stop: CancellationToken,
    slot: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        request
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_header_size(HEAD_BYTES);
    let io = TokioIo::new(Stall::new(stream, limits.idle_time));
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));
    let result = tokio::select! {
        biased;
        result = serving.as_mut() => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
    drop(slot);
}
