//! What needs no network: the ledger, attestations and bundles, each beside what bounds it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use artel::store::{Change, Store};
use attest::{bundle::Bundle, statement, verify};
use ed25519_dalek::Signer;
use ledger::{Command, Effect, Ledger};
use protocol::{
    blame::{Blame, Failure, Fault},
    job::job_id,
    lease::Lease,
    message::{Bid, Failed, Renewal},
    testing::{samples, signing_key},
};

use crate::{
    Options,
    table::{Row, Table},
};

/// Operators of the samples' network: two of them get each job.
const OPERATORS: u8 = 3;
/// Signatures in a bundle of two attestations: policy, request, and one each.
const BUNDLE_SIGNATURES: f64 = 4.0;

/// Measures and adds the rows.
pub(crate) fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let window = options.amount(Duration::from_secs(3), Duration::from_secs(1));
    let leases = leases_per_second(options.amount(2000, 500));
    let commits = commits_per_second(&folder.join("commits.redb"), window)?;
    table.add(Row::new("leases per second, ledger alone", leases, "/s").beside("log commits, one by one", commits));
    let request = samples::signed_request(&samples::deb_request(samples::network()));
    let bytes = attest::testing::signed_attestation(&request, 0, "content");
    let bare = signatures_per_second(&bytes, window);
    let verified = rate(window, || {
        let attestation = statement::read(&bytes, &samples::network()).context("reading an attestation")?;
        attestation.matches_request(&request).context("matching an attestation")
    })?;
    table.add(Row::new("attestations verified per second", verified, "/s").beside("bare Ed25519 verifications", bare));
    let (bundle, network) = attest::testing::bundle(&samples::genesis(OPERATORS), &["same", "same"]);
    let bytes = bundle.to_bytes();
    let verified = rate(window, || {
        let bundle = Bundle::from_bytes(&bytes).context("reading a bundle")?;
        verify::verify(&bundle, &network, samples::NOW).map(drop).context("verifying a bundle")
    })?;
    let peer = "its 4 signatures, bare";
    table.add(Row::new("bundles verified per second and core", verified, "/s").beside(peer, bare / BUNDLE_SIGNATURES));
    table.add(Row::new("verification of one bundle", 1000.0 / verified, "ms"));
    Ok(())
}

/// Repeats something for a while and gives how often it was done per second.
fn rate(window: Duration, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (begun, mut count) = (Instant::now(), 0u32);
    while begun.elapsed() < window {
        once()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn signatures_per_second(message: &[u8], window: Duration) -> f64 {
    let key = signing_key(1);
    let (signature, public) = (key.sign(message), key.verifying_key());
    rate(window, || public.verify_strict(message, &signature).context("verifying a signature")).unwrap_or(0.0)
}

/// Commits of one small log record each, to the database with which the ledger makes its decisions durable.
fn commits_per_second(path: &Path, window: Duration) -> anyhow::Result<f64> {
    let store = Store::open(path)?;
    let mut sequence = 0;
    rate(window, || {
        sequence += 1;
        let record = Change::Append(vec![(sequence, vec![0; 300])]);
        store.group_write(&[record]).context("committing")
    })
}

/// Whole leases: bid, grant, start, heartbeat and end.
fn leases_per_second(jobs: u32) -> f64 {
    let mut policy = samples::genesis(OPERATORS);
    policy.limits.open_jobs = jobs;
    let (genesis, network) = samples::signed_genesis(&policy);
    let mut ledger = Ledger::new(network, genesis).expect("the sample genesis is signed by its root");
    let mut at = samples::NOW;
    let mut submitted = Vec::new();
    for number in 0..jobs {
        let mut request = samples::command_request(network);
        request.nonce[..4].copy_from_slice(&number.to_be_bytes());
        let request = samples::signed_request(&request);
        submitted.push(job_id(&request));
        drop(ledger.apply(at, Command::Submit(request)));
    }
    let begun = Instant::now();
    let mut granted = 0;
    for job in submitted {
        for operator in policy.operators.iter().take(2) {
            at = at.after(Duration::from_millis(1));
            let bid = Bid { job, memory_mib: 8192 };
            for effect in ledger.apply(at, Command::Bid { node: operator.nodes[0], bid }) {
                if let Effect::Grant(lease) = effect {
                    granted += 1;
                    end(&mut ledger, &lease, at);
                }
            }
        }
    }
    f64::from(granted) / begun.elapsed().as_secs_f64()
}

fn end(ledger: &mut Ledger, lease: &Lease, at: protocol::Timestamp) {
    let (node, lease) = (lease.node, lease.number);
    let failure = Failure::new(Blame::Builder(Fault::Fetch), "fetch", "no such input");
    let renewals = vec![Renewal { lease, phase: "build".to_owned() }];
    drop(ledger.apply(at, Command::Started { node, lease }));
    drop(ledger.apply(at, Command::Renewed { node, renewals }));
    drop(ledger.apply(at, Command::Failed { node, report: Failed { log: None, lease, failure, statement: None } }));
}
