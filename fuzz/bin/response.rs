//! Responses of the exchange protocol.

#![no_main]

use artel_fuzz::canonical;
use libfuzzer_sys::fuzz_target;
use protocol::message::Response;

fuzz_target!(|bytes: &[u8]| {
    canonical::<Response>(bytes);
});
