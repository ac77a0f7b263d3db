//! Joins the proposals that wait at the same time into one entry, so that they share one flush of the disk and one message to
//! each member. openraft waits for the flush of each entry before it takes the next.
//!
//! Up to [`IN_FLIGHT`] entries are on their way at once: a lone proposal need not wait for the one before it.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{
    Raft,
    error::{ClientWriteError, RaftError},
};
use protocol::lease::Term;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Member, PAYLOAD_BYTES_MAX, Position, ProposeError, Timing, Types, machine};

/// Entries on their way at once.
const IN_FLIGHT: usize = 2;

/// Proposals in one entry, at most.
const PARTS_MAX: usize = 1024;

/// A payload that waits, and who waits for it.
pub(super) struct Proposal {
    pub(super) payload: Vec<u8>,
    pub(super) told: oneshot::Sender<Result<Position, ProposeError>>,
}

/// Takes proposals from the queue to openraft.
pub(super) struct Proposer {
    raft: Raft<Types>,
    me: Member,
    /// How long a proposal may take before its outcome counts as unknown.
    within: Duration,
}

impl Proposer {
    pub(super) fn new(raft: Raft<Types>, me: Member, timing: Timing) -> Proposer {
        Proposer { raft, me, within: timing.patience * 2 }
    }

    /// Runs until the group stops or its last handle is gone. Who still waits then gets an error.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Proposal>, ending: CancellationToken) {
        let mut flights = FuturesUnordered::new();
        let mut held: Option<Proposal> = None;
        loop {
            tokio::select! {
                biased;
                () = ending.cancelled() => return,
                Some(()) = flights.next(), if !flights.is_empty() => {}
                next = take(&mut held, &mut queue), if flights.len() < IN_FLIGHT => {
                    let Some(first) = next else { return };
                    let batch = gather(first, &mut held, &mut queue);
                    flights.push(self.fly(batch));
                }
            }
        }
    }

    /// Proposes one entry, and tells everybody in it what became of it.
    async fn fly(&self, batch: Vec<Proposal>) {
        let (parts, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.payload, one.told)).unzip();
        let entry = machine::join(self.me, &parts);
        drop(parts);
        let outcome = match tokio::time::timeout(self.within, self.raft.client_write(entry)).await {
            Ok(Ok(written)) => Ok(written.log_id),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id.map(Into::into) })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(e))) => Err(ProposeError::Stopped { why: e.to_string() }),
            Err(_) => Err(ProposeError::NoMajority { after: self.within }),
        };
        for (part, told) in (0..).zip(waiting) {
            let answer = outcome.clone().map(|log_id| Position {
                term: Term(log_id.leader_id.term),
                leader: self.me.into(),
                index: log_id.index,
                part,
            });
            // Whoever no longer waits has its proposal all the same.
            drop(told.send(answer));
        }
    }
}

/// The next proposal: the one that did not fit into the last entry, or one from the queue.
async fn take(held: &mut Option<Proposal>, queue: &mut mpsc::Receiver<Proposal>) -> Option<Proposal> {
    match held.take() {
        Some(proposal) => Some(proposal),
        None => queue.recv().await,
    }
}

/// Everything that waits already and fits into one entry.
fn gather(first: Proposal, held: &mut Option<Proposal>, queue: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = first.payload.len();
    let mut batch = vec![first];
    while batch.len() < PARTS_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            *held = Some(next);
            break;
        }
        batch.push(next);
    }
    batch
}
