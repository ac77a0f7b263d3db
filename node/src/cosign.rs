//! Gathering cosignatures: who leads shows the newest checkpoint to every operator's node, and a release waits until enough
//! operators have seen it logged.
//!
//! ```text
//!  book --checkpoint, proof--> add-checkpoint at every witness --cosignatures--> checkpoint that a quorum saw
//!                                   409: the size that it saw last, and once more from there
//! ```
//! One operator has one vote, however many nodes it runs. What a witness says besides its own cosignature is left out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use attest::log::{
    checkpoint::{Signed, Verified},
    network,
    note::VerifierKey,
    policy::Policy,
    witness,
};
use protocol::{
    NodeId,
    message::{Octets, Request, Response},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    clock,
    daemon::{Shared, chain},
    serve::Desk,
    tlog::Book,
};

/// How often witnesses see the log when nothing waits for them.
const ROUND_EVERY: Duration = Duration::from_secs(10);
/// How long a witness may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a release may wait for its witnesses, before its publication counts as failed for now.
const QUORUM_WITHIN: Duration = Duration::from_secs(30);
/// How old cosignatures of a log that does not grow may become.
const FRESH: Duration = Duration::from_secs(600);
/// For how long the checkpoint before is given while witnesses are asked for the newest one; without a quorum the log goes on.
const FORMER_FOR: Duration = Duration::from_secs(30);
/// How soon they are asked again while something waits.
const AGAIN: Duration = Duration::from_millis(250);

/// Who asks the witnesses.
pub struct Cosigner {
    shared: Arc<Shared>,
    desk: Desk,
    book: Arc<Book>,
    /// The size that each witness saw last, as far as known.
    sizes: Mutex<BTreeMap<NodeId, u64>>,
    /// The newest checkpoint that was shown, with the cosignatures so far.
    shown: watch::Sender<Option<Verified>>,
    /// The one before, with its cosignatures, and until when it was the newest.
    former: Mutex<Option<(Instant, Verified)>>,
    /// Somebody waits for a round.
    wanted: Notify,
}

impl Cosigner {
    /// Makes the way to the witnesses.
    pub fn new(shared: Arc<Shared>, desk: Desk, book: Arc<Book>) -> Arc<Self> {
        let (sizes, shown, wanted) = (Mutex::default(), watch::Sender::new(None), Notify::new());
        Arc::new(Self { shared, desk, book, sizes, shown, former: Mutex::default(), wanted })
    }

