//! Whether what is published still proves itself, and what to do where it does not: what mirrors and clients would refuse must not
//! stay in a repository, for they would refuse every later generation, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attest::{bundle::Bundle, trust::Trust};
use ledger::Command;
use protocol::{ChannelName, Hash, limits};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Publisher, chain, learn_places, logged::Notary};
use crate::publish::{
    apt::{Closed, Held, Keeper, Renewed, Standing},
    evidence::{self, Bar, Staples},
};

/// How soon a generation is asked for again when a package still does not prove itself.
const AGAIN: Duration = Duration::from_secs(60);

/// Judges the packages of one channel by the policies that this node follows.
pub(super) struct Judge {
    notary: Notary,
    runtime: tokio::runtime::Handle,
    judged: Mutex<Judged>,
}

/// What was found good by one trust.
#[derive(Default)]
struct Judged {
    trust: Option<Arc<Trust>>,
    good: BTreeSet<(Hash, Option<Hash>)>,
}

/// When each channel was found in order, or a generation was asked for because it was not.
#[derive(Default)]
pub(super) struct Looks {
    good: BTreeMap<ChannelName, Arc<Trust>>,
    asked: BTreeMap<ChannelName, (Arc<Trust>, Instant)>,
}

impl Judge {
    pub(super) fn new(notary: Notary) -> Self {
        Self { notary, runtime: tokio::runtime::Handle::current(), judged: Mutex::default() }
    }

    fn prove(&self, held: &Held, proof: Option<&[u8]>) -> Result<Standing, Closed> {
        let closed = |why: String| Closed { why };
        let shared = self.notary.shared();
        let trust = shared.trust().map_err(|e| closed(chain(&e)))?;
        let bundle = read(&held.bundle).and_then(|bytes| Bundle::from_bytes(&bytes).map_err(|e| chain(&e)));
        let bundle = bundle.map_err(closed)?;
        let bar = Bar { trust: &trust, channel: self.notary.channel() };
        match evidence::prove(&bar, &bundle, &Staples { lines: None, proof }, held.job) {
            Ok(_) => Ok(Standing::Good),
            Err(error) if error.is_of_the_log() => Ok(Standing::Unseen),
            // This node may not know yet what others know, and that is the package's fault least.
            Err(error @ evidence::Error::Policies) => Err(closed(chain(&error))),
            Err(error) if shared.knows_all_places() => Ok(Standing::Nothing { why: chain(&error) }),
            Err(error) => Err(closed(format!(
                "{}: {}, as far as it is known where the policies stand in the log",
                held.path,
                chain(&error)
            ))),
        }
    }
}

impl Keeper for Judge {
    fn judge(&self, held: &Held) -> Result<Standing, Closed> {
        let trust = self.notary.shared().trust().ok();
        {
            let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
            let same = judged.trust.as_ref().zip(trust.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                *judged = Judged { trust, good: BTreeSet::new() };
            }
            if judged.good.contains(&held.content) {
                return Ok(Standing::Good);
            }
        }
        let standing = match held.proof.as_deref().map(read).transpose() {
            Ok(proof) => self.prove(held, proof.as_deref())?,
            Err(_) => Standing::Unseen,
        };
        if standing == Standing::Good {
            self.judged.lock().unwrap_or_else(PoisonError::into_inner).good.insert(held.content);
        }
        Ok(standing)
    }

    fn renew(&self, held: &Held) -> Result<Renewed, Closed> {
        let proof = self.runtime.block_on(self.notary.verdict_proof(held.job));
        let Some(proof) = proof.map_err(|failure| Closed { why: failure.why })? else {
            return Ok(Err("the log has no verdict of its job".into()));
        };
        match self.prove(held, Some(&proof.bytes))? {
            Standing::Good => Ok(Ok(proof.bytes)),
            Standing::Unseen => Ok(Err("the log's own proof does not prove it".into())),
            Standing::Nothing { why } => Ok(Err(why)),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > limits::MANIFEST_MAX as u64 {
        return Err(format!("{} has {size} bytes", path.display()));
    }
    std::fs::read(path).map_err(failed)
}

impl Publisher {
    /// Asks for a generation of each channel that has a package which does not prove itself as it is, once the policies changed.
    pub(super) async fn ask_to_keep(&mut self) {
        learn_places(&self.shared, &self.desk).await;
        let Ok(trust) = self.shared.trust() else { return };
        if Self::office(&self.shared, &self.decisions).is_err() {
            return;
        }
        let channels: Vec<ChannelName> = self.repositories.keys().cloned().collect();
        for channel in channels {
            let now = |known: &Arc<Trust>| Arc::ptr_eq(known, &trust);
            let in_order = self.looks.good.get(&channel).is_some_and(now);
            let asked = self.looks.asked.get(&channel);
            let waits = asked.is_some_and(|(known, asked)| now(known) && asked.elapsed() < AGAIN);
            if in_order || waits {
                continue;
            }
            let Some(repository) = self.repositories.remove(&channel) else { continue };
            let looked = tokio::task::spawn_blocking(move || (repository.stands(), repository)).await;
            let Ok((stands, repository)) = looked else {
                warn!(%channel, "the publisher stopped while it looked at a repository");
                continue;
            };
            self.repositories.insert(channel.clone(), repository);
            let stands = stands.unwrap_or_else(|Closed { why }| {
                warn!(%channel, %why, "whether its packages prove themselves is not known");
                true
            });
            if stands {
                self.looks.good.insert(channel, Arc::clone(&trust));
                continue;
            }
            info!(%channel, "packages do not prove themselves under the policy in force; a generation is asked for");
            self.looks.asked.insert(channel.clone(), (Arc::clone(&trust), Instant::now()));
            self.decisions.tell(Command::Resign { channel }).await;
        }
    }
}
