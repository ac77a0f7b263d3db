//! Runs: a world from a seed, the judgement at its end, and the seeds that the tests try.

use std::{collections::BTreeMap, fmt::Write};

use attest::bundle::Bundle;
use protocol::{OperatorName, Sha256, message::Octets, policy::Policy, testing::samples};

use super::{
    Event, FAULTS_UNTIL, JobNature, Run, World,
    builders::{Builder, Nature, honest},
    coordinator::Coordinator,
    random::Random,
};
use crate::{
    Command, Ledger,
    planted::{self, Fault},
    testing::{channel, policy},
    view::{JobView, VerdictView},
};

/// What must have happened at least once over all seeds: a simulation that never does it proves nothing.
const SOMETIMES: &[&str] = &[
    "attempt failed",
    "builder crashed",
    "builder goes on without a lease",
    "builder quarantined",
    "builder slept",
    "clock set ahead",
    "clock set back",
    "coordinator crashed",
    "crash before effects",
    "grant unanswered",
    "interruption reported",
    "late report",
    "lease declined",
    "lease expired",
    "liar named",
    "liar reports",
    "message lost",
    "message repeated",
    "publication failed",
    "published",
    "publisher cut off",
    "request refused",
    "request replayed",
    "verdict disputed",
    "verdict failed",
    "verdict reproduced",
    "verdict unreproducible",
];

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let operators = random.between(1, 5);
        let agree = random.between(1, operators.min(3));
        let ask = random.between(agree, operators);
        let nodes = random.between(1, 2);
        let policy = policy(operators, nodes, channel(agree, ask, operators.max(ask)));
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            events: 0,
            loss: random.below(20),
            random,
            coordinator: Coordinator::new(&policy),
            builders: Vec::new(),
            requests: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        world.people(&policy, agree, nodes);
        world.plan();
        world
    }

    /// Fewer colluders than must agree; any number of others.
    fn people(&mut self, policy: &Policy, agree: u8, nodes: u8) {
        let colluders = self.random.between(0, agree - 1);
        for operator in 0..u8::try_from(policy.operators.len()).unwrap() {
            let nature = match self.random.below(10) {
                _ if operator < colluders => Nature::Colluder,
                0 => Nature::Loner,
                1 => Nature::Careless,
                _ => Nature::Honest,
            };
            for n in 0..nodes {
                let slots = usize::from(self.random.between(1, 2));
                self.builders.push(Builder::new(operator, n, nature, slots));
            }
        }
    }

    fn plan(&mut self) {
        for number in 0..self.random.between(1, 3) {
            let nature = match self.random.below(6) {
                0 => JobNature::Broken,
                1 => JobNature::Unstable,
                _ => JobNature::Good,
            };
            self.soon(0, 20_000, Event::Submit(number, nature));
        }
        for to in 0..self.builders.len() {
            self.soon(0, 5000, Event::Tick(to));
            for _ in 0..self.random.below(3) {
                self.soon(0, FAULTS_UNTIL, Event::CrashBuilder(to));
            }
            if self.random.percent(20) {
                self.soon(0, FAULTS_UNTIL, Event::SleepBuilder(to));
            }
        }
        for _ in 0..self.random.below(3) {
            self.soon(0, FAULTS_UNTIL, Event::CrashCoordinator);
        }
        for _ in 0..self.random.below(2) {
            let by = 3_600_000 - 7_200_000 * i64::from(self.random.percent(50));
            self.soon(0, FAULTS_UNTIL, Event::SetClock(by));
        }
    }

    /// The end: what is good is done, nothing wrong is, whatever waits says why, and the journal tells the same story.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let jobs = self.coordinator.ledger.jobs();
        for job in &jobs {
            self.judge_job(job)?;
        }
        let mut again = Ledger::new(self.coordinator.network, self.coordinator.genesis.clone()).unwrap();
        for (at, bytes) in &self.coordinator.journal {
            let _ = again.apply(*at, Command::from_bytes(bytes, &self.coordinator.network).unwrap());
        }
        if again.to_bytes() != self.coordinator.ledger.to_bytes() {
            return Err("the journal gives another ledger".into());
        }
        Ok(())
    }

    fn judge_job(&self, job: &JobView) -> Result<(), String> {
        let (_, nature) = &self.requests[&job.id];
        let open = ["queued", "building", "publishing"].contains(&job.state.as_str());
        if open && job.waiting.is_none() {
            return Err(format!("a job neither ended nor says why it waits: {job:?}"));
        }
        if let VerdictView::Reproduced { outputs, agree, .. } = &job.verdict {
            let right = *nature == JobNature::Good && outputs[0].sha256 == Sha256::of(honest(job.id).as_bytes());
            if !right && !self.one_may_publish() {
                return Err(format!("something was reproduced that honest builders did not make: {job:?}"));
            }
            self.judge_bundle(job, agree)?;
        }
        let policy = self.coordinator.ledger.policy().get();
        let honest = policy
            .operators
            .iter()
            .filter(|o| o.nodes.iter().all(|node| self.builders[self.builder_of(*node)].nature == Nature::Honest));
        let enough = honest.count() >= usize::from(policy.channels[0].agree);
        let done = ["published", "reproduced", "failed-to-publish"].contains(&job.state.as_str());
        let poisoned = format!("{:?}", job.verdict).contains("Poison");
        let lone_lie = self.one_may_publish();
        if *nature == JobNature::Good && enough && !done && !poisoned && !lone_lie {
            return Err(format!("a good job with enough honest operators is not done: {job:?}"));
        }
        Ok(())
    }

    /// Whoever checks offline comes to the same agreement.
    fn judge_bundle(&self, job: &JobView, agree: &[OperatorName]) -> Result<(), String> {
        let evidence = self.coordinator.ledger.evidence(job.id).ok_or("the evidence of a young job is gone")?;
        let octets = |list: Vec<Vec<u8>>| list.into_iter().map(Octets).collect();
        let bundle = Bundle {
            lock: Octets(samples::lock().to_bytes()),
            request: Octets(evidence.request),
            policies: octets(evidence.policies),
            promotions: Vec::new(),
            attestations: octets(evidence.attestations),
        };
        let proof = attest::verify::verify(&bundle, &self.coordinator.network, samples::NOW);
        let proof = proof.map_err(|e| format!("the bundle of {} does not verify: {e}", job.id))?;
        if proof.agree == agree { Ok(()) } else { Err(format!("the bundle gives {:?}, we {agree:?}", proof.agree)) }
    }

    /// With k = 1 whoever comes first decides: the channel is unverified, and a lone liar or an unstable build passes.
    fn one_may_publish(&self) -> bool {
        self.coordinator.ledger.policy().get().channels[0].agree == 1
    }

    pub(super) fn explain(&self, why: &str) -> String {
        let mut text = format!("{why}\nat {} ms; the end of the journal:\n", self.now);
        let last = self.coordinator.journal.len().saturating_sub(25);
        for (at, bytes) in &self.coordinator.journal[last..] {
            let command = Command::from_bytes(bytes, &self.coordinator.network).unwrap();
            let line: String = format!("{command:?}").chars().take(200).collect();
            writeln!(text, "  {} {line}", at.as_millis()).unwrap();
        }
        text
    }
}

