//! The ledger as the group's machine: every candidate applies every committed batch of commands to a copy of its own.
//!
//! ```text
//!  batch --committed--> apply --> ledger        (every member; views read it between two batches)
//!                         |-----> book          (every member: what the batch logged, see `tlog`)
//!                         |-----> outcomes      (the member that proposed the batch: its other effects, see `decide`)
//!                         '-----> live news     (the others: people look at any node)
//! ```
//! Beside the ledger it keeps who handed in each job (whoever did has the inputs), and a digest of everything that was
//! applied: members with equal digests have equal ledgers. It performs nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use ledger::{Command, Effect, Ledger, News};
use protocol::{
    Hash, JobId, NetworkId, NodeId, Timestamp, Verified, codec,
    lease::Term,
    message::{Octets, Response},
    policy::Policy,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tracing::{error, info};

use super::chain;

use crate::{
    consensus::{Frozen, Machine, PAYLOAD_BYTES_MAX, Position},
    tlog::{self, Book},
};

/// What a snapshot begins with. One without it is a bare ledger, as a node wrote it that had no group yet.
const MAGIC: &[u8] = b"artel-replica-1\n";
/// Jobs whose providers are kept before it is looked whether they are still needed.
const PROVIDERS_KEPT: usize = 1024;
/// Nodes that are remembered as having handed in one job.
const PROVIDERS_MAX: usize = 8;
/// Fresh jobs that wait for whoever fetches their inputs; beyond it they are found by looking at all open jobs.
const FRESH_MAX: usize = 1024;

/// What one proposal holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// The proposer's own number for it.
    pub(super) number: u64,
    /// The commands, in order.
    pub(super) entries: Vec<Entry>,
}

/// One command, with its time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// When it happened, by the proposer's clock.
    pub(super) at: Timestamp,
    /// Which node handed it in, where that matters.
    pub(super) by: Option<NodeId>,
    /// The command's bytes.
    pub(super) command: Octets,
}

/// What a batch of this member came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The term in which it was proposed.
    pub(super) term: Term,
    /// The batch's number.
    pub(super) batch: u64,
    /// The effects of each command.
    pub(super) effects: Vec<Vec<Effect>>,
}

/// A snapshot's content after its magic.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    digest: Hash,
    ledger: Octets,
    providers: Vec<(JobId, Vec<NodeId>)>,
}

#[derive(Clone)]
struct State {
    ledger: Ledger,
    digest: Hash,
    providers: BTreeMap<JobId, BTreeSet<NodeId>>,
    /// When there are more, it is time to forget some.
    providers_max: usize,
}

impl State {
    /// Forgets who had the inputs of jobs whose requests the ledger no longer keeps, once they are many.
    fn forget_providers(&mut self) {
        if self.providers.len() > self.providers_max {
            let ledger = &self.ledger;
            self.providers.retain(|job, _| ledger.request(*job).is_some());
            self.providers_max = PROVIDERS_KEPT.max(2 * self.providers.len());
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let live = self.providers.iter().filter(|(job, _)| self.ledger.request(**job).is_some());
        let providers = live.map(|(job, nodes)| (*job, nodes.iter().copied().collect())).collect();
        let kept = Kept { digest: self.digest, ledger: Octets(self.ledger.to_bytes()), providers };
        [MAGIC, codec::encode(&kept).as_slice()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let Some(kept) = bytes.strip_prefix(MAGIC) else {
            let ledger = Ledger::from_bytes(bytes).map_err(|e| e.to_string())?;
            return Ok(Self {
                ledger,
                digest: Hash::of(bytes),
                providers: BTreeMap::new(),
                providers_max: PROVIDERS_KEPT,
            });
        };
        let kept: Kept = codec::decode(kept, usize::MAX).map_err(|e| e.to_string())?;
        let ledger = Ledger::from_bytes(&kept.ledger.0).map_err(|e| e.to_string())?;
        let providers = kept.providers.into_iter().map(|(job, nodes)| (job, nodes.into_iter().collect())).collect();
        Ok(Self { ledger, digest: kept.digest, providers, providers_max: PROVIDERS_KEPT })
    }
}

/// What the machine and those who look at it share.
pub(super) struct Replica {
    me: NodeId,
    network: NetworkId,
    state: RwLock<State>,
    book: Arc<Book>,
    outcomes: Mutex<VecDeque<Outcome>>,
    fresh: Mutex<VecDeque<JobId>>,
    /// Batches applied since the start; whoever must follow the ledger waits for it to change.
    applied: watch::Sender<u64>,
    news: broadcast::Sender<Arc<News>>,
}

impl Replica {
    /// Begins with the network's first policy; the group then gives it what is kept.
    ///
    /// # Errors
    /// When the policy is not the network's genesis.
    pub(super) fn new(
        (me, network): (NodeId, NetworkId),
        genesis: &Verified<Policy>,
        book: Arc<Book>,
        news: broadcast::Sender<Arc<News>>,
    ) -> Result<Arc<Self>, String> {
        let ledger = Ledger::new(network, genesis.clone()).map_err(|e| e.to_string())?;
        let state = State {
            ledger,
            digest: Hash::from_bytes([0; 32]),
            providers: BTreeMap::new(),
            providers_max: PROVIDERS_KEPT,
        };
        Ok(Arc::new(Self {
            me,
            network,
            state: RwLock::new(state),
            book,
            outcomes: Mutex::default(),
            fresh: Mutex::default(),
            applied: watch::Sender::new(0),
            news,
        }))
    }

    /// Looks at the ledger. What it shows is committed. Not to be held for long: nothing is applied meanwhile.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.read().ledger)
    }

    /// Gives the digest of everything that was applied.
    pub(super) fn digest(&self) -> Hash {
        self.read().digest
    }

    /// The transparency log as this member keeps it.
    pub(super) fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Gives the nodes that handed in a job.
    pub(super) fn providers(&self, job: &JobId) -> Vec<NodeId> {
        self.read().providers.get(job).map(|nodes| nodes.iter().copied().collect()).unwrap_or_default()
    }

    /// Tells whenever a batch was applied.
    pub(super) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Takes the oldest outcome of a batch of this member.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcomes().pop_front()
    }

