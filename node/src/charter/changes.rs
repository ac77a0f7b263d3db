//! What is different between two policies, in words, and what of it is dangerous: what roots read before they sign.

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    NodeId, PublicKey, Timestamp,
    policy::{Channel, Coordinators, Policy, Roots},
};
use serde::Serialize;

use crate::clock;

/// A policy that ends sooner than this is about to stop the network.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is different.
    pub what: String,
    /// Why that is dangerous, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub danger: Option<String>,
}

/// The differences that are found.
#[derive(Default)]
struct Found(Vec<Change>);

impl Found {
    fn note(&mut self, what: impl Into<String>) {
        self.0.push(Change { what: what.into(), danger: None });
    }

    fn warn(&mut self, what: impl Into<String>, danger: impl Into<String>) {
        self.0.push(Change { what: what.into(), danger: Some(danger.into()) });
    }

    fn note_or_warn(&mut self, what: String, danger: Option<&str>) {
        self.0.push(Change { what, danger: danger.map(str::to_owned) });
    }

    /// Notes who came and who went of two lists.
    fn lists<'a, T: Ord + 'a>(
        &mut self,
        (old, new): (impl IntoIterator<Item = &'a T>, impl IntoIterator<Item = &'a T>),
        name: impl Fn(&T) -> String,
    ) {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.into_iter().collect(), new.into_iter().collect());
        new.difference(&old).for_each(|added| self.note(format!("added {}", name(added))));
        old.difference(&new).for_each(|gone| self.note(format!("removed {}", name(gone))));
    }
}

/// Lists what a new policy changes, and what is dangerous about the new one at `now` even where it is not new.
pub fn changes(old: &Policy, new: &Policy, now: Timestamp) -> Vec<Change> {
    let mut found = Found::default();
    number(old, new, &mut found);
    expiry(old, new, now, &mut found);
    roots(&old.roots, &new.roots, &mut found);
    revocations(old, new, &mut found);
    operators(old, new, &mut found);
    maintainers(old, new, &mut found);
    coordinators(&old.coordinators, &new.coordinators, &mut found);
    found.lists((&old.mirrors, &new.mirrors), |node| format!("mirror {}", node.short()));
    channels(old, new, &mut found);
    rest(old, new, &mut found);
    found.0
}

fn number(old: &Policy, new: &Policy, found: &mut Found) {
    if new.number == old.number + 1 {
        found.note(format!("number {} follows {}", new.number, old.number));
    } else if new.number != old.number {
        let what = format!("number {} after {}", new.number, old.number);
        found.warn(what, format!("the network takes number {} only", old.number + 1));
    }
    if old.name != new.name {
        found.note(format!("the network is called {} (was {})", new.name, old.name));
    }
}

fn expiry(old: &Policy, new: &Policy, now: Timestamp, found: &mut Found) {
    let until = clock::rfc3339(new.expires);
    let what = if old.expires == new.expires {
        format!("ends {until}, as before")
    } else {
        format!("ends {until} (was {})", clock::rfc3339(old.expires))
    };
    if new.expires <= now {
        found.warn(what, "it has expired: nothing would be accepted or published");
    } else if new.expires.since(now) < SOON {
        let days = new.expires.since(now).as_secs() / 86_400;
        found.warn(what, format!("that is in {days} days: after that nothing is accepted or published"));
    } else if old.expires != new.expires {
        found.note(what);
    }
}

fn roots(old: &Roots, new: &Roots, found: &mut Found) {
    found.lists((&old.keys, &new.keys), |key| format!("root {}", key.short()));
    let rule = |roots: &Roots| format!("{} of {}", roots.threshold, roots.keys.len());
    if old.threshold != new.threshold {
        let lower = (new.threshold < old.threshold).then_some("fewer people can change everything");
        found.note_or_warn(format!("{} roots sign the next policy (was {})", rule(new), rule(old)), lower);
    }
    let added = new.keys.iter().filter(|key| !old.keys.contains(key)).count();
    if added >= usize::from(new.threshold) {
        let danger = "the new roots alone can change everything from then on: compare their keys with their owners";
        found.warn("the roots are replaced", danger);
    }
}

fn revocations(old: &Policy, new: &Policy, found: &mut Found) {
    for revoked in new.revoked_since(old) {
        let (whose, from, reason) = (whose(old, &revoked.key), revoked.from, &revoked.reason);
        let danger = (from == 0).then_some("nothing that it ever signed counts any more");
        found.note_or_warn(format!("revoked {whose} from entry {from} of the log on: {reason}"), danger);
    }
    for revoked in &old.revoked {
        if new.revocation(&revoked.key).is_none_or(|again| again.from > revoked.from) {
            let what = format!("the revocation of {} is taken back", revoked.key.short());
            found.warn(what, "the network refuses this: what is revoked stays so");
        }
    }
}

