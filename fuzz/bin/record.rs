//! Records that are named by hash and carry no signature of their own.

#![no_main]

use artel_fuzz::canonical;
use libfuzzer_sys::fuzz_target;
use protocol::{blame::Failure, environment::EnvironmentLock, lease::Lease, release::Manifest};

fuzz_target!(|bytes: &[u8]| {
    canonical::<Lease>(bytes);
    canonical::<Failure>(bytes);
    if let Ok(lock) = EnvironmentLock::from_bytes(bytes) {
        assert_eq!(lock.to_bytes(), bytes);
    }
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
    }
});
