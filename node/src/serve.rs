//! The desk: answers what peers ask, and asks peers, this node's own parts included.
//!
//! A question to oneself takes the same way as one from outside, without a socket. Whoever asks is known by its
//! connection; what a record inside says is verified here, before anything is decided.

mod again;
pub mod artifacts;
mod finding;
mod grounds;
mod recipes;
mod releases;

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Instant,
};

use attest::{
    log::{checkpoint::Signed as SignedCheckpoint, tile::Resource},
    negative::Negative,
    statement,
};
use ledger::{Command, Duty, Ledger, Opening, signers::CERTIFICATE_MAX};
use protocol::{
    JobId, NodeId, PublicKey, Verified,
    envelope::Signed,
    job::{Announcement, JobRequest, Order},
    lease::{LeaseNumber, Term},
    limits,
    message::{Failed, Octets, Offer, Refusal, Renewal, Request, Response, Revealed},
    peer::Capacity,
    policy::Policy,
};
use tracing::{debug, info};

pub use self::again::Again;

use crate::{
    clock,
    cosign::Cosigner,
    daemon::{Decisions, Policies, Runs, Shared, bundle, chain, decide::refusal, views},
    net::AskError,
    publish::sign::{keyring::Keyring, keys::KEYS_MAX},
    tlog,
    worker::Worker,
};

/// The parts of this node that a question can be for.
#[derive(Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    parts: Arc<Parts>,
}

/// Parts that come up after the desk.
#[derive(Default)]
struct Parts {
    /// None while this node is no candidate.
    decisions: RwLock<Option<Decisions>>,
    worker: OnceLock<Arc<Worker>>,
    /// Who asks the witnesses, since this node may coordinate.
    cosigner: RwLock<Option<Arc<Cosigner>>>,
    runs: Arc<Runs>,
    catalogues: artifacts::Catalogues,
    again: again::Answers,
    shown: again::Shown,
}

