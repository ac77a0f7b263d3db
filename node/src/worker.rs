//! The builder's role: hears announcements, bids for what fits, runs what it is granted, and reports every end.
//!
//! ```text
//!  announced --bid--> granted --> fetch --> environment --> build --> attested --> reported
//!                        |__________ revoked, lost, interrupted: everything is stopped, and said ______|
//! ```
//!
//! It decides nothing about a job; the coordinator's ledger does. A slot is promised only once: a grant without a free
//! slot is refused, and the ledger asks somebody else.

mod attempt;
mod inputs;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::{
    Arch, Hash, JobId, Timestamp, Verified,
    blame::{Blame, Failure, Fault},
    envelope::Signed,
    job::{Announcement, JobRequest},
    lease::{Lease, LeaseNumber},
    limits,
    message::{Bid, Failed, LogChunk, Refusal, Renewal, Request, Response},
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
    clock,
    config::Builder,
    daemon::Shared,
    serve::Desk,
};

/// Announcements that are remembered; older ones are heard again, since the coordinator repeats what is open.
const KNOWN_MAX: usize = 512;
/// Bytes of one answer to a question for a log.
const LOG_CHUNK: usize = 256 * 1024;
/// How often the coordinator is asked what is open, beside hearing announcements.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How long a bid stands before it may be repeated.
const BID_AGAIN: Duration = Duration::from_secs(15);
/// How long a slot is kept for the grant of an answered bid at least; a slow coordinator gets as long as its answer took.
const GRANT_WITHIN_MIN: Duration = Duration::from_millis(25);
/// Of how many jobs for each wanted one a builder chooses.
const SPREAD: usize = 3;

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
    wanted: Notify,
    granted: mpsc::Sender<(Lease, Slot)>,
}

/// Grants on their way from the desk to the worker's loop.
pub struct Grants(mpsc::Receiver<(Lease, Slot)>);

#[derive(Default)]
struct State {
    known: BTreeMap<JobId, Announcement>,
    bids: BTreeMap<JobId, (Timestamp, Standing)>,
    /// Requests of fresh bids: asked for beside the bid, so that a grant need not wait for them.
    requests: BTreeMap<JobId, Verified<JobRequest>>,
    held: BTreeMap<LeaseNumber, Held>,
}

/// What may come of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A grant may be on its way: a slot is kept for it.
    Fresh,
    /// Others were faster. The coordinator remembers the bid; no slot waits for it.
    Reserve,
}

/// Whether the coordinator has seen a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    Yes,
    No,
}

