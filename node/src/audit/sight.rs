//! What a node believes of the log, what it still has to compare with that, and what nobody could show it to be of the same log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use attest::log::{
    checkpoint::{Signed, Verified},
    network,
    note::NOTE_MAX,
    tree::Head,
};
use protocol::{
    NodeId, Timestamp,
    message::{Octets, Response},
};
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use crate::{
    clock,
    daemon::{Shared, chain},
};

/// Members of whom a checkpoint waits to be compared; those of more come again.
const HEARD: usize = 64;
/// Checkpoints that came with answers and wait to be compared.
const SHOWN: usize = 64;
/// Doubts that are remembered; more of them say nothing more.
const DOUBTS: usize = 16;
/// For how long a checkpoint may belong to nothing that is shown before it counts. Whoever is asked for tiles may be away for a moment.
const DOUBT_AFTER: Duration = Duration::from_secs(40);
/// For how long a checkpoint that waits to be compared is waited for.
const COMPARED_WITHIN: Duration = Duration::from_secs(30);

/// What a node's disk has of its belief.
#[derive(Debug, Default, PartialEq, Eq)]
enum Kept {
    /// It was not read yet.
    #[default]
    Unread,
    /// No checkpoint.
    Nothing,
    /// One of this head.
    Head(Head),
}

/// A checkpoint that the log has signed, and that nobody shows to be of the tree that is believed.
#[derive(Debug, Clone)]
pub struct Doubt {
    /// Since when nobody does.
    pub since: Timestamp,
    /// Who told it.
    pub from: NodeId,
    /// The checkpoint.
    pub checkpoint: Verified,
}

/// A checkpoint that waits to be compared with what is believed.
#[derive(Debug)]
pub(super) struct Told {
    /// Who told it.
    pub(super) from: NodeId,
    /// What that member calls a checkpoint.
    pub(super) checkpoint: Vec<u8>,
    /// Who waits to hear whether it is of the log that this node follows.
    pub(super) waiting: Option<oneshot::Sender<bool>>,
}

