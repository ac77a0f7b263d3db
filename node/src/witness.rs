//! The witness: every node countersigns the checkpoints of its network's log, each once it continues what was seen before.
//!
//! ```text
//!  add-checkpoint (HTTP, libp2p) -> read -> decide on a look -> one transaction: latest, decide, keep -> cosignature
//! ```
//! What is refused costs no write. Nothing is cosigned while there is evidence that the log was forked, nor while nobody shows what a
//! checkpoint belongs to that the log has signed.

use std::sync::Arc;

use attest::log::{
    checkpoint::{Signed, Verified},
    network,
    note::VerifierKey,
    witness::{self, Refusal, Request},
};
use protocol::{Sha256, Timestamp};
use tracing::{info, warn};

use crate::{clock, daemon::Shared, store};

/// For how many milliseconds a cosignature is given again to who asks for the same checkpoint.
const AGAIN_MS: u64 = 60_000;

/// What a witness says, as HTTP says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// Signature lines of 200, the latest size of 409, else a sentence.
    pub body: String,
}

impl Answer {
    fn words(status: u16, words: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{words}\n") }
    }

    fn refused(refusal: &Refusal) -> Self {
        Self { status: refusal.status(), content_type: refusal.content_type(), body: refusal.body() }
    }
}

impl Shared {
    /// The keys of the network's log under the policy in force.
    pub fn log_keys(&self) -> Vec<VerifierKey> {
        network::log_keys(&self.network, self.policies().current())
    }

    /// The keys of the network's log under every policy so far.
    pub fn every_log_key(&self) -> Vec<VerifierKey> {
        let policies = self.policies();
        let mut keys: Vec<VerifierKey> = Vec::new();
        for key in policies.chain().iter().flat_map(|policy| network::log_keys(&self.network, policy.get())) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Gives how many operators have seen a checkpoint, and when the last of them did.
    pub fn seen_by(&self, checkpoint: &Verified) -> (usize, Option<Timestamp>) {
        let policies = self.policies();
        let seen = policies.current().operators.iter().filter_map(|operator| {
            let keys: Vec<VerifierKey> = operator.nodes.iter().map(network::witness_key).collect();
            checkpoint.cosigners(&keys).unwrap_or_default().iter().map(|seen| seen.at).max()
        });
        let seen: Vec<Timestamp> = seen.collect();
        (seen.len(), seen.into_iter().max())
    }

    /// Decides about a checkpoint and cosigns it, durably.
    ///
    /// # Errors
    /// When the database fails; then nothing was cosigned.
    pub async fn add_checkpoint(self: &Arc<Self>, request: &[u8]) -> Result<Answer, store::Error> {
        let request = match Request::read(request) {
            Ok(request) => request,
            Err(error) => return Ok(Answer::refused(&error.into())),
        };
        let origin = network::origin(&self.network).to_string();
        let keys = if request.origin() == origin { self.log_keys() } else { Vec::new() };
        if !keys.is_empty()
            && let Err(why) = self.check_log()
        {
            return Ok(Answer::words(403, &why));
        }
        let (name, key, now) = (network::witness_name(&self.id), self.key.clone(), clock::now());
        let (own, since) =
            (network::witness_key(&self.id), Timestamp::from_millis(now.as_millis().saturating_sub(AGAIN_MS)));
        let this = Arc::clone(self);
        let decided = self.store.run(move |store| {
            // What former coordinators had cosigned who forked the log binds nobody to continue it.
            let read = |kept: Option<&[u8]>| {
                let latest = read(kept)?;
                Some(latest.filter(|latest| !this.is_given_up(latest)))
            };
            let latest = store.witnessed(&origin)?;
            let looked = read(latest.as_deref()).map(|latest| witness::decide(&request, &keys, latest.as_ref()));
            let accepted = match looked {
                Some(Ok(accepted)) => accepted,
                refused => return Ok(refused.map(|looked| looked.map(|_| String::new()))),
            };
            // Who asks for the same again costs no write.
            let known = read(latest.as_deref()).flatten();
            if let Some(line) = known.and_then(|known| accepted.cosigned_since(known, &keys, &own, since)) {
                return Ok(Some(Ok(line)));
            }
            store.witness(&origin, |latest| {
                let Some(latest) = read(latest) else { return (None, None) };
                match witness::decide(&request, &keys, latest.as_ref()) {
                    Ok(accepted) => {
                        let cosigned = accepted.cosign(&name, &key, now);
                        let kept = cosigned.checkpoint().as_signed().to_string().into_bytes();
                        (Some(kept), Some(Ok(cosigned.body())))
                    }
                    Err(refusal) => (None, Some(Err(refusal))),
                }
            })
        });
        Ok(match decided.await? {
            None => Answer::words(500, "this witness cannot read what it cosigned last; its owner must look"),
            Some(Ok(body)) => Answer { status: 200, content_type: "text/plain; charset=utf-8", body },
            Some(Err(refusal)) => {
                if let Refusal::Inconsistent { evidence, .. } = &refusal {
                    warn!(%refusal, "a checkpoint was not cosigned");
                    if let Some(conflict) = evidence {
                        self.raise(conflict).await?;
                    }
                } else {
                    info!(%refusal, "a checkpoint was not cosigned");
                }
                Answer::refused(&refusal)
            }
        })
    }

    /// Gives the checkpoint of this network's log that was cosigned last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cosigned_last(&self) -> Result<Option<Vec<u8>>, store::Error> {
        let origin = network::origin(&self.network).to_string();
        self.store.run(move |store| store.witnessed(&origin)).await
    }

    /// Gives the checkpoint that was cosigned last of the log whose origin has this digest.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn witnessed(&self, log: Sha256) -> Result<Option<Vec<u8>>, store::Error> {
        let origin = network::origin(&self.network).to_string();
        if Sha256::of(origin.as_bytes()) == log { self.cosigned_last().await } else { Ok(None) }
    }
}

/// Reads what is kept: nothing at all, or a checkpoint; none where it cannot be read, and then nothing may be cosigned.
fn read(kept: Option<&[u8]>) -> Option<Option<Signed>> {
    kept.map_or(Some(None), |bytes| Signed::read(bytes).ok().map(Some))
}
