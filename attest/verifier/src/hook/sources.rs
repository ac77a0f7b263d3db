//! What apt's hook is told of the sources that there are when it is installed: whose packages must be proven, and for which channel.
//! Both are written down, so that nothing which a repository says of itself later changes them.

use std::path::Path;

use protocol::{ChannelName, policy::Policy};

use crate::{
    apt::{self, Marks},
    channel::{self, Channels},
};

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// What repositories of the network are known by.
    pub(super) marks: Marks,
    /// For which channels their packages must be proven.
    pub(super) channels: Channels,
    /// Words for people.
    pub(super) notes: Vec<String>,
}

impl Sources {
    /// Adds what apt knows of a root to what was named, under the newest policy, where it is known.
    pub(super) fn find(root: &Path, (mut marks, mut channels): (Marks, Channels), policy: Option<&Policy>) -> Self {
        if marks.origins.is_empty() {
            marks.origins.extend(policy.map(|policy| policy.name.to_string()));
        }
        let found = match apt::sources(root, &marks.origins) {
            Ok(found) => found,
            Err(why) => return Self { marks, channels, notes: vec![why] },
        };
        marks.sources.extend(found.iter().map(|source| source.address.clone()));
        marks.sources.sort();
        marks.sources.dedup();
        let mut notes = Vec::new();
        for source in &marks.sources {
            let labels = found.iter().filter(|known| known.address == *source).flat_map(|known| &known.labels);
            let told = policy.and_then(|policy| told(source, labels.map(String::as_str), policy));
            if channels.named(source).is_none() {
                channels.of.extend(told.map(|channel| (source.clone(), channel)));
            }
            notes.push(match channels.named(source) {
                Some(channel) => format!("packages from {source} must be proven for channel {channel}"),
                None if policy.is_none_or(channel::one_rule) => format!("packages from {source} must be proven"),
                None => format!(
                    "packages from {source} must be proven, AND ARE REFUSED where the address does not say for which channel: name it \
                     with --channel {source}=NAME"
                ),
            });
        }
        Self { marks, channels, notes }
    }
}

/// Gives the channel of a source by its address, as nodes serve it, or by what its repository calls itself now.
fn told<'a>(source: &str, labels: impl Iterator<Item = &'a str>, policy: &Policy) -> Option<ChannelName> {
    let by_label = |labels: Vec<&str>| {
        let called = |channel: &&protocol::policy::Channel| {
            let label = format!("{} {}", policy.name, channel.name);
            !labels.is_empty() && labels.iter().all(|known| *known == label)
        };
        policy.channels.iter().find(called).map(|channel| channel.name.clone())
    };
    channel::in_address(source, policy).or_else(|| by_label(labels.collect()))
}

#[cfg(test)]
mod tests {
    use attest::testing::staple::Sample;

    use super::*;

    #[test]
    fn a_channel_by_address_or_by_label() {
        let policy = Sample::policy(0);
        let name = &policy.name;
        let told = |source: &str, labels: &[String]| {
            told(source, labels.iter().map(String::as_str), &policy).map(|channel| channel.to_string())
        };
        assert_eq!(told("http://x/repo/stable/", &[]).as_deref(), Some("stable"));
        let own = format!("{name} stable");
        assert_eq!(told("http://x/debian/", std::slice::from_ref(&own)).as_deref(), Some("stable"));
        assert_eq!(told("http://x/debian/", &[own, format!("{name} other")]), None, "two under one address");
        assert_eq!(told("http://x/debian/", &[]), None);
    }
}
