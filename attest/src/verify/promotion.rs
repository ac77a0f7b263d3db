//! How a package came into another channel than the one that built it: each step is a server job that somebody signed who may
//! change the channel it leads to. The operators must be enough for the last channel, whatever the first one asked for.

use protocol::{
    Arch, ChannelName, NetworkId, PackageName, Signed, Verified,
    job::{JobRequest, ServerJob},
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
    /// Says whether a package was meant.
    pub fn covers(&self, name: &PackageName, arch: Arch) -> bool {
        let named = |packages: &[PackageName]| packages.is_empty() || packages.binary_search(name).is_ok();
        match &self.work {
            ServerJob::Promote(promote) => named(&promote.packages),
            ServerJob::Derive(derive) => {
                let listed = derive.arches.is_empty() || derive.arches.binary_search(&arch).is_ok();
                named(&derive.packages) && (listed || arch == Arch::All)
            }
            ServerJob::Prune(_) | ServerJob::Diff(_) => false,
        }
    }
}

/// Follows a bundle's promotions from the channel that built it.
pub(super) fn follow(
    bundle: &Bundle,
    network: &NetworkId,
    policy: &Policy,
    built_in: &ChannelName,
) -> Result<Vec<Promotion>, Error> {
    let mut steps: Vec<Promotion> = Vec::new();
    for (at, bytes) in bundle.promotions.iter().enumerate() {
        let refuse = |why: String| Error::Promotion { position: at + 1, why };
        let signed = Signed::<JobRequest>::read(&bytes.0).and_then(|r| r.verify(Some(network)));
        let request = signed.map_err(|error| refuse(error.to_string()))?;
        let from = steps.last().map_or(built_in, |step| &step.to);
        let step = step(&request, policy, from).map_err(refuse)?;
        if request.get().network != *network {
            return Err(refuse("it is for another network".into()));
        }
        steps.push(step);
    }
    Ok(steps)
}

fn step(request: &Verified<JobRequest>, policy: &Policy, from: &ChannelName) -> Result<Promotion, String> {
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
