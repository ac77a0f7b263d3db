//! Stores that talk over streams in this process, some of which die, hang or lie.

mod keeping;
mod moving;
mod network;

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Blobs, Options};

/// Options whose sweeps happen only when asked and that keep nothing without a pin.
fn strict(quota_bytes: u64) -> Options {
    Options { gc_interval: Duration::from_secs(3600), grace: Duration::ZERO, ..Options::new(quota_bytes) }
}

fn usual() -> Options {
    Options { gc_interval: Duration::from_secs(3600), idle: Duration::from_secs(1), ..Options::new(1 << 32) }
}

async fn open(dir: &TempDir, options: Options) -> Blobs {
    Blobs::open(dir.path(), options).await.unwrap()
}

async fn fresh(options: Options) -> (TempDir, Blobs) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(&dir, options).await;
    (dir, blobs)
}

/// Bytes that do not repeat, so that no two pieces are alike.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out.into()
}
