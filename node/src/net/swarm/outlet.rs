//! What the consumer is told, without ever waiting for it.

use std::collections::BTreeSet;

use protocol::NodeId;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::net::Event;

/// The consumer's queue, and what it was told of who is connected.
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    connected: BTreeSet<NodeId>,
    told: BTreeSet<NodeId>,
    behind: BTreeSet<NodeId>,
}

/// Whether the consumer's queue took an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what was refused has a stated answer"]
pub(super) enum Given {
    Taken,
    Refused,
}

/// A place in the consumer's queue; none when the consumer is gone.
pub(super) type Place = Option<mpsc::OwnedPermit<Event>>;

impl Outlet {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, connected: BTreeSet::new(), told: BTreeSet::new(), behind: BTreeSet::new() }
    }

    /// Hands an event over; one that does not fit is dropped, and with it its reply, verdict or stream.
    pub(super) fn give(&mut self, event: Event) -> Given {
        match self.events.try_send(event) {
            Ok(()) => Given::Taken,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Given::Refused,
        }
    }

    pub(super) fn connected(&mut self, node: NodeId) {
        self.connected.insert(node);
        self.catch_up(node);
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.connected.remove(&node);
        self.catch_up(node);
    }

    fn catch_up(&mut self, node: NodeId) {
        self.behind.insert(node);
        if let Ok(place) = self.events.clone().try_reserve_owned() {
            self.say(node, place);
        }
    }

    /// Says whether the consumer does not yet know who is connected.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Waits for a place in the queue. Dropping the future loses nothing.
    pub(super) fn tell(&self) -> impl Future<Output = Place> + use<> {
        let events = self.events.clone();
        async move { events.reserve_owned().await.ok() }
    }

    /// Uses the place that `tell` waited for.
    pub(super) fn told(&mut self, place: Place) {
        let Some(place) = place else { return self.behind.clear() };
        if let Some(node) = self.behind.first().copied() {
            self.say(node, place);
        }
    }

    fn say(&mut self, node: NodeId, place: mpsc::OwnedPermit<Event>) {
        self.behind.remove(&node);
        match (self.connected.contains(&node), self.told.contains(&node)) {
            (true, false) => {
                self.told.insert(node);
                place.send(Event::Connected(node));
            }
            (false, true) => {
                self.told.remove(&node);
                place.send(Event::Disconnected(node));
            }
            (true, true) | (false, false) => {}
        }
    }
}
