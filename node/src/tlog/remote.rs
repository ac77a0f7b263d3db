//! A log over HTTP, or over the control socket of a node.

use attest::log::tile::Resource;
use web::Backend;

use super::reader::{FetchError, Source};

/// The log that a node serves.
#[derive(Debug, Clone)]
pub struct Remote<B>(pub B);

impl<B: Backend> Source for Remote<B> {
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        let path = resource.to_string().parse().map_err(|error| FetchError(format!("{error}")))?;
        let file = self.0.log_file(path).await;
        file.map(|bytes| bytes.to_vec()).map_err(|error| FetchError(error.to_string()))
    }
}
