//! The builder's role: offers its room, runs what it is granted, and reports every end.
//!
//! ```text
//!  room --offer--> granted --> fetch --> environment --> build --> attested --> reported
//!                        |__________ revoked, lost, interrupted: everything is stopped, and said ______|
//! ```
//!
//! It decides nothing about a job, not even which one; the coordinator's ledger does. An offer stands until another replaces
//! it, so that a new job needs no question; an announcement only wakes a builder whose offer got lost. A grant without a free
//! slot is refused, and the ledger asks somebody else. A node that drains offers nothing and finishes what it has.

mod attempt;
mod drain;
mod grounds;
mod image;
mod inputs;
mod origin;
mod reveal;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ledger::Duty;
use protocol::{
    Arch, JobId, Verified,
    blame::{Blame, Failure, Fault},
    envelope::Signed,
    job::{Announcement, JobRequest},
    lease::{Lease, LeaseNumber},
    limits,
    message::{LogChunk, Offer, Refusal, Renewal, Request, Response},
    peer::Capacity,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    build::{self, LogSink, Slot, Slots, Workshop},
    config::Builder,
    daemon::Shared,
    serve::Desk,
    worker::reveal::{Hidden, job_of},
};

/// Bytes of one answer to a question for a log.
const LOG_CHUNK: usize = 256 * 1024;
/// How often an offer that stands is said again: a coordinator may have lost it without a lost connection.
const OFFER_AGAIN: Duration = Duration::from_secs(60);
/// How soon an offer that was not taken is said again.
const OFFER_RETRY: Duration = Duration::from_secs(3);
/// How old an offer is at least when an announcement makes it be said again.
const OFFER_DOUBTED_AFTER: Duration = Duration::from_secs(2);

/// The folder of live logs, below the builder's own.
const LOGS: &str = "logs";

/// The builder of this node.
pub struct Worker {
    shared: Arc<Shared>,
    desk: Desk,
    workshop: Workshop,
    slots: Slots,
    settings: Builder,
    state: Mutex<State>,
    duty: Mutex<Duty>,
    wanted: Notify,
    granted: mpsc::Sender<(Lease, Slot)>,
    /// Held by the result that asks whether it may be shown.
    showing: tokio::sync::Mutex<()>,
}

/// Grants on their way from the desk to the worker's loop.
pub struct Grants(mpsc::Receiver<(Lease, Slot)>);

#[derive(Default)]
struct State {
    offered: Offered,
    held: BTreeMap<LeaseNumber, Held>,
}

/// What the coordinator knows of the room here.
#[derive(Debug, Default, PartialEq, Eq)]
enum Offered {
    /// Nothing, or something that is over.
    #[default]
    Nothing,
    /// This much, since then; what was granted since is taken off.
    Room { free: u16, memory_mib: u32, since: Instant },
}

/// One attempt that runs here.
struct Held {
    phase: &'static str,
    stop: CancellationToken,
    /// Cancelled when what was committed to may be shown.
    reveal: CancellationToken,
    why: Option<Failure>,
    log: LogSink,
}

impl Held {
    fn new(phase: &'static str, log: LogSink) -> Self {
        Self { phase, stop: CancellationToken::new(), reveal: CancellationToken::new(), why: None, log }
    }
}

