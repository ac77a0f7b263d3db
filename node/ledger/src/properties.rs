//! Random clusters and random commands, with every invariant checked after each one.

use proptest::prelude::*;
use protocol::{
    JobId,
    blame::{Blame, Fault},
    lease::Lease,
};

use crate::{
    Cause, Command, Effect, Ledger, Left, Opening,
    invariants::Witness,
    testing::{Bench, SALT, builder, channel, policy},
};

#[derive(Debug, Clone)]
enum Step {
    Submit { number: u8, deb: bool },
    Bid { operator: u8, node: u8, job: u8 },
    Decline { lease: u8 },
    Start { lease: u8 },
    Renew { lease: u8 },
    Commit { lease: u8, content: u8 },
    Reveal { lease: u8, content: u8 },
    Fail { lease: u8, blame: u8, step: u8 },
    Lose { operator: u8 },
    Wait { seconds: u8 },
    Sleep { seconds: u16 },
    SetBack { seconds: u16 },
    Restart,
    Cancel { job: u8 },
    Published { job: u8, end: u8 },
    Adopt { operators: u8, agree: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    prop_oneof![
        3 => (0..3u8, any::<bool>()).prop_map(|(number, deb)| Step::Submit { number, deb }),
        12 => (0..5u8, 0..2u8, byte()).prop_map(|(operator, node, job)| Step::Bid { operator, node, job }),
        1 => byte().prop_map(|lease| Step::Decline { lease }),
        4 => byte().prop_map(|lease| Step::Start { lease }),
        4 => byte().prop_map(|lease| Step::Renew { lease }),
        8 => (byte(), 0..3u8).prop_map(|(lease, content)| Step::Commit { lease, content }),
        8 => (byte(), 0..3u8).prop_map(|(lease, content)| Step::Reveal { lease, content }),
        4 => (byte(), 0..6u8, 0..2u8).prop_map(|(lease, blame, step)| Step::Fail { lease, blame, step }),
        1 => (0..5u8).prop_map(|operator| Step::Lose { operator }),
        4 => (1..30u8).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<u16>().prop_map(|seconds| Step::Sleep { seconds }),
        1 => any::<u16>().prop_map(|seconds| Step::SetBack { seconds }),
        1 => Just(Step::Restart),
        1 => byte().prop_map(|job| Step::Cancel { job }),
        4 => (byte(), 0..6u8).prop_map(|(job, end)| Step::Published { job, end }),
        1 => (1..6u8, 1..4u8).prop_map(|(operators, agree)| Step::Adopt { operators, agree }),
    ]
}

/// A bench that checks the invariants after each step.
struct Cluster {
    bench: Bench,
    leases: Vec<Lease>,
    witness: Witness,
}

impl Cluster {
    fn new(operators: u8, agree: u8) -> Self {
        let bench = Bench::new(&policy(operators, 2, channel(agree, agree, agree + 1)));
        Self { bench, leases: Vec::new(), witness: Witness::default() }
    }

    fn job(&self, number: u8) -> Option<protocol::JobId> {
        let ids: Vec<_> = self.bench.ledger.jobs.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[usize::from(number) % ids.len()])
    }

    fn lease(&self, number: u8) -> Option<Lease> {
        (!self.leases.is_empty()).then(|| self.leases[usize::from(number) % self.leases.len()].clone())
    }

