//! The log of other nodes: a candidate fetches what its book lacks, and a node that is no candidate hands on what candidates
//! serve. A checkpoint is handed on only when a coordinator of the policy in force signed it; tiles have the right form, and
//! whoever asked for them checks them against the checkpoint.
//!
//! What strangers ask for costs coordinators little, see [`crate::on_behalf`]: tiles never change and are kept, of a row the widest
//! part is fetched and narrower ones are cut out of it, nobody is asked for what the newest checkpoint does not cover, and the
//! checkpoint itself is a second old at most.

mod kept;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use attest::log::{
    checkpoint::{Signed, Verified},
    network,
    tile::{self, Resource},
};
use bytes::Bytes;
use protocol::{
    NodeId,
    message::{Octets, Refusal, Request, Response},
};
use tracing::debug;

use self::kept::Kept;
use super::reader::{FetchError, Source};
use crate::{
    daemon::{Shared, chain},
    net::AskError,
    on_behalf::{Budget, Caller, Questions},
};

/// How the path of a view begins that is a part of the log.
pub const VIEW: &str = "transparency/";
/// How long one node may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Former coordinators that are asked.
const FORMER_MAX: usize = 16;
/// How old a checkpoint may be that a stranger is given.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(1);

/// Asks candidates. Clones share what they know.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    /// The largest checkpoint so far: one candidate may be behind another.
    newest: Arc<Mutex<Option<Verified>>>,
    /// How often what was fetched was of no use.
    turn: Arc<AtomicUsize>,
    strangers: Arc<Strangers>,
}

/// What was fetched for strangers.
struct Strangers {
    questions: Questions<Resource, Result<Bytes, Missing>>,
    kept: Mutex<Kept>,
    /// The newest checkpoint, when it came and how many entries it covers.
    checkpoint: Mutex<Option<(Instant, Bytes, u64)>>,
}

impl Strangers {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoint(&self) -> MutexGuard<'_, Option<(Instant, Bytes, u64)>> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no candidate gave something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// One that could be asked has no such thing.
    Unknown,
    /// None could be asked, in words.
    Unavailable(String),
}

impl From<Missing> for FetchError {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unknown => Self("whoever was asked does not have it yet".into()),
            Missing::Unavailable(why) => Self(why),
        }
    }
}

/// What asks a node for a part of the log.
pub fn question(resource: Resource) -> Request {
    Request::View(format!("{VIEW}{resource}"))
}

/// Takes what one node answers to a [`question`]; nothing of it is checked.
///
/// # Errors
/// [`Missing`] when it has no such thing, or gives none in time.
pub async fn served(answer: impl Future<Output = Result<Response, AskError>>) -> Result<Vec<u8>, Missing> {
    match tokio::time::timeout(WITHIN, answer).await {
        Ok(Ok(Response::View(Octets(bytes)))) => Ok(bytes),
        Ok(Ok(Response::Refused(Refusal::Unknown(_)))) => Err(Missing::Unknown),
        Ok(Ok(Response::Refused(refusal))) => Err(Missing::Unavailable(refusal.to_string())),
        Ok(Ok(_)) => Err(Missing::Unavailable("it answered something else".into())),
        Ok(Err(error)) => Err(Missing::Unavailable(chain(&error))),
        Err(_) => Err(Missing::Unavailable(format!("no answer within {} s", WITHIN.as_secs()))),
    }
}

impl Relay {
    /// Makes the way to the candidates.
    pub fn new(shared: Arc<Shared>, budget: &Arc<Budget>) -> Self {
        let questions = Questions::new(budget);
        let strangers = Strangers { questions, kept: Mutex::default(), checkpoint: Mutex::default() };
        Self { shared, newest: Arc::default(), turn: Arc::default(), strangers: Arc::new(strangers) }
    }

