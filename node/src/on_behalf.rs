//! Questions on behalf of strangers: what whoever asks this node only others can answer. However many ask, the others are asked so
//! much and no more.
//!
//! ```text
//!  stranger --> the same question is on its way? --yes--> waits for that answer
//!                          | no
//!                          v
//!                 a free slot, and its turn --asks--> coordinator, builder
//!                          '--none in time--> busy: come again
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OnceCell, Semaphore};

/// Questions of one budget at one time.
const SLOTS: usize = 16;
/// Questions of one budget in a second, once as many were asked at once.
const PER_SECOND: u32 = 100;
/// How long a stranger waits for a free slot.
const SLOT_WITHIN: Duration = Duration::from_secs(2);
/// Which part of the store may be filled in a day by what strangers want: one eighth.
const SHELF_PART: u64 = 8;
/// For how long something counts: about as long as it is kept once its job is over.
const SHELF_FOR: Duration = Duration::from_secs(24 * 3600);
/// What the smallest thing counts as, in bytes.
const SHELF_LEAST: u64 = 64 * 1024;

/// No slot was free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many questions that only other nodes can answer; ask again in a few seconds, or ask a coordinator itself")]
pub struct Busy;

/// Who asks a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The node's owner.
    Owner,
    /// Whoever reaches the node.
    Stranger,
}

/// What a node asks of others for strangers, all questions that share it together.
#[derive(Debug)]
pub struct Budget {
    slots: Semaphore,
    /// When the next question may go, by a pace that lets [`PER_SECOND`] go at once after a quiet second.
    next: Mutex<Instant>,
    asked: AtomicU64,
}

impl Budget {
    /// Makes one that nothing was taken from.
    pub fn new() -> Arc<Self> {
        let (slots, next) = (Semaphore::new(SLOTS), Mutex::new(Instant::now()));
        Arc::new(Self { slots, next, asked: AtomicU64::new(0) })
    }

    /// Counts the questions so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks once it is this question's turn.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn spend<T>(&self, question: impl Future<Output = T>) -> Result<T, Busy> {
        let slot = tokio::time::timeout(SLOT_WITHIN, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| Busy)?.expect("the semaphore is never closed");
        tokio::time::sleep(self.turn(Instant::now())?).await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(question.await)
    }

    /// Gives how long the next question must wait, and counts it. Who would wait too long takes no turn, so that those who go away
    /// leave no debt.
    fn turn(&self, now: Instant) -> Result<Duration, Busy> {
        let second = Duration::from_secs(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now.checked_sub(second).unwrap_or(now)) + second / PER_SECOND;
        let wait = turn.saturating_duration_since(now);
        if wait > SLOT_WITHIN {
            return Err(Busy);
        }
        *next = turn;
        Ok(wait)
    }
}

/// What is fetched because strangers want it, and kept as long as its job: no more in a day than a part of the store, so that a
/// builder has room for its work whoever reads logs at it.
#[derive(Debug)]
pub struct Shelf {
    room: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    reserved: u64,
    /// When something came, and its bytes.
    filled: VecDeque<(Instant, u64)>,
}

impl Shelf {
    /// Makes an empty one in a store of so many bytes.
    pub fn of(store: u64) -> Self {
        Self { room: store / SHELF_PART, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves space for something of at most `limit` bytes, and at most half of what is left, so that one that is slow to come leaves
    /// space for others; none where none is left.
    pub fn reserve(&self, limit: u64) -> Option<Space<'_>> {
        self.reserve_at(limit, Instant::now())
    }

    fn reserve_at(&self, limit: u64, now: Instant) -> Option<Space<'_>> {
        let mut kept = self.kept();
        while kept.filled.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= SHELF_FOR) {
            kept.filled.pop_front();
        }
        let taken = kept.reserved + kept.filled.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let half = self.room.saturating_sub(taken) / 2;
        if half < SHELF_LEAST {
            return None;
        }
        let bytes = limit.min(half);
        kept.reserved += bytes;
        Some(Space { shelf: self, bytes })
    }
}

/// Space for one thing; given back on drop.
#[derive(Debug)]
pub struct Space<'a> {
    shelf: &'a Shelf,
    bytes: u64,
}

impl Space<'_> {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says what lies there for a day now. Small things count, too.
    pub fn fill(self, bytes: u64) {
        self.shelf.kept().filled.push_back((Instant::now(), bytes.max(SHELF_LEAST)));
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        self.shelf.kept().reserved -= self.bytes;
    }
}

/// An answer that several may wait for.
type Answer<V> = Arc<OnceCell<Result<V, Busy>>>;

/// Questions of one kind that are on their way.
#[derive(Debug)]
pub struct Questions<K, V> {
    budget: Arc<Budget>,
    flights: Mutex<BTreeMap<K, Answer<V>>>,
}

