//! The alarm: evidence that the network's log was forked, and what follows from it.
//!
//! Two checkpoints that no honest log has signed are kept, shown to people and handed to every member that asks. As long as
//! who signed them may still sign the log, this node believes nothing of it: it cosigns, mirrors, builds and publishes
//! nothing. A policy with other coordinators, which only the roots can sign, ends that; the evidence stays.

use std::sync::Arc;

use attest::log::{
    conflict::{Conflict, ConflictError},
    note::VerifierKey,
    tree::Head,
};
use protocol::Timestamp;
use tokio::sync::watch;
use tracing::error;

use crate::{clock, daemon::Shared, store};

/// What is answered by who refuses something because of the alarm.
pub const REFUSAL: &str = "the log of this network was forked: see `artel log conflict`; nothing of it is believed \
    until the roots have signed a policy with other coordinators";

/// Evidence that convicts the log's keys of some policy.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// When this node found it or was told.
    pub found: Timestamp,
    /// The evidence.
    pub conflict: Conflict,
}

/// All evidence that this node has.
#[derive(Debug)]
pub struct Alarms {
    known: watch::Sender<Vec<Arc<Alarm>>>,
    /// What this node found itself against coordinators that do not continue the log of former ones.
    broken: watch::Sender<Option<Broken>>,
}

/// The log of these keys does not continue what former coordinators signed. It counts for who saw both only: a former coordinator
/// could sign anything since.
#[derive(Debug, Clone)]
struct Broken {
    alarm: Arc<Alarm>,
    heads: [Head; 2],
    by: Vec<VerifierKey>,
}

impl Alarms {
    /// Begins with what the database remembers.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(store: &store::Store) -> Result<Self, store::Error> {
        let kept = store.run(|store| store.conflicts()).await?;
        let read = |(found, bytes): (Timestamp, Vec<u8>)| {
            Conflict::from_bytes(&bytes).ok().map(|conflict| Arc::new(Alarm { found, conflict }))
        };
        let known = watch::Sender::new(kept.into_iter().filter_map(read).collect());
        Ok(Self { known, broken: watch::Sender::new(None) })
    }

    /// All evidence, against former coordinators too.
    pub fn every(&self) -> Vec<Arc<Alarm>> {
        self.known.borrow().clone()
    }
}

impl Shared {
    /// The evidence against who may sign the log now; none when all is well.
    pub fn alarm(&self) -> Option<(Arc<Alarm>, [Head; 2])> {
        let known = self.others.alarms.known.borrow();
        if known.is_empty() {
            return None;
        }
        let keys = self.log_keys();
        if let Some(broken) = self.others.alarms.broken.borrow().as_ref().filter(|broken| broken.by == keys) {
            return Some((Arc::clone(&broken.alarm), broken.heads));
        }
        known.iter().find_map(|alarm| Some((Arc::clone(alarm), alarm.conflict.convicts(&keys).ok()?)))
    }

    /// Says in words why nothing of the log is believed; nothing when all is well.
    ///
    /// # Errors
    /// The words.
    pub fn check_alarm(&self) -> Result<(), String> {
        self.alarm().map_or(Ok(()), |_| Err(REFUSAL.to_owned()))
    }

    /// Takes evidence that this node found: keeps it, durably, where it convicts who may sign the log now, or shows that they do
    /// not continue what former coordinators signed. One is enough; more against the same keys are not kept. Gives true when the
    /// alarm is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn raise(&self, conflict: &Conflict) -> Result<bool, store::Error> {
        if self.alarm().is_some() {
            return Ok(false);
        }
        let keys = self.log_keys();
        let strictly = conflict.convicts(&keys).is_ok();
        let Ok(heads) = conflict.convicts(&self.every_log_key()) else { return Ok(false) };
        let (bytes, at) = (conflict.to_bytes(), clock::now());
        let found = self.store.run(move |store| store.conflict_put(&bytes, at)).await?;
        let [older, newer] = heads;
        error!(
            older = older.size,
            newer = newer.size,
            "THE LOG OF THIS NETWORK WAS FORKED; nothing of it is believed any more"
        );
        let alarm = Arc::new(Alarm { found, conflict: conflict.clone() });
        self.others.alarms.known.send_modify(|known| known.push(Arc::clone(&alarm)));
        if !strictly {
            self.others.alarms.broken.send_replace(Some(Broken { alarm, heads, by: keys }));
        }
        Ok(true)
    }

    /// As [`Shared::raise`], of bytes from outside.
    ///
    /// # Errors
    /// What the bytes' reader says.
    pub async fn told_of_conflict(&self, bytes: &[u8]) -> Result<bool, ConflictError> {
        let conflict = Conflict::from_bytes(bytes)?;
        conflict.convicts(&self.log_keys())?;
        Ok(self.raise(&conflict).await.unwrap_or_else(|error| {
            error!(%error, "evidence against the log cannot be kept");
            false
        }))
    }
}
