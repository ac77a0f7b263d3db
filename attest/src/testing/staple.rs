//! A package of a network with a log and witnesses, and what lies beside it: everything signed, nothing invented.

use protocol::{
    Hash, JobId, NetworkId, Timestamp,
    codec::encode,
    job::job_id,
    policy::{Channel, Policy},
    testing::{node, samples, signing_key},
};

use super::log::Memory;
use crate::{
    bundle::Bundle,
    log::{
        checkpoint::{Signed, Verified},
        entry::{self, Entry, Event, Judgement},
        network::{log_key, origin, witness_key, witness_name},
        note::Line,
        proof::Proof,
        tree::{self, Head},
    },
    staple, summary,
    trust::{Demands, Trust},
    verify,
};

/// Entries of the log before the verdict.
pub const BEFORE: u64 = 40;

/// A network, its log, and one job of it.
pub struct Sample {
    /// The network.
    pub network: NetworkId,
    /// The genesis policy, signed.
    pub genesis: Vec<u8>,
    /// The job's evidence.
    pub bundle: Bundle,
    /// The log, with entries of others around the verdict.
    pub log: Memory,
    /// The verdict's entry.
    pub verdict: Entry,
}

impl Sample {
    /// A policy of three operators, two of whom must agree, whose channel asks for so many witnesses; it never ends, for
    /// programs that read the real time.
    pub fn policy(witnesses: u8) -> Policy {
        let genesis = samples::genesis(3);
        let channels = vec![Channel { witnesses, ..samples::channel(2, 2) }];
        Policy { channels, expires: Timestamp::from_millis(u64::MAX), ..genesis }
    }

    /// Has operators sign these contents, see [`super::bundle`], and logs that the job was reproduced.
    pub fn of(policy: &Policy, contents: &[&str]) -> Self {
        let (bundle, network) = super::bundle(policy, contents);
        Self::of_bundle(bundle, network)
    }

    /// As [`Sample::of`], for evidence of one's own.
    pub fn of_bundle(bundle: Bundle, network: NetworkId) -> Self {
        let genesis = bundle.policies[0].0.clone();
        let request = protocol::Signed::read(&bundle.request.0).and_then(|r| r.verify(Some(&network)));
        let mut attestations: Vec<Hash> = bundle.attestations.iter().map(|a| Hash::of(&a.0)).collect();
        attestations.sort_unstable();
        let job = job_id(&request.expect("a sample request is signed"));
        let verdict = entry::Verdict { job, verdict: Judgement::Reproduced, attestations };
        let verdict = Entry { at: samples::NOW, event: Event::Verdict(verdict) };
        Self { network, genesis, bundle, log: logged(&verdict), verdict }
    }

    /// The same where the job was decided at another time.
    #[must_use]
    pub fn decided(self, at: Timestamp) -> Self {
        let verdict = Entry { at, ..self.verdict };
        Self { log: logged(&verdict), verdict, ..self }
    }

    /// Gives the job.
    ///
    /// # Panics
    /// Never: the log's entry is a verdict.
    pub fn job(&self) -> JobId {
        let Event::Verdict(verdict) = &self.verdict.event else { unreachable!("a sample's entry is a verdict") };
        verdict.job
    }

    /// Gives what a verifier trusts under the genesis policy.
    pub fn trust(&self, demands: Demands) -> Trust {
        Trust::new(self.network, &[(self.genesis.clone(), Some(0))], demands, samples::NOW)
            .expect("the sample is signed")
    }

    /// Gives the lines beside the package, with a summary.
    pub fn lines(&self) -> Vec<u8> {
        let proven = verify::verify(&self.bundle, &self.network, samples::NOW).ok();
        let summary = proven.map(|proof| summary::sign(&proof, samples::NOW, &signing_key(10)));
        staple::lines(&self.bundle, summary.as_deref()).expect("the sample is well formed")
    }

    /// Gives the log's checkpoint, seen by these operators' nodes at this time.
    pub fn checkpoint(&self, witnesses: &[u8], at: Timestamp) -> Signed {
        let head = self.log.head(self.log.entries().len() as u64);
        witnesses.iter().fold(self.signed(head), |seen, witness| cosigned(&seen, *witness, at)).as_signed().clone()
    }

    fn signed(&self, head: Head) -> Verified {
        let keys = [log_key(&self.network, &node(10))];
        Signed::sign(&origin(&self.network), head, &signing_key(10)).verify(&keys).expect("it was just signed")
    }

    /// Gives the proof beside the package, seen by these operators' nodes at the samples' time.
    pub fn proof(&self, witnesses: &[u8]) -> Vec<u8> {
        self.proof_of(&self.verdict, BEFORE, self.checkpoint(witnesses, samples::NOW))
    }

    /// As [`Sample::proof`], of any entry and place.
    pub fn proof_of(&self, entry: &Entry, place: u64, checkpoint: Signed) -> Vec<u8> {
        let path = tree::inclusion(place, checkpoint.claims().head().size, &self.log).expect("the log has that place");
        Proof::of_entry(entry, place, path, checkpoint).to_string().into_bytes()
    }
}

/// Gives a log with a verdict among entries of others.
fn logged(verdict: &Entry) -> Memory {
    let others = |from: u64| (from..from + BEFORE).map(|at| encode(&at));
    Memory::of(others(0).chain([verdict.to_bytes()]).chain(others(1000)))
}

/// Adds the cosignature of the sample operator's node `at`.
fn cosigned(checkpoint: &Verified, at: u8, when: Timestamp) -> Verified {
    let text = checkpoint.as_signed().note().text().to_owned();
    let (key, name) = (witness_key(&node(10 + at)), witness_name(&node(10 + at)));
    let line = Line::cosign(&name, &signing_key(10 + at), &text, when);
    checkpoint.with_answer(&line.to_string(), &[key]).expect("it was just signed")
}