impl<K: Ord + Clone, V: Clone> Questions<K, V> {
    /// Makes a kind of questions.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), flights: Mutex::default() }
    }

    fn flights(&self) -> MutexGuard<'_, BTreeMap<K, Answer<V>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, unless the same question is on its way. Whoever waits may go away: another one who waits asks then.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn ask(&self, key: K, question: impl AsyncFnOnce() -> V) -> Result<V, Busy> {
        let answer = Arc::clone(self.flights().entry(key.clone()).or_default());
        let flight = Flight { questions: self, key, answer };
        // All who wait hear that there is no room, instead of trying one after the other.
        flight.answer.get_or_init(|| self.budget.spend(question())).await.clone()
    }
}

/// One who waits for an answer. The last one who leaves forgets the question.
struct Flight<'a, K: Ord + Clone, V: Clone> {
    questions: &'a Questions<K, V>,
    key: K,
    answer: Answer<V>,
}

impl<K: Ord + Clone, V: Clone> Drop for Flight<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.questions.flights();
        let is_it = flights.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.answer));
        // What was answered is old for whoever asks from now on; else the map and this one hold it.
        if is_it && (self.answer.initialized() || Arc::strong_count(&self.answer) <= 2) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn equal_questions_are_asked_once_and_forgotten() {
        let (budget, count) = (Budget::new(), AtomicUsize::new(0));
        let questions = Questions::new(&budget);
        let one = || {
            questions.ask("tile", async || {
                tokio::time::sleep(Duration::from_secs(1)).await;
                count.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        let all = futures::future::join_all((0..1000).map(|_| one())).await;
        assert!(all.iter().all(|answer| *answer == Ok(1)), "{all:?}");
        assert!(questions.flights().is_empty());
        assert_eq!((one().await, budget.asked()), (Ok(2), 2), "a later one is a question of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_takes_nothing_with_him() {
        let budget = Budget::new();
        let questions = Arc::new(Questions::<u64, u64>::new(&budget));
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let questions = Arc::clone(&questions);
            tasks.spawn(async move {
                questions
                    .ask(7, async || {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        7
                    })
                    .await
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = tasks.spawn(async { Ok(0) });
        drop(first);
        assert_eq!(questions.flights().len(), 1);
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        assert!(questions.flights().is_empty(), "nobody waits, nothing is kept");
        assert_eq!(questions.ask(7, async || 8).await, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cannot_make_a_node_ask_more_than_its_budget() {
        let budget = Budget::new();
        let questions = Questions::new(&budget);
        let slow = |key: u64| {
            questions.ask(key, async move || {
                tokio::time::sleep(Duration::from_secs(60)).await;
                key
            })
        };
        let all = futures::future::join_all((0..500).map(slow)).await;
        let busy = all.iter().filter(|answer| **answer == Err(Busy)).count();
        assert_eq!((busy, budget.asked()), (500 - SLOTS, SLOTS as u64), "the others are told to come again");
        assert!(questions.flights().is_empty());
    }

    #[test]
    fn strangers_fill_a_part_of_the_store_and_no_more() {
        const MIB: u64 = 1 << 20;
        let shelf = Shelf::of(64 * MIB);
        let slow = shelf.reserve(256 * MIB).unwrap();
        assert_eq!(slow.bytes(), 4 * MIB, "half of what is there");
        assert_eq!(shelf.reserve(MIB).unwrap().bytes(), MIB, "others need not wait for it");
        drop(slow);
        let mut kept = 0;
        while let Some(space) = shelf.reserve(MIB) {
            kept += space.bytes();
            let bytes = space.bytes();
            space.fill(bytes);
        }
        assert!((7 * MIB..=8 * MIB).contains(&kept), "{kept}");
        assert_eq!(shelf.kept().reserved, 0);
        let tomorrow = Instant::now() + SHELF_FOR;
        let small = shelf.reserve_at(1, tomorrow).expect("what came a day ago is gone with its job");
        assert_eq!(small.bytes(), 1);
        small.fill(1);
        assert_eq!(shelf.kept().filled.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [SHELF_LEAST]);
    }

    #[test]
    fn the_pace_is_kept_after_a_burst() {
        let (budget, now) = (Budget::new(), Instant::now() + Duration::from_secs(10));
        let waits: Vec<Duration> = (0..9 * PER_SECOND).map_while(|_| budget.turn(now).ok()).collect();
        assert!(waits[..PER_SECOND as usize].iter().all(Duration::is_zero));
        let last = waits.last().unwrap().as_secs_f64();
        assert!((1.9..=2.1).contains(&last), "{last}");
        assert_eq!(waits.len(), 3 * PER_SECOND as usize, "who would wait longer takes no turn");
        assert!(budget.turn(now + Duration::from_millis(20)).is_ok(), "those who left owe nothing");
    }
}