impl Desk {
    /// Opens a desk without parts.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, parts: Arc::default() }
    }

    /// Adds the ledger of a node that may coordinate, or takes it away.
    pub fn coordinate(&self, decisions: Option<Decisions>) {
        *self.parts.decisions.write().unwrap_or_else(PoisonError::into_inner) = decisions;
    }

    /// Adds the builder.
    pub fn build(&self, worker: Arc<Worker>) {
        // A second worker cannot come up; the first stays.
        let _ = self.parts.worker.set(worker);
    }

    /// Adds who asks the witnesses.
    pub fn cosign(&self, cosigner: &Arc<Cosigner>) {
        *self.parts.cosigner.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(cosigner));
    }

    /// The ledger, when this node may coordinate. It may be behind; see [`Desk::leading`].
    pub fn decisions(&self) -> Option<Decisions> {
        self.parts.decisions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger, while this node leads.
    pub fn leading(&self) -> Option<Decisions> {
        self.decisions().filter(|_| self.shared.leads().is_some())
    }

    /// What the publisher of this node does now.
    pub fn runs(&self) -> &Arc<Runs> {
        &self.parts.runs
    }

    /// The builder, when this node builds.
    pub fn worker(&self) -> Option<&Arc<Worker>> {
        self.parts.worker.get()
    }

    /// Asks a node, this one too.
    ///
    /// # Errors
    /// When the node cannot be reached or answers badly.
    pub async fn ask(&self, node: NodeId, request: Request) -> Result<Response, AskError> {
        if node == self.shared.id {
            return Ok(Box::pin(self.answer(node, request)).await);
        }
        self.shared.net.ask(node, request).await
    }

    /// Tells this node's builder of an announcement.
    pub fn heard(&self, announcement: &Announcement) {
        if let Some(worker) = self.worker() {
            worker.heard(announcement);
        }
    }

    /// Answers one question. A node that the policy does not name gets the policy and releases, and may hand in what
    /// somebody in the network signed; everything else costs more than a stranger is worth.
    pub async fn answer(&self, from: NodeId, request: Request) -> Response {
        if is_for_members(&request) && !self.is_member(from) {
            return refused(stranger(from));
        }
        if self.is_member(from) {
            return self.answer_now(from, request).await;
        }
        let again = match self.handed_in_again(&request) {
            Ok(answer) => return answer,
            Err(again) => again,
        };
        let answer = self.answer_now(from, request).await;
        self.handed_in(again, &answer);
        answer
    }

    /// Gives the answer to what a stranger handed in a moment ago.
    ///
    /// # Errors
    /// What [`Desk::handed_in`] is to be told of it, when there is no answer yet.
    pub fn handed_in_again(&self, request: &Request) -> Result<Response, Option<Again>> {
        let again = again::of(request);
        again.and_then(|again| self.parts.again.answer(&again, Instant::now())).ok_or(again)
    }

    /// Notes the answer to what a stranger handed in.
    pub fn handed_in(&self, again: Option<Again>, answer: &Response) {
        if let Some(again) = again {
            self.parts.again.note(again, answer, Instant::now());
        }
    }

    async fn answer_now(&self, from: NodeId, request: Request) -> Response {
        match request {
            Request::Policy => self.policy(),
            Request::AdoptPolicy(record) => self.adopt_policy(&record).await.unwrap_or_else(refused),
            Request::Submit(record) => self.submit(from, &record).await.unwrap_or_else(refused),
            Request::Order(record) => self.order(&record).await.unwrap_or_else(refused),
            Request::Recipe(record) => self.recipe(&record).await.unwrap_or_else(refused),
            Request::RecipeRun(record) => self.recipe_run(&record).await.unwrap_or_else(refused),
            Request::Open => self.open().await.unwrap_or_else(refused),
            Request::Job(job) => self.job(job).await.unwrap_or_else(refused),
            Request::Providers(job) => self.providers(job).await.unwrap_or_else(refused),
            Request::View(path) => self.view(&path).await.unwrap_or_else(refused),
            Request::Release(channel) => match self.shared.store.release(&channel) {
                Ok(Some(release)) => Response::Record(Octets(release.bytes)),
                Ok(None) => refused(Refusal::Unknown(format!("no release of channel {channel} here yet"))),
                Err(error) => {
                    debug!(%error, "release not read");
                    refused(Refusal::Busy("the database failed".into()))
                }
            },
            Request::Bid(bid) => self.of_member(Command::Bid { node: from, bid }, from).await,
            Request::Offer(offer) => self.offer(from, offer).await,
            Request::Started(lease) => self.of_member(Command::Started { node: from, lease }, from).await,
            Request::Renew(renewals) => self.renew(from, renewals).await,
            Request::Revealed(revealed) => self.revealed(from, revealed).await.unwrap_or_else(refused),
            Request::Commit(commitment) => self.commit(from, commitment).await,
            Request::Grounds(lease, size) => self.grounds(from, (lease, size)).await.unwrap_or_else(refused),
            Request::Failed(report) => self.failed(from, report).await.unwrap_or_else(refused),
            Request::Grant(term, lease) => match self.shared.check_alarm() {
                Ok(()) => self.ordered((from, term), |worker| worker.granted(lease)).await,
                Err(why) => refused(Refusal::NotAllowed(why)),
            },
            Request::Revoke(term, lease, reason) => {
                self.ordered((from, term), |worker| worker.revoked(lease, &reason)).await
            }
            Request::Reveal(term, lease) => self.ordered((from, term), |worker| worker.asked_to_reveal(lease)).await,
            Request::Disclose(term, job) => self.disclose((from, term), job).await,
            Request::Signer(certificate) => self.signer(from, certificate).await,
            Request::Leader => match self.shared.leadership() {
                Some(word) => Response::Record(Octets(word.to_bytes())),
                None => refused(self.not_coordinator()),
            },
            Request::AddCheckpoint(request) => match self.shared.add_checkpoint(&request.0).await {
                Ok(answer) => Response::Witness(answer.status, Octets(answer.body.into_bytes())),
                Err(error) => {
                    debug!(%error, "not cosigned");
                    refused(Refusal::Busy("the database failed".into()))
                }
            },
            Request::ReleaseProof(release) => self.release_proof(release).await,
            Request::Checkpoint(Octets(theirs)) => {
                self.shared.others.sight.hear(from, theirs);
                self.shared.others.sight.answer(&self.shared)
            }
            Request::Log(lease, at) => self.of_builder(|worker| worker.log(lease, at)),
        }
    }

    /// Has the builder do what only the leader of the newest term may order.
    async fn ordered(&self, (from, term): (NodeId, Term), order: impl FnOnce(&Arc<Worker>) -> Response) -> Response {
        match self.shared.check_order(from, term).await {
            Ok(()) => self.of_builder(order),
            Err(refusal) => {
                info!(%from, %term, %refusal, "an order was refused");
                refused(refusal)
            }
        }
    }

    fn of_builder(&self, question: impl FnOnce(&Arc<Worker>) -> Response) -> Response {
        self.worker().map_or_else(|| refused(Refusal::Invalid("this node does not build".into())), question)
    }

    fn is_member(&self, node: NodeId) -> bool {
        node == self.shared.id || self.shared.policies().current().is_member(&node)
    }

    async fn decide(&self, command: Command) -> Response {
        match self.decisions() {
            Some(decisions) => decisions.decide(command).await,
            None => refused(self.not_coordinator()),
        }
    }

    /// The ledger, while this node leads.
    fn leader(&self) -> Result<Decisions, Refusal> {
        self.leading().ok_or_else(|| self.not_coordinator())
    }

    /// Decides a builder's command. A stranger is refused before it costs an entry in the journal.
    async fn of_member(&self, command: Command, from: NodeId) -> Response {
        if self.leading().is_some() && !self.is_member(from) {
            return refused(stranger(from));
        }
        self.decide(command).await
    }

    /// Takes a builder's offer. What is known already costs no entry in the journal.
    async fn offer(&self, from: NodeId, offer: Offer) -> Response {
        let known = offer.clone();
        let stands = match self.leading() {
            Some(decisions) => decisions.view(move |ledger| ledger.offer_stands(from, &known)).await,
            None => None,
        };
        match stands {
            Some(true) => Response::Done,
            Some(false) | None => self.of_member(Command::Offer { node: from, offer }, from).await,
        }
    }

    /// Takes a builder's heartbeat, and of it only what is looked at.
    async fn renew(&self, from: NodeId, renewals: Vec<Renewal>) -> Response {
        let Some(decisions) = self.leading() else { return refused(self.not_coordinator()) };
        match decisions.view(move |ledger| ledger.trimmed(from, renewals)).await {
            Some(renewals) => self.of_member(Command::Renewed { node: from, renewals }, from).await,
            None => refused(Refusal::Busy("the ledger is not there".into())),
        }
    }

    /// Has the ledger know a node's card. What is known already costs no entry in the journal.
    pub async fn note_card(&self, node: NodeId, capacity: Option<Capacity>, draining: Option<String>) {
        let Some(decisions) = self.leading() else { return };
        let duty = draining.map_or(Duty::Ready, |reason| Duty::Draining { reason });
        let known = (capacity.clone(), duty.clone());
        let look = move |ledger: &Ledger| ledger.card_stands(node, known.0.as_ref(), &known.1);
        if decisions.view(look).await == Some(false) {
            decisions.tell(Command::Card { node, capacity, duty }).await;
        }
    }

    /// Records a coordinator's certificate, once it was read; it has two while it changes its key. Reading costs much, so that nobody
    /// else's is read.
    async fn signer(&self, from: NodeId, certificate: Octets) -> Response {
        if self.leading().is_none() {
            return refused(self.not_coordinator());
        }
        if !self.shared.may_lead(&from) {
            return refused(Refusal::NotAllowed("only a coordinator signs repositories".into()));
        }
        if certificate.0.len() > CERTIFICATE_MAX {
            return refused(Refusal::Invalid(format!("a certificate has 1 to {CERTIFICATE_MAX} bytes")));
        }
        match Keyring::read(&certificate.0) {
            Ok(keyring) if keyring.certificates().len() > KEYS_MAX => {
                refused(Refusal::Invalid(format!("a coordinator has at most {KEYS_MAX} repository keys")))
            }
            Ok(_) => self.of_member(Command::Signer { node: from, certificate }, from).await,
            Err(error) => refused(invalid(&error)),
        }
    }

    fn not_coordinator(&self) -> Refusal {
        match self.decisions() {
            Some(decisions) => refusal(&decisions.standing(), self.shared.id),
            None => Refusal::NotCoordinator(self.shared.leader().filter(|leader| *leader != self.shared.id)),
        }
    }

    fn policy(&self) -> Response {
        Response::Records(self.shared.policies().envelopes().into_iter().map(Octets).collect())
    }

    async fn adopt_policy(&self, record: &Octets) -> Result<Response, Refusal> {
        let decisions = self.leader()?;
        let policies = self.shared.policies().followed_by(&record.0).map_err(|e| invalid(&e))?;
        // A chain that cannot be checked already is not made worse by a revocation.
        if self.shared.policies().can_be_verified().is_ok() {
            policies.can_be_verified().map_err(Refusal::Invalid)?;
        }
        let last = policies.chain().last().expect("a chain is never empty").as_ref().clone();
        if last.get().expires <= clock::now() {
            return Err(Refusal::Invalid("the policy has expired".into()));
        }
        let answer = decisions.decide(Command::AdoptPolicy(last)).await;
        if !matches!(answer, Response::Refused(_)) {
            self.adopt(policies).await?;
        }
        Ok(answer)
    }

    async fn adopt(&self, policies: Policies) -> Result<(), Refusal> {
        self.shared.adopt(policies).await.map(drop).map_err(|error| {
            debug!(%error, "policy not stored");
            Refusal::Busy("the database failed".into())
        })
    }

    async fn submit(&self, from: NodeId, record: &Octets) -> Result<Response, Refusal> {
        let request: Verified<JobRequest> = Signed::read(&record.0)
            .and_then(|s| s.verify(Some(&self.shared.network)))
            .map_err(|e| Refusal::Invalid(e.to_string()))?;
        signed_by_maintainer(&request, self.shared.policies().current())?;
        let leader = self.leader()?;
        if !self.is_member(from) {
            // What would change nothing costs no entry in the journal: requests are public.
            let (known, now) = (request.clone(), clock::now());
            let look = move |ledger: &Ledger| ledger.submitted_before(&known, now);
            if let Some(answer) = leader.view(look).await.flatten() {
                return Ok(answer);
            }
        }
        // Who hands a job in has its inputs.
        Ok(leader.decide_for(from, Command::Submit(request)).await)
    }

    async fn order(&self, record: &Octets) -> Result<Response, Refusal> {
        let order: Verified<Order> = Signed::read(&record.0)
            .and_then(|s| s.verify(Some(&self.shared.network)))
            .map_err(|e| Refusal::Invalid(e.to_string()))?;
        let policies = self.shared.policies();
        let policy = policies.current();
        let may = |key: &PublicKey| policy.maintainer(key).is_some() || policy.roots.keys.contains(key);
        if !order.signers().iter().any(may) {
            return Err(Refusal::NotAllowed("the order is signed by no maintainer and no root".into()));
        }
        Ok(self.decide(Command::Order(order)).await)
    }

    async fn revealed(&self, from: NodeId, revealed: Revealed) -> Result<Response, Refusal> {
        let Revealed { log, salt, lease, attestation } = revealed;
        let salt = salt.ok_or_else(|| {
            let why = "a result counts only after a commitment to it, which this builder did not make: upgrade it";
            Refusal::Invalid(why.into())
        })?;
        if attestation.0.len() > limits::ATTESTATION_MAX {
            return Err(Refusal::Invalid("the attestation is too large".into()));
        }
        let attestation = statement::read(&attestation.0, &self.shared.network).map_err(|e| invalid(&e))?;
        self.job_of(from, lease).await?;
        self.parts.shown.check(lease)?;
        let opening = Opening::Salt(salt);
        let answer = self.of_member(Command::Revealed { node: from, lease, log, opening, attestation }, from).await;
        self.parts.shown.note(lease, &answer);
        Ok(answer)
    }

    /// Gives the job of a lease that a node has or had. What is said of others costs no entry in the journal.
    async fn job_of(&self, node: NodeId, lease: LeaseNumber) -> Result<JobId, Refusal> {
        let look = move |ledger: &ledger::Ledger| ledger.grounds(node, lease).map(|grounds| grounds.job);
        let known = self.leader()?.view(look).await.ok_or_else(|| Refusal::Busy("the ledger is not there".into()))?;
        known.ok_or_else(|| ledger::unknown_lease(lease))
    }

    /// Takes a builder's report of a failure: what it signed must be what it says.
    async fn failed(&self, from: NodeId, report: Failed) -> Result<Response, Refusal> {
        let Some(statement) = &report.statement else {
            return Err(Refusal::Invalid("the builder did not sign why its attempt failed: upgrade it".into()));
        };
        let said = Negative::read(&statement.0, &self.shared.network).map_err(|e| invalid(&e))?;
        let job = self.job_of(from, said.lease).await?;
        let is_said = (said.node, said.lease, &said.failure, said.log);
        if is_said != (from, report.lease, &report.failure, report.log) || job != said.job {
            return Err(Refusal::Invalid("the builder signed something else than it reports".into()));
        }
        Ok(self.of_member(Command::Failed { node: from, report }, from).await)
    }

    /// Opens what this node made of a job to every member.
    async fn disclose(&self, (from, term): (NodeId, Term), job: JobId) -> Response {
        match self.shared.check_order(from, term).await {
            Ok(()) => match self.shared.disclose(&job).await {
                Ok(()) => Response::Done,
                Err(error) => {
                    debug!(%job, %error, "outputs not opened");
                    refused(Refusal::Busy("the blob store failed".into()))
                }
            },
            Err(refusal) => refused(refusal),
        }
    }

    async fn open(&self) -> Result<Response, Refusal> {
        let decisions = self.leader()?;
        let now = clock::now();
        let open = decisions.view(move |ledger| ledger.open_jobs(now)).await.unwrap_or_default();
        // A builder takes one at a time and asks again; sixty-four small envelopes fit into one answer.
        let signed = open.iter().take(64).map(|a| Octets(self.shared.sign(a).to_bytes())).collect();
        Ok(Response::Records(signed))
    }

    async fn job(&self, job: JobId) -> Result<Response, Refusal> {
        let decisions = self.leader()?;
        let request = decisions.view(move |ledger| ledger.request(job).map(Verified::to_bytes)).await.flatten();
        request.map(|bytes| Response::Record(Octets(bytes))).ok_or_else(|| Refusal::Unknown(format!("job {job}")))
    }

    async fn providers(&self, job: JobId) -> Result<Response, Refusal> {
        let decisions = self.leader()?;
        let builders = decisions.view(move |ledger| views::builders_with_inputs(ledger, &job)).await;
        let mut nodes = decisions.providers(&job);
        nodes.extend(builders.unwrap_or_default());
        nodes.sort();
        nodes.dedup();
        Ok(Response::Providers(nodes))
    }

    async fn view(&self, path: &str) -> Result<Response, Refusal> {
        if let Some(path) = path.strip_prefix(tlog::VIEW) {
            return self.transparency(path).await;
        }
        let decisions = self.leader()?;
        if let Some(job) = path.strip_prefix("bundle/").and_then(|job| job.parse::<JobId>().ok()) {
            let bytes = bundle(&self.shared, &decisions, job).await.map_err(Refusal::Unknown)?;
            if bytes.len() > limits::RESPONSE_MAX - 64 {
                return Err(Refusal::Invalid("the bundle is too large; ask at a coordinator".into()));
            }
            return Ok(Response::View(Octets(bytes)));
        }
        let json = match (path.strip_prefix("log/"), self.found(path).await?) {
            (Some(rest), _) => self.live_log(rest)?,
            (None, Some(json)) => json,
            (None, None) => {
                let runs = Arc::clone(&self.parts.runs);
                views::answer(&decisions, path, move |detail| runs.show(detail)).await?
            }
        };
        if json.len() > limits::RESPONSE_MAX - 64 {
            return Err(Refusal::Invalid("the view is too large; ask for fewer jobs".into()));
        }
        Ok(Response::View(Octets(json)))
    }
}

