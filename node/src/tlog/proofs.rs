//! Proofs out of the book: how an older size of the log and a newer one belong together, and that something was logged.

use std::{sync::Arc, time::Duration};

use attest::{
    course::Placed,
    log::{
        checkpoint::Signed,
        entry::{End, Entry, Event, Outcome},
        proof::Proof,
        tree::{self, MakeError},
    },
};
use protocol::{
    ChannelName, Hash, JobId, Sha256,
    lease::LeaseNumber,
    message::{Logged, Octets},
};

use super::{Book, Error, PageError, pages::Kept};
use crate::store::{self, Pages};

/// How long who asks waits for entries that are decided and not written; they are within a moment.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// What an entry is looked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The verdict of a job; the newest, should there be several.
    Verdict(JobId),
    /// A signed release, by the hash of its envelope.
    Release(ChannelName, Hash),
    /// What the builder is bound to that has this lease.
    Commitment(LeaseNumber),
    /// That the attempt under this lease failed.
    Failure(LeaseNumber),
}

impl Subject {
    /// Gives what an entry is about, where it is looked for.
    pub(super) fn of(entry: &[u8]) -> Option<Self> {
        match Entry::from_bytes(entry).ok()?.event {
            Event::Verdict(verdict) => Some(Self::Verdict(verdict.job)),
            Event::Release(release) => Some(Self::Release(release.channel, release.envelope)),
            Event::Commitment(commitment) => Some(Self::Commitment(commitment.lease)),
            Event::Outcome(Outcome { end: End::Failed(_), lease, .. }) => Some(Self::Failure(lease)),
            Event::Policy(_) | Event::Accepted(_) | Event::Lease(_) | Event::Outcome(_) | Event::Revocation(_) => None,
        }
    }

    /// Gives the key under which its place is kept.
    pub(super) fn mark(&self) -> [u8; 32] {
        let words = match self {
            Self::Verdict(job) => format!("verdict {job}"),
            Self::Release(channel, envelope) => format!("release {channel} {envelope}"),
            Self::Commitment(lease) => format!("commitment {lease}"),
            Self::Failure(lease) => format!("failure {lease}"),
        };
        *Hash::of(words.as_bytes()).as_bytes()
    }
}

impl Book {
    /// Gives the proof that the log of `new` entries begins with that of `old`.
    ///
    /// # Errors
    /// [`Error`], where it has fewer entries, too.
    pub async fn consistency(self: &Arc<Self>, old: u64, new: u64) -> Result<Vec<Sha256>, Error> {
        if old == 0 {
            return Ok(Vec::new());
        }
        self.look(move |pages| tree::consistency(old, new, &Kept(pages)).map_err(|error| made(error, new))).await
    }

    /// Gives the place of what was logged; none where it was not, or is not written yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn place(self: &Arc<Self>, subject: &Subject) -> Result<Option<u64>, Error> {
        let mark = subject.mark();
        self.look(move |pages| Ok(pages.marked(&mark)?)).await
    }

    /// Gives the proof, under a checkpoint, of the entry at a place, which it brings along.
    ///
    /// # Errors
    /// [`Error`], where the checkpoint does not cover the entry, too.
    pub async fn proof(self: &Arc<Self>, place: u64, checkpoint: Signed) -> Result<Proof, Error> {
        self.look(move |pages| {
            let missing = || Error::from(PageError::Entry { index: place });
            let entry = Entry::from_bytes(&pages.entry(place)?.ok_or_else(missing)?).map_err(|_| missing())?;
            let size = checkpoint.claims().head().size;
            let path = tree::inclusion(place, size, &Kept(pages)).map_err(|error| made(error, place))?;
            Ok(Proof::of_entry(&entry, place, path, checkpoint))
        })
        .await
    }

    /// Gives entries, each with its path in the log of `size` entries.
    ///
    /// # Errors
    /// [`Error`], where the log has fewer entries, too.
    pub async fn placed(self: &Arc<Self>, places: Vec<u64>, size: u64) -> Result<Vec<Placed>, Error> {
        self.look(move |pages| {
            let placed = |index: u64| {
                let entry = pages.entry(index)?.ok_or(PageError::Entry { index })?;
                let path = tree::inclusion(index, size, &Kept(pages)).map_err(|error| made(error, index))?;
                Ok(Placed { path, entry: Octets(entry), index })
            };
            places.into_iter().map(placed).collect()
        })
        .await
    }

    /// Waits until so many entries are written and may be signed for, for a while.
    ///
    /// # Errors
    /// Words, when that takes too long.
    pub async fn written(&self, size: u64) -> Result<(), String> {
        let (mut heads, mut held) = (self.heads(), self.held.subscribe());
        let written = async {
            // Both senders are this book's own.
            drop(heads.wait_for(|head| head.size >= size).await);
            drop(held.wait_for(|held| !held).await);
        };
        let written = tokio::time::timeout(WRITTEN_WITHIN, written).await;
        written.map_err(|_| format!("the log of {size} entries is not written yet"))
    }

    /// Gives the entries of subjects that a checkpoint of `size` entries covers, each with its proof. What is not logged, or
    /// later, is left out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn logged(self: &Arc<Self>, subjects: Vec<Subject>, size: u64) -> Result<Vec<Logged>, Error> {
        self.look(move |pages| {
            let mut logged = Vec::new();
            for subject in subjects {
                let Some(index) = pages.marked(&subject.mark())?.filter(|index| *index < size) else { continue };
                let entry = pages.entry(index)?.ok_or(PageError::Entry { index })?;
                let path = tree::inclusion(index, size, &Kept(pages)).map_err(|error| made(error, index))?;
                logged.push(Logged { path, entry: Octets(entry), index });
            }
            Ok(logged)
        })
        .await
    }

    async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Pages) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.store.clone();
        let looked = tokio::task::spawn_blocking(move || store.log_look(look)).await;
        looked.map_err(|_| store::Error::Stopped)?
    }
}

fn made(error: MakeError<Error>, place: u64) -> Error {
    match error {
        MakeError::Impossible(_) => PageError::Entry { index: place }.into(),
        MakeError::Read(error) => error,
    }
}
