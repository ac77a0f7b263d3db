//! The log of other nodes: a candidate fetches what its book lacks, and a node that is no candidate hands on what candidates
//! serve. A checkpoint is handed on only when a coordinator of the policy in force signed it; tiles have the right form, and
//! whoever asked for them checks them against the checkpoint.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attest::log::{
    checkpoint::{Signed, Verified},
    network,
    tile::{self, Resource},
};
use protocol::{
    NodeId,
    message::{Refusal, Request, Response},
};
use tracing::debug;

use super::reader::{FetchError, Source};
use crate::daemon::{Shared, chain};

/// How the path of a view begins that is a part of the log.
pub const VIEW: &str = "transparency/";
/// How long one candidate may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Asks candidates. Clones share what they know.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    /// The largest checkpoint so far: one candidate may be behind another.
    newest: Arc<Mutex<Option<Verified>>>,
}

/// Why no candidate gave something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// One that could be asked has no such thing.
    Unknown,
    /// None could be asked, in words.
    Unavailable(String),
}

impl Relay {
    /// Makes the way to the candidates.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, newest: Arc::default() }
    }

    /// Asks the leader, then every other candidate.
    ///
    /// # Errors
    /// [`Missing`] when none of them has it.
    pub async fn ask(&self, resource: Resource) -> Result<Vec<u8>, Missing> {
        let mut missing = Missing::Unavailable("no other coordinator can be asked for the log".into());
        for node in self.candidates() {
            match self.ask_one(node, resource).await {
                Ok(bytes) => return Ok(bytes),
                // That somebody knows of nothing says more than that another cannot be reached.
                Err(Missing::Unknown) => missing = Missing::Unknown,
                Err(unavailable) if missing != Missing::Unknown => missing = unavailable,
                Err(_) => {}
            }
        }
        Err(missing)
    }

    fn candidates(&self) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let leader = self.shared.leader();
        let others = policies.current().coordinators.candidates().iter().copied().filter(|node| Some(*node) != leader);
        leader.into_iter().chain(others).filter(|node| *node != self.shared.id).collect()
    }

    async fn ask_one(&self, node: NodeId, resource: Resource) -> Result<Vec<u8>, Missing> {
        let request = Request::View(format!("{VIEW}{resource}"));
        let unavailable = |why: String| {
            debug!(%node, %resource, %why, "a coordinator does not serve this of the log");
            Err(Missing::Unavailable(why))
        };
        match tokio::time::timeout(WITHIN, self.shared.net.ask(node, request)).await {
            Ok(Ok(Response::View(bytes))) => self.check(resource, bytes.0).or_else(unavailable),
            Ok(Ok(Response::Refused(Refusal::Unknown(_)))) => Err(Missing::Unknown),
            Ok(Ok(Response::Refused(refusal))) => unavailable(refusal.to_string()),
            Ok(Ok(_)) => unavailable("it answered something else".into()),
            Ok(Err(error)) => unavailable(chain(&error)),
            Err(_) => unavailable(format!("no answer within {} s", WITHIN.as_secs())),
        }
    }

    /// Checks as much as can be without the rest of the log.
    fn check(&self, resource: Resource, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        match resource {
            Resource::Checkpoint => self.newer(&bytes).map_err(|error| chain(&error)),
            Resource::Tile(tile) => tile.hashes(&bytes).map(drop).map(|()| bytes).map_err(|e| chain(&e)),
            Resource::Entries(slice) => {
                tile::read_bundle(slice, &bytes).map(drop).map(|()| bytes).map_err(|e| chain(&e))
            }
        }
    }

    /// Gives the larger of a checkpoint that came and the largest one before, once it is verified.
    fn newer(&self, bytes: &[u8]) -> Result<Vec<u8>, attest::log::checkpoint::CheckpointError> {
        let keys = network::log_keys(&self.shared.network, self.shared.policies().current());
        let checkpoint = Signed::read(bytes)?.verify(&keys)?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = |known: &Verified| known.as_signed().clone().verify(&keys).is_ok();
        if newest.as_ref().is_none_or(|known| known.head().size < checkpoint.head().size || !stands(known)) {
            *newest = Some(checkpoint.clone());
        }
        let newest = newest.as_ref().unwrap_or(&checkpoint);
        Ok(newest.as_signed().to_string().into_bytes())
    }
}

impl Source for Relay {
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        self.ask(resource).await.map_err(|missing| match missing {
            Missing::Unknown => FetchError("no coordinator has it yet".into()),
            Missing::Unavailable(why) => FetchError(why),
        })
    }
}
