//! The providers of one fetch, and who does what.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{Hash, NodeId};
use tokio::task::JoinSet;

use super::{
    super::{
        Blobs, Dial,
        transfer::{self, Failure, Fault, Order},
    },
    FetchError, Fetched, present,
};

/// Orders that one provider carries out at a time, so that neither a long line nor a slow commit leaves it idle
/// (measured with small files: 4 give 1.5 times the rate of 2, 8 hardly more).
const ORDERS_PER_PROVIDER: usize = 4;
/// Orders in a row that may bring nothing before a provider gets no more.
const BARREN_MAX: u32 = 16;
/// How long one order may take: 16 MiB at 56 KiB/s.
const ORDER_TIME_MAX: Duration = Duration::from_secs(300);

/// The providers of one fetch. It remembers between runs who failed.
pub(in super::super) struct Crew<'a, D> {
    blobs: &'a Blobs,
    dial: &'a D,
    providers: Vec<Provider>,
    faults: BTreeMap<NodeId, Fault>,
}

struct Provider {
    node: NodeId,
    standing: Standing,
    received: Arc<AtomicU64>,
}

/// What a provider may still be given.
enum Standing {
    /// It may carry out `free` further orders; the last `barren` ones brought nothing.
    Employed { free: usize, barren: u32 },
    /// It gets nothing more; orders that it carries out now may still end well.
    Dismissed,
}

impl Provider {
    fn free(&self) -> usize {
        match self.standing {
            Standing::Employed { free, .. } => free,
            Standing::Dismissed => 0,
        }
    }
}

/// An order and those who do not have what it asks for.
struct Pending {
    order: Order,
    lacking: BTreeSet<NodeId>,
}

impl<'a, D: Dial> Crew<'a, D> {
    pub(in super::super) fn new(blobs: &'a Blobs, dial: &'a D, from: &[NodeId]) -> Self {
        let mut seen = BTreeSet::new();
        let distinct = from.iter().filter(|node| seen.insert(**node));
        let providers = distinct
            .map(|node| Provider {
                node: *node,
                standing: Standing::Employed { free: ORDERS_PER_PROVIDER, barren: 0 },
                received: Arc::default(),
            })
            .collect();
        Self { blobs, dial, providers, faults: BTreeMap::new() }
    }

    /// Carries out all orders, or fails when nobody is left for one of them.
    pub(in super::super) async fn run(&mut self, orders: Vec<Order>) -> Result<Fetched, FetchError> {
        let pending = orders.into_iter().map(|order| Pending { order, lacking: BTreeSet::new() });
        let mut queue: VecDeque<Pending> = pending.collect();
        let mut running = JoinSet::new();
        for provider in &self.providers {
            provider.received.store(0, Ordering::Relaxed);
        }
        loop {
            self.hand_out(&mut queue, &mut running);
            let Some(joined) = running.join_next().await else { break };
            // The tasks do not panic and are only aborted with this future.
            let Ok((node, pending, outcome)) = joined else { continue };
            for rest in self.settle(node, pending, outcome).await? {
                queue.push_front(rest);
            }
        }
        match queue.pop_front() {
            None => Ok(self.fetched()),
            Some(pending) => Err(self.failed(&pending.order)),
        }
    }

    /// Starts every order for which a provider is free.
    fn hand_out(
        &mut self,
        queue: &mut VecDeque<Pending>,
        running: &mut JoinSet<(NodeId, Pending, Result<(), Failure>)>,
    ) {
        let mut held = VecDeque::new();
        while let Some(pending) = queue.pop_front() {
            // Of those that are equally free the last one is taken, so the order of preference is turned round.
            let able = self.providers.iter_mut().rev().filter(|p| p.free() > 0 && !pending.lacking.contains(&p.node));
            let Some(provider) = able.max_by_key(|provider| provider.free()) else {
                held.push_back(pending);
                if self.providers.iter().all(|provider| provider.free() == 0) {
                    break;
                }
                continue;
            };
            if let Standing::Employed { free, .. } = &mut provider.standing {
                *free -= 1;
            }
            let (node, received) = (provider.node, provider.received.clone());
            let (blobs, dial) = (self.blobs.clone(), self.dial.clone());
            running.spawn(async move {
                let outcome = carry_out(&blobs, &dial, node, &pending.order, &received).await;
                (node, pending, outcome)
            });
        }
        held.append(queue);
        *queue = held;
    }

