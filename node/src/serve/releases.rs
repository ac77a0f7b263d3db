//! The proof that a release was logged: the one that its publisher kept, else one that a coordinator makes of its own book. Who
//! published it may be gone, and a policy may have given the log another key since.

use attest::log::{checkpoint::Signed, network, proof::Proof};
use protocol::{
    ChannelName, Hash,
    message::{Octets, Refusal, Response},
};
use tracing::debug;

use super::{Desk, refused};
use crate::{daemon::chain, tlog::Subject};

impl Desk {
    /// Answers with the proof that a release was logged, by the hash of its envelope.
    pub(super) async fn release_proof(&self, release: Hash) -> Response {
        match self.found_proof(release).await {
            Ok(Some(proof)) => Response::Record(Octets(proof)),
            Ok(None) => refused(Refusal::Unknown("a proof that this release was logged".into())),
            Err(why) => {
                debug!(%why, "proof not read");
                refused(Refusal::Busy("the database failed".into()))
            }
        }
    }

    async fn found_proof(&self, release: Hash) -> Result<Option<Vec<u8>>, String> {
        let kept = self.shared.release_proof(release).await.map_err(|e| chain(&e))?;
        let channel = self.newest_of(release).await?;
        let policies = self.shared.policies();
        let quorum = channel.as_ref().and_then(|name| policies.current().channel(name)).map_or(0, |c| c.witnesses);
        let log = network::log_policy(&self.shared.network, policies.current(), quorum).map_err(|e| chain(&e))?;
        let holds = |bytes: &Vec<u8>| Proof::read(bytes).is_ok_and(|proof| proof.entry(&log).is_ok());
        match (kept, channel) {
            (Some(kept), _) if holds(&kept) => Ok(Some(kept)),
            (kept, Some(channel)) => Ok(self.made_proof(Subject::Release(channel, release), quorum).await?.or(kept)),
            (kept, None) => Ok(kept),
        }
    }

    /// Gives the channel whose newest release here has this envelope.
    async fn newest_of(&self, release: Hash) -> Result<Option<ChannelName>, String> {
        let policies = self.shared.policies();
        let channels: Vec<_> = policies.current().channels.iter().map(|channel| channel.name.clone()).collect();
        let found = self.shared.store.run(move |store| {
            for channel in channels {
                if store.release(&channel)?.is_some_and(|kept| Hash::of(&kept.bytes) == release) {
                    return Ok(Some(channel));
                }
            }
            Ok(None)
        });
        found.await.map_err(|e| chain(&e))
    }

    /// Makes a proof under the newest checkpoint that is good enough; none where this node has none, or does not coordinate.
    async fn made_proof(&self, subject: Subject, quorum: u8) -> Result<Option<Vec<u8>>, String> {
        let Some(decisions) = self.decisions() else { return Ok(None) };
        let book = decisions.book();
        let seen: Option<Signed> = if quorum > 0 { self.seen_checkpoint() } else { book.checkpoint() };
        let place = book.place(&subject).await.map_err(|e| chain(&e))?;
        match (seen, place) {
            (Some(seen), Some(place)) if place < seen.claims().head().size => {
                let proof = book.proof(place, seen).await.map_err(|e| chain(&e))?;
                Ok(Some(proof.to_string().into_bytes()))
            }
            (Some(_) | None, _) => Ok(None),
        }
    }
}