/// Removes what attempts of an earlier run left in the builder's folder beside their sandboxes: inputs and live logs.
///
/// # Errors
/// When something cannot be removed.
pub fn sweep(build: &Path) -> io::Result<()> {
    for folder in [inputs::FOLDER, LOGS] {
        match fs::remove_dir_all(build.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

impl Worker {
    /// Makes the worker; `run` makes it work.
    pub fn new(shared: Arc<Shared>, desk: Desk, workshop: Workshop, settings: Builder) -> (Arc<Self>, Grants) {
        let (granted, grants) = mpsc::channel(usize::from(settings.slots.max(1)));
        let slots = Slots::new(settings.slots, (settings.memory_mib, settings.disk_mib));
        let (wanted, state) = (Notify::new(), Mutex::default());
        let duty = Mutex::new(drain::read(&shared.home));
        let worker = Self {
            shared,
            desk,
            workshop,
            slots,
            settings,
            state,
            duty,
            wanted,
            granted,
            showing: tokio::sync::Mutex::default(),
        };
        (Arc::new(worker), Grants(grants))
    }

    /// What this builder offers.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            fetch: self.settings.fetch.clone(),
            isolation: self.settings.isolation,
            slots: self.settings.slots,
            arches: Arch::native().into_iter().collect(),
            disk_mib: self.settings.disk_mib,
            memory_mib: self.settings.memory_mib,
        }
    }

    /// A job that fits wants builders: if an offer stands, the coordinator does not know it any more.
    pub fn heard(&self, announcement: &Announcement) {
        if Arch::native() != Some(announcement.arch) || announcement.memory_mib > self.settings.memory_mib {
            return;
        }
        let mut state = self.state();
        if matches!(state.offered, Offered::Room { since, .. } if since.elapsed() >= OFFER_DOUBTED_AFTER) {
            state.offered = Offered::Nothing;
        }
        drop(state);
        self.wanted.notify_one();
    }

    /// Takes a grant, if a slot is free.
    pub fn granted(&self, lease: Lease) -> Response {
        let mut state = self.state();
        if state.held.contains_key(&lease.number) {
            return Response::Done;
        }
        let slot = if self.duty() == Duty::Ready { self.slots.try_take(lease.memory_mib) } else { None };
        let Some(slot) = slot else {
            // The coordinator takes the room here for none now; it is said again when there is some.
            state.offered = Offered::Nothing;
            return Response::Refused(Refusal::Busy("no free slot".into()));
        };
        let log = match self.new_log(lease.number) {
            Ok(log) => log,
            Err(why) => return Response::Refused(Refusal::Busy(why)),
        };
        if let Offered::Room { free, memory_mib, .. } = &mut state.offered {
            *free = free.saturating_sub(1);
            *memory_mib = memory_mib.saturating_sub(lease.memory_mib);
        }
        let number = lease.number;
        state.held.insert(number, Held::new("granted", log));
        if self.granted.try_send((lease, slot)).is_err() {
            state.held.remove(&number);
            return Response::Refused(Refusal::Busy("stopping".into()));
        }
        Response::Done
    }

    fn new_log(&self, lease: LeaseNumber) -> Result<LogSink, String> {
        let folder = self.shared.home.build().join(LOGS);
        std::fs::create_dir_all(&folder).map_err(|e| format!("no log can be written: {e}"))?;
        let limit = u64::from(u32::MAX);
        LogSink::create(folder.join(format!("{lease}.log")), limit).map_err(|e| format!("no log can be written: {e}"))
    }

    /// Stops an attempt whose lease the coordinator took back.
    pub fn revoked(&self, lease: LeaseNumber, reason: &str) -> Response {
        self.stop(lease, Failure::new(Blame::Cancelled, "lease", reason));
        Response::Done
    }

    fn stop(&self, lease: LeaseNumber, why: Failure) {
        // Who is told again and again has stopped it once.
        if let Some(held) = self.state().held.get_mut(&lease).filter(|held| !held.stop.is_cancelled()) {
            info!(%lease, %why, "attempt stopped");
            held.why = Some(why);
            held.stop.cancel();
        }
    }

    /// Gives a piece of the log of an attempt that runs here.
    pub fn log(&self, lease: LeaseNumber, at: u64) -> Response {
        let Some(log) = self.state().held.get(&lease).map(|held| held.log.clone()) else {
            return Response::Refused(Refusal::Unknown(format!("attempt {lease} does not run here")));
        };
        let progress = *log.progress().borrow();
        let size = usize::try_from(progress.bytes.saturating_sub(at)).unwrap_or(LOG_CHUNK).min(LOG_CHUNK);
        let mut data = vec![0; size];
        if let Err(error) = File::open(log.path()).and_then(|file| file.read_exact_at(&mut data, at)) {
            debug!(%lease, %error, "log not read");
            return Response::Refused(Refusal::Unknown(format!("the log of attempt {lease} cannot be read")));
        }
        let ended = progress.phase == build::Phase::Done && at + size as u64 >= progress.bytes;
        Response::Log(LogChunk { at, data, ended })
    }

    /// Works until stopped; then stops every attempt and waits for its end.
    pub async fn run(self: Arc<Self>, grants: Grants, stop: CancellationToken) {
        let mut grants = grants.0;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).confess(stop.clone()));
        tasks.spawn(Arc::clone(&self).keep_offering(stop.clone()));
        let mut renew = tokio::time::interval(limits::LEASE_RENEW_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((lease, slot)) = grants.recv() => {
                    tasks.spawn(Arc::clone(&self).hold(lease, slot, stop.child_token()));
                }
                // What frees a slot or a bid says so itself: a task's end is no news, or bidding would never rest.
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                _ = renew.tick() => {
                    let this = Arc::clone(&self);
                    tasks.spawn(async move { this.renew().await });
                }
            }
        }
        for held in self.state().held.values_mut() {
            held.why = Some(Failure::new(Blame::Interrupted, "daemon", "the node is stopping"));
            held.stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The leader changed, or is connected again or for the first time: what it may have missed is said at once. A lease that was
    /// taken back meanwhile is so learnt before the next heartbeat.
    pub async fn greet(self: Arc<Self>) {
        self.state().offered = Offered::Nothing;
        self.wanted.notify_one();
        self.renew().await;
    }

    /// Offers the room that there is whenever it changes, one offer after the other.
    async fn keep_offering(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let stands = self.state().offered != Offered::Nothing;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(if stands { OFFER_AGAIN } else { OFFER_RETRY }) => self.state().offered = Offered::Nothing,
            }
            self.offer().await;
        }
    }

    async fn offer(&self) {
        let Some(offer) = self.worth_offering() else { return };
        // A grant may come before the answer, and is taken off.
        let said = Offered::Room { free: offer.free, memory_mib: offer.memory_mib, since: Instant::now() };
        self.state().offered = said;
        let why = match self.desk.ask_coordinator(Request::Offer(offer)).await {
            Ok(Response::Done) => return,
            Ok(other) => format!("{other:?}").chars().take(120).collect(),
            Err(error) => error.to_string(),
        };
        // It is said again when the coordinator is connected, or after a while.
        debug!(%why, "offer not taken");
        self.state().offered = Offered::Nothing;
    }

    /// Gives the room here, unless it is what the coordinator knows.
    fn worth_offering(&self) -> Option<Offer> {
        let state = self.state();
        let (mut free, mut memory_mib) = self.slots.free();
        if self.duty() != Duty::Ready {
            (free, memory_mib) = (0, 0);
        }
        if matches!(state.offered, Offered::Room { free: f, memory_mib: m, .. } if (f, m) == (free, memory_mib)) {
            return None;
        }
        let held = state.held.keys().copied().collect();
        Some(Offer { free, held, arches: Arch::native().into_iter().collect(), memory_mib })
    }

    /// Says whether this node takes anything new.
    pub fn duty(&self) -> Duty {
        self.duty.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives why this node takes nothing new, while it drains.
    pub fn draining(&self) -> Option<String> {
        match self.duty() {
            Duty::Ready => None,
            Duty::Draining { reason } => Some(reason),
        }
    }

    /// Counts the attempts that are held here.
    pub fn running(&self) -> usize {
        self.state().held.len()
    }

    /// Has this node drain, or take jobs again; durably. What runs is finished.
    ///
    /// # Errors
    /// When it cannot be written down: a restart would forget it.
    pub fn set_duty(&self, duty: Duty) -> io::Result<()> {
        drain::write(&self.shared.home, &duty)?;
        info!(?duty, "duty changed");
        *self.duty.lock().unwrap_or_else(PoisonError::into_inner) = duty;
        self.wanted.notify_one();
        Ok(())
    }

    /// Says that the leases held here live, and stops those that do not any more.
    async fn renew(&self) {
        let renewals: Vec<Renewal> = self
            .state()
            .held
            .iter()
            .map(|(lease, held)| Renewal { lease: *lease, phase: held.phase.to_owned() })
            .collect();
        if renewals.is_empty() {
            return;
        }
        match self.desk.ask_coordinator(Request::Renew(renewals)).await {
            Ok(Response::Lost(lost)) => {
                for lease in lost {
                    self.stop(lease, Failure::new(Blame::Interrupted, "lease", "the coordinator ended the lease"));
                }
            }
            Ok(Response::Done) => {}
            Ok(other) => debug!(?other, "a heartbeat was answered with something else"),
            Err(error) => debug!(%error, "heartbeat not delivered"),
        }
    }

    /// Reports what a killed daemon left behind as interrupted, so that nobody waits for it; a result that it is committed to is
    /// still shown when it may be.
    async fn confess(self: Arc<Self>, stop: CancellationToken) {
        let mut waiting = JoinSet::new();
        let attempts = self.shared.store.run(|store| store.attempts()).await.unwrap_or_else(|error| {
            warn!(%error, "attempts of the last run not read; their leases end by themselves");
            Vec::new()
        });
        for (lease, note) in attempts {
            if let Some(hidden) = Hidden::read(&note) {
                waiting.spawn(Arc::clone(&self).resume(lease, hidden, stop.clone()));
                continue;
            }
            let failure = Failure::new(Blame::Interrupted, "daemon", "the node was restarted during the build");
            let report = self.failed(job_of(&note), lease, (None, failure));
            if self.deliver(report, &stop).await {
                info!(%lease, "interrupted attempt reported");
                self.forget(lease).await;
                // While the coordinator counted on it, there was less room here.
                self.state().offered = Offered::Nothing;
            }
        }
        self.wanted.notify_one();
        while waiting.join_next().await.is_some() {}
    }

    /// Delivers a report, again and again until it is answered; gives false when stopped before.
    async fn deliver(&self, report: Request, stop: &CancellationToken) -> bool {
        let mut wait = Duration::from_millis(200);
        loop {
            match self.desk.ask_coordinator(report.clone()).await {
                Ok(Response::Refused(refusal @ (Refusal::Busy(_) | Refusal::NotCoordinator(_)))) => {
                    debug!(%refusal, "report not taken yet");
                }
                Ok(Response::Refused(refusal)) => {
                    warn!(%refusal, "report refused");
                    return true;
                }
                Ok(_) => return true,
                Err(error) => debug!(%error, "report not delivered"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
            }
        }
    }

    async fn forget(&self, lease: LeaseNumber) {
        if let Err(error) = self.shared.store.run(move |store| store.attempt_remove(lease)).await {
            warn!(%lease, %error, "attempt not forgotten");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches and verifies the signed request of a job.
    async fn request(&self, job: JobId) -> Result<Verified<JobRequest>, Failure> {
        let failed = |why: String| Failure::new(Blame::Builder(Fault::Fetch), "fetch", why);
        let answer = self.desk.ask_coordinator(Request::Job(job)).await.map_err(|e| failed(e.to_string()))?;
        let record = match answer {
            Response::Record(record) => record,
            Response::Refused(refusal) => return Err(failed(refusal.to_string())),
            other @ (Response::Done
            | Response::Receipt(..)
            | Response::Records(_)
            | Response::Providers(_)
            | Response::Lost(_)
            | Response::Reveal
            | Response::Log(_)
            | Response::Grounds(_)
            | Response::View(_)
            | Response::Witness(..)
            | Response::Checkpoint(_)
            | Response::Conflict(_)) => {
                return Err(failed(format!("the coordinator answered {other:?}").chars().take(120).collect()));
            }
        };
        let request = Signed::read(&record.0)
            .and_then(|s| s.verify(Some(&self.shared.network)))
            .map_err(|e| failed(format!("the job request does not verify: {e}")))?;
        if protocol::job::job_id(&request) != job {
            return Err(failed("the coordinator gave another job's request".into()));
        }
        let policies = self.shared.policies();
        let known = request
            .signers()
            .iter()
            .any(|key| policies.current().maintainer(key).is_some_and(|m| m.channels.contains(&request.get().channel)));
        if known { Ok(request) } else { Err(failed("no maintainer of the channel signed the job request".into())) }
    }
}