/// What this node believes of the log.
#[derive(Debug, Default)]
pub struct Sight {
    believed: Mutex<Option<Verified>>,
    /// What is on the disk; held while it is read or written.
    kept: tokio::sync::Mutex<Kept>,
    /// What members told by themselves, the newest of each.
    heard: Mutex<BTreeMap<NodeId, Vec<u8>>>,
    /// What answers to this node's own questions were proven by.
    shown: Mutex<VecDeque<Told>>,
    doubts: Mutex<VecDeque<Doubt>>,
    /// Something was heard or shown.
    pub(super) news: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sight {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Verified>> {
        lock(&self.believed)
    }

    /// The newest checkpoint that this node believes.
    pub fn believed(&self) -> Option<Verified> {
        self.lock().clone()
    }

    /// Believes a checkpoint that was proven to continue `former`, at once, and keeps it on the disk: gives false where that fails, and
    /// where something else is believed since. That is compared with it in a moment.
    pub(crate) async fn grow(
        &self,
        shared: &Shared,
        from: NodeId,
        (former, newer): (Option<&Verified>, Verified),
    ) -> bool {
        let (head, told) = (newer.head(), newer.as_signed().to_string());
        let grown = {
            let mut believed = self.lock();
            let now = believed.as_ref().map(Verified::head);
            let stands = now == former.map(Verified::head);
            if stands {
                *believed = Some(newer);
            }
            stands || now == Some(head)
        };
        if !grown {
            self.show(from, told.into_bytes());
        }
        grown && self.keep(shared).await.is_some_and(|kept| kept.size >= head.size)
    }

    /// Reads what an earlier run of this daemon believed; once.
    pub(crate) async fn load(&self, shared: &Shared) {
        let mut kept = self.kept.lock().await;
        if *kept != Kept::Unread {
            return;
        }
        let key = key(shared);
        let bytes = shared.store.run(move |store| store.witnessed(&key)).await.ok().flatten();
        // A log stays one log, whoever coordinated when this was signed.
        let believed = bytes.and_then(|bytes| Signed::read(&bytes).ok()?.verify(&shared.every_log_key()).ok());
        *kept = believed.as_ref().map_or(Kept::Nothing, |believed| Kept::Head(believed.head()));
        *self.lock() = believed;
    }

    /// Keeps what is believed on the disk, where that is something new. Gives its head; none where nothing is believed, or that fails.
    pub(super) async fn keep(&self, shared: &Shared) -> Option<Head> {
        let mut kept = self.kept.lock().await;
        let believed = self.believed()?;
        let head = believed.head();
        if *kept == Kept::Head(head) {
            return Some(head);
        }
        let (name, bytes) = (key(shared), believed.as_signed().to_string().into_bytes());
        let written = shared.store.run(move |store| store.witness(&name, |_| (Some(bytes), ()))).await;
        written.inspect_err(|error| warn!(error = %chain(error), "a checkpoint cannot be kept")).ok()?;
        *kept = Kept::Head(head);
        Some(head)
    }

    /// Takes the checkpoint that another member tells, to be compared in a moment. One waits of each member, so that nobody who tells
    /// many keeps others from being heard.
    pub fn hear(&self, from: NodeId, checkpoint: Vec<u8>) {
        if checkpoint.is_empty() || checkpoint.len() > NOTE_MAX {
            return;
        }
        let mut heard = lock(&self.heard);
        if heard.len() < HEARD || heard.contains_key(&from) {
            heard.insert(from, checkpoint);
            self.news.notify_one();
        }
    }

    /// Takes the checkpoint that an answer to this node came with, to be compared in a moment, unless too many wait.
    pub fn show(&self, from: NodeId, checkpoint: Vec<u8>) {
        self.push(Told { from, checkpoint, waiting: None });
    }

    /// Compares the checkpoint that something this node asked for was proven by. Gives whether it is of the log that this node follows,
    /// as far as coordinators show it: without, nothing is to be taken that it proves.
    pub async fn is_followed(&self, from: NodeId, checkpoint: Vec<u8>) -> bool {
        let (waiting, compared) = oneshot::channel();
        self.push(Told { from, checkpoint, waiting: Some(waiting) });
        // What found no room, or was not compared before this node stopped, has nobody who would say so.
        matches!(tokio::time::timeout(COMPARED_WITHIN, compared).await, Ok(Ok(true)))
    }

    fn push(&self, told: Told) {
        let mut shown = lock(&self.shown);
        if shown.len() < SHOWN && told.checkpoint.len() <= NOTE_MAX {
            shown.push_back(told);
            self.news.notify_one();
        }
    }

    /// Takes out what was told by members that `heard` lets be heard now, and everything that was shown.
    pub(super) fn take(&self, mut heard: impl FnMut(&NodeId) -> bool) -> Vec<Told> {
        let told = lock(&self.heard).extract_if(.., |from, _| heard(from)).collect::<Vec<_>>();
        let told = told.into_iter().map(|(from, checkpoint)| Told { from, checkpoint, waiting: None });
        lock(&self.shown).drain(..).chain(told).collect()
    }

    /// Why nothing new is taken that the log proves: the oldest doubt, once it counts.
    pub fn doubt(&self) -> Option<Doubt> {
        let doubts = lock(&self.doubts);
        let oldest = doubts.iter().min_by_key(|doubt| doubt.since)?;
        (clock::now().since(oldest.since) >= DOUBT_AFTER).then(|| oldest.clone())
    }

    /// Remembers that nobody shows what a checkpoint belongs to.
    pub(super) fn doubted(&self, from: NodeId, checkpoint: Verified) {
        let mut doubts = lock(&self.doubts);
        if doubts.len() < DOUBTS && doubts.iter().all(|doubt| doubt.checkpoint.head() != checkpoint.head()) {
            info!(from = %from.short(), size = checkpoint.head().size, "nobody shows what this checkpoint belongs to");
            doubts.push_back(Doubt { since: clock::now(), from, checkpoint });
        }
    }

    /// Forgets a doubt: it is known what the checkpoint belongs to, or it is none of the log's.
    pub(super) fn settled(&self, head: Head) {
        lock(&self.doubts).retain(|doubt| doubt.checkpoint.head() != head);
    }

    /// Gives a doubt, each call the next one.
    pub(super) fn next_doubt(&self) -> Option<Doubt> {
        let mut doubts = lock(&self.doubts);
        let next = doubts.front().cloned();
        if next.is_some() {
            doubts.rotate_left(1);
        }
        next
    }

    /// What a member is told that tells its own.
    pub(crate) fn answer(&self, shared: &Shared) -> Response {
        match (shared.alarm(), self.believed()) {
            (Some((alarm, _)), _) => Response::Conflict(Octets(alarm.conflict.to_bytes())),
            (None, Some(believed)) => Response::Checkpoint(Octets(believed.as_signed().to_string().into_bytes())),
            (None, None) => Response::Checkpoint(Octets(Vec::new())),
        }
    }
}

/// Under which name a node's store has what it believes.
fn key(shared: &Shared) -> String {
    // No origin has a space in it, so this is no witness's memory.
    format!("believed {}", network::origin(&shared.network))
}

#[cfg(test)]
mod tests {
    use attest::testing::log::Memory;
    use protocol::testing::node;

