//! Why a job does not move, in one sentence for people, and when it will. It reads the ledger and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{JobId, OperatorName, Timestamp, policy::Channel};

use super::{Expected, crowd::Crowd, phrase};
use crate::{
    Ledger,
    graph::Ahead,
    job::{Attempt, AttemptState, Job, JobState, PublishStep},
    orders::Hold,
    reputation::Hindrance,
    schedule,
    withdrawal::Aim,
};

/// Jobs before a waiting one that are counted.
const BEFORE_MAX: usize = 1000;
/// What is assumed to be left of an attempt that takes longer than expected.
const OVERDUE: Duration = Duration::from_secs(120);

impl Ledger {
    /// Says why an open job waits; nothing when builders work on all that is wanted, or the job is over.
    pub(crate) fn why_waiting(&self, id: JobId, job: &Job) -> Option<String> {
        match &job.state {
            JobState::Ended(_) => None,
            JobState::Publishing(publishing) => match publishing.step {
                PublishStep::Running { .. } => None,
                PublishStep::Resting { tries, again, .. } => Some(rests("publishing", job, tries, again)),
                PublishStep::Waiting => Some(self.in_line(job)),
            },
            JobState::Serving(PublishStep::Resting { tries, again, .. }) => Some(rests("it", job, *tries, *again)),
            JobState::Serving(_) => None,
            JobState::Queued | JobState::Building => match self.policy_in_force().channel(&job.facts.channel) {
                None => Some(format!("channel {} is no longer in the policy", job.facts.channel)),
                Some(_) if self.holds(job).is_some() => self.holds(job),
                Some(_) if job.facts.is_server() => Some(self.in_line(job)),
                Some(channel) if job.wanted == 0 => self.nobody_to_ask(job, channel),
                Some(_) => Some(self.wants_builders(id, job)),
            },
        }
    }

    /// Says that the repository of a channel is changed by one job at a time.
    fn in_line(&self, job: &Job) -> String {
        let (line, channel) = (self.lines.get(&job.facts.channel), &job.facts.channel);
        let queue = line.map_or(0, |line| line.queue.len());
        let held = line.and_then(|line| self.held_up_by(line)).map(|id| {
            let short = id.short();
            format!("; job {short} is first: it may be out already, and is tried again until that is known")
        });
        format!("{queue} publications of channel {channel} come one after another{}", held.unwrap_or_default())
    }

    /// Says what keeps a job from beginning, apart from builders.
    fn holds(&self, job: &Job) -> Option<String> {
        if let Hold::Suspended { by, reason } = &job.orders.hold {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            return Some(format!("suspended by {by}{why}"));
        }
        if let Ahead::Waits(of) | Ahead::Failed(of) = self.ahead(job) {
            let title = self.jobs.get(&of).map_or("", |before| before.facts.title.as_str());
            return Some(format!("it waits for job {} ({title})", of.short()));
        }
        let begin = schedule::begins_later(job, self.last_command())?;
        Some(format!("it does not begin before {}", phrase::time(begin)))
    }

    /// The policy itself lacks somebody.
    fn nobody_to_ask(&self, job: &Job, channel: &Channel) -> Option<String> {
        let mut live = job.attempts.iter().filter(|attempt| attempt.state.is_live());
        if live.any(|attempt| attempt.state.committed().is_none()) {
            return None;
        }
        if let Some(owes) = owes_a_result(job) {
            return Some(owes);
        }
        let policy = self.policy_in_force();
        let only = &job.facts.schedule.only;
        if !only.is_empty() && !only.iter().any(|node| self.peers.operator(node).is_some()) {
            return Some("it waits for the nodes that it asks for: the policy names none of them".to_owned());
        }
        let has_built = |attempt: &&Attempt| attempt.vote().is_some() || attempt.state.committed().is_some();
        let built = job.attempts.iter().filter(has_built).count();
        Some(format!(
            "{} built it, channel {} wants {} that agree, and the policy names {}{}: it waits for another operator to be \
             added, or for a lower agree",
            phrase::count(built, "operator"),
            channel.name,
            channel.agree,
            phrase::count(policy.operators.len(), "operator"),
            if only.is_empty() { "" } else { ", of whom the job asks for some only" },
        ))
    }

    fn wants_builders(&self, id: JobId, job: &Job) -> String {
        let built = job.attempts.iter().filter_map(Attempt::vote).count();
        let so_far = if built == 0 { String::new() } else { format!("{built} built it; ") };
        let crowd = self.crowd(job);
        let kept = hindered(&crowd.hindered, self.last_command());
        let why = match (self.lacks_peers(job, &crowd), kept) {
            // Those who are kept from it can do it; nobody else needs to come.
            (Some(_), Some(kept)) => kept,
            (Some(lacks), None) => lacks,
            (None, Some(kept)) => format!("{}; {kept}", self.lacks_room(id, job, &crowd)),
            (None, None) => self.lacks_room(id, job, &crowd),
        };
        so_far + &why
    }

