//! Why a job does not move, in one sentence for people. It reads the ledger and changes nothing.

use protocol::{
    Timestamp,
    policy::{Channel, Policy},
};

use super::phrase;
use crate::{
    Ledger,
    graph::Ahead,
    job::{Attempt, Job, JobState, PublishStep},
    schedule, tally,
};

impl Ledger {
    /// Says why an open job waits; nothing when builders work on all that is wanted, or the job is over.
    pub(super) fn why_waiting(&self, job: &Job) -> Option<String> {
        let policy = self.policy_in_force();
        match &job.state {
            JobState::Ended(_) => None,
            JobState::Publishing(publishing) => match publishing.step {
                PublishStep::Running { .. } => None,
                PublishStep::Resting { tries, again, .. } => Some(rests("publishing", job, tries, again)),
                PublishStep::Waiting => Some(self.in_line(job)),
            },
            JobState::Serving(PublishStep::Resting { tries, again, .. }) => Some(rests("it", job, *tries, *again)),
            JobState::Serving(_) => None,
            JobState::Queued | JobState::Building => Some(match policy.channel(&job.facts.channel) {
                None => format!("channel {} is no longer in the policy", job.facts.channel),
                Some(_) if self.holds(job).is_some() => return self.holds(job),
                Some(_) if job.facts.is_server() => self.in_line(job),
                Some(channel) => return open(job, channel, policy),
            }),
        }
    }
}

impl Ledger {
    /// Says that the repository of a channel is changed by one job at a time.
    fn in_line(&self, job: &Job) -> String {
        let queue = self.lines.get(&job.facts.channel).map_or(0, |line| line.queue.len());
        format!("{queue} publications of channel {} come one after another", job.facts.channel)
    }

    /// Says what keeps a job from beginning, apart from builders.
    fn holds(&self, job: &Job) -> Option<String> {
        if let Ahead::Waits(of) | Ahead::Failed(of) = self.ahead(job) {
            let title = self.jobs.get(&of).map_or("", |before| before.facts.title.as_str());
            return Some(format!("it waits for job {} ({title})", of.short()));
        }
        let begin = schedule::begins_later(job, self.last_command())?;
        Some(format!("it does not begin before {}", phrase::time(begin)))
    }
}

/// Says why the publisher's last try failed and when the next one is.
fn rests(what: &str, job: &Job, tries: u32, again: Timestamp) -> String {
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    format!("{what} failed {times} ({}); it is tried again at {}", job.run.trouble, phrase::time(again))
}

fn open(job: &Job, channel: &Channel, policy: &Policy) -> Option<String> {
    let (missing, possible) = (job.announced, tally::possible(job, policy));
    let built = job.attempts.iter().filter_map(Attempt::vote).count();
    if missing == 0 {
        let named = job.facts.schedule.only.iter().any(|node| policy.operator_of(node).is_some());
        if job.live() == 0 && !named && !job.facts.schedule.only.is_empty() {
            return Some("it waits for the nodes that it asks for: the policy names none of them".to_owned());
        }
        return (job.live() == 0).then(|| {
            format!(
                "{built} operators have built it, channel {} wants {} that agree, and the policy names no other: add an \
                 operator, or lower agree",
                channel.name, channel.agree
            )
        });
    }
    let so_far = if built == 0 { String::new() } else { format!("{built} built it; ") };
    let paused = job.bidders.len();
    Some(if paused > 0 {
        format!("{so_far}{paused} builders stand back for a moment after an interruption, so that others may have it")
    } else {
        format!(
            "{so_far}waiting for {missing} more builders of {possible} operators that may bid: {} with {} MiB",
            job.facts.arch, job.facts.memory_mib
        )
    })
}
