//! Prints how many leases per second the ledger alone decides, without network, disk and signatures.
//!
//! `cargo run --release -p artel-ledger --example leases_per_second [JOBS]`: one line of JSON with the rate of whole leases
//! (bid, grant, start, heartbeat, end), of grants alone, and of commands.

use std::time::{Duration, Instant};

use ledger::{Command, Effect, Ledger};
use protocol::{
    Timestamp,
    blame::{Blame, Failure, Fault},
    job::job_id,
    lease::Lease,
    message::{Bid, Failed, Renewal},
    testing::samples,
};

/// Two operators of three get each job.
const OPERATORS: u8 = 3;

struct Meter {
    ledger: Ledger,
    at: Timestamp,
    commands: u64,
    spent: Duration,
}

impl Meter {
    fn apply(&mut self, command: Command) -> (Vec<Effect>, Duration) {
        self.at = self.at.after(Duration::from_millis(1));
        let begin = Instant::now();
        let effects = self.ledger.apply(self.at, command);
        let took = begin.elapsed();
        self.spent += took;
        self.commands += 1;
        (effects, took)
    }
}

fn main() {
    let jobs: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2000);
    let mut policy = samples::genesis(OPERATORS);
    policy.limits.open_jobs = jobs;
    let (genesis, network) = samples::signed_genesis(&policy);
    let ledger = Ledger::new(network, genesis).expect("the sample genesis is signed by its root");
    let mut meter = Meter { ledger, at: samples::NOW, commands: 0, spent: Duration::ZERO };
    let mut submitted = Vec::new();
    for number in 0..jobs {
        let mut request = samples::command_request(network);
        request.nonce[..4].copy_from_slice(&number.to_be_bytes());
        let request = samples::signed_request(&request);
        submitted.push(job_id(&request));
        meter.apply(Command::Submit(request));
    }
    let (mut leases, mut granting) = (Vec::<Lease>::new(), Duration::ZERO);
    meter.spent = Duration::ZERO;
    meter.commands = 0;
    for job in submitted {
        for operator in policy.operators.iter().take(2) {
            let bid = Bid { job, memory_mib: 8192 };
            let (effects, took) = meter.apply(Command::Bid { node: operator.nodes[0], bid });
            granting += took;
            leases.extend(
                effects.into_iter().filter_map(|e| if let Effect::Grant(lease) = e { Some(lease) } else { None }),
            );
        }
    }
    let granted = leases.len();
    for Lease { node, number: lease, .. } in leases {
        let renewals = vec![Renewal { lease, phase: "build".to_owned() }];
        meter.apply(Command::Started { node, lease });
        meter.apply(Command::Renewed { node, renewals });
        let failure = Failure::new(Blame::Builder(Fault::Fetch), "fetch", "no such input");
        meter.apply(Command::Failed { node, report: Failed { log: None, lease, failure } });
    }
    let rate = |count: f64, time: Duration| (count / time.as_secs_f64()).round();
    println!(
        "{{\"jobs\":{jobs},\"leases\":{granted},\"leases_per_second\":{},\"grants_per_second\":{},\"commands_per_second\":{}}}",
        rate(granted as f64, meter.spent),
        rate(granted as f64, granting),
        rate(meter.commands as f64, meter.spent),
    );
}