/// Names a key by the part that it had.
fn whose(policy: &Policy, key: &PublicKey) -> String {
    let (node, short) = (NodeId::from(*key), key.short());
    if let Some(operator) = policy.operator_of(&node) {
        format!("operator {operator}'s node {short}")
    } else if let Some(maintainer) = policy.maintainer(key) {
        format!("maintainer {}'s key {short}", maintainer.name)
    } else if policy.roots.keys.contains(key) {
        format!("root {short}")
    } else if policy.coordinators.candidates().contains(&node) {
        format!("coordinator {short}")
    } else if policy.mirrors.contains(&node) {
        format!("mirror {short}")
    } else {
        format!("key {short}")
    }
}

fn operators(old: &Policy, new: &Policy, found: &mut Found) {
    let names = |policy: &Policy| policy.operators.iter().map(|o| o.name.clone()).collect::<BTreeSet<_>>();
    found.lists((&names(old), &names(new)), |name| format!("operator {name}"));
    for operator in &new.operators {
        let before = old.operators.iter().find(|o| o.name == operator.name).map_or(&[][..], |o| &o.nodes);
        let name = |node: &NodeId| format!("node {} of operator {}", node.short(), operator.name);
        found.lists((before, &operator.nodes), name);
    }
}

fn maintainers(old: &Policy, new: &Policy, found: &mut Found) {
    for maintainer in &new.maintainers {
        let (name, key) = (&maintainer.name, maintainer.key.short());
        let channels: Vec<_> = maintainer.channels.iter().map(ToString::to_string).collect();
        let channels = channels.join(", ");
        match old.maintainer(&maintainer.key) {
            None => found.note(format!("added maintainer {name} (key {key}) for {channels}")),
            Some(before) if before.name != *name => found.note(format!("maintainer {} is called {name}", before.name)),
            Some(before) if before.channels != maintainer.channels => {
                found.note(format!("maintainer {name} may submit to {channels}"));
            }
            Some(_) => {}
        }
    }
    for gone in old.maintainers.iter().filter(|m| new.maintainer(&m.key).is_none()) {
        found.note(format!("removed maintainer {} (key {})", gone.name, gone.key.short()));
    }
}

fn coordinators(old: &Coordinators, new: &Coordinators, found: &mut Found) {
    let (before, after) = (old.candidates(), new.candidates());
    found.lists((before, after), |node| format!("coordinator {}", node.short()));
    let pinned = |of: &Coordinators| matches!(of, Coordinators::Pinned(_));
    if pinned(old) != pinned(new) {
        found.note(format!("the coordinator is {}", if pinned(new) { "pinned" } else { "elected" }));
    }
    if !after.iter().any(|node| before.contains(node)) {
        let danger = "none of them has the network's state: keep one of the old ones until the new ones have caught up";
        found.warn("every coordinator is replaced", danger);
    }
}

fn channels(old: &Policy, new: &Policy, found: &mut Found) {
    for channel in &new.channels {
        match old.channel(&channel.name) {
            None => found.note(format!("added channel {}: {} of {} agree", channel.name, channel.agree, channel.ask)),
            Some(before) => numbers(before, channel, found),
        }
        standing(channel, new, found);
    }
    for gone in old.channels.iter().filter(|c| new.channel(&c.name).is_none()) {
        found.warn(format!("removed channel {}", gone.name), "its repository is no longer signed anew and runs out");
    }
}

/// Compares what one channel asks for.
fn numbers(old: &Channel, new: &Channel, found: &mut Found) {
    let name = &new.name;
    let mut number = |what: &str, (before, after): (u32, u32), danger: &str| {
        if before != after {
            let danger = Some(danger).filter(|danger| after < before && !danger.is_empty());
            found.note_or_warn(format!("channel {name}: {what} {after} (was {before})"), danger);
        }
    };
    let pair = |of: fn(&Channel) -> u8| (u32::from(of(old)), u32::from(of(new)));
    number("operators that must agree", pair(|c| c.agree), "fewer operators can publish what they want");
    number("operators that are asked", pair(|c| c.ask), "");
    number("operators that are asked at most", pair(|c| c.ask_max), "");
    number("operators that must report the same failure", pair(|c| c.fail_quorum), "fewer operators can fail a job");
    number("operators whose witnesses must have seen a release", pair(|c| c.witnesses), "fewer have to be deceived");
    number("seconds that an index is valid", (old.valid_secs, new.valid_secs), "");
    if old.suite != new.suite {
        found.note(format!("channel {name}: suite {} (was {})", new.suite, old.suite));
    }
    if old.attested_environments != new.attested_environments {
        let what = if new.attested_environments { "needs" } else { "no longer needs" };
        let danger = (!new.attested_environments).then_some("environments are believed that nobody made again");
        found.note_or_warn(format!("channel {name}: {what} environments that were made here"), danger);
    }
    found.lists((&old.arches, &new.arches), |arch| format!("{arch} in channel {name}"));
}

