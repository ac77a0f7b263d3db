//! What may be said: the words, records and messages of an artel network.
//!
//! This crate holds wire types and the rules that make one meaning have exactly one byte string. It holds no tokio, no
//! sockets, no files and no clock: time comes in as a [`Timestamp`], keys come in as bytes.
//!
//! A record travels as an [`envelope::Envelope`] (type, payload bytes, signatures). What came from outside is
//! `Signed<T>`; what passed limits, canonical form, signature and meaning, in that order, is `Verified<T>`.

pub mod arch;
pub mod blame;
pub mod codec;
pub mod envelope;
pub mod environment;
pub mod id;
pub mod job;
pub mod lease;
pub mod limits;
pub mod message;
pub mod peer;
pub mod policy;
pub mod recipe;
pub mod release;
pub mod ssh;
pub mod testing;
pub mod words;

pub use arch::Arch;
pub use envelope::{Envelope, Signed, Verified};
pub use id::{Hash, JobId, NetworkId, NodeId, PublicKey, Salt, Sha256, Timestamp};
pub use words::{ChannelName, FileName, MaintainerName, OperatorName, PackageName, SuiteName};
