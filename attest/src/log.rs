//! The transparency log: what the network decided, in an order that nobody can change unseen.
//!
//! ```text
//!  entries --tree--> head (size, root) --checkpoint--> signed note --witness--> cosigned note
//!                     |                                                          |
//!                     +--tile--> what a log serves by HTTP                       +--policy--> enough operators saw it
//!                     +--tree--> inclusion, consistency          entry + path + cosigned note = proof, beside the package
//! ```
//!
//! The formats are those of C2SP, so that programs that nobody here wrote read them: signed-note v1.0.0,
//! tlog-checkpoint v1.0.0, tlog-tiles, tlog-cosignature v1.0.1 (`cosignature/v1`, Ed25519), tlog-witness v1.0.0,
//! tlog-policy and tlog-proof. Hashing and proofs are RFC 6962's, with SHA-256. Only the entries are our own.
//!
//! Nothing here stores, sends or waits: a witness's decision is a function of a request and what it remembers, a proof
//! is read out of tiles that the caller fetched, and the time is an argument.

pub mod checkpoint;
pub mod conflict;
pub mod entry;
pub mod network;
pub mod note;
pub mod policy;
pub mod proof;
pub mod story;
pub mod tile;
pub mod tree;
pub mod witness;
