//! Whether a bundle proves what a channel is to have: the one question that a publisher asks before it writes, and every follower
//! before it takes a release. What one of them refuses must never be released, for it would refuse every later release, too.

use attest::{
    bundle::Bundle,
    dsse::Envelope,
    staple,
    trust::Trust,
    verify::{self, Chain, Moment, verify_bundle},
};
use protocol::{ChannelName, JobId, Timestamp};

/// The largest summary, in bytes.
const SUMMARY_MAX: usize = 1 << 20;

/// What evidence is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Bar<'a> {
    /// The policies that this node follows, and their places in the log.
    pub trust: &'a Trust,
    /// The channel that is to have the packages.
    pub channel: &'a ChannelName,
}

/// Why evidence does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It brings along policies of another network, or none.
    #[error("its evidence names policies that this network does not have")]
    Policies,
    /// It proves less than the policy of its place in the log asks for.
    #[error(transparent)]
    Verify(#[from] verify::Broken),
    /// It is for another job.
    #[error("its evidence is for job {0}")]
    Job(JobId),
    /// What lies beside the package is not what its evidence gives.
    #[error("what is stapled to it is not acceptable: {0}")]
    Staple(&'static str),
    /// It is for another channel.
    #[error("its evidence is for channel {0}, whose rules are others")]
    Channel(ChannelName),
}

impl Error {
    /// Says whether a newer proof from the log may mend it.
    pub fn is_of_the_log(&self) -> bool {
        matches!(self, Self::Verify(verify::Broken::Log(_) | verify::Broken::NotLogged { .. }))
    }
}

/// What is stapled to a package: its lines, and the proof from the log, where they are.
#[derive(Debug, Clone, Copy)]
pub struct Staples<'a> {
    /// See [`staple::SUFFIX`].
    pub lines: Option<&'a [u8]>,
    /// See [`staple::PROOF_SUFFIX`].
    pub proof: Option<&'a [u8]>,
}

/// Checks that k operators built what a job made, for the channel, and that what is stapled to it says so: the judge is the one
/// that whoever installs the package asks, see [`verify_bundle`]. Lines are those that the bundle gives, and perhaps a summary.
///
/// # Errors
/// The first check that fails.
pub fn prove(bar: &Bar<'_>, bundle: &Bundle, staples: &Staples<'_>, job: JobId) -> Result<Chain, Error> {
    if !bar.trust.begins_with(bundle.policies.iter().map(|policy| policy.0.as_slice())) {
        return Err(Error::Policies);
    }
    let moment = Moment { now: Timestamp::ZERO, checkpoint: None };
    let chain = verify_bundle(bundle, staples.proof, (bar.trust, &moment))?;
    if chain.proof.job != job {
        return Err(Error::Job(chain.proof.job));
    }
    if chain.proof.channel != *bar.channel {
        return Err(Error::Channel(chain.proof.channel));
    }
    staples.lines.map_or(Ok(()), |lines| check_lines(lines, bundle))?;
    Ok(chain)
}

fn check_lines(lines: &[u8], bundle: &Bundle) -> Result<(), Error> {
    let own = staple::lines(bundle, None).map_err(|_| Error::Staple("no lines can be made of its bundle"))?;
    let more = lines.strip_prefix(own.as_slice()).ok_or(Error::Staple("its lines are not the bundle's"))?;
    let summary = more.strip_suffix(b"\n").unwrap_or(more);
    if !more.is_empty() && (summary.contains(&b'\n') || Envelope::read(summary, SUMMARY_MAX).is_err()) {
        return Err(Error::Staple("it has more lines than the bundle's and a summary"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use attest::{testing::staple::Sample, trust::Demands};

    use super::*;

    #[test]
    fn staples_say_what_the_bundle_says() {
        let sample = Sample::of(&Sample::policy(1), &["x", "x"]);
        let (trust, stable) = (sample.trust(Demands::default()), "stable".parse().unwrap());
        let bar = Bar { trust: &trust, channel: &stable };
        let check = |lines: &[u8], log: Option<&[u8]>| {
            prove(&bar, &sample.bundle, &Staples { lines: Some(lines), proof: log }, sample.job()).is_ok()
        };
        let (lines, own) = (sample.lines(), staple::lines(&sample.bundle, None).unwrap());
        let seen = sample.proof(&[1]);
        assert!(check(&own, Some(&seen)) && check(&lines, Some(&seen)));
        assert!(!check(&lines, None), "the channel asks for a witness");
        assert!(!check(&lines[1..], Some(&seen)) && !check(b"", Some(&seen)), "fewer lines");
        assert!(!check(&[&lines[..], b"{}\n"].concat(), Some(&seen)), "more lines");
        assert!(!check(&[&own[..], b"{}\n"].concat(), Some(&seen)), "no summary");
        assert!(!check(&lines, Some(&sample.proof(&[]))), "nobody saw it");
        assert!(!check(&lines, Some(b"x")));
        let bare = Staples { lines: None, proof: Some(&seen) };
        assert!(prove(&bar, &sample.bundle, &bare, sample.job()).is_ok());
        let other = prove(&Bar { channel: &"testing".parse().unwrap(), ..bar }, &sample.bundle, &bare, sample.job());
        assert!(matches!(other, Err(Error::Channel(_))), "{other:?}");
        let other = prove(&bar, &sample.bundle, &bare, protocol::Hash::of(b"other").into());
        assert!(matches!(other, Err(Error::Job(_))), "{other:?}");
    }
}
