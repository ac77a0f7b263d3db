//! Who may ask for what: job requests, cancels and new policies against the policy in force.

use std::collections::BTreeSet;

use attest::log::entry::{Accepted, Event};
use protocol::{
    ChannelName, Hash, JobId, MaintainerName, PublicKey, Timestamp, Verified,
    job::{JobRequest, job_id},
    limits,
    message::{Refusal, Response},
    policy::{self, Channel, Maintainer, Policy},
};

use crate::{
    Ledger, News, Turn,
    deadlines::Due,
    evidence::Dossier,
    job::{Facts, Job, JobState, Outcome},
    log,
    planted::{self, Fault},
    service::check_channels,
};

impl Ledger {
    pub(crate) fn submit(&mut self, request: Verified<JobRequest>, turn: &mut Turn) {
        let id = job_id(&request);
        let replay = |job: &Job| planted::is(Fault::AcceptsReplay) && job.state.is_ended();
        if let Some(job) = self.jobs.get(&id).filter(|job| !replay(job)) {
            turn.answer(Response::Receipt(id, job.facts.accepted));
            return;
        }
        let facts = match self.admit(&request, turn.at) {
            Ok(facts) => facts,
            Err(refusal) => {
                turn.refuse(refusal);
                return;
            }
        };
        let (after, key) = (facts.schedule.after.clone(), facts.key);
        let place = match self.place_behind(&after) {
            Ok(place) => place,
            Err(refusal) => {
                turn.refuse(refusal);
                return;
            }
        };
        turn.answer(Response::Receipt(id, turn.at));
        turn.tell(News::Accepted { job: id, title: facts.title.clone() });
        turn.log(Event::Accepted(Accepted { job: id, envelope: Hash::of(&request.to_bytes()) }));
        self.deadlines.set(Due::Expiry(id), facts.expires);
        self.jobs.insert(id, Job::new(facts, place));
        self.join_graph(id, &after);
        self.open.insert(id, key);
        self.dossiers.insert(id, Dossier::new(request));
        self.settle(id, turn);
    }

    /// Gives the answer to a request that would change nothing: the receipt of a job that is known, or why it is not accepted.
    pub fn submitted_before(&self, request: &Verified<JobRequest>, at: Timestamp) -> Option<Response> {
        let id = job_id(request);
        match self.jobs.get(&id) {
            Some(job) => Some(Response::Receipt(id, job.facts.accepted)),
            None => self.admit(request, at).err().map(Response::Refused),
        }
    }

    fn admit(&self, request: &Verified<JobRequest>, at: Timestamp) -> Result<Facts, Refusal> {
        let (wish, policy) = (request.get(), self.policy_in_force());
        if wish.network != self.network {
            return Err(Refusal::Invalid(format!(
                "the request is for network {}, this is {}",
                wish.network, self.network
            )));
        }
        if policy.expires <= at {
            return Err(Refusal::NotAllowed("the network's policy has expired: its roots must sign a new one".into()));
        }
        let (key, maintainer) = match wish.server() {
            Some(work) => {
                check_channels(work, &wish.channel, policy)?;
                server_owner(request, policy)?
            }
            None => {
                let of_keys = if planted::is(Fault::RevokedKeySubmits) { self.policies[0].get() } else { policy };
                let maintainer = maintainer(&request.signers(), &wish.channel, of_keys)?;
                self.check_environment(wish, check_channel(wish, policy)?)?;
                (maintainer.key, maintainer.name.clone())
            }
        };
        check_times(wish, at)?;
        if wish.limits.wall_secs > policy.limits.build_secs {
            return Err(Refusal::Invalid(format!(
                "a build may take {} s here, the request asks for {} s",
                policy.limits.build_secs, wish.limits.wall_secs
            )));
        }
        self.may_open_one_more(key, &maintainer)?;
        self.may_join_group(key, wish)?;
        Ok(Facts {
            key,
            arch: wish.arch,
            kind: wish.kind.word().to_owned(),
            title: wish.title(),
            endpoints: wish.endpoints(),
            isolation: wish.isolation(),
            channel: wish.channel.clone(),
            created: wish.created,
            expires: wish.expires,
            accepted: at,
            schedule: wish.schedule.clone(),
            disk_mib: if wish.server().is_some() { 0 } else { wish.limits.disk_mib },
            memory_mib: wish.limits.memory_mib,
            maintainer,
        })
    }

