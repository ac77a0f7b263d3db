//! A network in memory: loses, delays, repeats, and cuts each direction by itself. A question that its asker gave up may still
//! arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::NodeId;
use tokio::{sync::oneshot, task::JoinSet};

use super::dice::{Counts, Dice};
use crate::consensus::{Group, WireError, Wires};

/// How the network is at the moment.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Weather {
    /// Of 100 messages, how many are lost.
    pub(in crate::consensus) loss: u64,
    /// Of 100 questions, how many come twice.
    pub(in crate::consensus) twice: u64,
    /// One way, in ms.
    pub(in crate::consensus) delay: Range<u64>,
}

impl Weather {
    pub(in crate::consensus) fn fair() -> Weather {
        Weather { loss: 0, twice: 1, delay: 1..8 }
    }
}

struct State {
    weather: Weather,
    /// Directions that carry nothing, and how many faults cut each.
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Flapping members that are off at the moment.
    off: BTreeSet<NodeId>,
    /// The running process of each member.
    up: BTreeMap<NodeId, Group>,
    /// The number of each member's living process; questions of others go nowhere.
    alive: BTreeMap<NodeId, u64>,
    processes: u64,
    dice: Dice,
    counts: Counts,
    deliveries: JoinSet<()>,
}

impl State {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cuts.get(&(from, to)).is_some_and(|faults| *faults > 0);
        cut || self.off.contains(&from) || self.off.contains(&to)
    }
}

/// The network.
#[derive(Clone)]
pub(in crate::consensus) struct Net(Arc<Mutex<State>>);

impl Net {
    pub(in crate::consensus) fn new(seed: u64) -> Net {
        Net(Arc::new(Mutex::new(State {
            weather: Weather::fair(),
            cuts: BTreeMap::new(),
            off: BTreeSet::new(),
            up: BTreeMap::new(),
            alive: BTreeMap::new(),
            processes: 0,
            dice: Dice::new(seed ^ 0xabcd),
            counts: Counts::default(),
            deliveries: JoinSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wires of a new process of this member.
    pub(in crate::consensus) fn wires(&self, me: NodeId) -> Wire {
        let mut state = self.lock();
        state.processes += 1;
        let process = state.processes;
        state.alive.insert(me, process);
        Wire { net: self.clone(), me, process }
    }

    pub(in crate::consensus) fn plug(&self, wire: &Wire, group: Group) {
        self.lock().up.insert(wire.me, group);
    }

    pub(in crate::consensus) fn unplug(&self, member: NodeId) {
        let mut state = self.lock();
        state.up.remove(&member);
        state.alive.remove(&member);
    }

    pub(in crate::consensus) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(in crate::consensus) fn cut(&self, from: NodeId, to: NodeId) {
        *self.lock().cuts.entry((from, to)).or_default() += 1;
    }

    pub(in crate::consensus) fn mend(&self, from: NodeId, to: NodeId) {
        if let Some(faults) = self.lock().cuts.get_mut(&(from, to)) {
            *faults = faults.saturating_sub(1);
        }
    }

    /// Takes a member off the network altogether, or puts it back.
    pub(in crate::consensus) fn switch(&self, member: NodeId, off: bool) {
        let mut state = self.lock();
        if off {
            state.off.insert(member)
        } else {
            state.off.remove(&member)
        };
    }

    pub(in crate::consensus) fn heal(&self) {
        let mut state = self.lock();
        state.cuts.clear();
        state.off.clear();
        state.weather = Weather::fair();
    }

    /// Whether both directions carry messages, and few are lost.
    pub(in crate::consensus) fn joins(&self, a: NodeId, b: NodeId) -> bool {
        let state = self.lock();
        !state.is_cut(a, b) && !state.is_cut(b, a) && state.weather.loss <= 10
    }

    pub(in crate::consensus) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Drops what is still on its way, at the end of a run.
    pub(in crate::consensus) fn close(&self) {
        let mut state = self.lock();
        state.up.clear();
        state.deliveries.abort_all();
    }

    /// The time one message takes, or `None` for one that does not arrive.
    fn pass(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut state = self.lock();
        if state.is_cut(from, to) {
            state.counts.hit("message cut");
            return None;
        }
        let loss = state.weather.loss;
        if state.dice.percent(loss) {
            state.counts.hit("message lost");
            return None;
        }
        let delay = state.weather.delay.clone();
        Some(state.dice.millis(delay))
    }

    pub(in crate::consensus) fn up(&self) -> Vec<NodeId> {
        self.lock().up.keys().copied().collect()
    }

    pub(in crate::consensus) fn process_of(&self, member: NodeId) -> Option<Group> {
        self.lock().up.get(&member).cloned()
    }
}

/// The wires of one process.
#[derive(Clone)]
pub(in crate::consensus) struct Wire {
    net: Net,
    me: NodeId,
    process: u64,
}

impl Wire {
    /// Carries the question there, and the answer back; whoever asked may have gone.
    async fn carry(self, to: NodeId, message: Vec<u8>, told: Option<oneshot::Sender<Vec<u8>>>) {
        let Some(there) = self.net.pass(self.me, to) else { return };
        tokio::time::sleep(there).await;
        let Some(group) = self.net.process_of(to) else { return };
        let answer = group.answer(self.me, &message).await;
        drop(group);
        let Some(told) = told else { return };
        let Some(back) = self.net.pass(to, self.me) else { return };
        tokio::time::sleep(back).await;
        // The asker may have given up.
        drop(told.send(answer));
    }
}

impl Wires for Wire {
    async fn ask(&self, to: NodeId, message: Vec<u8>, within: Duration) -> Result<Vec<u8>, WireError> {
        let lost = async |why: &str| {
            tokio::time::sleep(within).await;
            Err(WireError::Unreachable { to, why: why.to_owned() })
        };
        if self.net.lock().alive.get(&self.me) != Some(&self.process) {
            return lost("this process is dead").await;
        }
        let (told, answer) = oneshot::channel();
        {
            let mut state = self.net.lock();
            while state.deliveries.try_join_next().is_some() {}
            let twice = state.weather.twice;
            if state.dice.percent(twice) {
                state.counts.hit("question came twice");
                let late = state.dice.millis(0..400);
                let (wire, message) = (self.clone(), message.clone());
                state.deliveries.spawn(async move {
                    tokio::time::sleep(late).await;
                    wire.carry(to, message, None).await;
                });
            }
            state.deliveries.spawn(self.clone().carry(to, message, Some(told)));
        }
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => lost("no answer").await,
        }
    }
}
