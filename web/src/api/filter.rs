//! Which jobs to list, and one page of the list.

use protocol::{Arch, ChannelName, Hash, JobId, job::ServerJob};
use serde::{Deserialize, Serialize};

use super::{ApiError, JobState, JobSummary};

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    /// Only jobs in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Only jobs of this kind: `deb`, `rpm`, `command`, `image`, `publish`, `promote`, `prune`, `derive`,
    /// `diff` or `explain`; `server` stands for all that no builder runs, `build` for all that builders do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only jobs of this architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Only jobs of this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// Only jobs of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Hash>,
    /// Only jobs whose id, or whose group's, begins with these digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
    /// At most so many; the server cuts it at [`JobFilter::LIMIT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// Only jobs that stand after this one in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JobId>,
}

impl JobFilter {
    /// Jobs in one page when nobody says otherwise.
    pub const LIMIT_DEFAULT: u16 = 100;
    /// Jobs in one page at most.
    pub const LIMIT_MAX: u16 = 1000;

    /// Gives the number of jobs wanted, within bounds.
    pub fn limit(&self) -> usize {
        usize::from(self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX))
    }

    /// Reads the words of a query; a word without a value (an empty field of a form) is no filter.
    ///
    /// # Errors
    /// [`ApiError::Refused`] for a word or value that is not known.
    pub fn from_words(words: &[(String, String)]) -> Result<Self, ApiError> {
        let mut filter = Self::default();
        for (name, value) in words.iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "state" => filter.state = Some(parse(value)?),
                "kind" => filter.kind = Some(value.chars().take(40).collect()),
                "arch" => filter.arch = Some(parse(value)?),
                "channel" => filter.channel = Some(parse(value)?),
                "group" => filter.group = Some(parse(value)?),
                "begins" => filter.begins = Some(value.chars().take(64).collect()),
                "limit" => filter.limit = Some(parse(value)?),
                "after" => filter.after = Some(parse(value)?),
                _ => {
                    let words = "state, kind, arch, channel, group, begins, limit and after";
                    let reason = format!("the words of this query are {words}");
                    return Err(ApiError::Refused { reason });
                }
            }
        }
        Ok(filter)
    }

    /// Gives the query that [`JobFilter::from_words`] reads, without a question mark; empty when all jobs are wanted.
    pub fn to_query(&self) -> String {
        let words = [
            ("state", self.state.map(|s| s.word().to_owned())),
            ("kind", self.kind.as_ref().map(|kind| percent_encode(kind))),
            ("arch", self.arch.map(|arch| arch.to_string())),
            ("channel", self.channel.as_ref().map(|c| percent_encode(c.as_str()))),
            ("group", self.group.map(|id| id.to_string())),
            ("begins", self.begins.as_ref().map(|digits| percent_encode(digits))),
            ("limit", self.limit.map(|n| n.to_string())),
            ("after", self.after.map(|id| id.to_string())),
        ];
        let set: Vec<_> = words.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
        set.join("&")
    }

    /// Says whether a job passes (`limit` and `after` aside).
    pub fn matches(&self, job: &JobSummary) -> bool {
        self.passes(job.state, &job.kind, &job.channel)
            && self.asks_for(job.arch, job.group.as_ref().map(|group| &group.id))
            && self.is_begun_by(&job.id, job.group.as_ref().map(|group| &group.id))
    }

    /// Says whether the id of a job, or of its group, begins as wanted.
    pub fn is_begun_by(&self, job: &JobId, group: Option<&Hash>) -> bool {
        let Some(digits) = &self.begins else { return true };
        job.to_string().starts_with(digits) || group.is_some_and(|group| group.to_string().starts_with(digits))
    }

    /// Says whether a job of an architecture and of a group, or of none, passes.
    pub fn asks_for(&self, arch: Arch, group: Option<&Hash>) -> bool {
        self.arch.is_none_or(|wanted| wanted == arch) && (self.group.is_none() || self.group.as_ref() == group)
    }

    /// Says whether a job of which only this is known passes (`limit` and `after` aside).
    pub fn passes(&self, state: JobState, kind: &str, channel: &ChannelName) -> bool {
        self.state.is_none_or(|wanted| wanted == state)
            && self.kind.as_ref().is_none_or(|wanted| is_of_kind(wanted, kind))
            && self.channel.as_ref().is_none_or(|wanted| wanted == channel)
    }
}

fn is_of_kind(wanted: &str, kind: &str) -> bool {
    match wanted {
        "server" => ServerJob::WORDS.contains(&kind),
        "build" => !ServerJob::WORDS.contains(&kind),
        word => word == kind,
    }
}

/// One page of the list of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPage {
    /// Jobs, newest first.
    pub jobs: Vec<JobSummary>,
    /// The value of `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::Refused { reason: error.to_string() })
}

/// Writes a value so that it may stand in a query.
pub(crate) fn percent_encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_bad_words_refused() {
        let words = |list: &[(&str, &str)]| -> Vec<_> {
            list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let filter = JobFilter::from_words(&words(&[("state", "published"), ("channel", ""), ("limit", "5")])).unwrap();
        assert_eq!((filter.state, filter.channel.clone(), filter.limit()), (Some(JobState::Published), None, 5));
        assert_eq!(filter.to_query(), "state=published&limit=5");
        for (name, value) in [("state", "finished"), ("limit", "-1"), ("after", "xyz"), ("colour", "red")] {
            assert!(JobFilter::from_words(&words(&[(name, value)])).is_err(), "{name}={value}");
        }
    }
}
