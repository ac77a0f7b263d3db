//! What the fuzz targets check beside not panicking: whatever a decoder lets in has exactly one byte string.

use std::fmt::Display;

use protocol::codec;
use serde::{Serialize, de::DeserializeOwned};

/// Lets bytes in as a record, and checks that the record writes itself as these bytes.
///
/// # Panics
/// When it does not: then one meaning has two byte strings.
pub fn canonical<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes, bytes.len()) {
        assert_eq!(codec::encode(&value), bytes);
    }
}

/// Checks that a text format, once it is read, writes itself as it was.
///
/// # Panics
/// When it does not.
pub fn same_text<T: Display, E>(read: Result<T, E>, bytes: &[u8]) -> Option<T> {
    let value = read.ok()?;
    assert_eq!(value.to_string().as_bytes(), bytes);
    Some(value)
}
