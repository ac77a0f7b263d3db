//! Places for networks: so many may run on one machine at one time, over all test processes.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Networks at one time: more of them only make each other slow.
const PLACES: usize = 2;
/// The longest wait for a place; longer than any test may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A place for one network; given back when dropped, by the kernel when the process ends.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "locked for as long as it is open")] File);

impl Place {
    /// Waits for a place.
    ///
    /// # Panics
    /// When there is none for ten minutes.
    pub fn take(folder: &Path) -> Self {
        let begun = Instant::now();
        loop {
            for number in 0..PLACES {
                let path = folder.join(format!("place-{number}.lock"));
                let file = File::create(&path).expect("the cache folder is ours");
                if file.try_lock().is_ok() {
                    return Self(file);
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no place for a network within {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(50));
        }
    }
}
