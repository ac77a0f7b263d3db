//! Whether a bundle proves what a channel is to have: the one question that a publisher asks before it writes, and every follower
//! before it takes a release. What one of them refuses must never be released, for it would refuse every later release, too.

use attest::{
    bundle::Bundle,
    verify::{self, Proof},
};
use protocol::{ChannelName, JobId, NetworkId, Timestamp};

/// What evidence is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Bar<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The policies that this node follows, signed, the first one first.
    pub policies: &'a [Vec<u8>],
    /// The channel that is to have the packages.
    pub channel: &'a ChannelName,
}

/// Why evidence does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was judged under policies of another network, or under none.
    #[error("its evidence names policies that this network does not have")]
    Policies,
    /// It proves less than the policy asks for.
    #[error(transparent)]
    Verify(#[from] verify::Error),
    /// It is for another job.
    #[error("its evidence is for job {0}")]
    Job(JobId),
    /// It is for another channel.
    #[error("its evidence is for channel {0}, whose rules are others")]
    Channel(ChannelName),
}

/// Checks that k operators built what a job made, for the channel, from the evidence alone.
///
/// # Errors
/// The first check that fails.
pub fn prove(bar: &Bar<'_>, bundle: &Bundle, job: JobId) -> Result<Proof, Error> {
    let theirs: Vec<&Vec<u8>> = bundle.policies.iter().map(|p| &p.0).collect();
    // The evidence was judged under the policy of its time, which must be one of the chain that we follow.
    let known = theirs.len() <= bar.policies.len() && theirs.iter().zip(bar.policies).all(|(a, b)| *a == b);
    if theirs.is_empty() || !known {
        return Err(Error::Policies);
    }
    let policy = verify::policy_in_force(bundle, bar.network, Timestamp::ZERO)?;
    let proof = verify::verify_under(bundle, bar.network, &policy)?;
    if proof.job != job {
        return Err(Error::Job(proof.job));
    }
    if proof.channel != *bar.channel {
        return Err(Error::Channel(proof.channel));
    }
    Ok(proof)
}
