//! Which channel a package must be proven for, by where it came from. Channels have rules of their own, and a package that was proven
//! for a weak one must not come in through the index of a strong one.
//!
//! ```text
//!  the owner of this machine named the source's channel     -> that one
//!  the source's address has /repo/NAME/, as nodes serve it  -> NAME, where the policy has such a channel
//!  the owner named channels for all others                  -> one of them
//!  every channel of the policy has the same rules           -> any
//!  else                                                     -> none: it is refused
//! ```
//! The address is the source's own, as this machine has it: what an index says of its packages decides nothing here.

use protocol::{ChannelName, MaintainerName, policy::Policy};

use crate::{Error, Verifier, package::Proven};

/// What the owner of this machine named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channels {
    /// The channels of sources, by the beginnings of their addresses.
    pub of: Vec<(String, ChannelName)>,
    /// The channels that packages from everywhere else may be of; empty where nobody said.
    pub others: Vec<ChannelName>,
}

/// The channels that one package may be of; empty for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed(Vec<ChannelName>);

impl Channels {
    /// Takes a word of the command line: `NAME`, or `SOURCE=NAME` for packages from one source.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn add(&mut self, word: &str) -> Result<(), String> {
        let (source, name) = word.rsplit_once('=').map_or((None, word), |(source, name)| (Some(source), name));
        let name = name.parse().map_err(|e: protocol::words::WordError| e.to_string())?;
        match source {
            Some(source) => self.of.push((source.to_owned(), name)),
            None => self.others.push(name),
        }
        Ok(())
    }

    /// Gives the channel that was named for a source, the longest beginning of its address first.
    pub fn named(&self, source: &str) -> Option<&ChannelName> {
        let fits = self.of.iter().filter(|(begin, _)| source.starts_with(begin.as_str()));
        fits.max_by_key(|(begin, _)| begin.len()).map(|(_, channel)| channel)
    }

    /// Gives the channels that a package from a source may be of; no source where nobody knows it.
    ///
    /// # Errors
    /// When nobody can tell, and it matters.
    pub fn allowed(&self, source: Option<&str>, verifier: &Verifier) -> Result<Allowed, Error> {
        let policy = verifier.trust.newest();
        if let Some(channel) = source.and_then(|source| self.named(source)) {
            return Ok(Allowed(vec![channel.clone()]));
        }
        let others = if self.others.is_empty() { &verifier.trust.demands().channels } else { &self.others };
        match source.and_then(|source| in_address(source, policy)) {
            Some(channel) if others.is_empty() || others.contains(&channel) => Ok(Allowed(vec![channel])),
            Some(_) | None if !others.is_empty() || one_rule(policy) => Ok(Allowed(others.clone())),
            Some(_) | None => Err(Error::WhichChannel { place: source.unwrap_or("no known source").to_owned() }),
        }
    }
}

impl Allowed {
    /// Checks that a package was proven for one of the channels.
    ///
    /// # Errors
    /// [`Error::OtherChannel`].
    pub fn check(&self, proven: &Proven) -> Result<(), Error> {
        let got = &proven.chain.proof.channel;
        if self.0.is_empty() || self.0.contains(got) {
            return Ok(());
        }
        let wanted = self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        Err(Error::OtherChannel { got: got.clone(), wanted })
    }
}

/// Finds the channel in an address below which a node serves it. The last such folder is the node's own: what stands before it is
/// where its owner put the node.
pub fn in_address(source: &str, policy: &Policy) -> Option<ChannelName> {
    let (_, rest) = source.rsplit_once("/repo/")?;
    let name = rest.split('/').next()?.parse().ok()?;
    policy.channel(&name).map(|channel| channel.name.clone())
}