    fn take(&mut self, step: &Step) -> Option<()> {
        let bench = &mut self.bench;
        match step {
            Step::Submit { number, deb } => {
                let kind = if *deb { "deb" } else { "command" };
                bench.apply(Command::Submit(crate::testing::request(bench.network, kind, *number)));
            }
            Step::Bid { operator, node, job } => {
                let job = self.job(*job)?;
                self.bench.bid(builder(*operator, *node), job);
            }
            Step::Decline { lease } => {
                let Lease { node, number: lease, .. } = self.lease(*lease)?;
                self.bench.apply(Command::Declined { node, lease, why: "no slot".into() });
            }
            Step::Start { lease } => drop(self.lease(*lease).map(|l| self.bench.start(&l))),
            Step::Renew { lease } => drop(self.lease(*lease).map(|l| self.bench.renew(&[&l]))),
            Step::Commit { lease, content } => {
                let lease = self.lease(*lease)?;
                self.bench.ledger.request(lease.job)?;
                self.bench.commit(&lease, ["a", "b", "c"][usize::from(*content)]);
            }
            Step::Reveal { lease, content } => {
                let lease = self.lease(*lease)?;
                let vote = Command::Revealed {
                    node: lease.node,
                    lease: lease.number,
                    log: protocol::Hash::of(b"log"),
                    opening: Opening::Salt(SALT),
                    attestation: crate::testing::attest(
                        &self.bench.ledger.request(lease.job)?.clone(),
                        &lease,
                        Bench::key_of(lease.node),
                        ["a", "b", "c"][usize::from(*content)],
                    ),
                };
                self.witness.before(&self.bench.ledger, &vote);
                self.bench.apply(vote);
            }
            Step::Fail { lease, blame, step } => {
                use Blame::{Cancelled, InputMismatch, Interrupted, Job, Timeout};
                let blame = [Job, Blame::Builder(Fault::Other), InputMismatch, Interrupted, Timeout, Cancelled]
                    [usize::from(*blame)];
                let lease = self.lease(*lease)?;
                self.bench.fail(&lease, blame, ["build", "fetch"][usize::from(*step)]);
            }
            Step::Lose { operator } => drop(bench.apply(Command::Lost { node: builder(*operator, 0) })),
            Step::Wait { seconds } => bench.wait(u64::from(*seconds)),
            Step::Sleep { seconds } => bench.wait(u64::from(*seconds)),
            Step::SetBack { seconds } => {
                let back = bench.now.as_millis() - u64::from(*seconds) * 1000;
                bench.now = protocol::Timestamp::from_millis(back);
                bench.apply(Command::Woken);
            }
            Step::Restart => drop(bench.apply(Command::Restarted)),
            Step::Cancel { job } => {
                let job = self.job(*job)?;
                self.bench.cancel(job, protocol::testing::samples::MAINTAINER_SEED);
            }
            Step::Published { job, end } => {
                let job = self.job(*job)?;
                self.bench.apply(publisher_says(*end, job, self.bench.ledger.generation(&"stable".parse().unwrap())));
            }
            Step::Adopt { operators, agree } => {
                let next = policy(*operators, 2, channel(*agree, *agree, *agree + 2));
                bench.adopt(|p| (p.operators, p.channels) = (next.operators, next.channels));
            }
        }
        Some(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let effects = std::mem::take(&mut self.bench.effects);
        for effect in &effects {
            if let Effect::Grant(lease) = effect {
                self.leases.push(lease.clone());
            }
        }
        self.witness.after(&self.bench.ledger, self.bench.now, &effects).map_err(TestCaseError::fail)
    }
}

/// Gives one of the ends that a try of a publication may have.
fn publisher_says(end: u8, job: JobId, generation: u64) -> Command {
    let failed = |cause, left| Command::PublishFailed { job, generation: None, cause, left, why: "disk full".into() };
    match end {
        0 => failed(Cause::Transient, Left::Nothing),
        1 => failed(Cause::Transient, Left::Perhaps),
        2 => failed(Cause::Permanent, Left::Nothing),
        3 => Command::Withdrawn { job, generation },
        _ => Command::Published { job, generation },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_invariant_holds_after_every_command(
        operators in 1..6u8,
        agree in 1..4u8,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut cluster = Cluster::new(operators, agree);
        for step in &steps {
            let _ = cluster.take(step);
            cluster.check()?;
        }
        cluster.bench.assert_replays();
    }

    #[test]
    fn bytes_that_are_no_ledger_or_command_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Ledger::from_bytes(&bytes).is_err());
        let network = protocol::testing::samples::network();
        if let Ok(command) = Command::from_bytes(&bytes, &network) {
            prop_assert_eq!(command.to_bytes(), bytes);
        }
    }
}
