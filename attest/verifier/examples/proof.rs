//! What proving packages costs, beside the bare signatures in the same run: `cargo run --release -p artel-verify --example proof`.
//! With `--quick`, less of everything.

use std::{
    error::Error,
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use attest::{
    bundle::Bundle,
    compare::Output,
    testing::{attestation, deb::deb, output, staple::Sample},
    trust::{Demands, Trust},
    verify::{Moment, Stapled, verify_stapled},
};
use protocol::{
    NetworkId, Verified,
    envelope::{pae, verify_ed25519},
    job::{JobKind, JobRequest},
    message::Octets,
    testing::{public_key, samples, signing_key},
};
use verifier::Verifier;

/// Signatures behind one package: its request, two attestations, the log's, two witnesses'.
const SIGNATURES: f64 = 6.0;
/// Bytes of each package's one file.
const SALT: usize = 50 * 1024;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let quick = std::env::args().any(|word| word == "--quick");
    let (window, packages) = if quick { (Duration::from_millis(500), 100) } else { (Duration::from_secs(3), 1000) };
    let policy = Sample::policy(2);
    let (genesis, network) = samples::signed_genesis(&policy);
    let trust = Trust::new(network, &[(genesis.to_bytes(), Some(0))], Demands::default(), samples::NOW)?;
    one(&trust, window)?;
    let folder = std::env::temp_dir().join(format!("artel-proof-{}", std::process::id()));
    let told = repository(&folder, (&genesis.to_bytes(), network), trust, packages);
    fs::remove_dir_all(&folder)?;
    told
}

/// One package's staples, without the package itself.
fn one(trust: &Trust, window: Duration) -> Result<(), Failure> {
    let sample = Sample::of(&Sample::policy(2), &["x", "x"]);
    let (lines, proof) = (sample.lines(), sample.proof(&[0, 1]));
    let stapled = Stapled { lines: &lines, proof: Some(&proof) };
    let moment = Moment { now: samples::NOW, checkpoint: None };
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < window {
        let at = Instant::now();
        black_box(verify_stapled(&stapled, trust, &moment)?);
        times.push(at.elapsed());
    }
    times.sort();
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    let millis = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1000.0;
    let (median, late) = (millis(times.len() / 2), millis(times.len() * 95 / 100));
    row("staples of one package verified, p50 / p95", &format!("{median:.3} / {late:.3} ms"), "");
    let bare = signatures(&sample.bundle.attestations[0].0, window);
    let limit = bare / SIGNATURES;
    let share = format!("their six signatures, bare: {limit:.0} /s ({:.2}x)", per_second / limit);
    row("staples verified per second and core", &format!("{per_second:.0} /s"), &share);
    let kinds = format!("lines {} of two builders, the proof from the log {}", lines.len(), proof.len());
    row("bytes of proof beside a small package", &format!("{}", lines.len() + proof.len()), &kinds);
    Ok(())
}

/// Gives how many bare signatures over a message like this one are verified per second.
fn signatures(message: &[u8], window: Duration) -> f64 {
    use ed25519_dalek::Signer;
    let message = pae("application/vnd.in-toto+json", message);
    let signature = signing_key(10).sign(&message).to_bytes();
    let (begun, mut count) = (Instant::now(), 0u32);
    while begun.elapsed() < window {
        verify_ed25519(&public_key(10), &message, &signature).expect("it was just signed");
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// A whole repository, each package of a job of its own.
fn repository(folder: &Path, of: (&[u8], NetworkId), trust: Trust, packages: usize) -> Result<(), Failure> {
    let mut index = String::new();
    fs::create_dir_all(folder.join("pool"))?;
    for number in 0..packages {
        let name = format!("sample-{number:04}");
        let bytes = deb((&name, "1.0", "amd64"), &format!("{number}").repeat(SALT / number.to_string().len()));
        let file = format!("{name}_1.0_amd64.deb");
        let sample = built(of, &name, &output(&file, &bytes));
        fs::write(folder.join("pool").join(&file), &bytes)?;
        fs::write(folder.join("pool").join(format!("{file}.intoto.jsonl")), sample.lines())?;
        fs::write(folder.join("pool").join(format!("{file}.tlog-proof")), sample.proof(&[0, 1]))?;
        index += &format!("Package: {name}\nVersion: 1.0\nArchitecture: amd64\nFilename: pool/{file}\n\n");
    }
    let indexes = folder.join("dists/stable/main/binary-amd64");
    fs::create_dir_all(&indexes)?;
    fs::write(indexes.join("Packages"), index)?;
    let verifier = Verifier { trust, now: samples::NOW, checkpoint: None };
    let begun = Instant::now();
    let checked = verifier.repository(folder)?;
    let took = begun.elapsed().as_secs_f64();
    let proven = checked.iter().filter(|checked| checked.result.is_ok()).count();
    if proven != packages {
        return Err(format!("{proven} of {packages} packages are proven").into());
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let rest = format!("on {cores} cores, {:.0} packages/s, 51 KiB each", packages as f64 / took);
    row(&format!("repository of {packages} packages verified"), &format!("{took:.2} s"), &rest);
    Ok(())
}

/// Has two operators build a package.
fn built((genesis, network): (&[u8], NetworkId), name: &str, output: &Output) -> Sample {
    let request = request(network, name);
    let signed = |at: u8| {
        let mut attestation = attestation(&request, at, "");
        attestation.outputs = vec![output.clone()];
        Octets(attestation.sign(&signing_key(10 + at)).expect("the sample keeps its own rules"))
    };
    let bundle = Bundle {
        lock: Octets(samples::lock().to_bytes()),
        course: None,
        request: Octets(request.to_bytes()),
        policies: vec![Octets(genesis.to_vec())],
        promotions: Vec::new(),
        attestations: vec![signed(0), signed(1)],
    };
    Sample::of_bundle(bundle, network)
}

fn request(network: NetworkId, name: &str) -> Verified<JobRequest> {
    let mut request = samples::deb_request(network);
    if let JobKind::Deb(deb) = &mut request.kind {
        deb.source = name.parse().expect("a sample name is valid");
    }
    samples::signed_request(&request)
}

/// Prints a row of the README's table.
fn row(what: &str, value: &str, beside: &str) {
    println!("| {what} | {value} | {beside} |");
}