    /// A group is whose first job it was: another's job in it would come among the files of all.
    fn may_join_group(&self, key: PublicKey, wish: &JobRequest) -> Result<(), Refusal> {
        let Some(group) = &wish.schedule.group else { return Ok(()) };
        let foreign = |job: &&Job| {
            job.facts.key != key && job.facts.schedule.group.as_ref().is_some_and(|other| other.id == group.id)
        };
        match self.jobs.iter().map(|(_, job)| job).find(foreign) {
            Some(job) => {
                Err(Refusal::NotAllowed(format!("group {} is maintainer {}'s", group.id, job.facts.maintainer)))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn adopt_policy(&mut self, next: Verified<Policy>, turn: &mut Turn) {
        if self.policies.iter().any(|known| known.id() == next.id()) {
            turn.done();
            return;
        }
        if let Err(why) = policy::check_successor(self.policy_in_force(), &self.network, &next, turn.at) {
            turn.refuse(Refusal::NotAllowed(why.to_string()));
            return;
        }
        // Whoever reads the chain can tell that none was left out. Policies of a time before this rule stay readable.
        let (number, current) = (next.get().number, self.policy_in_force().number);
        if number != current + 1 {
            let words = format!("policy {number} does not follow policy {current}: number it {}", current + 1);
            return turn.refuse(Refusal::NotAllowed(words));
        }
        turn.done();
        turn.tell(News::PolicyAdopted { number: next.get().number });
        turn.log(log::policy(&next));
        log::revocations(&next, self.policy_in_force()).for_each(|event| turn.log(event));
        self.peers.adopt(next.get());
        self.policies.push(next);
        self.forget_signers();
        self.drop_jobs_of_revoked(turn);
        if !planted::is(Fault::StrangerKeepsLease) {
            self.revoke_strangers(turn);
        }
        self.forget_strange_records(turn);
        for id in self.open.ids().clone() {
            self.settle(id, turn);
        }
        for channel in self.lines.keys().cloned().collect::<Vec<_>>() {
            self.publish_next(&channel, turn);
        }
    }

    pub(crate) fn job_expired(&mut self, id: JobId, turn: &mut Turn) {
        if self.jobs.get(&id).is_some_and(|job| matches!(job.state, JobState::Publishing(_) | JobState::Serving(_))) {
            self.publication_expired(id, turn);
            return;
        }
        if self.end(id, Outcome::Expired, turn).is_ok() {
            turn.tell(News::JobExpired { job: id });
        }
    }
}

/// Finds who may ask for a server job: a maintainer of its channel, or a root.
fn server_owner(request: &Verified<JobRequest>, policy: &Policy) -> Result<(PublicKey, MaintainerName), Refusal> {
    let root = request.signers().into_iter().find(|key| policy.roots.keys.contains(key));
    match (maintainer(&request.signers(), &request.get().channel, policy), root) {
        (Ok(maintainer), _) => Ok((maintainer.key, maintainer.name.clone())),
        (Err(_), Some(root)) => Ok((root, MaintainerName::new("root").expect("a valid word"))),
        (Err(refusal), None) => Err(refusal),
    }
}

/// Finds the maintainer among the signers who may submit to a channel.
pub(crate) fn maintainer<'a>(
    signers: &BTreeSet<PublicKey>,
    channel: &ChannelName,
    policy: &'a Policy,
) -> Result<&'a Maintainer, Refusal> {
    let known: Vec<&Maintainer> = signers.iter().filter_map(|key| policy.maintainer(key)).collect();
    if let Some(maintainer) = known.iter().find(|m| m.channels.binary_search(channel).is_ok()) {
        return Ok(maintainer);
    }
    if let Some(revoked) = signers.iter().find_map(|key| policy.revocation(key)) {
        return Err(Refusal::NotAllowed(revoked.to_string()));
    }
    Err(Refusal::NotAllowed(match (known.first(), signers.first()) {
        (Some(maintainer), _) => format!(
            "maintainer {} may not submit to channel {channel}: the policy must list it among the maintainer's channels",
            maintainer.name
        ),
        (None, Some(key)) => {
            format!(
                "key {key} signed this request and is no maintainer of this network: its roots must add it to the policy"
            )
        }
        (None, None) => "nobody signed this request".to_owned(),
    }))
}

fn check_channel<'a>(wish: &JobRequest, policy: &'a Policy) -> Result<&'a Channel, Refusal> {
    let Some(channel) = policy.channel(&wish.channel) else {
        return Err(Refusal::Invalid(format!("there is no channel {} in the policy", wish.channel)));
    };
    if channel.arches.binary_search(&wish.arch).is_err() {
        let arches: Vec<_> = channel.arches.iter().map(|a| a.name()).collect();
        let arches = arches.join(", ");
        return Err(Refusal::Invalid(format!("channel {} builds {arches}, not {}", channel.name, wish.arch)));
    }
    Ok(channel)
}

fn check_times(wish: &JobRequest, at: Timestamp) -> Result<(), Refusal> {
    if wish.expires <= at {
        return Err(Refusal::Invalid("the request has expired: sign a new one".into()));
    }
    if wish.schedule.not_before.is_some_and(|begin| begin >= wish.expires) {
        return Err(Refusal::Invalid("the job may begin only when its time is over: give it more time".into()));
    }
    if wish.created > at.after(limits::CLOCK_SKEW_MAX) {
        let ahead = wish.created.since(at).as_secs();
        return Err(Refusal::Invalid(format!(
            "the request was signed {ahead} s in the future: check the signer's clock"
        )));
    }
    Ok(())
}
