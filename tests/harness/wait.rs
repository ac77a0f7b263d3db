//! Waiting for a condition, with a limit. There is no other waiting in the tests.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks again and again until there is something to give.
///
/// # Panics
/// When there is nothing within the limit; `what` says what was waited for.
pub async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {} s: {what}", within.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
