//! The loop that owns the ledger: takes commands, applies them, makes them durable, and only then lets effects out.
//!
//! ```text
//!  commands --queue--> apply --> journal (one transaction per batch) --> answers, errands, timer
//! ```
//!
//! Inside the loop nothing is awaited but the local disk. What goes to the network is handed to [`crate::perform`] through
//! a bounded queue; when that is full the loop waits no longer than the errands need to leave, since they are only handed
//! on to tasks there. Views run here too, between two batches, so that they always see a whole state.

use std::{sync::Arc, time::Duration};

use ledger::{Command, Effect, Ledger};
use protocol::{
    NetworkId, Timestamp, Verified,
    message::{Refusal, Response},
    policy::Policy,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{clock, store::Store};

/// Commands that may wait; a burst of submissions fits, a runaway peer does not.
const QUEUE: usize = 1024;
/// Commands that share one transaction.
const BATCH: usize = 256;
/// Journal entries that are read at one time.
const REPLAY: usize = 1024;
/// Journal entries after which a snapshot replaces them.
const SNAPSHOT_EVERY: u64 = 4096;

/// Why the loop ended or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed; nothing can be decided without it.
    #[error("the ledger's journal failed")]
    Store(#[from] crate::store::Error),
    /// The journal holds something that this version cannot read.
    #[error("journal entry {sequence} cannot be read: {why}")]
    Journal {
        /// The entry.
        sequence: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// What the loop takes.
enum Input {
    /// A command, and where its answer goes.
    Command(Box<Command>, Option<oneshot::Sender<Response>>),
    /// A look at the state.
    View(Box<dyn FnOnce(&Ledger) + Send>),
}

/// The way to the loop.
#[derive(Clone)]
pub struct Decisions {
    queue: mpsc::Sender<Input>,
}

impl Decisions {
    /// Has a command decided and gives the answer; the decision is durable then.
    pub async fn decide(&self, command: Command) -> Response {
        let (reply, answer) = oneshot::channel();
        if self.queue.try_send(Input::Command(Box::new(command), Some(reply))).is_err() {
            return Response::Refused(Refusal::Busy("the coordinator's queue is full; try again in a second".into()));
        }
        answer.await.unwrap_or_else(|_| Response::Refused(Refusal::Busy("the coordinator is stopping".into())))
    }

    /// Hands over a command whose answer nobody waits for.
    pub async fn tell(&self, command: Command) {
        if self.queue.send(Input::Command(Box::new(command), None)).await.is_err() {
            debug!("a command came after the coordinator stopped");
        }
    }

    /// Looks at the ledger.
    pub async fn view<T: Send + 'static>(&self, look: impl FnOnce(&Ledger) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let input = Input::View(Box::new(move |ledger| {
            // Nobody waits for the view any more when this fails.
            let _ = reply.send(look(ledger));
        }));
        self.queue.send(input).await.ok()?;
        answer.await.ok()
    }
}

/// The loop's state.
pub struct Decider {
    ledger: Ledger,
    store: Store,
    sequence: u64,
    snapshot_at: u64,
    wake: Option<Timestamp>,
    queue: mpsc::Receiver<Input>,
    errands: mpsc::Sender<Effect>,
}

