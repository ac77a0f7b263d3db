//! Questions on behalf of strangers: what whoever asks this node only a coordinator can answer. However many ask, a coordinator is
//! asked so much and no more.
//!
//! ```text
//!  stranger --> the same question is on its way? --yes--> waits for that answer
//!                          | no
//!                          v
//!                 a free slot, and its turn --asks--> coordinator
//!                          '--none in time--> busy: come again
//! ```

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OnceCell, Semaphore};

/// Questions to coordinators at one time.
const SLOTS: usize = 16;
/// Questions to coordinators in a second, once as many were asked at once.
const PER_SECOND: u32 = 100;
/// How long a stranger waits for a free slot.
const SLOT_WITHIN: Duration = Duration::from_secs(2);

/// No slot was free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many questions that only a coordinator can answer; ask again in a few seconds, or ask a coordinator itself"
)]
pub struct Busy;

/// What a node asks of coordinators for others, all kinds of questions together.
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

    async fn spend<T>(&self, question: impl Future<Output = T>) -> Result<T, Busy> {
        let slot = tokio::time::timeout(SLOT_WITHIN, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| Busy)?.expect("the semaphore is never closed");
        tokio::time::sleep(self.turn(Instant::now())).await;
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(question.await)
    }

    /// Gives how long the next question must wait, and counts it.
    fn turn(&self, now: Instant) -> Duration {
        let second = Duration::from_secs(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now.checked_sub(second).unwrap_or(now)) + second / PER_SECOND;
        next.saturating_duration_since(now)
    }
}

/// An answer that several may wait for.
type Answer<V> = Arc<OnceCell<V>>;

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
        flight.answer.get_or_try_init(|| self.budget.spend(question())).await.cloned()
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
    fn the_pace_is_kept_after_a_burst() {
        let (budget, now) = (Budget::new(), Instant::now() + Duration::from_secs(10));
        let waits: Vec<Duration> = (0..3 * PER_SECOND).map(|_| budget.turn(now)).collect();
        assert!(waits[..PER_SECOND as usize].iter().all(Duration::is_zero));
        let last = waits.last().unwrap().as_secs_f64();
        assert!((1.9..=2.1).contains(&last), "{last}");
    }
}
