//! How a package came into another channel than the one that built it: each step is a server job that somebody signed who may
//! change the channel it leads to. The operators must be enough for the last channel, whatever the first one asked for.

use protocol::{
    Arch, ChannelName, NetworkId, PackageName, Signed, Timestamp, Verified,
    job::{JobRequest, ServerJob},
    message::Octets,
    policy::Policy,
};

use super::Error;
use crate::bundle::Bundle;

/// One step of a package into another channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// The channel that it led to.
    pub to: ChannelName,
    /// What was asked for.
    pub work: ServerJob,
}

impl Promotion {
    /// Says whether a package was meant; none for a file that is no package, which no list of packages names.
    pub fn covers(&self, package: Option<(&PackageName, Arch)>) -> bool {
        let named = |packages: &[PackageName]| {
            packages.is_empty() || package.is_some_and(|(name, _)| packages.binary_search(name).is_ok())
        };
        let listed = |arches: &[Arch]| {
            arches.is_empty()
                || package.is_some_and(|(_, arch)| arch == Arch::All || arches.binary_search(&arch).is_ok())
        };
        match &self.work {
            ServerJob::Promote(promote) => named(&promote.packages),
            ServerJob::Derive(derive) => named(&derive.packages) && listed(&derive.arches),
            ServerJob::Prune(_) | ServerJob::Diff(_) => false,
        }
    }
}

/// Reads the promotions that a bundle carries.
pub(super) fn read(bundle: &Bundle, network: &NetworkId) -> Result<Vec<Verified<JobRequest>>, Error> {
    let read = |(at, bytes): (usize, &Octets)| {
        let signed = Signed::<JobRequest>::read(&bytes.0).and_then(|r| r.verify(Some(network)));
        signed.map_err(|error| Error::Promotion { position: at + 1, why: error.to_string() })
    };
    bundle.promotions.iter().enumerate().map(read).collect()
}

/// Follows promotions from the channel that built a package.
pub(super) fn follow(
    promotions: &[Verified<JobRequest>],
    network: &NetworkId,
    policy: &Policy,
    built: &JobRequest,
) -> Result<Vec<Promotion>, Error> {
    let mut steps: Vec<Promotion> = Vec::new();
    for (at, request) in promotions.iter().enumerate() {
        let refuse = |why: String| Error::Promotion { position: at + 1, why };
        let from = steps.last().map_or(&built.channel, |step| &step.to);
        let step = step(request, policy, (from, built)).map_err(refuse)?;
        if request.get().network != *network {
            return Err(refuse("it is for another network".into()));
        }
        steps.push(step);
    }
    Ok(steps)
}

/// Puts promotions that came in any order into the one in which each begins where the one before ended; what leads nowhere, or
/// was signed by nobody who may, is left out.
pub(super) fn in_order(
    mut loose: Vec<Verified<JobRequest>>,
    policy: &Policy,
    built: &JobRequest,
) -> Vec<Verified<JobRequest>> {
    let mut ordered: Vec<Verified<JobRequest>> = Vec::new();
    loop {
        let from = ordered.last().map_or(&built.channel, |request| &request.get().channel);
        let next = loose.iter().position(|request| step(request, policy, (from, built)).is_ok());
        let Some(next) = next else { return ordered };
        ordered.push(loose.remove(next));
    }
}

/// Checks that what was decided at a time by the log could still be moved then: when it was asked for, its maintainer says alone.
///
/// # Errors
/// The first step whose time was over.
pub(super) fn check_time(promotions: &[Verified<JobRequest>], decided: Timestamp) -> Result<(), Error> {
    match promotions.iter().position(|request| decided > request.get().expires) {
        None => Ok(()),
        Some(at) => {
            Err(Error::Promotion { position: at + 1, why: "its time was over before the build was decided".into() })
        }
    }
}

/// Checks one step from a channel. Its request says until when it may be done, and no job or version: it is no word about what was asked
/// for after that.
fn step(
    request: &Verified<JobRequest>,
    policy: &Policy,
    (from, built): (&ChannelName, &JobRequest),
) -> Result<Promotion, String> {
    if built.created > request.get().expires {
        return Err("its time was over before this was asked for".into());
    }
    let to = request.get().channel.clone();
    let work = request.get().server().ok_or("it is a build")?;
    let (taken, _) = work.takes_over().ok_or_else(|| format!("a {} takes no package over", work.word()))?;
    if taken != from {
        return Err(format!("it takes packages over from {taken}, this one came from {from}"));
    }
    let signers = request.signers();
    let maintains = |key| policy.maintainer(key).is_some_and(|m| m.channels.contains(&to));
    if !signers.iter().any(|key| maintains(key) || policy.roots.keys.contains(key)) {
        return Err(format!("no maintainer of channel {to} and no root signed it"));
    }
    Ok(Promotion { to, work: work.clone() })
}