    /// Gives what candidates have, to a stranger within this node's budget for strangers.
    ///
    /// # Errors
    /// [`Missing`] when none of them has it, or too many ask.
    pub async fn hand_on(&self, resource: Resource, to: Caller) -> Result<Bytes, Missing> {
        if resource == Resource::Checkpoint {
            return self.checkpoint(to).await.map(|(bytes, _)| bytes);
        }
        let known = self.strangers.checkpoint().as_ref().map_or(0, |(_, _, size)| *size);
        let size = if resource.is_within(known) { known } else { self.checkpoint(to).await?.1 };
        if !resource.is_within(size) {
            return Err(Missing::Unknown);
        }
        let wide = resource.widest(size);
        let kept = self.strangers.kept().get(&wide);
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                let bytes = self.fetch_once(wide, to).await?;
                self.strangers.kept().put(wide, &bytes);
                bytes
            }
        };
        if wide == resource {
            return Ok(bytes);
        }
        let cut = resource.cut_from(wide, &bytes);
        cut.map(Bytes::from).map_err(|error| Missing::Unavailable(chain(&error)))
    }

    /// Gives a checkpoint that is new enough, and how many entries it covers.
    async fn checkpoint(&self, to: Caller) -> Result<(Bytes, u64), Missing> {
        let fresh = |(at, bytes, size): &(Instant, Bytes, u64)| {
            (at.elapsed() < CHECKPOINT_AGE_MAX).then(|| (bytes.clone(), *size))
        };
        if let Some(known) = self.strangers.checkpoint().as_ref().and_then(fresh) {
            return Ok(known);
        }
        let bytes = self.fetch_once(Resource::Checkpoint, to).await?;
        let size = Signed::read(&bytes).map_err(|e| Missing::Unavailable(chain(&e)))?.claims().head().size;
        *self.strangers.checkpoint() = Some((Instant::now(), bytes.clone(), size));
        Ok((bytes, size))
    }

    async fn fetch_once(&self, resource: Resource, to: Caller) -> Result<Bytes, Missing> {
        if to == Caller::Owner {
            return self.ask(resource).await.map(Bytes::from);
        }
        let answer = self.strangers.questions.ask(resource, async || self.ask(resource).await.map(Bytes::from)).await;
        answer.unwrap_or_else(|busy| Err(Missing::Unavailable(busy.to_string())))
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

    /// Gives who coordinated once and does no more, the latest first: they keep what they wrote.
    fn former(&self) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let now = policies.current().coordinators.candidates();
        let mut former: Vec<NodeId> = Vec::new();
        for node in policies.chain().iter().rev().flat_map(|policy| policy.get().coordinators.candidates()) {
            if !now.contains(node) && !former.contains(node) && *node != self.shared.id {
                former.push(*node);
            }
        }
        former.truncate(FORMER_MAX);
        former
    }

    async fn ask_one(&self, node: NodeId, resource: Resource) -> Result<Vec<u8>, Missing> {
        let ask = || self.shared.net.ask(node, question(resource));
        // A connection to who was restarted may break only now; asking twice does no harm.
        let asked = async {
            match ask().await {
                Err(AskError::Interrupted(_)) => ask().await,
                answer => answer,
            }
        };
        let bytes = served(asked).await;
        let checked = bytes.and_then(|bytes| self.check(resource, bytes).map_err(Missing::Unavailable));
        checked.inspect_err(|missing| {
            if let Missing::Unavailable(why) = missing {
                debug!(%node, %resource, %why, "a coordinator does not serve this of the log");
            }
        })
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

    /// Gives the larger of a checkpoint that came and the largest one before, once it is verified; of one size the one that more
    /// operators have seen, and seen later.
    fn newer(&self, bytes: &[u8]) -> Result<Vec<u8>, attest::log::checkpoint::CheckpointError> {
        let keys = network::log_keys(&self.shared.network, self.shared.policies().current());
        let checkpoint = Signed::read(bytes)?.verify(&keys)?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = |known: &Verified| known.as_signed().clone().verify(&keys).is_ok();
        let worth = |checkpoint: &Verified| (checkpoint.head().size, self.shared.seen_by(checkpoint));
        if newest.as_ref().is_none_or(|known| worth(known) < worth(&checkpoint) || !stands(known)) {
            *newest = Some(checkpoint.clone());
        }
        let newest = newest.as_ref().unwrap_or(&checkpoint);
        Ok(newest.as_signed().to_string().into_bytes())
    }
}

impl Source for Relay {
    /// As [`Relay::ask`]; what none of them has, who coordinated before is asked for, all at once: the coordinators of now may all be
    /// new. The reader checks what comes. Where that was of no use, each is asked alone, one after the other: whoever lies must not be
    /// the first for ever.
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        let former = self.former();
        let sources: Vec<NodeId> = self.candidates().into_iter().chain(former.iter().copied()).collect();
        if let Some(node) = alone(self.turn.load(Relaxed), &sources) {
            return Ok(self.ask_one(node, resource).await?);
        }
        let missing = match self.ask(resource).await {
            Ok(bytes) => return Ok(bytes),
            Err(missing) => missing,
        };
        if former.is_empty() || resource == Resource::Checkpoint {
            return Err(missing.into());
        }
        let asked = former.into_iter().map(|node| Box::pin(self.ask_one(node, resource)));
        let (bytes, _) = futures::future::select_ok(asked).await.map_err(|_| missing)?;
        Ok(bytes)
    }

    fn turn(&self) {
        self.turn.fetch_add(1, Relaxed);
    }
}

/// Gives who is asked alone after so many failures; after none, and when each had its turn, all are asked.
fn alone(failures: usize, sources: &[NodeId]) -> Option<NodeId> {
    (failures % (sources.len() + 1)).checked_sub(1).map(|at| sources[at])
}

#[cfg(test)]
mod tests {
    use protocol::testing::node;

    use super::alone;

    #[test]
    fn each_has_its_turn() {
        let two = [node(1), node(2)];
        let turns: Vec<_> = (0..5).map(|failures| alone(failures, &two)).collect();
        assert_eq!(turns, [None, Some(node(1)), Some(node(2)), None, Some(node(1))]);
        assert_eq!(alone(7, &[]), None);
    }
}
