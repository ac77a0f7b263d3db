//! Writes what a client uploads to a file, as many bytes as it said and no more.

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use web::{api::ApiError, backend::ByteStream};

use super::internal;

/// Writes an upload to a new file.
///
/// # Errors
/// When another number of bytes comes than was announced, or the disk fails.
pub(super) async fn write(path: &std::path::Path, bytes: &mut ByteStream, size: u64) -> Result<(), ApiError> {
    let failed = |e: std::io::Error| internal("upload", &e);
    let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
    let mut written = 0;
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        written += piece.len() as u64;
        if written > size {
            break;
        }
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    if written == size {
        Ok(())
    } else {
        Err(ApiError::Refused { reason: format!("{size} bytes were announced, {written} came") })
    }
}
