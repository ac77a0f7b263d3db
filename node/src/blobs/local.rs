//! The store and this machine's files: adding, reading, exporting and checking.
//!
//! Every way out verifies: a byte that changed on disk is an error, never an answer.

use std::{
    fs,
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bao_tree::io::EncodeError;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use iroh_blobs::{
    BlobFormat, HashAndFormat,
    api::{
        ExportBaoError,
        blobs::{AddPathOptions, EncodedItem, ImportMode},
    },
    protocol::{ChunkRanges, ChunkRangesExt},
};
use protocol::Hash;
use sync_wrapper::SyncWrapper;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Blobs, Error, failed, from_iroh, to_iroh};

/// Up to this size a blob is exported through memory; above, the file system copies it.
const EXPORT_IN_MEMORY_MAX: u64 = 1024 * 1024;

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// How a file comes into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// Its bytes are copied (or shared by the file system, where it can).
    Copy,
    /// It stays where it is and must never change. If it does, the blob counts as damaged.
    Reference,
}

impl Blobs {
    /// Adds bytes. They are kept for the time of grace; [`Blobs::pin`] keeps them longer.
    ///
    /// # Errors
    ///
    /// [`Error::QuotaExceeded`].
    pub async fn add_bytes(&self, bytes: Bytes) -> Result<Hash, Error> {
        let hash = Hash::of(&bytes);
        if self.keep_known(&hash).await? {
            return Ok(hash);
        }
        let size = bytes.len() as u64;
        let promise = self.inner.account.promise(size, &self.inner.sweep).await?;
        let tag = self.inner.store.blobs().add_bytes(bytes).temp_tag().await.map_err(failed("add bytes"))?;
        self.inner.young.keep(tag);
        self.set_sound(&hash).await?;
        promise.used(size);
        Ok(hash)
    }

    /// Makes a blob that is here young again; says whether it is here.
    async fn keep_known(&self, hash: &Hash) -> Result<bool, Error> {
        let tag = self.inner.store.tags().temp_tag(HashAndFormat::raw(to_iroh(hash))).await;
        let tag = tag.map_err(failed("protect a blob"))?;
        self.inner.sweep.settled().await;
        let known = self.size(hash).await?.is_some();
        if known {
            self.inner.young.keep(tag);
        }
        Ok(known)
    }

