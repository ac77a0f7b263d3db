//! What a handle asks of other nodes: for its owner as often as he likes, for strangers within this node's budgets for them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    Hash, NodeId,
    lease::LeaseNumber,
    message::{Request, Response},
};
use web::{api::ApiError, backend::Follow};

use super::{Handle, from_refusal, internal, unexpected};
use crate::{
    daemon::{Shared, chain},
    on_behalf::{Budget, Busy, Caller, Questions, Shelf},
};

/// How often a live log is asked for more.
const LOG_POLL: Duration = Duration::from_millis(250);
/// The same for strangers, who may be many.
const STRANGERS_LOG_POLL: Duration = Duration::from_secs(1);

/// A part of a log that grows: its bytes, and whether it is complete.
type Chunk = (Bytes, bool);

/// What strangers make this node ask and keep. Each kind has a budget, so that who asks much of one keeps nobody from another.
pub(super) struct OnBehalf {
    /// What coordinators are asked: views, by their paths, and parts of the transparency log.
    asked: Arc<Budget>,
    views: Questions<String, Result<Bytes, ApiError>>,
    /// What coordinators are handed.
    handed_in: Arc<Budget>,
    /// Parts of logs, by who writes them, the attempt, and where they begin.
    chunks: Questions<(NodeId, LeaseNumber, u64), Option<Chunk>>,
    /// What is fetched and kept.
    fetched: Questions<Hash, Result<(), ApiError>>,
    shelf: Shelf,
}

impl OnBehalf {
    pub(super) fn new(shared: &Shared, asked: Arc<Budget>) -> Self {
        Self {
            views: Questions::new(&asked),
            asked,
            handed_in: Budget::new(),
            chunks: Questions::new(&Budget::new()),
            fetched: Questions::new(&Budget::new()),
            shelf: Shelf::of(shared.config.storage.quota_mib << 20),
        }
    }

    /// Counts the questions to coordinators so far.
    pub(super) fn count(&self) -> u64 {
        self.asked.asked() + self.handed_in.asked()
    }
}

impl Handle {
    /// Whether what is asked counts as a stranger's question. A node that leads asks itself.
    pub(super) fn is_metered(&self) -> bool {
        self.caller == Caller::Stranger && self.shared.leads().is_none()
    }

    async fn ask(&self, request: Request) -> Result<Response, ApiError> {
        match self.desk.ask_coordinator(request).await {
            Ok(Response::Refused(refusal)) => Err(from_refusal(refusal)),
            Ok(response) => Ok(response),
            Err(error) => Err(ApiError::Unavailable { reason: format!("the coordinator: {}", chain(&error)) }),
        }
    }

    /// Hands in what carries its own signature.
    pub(super) async fn hand_in(&self, request: Request) -> Result<Response, ApiError> {
        if self.caller == Caller::Owner {
            return self.ask(request).await;
        }
        let again = match self.desk.handed_in_again(&request) {
            Ok(Response::Refused(refusal)) => return Err(from_refusal(refusal)),
            Ok(response) => return Ok(response),
            Err(again) => again,
        };
        let answer = async {
            let answer = self.desk.ask_coordinator(request).await;
            let answer =
                answer.map_err(|e| ApiError::Unavailable { reason: format!("the coordinator: {}", chain(&e)) })?;
            self.desk.handed_in(again, &answer);
            Ok(answer)
        };
        let metered = self.is_metered();
        let answer = if metered { self.on_behalf.handed_in.spend(answer).await.map_err(busy)? } else { answer.await };
        let answer = answer?;
        if let Response::Refused(refusal) = answer { Err(from_refusal(refusal)) } else { Ok(answer) }
    }

    pub(super) async fn view<T: serde::de::DeserializeOwned>(&self, path: String) -> Result<T, ApiError> {
        let json = self.view_bytes(path).await?;
        serde_json::from_slice(&json).map_err(|e| internal("view", &e))
    }

    /// Asks the coordinator for a view.
    pub(super) async fn view_bytes(&self, path: String) -> Result<Bytes, ApiError> {
        let asked = async || {
            let response = self.ask(Request::View(path.clone())).await?;
            let Response::View(bytes) = response else { return Err(unexpected(&response)) };
            Ok(bytes.0.into())
        };
        if !self.is_metered() {
            return asked().await;
        }
        self.on_behalf.views.ask(path.clone(), asked).await.map_err(busy)?
    }

    /// Gives what follows a byte of an attempt's log; none when its builder gives nothing.
    pub(super) async fn log_chunk(&self, of: (NodeId, LeaseNumber), at: u64) -> Result<Option<Chunk>, ApiError> {
        let question = async || match self.desk.ask(of.0, Request::Log(of.1, at)).await {
            Ok(Response::Log(chunk)) if chunk.at == at => Some((Bytes::from(chunk.data), chunk.ended)),
            Ok(_) | Err(_) => None,
        };
        if self.caller == Caller::Owner || of.0 == self.shared.id {
            return Ok(question().await);
        }
        self.on_behalf.chunks.ask((of.0, of.1, at), question).await.map_err(busy)
    }

    /// For who follows a log: none when this node had no room for his question, and he is to ask again.
    pub(super) fn or_later<T>(&self, follow: Follow, asked: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
        match asked {
            Err(ApiError::Unavailable { .. }) if self.caller == Caller::Stranger && follow == Follow::Yes => Ok(None),
            asked => asked.map(Some),
        }
    }

    /// How long who follows a log waits before he asks again.
    pub(super) fn log_poll(&self) -> Duration {
        match self.caller {
            Caller::Owner => LOG_POLL,
            Caller::Stranger => STRANGERS_LOG_POLL,
        }
    }

    /// Fetches a content of at most `limit` bytes that is not offered here, and offers it under the name. What strangers want takes no
    /// more in a day than a part of the store.
    pub(super) async fn fetch(&self, (hash, limit): (Hash, u64), from: &[NodeId], name: &str) -> Result<(), ApiError> {
        if self.shared.offers.contains(&hash) {
            return Ok(());
        }
        if self.caller == Caller::Owner {
            return self.fetch_now((hash, limit), from, name).await;
        }
        let fetched = async || {
            let space = self.on_behalf.shelf.reserve(limit).ok_or_else(full)?;
            let fetched = self.fetch_now((hash, space.bytes()), from, name).await;
            let size = self.shared.blobs.size(&hash).await.ok().flatten().unwrap_or_default();
            space.fill(size);
            fetched
        };
        self.on_behalf.fetched.ask(hash, fetched).await.map_err(busy)?
    }

    async fn fetch_now(&self, (hash, limit): (Hash, u64), from: &[NodeId], name: &str) -> Result<(), ApiError> {
        let fetched = self.shared.blobs.fetch(&self.shared.net, &hash, from, limit).await;
        fetched.map_err(|e| ApiError::Unavailable { reason: format!("it cannot be fetched: {}", chain(&e)) })?;
        self.shared.offer(name, hash).await.map_err(|e| internal("blobs", &e))
    }
}

fn busy(busy: Busy) -> ApiError {
    ApiError::Unavailable { reason: busy.to_string() }
}

fn full() -> ApiError {
    let why = "this node has no more room today for what strangers want fetched";
    ApiError::Unavailable { reason: format!("{why}; ask who has it: its builder, or a coordinator") }
}