fn run(seed: u64) -> Run {
    World::new(seed).run()
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

#[test]
fn whatever_goes_wrong_the_ledger_stays_right() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..seeds() {
        match run(seed) {
            Ok(counts) => counts.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{} seeds: {seen:?}", seeds());
    let never: Vec<_> = SOMETIMES.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(never.is_empty(), "these never happened: {never:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let once = |seed| {
        let mut world = World::new(seed);
        while let Some(((time, _), event)) = world.queue.pop_first().filter(|((time, _), _)| *time < FAULTS_UNTIL) {
            world.now = time;
            world.happen(event).unwrap();
        }
        world.coordinator.journal
    };
    assert!(once(7) == once(7) && !once(7).is_empty());
}

#[test]
fn planted_faults_are_found() {
    use Fault::{DeadLeaseCounts, ForgetsLost, ForgetsPublication, OneIsEnough, OperatorTwice};
    for fault in [OperatorTwice, DeadLeaseCounts, OneIsEnough, ForgetsLost, ForgetsPublication] {
        planted::plant(Some(fault));
        let found = (0..1000).find(|seed| run(*seed).is_err());
        planted::plant(None);
        println!("{fault:?} is found by seed {found:?}");
        assert!(found.is_some(), "{fault:?} stays unseen");
    }
}
