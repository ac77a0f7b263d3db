//! Commit, then reveal, at the builder: it says that it has a result, waits for the word, and shows it.
//!
//! ```text
//!  built --note on disk--> Commit ---Done---> asked again every few seconds, a restart of this node included
//!                            |                  |
//!                            '--Reveal----------+--Reveal from the leader--> Revealed
//! ```
//! A result whose lease is over before that is shown as well: it counts no more, but is evidence. What waits takes no slot.

use std::{sync::Arc, time::Duration};

use attest::{commitment, negative::Negative};
use protocol::{
    Hash, JobId, Salt,
    blame::Failure,
    codec,
    lease::LeaseNumber,
    limits,
    message::{Commitment, Failed, Octets, Refusal, Request, Response, Revealed},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Held, Worker};
use crate::{build::Phase, keys};

/// How often a commitment is said again while nobody asks for the result.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);
/// Bytes of a note beside its attestation.
const NOTE_ROOM: usize = 1024;

/// A result that this node is bound to, or will be, and nobody has seen. It is noted on disk before it is committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hidden {
    job: JobId,
    log: Hash,
    salt: Salt,
    attestation: Octets,
}

impl Hidden {
    /// Hides an attestation behind fresh randomness.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn new((job, log): (JobId, Hash), attestation: Vec<u8>) -> Result<Self, keys::Error> {
        let salt = Salt::from_bytes(keys::random()?);
        Ok(Self { job, log, salt, attestation: Octets(attestation) })
    }

    /// Reads the note of an attempt; none when the attempt had no result yet.
    pub(super) fn read(note: &[u8]) -> Option<Self> {
        codec::decode(note, limits::ATTESTATION_MAX + NOTE_ROOM).ok()
    }
}

/// Gives the job of the note of an attempt that had no result yet.
pub(super) fn job_of(note: &[u8]) -> JobId {
    JobId::from_bytes(note.try_into().unwrap_or([0; 32]))
}

/// What the coordinator makes of a commitment.
enum Word {
    Wait,
    Show,
    /// The lease is over, or the commitment refused: the result counts no more.
    Over,
}

impl Worker {
    /// Takes the leader's word that a result may be shown.
    pub fn asked_to_reveal(&self, lease: LeaseNumber) -> Response {
        match self.state().held.get(&lease) {
            Some(held) => {
                held.reveal.cancel();
                Response::Done
            }
            None => Response::Refused(Refusal::Unknown(format!("attempt {lease} does not wait here"))),
        }
    }

    /// Commits to a result, waits for the word and shows it. Gives false when stopped before; then the note stays.
    pub(super) async fn bind_and_show(&self, lease: LeaseNumber, hidden: Hidden, daemon: &CancellationToken) -> bool {
        let note = codec::encode(&hidden);
        if let Err(error) = self.shared.store.run(move |store| store.attempt_put(lease, &note)).await {
            warn!(%lease, %error, "a result is not noted; a restart would lose it");
        }
        let tokens = self.state().held.get(&lease).map(|held| (held.stop.clone(), held.reveal.clone()));
        let Some((over, reveal)) = tokens else { return false };
        self.enter(lease, "commit");
        let bytes = &hidden.attestation.0;
        let digest = commitment::digest(&self.shared.network, lease, &hidden.salt, bytes);
        let commitment = Commitment { lease, digest };
        loop {
            let word = tokio::select! {
                biased;
                () = daemon.cancelled() => return false,
                word = self.commit(commitment) => word,
            };
            if matches!(word, Word::Show | Word::Over) {
                break;
            }
            tokio::select! {
                biased;
                () = daemon.cancelled() => return false,
                () = reveal.cancelled() => break,
                () = over.cancelled() => break,
                () = tokio::time::sleep(COMMIT_AGAIN) => {}
            }
        }
        let Hidden { log, salt, attestation, .. } = hidden;
        self.deliver(Request::Revealed(Revealed { log, salt: Some(salt), lease, attestation }), daemon).await
    }

    async fn commit(&self, commitment: Commitment) -> Word {
        let lease = commitment.lease;
        match self.desk.ask_coordinator(Request::Commit(commitment)).await {
            Ok(Response::Reveal) => Word::Show,
            Ok(Response::Lost(_)) => Word::Over,
            Ok(Response::Refused(refusal @ (Refusal::Busy(_) | Refusal::NotCoordinator(_)))) => {
                debug!(%lease, %refusal, "commitment not taken yet");
                Word::Wait
            }
            Ok(Response::Refused(refusal)) => {
                warn!(%lease, %refusal, "commitment refused");
                Word::Over
            }
            Ok(_) => Word::Wait,
            Err(error) => {
                debug!(%lease, %error, "commitment not delivered");
                Word::Wait
            }
        }
    }

    /// Goes on with a result that an earlier run of this daemon had and did not show.
    pub(super) async fn resume(self: Arc<Self>, lease: LeaseNumber, hidden: Hidden, daemon: CancellationToken) {
        let log = match self.new_log(lease) {
            Ok(log) => log,
            Err(why) => return warn!(%lease, %why, "a result of the last run is not shown; its lease ends by itself"),
        };
        info!(%lease, job = %hidden.job, "a result of the last run is still to be shown");
        log.enter(Phase::Done);
        self.state().held.insert(lease, Held::new("commit", log));
        if self.bind_and_show(lease, hidden, &daemon).await {
            self.forget(lease).await;
        }
        self.state().held.remove(&lease);
    }

    /// Makes the signed report of an attempt without outputs.
    pub(super) fn failed(&self, job: JobId, lease: LeaseNumber, (log, failure): (Option<Hash>, Failure)) -> Request {
        let (network, node) = (self.shared.network, self.shared.id);
        let negative = |failure| Negative { network, job, node, lease, failure, log };
        let (mut said, mut signed) = (failure.clone(), negative(failure).sign(&self.shared.key));
        if signed.is_err() {
            // Control characters swell in JSON.
            let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
            said = Failure::new(said.blame, plain(&said.step), plain(&said.what));
            signed = negative(said.clone()).sign(&self.shared.key);
        }
        let statement = signed.inspect_err(|error| warn!(%lease, %error, "a failure is not signed")).ok().map(Octets);
        Request::Failed(Failed { log, lease, failure: said, statement })
    }
}
