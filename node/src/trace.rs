//! The daemon's own log: to standard error, as text or JSON lines. `ARTEL_LOG` filters it (default `info`).

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. A second call does nothing, so that tests may call it too.
pub fn start(form: Form) {
    let usual = "info,libp2p=warn,iroh=warn,iroh_blobs=warn,openraft=warn,quinn=warn";
    let filter = EnvFilter::try_from_env("ARTEL_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let registry = tracing_subscriber::registry().with(filter);
    // Only a second start fails, and then the first one goes on.
    let _ = match form {
        Form::Text => registry
            .with(
                fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).with_target(false),
            )
            .try_init(),
        Form::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}