    /// Adds what a reader gives, at most `size` bytes, and gives its hash and size. This is for a file that was opened
    /// with care and must not be opened again by its name.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when reading fails or gives more than `size` bytes, and [`Error::QuotaExceeded`].
    pub async fn add_reader<R>(&self, reader: R, size: u64) -> Result<(Hash, u64), Error>
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let promise = self.inner.account.promise(size, &self.inner.sweep).await?;
        let pieces = Pieces { reader: SyncWrapper::new(reader), left: size, buffer: vec![0; PIECE] };
        let add = self.inner.store.blobs().add_stream(pieces).await;
        let tag = add.temp_tag().await.map_err(failed("add what a reader gave"))?;
        let hash = from_iroh(tag.hash());
        self.set_sound(&hash).await?;
        let size = self.size(&hash).await?.ok_or(Error::Missing { hash })?;
        self.inner.young.keep(tag);
        promise.used(size);
        Ok((hash, size))
    }

    /// Adds a regular file and gives its hash and size in bytes. The file is streamed, never held in memory.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::QuotaExceeded`].
    pub async fn add_file(&self, path: &Path, import: Import) -> Result<(Hash, u64), Error> {
        let (path, size) = regular_file(path)?;
        let promise = self.inner.account.promise(size, &self.inner.sweep).await?;
        let mode = match import {
            Import::Copy => ImportMode::Copy,
            Import::Reference => ImportMode::TryReference,
        };
        let options = AddPathOptions { path, mode, format: BlobFormat::Raw };
        let add = self.inner.store.blobs().add_path_with_opts(options);
        let tag = add.temp_tag().await.map_err(failed("add a file"))?;
        let hash = from_iroh(tag.hash());
        self.set_sound(&hash).await?;
        let size = self.size(&hash).await?.ok_or(Error::Missing { hash })?;
        self.inner.young.keep(tag);
        promise.used(size);
        Ok((hash, size))
    }

    /// Gives a whole blob of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::TooLarge`] and [`Error::Corrupt`].
    pub async fn read(&self, hash: &Hash, limit: u64) -> Result<Bytes, Error> {
        let size = self.whole(hash).await?;
        if size > limit {
            return Err(Error::TooLarge { hash: *hash, size, limit });
        }
        let bytes = self.inner.store.blobs().get_bytes(to_iroh(hash)).await;
        bytes.map_err(|error| self.read_error(hash, error))
    }

    /// Gives a range of a blob's bytes as a stream, each piece verified before it is handed out.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] and [`Error::Range`]; the stream's items may be [`Error::Corrupt`].
    pub async fn read_range(
        &self,
        hash: &Hash,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let size = self.whole(hash).await?;
        if range.start > range.end || range.end > size {
            return Err(Error::Range { hash: *hash, start: range.start, end: range.end, size });
        }
        let chunks = if range.is_empty() { ChunkRanges::empty() } else { ChunkRanges::bytes(range.start..range.end) };
        let (blobs, hash) = (self.clone(), *hash);
        let items = self.inner.store.export_bao(to_iroh(&hash), chunks).stream();
        Ok(items.filter_map(move |item| {
            let piece = match item {
                EncodedItem::Leaf(leaf) => cut(leaf.offset, leaf.data, &range).map(Ok),
                EncodedItem::Error(error) => Some(Err(blobs.encode_error(&hash, error))),
                EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Done => None,
            };
            std::future::ready(piece)
        }))
    }

    /// Writes a blob to a new file, which shares nothing with the store that a writer could change, and gives its size.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the target exists or cannot be written, [`Error::Missing`], and [`Error::Corrupt`] after
    /// removing what was written.
    pub async fn export(&self, hash: &Hash, to: &Path) -> Result<u64, Error> {
        let file_error = |source| Error::File { path: to.to_owned(), source };
        let size = self.whole(hash).await?;
        if fs::symlink_metadata(to).is_ok() {
            return Err(file_error(io::ErrorKind::AlreadyExists.into()));
        }
        if size <= EXPORT_IN_MEMORY_MAX {
            let bytes = self.read(hash, size).await?;
            let file = fs::OpenOptions::new().write(true).create_new(true).open(to);
            file.and_then(|mut file| file.write_all(&bytes)).map_err(file_error)?;
            return Ok(size);
        }
        let target = std::path::absolute(to).map_err(file_error)?;
        self.inner.store.export(to_iroh(hash), &target).await.map_err(failed("export a blob"))?;
        // The file system copied without looking; what counts is what now lies in the target.
        let copy = target.clone();
        let found = tokio::task::spawn_blocking(move || hash_file(&copy)).await.map_err(failed("hash a file"))?;
        if found.map_err(file_error)? == *hash {
            return Ok(size);
        }
        fs::remove_file(&target).map_err(file_error)?;
        Err(self.set_damaged(hash))
    }

    /// Reads a blob from its first to its last byte and verifies it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Missing`].
    pub async fn scrub(&self, hash: &Hash) -> Result<(), Error> {
        let size = self.whole(hash).await?;
        let mut pieces = Box::pin(self.read_range(hash, 0..size).await?);
        while let Some(piece) = pieces.next().await {
            piece?;
        }
        Ok(())
    }

    async fn whole(&self, hash: &Hash) -> Result<u64, Error> {
        self.size(hash).await?.ok_or(Error::Missing { hash: *hash })
    }

    fn read_error(&self, hash: &Hash, error: ExportBaoError) -> Error {
        if let ExportBaoError::ExportBaoInner { source, .. } = error {
            return self.encode_error(hash, source);
        }
        failed("read a blob")(error)
    }

    /// Tells damage from other failures. The store said before that the blob is whole, so a missing part is damage.
    pub(super) fn encode_error(&self, hash: &Hash, error: EncodeError) -> Error {
        if is_damage(&error) { self.set_damaged(hash) } else { failed("read a blob")(error) }
    }
}

/// A reader as the stream of pieces that the store imports.
struct Pieces<R> {
    reader: SyncWrapper<R>,
    left: u64,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin + Send> Stream for Pieces<R> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut buffer = ReadBuf::new(&mut this.buffer);
        ready!(Pin::new(this.reader.get_mut()).poll_read(context, &mut buffer))?;
        let piece = Bytes::copy_from_slice(buffer.filled());
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        let Some(left) = this.left.checked_sub(piece.len() as u64) else {
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it has grown while it was read",
            ))));
        };
        this.left = left;
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Whether the bytes on disk are not those of the hash.
pub(super) fn is_damage(error: &EncodeError) -> bool {
    match error {
        EncodeError::ParentHashMismatch(_) | EncodeError::LeafHashMismatch(_) | EncodeError::SizeMismatch => true,
        EncodeError::Io(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof),
        EncodeError::ParentWrite(_) | EncodeError::LeafWrite(_) => false,
    }
}

/// Cuts a verified piece to the wanted range.
fn cut(offset: u64, data: Bytes, range: &Range<u64>) -> Option<Bytes> {
    let end = offset + data.len() as u64;
    let (from, to) = (range.start.max(offset), range.end.min(end));
    let at = |position: u64| usize::try_from(position - offset).expect("a piece is in memory, so its length fits");
    (from < to).then(|| data.slice(at(from)..at(to)))
}

fn regular_file(path: &Path) -> Result<(PathBuf, u64), Error> {
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let metadata = fs::symlink_metadata(path).map_err(file_error)?;
    if !metadata.is_file() {
        return Err(file_error(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok((std::path::absolute(path).map_err(file_error)?, metadata.len()))
}

/// Hashes a file. Blocks.
pub(super) fn hash_file(path: &Path) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
}
