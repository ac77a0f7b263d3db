//! How long the phases of an attempt may take that the job's own limits do not bound, and their end when it is cancelled.
//!
//! The build itself is bounded by its job's limits ([`super::sandbox`]). What takes too long here is this machine's fault:
//! a disk that hangs, a helper that does not come back.

use std::{future::Future, pin::pin, time::Duration};

use protocol::blame::{Blame, Failure, Fault};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Error, Phase};

/// How long work that was told to stop may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The time that each phase has.
#[derive(Debug, Clone, Copy)]
pub(in crate::build) struct Patience {
    /// Checking and copying the inputs.
    pub(in crate::build) inputs: Duration,
    /// Finding or installing the environment, and waiting for somebody else who installs it.
    pub(in crate::build) environment: Duration,
    /// From the sandbox's first process to the build's own command.
    pub(in crate::build) start: Duration,
    /// Copying and hashing the outputs.
    pub(in crate::build) outputs: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self { inputs: minutes(15), environment: minutes(30), start: minutes(1), outputs: minutes(15) }
    }
}

/// Does the work of a phase, which gets a token and ends soon after that is cancelled: when the phase takes too long,
/// when the attempt is cancelled, or when this future is dropped.
pub(in crate::build) async fn bounded<T, W: Future<Output = Result<T, Error>>>(
    phase: Phase,
    within: Duration,
    stop: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> W,
) -> Result<T, Error> {
    let halt = stop.child_token();
    let _when_dropped = halt.clone().drop_guard();
    let mut work = pin!(work(halt.clone()));
    let (blame, what) = tokio::select! {
        biased;
        () = stop.cancelled() => (Blame::Cancelled, "cancelled".to_owned()),
        done = &mut work => return done,
        () = sleep(within) => (fault(phase), format!("not done within {} s", within.as_secs_f64())),
    };
    halt.cancel();
    // Its folders are removed next: it should have left them. What it says now no longer matters.
    if timeout(STOP_WITHIN, work).await.is_err() {
        tracing::warn!(phase = phase.word(), "work of an attempt does not stop");
    }
    Err(Error::Ended(Failure::new(blame, phase.word(), what)))
}

fn fault(phase: Phase) -> Blame {
    match phase {
        Phase::Environment | Phase::Sandbox => Blame::Builder(Fault::Sandbox),
        Phase::Waiting | Phase::Inputs | Phase::Build | Phase::Outputs | Phase::Done => Blame::Builder(Fault::Other),
    }
}
