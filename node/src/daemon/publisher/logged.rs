//! What the log says of a publication: the proof that a verdict is in it, which lies beside each package, and the proof that a
//! release is, without which mirrors take none of a channel that asks for witnesses.

use attest::staple;
use protocol::{ChannelName, Hash, JobId};

use super::{Failure, Publisher, chain};
use crate::{daemon::Shared, publish::apt::Staple, store, tlog::Subject};

impl Publisher {
    /// How many operators' witnesses a channel asks for.
    fn witnesses(&self, channel: &ChannelName) -> u8 {
        self.shared.policies().current().channel(channel).map_or(0, |channel| channel.witnesses)
    }

    /// Gives the proof that a job's verdict is in the log, once as many operators have seen it as the channel asks for; none for
    /// a verdict of a time before there was a log.
    pub(super) async fn verdict_proof(&self, channel: &ChannelName, job: JobId) -> Result<Option<Staple>, Failure> {
        let proof = self.proof(channel, &Subject::Verdict(job)).await?;
        Ok(proof.map(|bytes| Staple { suffix: staple::PROOF_SUFFIX, bytes }))
    }

    /// Waits until as many operators have seen a logged release as its channel asks for, and keeps the proof for whoever asks.
    pub(super) async fn keep_release_proof(&self, channel: &ChannelName, signed: &[u8]) -> Result<(), Failure> {
        let envelope = Hash::of(signed);
        let Some(proof) = self.proof(channel, &Subject::Release(channel.clone(), envelope)).await? else {
            return Err(Failure::from("the release is not in the log".to_owned()));
        };
        self.shared.keep_release_proof(envelope, proof).await.map_err(|e| chain(&e).into())
    }

    async fn proof(&self, channel: &ChannelName, subject: &Subject) -> Result<Option<Vec<u8>>, Failure> {
        self.shared.check_alarm()?;
        let size = self.decisions.view(|ledger| ledger.log_head().size).await.unwrap_or_default();
        let checkpoint = self.cosigner.covering(size, self.witnesses(channel)).await?;
        let book = self.decisions.book();
        let Some(place) = book.place(subject).await.map_err(|e| chain(&e))? else { return Ok(None) };
        let proof = book.proof(place, checkpoint).await.map_err(|e| chain(&e))?;
        Ok(Some(proof.to_string().into_bytes()))
    }
}

impl Shared {
    /// Keeps the proof that a release was logged, by the hash of its envelope.
    pub(crate) async fn keep_release_proof(&self, release: Hash, proof: Vec<u8>) -> Result<(), store::Error> {
        let key = proof_key(release);
        self.store.run(move |store| store.record_put(&key, &proof)).await
    }

    /// Gives the proof that a release was logged.
    pub(crate) async fn release_proof(&self, release: Hash) -> Result<Option<Vec<u8>>, store::Error> {
        let key = proof_key(release);
        self.store.run(move |store| store.record(&key)).await
    }
}

/// Where the proof lies among the records.
fn proof_key(release: Hash) -> Hash {
    Hash::of(format!("proof that release {release} was logged").as_bytes())
}