impl Decider {
    /// Loads the ledger from its snapshot and journal, or begins a new one with the network's policies.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn load(
        store: Store,
        network: NetworkId,
        policies: &[Arc<Verified<Policy>>],
        errands: mpsc::Sender<Effect>,
    ) -> Result<(Self, Decisions), Error> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let unreadable = |sequence: u64, why: String| Error::Journal { sequence, why };
        let (mut sequence, mut ledger) = match store.run(|store| store.snapshot()).await? {
            Some(snapshot) => {
                let ledger =
                    Ledger::from_bytes(&snapshot.bytes).map_err(|e| unreadable(snapshot.seq, e.to_string()))?;
                (snapshot.seq, ledger)
            }
            None => {
                let ledger = Ledger::new(network, policies[0].as_ref().clone());
                (0, ledger.map_err(|e| unreadable(0, e.to_string()))?)
            }
        };
        let snapshot_at = sequence;
        loop {
            let from = sequence + 1;
            let entries = store.run(move |store| store.journal_from(from, REPLAY)).await?;
            if entries.is_empty() {
                break;
            }
            for (at, bytes) in entries {
                let (time, command) = decode(&bytes, &network).map_err(|why| unreadable(at, why))?;
                // Effects were performed, or will be asked for again by `Restarted`.
                drop(ledger.apply(time, command));
                sequence = at;
            }
        }
        info!(sequence, "ledger loaded");
        let decider = Self { ledger, store, sequence, snapshot_at, wake: None, queue, errands };
        Ok((decider, Decisions { queue: sender }))
    }

    /// Decides until stopped. A dropped future loses only what was not yet answered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run(mut self, policies: Vec<Arc<Verified<Policy>>>, stop: CancellationToken) -> Result<(), Error> {
        let known = self.ledger.policy().get().number;
        let newer = policies.into_iter().filter(|p| p.get().number > known);
        let mut first: Vec<Input> =
            newer.map(|p| Input::Command(Box::new(Command::AdoptPolicy(p.as_ref().clone())), None)).collect();
        first.push(Input::Command(Box::new(Command::Restarted), None));
        self.batch(first).await?;
        loop {
            let sleep = self.sleep();
            let mut inputs = Vec::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.save().await,
                count = self.queue.recv_many(&mut inputs, BATCH) => {
                    if count == 0 {
                        return self.save().await;
                    }
                }
                () = tokio::time::sleep(sleep) => inputs.push(Input::Command(Box::new(Command::Woken), None)),
            }
            self.batch(inputs).await?;
        }
    }

    fn sleep(&self) -> Duration {
        match self.wake {
            Some(at) => at.since(clock::now()).max(Duration::from_millis(1)),
            None => Duration::from_secs(3600),
        }
    }

    /// Applies a batch, makes it durable in one transaction, then answers and hands out errands.
    async fn batch(&mut self, inputs: Vec<Input>) -> Result<(), Error> {
        let (mut entries, mut outcomes, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        for input in inputs {
            match input {
                Input::View(look) => looks.push(look),
                Input::Command(command, reply) => {
                    let at = clock::now();
                    if matches!(*command, Command::Woken) {
                        self.wake = None;
                    }
                    self.sequence += 1;
                    entries.push((self.sequence, encode(at, &command)));
                    outcomes.push((self.ledger.apply(at, *command), reply));
                }
            }
        }
        if !entries.is_empty() {
            self.store.run(move |store| store.journal_append(&entries)).await?;
        }
        // Nobody sees what is not durable.
        looks.into_iter().for_each(|look| look(&self.ledger));
        for (effects, mut reply) in outcomes {
            for effect in effects {
                self.release(effect, &mut reply).await;
            }
            if let Some(reply) = reply {
                // The asker may have gone.
                let _ = reply.send(Response::Done);
            }
        }
        if self.sequence - self.snapshot_at >= SNAPSHOT_EVERY {
            self.save().await?;
        }
        Ok(())
    }

    async fn release(&mut self, effect: Effect, reply: &mut Option<oneshot::Sender<Response>>) {
        match effect {
            Effect::Answer(response) => {
                if let Some(reply) = reply.take() {
                    // The asker may have gone.
                    let _ = reply.send(response);
                }
            }
            Effect::WakeAt(at) => self.wake = Some(at),
            errand @ (Effect::Grant(_)
            | Effect::Revoke { .. }
            | Effect::Announce(_)
            | Effect::Publish(_)
            | Effect::Serve(_)
            | Effect::Resign { .. }
            | Effect::Notify(_)) => {
                if self.errands.send(errand).await.is_err() {
                    warn!("an effect came after the errands stopped");
                }
            }
        }
    }

    async fn save(&mut self) -> Result<(), Error> {
        if self.sequence > self.snapshot_at {
            let (sequence, bytes) = (self.sequence, self.ledger.to_bytes());
            self.store.run(move |store| store.snapshot_put(sequence, &bytes)).await?;
            self.snapshot_at = self.sequence;
        }
        Ok(())
    }
}

/// A journal entry: the time in eight big-endian bytes, then the command.
fn encode(at: Timestamp, command: &Command) -> Vec<u8> {
    let mut bytes = at.as_millis().to_be_bytes().to_vec();
    bytes.extend(command.to_bytes());
    bytes
}

fn decode(bytes: &[u8], network: &NetworkId) -> Result<(Timestamp, Command), String> {
    let (time, command) = bytes.split_first_chunk::<8>().ok_or("shorter than its time")?;
    let at = Timestamp::from_millis(u64::from_be_bytes(*time));
    Ok((at, Command::from_bytes(command, network).map_err(|e| e.to_string())?))
}
