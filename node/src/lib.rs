//! artel

pub mod blobs;
pub mod store;