/// Says whether a package that is good enough for one channel is for every other, too.
pub fn one_rule(policy: &Policy) -> bool {
    let mut rules = policy.channels.iter().map(|channel| {
        let may = |m: &&protocol::policy::Maintainer| m.channels.contains(&channel.name);
        let maintainers: Vec<&MaintainerName> = policy.maintainers.iter().filter(may).map(|m| &m.name).collect();
        (channel.agree, channel.witnesses, channel.attested_environments, maintainers)
    });
    let first = rules.next();
    rules.all(|rule| Some(rule) == first)
}

#[cfg(test)]
mod tests {
    use attest::{testing::staple::Sample, trust::Demands};
    use protocol::{policy::Channel, testing::samples};

    use super::*;

    fn name(word: &str) -> ChannelName {
        word.parse().unwrap()
    }

    /// A verifier under a policy whose channels ask for so many operators.
    fn verifier(channels: &[(&str, u8)], demanded: &[&str]) -> Verifier {
        let of = |(channel, agree): &(&str, u8)| Channel { name: name(channel), ..samples::channel(*agree, 3) };
        let mut policy = Policy { channels: channels.iter().map(of).collect(), ..Sample::policy(0) };
        policy.maintainers[0].channels = channels.iter().map(|(channel, _)| name(channel)).collect();
        let demands = Demands { channels: demanded.iter().map(|word| name(word)).collect(), ..Demands::default() };
        let trust = Sample::of(&policy, &["x", "x"]).trust(demands);
        Verifier { trust, now: samples::NOW, checkpoint: None }
    }

    fn allowed(words: &[&str], source: Option<&str>, verifier: &Verifier) -> Result<Vec<String>, u8> {
        let mut channels = Channels::default();
        words.iter().for_each(|word| channels.add(word).unwrap());
        let allowed = channels.allowed(source, verifier).map_err(|error| error.exit_code())?;
        Ok(allowed.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn who_says_which_channel_a_source_has() {
        let differ = verifier(&[("stable", 2), ("weak", 1)], &[]);
        let node = Some("http://x/repo/stable/");
        assert_eq!(allowed(&[], node, &differ).unwrap(), ["stable"]);
        assert_eq!(allowed(&["http://x/repo/=weak"], node, &differ).unwrap(), ["weak"], "the owner's own word first");
        let both = ["http://x/=weak", "http://x/repo/stable/=stable"];
        assert_eq!(allowed(&both, node, &differ).unwrap(), ["stable"], "the longest beginning");
        assert_eq!(allowed(&["weak"], node, &differ).unwrap(), ["weak"], "what was named is not widened");
        assert_eq!(allowed(&["stable"], Some("http://x/debian/"), &differ).unwrap(), ["stable"]);
        // A channel that the policy does not have says nothing, and neither does a folder of the node's address.
        for nobody in [Some("http://x/repo/other/"), Some("http://x/debian/"), None] {
            assert_eq!(allowed(&[], nobody, &differ), Err(13), "{nobody:?}");
        }
        assert_eq!(allowed(&[], Some("http://x/repo/weak/repo/stable/"), &differ).unwrap(), ["stable"]);
        let demanded = verifier(&[("stable", 2), ("weak", 1)], &["stable"]);
        assert_eq!(
            allowed(&[], Some("http://x/debian/"), &demanded).unwrap(),
            ["stable"],
            "the policy file's own line"
        );
        assert_eq!(allowed(&[], Some("http://x/repo/weak/"), &demanded).unwrap(), ["stable"]);
        let same = verifier(&[("stable", 2), ("testing", 2)], &[]);
        assert_eq!(allowed(&[], Some("http://x/debian/"), &same).unwrap(), [""; 0], "it makes no difference");
    }

    #[test]
    fn channels_whose_maintainers_differ_have_other_rules() {
        let mut policy = verifier(&[("stable", 2), ("testing", 2)], &[]).trust.newest().clone();
        assert!(one_rule(&policy));
        policy.maintainers[0].channels.pop();
        assert!(!one_rule(&policy));
        assert!(Channels::default().add("http://x/=..").is_err());
    }
}
