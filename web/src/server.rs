//! The HTTP server: own accept loop, guards, routes.
//!
//! `axum::serve` sets no timer, so its header timeout never fires; here every wait has one. A TCP listener is public: it
//! reads, and it takes only what carries its own signature. A unix socket (mode 0600) is the owner's. The server holds no
//! sessions, no cookies and no passwords.

mod accept;
mod clients;
mod content;
mod crowd;
mod early;
mod guard;
mod jobs;
mod listener;
mod live;
mod metrics;
mod node;
mod recipes;
mod reply;
mod routes;
mod stall;
mod witness;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use early::Early;
pub use listener::{BindError, Listener};

use crate::backend::Backend;

/// Where the owner ends the node.
pub(crate) const SHUTDOWN: &str = "/api/v1/shutdown";

/// Who may be at the other end of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: reads, and writes that carry their own signature.
    Public,
    /// The owner of the node: uploads and shutdown too.
    Owner,
}

/// What the server grants to one caller and to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one listener at one time; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one address (of IPv6, one network) at one time, this machine's own aside; more are closed.
    pub connections_each: usize,
    /// How long a caller may take to send a request's head; an idle connection ends after it too.
    pub header_time: Duration,
    /// How long a caller may pause while it sends a body or receives an answer.
    pub idle_time: Duration,
    /// How long open requests may go on after the stop.
    pub grace_time: Duration,
    /// The largest body in bytes, uploads aside.
    pub body_bytes: usize,
    /// The largest upload in bytes.
    pub upload_bytes: u64,
}

impl Default for Limits {
    /// The figures of the security checklist: 10 s for a head, 30 s idle, 256 connections, a quarter of them for one address, 2 MiB.
    fn default() -> Self {
        Self {
            connections: 256,
            connections_each: 64,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(30),
            grace_time: Duration::from_secs(5),
            body_bytes: 2 * 1024 * 1024,
            upload_bytes: 64 * 1024 * 1024 * 1024,
        }
    }
}

/// A server over one backend; it may serve several listeners, which share its counters.
#[derive(Clone)]
pub struct Server<B> {
    backend: B,
    limits: Limits,
    hosts: Arc<[String]>,
    counters: metrics::Counters,
    crowds: Crowds,
}

/// The crowds of requests, each with places of its own: who follows the news may still look at pages.
#[derive(Clone)]
struct Crowds {
    /// What others may have to be asked for.
    handed_on: crowd::Crowd,
    /// What the node answers by itself, files aside.
    own: crowd::Crowd,
    /// Who follows the news, which never end.
    news: crowd::Crowd,
}

impl<B: Backend> Server<B> {
    /// Makes a server. `hosts` are the names, beside loopback and literal addresses, that callers may use for it.
    pub fn new(backend: B, limits: Limits, hosts: impl IntoIterator<Item = String>) -> Self {
        let hosts = hosts.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        let crowd = || crowd::Crowd::of(crowd::PER_CALLER);
        let crowds = Crowds { handed_on: crowd(), own: crowd(), news: crowd() };
        Self { backend, limits, hosts, counters: metrics::Counters::default(), crowds }
    }

    /// Makes a server before another backend that shares this one's counters.
    #[must_use]
    pub fn before(&self, backend: B) -> Self {
        Self { backend, ..self.clone() }
    }

    /// Serves a listener until `stop`, then lets open requests finish within the grace time.
    ///
    /// Dropping the future closes every connection at once.
    pub async fn serve(&self, listener: Listener, access: Access, stop: CancellationToken) {
        let state = routes::App { server: self.clone(), access, stop: stop.clone() };
        let open = accept::run(&listener, routes::router(state), self.limits, stop).await;
        drop(listener);
        open.end(self.limits).await;
    }
}