    use super::*;

    #[test]
    fn of_a_member_one_checkpoint_waits_and_what_was_asked_for_is_never_crowded_out() {
        let sight = Sight::default();
        for number in 0..1000_u32 {
            sight.hear(node(1), number.to_be_bytes().to_vec());
        }
        sight.hear(node(2), vec![7]);
        sight.hear(node(3), Vec::new());
        sight.hear(node(3), vec![0; NOTE_MAX + 1]);
        sight.show(node(1), vec![1]);
        sight.show(node(1), vec![2]);
        let take = |heard: fn(&NodeId) -> bool| {
            sight.take(heard).into_iter().map(|told| (told.from, told.checkpoint)).collect::<Vec<_>>()
        };
        // The second member was heard already: its next one waits.
        let taken = take(|member| *member != node(2));
        assert_eq!(taken, [(node(1), vec![1]), (node(1), vec![2]), (node(1), 999_u32.to_be_bytes().to_vec())]);
        assert_eq!(take(|_| true), [(node(2), vec![7])]);
        for number in 4..200 {
            sight.hear(node(number), vec![number]);
        }
        assert_eq!(take(|_| true).len(), HEARD);
        (0..=SHOWN).for_each(|_| sight.show(node(1), vec![1]));
        assert_eq!(take(|_| true).len(), SHOWN);
    }

    #[tokio::test]
    async fn who_waits_for_a_comparison_hears_of_it_and_what_is_not_compared_proves_nothing() {
        let sight = Sight::default();
        let answer = |compared: Option<bool>| {
            let sight = &sight;
            async move {
                sight.news.notified().await;
                let told = sight.take(|_| true).pop().unwrap();
                if let Some(compared) = compared {
                    told.waiting.unwrap().send(compared).unwrap();
                }
            }
        };
        for (compared, proves) in [(Some(true), true), (Some(false), false), (None, false)] {
            let (followed, ()) = tokio::join!(sight.is_followed(node(1), vec![1]), answer(compared));
            assert_eq!(followed, proves, "{compared:?}");
        }
        assert!(!sight.is_followed(node(1), vec![0; NOTE_MAX + 1]).await, "no checkpoint is that long");
        (0..SHOWN).for_each(|_| sight.show(node(1), vec![1]));
        assert!(!sight.is_followed(node(1), vec![1]).await, "there is no room for it");
    }

    #[test]
    fn a_doubt_counts_after_a_while_until_it_is_settled() {
        let (sight, log) = (Sight::default(), Memory::sized(30));
        for size in 1..=20 {
            sight.doubted(node(1), log.checkpoint(size));
        }
        assert!(sight.doubt().is_none(), "whoever is asked may be away for a moment");
        assert_eq!(lock(&sight.doubts).len(), DOUBTS);
        // Each is looked into again in turn.
        let next = || sight.next_doubt().unwrap().checkpoint.head().size;
        assert_eq!([next(), next(), next()], [1, 2, 3]);
        let before =
            |doubt: &mut Doubt, millis: u64| doubt.since = Timestamp::from_millis(doubt.since.as_millis() - millis);
        lock(&sight.doubts).iter_mut().for_each(|doubt| before(doubt, 41_000));
        lock(&sight.doubts)
            .iter_mut()
            .filter(|doubt| doubt.checkpoint.head().size == 9)
            .for_each(|d| before(d, 10_000));
        assert_eq!(sight.doubt().unwrap().checkpoint.head().size, 9, "the oldest");
        sight.doubted(node(2), log.checkpoint(9));
        assert_eq!(sight.doubt().unwrap().from, node(1), "the same again is no younger");
        (1..=20).for_each(|size| sight.settled(log.head(size)));
        assert!(sight.doubt().is_none());
    }
}