    /// Nobody who is there could build it, busy or not.
    fn lacks_peers(&self, job: &Job, crowd: &Crowd<'_>) -> Option<String> {
        let arch = job.facts.arch;
        if !crowd.fitting.is_empty() {
            return None;
        }
        if crowd.draining > 0 {
            let peers = phrase::count(crowd.draining, "peer");
            return Some(format!("{peers} that could build it will take nothing new until the drain is over"));
        }
        if let Some(withheld) = &crowd.withheld {
            let (line, part) = (withheld.setting(), "the [builder] part of its artel.toml");
            return Some(format!("no other peer's owner lets it {withheld}: `{line}` in {part}"));
        }
        if let Some(largest) = crowd.largest_mib {
            let (needs, largest) = (phrase::memory(job.facts.memory_mib), phrase::memory(largest));
            return Some(format!("it needs {needs}, the largest peer has {largest}: it waits for a peer to join"));
        }
        if let Some(seen) = crowd.last_seen {
            let ago = phrase::span(self.last_command().since(seen));
            let known = phrase::count(crowd.away, "known peer");
            return Some(format!("no online peer offers {arch}: {known} away, last seen {ago} ago"));
        }
        let asks = if job.facts.schedule.only.is_empty() { "" } else { " among those that the job asks for" };
        Some(if crowd.had_turn > 0 {
            format!("it waits for another operator with {arch}{asks}: those that are online had their turn")
        } else {
            format!("no online peer offers {arch}{asks}")
        })
    }

    /// There are peers, and they are busy or stand back.
    fn lacks_room(&self, id: JobId, job: &Job, crowd: &Crowd<'_>) -> String {
        let now = self.last_command();
        let paused = crowd.fitting.iter().filter_map(|peer| job.pauses.get(&peer.node)).map(|pause| pause.until);
        let paused: Vec<Timestamp> = paused.filter(|until| *until > now).collect();
        let all_stand_back = paused.len() == crowd.fitting.len();
        if let (Some(failure), Some(until), true) = (could_not_try(job), paused.iter().min(), all_stand_back) {
            return format!("nobody could try it ({failure}); it is tried again in {}", phrase::span(until.since(now)));
        }
        let next = self.next_slot(crowd).map(|span| format!(", next slot in about {}", phrase::span(span)));
        let next = next.unwrap_or_default();
        let operators: BTreeSet<&OperatorName> = crowd.fitting.iter().map(|peer| peer.operator).collect();
        let free: BTreeSet<&OperatorName> =
            crowd.fitting.iter().filter(|peer| peer.has_room).map(|peer| peer.operator).collect();
        let busy = operators.len() - free.len();
        if busy < operators.len() {
            return match paused.iter().min() {
                Some(until) => format!(
                    "{} back after an interruption so that others may have it, for {} more",
                    if paused.len() == 1 {
                        "1 builder stands".into()
                    } else {
                        format!("{} builders stand", paused.len())
                    },
                    phrase::span(until.since(now))
                ),
                None => "the builders that have room are about to be asked".to_owned(),
            };
        }
        let before = self.queue.before(&id, BEFORE_MAX);
        if before > 0 {
            let more = if before == BEFORE_MAX { "more than " } else { "" };
            let jobs = phrase::count(before, "job");
            return format!("behind {more}{jobs} of {}{next}", job.facts.maintainer);
        }
        let others = self.queue.maintainers_of(job.facts.arch).saturating_sub(1);
        let shared = match others {
            0 => String::new(),
            others => format!(", shared with {}", phrase::count(others, "other maintainer")),
        };
        format!("{busy} of {} busy{shared}{next}", phrase::count(operators.len(), "operator"))
    }

    /// Gives how long it takes until somebody who could build it has room; none when nothing is known of what runs.
    fn next_slot(&self, crowd: &Crowd<'_>) -> Option<Duration> {
        let leases = crowd.fitting.iter().flat_map(|peer| self.held_by.get(&peer.node).into_iter().flatten());
        leases
            .filter_map(|lease| self.leases.get(lease))
            .filter_map(|lease| {
                let job = &self.jobs[&lease.job];
                let attempt = job.attempt(lease.number)?;
                self.left(job, attempt)
            })
            .min()
    }

    /// Gives how long a live attempt still takes, as far as is known.
    fn left(&self, job: &Job, attempt: &Attempt) -> Option<Duration> {
        let end = attempt.granted.after(self.pace.expect(&job.facts.title)?);
        let left = end.since(self.last_command());
        Some(if left.is_zero() { OVERDUE } else { left })
    }