impl Desk {
    /// The newest checkpoint that as many operators have seen as any channel asks for; none while no channel asks for any.
    pub(crate) fn seen_checkpoint(&self) -> Option<SignedCheckpoint> {
        let policies = self.shared.policies();
        let quorum = policies.current().channels.iter().map(|channel| channel.witnesses).max()?;
        let cosigner = self.parts.cosigner.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        (quorum > 0 && self.shared.leads().is_some()).then(|| cosigner.seen(quorum)).flatten()
    }

    /// Answers with a part of the transparency log, as far as this node keeps it: any coordinator does, whoever leads, and who was one
    /// gives what it has to those who come after it.
    async fn transparency(&self, path: &str) -> Result<Response, Refusal> {
        let resource: Resource = path.parse().map_err(|e| invalid(&e))?;
        let decisions = self.decisions();
        if resource == Resource::Checkpoint
            && let Some(seen) = decisions.as_ref().and_then(|_| self.seen_checkpoint())
        {
            return Ok(Response::View(Octets(seen.to_string().into_bytes())));
        }
        let bytes = match &decisions {
            Some(decisions) => decisions.book().serve(resource).await,
            None => tlog::serve_kept(self.shared.store.clone(), resource).await,
        };
        let bytes = bytes.map_err(|error| {
            debug!(error = %chain(&error), "a part of the transparency log is not read");
            Refusal::Busy("the database failed".into())
        })?;
        let unknown =
            || decisions.map_or_else(|| self.not_coordinator(), |_| Refusal::Unknown(format!("{resource} of the log")));
        let bytes = bytes.ok_or_else(unknown)?;
        if bytes.len() > limits::RESPONSE_MAX - 64 {
            return Err(Refusal::Invalid(
                "this part of the log is too large; fetch it from a coordinator by HTTP".into(),
            ));
        }
        Ok(Response::View(Octets(bytes)))
    }

