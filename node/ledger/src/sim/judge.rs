//! The judgement at the end of a run.

use std::fmt::Write as _;

use attest::bundle::Bundle;
use protocol::{
    NodeId, OperatorName, Sha256,
    blame::Blame,
    message::{Octets, Response},
    testing::samples,
};

use super::{
    JobNature, World,
    builders::{Nature, honest},
    people::Wish,
    records,
};
use crate::{
    Command, Ledger,
    view::{JobView, ResultView, VerdictView},
};

impl World {
    /// The end: what is good is done, nothing wrong is, whatever waits says why, everybody was answered and the answers hold,
    /// and every member's log tells the same story.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let all = self.group.log.len();
        for at in 0..self.group.members.len() {
            self.apply_until(at, all)?;
        }
        let bytes = self.group.members[0].ledger.to_bytes();
        for at in 1..self.group.members.len() {
            if self.group.members[at].ledger.to_bytes() != bytes {
                return Err(format!("members 0 and {at} have different ledgers"));
            }
        }
        for job in &self.group.members[0].ledger.jobs() {
            self.judge_job(job)?;
        }
        self.judge_newest()?;
        self.wishes.iter().try_for_each(|wish| self.judge_wish(wish))?;
        if self.random.percent(5) { self.judge_replay(&bytes) } else { Ok(()) }
    }

    fn judge_wish(&self, wish: &Wish) -> Result<(), String> {
        let Some(answer) = &wish.answer else { return Err(format!("nobody was answered: {wish:?}")) };
        let Some(job) = wish.about else { return Ok(()) };
        let known = self.group.members[0].ledger.job(job);
        if matches!(answer, Response::Receipt(..)) && known.is_none() {
            return Err(format!("an accepted job was lost: {wish:?}"));
        }
        let cancelled = known.as_ref().is_some_and(|job| job.state == "cancelled");
        if *answer == Response::Done && wish.is_cancel() && !cancelled {
            return Err(format!("a cancelled job goes on: {wish:?}, {known:?}"));
        }
        Ok(())
    }

    fn judge_replay(&self, bytes: &[u8]) -> Result<(), String> {
        let mut again = Ledger::new(self.group.network, self.group.genesis.clone()).unwrap();
        for (at, command) in self.group.log.iter().flat_map(|entry| &entry.batch) {
            let command = Command::from_bytes(&command.to_bytes(), &self.group.network).map_err(|e| e.to_string())?;
            let _ = again.apply(*at, command);
        }
        if again.to_bytes() == bytes { Ok(()) } else { Err("the log's bytes give another ledger".into()) }
    }

    fn judge_job(&mut self, job: &JobView) -> Result<(), String> {
        let (_, nature) = &self.requests[&job.id];
        let open = ["queued", "building", "publishing"].contains(&job.state.as_str());
        if open && self.has_endless(job) {
            // It is stopped when its time is up, which is later than the run ends.
            return Ok(());
        }
        if open && job.waiting.is_none() && !is_tried_again(job) {
            return Err(format!("a job neither ended nor says why it waits: {job:?}"));
        }
        if job.state == "published" && !self.publishers.appeared(job.id) {
            return Err(format!("a published job is in no release: {job:?}"));
        }
        let good = *nature == JobNature::Good;
        let one_is_enough = self.one_may_publish(job);
        if let VerdictView::Reproduced { outputs, agree, .. } = &job.verdict {
            if let Some(copycat) = self.builders.iter().find(|b| b.copies() && counts(job, b.node, agree)) {
                return Err(format!("a copycat was counted, {}: {job:?}", copycat.node));
            }
            let right = good && outputs[0].sha256 == Sha256::of(honest(job.id).as_bytes());
            if !right && !one_is_enough {
                return Err(format!("something was reproduced that honest builders did not make: {job:?}"));
            }
            if self.random.percent(5) {
                self.judge_bundle(job, agree)?;
            }
        }
        let done = ["published", "reproduced", "failed-to-publish", "cancelled"].contains(&job.state.as_str());
        let poisoned = format!("{:?}", job.verdict).contains("Poison");
        if good && self.enough_honest(job) && !done && !poisoned && !one_is_enough {
            return Err(format!("a good job with enough honest operators is not done: {job:?}"));
        }
        Ok(())
    }

    /// Says whether a builder is at the job that never has a result.
    fn has_endless(&self, job: &JobView) -> bool {
        let live = job.attempts.iter().filter(|attempt| ["granted", "running"].contains(&attempt.state.as_str()));
        live.map(|attempt| self.builder_of(attempt.node)).any(|at| self.builders[at].nature == Nature::Endless)
    }

    /// Says whether enough operators are honest of those that every policy named.
    fn enough_honest(&self, job: &JobView) -> bool {
        let ledger = &self.group.members[0].ledger;
        let (first, last) = (self.group.genesis.get(), ledger.policy().get());
        let always =
            |name: &OperatorName| ledger.policies.iter().all(|p| p.get().operators.iter().any(|o| o.name == *name));
        let is_honest = |node| self.builders[self.builder_of(node)].nature == Nature::Honest;
        // Who was away when it was asked has had its turn. A crash here loses what a builder was bound to, which is waited for
        // while nobody else could be asked.
        let is_owed = |state: &str| ["withheld", "committed"].contains(&state);
        let withheld = |name: &OperatorName| {
            job.attempts.iter().any(|attempt| is_owed(&attempt.state) && attempt.operator == *name)
        };
        let honest = first.operators.iter().filter(|o| always(&o.name) && o.nodes.iter().all(|node| is_honest(*node)));
        let honest = honest.filter(|o| !withheld(&o.name));
        last.channel(&job.channel).is_some_and(|channel| honest.count() >= usize::from(channel.agree))
    }

    /// Whoever checks offline comes to the same agreement.
    fn judge_bundle(&self, job: &JobView, agree: &[OperatorName]) -> Result<(), String> {
        let ledger = &self.group.members[0].ledger;
        if ledger.policies.len() > 1 {
            return Ok(());
        }
        let evidence = ledger.evidence(job.id).ok_or("the evidence of a young job is gone")?;
        let octets = |list: Vec<Vec<u8>>| list.into_iter().map(Octets).collect();
        let bundle = Bundle {
            lock: Octets(samples::lock().to_bytes()),
            course: None,
            request: Octets(evidence.request),
            policies: octets(evidence.policies),
            promotions: Vec::new(),
            attestations: octets(evidence.attestations),
        };
        let proof = attest::verify::verify(&bundle, &self.group.network, samples::NOW);
        let proof = proof.map_err(|e| format!("the bundle of {} does not verify: {e}", job.id))?;
        if proof.agree == agree { Ok(()) } else { Err(format!("the bundle gives {:?}, we {agree:?}", proof.agree)) }
    }

    /// With k = 1 whoever comes first decides: the channel is unverified, and a lone liar or an unstable build passes.
    fn one_may_publish(&self, job: &JobView) -> bool {
        job.channel == records::channels()[0] || self.shape.agree == 1
    }

    pub(super) fn explain(&self, why: &str) -> String {
        let mut text = format!("{why}\nat {} ms, {:?}; the end of the log:\n", self.now, self.shape);
        for (at, member) in self.group.members.iter().enumerate() {
            writeln!(text, "  {}", member.describe(at)).unwrap();
        }
        for entry in &self.group.log[self.group.log.len().saturating_sub(25)..] {
            for (at, command) in &entry.batch {
                let line: String = format!("{command:?}").chars().take(200).collect();
                writeln!(text, "  term {} member {} at {}: {line}", entry.term, entry.by, at.as_millis()).unwrap();
            }
        }
        text
    }
}

/// Says whether a builder is at a job that nobody could try before: that goes on, with pauses, for longer than a run.
fn is_tried_again(job: &JobView) -> bool {
    let could_not =
        |result: &ResultView| matches!(result, ResultView::Failed(f) if matches!(f.blame, Blame::Builder(_)));
    let live = job.attempts.iter().any(|attempt| ["granted", "running", "committed"].contains(&attempt.state.as_str()));
    live && job.attempts.iter().any(|attempt| could_not(&attempt.result) || attempt.state == "unanswered")
}

/// Says whether a node's attempt is one of those that agree.
fn counts(job: &JobView, node: NodeId, agree: &[OperatorName]) -> bool {
    job.attempts.iter().any(|a| a.node == node && a.state == "revealed" && agree.contains(&a.operator))
}