    /// Judges the provider and gives what is left of the order.
    async fn settle(
        &mut self,
        node: NodeId,
        mut pending: Pending,
        outcome: Result<(), Failure>,
    ) -> Result<Vec<Pending>, FetchError> {
        let Err(Failure { done, fault }) = outcome else {
            self.release(node, true);
            return Ok(Vec::new());
        };
        tracing::debug!(%node, %fault, "provider did not carry out an order");
        let mut left = Vec::new();
        match fault {
            Fault::Local { source } => {
                return Err(FetchError::Local(super::super::failed("store what was fetched")(source)));
            }
            // One provider may lie about a size; the others are still asked.
            Fault::Lacks { .. } | Fault::TooLarge { .. } => {
                self.release(node, done > 0);
                left.extend(refuse(node, &mut pending, done));
            }
            Fault::WrongBytes { .. } | Fault::Stream { .. } => {
                self.dismiss(node);
                if let Order::Many { blobs } = &mut pending.order {
                    blobs.drain(..done);
                }
            }
        }
        self.faults.insert(node, fault);
        if let Some(order) = self.rest(pending.order).await? {
            left.push(Pending { order, lacking: pending.lacking });
        }
        Ok(left)
    }

    /// Gives the part of an order that is still to be done, if any.
    async fn rest(&self, order: Order) -> Result<Option<Order>, FetchError> {
        match order {
            Order::Parts { hash, parts, limit } => {
                let present = present(&self.blobs.inner.store, &hash).await.map_err(FetchError::Local)?;
                let parts = &parts - &present.ranges;
                Ok((!parts.is_empty()).then_some(Order::Parts { hash, parts, limit }))
            }
            Order::Many { blobs } => Ok((!blobs.is_empty()).then_some(Order::Many { blobs })),
            Order::Repair { .. } => Ok(Some(order)),
        }
    }

    fn release(&mut self, node: NodeId, fruitful: bool) {
        let Some(provider) = self.providers.iter_mut().find(|provider| provider.node == node) else { return };
        if let Standing::Employed { free, barren } = &mut provider.standing {
            *free += 1;
            *barren = if fruitful { 0 } else { *barren + 1 };
            if *barren > BARREN_MAX {
                provider.standing = Standing::Dismissed;
            }
        }
    }

    fn dismiss(&mut self, node: NodeId) {
        if let Some(provider) = self.providers.iter_mut().find(|provider| provider.node == node) {
            provider.standing = Standing::Dismissed;
        }
    }

    fn fetched(&self) -> Fetched {
        let bytes = self.providers.iter().map(|provider| (provider.node, provider.received.load(Ordering::Relaxed)));
        let from: BTreeMap<NodeId, u64> = bytes.filter(|(_, bytes)| *bytes > 0).collect();
        Fetched { bytes: from.values().sum(), from }
    }

    fn failed(&self, order: &Order) -> FetchError {
        let mut oversize = None;
        for fault in self.faults.values() {
            match fault {
                Fault::TooLarge { hash, size, limit } => oversize = Some((*hash, *size, *limit)),
                Fault::Lacks { .. } | Fault::WrongBytes { .. } | Fault::Stream { .. } | Fault::Local { .. } => {
                    oversize = None;
                    break;
                }
            }
        }
        match oversize {
            Some((hash, size, limit)) => FetchError::TooLarge { hash, size, limit },
            None => {
                let faults = self.faults.iter().map(|(node, fault)| (*node, fault.to_string())).collect();
                FetchError::Failed { hash: first_hash(order), faults }
            }
        }
    }
}

/// Notes that a provider does not have what stopped it. Of many blobs it is the one after those done: that one becomes
/// an order of its own, for others, and the rest goes on.
fn refuse(node: NodeId, pending: &mut Pending, done: usize) -> Option<Pending> {
    let Order::Many { blobs } = &mut pending.order else {
        pending.lacking.insert(node);
        return None;
    };
    let refused = blobs.drain(..=done).next_back()?;
    let mut lacking = pending.lacking.clone();
    lacking.insert(node);
    Some(Pending { order: Order::Many { blobs: vec![refused] }, lacking })
}

fn first_hash(order: &Order) -> Hash {
    match order {
        Order::Parts { hash, .. } | Order::Repair { hash, .. } => *hash,
        Order::Many { blobs } => blobs.first().map_or_else(|| Hash::of(&[]), |(hash, _)| *hash),
    }
}

async fn carry_out<D: Dial>(
    blobs: &Blobs,
    dial: &D,
    node: NodeId,
    order: &Order,
    received: &AtomicU64,
) -> Result<(), Failure> {
    let idle = blobs.inner.options.idle;
    let stream_failure = |source: super::super::Cause| Failure { done: 0, fault: Fault::Stream { source } };
    // All fetches together keep below the number of streams that a provider allows to one peer.
    let _turn = blobs.turn(node).await;
    let stream = tokio::time::timeout(idle * 2, dial.open(node)).await;
    let stream = stream.map_err(|_| stream_failure("it did not answer".into()))?;
    let stream = stream.map_err(|error| stream_failure(error.into()))?;
    let performed = transfer::perform(&blobs.inner.store, stream, idle, order, received);
    let performed = tokio::time::timeout(ORDER_TIME_MAX, performed).await;
    performed.unwrap_or_else(|_| Err(stream_failure("it was too slow".into())))
}
