//! Reading a log out of its tiles: each entry is proven by a head that is believed, whoever serves the tiles.

use std::collections::BTreeMap;

use attest::log::{
    tile::{self, Resource, Slice, Tile, TileError, View},
    tree::{self, Head, MakeError},
};

/// Where tiles and bundles come from.
pub trait Source: Sync {
    /// Gives what a log serves under a path. It is believed by nobody yet.
    fn fetch(&self, resource: Resource) -> impl Future<Output = Result<Vec<u8>, FetchError>> + Send;

    /// Says that what it gave was of no use, so that it asks in another way, where it knows one.
    fn turn(&self) {}
}

/// Why something was not served, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Why a log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody serves it.
    #[error("{resource} of the log is not served")]
    Fetch {
        /// What.
        resource: String,
        /// In the words of who was asked.
        #[source]
        source: FetchError,
    },
    /// What is served is not what the head says.
    #[error("what is served is not the log that the checkpoint signs for")]
    Broken(#[source] TileError),
    /// The head does not continue an older one.
    #[error("the log does not continue what was seen before")]
    Inconsistent(#[source] tree::ProofError),
}

impl ReadError {
    /// Says whether who served it is to blame, rather than the way there.
    pub fn is_proof(&self) -> bool {
        match self {
            ReadError::Fetch { .. } => false,
            ReadError::Broken(_) | ReadError::Inconsistent(_) => true,
        }
    }
}

/// Reads one log at one head.
pub struct Reader<'a, S> {
    source: &'a S,
    head: Head,
    /// Tiles that more than one bundle needs, as served.
    tiles: BTreeMap<Tile, Vec<u8>>,
}

impl<'a, S: Source> Reader<'a, S> {
    /// Believes a head.
    pub fn new(source: &'a S, head: Head) -> Self {
        Self { source, head, tiles: BTreeMap::new() }
    }

    /// Gives the entries of the bundle that holds a place, and the place of the first of them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bundle_with(&mut self, place: u64) -> Result<(u64, Vec<Vec<u8>>), ReadError> {
        let wanted = tile::for_inclusion(place, self.head.size).map_err(ReadError::Broken)?;
        let slice = Slice::holding(place, self.head.size).expect("a place with tiles is within the log");
        let view = self.view(wanted.into_iter().collect()).await?;
        let bytes = fetch(self.source, Resource::Entries(slice)).await?;
        let entries = view.entries(slice, &bytes).map_err(ReadError::Broken)?;
        Ok((slice.first(), entries.into_iter().map(<[u8]>::to_vec).collect()))
    }

    /// Checks that the log begins with what an older head says.
    ///
    /// # Errors
    /// [`ReadError::Inconsistent`] when it does not.
    pub async fn continues(&mut self, older: Head) -> Result<(), ReadError> {
        tree::consistency_parts(older.size, self.head.size).map_err(ReadError::Inconsistent)?;
        let wanted = tile::for_consistency(older.size, self.head.size).map_err(ReadError::Broken)?;
        let view = self.view(wanted.into_iter().collect()).await?;
        let proof = tree::consistency(older.size, self.head.size, &view).map_err(|error| match error {
            MakeError::Impossible(proof) => ReadError::Inconsistent(proof),
            MakeError::Read(tile) => ReadError::Broken(tile),
        })?;
        tree::check_consistency(older, self.head, &proof).map_err(ReadError::Inconsistent)
    }

    /// Gives these tiles, once the head has proven them.
    async fn view(&mut self, wanted: Vec<Tile>) -> Result<View, ReadError> {
        let mut tiles = BTreeMap::new();
        for tile in wanted {
            let bytes = match self.tiles.remove(&tile) {
                Some(bytes) => bytes,
                None => fetch(self.source, Resource::Tile(tile)).await?,
            };
            tiles.insert(tile, bytes);
        }
        let view = View::new(self.head, &tiles).map_err(ReadError::Broken)?;
        // The next bundle needs most of them; full tiles of entries' hashes are for one bundle only, and few stay.
        self.tiles = tiles;
        Ok(view)
    }
}

async fn fetch<S: Source>(source: &S, resource: Resource) -> Result<Vec<u8>, ReadError> {
    let fetched = source.fetch(resource).await;
    fetched.map_err(|source| ReadError::Fetch { resource: resource.to_string(), source })
}
