//! The memory that messages may hold while they are received and answered.
//!
//! Each connection has a share of its own, so that a peer who announces much and sends little takes room from itself alone.
//! What finds no room is refused at once and never waits: its bytes would lie in the connection's window, where what is being
//! read needs them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of all peers, in KiB. The strangers that are let in can fill two thirds of it, two connections each.
const REQUESTS_KIB: usize = 48 * 1024;
/// Requests on one connection, in KiB: two of the largest.
const REQUESTS_SHARE_KIB: usize = 2 * 1024;
/// Answers to our own questions, in KiB. No request takes from it.
const ANSWERS_KIB: usize = 16 * 1024;
/// Answers to our own questions on one connection, in KiB: four of the largest.
const ANSWERS_SHARE_KIB: usize = 4 * 1024;

/// Room of which every connection has a share. libp2p clones the node's codec for each connection, and that one for each of
/// the connection's streams; so a clone of the node's room has a share of its own, and a clone of that has the same share.
#[derive(Debug)]
pub(super) enum Room {
    Node { all: Arc<Semaphore>, share_kib: usize },
    Connection { all: Arc<Semaphore>, share: Arc<Semaphore> },
}

impl Room {
    /// Room for what peers ask.
    pub(super) fn for_requests() -> Self {
        Self::Node { all: Arc::new(Semaphore::new(REQUESTS_KIB)), share_kib: REQUESTS_SHARE_KIB }
    }

    /// Room for what peers answer.
    pub(super) fn for_answers() -> Self {
        Self::Node { all: Arc::new(Semaphore::new(ANSWERS_KIB)), share_kib: ANSWERS_SHARE_KIB }
    }

    /// Takes room for a message of so many bytes; none when there is not as much.
    pub(super) fn take(&self, length: u32) -> Option<Memory> {
        let kib = length.div_ceil(1024).max(1);
        let taken = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(kib).ok();
        match self {
            Self::Node { all, .. } => Some(Memory { _all: taken(all)?, _share: None }),
            Self::Connection { all, share } => {
                let share = taken(share)?;
                Some(Memory { _all: taken(all)?, _share: Some(share) })
            }
        }
    }
}

impl Clone for Room {
    fn clone(&self) -> Self {
        match self {
            Self::Node { all, share_kib } => {
                Self::Connection { all: Arc::clone(all), share: Arc::new(Semaphore::new(*share_kib)) }
            }
            Self::Connection { all, share } => Self::Connection { all: Arc::clone(all), share: Arc::clone(share) },
        }
    }
}

/// The room that a received message holds until it is answered, and gives back on drop.
#[derive(Debug)]
pub(in crate::net) struct Memory {
    _all: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes room for the largest messages until none is left.
    fn fill(room: &Room) -> Vec<Memory> {
        std::iter::from_fn(|| room.take(1024 * 1024)).collect()
    }

    #[test]
    fn a_connection_fills_its_share_and_all_together_the_whole() {
        let node = Room::for_requests();
        let connection = node.clone();
        let held = fill(&connection);
        assert_eq!(held.len(), 2);
        assert!(connection.clone().take(0).is_none(), "another stream of it has the same share");
        drop(held);
        let connections: Vec<Room> = (0..64).map(|_| node.clone()).collect();
        let held: Vec<Memory> = connections.iter().flat_map(fill).collect();
        assert_eq!(held.len(), 48);
        assert!(node.clone().take(0).is_none());
        drop(held);
        assert!(node.clone().take(0).is_some(), "given back");
    }
}
