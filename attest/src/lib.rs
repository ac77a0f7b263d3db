//! What is proven: signed statements of builders, how they are compared, and what they add up to.
//!
//! ```text
//!  builder:   Attestation --sign--> DSSE JSON (in-toto Statement v1, SLSA provenance v1)
//!             its bytes --commitment::digest(salt)--> what is said first; without outputs: Negative --sign--> DSSE JSON
//!             who else is bound, by the log --reveal::check--> whether it is shown
//!  everybody: bytes --statement::read--> VerifiedAttestation --Vote::of(policy)--> Vote --threshold::verdict--> Verdict
//!  offline:   Bundle --verify::verify(network)--> Proof
//!  mirrored:  Bundle, .tlog-proof --verify::verify_bundle(trust)--> Chain: the policies by their places in the log judge
//!  installed: staple, .tlog-proof --verify::verify_stapled(trust)--> Chain, by the same judge
//!  forever:   entry --log--> checkpoint --witnesses--> .tlog-proof
//! ```
//!
//! This crate holds no tokio, no sockets, no files and no clock: time comes in as an argument, bytes come in as bytes.
//! Only the program around it, `artel-verify`, reads files and the time. It decides nothing about leases or publication; the ledger
//! does.

pub mod bundle;
pub mod commitment;
pub mod compare;
pub mod course;
pub mod dsse;
pub mod independence;
pub mod link;
pub mod log;
pub mod negative;
pub mod reveal;
pub mod rpm;
pub mod staple;
pub mod statement;
pub mod summary;
pub mod testing;
pub mod threshold;
pub mod trust;
pub mod verify;