/// Says what is dangerous about a channel, changed or not.
fn standing(channel: &Channel, policy: &Policy, found: &mut Found) {
    let (name, agree) = (&channel.name, usize::from(channel.agree));
    let operators = policy.operators.iter().filter(|operator| !operator.nodes.is_empty()).count();
    if agree == 1 {
        found.warn(format!("channel {name} asks for 1 operator"), "nobody checks what that one builds");
    }
    if operators < agree {
        let danger = format!("there are {operators}: nothing can be published there");
        found.warn(format!("channel {name} asks for {agree} operators"), danger);
    }
}

fn rest(old: &Policy, new: &Policy, found: &mut Found) {
    found.lists((&old.bootstrap, &new.bootstrap), |address| format!("bootstrap address {address}"));
    let (before, after) = (&old.limits, &new.limits);
    for (what, before, after) in [
        ("open jobs of a maintainer", before.open_jobs, after.open_jobs),
        ("seconds of a build", before.build_secs, after.build_secs),
        ("MiB of an output", before.output_mib, after.output_mib),
    ] {
        if before != after {
            found.note(format!("at most {after} {what} (was {before})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        policy::{Maintainer, Revoked},
        testing::{node, public_key, samples},
    };

    use super::*;

    fn words(change: impl FnOnce(&mut Policy)) -> Vec<String> {
        let old = samples::genesis(3);
        let mut new = Policy { number: 2, ..old.clone() };
        change(&mut new);
        let word = |change: Change| match change.danger {
            Some(danger) => format!("! {}: {danger}", change.what),
            None => change.what,
        };
        changes(&old, &new, samples::NOW).into_iter().map(word).filter(|w| w != "number 2 follows 1").collect()
    }

    #[test]
    fn harmless_changes_are_told_without_warnings() {
        assert_eq!(words(|_| ()), [""; 0]);
        let told = words(|p| {
            p.operators[1].nodes = vec![node(60)];
            p.operators[2].name = "op-z".parse().unwrap();
            p.mirrors.clear();
            p.limits.open_jobs = 7;
            p.channels[0].agree = 3;
            p.channels[0].ask = 3;
            let channels = p.maintainers[0].channels.clone();
            p.maintainers.push(Maintainer { key: public_key(9), name: "nils".parse().unwrap(), channels });
            p.maintainers.sort();
        });
        let node = |seed| node(seed).short();
        for wanted in [
            "added operator op-z".to_owned(),
            "removed operator op-c".to_owned(),
            format!("added node {} of operator op-b", node(60)),
            format!("removed node {} of operator op-b", node(11)),
            format!("removed mirror {}", node(40)),
            format!("added maintainer nils (key {}) for stable", public_key(9).short()),
            "channel stable: operators that must agree 3 (was 2)".to_owned(),
            "channel stable: operators that are asked 3 (was 2)".to_owned(),
            "at most 7 open jobs of a maintainer (was 100)".to_owned(),
        ] {
            assert!(told.contains(&wanted), "{wanted}: {told:#?}");
        }
        assert!(told.iter().all(|line| !line.starts_with('!')), "{told:#?}");
    }

    #[test]
    fn what_is_dangerous_is_said() {
        let warned = |change: fn(&mut Policy), wanted: &str| {
            let told = words(change);
            assert!(told.iter().any(|line| line.starts_with("! ") && line.contains(wanted)), "{wanted}: {told:#?}");
        };
        warned(|p| p.channels[0].agree = 1, "operators that must agree 1 (was 2)");
        warned(|p| p.channels[0].agree = 1, "nobody checks what that one builds");
        warned(|p| p.operators.truncate(1), "there are 1: nothing can be published there");
        warned(|p| p.roots.keys = vec![public_key(77)], "the new roots alone can change everything");
        warned(|p| p.expires = samples::NOW.after(SOON.saturating_sub(Duration::from_secs(1))), "that is in 13 days");
        warned(|p| p.expires = samples::NOW, "it has expired");
        warned(|p| p.number = 9, "the network takes number 2 only");
        warned(|p| p.coordinators = Coordinators::Pinned(node(99)), "every coordinator is replaced");
        warned(|p| p.channels.clear(), "removed channel stable");
    }

    #[test]
    fn a_revocation_names_whose_key_it_was() {
        let key = public_key(samples::MAINTAINER_SEED);
        let told = |from| {
            words(|p| {
                p.maintainers.clear();
                p.revoked = vec![Revoked { key, from, reason: "stolen".to_owned() }];
            })
        };
        let short = key.short();
        let wanted = format!("revoked maintainer maria's key {short} from entry 40 of the log on: stolen");
        assert!(told(40).contains(&wanted), "{:#?}", told(40));
        let wanted =
            format!("! revoked maintainer maria's key {short} from entry 0 of the log on: stolen: nothing that");
        assert!(told(0).iter().any(|line| line.starts_with(&wanted)), "{:#?}", told(0));
    }
}
