//! Pins: names under which content is kept from the sweep. A name is a path such as `job/<id>/source`.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use iroh_blobs::{BlobFormat, HashAndFormat, api::TempTag, api::blobs::AddBytesOptions};
use protocol::Hash;

use super::{Blobs, Error, failed, to_iroh};

impl Blobs {
    /// Keeps a blob until its pin is removed. A pin of the same name is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when the blob is not (or no longer) here.
    pub async fn pin(&self, name: &str, hash: &Hash) -> Result<(), Error> {
        self.set_tag(name, HashAndFormat::raw(to_iroh(hash))).await?;
        // A sweep that had begun before may have taken it; one that begins now sees the pin.
        self.inner.sweep.settled().await;
        match self.size(hash).await? {
            Some(_) => Ok(()),
            None => Err(Error::Missing { hash: *hash }),
        }
    }

    /// Keeps a set of blobs under one name. Those that are not here yet are kept as soon as they arrive.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn pin_set(&self, name: &str, hashes: &[Hash]) -> Result<(), Error> {
        let tag = self.sequence(hashes).await?;
        self.set_tag(name, tag.hash_and_format()).await?;
        self.inner.sweep.settled().await;
        Ok(())
    }

    /// Removes all pins whose names begin with `prefix` and gives their number. The next sweep deletes the content.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn unpin_prefix(&self, prefix: &str) -> Result<u64, Error> {
        self.inner.store.tags().delete_prefix(prefix).await.map_err(failed("remove pins"))
    }

    /// Removes one pin. A name that nothing is pinned under is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn unpin(&self, name: &str) -> Result<(), Error> {
        self.inner.store.tags().delete(name).await.map(drop).map_err(failed("remove a pin"))
    }

    /// Gives every pin whose name begins with `prefix`, and its content; of a set, its members.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn pins(&self, prefix: &str) -> Result<BTreeMap<String, Vec<Hash>>, Error> {
        let tags = self.inner.store.tags().list_prefix(prefix).await.map_err(failed("list pins"))?;
        let tags: Vec<_> = tags.try_collect().await.map_err(failed("list pins"))?;
        let mut pins = BTreeMap::new();
        for tag in tags {
            let members = match tag.format {
                BlobFormat::Raw => vec![Hash::from_bytes(*tag.hash.as_bytes())],
                BlobFormat::HashSeq => {
                    let members = self.inner.store.blobs().get_bytes(tag.hash).await.map_err(failed("list pins"))?;
                    members.as_chunks::<32>().0.iter().map(|member| Hash::from_bytes(*member)).collect()
                }
            };
            // Our pins' names are text; another name would be no pin of ours.
            pins.insert(String::from_utf8_lossy(&tag.name.0).into_owned(), members);
        }
        Ok(pins)
    }

    /// Makes what was added and pinned until now survive a crash; the store itself gathers changes for some milliseconds.
    /// Call it before a promise that builds on them.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn settle(&self) -> Result<(), Error> {
        self.inner.store.sync_db().await.map_err(failed("commit"))
    }

    /// Deletes now what is neither pinned nor young.
    pub async fn sweep(&self) {
        self.inner.young.prune();
        self.inner.sweep.now().await;
    }

    async fn set_tag(&self, name: &str, content: HashAndFormat) -> Result<(), Error> {
        self.inner.store.tags().set(name, content).await.map_err(failed("pin"))
    }

    /// Stores the sorted sequence of the hashes; its tag protects all of them, the missing ones as well.
    pub(super) async fn sequence(&self, hashes: &[Hash]) -> Result<TempTag, Error> {
        let mut sorted = hashes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let data: Vec<u8> = sorted.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let options = AddBytesOptions { data: Bytes::from(data), format: BlobFormat::HashSeq };
        self.inner.store.blobs().add_bytes_with_opts(options).temp_tag().await.map_err(failed("store a sequence"))
    }
}
