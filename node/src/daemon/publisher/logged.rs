//! What the log says of a publication: the proof that a verdict is in it, which lies beside each package, and the proof that a
//! release is, without which nobody is shown a generation.
//!
//! ```text
//!  written, not seen -> files offered -> witnesses there -> release signed -> logged -> seen by witnesses -> proof kept
//!                                                                                     told <- tree switched <-'
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use attest::{log::checkpoint::Signed, staple};
use ledger::Command;
use protocol::{
    ChannelName, Hash, JobId,
    message::Response,
    release::{Manifest, Release},
    words::RelativePath,
};

use super::{Failure, Publisher, chain};
use crate::{
    blobs::Import,
    cosign::Cosigner,
    daemon::{Decisions, Shared},
    publish::apt::{Closed, Gate, Published, Staged, Staple},
    store,
    tlog::Subject,
};

/// Has a channel's releases signed, logged and seen by its witnesses.
#[derive(Clone)]
pub(super) struct Notary {
    shared: Arc<Shared>,
    decisions: Decisions,
    cosigner: Arc<Cosigner>,
    channel: ChannelName,
}

impl Publisher {
    pub(super) fn notary(&self, channel: &ChannelName) -> Notary {
        Notary {
            shared: Arc::clone(&self.shared),
            decisions: self.decisions.clone(),
            cosigner: Arc::clone(&self.cosigner),
            channel: channel.clone(),
        }
    }
}

impl Notary {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// What keeps a repository's tree as it is until the release of the next generation was logged and seen. It is asked on a
    /// thread that may block.
    pub(super) fn gate(self) -> Gate {
        let runtime = tokio::runtime::Handle::current();
        Arc::new(move |staged: &Staged| {
            let logged = runtime.block_on(self.log(&staged.published, |path| staged.place(path)));
            logged.map(drop).map_err(|failure| Closed { why: failure.why })
        })
    }

    /// Gives the signed release of a generation that is in its place. One that passed the gate is logged and seen already.
    ///
    /// # Errors
    /// As the steps say that are left to do.
    pub(super) async fn released(&self, published: &Published) -> Result<(Release, Vec<u8>), Failure> {
        self.log(published, |path| published.root.join(path.as_str())).await
    }

    /// Offers the files of a generation, signs its release, has it logged and keeps the proof once enough operators have seen
    /// it: whoever is told of a release can have its files and knows that everybody else was shown the same.
    async fn log(
        &self,
        published: &Published,
        place: impl Fn(&RelativePath) -> PathBuf + Send,
    ) -> Result<(Release, Vec<u8>), Failure> {
        let office = || Publisher::office(&self.shared, &self.decisions).map_err(|not| not.to_string());
        let (at, generation, channel) = (published.at, published.generation, self.channel.clone());
        let manifest = Hash::of(&published.manifest.to_bytes());
        let mut release = Release { at, term: office()?, channel, manifest, generation };
        let signed = self.shared.sign(&release).to_bytes();
        if self.shared.release_proof(Hash::of(&signed)).await.map_err(|e| chain(&e))?.is_some() {
            return Ok((release, signed));
        }
        self.offer(generation, &published.manifest, place).await?;
        self.watched().await?;
        // Somebody else may have been elected while the files were offered.
        release.term = office()?;
        let signed = self.append(&release).await?;
        self.keep_proof(&signed).await?;
        Ok((release, signed))
    }

    /// Offers every file of a generation, and its manifest.
    pub(super) async fn offer(
        &self,
        generation: u64,
        manifest: &Manifest,
        place: impl Fn(&RelativePath) -> PathBuf + Send,
    ) -> Result<(), String> {
        let shared = &self.shared;
        let mut hashes = Vec::new();
        for file in &manifest.files {
            if shared.blobs.size(&file.hash).await.map_err(|e| chain(&e))?.is_none() {
                let path: &Path = &place(&file.path);
                let (hash, _) = shared.blobs.add_file(path, Import::Copy).await.map_err(|e| chain(&e))?;
                if hash != file.hash {
                    return Err(format!("{} is not as it was published", file.path));
                }
            }
            hashes.push(file.hash);
        }
        let manifest = shared.blobs.add_bytes(manifest.to_bytes().into()).await.map_err(|e| chain(&e))?;
        hashes.push(manifest);
        let name = format!("release/{}/{generation}", self.channel);
        shared.offer_all(&name, &hashes).await.map_err(|e| chain(&e))?;
        // Who reads the release asks for its files, after a crash too.
        shared.blobs.settle().await.map_err(|e| chain(&e))
    }

    /// Waits until as many operators as the channel asks for have seen the log so far. While they are away each try would log
    /// another release that nobody is told of; so the log has one of them at most, and the next try waits here.
    async fn watched(&self) -> Result<(), Failure> {
        self.checkpoint().await.map(drop)
    }

    /// Gives a checkpoint of everything that is decided, which as many operators have seen as the channel asks for.
    async fn checkpoint(&self) -> Result<Signed, Failure> {
        let size = self.decisions.view(|ledger| ledger.log_head().size).await.unwrap_or_default();
        let witnesses = self.shared.policies().current().channel(&self.channel).map_or(0, |channel| channel.witnesses);
        Ok(self.cosigner.covering(size, witnesses).await?)
    }

    /// Signs a release and has it logged. The same one again is harmless.
    async fn append(&self, release: &Release) -> Result<Vec<u8>, Failure> {
        let signed = self.shared.sign(release);
        let verified = signed.clone().verify(Some(&self.shared.network)).map_err(|e| chain(&e))?;
        let answer = self.decisions.decide(Command::Released(verified)).await;
        if answer == Response::Done {
            return Ok(signed.to_bytes());
        }
        let why = if let Response::Refused(refusal) = &answer { refusal.to_string() } else { format!("{answer:?}") };
        Err(Failure::from(format!("the release is not logged: {why}")))
    }

    /// Gives the proof that a job's verdict is in the log, once as many operators have seen it as the channel asks for; none for
    /// a verdict of a time before there was a log.
    pub(super) async fn verdict_proof(&self, job: JobId) -> Result<Option<Staple>, Failure> {
        let proof = self.proof(&Subject::Verdict(job)).await?;
        Ok(proof.map(|bytes| Staple { suffix: staple::PROOF_SUFFIX, bytes }))
    }

    /// Waits until as many operators have seen a logged release as its channel asks for, and keeps the proof for whoever asks.
    async fn keep_proof(&self, signed: &[u8]) -> Result<(), Failure> {
        let envelope = Hash::of(signed);
        let Some(proof) = self.proof(&Subject::Release(self.channel.clone(), envelope)).await? else {
            return Err(Failure::from("the release is not in the log".to_owned()));
        };
        self.shared.keep_release_proof(envelope, proof).await.map_err(|e| chain(&e).into())
    }

    async fn proof(&self, subject: &Subject) -> Result<Option<Vec<u8>>, Failure> {
        self.shared.check_alarm()?;
        let checkpoint = self.checkpoint().await?;
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