    /// Answers a piece of the log of what the publisher does: `<job>/<byte>`.
    fn live_log(&self, rest: &str) -> Result<Vec<u8>, Refusal> {
        let parsed = rest.split_once('/').and_then(|(job, at)| Some((job.parse::<JobId>().ok()?, at.parse().ok()?)));
        let (job, at) = parsed.ok_or_else(|| Refusal::Invalid("a log is asked for as log/<job>/<byte>".into()))?;
        let piece = self.parts.runs.piece(&job, at);
        let piece = piece.ok_or_else(|| Refusal::Unknown(format!("a live log of job {job}")))?;
        Ok(serde_json::to_vec(&piece).expect("a piece is plain data"))
    }
}

/// Lets only requests pass that some maintainer signed; whether for that channel, the ledger says. What a stranger signed
/// must not cost an entry in the journal, nor have this node offer content.
///
/// # Errors
/// When nobody who signed it is a maintainer.
pub fn signed_by_maintainer(request: &Verified<JobRequest>, policy: &Policy) -> Result<(), Refusal> {
    let signers = request.signers();
    let root = |key: &PublicKey| request.get().server().is_some() && policy.roots.keys.contains(key);
    if signers.iter().any(|key| policy.maintainer(key).is_some() || root(key)) {
        return Ok(());
    }
    if let Some(revoked) = signers.iter().find_map(|key| policy.revocation(key)) {
        return Err(Refusal::NotAllowed(revoked.to_string()));
    }
    let keys: Vec<String> = signers.iter().map(ToString::to_string).collect();
    Err(Refusal::NotAllowed(format!(
        "key {} signed this request and is no maintainer of this network: its roots must add it to the policy",
        keys.join(", ")
    )))
}

/// Says whether a question costs more than a stranger is worth.
fn is_for_members(request: &Request) -> bool {
    matches!(
        request,
        Request::View(_)
            | Request::Open
            | Request::Providers(_)
            | Request::Job(_)
            | Request::Log(..)
            | Request::AddCheckpoint(_)
            | Request::Checkpoint(_)
            | Request::Grounds(..)
    )
}

fn refused(refusal: Refusal) -> Response {
    Response::Refused(refusal)
}

/// Writes an error with all its causes: the sender needs the innermost one most.
fn invalid(error: &dyn std::error::Error) -> Refusal {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Refusal::Invalid(text)
}

fn stranger(node: NodeId) -> Refusal {
    Refusal::NotAllowed(format!("node {node} is not in the network's policy: a root must admit it"))
}