/// One attempt that runs here.
struct Held {
    job: JobId,
    phase: &'static str,
    stop: CancellationToken,
    why: Option<Failure>,
    log: LogSink,
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
        let slots = Slots::new(settings.slots, settings.memory_mib);
        let wanted = Notify::new();
        let worker = Self { shared, desk, workshop, slots, settings, state: Mutex::default(), wanted, granted };
        (Arc::new(worker), Grants(grants))
    }

    /// What this builder offers.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            slots: self.settings.slots,
            arches: Arch::native().into_iter().collect(),
            disk_mib: self.settings.disk_mib,
            memory_mib: self.settings.memory_mib,
        }
    }

    /// Takes note of a job that wants builders.
    pub fn heard(&self, announcement: Announcement) {
        if Arch::native() != Some(announcement.arch) || announcement.memory_mib > self.settings.memory_mib {
            return;
        }
        let mut state = self.state();
        if state.known.len() >= KNOWN_MAX {
            // The coordinator repeats what stays open, so forgetting is safe.
            state.known.pop_first();
        }
        if state.bids.get(&announcement.job).is_some_and(|(_, standing)| *standing == Standing::Reserve) {
            // Builders are still wanted, so the coordinator may have forgotten the bid.
            state.bids.remove(&announcement.job);
        }
        state.known.insert(announcement.job, announcement);
        drop(state);
        self.wanted.notify_one();
    }

    /// Takes a grant, if a slot is free.
    pub fn granted(&self, lease: Lease) -> Response {
        let mut state = self.state();
        if state.held.contains_key(&lease.number) {
            return Response::Done;
        }
        let memory = state.known.get(&lease.job).map_or(0, |a| a.memory_mib);
        let Some(slot) = self.slots.try_take(memory) else {
            // The coordinator forgets the bid now; it is repeated when there is room.
            state.bids.remove(&lease.job);
            state.requests.remove(&lease.job);
            return Response::Refused(Refusal::Busy("no free slot".into()));
        };
        let log = match self.new_log(lease.number) {
            Ok(log) => log,
            Err(why) => return Response::Refused(Refusal::Busy(why)),
        };
        let held = Held { job: lease.job, phase: "granted", stop: CancellationToken::new(), why: None, log };
        let number = lease.number;
        state.known.remove(&lease.job);
        state.bids.remove(&lease.job);
        state.held.insert(number, held);
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
        if let Some(held) = self.state().held.get_mut(&lease) {
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
        let mut renew = tokio::time::interval(limits::LEASE_RENEW_EVERY);
        let mut ask = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((lease, slot)) = grants.recv() => {
                    tasks.spawn(Arc::clone(&self).hold(lease, slot, stop.child_token()));
                }
                // What frees a slot or a bid says so itself: a task's end is no news, or bidding would never rest.
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = self.wanted.notified() => drop(tasks.spawn(Arc::clone(&self).bid())),
                _ = renew.tick() => drop(tasks.spawn(Arc::clone(&self).renew())),
                _ = ask.tick() => drop(tasks.spawn(Arc::clone(&self).ask_what_is_open())),
            }
        }
        for held in self.state().held.values_mut() {
            held.why = Some(Failure::new(Blame::Interrupted, "daemon", "the node is stopping"));
            held.stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Asks the coordinator what is open: at the start, after a lost connection, and now and then.
    pub async fn ask_what_is_open(self: Arc<Self>) {
        let (free, _) = self.slots.free();
        if free == 0 {
            return;
        }
        match self.desk.ask_coordinator(Request::Open).await {
            Ok(Response::Records(records)) => {
                for record in records {
                    match self.shared.read_signed_by_candidate::<Announcement>(&record.0) {
                        Ok(announcement) => self.heard(announcement.into_inner()),
                        Err(why) => warn!(%why, "an announcement was refused"),
                    }
                }
            }
            Ok(other) => debug!(?other, "the coordinator did not say what is open"),
            Err(error) => debug!(%error, "the coordinator cannot be asked what is open"),
        }
    }

    /// Tells a new leader at once which leases live here, and asks it what is open. What runs here goes on.
    pub async fn leader_changed(self: Arc<Self>) {
        {
            // Nobody knows any more what came of bids to the one before.
            let mut state = self.state();
            state.bids.clear();
            state.requests.clear();
        }
        Arc::clone(&self).renew().await;
        self.ask_what_is_open().await;
    }

    /// Bids for known jobs while slots are free. Bids that are made together share a commit of the coordinator's journal.
    async fn bid(self: Arc<Self>) {
        let picked = self.worth_bidding(clock::now());
        if picked.is_empty() {
            return;
        }
        let begun = Instant::now();
        let bids = picked.iter().map(|announcement| self.bid_for(announcement));
        let undelivered = futures::future::join_all(bids).await.contains(&Delivered::No);
        // A grant is sent when the bid is answered, so one that does not come about as fast went to somebody else.
        tokio::time::sleep(begun.elapsed().max(GRANT_WITHIN_MIN)).await;
        let mut state = self.state();
        for announcement in &picked {
            if let Some((_, standing)) = state.bids.get_mut(&announcement.job) {
                *standing = Standing::Reserve;
                state.requests.remove(&announcement.job);
            }
        }
        drop(state);
        if !undelivered {
            self.wanted.notify_one();
        }
        // Else what is open is asked for when the coordinator is connected again.
    }

    async fn bid_for(&self, announcement: &Announcement) -> Delivered {
        let bid = Bid { job: announcement.job, memory_mib: self.settings.memory_mib };
        let (answer, ()) = tokio::join!(self.desk.ask_coordinator(Request::Bid(bid)), self.ask_early(announcement.job));
        match answer {
            Ok(Response::Done) => debug!(job = %announcement.job, "bid"),
            Ok(Response::Refused(refusal)) => {
                debug!(job = %announcement.job, %refusal, "bid refused");
                let mut state = self.state();
                state.known.remove(&announcement.job);
                state.bids.remove(&announcement.job);
                state.requests.remove(&announcement.job);
            }
            Ok(other) => warn!(?other, "a bid was answered with something else"),
            Err(error) => {
                debug!(%error, "bid not delivered");
                let mut state = self.state();
                state.bids.remove(&announcement.job);
                state.requests.remove(&announcement.job);
                return Delivered::No;
            }
        }
        Delivered::Yes
    }

    /// Asks for the request of a job that is bid for. Where it fails, the attempt asks again and says why.
    async fn ask_early(&self, job: JobId) {
        if let Ok(request) = self.request(job).await {
            let mut state = self.state();
            if state.bids.contains_key(&job) {
                state.requests.insert(job, request);
            }
        }
    }

    /// Picks jobs to bid for, as many as there are free slots, and notes the bids.
    fn worth_bidding(&self, now: Timestamp) -> Vec<Announcement> {
        let free = usize::from(self.slots.free().0);
        let mut state = self.state();
        state.bids.retain(|_, (at, _)| now.since(*at) < BID_AGAIN);
        let fresh = state.bids.values().filter(|(_, standing)| *standing == Standing::Fresh).count();
        let room = free.saturating_sub(fresh);
        let wanted =
            |a: &&Announcement| now.since(a.at) < limits::ANNOUNCEMENT_TTL && !a.excluded.contains(&self.shared.id);
        let mut picked: Vec<Announcement> = state.known.values().filter(wanted).cloned().collect();
        picked.retain(|a| !state.bids.contains_key(&a.job) && !state.held.values().any(|h| h.job == a.job));
        picked.sort_by_key(|a| a.at);
        // Of the oldest, each builder begins with others, so that several do not all bid for the same.
        picked.truncate(room * SPREAD);
        picked.sort_by_key(|a| Hash::of(&[a.job.as_bytes().as_slice(), self.shared.id.as_bytes()].concat()));
        picked.truncate(room);
        for announcement in &picked {
            state.bids.insert(announcement.job, (now, Standing::Fresh));
        }
        picked
    }

    /// Says that the leases held here live, and stops those that do not any more.
    async fn renew(self: Arc<Self>) {
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

    /// Reports what a killed daemon left behind as interrupted, so that nobody waits for it.
    async fn confess(self: Arc<Self>, stop: CancellationToken) {
        let attempts = self.shared.store.run(|store| store.attempts()).await.unwrap_or_else(|error| {
            warn!(%error, "attempts of the last run not read; their leases end by themselves");
            Vec::new()
        });
        for (lease, _) in attempts {
            let failure = Failure::new(Blame::Interrupted, "daemon", "the node was restarted during the build");
            let report = Request::Failed(Failed { log: None, lease, failure });
            if self.deliver(report, &stop).await {
                info!(%lease, "interrupted attempt reported");
                self.forget(lease).await;
            }
        }
        self.wanted.notify_one();
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
            | Response::Log(_)
            | Response::View(_)) => {
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