    /// Says when an open job begins and ends, as far as is known.
    pub(super) fn expected(&self, id: JobId, job: &Job) -> Expected {
        let now = self.last_command();
        let nothing = Expected { start: None, end: None };
        let Some(takes) = self.pace.expect(&job.facts.title).filter(|_| job.state.wants_builders()) else {
            return nothing;
        };
        let live = job.attempts.iter().filter(|a| a.state.is_live()).filter_map(|a| self.left(job, a)).max();
        if job.wanted == 0 {
            return Expected { start: None, end: live.map(|left| now.after(left)) };
        }
        if self.holds(job).is_some() {
            let start = job.facts.schedule.not_before;
            return Expected { start, end: start.map(|start| start.after(takes)) };
        }
        let crowd = self.crowd(job);
        if crowd.fitting.is_empty() {
            return nothing;
        }
        let room = crowd.fitting.iter().any(|peer| peer.has_room);
        let Some(first) = (if room { Some(Duration::ZERO) } else { self.next_slot(&crowd) }) else { return nothing };
        // Each of the others that share gets a lease for each of ours.
        let turns = self.queue.before(&id, BEFORE_MAX) * self.queue.maintainers_of(job.facts.arch).max(1);
        let slots: usize = crowd.fitting.iter().map(|peer| usize::from(peer.slots)).sum();
        let rounds = u32::try_from(turns / slots.max(1)).unwrap_or(u32::MAX);
        let start = now.after(first.saturating_add(takes.saturating_mul(rounds)));
        let begun = job.attempts.iter().any(|a| matches!(a.state, AttemptState::Running { .. }));
        Expected { start: (!begun).then_some(start), end: Some(start.after(takes)) }
    }
}

/// Every builder that is at it is bound to a result and was asked for it: one that is away may be waited for, see
/// [`crate::commitments`].
fn owes_a_result(job: &Job) -> Option<String> {
    let mut live = job.attempts.iter().filter(|attempt| attempt.state.is_live()).peekable();
    let operators: BTreeSet<_> = live.clone().map(|attempt| attempt.operator.as_str()).collect();
    live.peek()?;
    let operators = operators.into_iter().collect::<Vec<_>>().join(", ");
    live.all(|attempt| attempt.state.is_asked())
        .then(|| format!("{operators} was asked for the result that it is bound to, and has not shown it yet"))
}

/// Gives the last reason of a builder that could not try and has another turn.
fn could_not_try(job: &Job) -> Option<String> {
    let excused = |a: &&Attempt| matches!(a.state, AttemptState::Failed { excused: true, .. });
    job.attempts.iter().rfind(excused).and_then(Attempt::failure).map(ToString::to_string)
}

/// Says what keeps builders from a job, and for how long: `2 builders are in quarantine, the next for 40 s more`.
fn hindered(found: &[Hindrance], now: Timestamp) -> Option<String> {
    let mut kinds: BTreeMap<&str, (usize, Option<Timestamp>)> = BTreeMap::new();
    for hindrance in found {
        let (words, until) = match *hindrance {
            Hindrance::Resting { until } => ("at rest after failures that nobody has confirmed", Some(until)),
            Hindrance::Quarantined { until } => ("in quarantine", Some(until)),
            Hindrance::Disabled { canary } => ("disabled until a job with a known answer succeeds there", Some(canary)),
            Hindrance::Breached => ("stopped for good, since a build broke out of the sandbox", None),
        };
        let (count, next) = kinds.entry(words).or_default();
        *count += 1;
        *next = next.iter().copied().chain(until).min();
    }
    let kind = |(words, (count, next)): (&str, (usize, Option<Timestamp>))| {
        let (are, the_next) = if count == 1 { ("is", "") } else { ("are", "the next ") };
        let more = next.map(|until| format!(", {the_next}for {} more", phrase::span(until.since(now))));
        format!("{} {are} {words}{}", phrase::count(count, "builder"), more.unwrap_or_default())
    };
    (!kinds.is_empty()).then(|| kinds.into_iter().map(kind).collect::<Vec<_>>().join("; "))
}

/// Says why the publisher's last try failed and when the next one is.
fn rests(what: &str, job: &Job, tries: u32, again: Timestamp) -> String {
    if let Aim::Without { wish, .. } = &job.run.aim {
        let (why, since) = (wish.words(), job.run.since);
        let next = phrase::time(again);
        return format!(
            "it is taken back ({why}), and may be out already, as generation {since} or later; whether it is, is looked for again \
             at {next}"
        );
    }
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    format!("{what} failed {times} ({}); it is tried again at {}", job.run.trouble, phrase::time(again))
}
