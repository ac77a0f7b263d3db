//! How long a run takes. libFuzzer counts whole seconds of the clock; here it is the CPU time of the thread, so that a busy machine
//! does not matter.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::Target;

/// The most CPU time that one input may take, with the fuzzer's instrumentation, checks of overflow and assertions.
pub const RUN_MAX: Duration = Duration::from_millis(100);

/// Names the file that keeps the slowest input's time, in microseconds; the input lies beside it.
const SLOWEST: &str = "ARTEL_FUZZ_SLOWEST";
/// Asks the program for the target's longest input instead of a run.
const LIMIT: &str = "ARTEL_FUZZ_LIMIT";
/// Runs that are done again before one is called slow: the first may have made what later ones find.
const AGAIN: usize = 3;

/// The slowest input so far, where it is kept.
static KEPT: LazyLock<Option<Mutex<(Duration, PathBuf)>>> = LazyLock::new(|| {
    let path = PathBuf::from(env::var_os(SLOWEST)?);
    let known = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    Some(Mutex::new((Duration::from_micros(known.unwrap_or(0)), path)))
});

/// Answers the script that runs the program, and ends it, where it was asked for its limit only.
pub fn answer(target: &Target) {
    if env::var_os(LIMIT).is_some() {
        println!("{}", target.limit);
        process::exit(0);
    }
}

/// Runs a target, measures it, and remembers the slowest input.
///
/// # Panics
/// When it takes longer than [`RUN_MAX`] each time.
pub fn run(target: &Target, bytes: &[u8]) -> bool {
    let before = cpu();
    let accepted = (target.run)(bytes);
    let mut took = cpu().saturating_sub(before);
    let known = KEPT.as_ref().map_or(RUN_MAX, |kept| kept.lock().map_or(RUN_MAX, |kept| kept.0));
    if took > known.max(Duration::from_micros(100)) * 11 / 10 || took > RUN_MAX {
        took = (0..AGAIN).fold(took, |least, _| least.min(time(target, bytes)));
        remember(took, bytes);
    }
    assert!(took <= RUN_MAX, "{} bytes took {} ms of CPU time", bytes.len(), took.as_millis());
    accepted
}

fn time(target: &Target, bytes: &[u8]) -> Duration {
    let before = cpu();
    let _ = (target.run)(bytes);
    cpu().saturating_sub(before)
}

fn remember(took: Duration, bytes: &[u8]) {
    let Some(mut kept) = KEPT.as_ref().and_then(|kept| kept.lock().ok()) else { return };
    if took > kept.0 {
        kept.0 = took;
        // What cannot be written is only not remembered.
        let _ = fs::write(kept.1.with_extension("input"), bytes);
        let _ = fs::write(&kept.1, took.as_micros().to_string());
    }
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}
