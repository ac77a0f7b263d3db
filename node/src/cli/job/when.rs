//! When and where a job may run, as people write it on the command line.

use std::{str::FromStr, time::Duration};

use anyhow::Context as _;
use protocol::{
    NodeId, OperatorName, Timestamp,
    job::{Priority, Schedule},
    policy::Policy,
};

use crate::cli::exit;

/// How long a job may be asked to live: a year of hours.
const HOURS_MAX: i64 = 366 * 24;
/// Digits of a node's id that name it well enough.
const DIGITS_MIN: usize = 4;

/// When and where the job may run
#[derive(Debug, clap::Args)]
pub(super) struct When {
    /// Only these may build it: operators by name, or nodes by id or its first digits
    #[arg(long, value_delimiter = ',', value_name = "OPERATOR|NODE")]
    only: Vec<String>,
    /// These may not build it: operators by name, or nodes by id or its first digits
    #[arg(long, value_delimiter = ',', value_name = "OPERATOR|NODE")]
    without: Vec<String>,
    /// How urgent it is among your own jobs: 0 is last, 9 is first
    #[arg(long, default_value_t = Priority::default().0, value_parser = clap::value_parser!(u8).range(0..=i64::from(Priority::MAX.0)))]
    priority: u8,
    /// Do not begin before this: a span from now (30m, 2h, 1d), or a time (2026-11-21T14:00:00Z)
    #[arg(long, value_name = "SPAN|TIME")]
    not_before: Option<Begin>,
    /// Hours until the job is over, waiting included
    #[arg(long, visible_alias = "deadline", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=HOURS_MAX))]
    hours: u32,
}

/// When a job may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Begin {
    /// So long from now.
    In(Duration),
    /// At that time.
    At(Timestamp),
}

impl FromStr for Begin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a span (30m, 2h, 1d) nor a time (2026-11-21T14:00:00Z)");
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        if let Some((unit, seconds)) = units.into_iter().find(|(unit, _)| text.ends_with(*unit)) {
            let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
            return Ok(Self::In(Duration::from_secs(u64::from(number) * seconds)));
        }
        let at: web::api::Time = text.parse().map_err(|_| wrong())?;
        Ok(Self::At(at.timestamp()))
    }
}

impl When {
    /// Gives how long the job may take, waiting included.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.hours) * 3600)
    }

    /// Says whether names must be looked up in the policy.
    pub(super) fn names_peers(&self) -> bool {
        !self.only.is_empty() || !self.without.is_empty()
    }

    /// Turns what was written into what is signed.
    ///
    /// # Errors
    /// When a name is nobody's in the policy, or the job would begin after its end.
    pub(super) fn schedule(&self, policy: Option<&Policy>, now: Timestamp) -> anyhow::Result<Schedule> {
        let not_before = match self.not_before {
            None => None,
            Some(Begin::In(span)) => Some(now.after(span)),
            Some(Begin::At(at)) => Some(at),
        };
        if not_before.is_some_and(|begin| begin >= now.after(self.lifetime())) {
            let what = format!("the job would begin after its end, {} hours from now", self.hours);
            return Err(exit::failure(exit::USAGE, what).hint("give it more time with --hours").into());
        }
        let only = nodes(&self.only, policy)?;
        let without = nodes(&self.without, policy)?;
        if let Some(node) = only.iter().find(|node| without.contains(node)) {
            let what = format!("node {} is asked for and excluded", node.short());
            return Err(exit::failure(exit::USAGE, what).into());
        }
        let priority = Priority(self.priority);
        Ok(Schedule { only, without, priority, not_before, ..Schedule::default() })
    }
}

/// Finds nodes by their operator's name, their id or its first digits; sorted, each once.
fn nodes(names: &[String], policy: Option<&Policy>) -> anyhow::Result<Vec<NodeId>> {
    let mut nodes = Vec::new();
    for name in names {
        if let Ok(node) = name.parse::<NodeId>() {
            nodes.push(node);
            continue;
        }
        let policy = policy.context("the policy is not known")?;
        let operator = name.parse::<OperatorName>().ok();
        if let Some(operator) = policy.operators.iter().find(|o| Some(&o.name) == operator.as_ref()) {
            nodes.extend(&operator.nodes);
            continue;
        }
        let all = policy.operators.iter().flat_map(|o| &o.nodes);
        let fits = |node: &&NodeId| name.len() >= DIGITS_MIN && node.to_string().starts_with(name.as_str());
        match all.filter(fits).collect::<Vec<_>>()[..] {
            [one] => nodes.push(*one),
            [] => {
                return Err(exit::failure(exit::FAILED, format!("no operator and no node of the policy is {name:?}"))
                    .hint("`artel policy show` lists operators and their nodes")
                    .into());
            }
            _ => {
                let what = format!("several nodes begin with {name:?}");
                return Err(exit::failure(exit::FAILED, what).hint("give more digits").into());
            }
        }
    }
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use protocol::testing::{node, samples};

    use super::*;

    const NOW: Timestamp = samples::NOW;

    fn when(only: &[&str], without: &[&str], not_before: Option<&str>) -> anyhow::Result<Schedule> {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        let not_before = not_before.map(|text| text.parse().unwrap());
        let when = When { only: words(only), without: words(without), priority: 7, not_before, hours: 2 };
        when.schedule(Some(&samples::genesis(3)), NOW)
    }

    #[test]
    fn operators_ids_and_digits_name_nodes() {
        let digits = node(11).to_string()[..8].to_owned();
        let schedule = when(&["op-a", &digits], &[&node(12).to_string()], Some("30m")).unwrap();
        let mut only = vec![node(10), node(11)];
        only.sort();
        assert_eq!((schedule.only, schedule.without, schedule.priority), (only, vec![node(12)], Priority(7)));
        assert_eq!(schedule.not_before, Some(NOW.after(Duration::from_secs(1800))));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let words = |result: anyhow::Result<Schedule>| result.unwrap_err().to_string();
        assert_eq!(words(when(&["op-z"], &[], None)), "no operator and no node of the policy is \"op-z\"");
        assert!(words(when(&["op-a"], &["op-a"], None)).ends_with("is asked for and excluded"));
        assert!(words(when(&[], &[], Some("2h"))).starts_with("the job would begin after its end"));
        assert!("soon".parse::<Begin>().unwrap_err().contains("neither a span"));
        let at = Begin::At(Timestamp::from_millis(1_795_269_600_000));
        assert_eq!("2026-11-21T14:00:00Z".parse(), Ok(at));
    }
}
