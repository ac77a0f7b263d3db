//! `artel-verify`: checks a bundle, and files against it, without any network or server.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::UNIX_EPOCH,
};

use attest::{
    bundle::{BUNDLE_MAX, Bundle},
    verify::{Error, Proof, verify},
};
use protocol::{NetworkId, Sha256, Timestamp};
use serde_json::{Value, json};
use sha2::Digest;

const USAGE: &str = "\
usage: artel-verify --network HEX [--json] BUNDLE [FILE...]

Checks, offline, that enough independent operators built the files of BUNDLE bit for bit the same, and that each FILE is
one of them. HEX is the network's id (64 hexadecimal digits): the only thing that is believed.

exit status: 0 proven, 1 something else failed, 2 usage, 10 no attestation, 11 too few operators agree,
             12 builders disagree or a FILE differs, 13 bad signature or broken chain
";

/// The most bytes of an RPM in which its signatures are looked for.
const RPM_SIGNATURE_MAX: u64 = 4 << 20;

enum Output {
    Text,
    Json,
}

struct Arguments {
    network: NetworkId,
    bundle: PathBuf,
    files: Vec<PathBuf>,
    output: Output,
}

/// Why the program ends without a proof.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}\n\n{USAGE}")]
    Usage(String),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Verify(#[from] Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Read { .. } => 1,
            Failure::Verify(error) => error.exit_code(),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|w| w == "--help" || w == "-h") {
        print(USAGE);
        return ExitCode::SUCCESS;
    }
    let wants_json = words.iter().any(|w| w == "--json");
    match parse(words).and_then(|arguments| run(&arguments)) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let code = failure.exit_code();
            let words = chain(&failure);
            if wants_json {
                print(&format!("{}\n", json!({ "proven": false, "exit": code, "error": words })));
            }
            eprintln!("artel-verify: {words}");
            ExitCode::from(code)
        }
    }
}

/// Writes to stdout; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = io::stdout().write_all(text.as_bytes());
}

fn chain(failure: &Failure) -> String {
    let mut words = failure.to_string();
    let mut next = std::error::Error::source(failure);
    while let Some(source) = next {
        let text = source.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        next = source.source();
    }
    words
}

fn parse(words: Vec<String>) -> Result<Arguments, Failure> {
    let (mut network, mut output, mut paths) = (None, Output::Text, Vec::new());
    let mut only_paths = false;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            _ if only_paths => paths.push(PathBuf::from(word)),
            "--" => only_paths = true,
            "--json" => output = Output::Json,
            "--network" => network = words.next(),
            other if other.starts_with("--network=") => network = other.split_once('=').map(|(_, id)| id.to_owned()),
            other if other.starts_with('-') => return Err(Failure::Usage(format!("unknown option {other}"))),
            _ => paths.push(PathBuf::from(word)),
        }
    }
    let network = network.ok_or_else(|| Failure::Usage("--network HEX is needed".to_owned()))?;
    let network = network.parse().map_err(|e| Failure::Usage(format!("--network: {e}")))?;
    if paths.is_empty() {
        return Err(Failure::Usage("name a BUNDLE".to_owned()));
    }
    let bundle = paths.remove(0);
    Ok(Arguments { network, bundle, files: paths, output })
}

fn run(arguments: &Arguments) -> Result<String, Failure> {
    let bundle = Bundle::from_bytes(&read_bundle(&arguments.bundle)?).map_err(Error::from)?;
    let proof = verify(&bundle, &arguments.network, now())?;
    for path in &arguments.files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        proof.file(&name, &hash(path)?)?;
    }
    Ok(match arguments.output {
        Output::Text => text(&proof, &arguments.files),
        Output::Json => format!("{}\n", report(&proof, &arguments.files)),
    })
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let limit = u64::try_from(BUNDLE_MAX).expect("a few megabytes fit") + 1;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn hash(path: &Path) -> Result<Sha256, Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; 64 * 1024]);
    if path.extension().is_some_and(|end| end == "rpm") {
        // Whoever publishes an RPM signs it; without its signature it is what was built.
        let mut first = Vec::new();
        (&mut file).take(RPM_SIGNATURE_MAX).read_to_end(&mut first).map_err(failed)?;
        match attest::rpm::unsigned(&first) {
            Ok(unsigned) => {
                hasher.update(&unsigned.bytes);
                hasher.update(&first[unsigned.instead_of..]);
            }
            Err(_) => hasher.update(&first),
        }
    }
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Sha256::from_bytes(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program has no daemon's clock; the time is read here and only here"
)]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO.after(since)
}

fn text(proof: &Proof, files: &[PathBuf]) -> String {
    let mut lines = proof.lines();
    lines.extend(files.iter().map(|path| format!("ok {}", path.display())));
    lines.push(String::new());
    lines.join("\n")
}

fn report(proof: &Proof, files: &[PathBuf]) -> Value {
    json!({
        "proven": true,
        "exit": 0,
        "network": proof.network,
        "policy": proof.policy.number,
        "job": proof.job,
        "title": proof.request.title(),
        "channel": proof.request.channel,
        "maintainer": proof.maintainer,
        "environment": proof.request.environment,
        "wanted": proof.rule.agree,
        "agree": proof.agree,
        "dissent": proof.dissent,
        "outputs": proof.outputs,
        "files": files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}