    /// Asks every witness now and then, while this node leads, until stopped. It may be dropped at any time.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut round = tokio::time::interval(ROUND_EVERY);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
                _ = round.tick() => {}
            }
            if self.shared.leads().is_some() && self.shared.alarm().is_none() {
                self.round().await;
            }
        }
    }

    /// Waits for a checkpoint of at least `size` entries that a quorum has seen.
    ///
    /// # Errors
    /// Words, when too few witnesses saw it in time, or the policy asks for more than there can be.
    pub async fn covering(&self, size: u64, quorum: u8) -> Result<Signed, String> {
        let written = async { self.book.heads().wait_for(|head| head.size >= size).await.map(drop) };
        let too_late = || format!("the log of {size} entries is not written within {} s", QUORUM_WITHIN.as_secs());
        tokio::time::timeout(QUORUM_WITHIN, written).await.map_err(|_| too_late())?.map_err(|e| e.to_string())?;
        if quorum == 0 {
            return self.book.checkpoint().ok_or_else(|| "entries of the log are missing here".into());
        }
        let policy = self.policy(quorum)?;
        let mut shown = self.shown.subscribe();
        let deadline = tokio::time::Instant::now() + QUORUM_WITHIN;
        loop {
            let now = shown.borrow_and_update().clone().filter(|now| now.head().size >= size);
            let checked = now.map(|now| policy.check(now.as_signed().clone()));
            let seen = match checked {
                Some(Ok(witnessed)) => return Ok(witnessed.checkpoint.as_signed().clone()),
                Some(Err(error)) => chain(&error),
                None => "no witness has seen it".into(),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(format!(
                    "{quorum} operators must have seen the log before this counts, and within {} s they have not: {seen}",
                    QUORUM_WITHIN.as_secs()
                ));
            }
            self.wanted.notify_one();
            // Whether something changed or it was long enough, it is looked at again.
            let _ = tokio::time::timeout(AGAIN, shown.changed()).await;
        }
    }

    /// The newest checkpoint that was shown to witnesses, when a quorum has seen it; while they are being asked, the one before.
    pub fn seen(&self, quorum: u8) -> Option<Signed> {
        let policy = self.policy(quorum).ok()?;
        let check =
            |shown: Verified| Some(policy.check(shown.as_signed().clone()).ok()?.checkpoint.as_signed().clone());
        let newest = self.shown.borrow().clone().and_then(check);
        newest.or_else(|| {
            let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).clone();
            former.filter(|(until, _)| until.elapsed() < FORMER_FOR).and_then(|(_, former)| check(former))
        })
    }

    fn policy(&self, quorum: u8) -> Result<Policy, String> {
        let policies = self.shared.policies();
        network::log_policy(&self.shared.network, policies.current(), quorum).map_err(|e| chain(&e))
    }

    /// Shows the newest checkpoint to every witness at one time, and keeps what each of them says.
    async fn round(self: &Arc<Self>) {
        let keys = self.shared.log_keys();
        let Some(checkpoint) = self.book.checkpoint().and_then(|signed| signed.verify(&keys).ok()) else { return };
        let mut asked = JoinSet::new();
        for node in self.missing(&checkpoint) {
            let (this, checkpoint) = (Arc::clone(self), checkpoint.clone());
            asked.spawn(async move {
                let answer = tokio::time::timeout(ANSWER_WITHIN, this.show(node, &checkpoint)).await;
                (node, answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))))
            });
        }
        while let Some(answered) = asked.join_next().await {
            let (node, answer) = match answered {
                Ok(answered) => answered,
                Err(error) => {
                    debug!(%error, "a witness was not asked to the end");
                    continue;
                }
            };
            match answer {
                Ok(lines) => self.keep(node, &lines),
                Err(why) => debug!(node = %node.short(), %why, "not cosigned"),
            }
        }
    }

    /// Begins with a checkpoint where it is a new one, or its cosignatures are old, and gives the witnesses that have not
    /// cosigned it.
    fn missing(&self, checkpoint: &Verified) -> Vec<NodeId> {
        let policies = self.shared.policies();
        let nodes = policies.current().operators.iter().flat_map(|operator| operator.nodes.iter().copied());
        let witnesses: Vec<(NodeId, VerifierKey)> = nodes.map(|node| (node, network::witness_key(&node))).collect();
        let keys: Vec<VerifierKey> = witnesses.iter().map(|(_, key)| key.clone()).collect();
        let known = self.shown.borrow().clone().filter(|shown| shown.head() == checkpoint.head());
        let seen = known.and_then(|shown| shown.cosigners(&keys).ok()).unwrap_or_default();
        let now = clock::now();
        if seen.is_empty() || seen.iter().any(|seen| now.since(seen.at) > FRESH) {
            if let Some(former) = self.shown.send_replace(Some(checkpoint.clone())) {
                self.keep_former(former);
            }
            return witnesses.into_iter().map(|(node, _)| node).collect();
        }
        let cosigned = |key: &VerifierKey| seen.iter().any(|seen| seen.witness == *key);
        witnesses.into_iter().filter(|(_, key)| !cosigned(key)).map(|(node, _)| node).collect()
    }

    /// Keeps what was the newest checkpoint, unless fewer operators have seen it than the one that is kept.
    fn keep_former(&self, shown: Verified) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = former.as_ref().filter(|(until, _)| until.elapsed() < FORMER_FOR);
        if kept.is_none_or(|(_, kept)| self.shared.seen_by(kept).0 <= self.shared.seen_by(&shown).0) {
            *former = Some((Instant::now(), shown));
        }
    }

    fn keep(&self, node: NodeId, lines: &str) {
        let key = network::witness_key(&node);
        self.shown.send_if_modified(|shown| {
            let with = shown.as_ref().map(|shown| shown.with_answer(lines, std::slice::from_ref(&key)));
            match with {
                Some(Ok(with)) if !is_timely(&with, &key) => {
                    warn!(node = %node.short(), "a witness's clock is wrong: its cosignature is left out");
                    false
                }
                Some(Ok(with)) => {
                    *shown = Some(with);
                    true
                }
                Some(Err(error)) => {
                    warn!(node = %node.short(), %error, "what a witness answers is no cosignature");
                    false
                }
                None => false,
            }
        });
    }

    /// Shows a checkpoint to one witness, from the size that it saw last.
    async fn show(&self, node: NodeId, checkpoint: &Verified) -> Result<String, String> {
        let mut old = self.size_of(node);
        // It may have seen something else since: it says what, once.
        for _ in 0..2 {
            let size = checkpoint.head().size;
            if old > size {
                return Err(format!("it has seen {old} entries, this node knows {size}"));
            }
            let proof = self.book.consistency(old, size).await.map_err(|e| chain(&e))?;
            let body = witness::Request::new(old, proof, checkpoint).to_string();
            let answer = self.desk.ask(node, Request::AddCheckpoint(Octets(body.into_bytes()))).await;
            let answer = answer.map_err(|e| chain(&e))?;
            let Response::Witness(status, Octets(body)) = answer else {
                return Err(format!("it answered {answer:?}").chars().take(120).collect());
            };
            let body = String::from_utf8_lossy(&body).into_owned();
            match (status, witness::latest_size(&body)) {
                (200, _) => {
                    self.note_size(node, size);
                    return Ok(body);
                }
                (409, Some(latest)) => {
                    self.note_size(node, latest);
                    old = latest;
                }
                _ => return Err(format!("{status}: {}", body.trim_end())),
            }
        }
        Err("it sees the log from elsewhere, too".into())
    }

    fn size_of(&self, node: NodeId) -> u64 {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied().unwrap_or(0)
    }

    fn note_size(&self, node: NodeId, size: u64) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(node, size);
    }
}

/// Says whether a witness's newest cosignature is of now, more or less: one that is old would be asked for again and again.
fn is_timely(checkpoint: &Verified, witness: &VerifierKey) -> bool {
    let (now, seen) = (clock::now(), checkpoint.cosigners(std::slice::from_ref(witness)).unwrap_or_default());
    seen.iter().map(|seen| seen.at).max().is_some_and(|at| now.since(at) < FRESH && at.since(now) < FRESH)
}
