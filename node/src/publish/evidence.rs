//! Whether a bundle proves what a channel is to have: the one question that a publisher asks before it writes, and every follower
//! before it takes a release. What one of them refuses must never be released, for it would refuse every later release, too.

use attest::{
    bundle::Bundle,
    dsse::Envelope,
    log::{
        self,
        entry::{Event, Judgement},
        network::log_policy,
    },
    staple,
    verify::{self, Proof},
};
use protocol::{ChannelName, JobId, NetworkId, Timestamp};

/// The largest summary, in bytes.
const SUMMARY_MAX: usize = 1 << 20;

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
    /// What lies beside the package is not what its evidence gives.
    #[error("what is stapled to it is not acceptable: {0}")]
    Staple(String),
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

/// What is stapled to a package: its lines, and the proof from the log, where they are.
#[derive(Debug, Clone, Copy)]
pub struct Staples<'a> {
    /// See [`staple::SUFFIX`].
    pub lines: Option<&'a [u8]>,
    /// See [`staple::PROOF_SUFFIX`].
    pub proof: Option<&'a [u8]>,
}

/// Checks that what is stapled to a package says what its evidence says: lines are those that the bundle gives, and perhaps a
/// summary, and the log has the verdict of the job, seen by as many witnesses as the channel asks for. Whoever installs the package
/// would refuse another.
///
/// # Errors
/// [`Error::Staple`].
pub fn check_staples(staples: &Staples<'_>, bundle: &Bundle, proof: &Proof) -> Result<(), Error> {
    let refuse = |why: String| Error::Staple(why);
    if let Some(lines) = staples.lines {
        let own = staple::lines(bundle, None).map_err(|e| refuse(e.to_string()))?;
        let more = lines.strip_prefix(own.as_slice()).ok_or_else(|| refuse("its lines are not the bundle's".into()))?;
        let summary = more.strip_suffix(b"\n").unwrap_or(more);
        if !more.is_empty() && (summary.contains(&b'\n') || Envelope::read(summary, SUMMARY_MAX).is_err()) {
            return Err(refuse("it has more lines than the bundle's and a summary".into()));
        }
    }
    let Some(bytes) = staples.proof else { return Ok(()) };
    let witnesses = proof.policy.channel(&proof.channel).map_or(0, |channel| channel.witnesses);
    let log = log_policy(&proof.network, &proof.policy, witnesses).map_err(|e| refuse(e.to_string()))?;
    let read = log::proof::Proof::read(bytes).and_then(|read| read.entry(&log));
    match read.map_err(|e| refuse(e.to_string()))?.0.event {
        Event::Verdict(verdict) if verdict.job == proof.job && verdict.verdict == Judgement::Reproduced => Ok(()),
        other => Err(refuse(format!("the log's entry is of another {}", other.word()))),
    }
}

#[cfg(test)]
mod tests {
    use attest::testing::staple::Sample;
    use protocol::testing::samples;

    use super::*;

    #[test]
    fn staples_say_what_the_bundle_says() {
        let sample = Sample::of(&Sample::policy(1), &["x", "x"]);
        let proof = verify::verify(&sample.bundle, &sample.network, samples::NOW).unwrap();
        let check = |lines: &[u8], log: Option<&[u8]>| {
            check_staples(&Staples { lines: Some(lines), proof: log }, &sample.bundle, &proof).is_ok()
        };
        let (lines, own) = (sample.lines(), staple::lines(&sample.bundle, None).unwrap());
        assert!(check(&own, None) && check(&lines, None) && check(&lines, Some(&sample.proof(&[1]))));
        assert!(!check(&lines[1..], None) && !check(b"", None), "fewer lines");
        assert!(!check(&[&lines[..], b"{}\n"].concat(), None), "more lines");
        assert!(!check(&[&own[..], b"{}\n"].concat(), None), "no summary");
        assert!(!check(&lines, Some(&sample.proof(&[]))), "nobody saw it");
        assert!(!check(&lines, Some(b"x")));
        let other = Sample::of(&Sample::policy(1), &["x", "x", "lie"]);
        let theirs = verify::verify(&other.bundle, &other.network, samples::NOW).unwrap();
        let none = Staples { lines: None, proof: None };
        assert!(check_staples(&none, &other.bundle, &theirs).is_ok(), "releases of former versions have none");
    }
}