    /// Takes the jobs that were accepted since the last call.
    pub(super) fn fresh(&self) -> Vec<JobId> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcomes(&self) -> MutexGuard<'_, VecDeque<Outcome>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self, payload: &[u8]) -> Result<(u64, Vec<Decoded>), String> {
        let batch: Batch = codec::decode(payload, PAYLOAD_BYTES_MAX).map_err(|e| e.to_string())?;
        let decode = |entry: Entry| {
            let command = Command::from_bytes(&entry.command.0, &self.network).map_err(|e| e.to_string())?;
            Ok((entry.at, entry.by, command))
        };
        Ok((batch.number, batch.entries.into_iter().map(decode).collect::<Result<_, String>>()?))
    }

    fn take(&self, payload: &[u8], commands: Vec<Decoded>) -> Vec<Vec<Effect>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.digest = Hash::of(&[state.digest.as_bytes().as_slice(), payload].concat());
        let (mut all, mut logged) = (Vec::with_capacity(commands.len()), Vec::new());
        for (at, by, command) in commands {
            let mut effects = state.ledger.apply(at, command);
            logged.extend(
                effects.extract_if(.., |effect| matches!(effect, Effect::Append { .. })).filter_map(tlog::placed),
            );
            for effect in &effects {
                if let Effect::Answer(Response::Receipt(job, _)) = effect {
                    let nodes = state.providers.entry(*job).or_default();
                    if let Some(node) = by.filter(|_| nodes.len() < PROVIDERS_MAX) {
                        nodes.insert(node);
                    }
                    self.note_fresh(*job);
                }
            }
            all.push(effects);
        }
        state.forget_providers();
        if !logged.is_empty() {
            self.book.append(logged, state.ledger.log_head());
        }
        all
    }

    fn note_fresh(&self, job: JobId) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() < FRESH_MAX {
            fresh.push_back(job);
        }
    }

    fn tell(&self, effects: &[Vec<Effect>]) {
        for effect in effects.iter().flatten() {
            if let Effect::Notify(news) = effect {
                // Nobody may be listening.
                let _ = self.news.send(Arc::new(news.clone()));
            }
        }
    }
}

/// A command with its time and who handed it in.
type Decoded = (Timestamp, Option<NodeId>, Command);

/// The replica as the group drives it.
pub(super) struct Applier(pub(super) Arc<Replica>);

impl Machine for Applier {
    /// # Panics
    /// When an entry cannot be read: it was written by a newer version. Going on would make this ledger another than the
    /// others'; the group stops this member with its words instead.
    fn apply(&mut self, position: Position, payload: &[u8]) {
        let replica = &self.0;
        let (batch, commands) = replica.decode(payload).unwrap_or_else(|why| {
            error!(index = position.index, %why, "an entry of the coordinators' log cannot be read");
            panic!("entry {} of the log cannot be read ({why}); run the version that wrote it", position.index)
        });
        let effects = replica.take(payload, commands);
        if position.leader == replica.me {
            replica.outcomes().push_back(Outcome { term: position.term, batch, effects });
        } else {
            replica.tell(&effects);
        }
        replica.applied.send_modify(|count| *count += 1);
    }

    /// A snapshot stands for the batches before it, so it must not be there before what they logged is written.
    fn freeze(&self) -> Frozen {
        let (state, book) = (self.0.read().clone(), Arc::clone(&self.0.book));
        Box::new(move || {
            book.settle(state.ledger.log_head().size)?;
            Ok(state.to_bytes())
        })
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let state = State::from_bytes(snapshot)?;
        if state.ledger.network() != self.0.network {
            return Err(format!("the snapshot is of network {}", state.ledger.network()));
        }
        self.0.book.restore(state.ledger.log_head()).map_err(|e| chain(&e))?;
        info!(bytes = snapshot.len(), "ledger restored");
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.0.applied.send_modify(|count| *count += 1);
        Ok(())
    }
}
