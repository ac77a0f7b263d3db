//! What a node answers before it has a [`Backend`](crate::Backend): why not, and to its owner the end.

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware, routing::post};
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{Access, Limits, Listener, accept, guard};
use crate::api::ApiError;

/// How long open requests may go on when there is a backend: nobody is to hold that up.
const GRACE_TIME: Duration = Duration::from_millis(500);

/// A server before there is anything to serve; it may serve several listeners.
#[derive(Clone)]
pub struct Early {
    limits: Limits,
    hosts: Arc<[String]>,
    why: Arc<dyn Fn(Access) -> String + Send + Sync>,
    end: CancellationToken,
}

impl Early {
    /// Makes a server. `hosts` are the names, beside loopback and literal addresses, that callers may use for it; `why` says what is
    /// waited for, to strangers or to the owner; `end` is cancelled when the owner ends the node.
    pub fn new(
        hosts: impl IntoIterator<Item = String>,
        why: impl Fn(Access) -> String + Send + Sync + 'static,
        end: CancellationToken,
    ) -> Self {
        let limits = Limits { grace_time: GRACE_TIME, ..Limits::default() };
        let hosts = hosts.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { limits, hosts, why: Arc::new(why), end }
    }

    /// Answers at a listener until `until`: 503 to everything, but for the owner's shutdown. Lets open requests finish for half a
    /// second, and gives the listener back. Dropping the future closes the listener and every connection at once.
    pub async fn serve(&self, listener: Listener, access: Access, until: CancellationToken) -> Listener {
        let why = Arc::clone(&self.why);
        let mut router = Router::new().fallback(async move || ApiError::Unavailable { reason: why(access) });
        if access == Access::Owner {
            let end = self.end.clone();
            router = router.route(
                super::SHUTDOWN,
                post(async move || {
                    end.cancel();
                    StatusCode::ACCEPTED
                }),
            );
        }
        let guarded = middleware::from_fn_with_state((access, Arc::clone(&self.hosts)), guard::pass_early);
        let router = router.layer(guarded);
        accept::run(&listener, router, self.limits, until).await.end(self.limits).await;
        listener
    }
}
