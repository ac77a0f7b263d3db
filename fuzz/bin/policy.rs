//! Policies of transparency logs.

#![no_main]

use attest::{log::policy::Policy, testing::log::Memory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::read(bytes) {
        let _ = policy.check(Memory::sized(3).checkpoint(3).as_signed().clone());
    }
});
