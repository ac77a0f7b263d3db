//! What is handed in again. Whatever a maintainer signed anybody may hand in, and much of it is public, so that a stranger could
//! have the same written into the journal again and again; within a moment he gets the same answer instead.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::{
    Hash,
    lease::LeaseNumber,
    message::{Octets, Refusal, Request, Response},
};

/// For so long an answer stands.
const STANDS_FOR: Duration = Duration::from_secs(20);
/// Answers that are kept, the oldest go first: more than strangers get in that time.
const KEPT_MAX: usize = 1024;

/// What is handed in: the kind of it, and its hash.
pub type Again = (&'static str, Hash);

/// The answers to what strangers handed in a moment ago, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<VecDeque<(Instant, Again, Response)>>);

/// Gives what a request hands in, if it is such a request.
pub(super) fn of(request: &Request) -> Option<Again> {
    let (kind, Octets(record)) = if let Request::Submit(record) = request {
        ("job", record)
    } else if let Request::Order(record) = request {
        ("order", record)
    } else if let Request::Recipe(record) = request {
        ("recipe", record)
    } else if let Request::RecipeRun(record) = request {
        ("run", record)
    } else {
        return None;
    };
    Some((kind, Hash::of(record)))
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Again, Response)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the answer to a record that was handed in a moment ago.
    pub(super) fn answer(&self, record: &Again, now: Instant) -> Option<Response> {
        let mut kept = self.lock();
        while kept.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= STANDS_FOR) {
            kept.pop_front();
        }
        kept.iter().find(|(_, known, _)| known == record).map(|(.., answer)| answer.clone())
    }

    /// Keeps an answer, unless another one may come at once, or elsewhere.
    pub(super) fn note(&self, record: Again, answer: &Response, now: Instant) {
        if is_for_later(answer) {
            return;
        }
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((now, record, answer.clone()));
    }
}

/// How often a result may be shown under one lease: its builder repeats it when an answer is lost.
const SHOWN_MAX: u8 = 16;
/// Leases that are counted, the newest.
const LEASES_MAX: usize = 4096;

/// How often results were shown, each of which is a large entry of the journal.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<BTreeMap<LeaseNumber, u8>>);

impl Shown {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseNumber, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a result under a lease under which it was shown too often.
    ///
    /// # Errors
    /// The refusal to send.
    pub(super) fn check(&self, lease: LeaseNumber) -> Result<(), Refusal> {
        match self.lock().get(&lease) {
            Some(&SHOWN_MAX) => {
                Err(Refusal::Invalid(format!("a result under lease {lease} was shown {SHOWN_MAX} times")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a result that was decided about. One that could not be is shown again for as long as that takes.
    pub(super) fn note(&self, lease: LeaseNumber, answer: &Response) {
        if is_for_later(answer) {
            return;
        }
        let mut counts = self.lock();
        let count = counts.entry(lease).or_default();
        *count = (*count + 1).min(SHOWN_MAX);
        if counts.len() > LEASES_MAX {
            counts.pop_first();
        }
    }
}

fn is_for_later(answer: &Response) -> bool {
    matches!(answer, Response::Refused(Refusal::Busy(_) | Refusal::NotCoordinator(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_shown_again_and_not_for_ever() {
        let (shown, lease, later) =
            (Shown::default(), LeaseNumber(1), Response::Refused(Refusal::Busy("later".into())));
        for _ in 0..100 {
            shown.check(lease).unwrap();
            shown.note(lease, &later);
        }
        for _ in 0..SHOWN_MAX {
            shown.check(lease).unwrap();
            shown.note(lease, &Response::Done);
        }
        assert!(shown.check(lease).is_err() && shown.check(LeaseNumber(2)).is_ok());
        (3..10_000).for_each(|lease| shown.note(LeaseNumber(lease), &Response::Done));
        assert_eq!(shown.lock().len(), LEASES_MAX);
    }

    #[test]
    fn the_same_record_gets_the_same_answer_for_a_moment() {
        let (again, now) = (Answers::default(), Instant::now());
        let bytes = |number: usize| Octets(number.to_be_bytes().to_vec());
        let record = |number: usize| of(&Request::Order(bytes(number))).unwrap();
        assert_eq!(of(&Request::Policy), None);
        assert_ne!(of(&Request::Submit(bytes(1))), of(&Request::Order(bytes(1))), "the same bytes are something else");
        again.note(record(1), &Response::Refused(Refusal::Busy("later".into())), now);
        assert_eq!(again.answer(&record(1), now), None);
        again.note(record(1), &Response::Done, now);
        assert_eq!(again.answer(&record(1), now + STANDS_FOR / 2), Some(Response::Done));
        assert_eq!(again.answer(&record(1), now + STANDS_FOR), None);
        for number in 0..=KEPT_MAX {
            again.note(record(number), &Response::Done, now);
        }
        assert_eq!((again.answer(&record(0), now), again.lock().len()), (None, KEPT_MAX));
        assert_eq!(again.answer(&record(KEPT_MAX), now), Some(Response::Done));
    }
}
