//! Waiting for a condition, with a limit. There is no other waiting in the tests.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Between two looks for something that is soon over.
const LOOK_AT_ONCE_EVERY: Duration = Duration::from_millis(1);

/// Looks again and again until there is something to give.
///
/// # Panics
/// When there is nothing within the limit; `what` says what was waited for.
pub async fn until<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    look_every(LOOK_EVERY, (what, within), look).await
}

/// Looks without a pause worth the name, for something that is soon over.
///
/// # Panics
/// As [`until`].
pub async fn at_once<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    look_every(LOOK_AT_ONCE_EVERY, (what, within), look).await
}

async fn look_every<T>(
    pause: Duration,
    (what, within): (&str, Duration),
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {} s: {what}", within.as_secs());
        tokio::time::sleep(pause).await;
    }
}
