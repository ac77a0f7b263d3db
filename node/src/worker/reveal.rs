//! Commit, then reveal, at the builder: it says that it has a result, waits for the word, and shows it.
//!
//! ```text
//!  built --note on disk--> Commit ---Done---> asked again every few seconds, a restart of this node included
//!                            |                  |
//!                            '--Reveal----------+--Reveal from the leader--> Grounds --the log says why--> Revealed
//!                            '--Lost: the lease is over-------------------------^   '--not yet: again
//! ```
//! Nobody's word is enough to show a result: the log must say, in entries that it has proven to continue what this node believes of it,
//! that k operators are bound or have failed, or that the job is judged ([`attest::reveal`]). When [`limits::REVEAL_WAIT`] is over
//! since it was built, a result is shown whatever the log says. One whose lease is over before that is shown as well, by the same
//! rule: it counts no more, but is evidence. What waits takes no slot.

use std::{sync::Arc, time::Duration};

use attest::{commitment, negative::Negative};
use protocol::{
    ChannelName, Hash, JobId, Salt, Timestamp,
    blame::Failure,
    codec,
    lease::LeaseNumber,
    limits,
    message::{Commitment, Failed, Octets, Refusal, Request, Response, Revealed},
    policy::Policy,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Held, Worker};
use crate::{build::Phase, clock, keys};

/// How often a commitment is said again while nobody asks for the result.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);
/// Bytes of a note beside its attestation.
const NOTE_ROOM: usize = 1024;

/// What an attempt made.
pub(super) struct Made {
    /// The job's channel.
    pub(super) channel: ChannelName,
    /// The signed attestation.
    pub(super) attestation: Vec<u8>,
}

/// A result that this node is bound to, or will be, and nobody has seen. It is noted on disk before it is committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hidden {
    pub(super) job: JobId,
    log: Hash,
    salt: Salt,
    /// When it was built; none in notes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    built: Option<Timestamp>,
    /// Of the job; none in notes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelName>,
    attestation: Octets,
}

impl Hidden {
    /// Hides an attestation behind fresh randomness.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn new((job, log): (JobId, Hash), made: Made) -> Result<Self, keys::Error> {
        let salt = Salt::from_bytes(keys::random()?);
        let Made { channel, attestation } = made;
        let built = Some(clock::now());
        Ok(Self { job, log, salt, built, channel: Some(channel), attestation: Octets(attestation) })
    }

    /// Reads the note of an attempt; none when the attempt had no result yet.
    pub(super) fn read(note: &[u8]) -> Option<Self> {
        let mut read: Self = codec::decode(note, limits::ATTESTATION_MAX + NOTE_ROOM).ok()?;
        read.built.get_or_insert_with(clock::now);
        Some(read)
    }

    /// How long it is hidden. What earlier versions noted does not say: it waits from when it was read.
    pub(super) fn waited(&self, now: Timestamp) -> Duration {
        self.built.map_or(Duration::ZERO, |built| now.since(built))
    }

    /// Gives how many operators must be bound; without its channel, as many as any channel asks for.
    pub(super) fn agree(&self, policy: &Policy) -> u8 {
        let of_channel = self.channel.as_ref().and_then(|name| policy.channel(name));
        let most = || policy.channels.iter().map(|channel| channel.agree).max();
        of_channel.map(|channel| channel.agree).or_else(most).unwrap_or(u8::MAX)
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

    /// Notes a new result, commits to it, waits for the word and shows it. Gives false when stopped before; then the note stays.
    pub(super) async fn note_and_show(&self, lease: LeaseNumber, hidden: Hidden, daemon: &CancellationToken) -> bool {
        let Some(over) = self.state().held.get(&lease).map(|held| held.stop.clone()) else { return false };
        if self.note(lease, &hidden, (daemon, &over)).await {
            return self.bind_and_show(lease, hidden, daemon).await;
        }
        // It is bound to nothing yet, so that nothing is owed to anybody.
        over.is_cancelled()
    }

    /// Commits to a result that is noted, waits for the word and shows it. Gives false when stopped before.
    async fn bind_and_show(&self, lease: LeaseNumber, hidden: Hidden, daemon: &CancellationToken) -> bool {
        let tokens = self.state().held.get(&lease).map(|held| (held.stop.clone(), held.reveal.clone()));
        let Some((over, reveal)) = tokens else { return false };
        self.enter(lease, "commit");
        let digest = commitment::digest(&self.shared.network, lease, &hidden.salt, &hidden.attestation.0);
        let signature = commitment::sign(&self.shared.key, &self.shared.network, (&hidden.job, lease), &digest);
        let commitment = Commitment { lease, digest, signature: Some(signature) };
        let mut word = self.commit(&commitment).await;
        loop {
            let shown = match word {
                Word::Show => self.may_show(&hidden, (lease, Some(digest))).await,
                Word::Over => self.may_show(&hidden, (lease, None)).await,
                Word::Wait => false,
            };
            if shown {
                break;
            }
            // What was said once is looked at again after the pause only.
            let (asks, ends) = (!reveal.is_cancelled(), !over.is_cancelled());
            word = tokio::select! {
                biased;
                () = daemon.cancelled() => return false,
                () = reveal.cancelled(), if asks => Word::Show,
                () = over.cancelled(), if ends => Word::Over,
                word = self.commit_again(&commitment) => word,
            };
        }
        let Hidden { log, salt, attestation, .. } = hidden;
        self.deliver(Request::Revealed(Revealed { log, salt: Some(salt), lease, attestation }), daemon).await
    }

    /// Notes a result before this node binds itself to it, for as long as that takes: after a restart it could not be shown
    /// otherwise, and would count as withheld. Gives false when the daemon stops before, or the lease is over.
    async fn note(&self, lease: LeaseNumber, hidden: &Hidden, ends: (&CancellationToken, &CancellationToken)) -> bool {
        let note = Arc::new(codec::encode(hidden));
        loop {
            let bytes = Arc::clone(&note);
            match self.shared.store.run(move |store| store.attempt_put(lease, &bytes)).await {
                Ok(_) => return true,
                Err(error) => warn!(%lease, %error, "a result is not noted yet, and is not committed to before"),
            }
            tokio::select! {
                biased;
                () = ends.0.cancelled() => return false,
                () = ends.1.cancelled() => return false,
                () = tokio::time::sleep(COMMIT_AGAIN) => {}
            }
        }
    }

    async fn commit_again(&self, commitment: &Commitment) -> Word {
        tokio::time::sleep(COMMIT_AGAIN).await;
        self.commit(commitment).await
    }

    async fn commit(&self, commitment: &Commitment) -> Word {
        let lease = commitment.lease;
        match self.desk.ask_coordinator(Request::Commit(commitment.clone())).await {
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
