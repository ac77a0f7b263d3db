//! The alarm: evidence that the network's log was forked, and what follows from it.
//!
//! Two checkpoints that no honest log has signed are kept, shown to people and handed to every member that asks. As long as
//! who signed them may still sign the log, this node believes nothing of it: it cosigns, mirrors, builds and publishes
//! nothing. A policy with other coordinators, which only the roots can sign, ends that; the evidence stays.

use std::sync::Arc;

use attest::log::{
    checkpoint::Signed,
    conflict::{Conflict, ConflictError},
    network,
    note::VerifierKey,
    tree::Head,
};
use protocol::{Hash, Timestamp};
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
    broken: watch::Sender<Vec<Broken>>,
}

/// The log of these keys does not continue what former coordinators signed. It counts for who saw both only: a former coordinator
/// could sign anything since.
#[derive(Debug, Clone)]
struct Broken {
    alarm: Arc<Alarm>,
    /// The keys, as [`names`] writes them.
    by: String,
}

fn names(keys: &[VerifierKey]) -> String {
    keys.iter().map(|key| format!("{key}\n")).collect()
}

/// Where it lies among the records whose log a piece of evidence found broken; the same evidence may be found against several.
fn record_key(evidence: &[u8], number: usize) -> Hash {
    Hash::of(format!("whom evidence {} is against, {number}", Hash::of(evidence)).as_bytes())
}

/// Gives against whom a piece of evidence was found, each as [`names`] writes it.
async fn found_against(store: &store::Store, evidence: &[u8]) -> Result<Vec<String>, store::Error> {
    let mut found = Vec::new();
    loop {
        let key = record_key(evidence, found.len());
        match store.run(move |store| store.record(&key)).await? {
            Some(by) => found.push(String::from_utf8_lossy(&by).into_owned()),
            None => return Ok(found),
        }
    }
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
        let known: Vec<Arc<Alarm>> = kept.into_iter().filter_map(read).collect();
        let mut broken = Vec::new();
        for alarm in &known {
            let found = found_against(store, &alarm.conflict.to_bytes()).await?;
            broken.extend(found.into_iter().map(|by| Broken { alarm: Arc::clone(alarm), by }));
        }
        Ok(Self { known: watch::Sender::new(known), broken: watch::Sender::new(broken) })
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
        let by = names(&keys);
        if let Some(broken) = self.others.alarms.broken.borrow().iter().find(|broken| broken.by == by)
            && let Ok(heads) = broken.alarm.conflict.convicts(&self.every_log_key())
        {
            return Some((Arc::clone(&broken.alarm), heads));
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

    /// As [`Shared::check_alarm`], and in doubt, too: then nothing more is taken or cosigned that the log proves.
    ///
    /// # Errors
    /// The words.
    pub fn check_log(&self) -> Result<(), String> {
        self.check_alarm()?;
        self.others.sight.doubt().map_or(Ok(()), |doubt| {
            let (size, from) = (doubt.checkpoint.head().size, doubt.from.short());
            Err(format!(
                "the log has signed a checkpoint of {size} entries, told by {from}, and nobody shows whether what this node follows is the \
                 same log: until a coordinator serves its tiles nothing more of it is believed"
            ))
        })
    }

    /// Says whether former coordinators have signed a checkpoint who forked the log since and were replaced: nobody has to continue it,
    /// since nobody could say which of their histories goes on.
    pub fn is_given_up(&self, checkpoint: &Signed) -> bool {
        let every = self.others.alarms.every();
        if every.is_empty() || checkpoint.clone().verify(&self.log_keys()).is_ok() {
            return false;
        }
        let (policies, current) = (self.policies(), self.log_keys());
        let of_policies = policies.chain().iter().map(|policy| network::log_keys(&self.network, policy.get()));
        // That new coordinators do not continue the log is no evidence against the former ones: no policy named both alone.
        let former: Vec<_> = of_policies.filter(|keys| *keys != current).collect();
        // Only of what they signed themselves: others who replaced them are believed, and must be continued.
        let signed = |keys: &&Vec<_>| checkpoint.clone().verify(keys).is_ok();
        every.iter().any(|alarm| former.iter().filter(signed).any(|keys| alarm.conflict.convicts(keys).is_ok()))
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
        let (bytes, at, by) = (conflict.to_bytes(), clock::now(), names(&keys));
        if !strictly {
            let found = found_against(&self.store, &bytes).await?;
            let (key, by) = (record_key(&bytes, found.len()), by.clone());
            if !found.contains(&by) {
                self.store.run(move |store| store.record_put(&key, by.as_bytes())).await?;
            }
        }
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
            self.others.alarms.broken.send_modify(|broken| broken.push(Broken { alarm, by }));
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
