//! Whole networks: real daemons, real builds, one module for each subject.
//!
//! A machine that cannot make sandboxes, or has no apt archive, skips them and says why; `ARTEL_TESTS=required` forbids
//! that. The first run installs one environment, which takes a minute or two; it is kept below the target folder.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod alarm;
mod attacks;
mod cancel;
mod chaos;
mod clients;
mod copycat;
mod crash;
mod decoders;
mod doubt;
mod elected;
mod environments;
mod eras;
mod explain;
mod hostile;
mod image;
mod judges;
mod light;
mod line;
mod lint;
mod log;
mod outcomes;
mod partition;
mod patience;
mod policy;
mod recipe;
mod refusals;
mod rotation;
mod rpm;
mod sandbox;
mod server;
mod ssh;
mod strangers;
mod tidy;
mod transcript;
mod variants;
mod verdicts;
mod witness;

use harness::{Ground, Site};

/// Where cargo put what the tests need.
const SITE: Site = Site {
    artel: env!("CARGO_BIN_EXE_artel-under-test"),
    verify: env!("CARGO_BIN_EXE_artel-verify-under-test"),
    folder: env!("CARGO_TARGET_TMPDIR"),
    fixtures: concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures"),
};

/// Gives the ground, or prints why there is none here.
async fn ground() -> Option<Ground> {
    Ground::find(SITE).await
}
