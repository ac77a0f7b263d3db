//! Writes the seeds of the corpus out of the samples that the tests use: `cargo run --example seeds` in this folder. What the fuzzer
//! found stays; that is called by 40 hexadecimal digits, and seeds by words.

use std::{fs, io, path::Path};

mod more;

use attest::{
    dsse::Envelope,
    log::{
        conflict::Conflict,
        note::Line,
        proof::Proof,
        tile::{Resource, Slice, Tile},
        tree,
        witness::Request,
    },
    testing::{
        attestation, bundle,
        log::{Memory, ORIGIN, entries, log_key, witness_key},
        staple::Sample,
    },
    trust::Demands,
};
use protocol::{
    Timestamp, limits,
    ssh::{Algorithm, Key, Signature},
    testing::{public_key, samples, signing_key},
};

/// The golden bytes of the protocol's records.
const WIRE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/wire/v1");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");

fn main() -> io::Result<()> {
    wire()?;
    evidence()?;
    log()?;
    witnesses()?;
    staples()?;
    ssh()?;
    more::write()
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// What lies beside the sample package, and what its verifier trusts.
fn staples() -> io::Result<()> {
    let sample = Sample::of(&Sample::policy(1), &["x", "x"]);
    let (lines, proof) = (sample.lines(), sample.proof(&[0]));
    let length = u32::try_from(lines.len()).map_err(io::Error::other)?.to_be_bytes();
    seed("staple", "proven", &[&length[..], &lines, &proof].concat())?;
    seed("staple", "refused-unlogged", &[&length[..], &lines].concat())?;
    seed("staple", "refused-unlogged-open", &[&[0xff; 4][..], b"{}\n", &lines].concat())?;
    seed("trust", "sample", sample.trust(Demands::default()).to_string().as_bytes())
}

/// Takes the golden bytes to the target that reads them.
fn wire() -> io::Result<()> {
    for entry in fs::read_dir(WIRE)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".hex"))
        else {
            continue;
        };
        let hex: String = fs::read_to_string(&path)?.split_whitespace().collect();
        let bytes: Option<Vec<u8>> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
        let bytes = bytes.ok_or_else(|| io::Error::other(format!("{name} is not hexadecimal")))?;
        let plain = ["manifest", "lock", "lease", "failure"];
        let target = match name.split_once('-') {
            Some(("request", _)) => "request",
            Some(("response", _)) => "response",
            Some(("record", rest)) if rest.starts_with("recipe") => "recipe",
            Some(("record", rest)) if plain.iter().any(|plain| rest.starts_with(plain)) && rest != "leadership" => {
                "record"
            }
            _ => "envelope",
        };
        seed(target, name, &bytes)?;
    }
    Ok(())
}

fn evidence() -> io::Result<()> {
    let (bundle, network) = bundle(&samples::genesis(3), &["honest", "honest", "other"]);
    seed("bundle", "three", &bundle.to_bytes())?;
    let requests = [
        ("deb", samples::deb_request(network)),
        ("rpm", samples::rpm_request(network)),
        ("command", samples::command_request(network)),
        ("image", samples::image_request(network)),
        ("fetch", samples::fetch_request(network)),
        ("environment", samples::environment_request(network)),
    ];
    for (name, request) in requests {
        let request = samples::signed_request(&request);
        // Not every kind of job may have a package among its outputs.
        let Ok(attestation) = attestation(&request, 0, "x").sign(&signing_key(10)) else { continue };
        seed("attestation", name, &attestation)?;
        let envelope = Envelope::read(&attestation, limits::ATTESTATION_MAX).map_err(io::Error::other)?;
        seed("statement", name, envelope.payload())?;
    }
    let json = fs::read(Path::new(WIRE).join("attest/deb.intoto.json"))?;
    seed("attestation", "golden", &json)
}

/// Takes what `ssh-keygen` made, as texts and as the blobs in them.
fn ssh() -> io::Result<()> {
    for name in ["job.sig", "job-sha256.sig", "policy.sig", "ecdsa.sig", "ed25519.pub", "rsa.pub", "encrypted"] {
        let text = fs::read_to_string(Path::new(FIXTURES).join("ssh").join(name))?;
        let refused = if ["ecdsa.sig", "rsa.pub"].contains(&name) { "refused-" } else { "" };
        seed("sshsig", &format!("{refused}{name}"), text.as_bytes())?;
        let blob = Signature::parse(&text).map(|signature| signature.to_blob());
        if let Ok(blob) = blob.or_else(|_| Key::parse(&text).map(|key| key.to_blob())) {
            seed("sshsig", &format!("{name}.blob"), &blob)?;
        }
    }
    let algorithm = Algorithm::Device { application: "ssh:artel".to_owned() };
    let key = Key { public: public_key(9), algorithm };
    seed("sshsig", "device.blob", &key.to_blob())?;
    let strings = |parts: &[&[u8]]| -> Vec<u8> {
        parts.iter().flat_map(|part| [&[0, 0, 0, u8::try_from(part.len()).unwrap_or(0)], *part].concat()).collect()
    };
    let given = [strings(&[key.name().as_bytes(), &[3; 64]]), vec![5, 0, 0, 0, 41]].concat();
    let rest = strings(&[&key.to_blob(), b"job@artel", b"", b"sha512", &given]);
    seed("sshsig", "device.sig.blob", &[&b"SSHSIG\0\0\0\x01"[..], &rest].concat())
}

fn log() -> io::Result<()> {
    for (at, entry) in entries().iter().enumerate() {
        seed("entry", &format!("{at}-{}", entry.event.word()), &entry.to_bytes())?;
    }
    let log = Memory::sized(300);
    let checkpoint = log.checkpoint(300);
    let text = checkpoint.as_signed().to_string();
    seed("checkpoint", "log", text.as_bytes())?;
    seed("checkpoint", "text", checkpoint.get().to_string().as_bytes())?;
    seed("note", "with-key", format!("{}\n{text}", log_key(ORIGIN)).as_bytes())?;
    seed("note", "alone", text.as_bytes())?;
    let last = Slice::holding(299, 300).ok_or_else(|| io::Error::other("299 is below 300"))?;
    let with = |path: String, bytes: Vec<u8>| [path.as_bytes(), b"\n", &bytes].concat();
    seed("tile", "entries", &with(Resource::Entries(last).to_string(), log.bundle(last)))?;
    for tile in Tile::partial(300) {
        let name = tile.to_string().replace('/', "-");
        seed("tile", &name, &with(Resource::Tile(tile).to_string(), log.tile(tile)))?;
    }
    seed("tile", "far", b"tile/entries/x001/x234/067.p/3\n\x00\x01a\x00\x00\x00\x02bc")?;
    for (name, [old, new, index]) in
        [("small", [3u64, 7, 5]), ("tiles", [300, 699, 256]), ("huge", [1 << 62, 1 << 63, 1 << 40])]
    {
        let proof = tree::consistency(3, 7, &log).map_err(|_| io::Error::other("a log of 300 was once of 7"))?;
        let hashes = [log.head(7).root].into_iter().chain(proof).flat_map(|hash| *hash.as_bytes());
        let numbers = [old, new, index].into_iter().flat_map(u64::to_be_bytes);
        seed("tree", name, &numbers.chain(hashes).collect::<Vec<u8>>())?;
    }
    Ok(())
}

fn witnesses() -> io::Result<()> {
    let (log, fork) = (Memory::sized(40), Memory::forked(40, 3));
    let missing = |_| io::Error::other("a log of 40 has these proofs");
    for (name, log, old, new) in [("first", &log, 0, 21), ("next", &log, 21, 40), ("fork", &fork, 21, 40)] {
        let proof = tree::consistency(old, new, log).map_err(missing)?;
        seed("witness", name, Request::new(old, proof, &log.checkpoint(new)).to_string().as_bytes())?;
    }
    let proof = tree::consistency(21, 40, &fork).map_err(missing)?;
    let conflict = Conflict::find(&log.checkpoint(21), &fork.checkpoint(40), &proof);
    seed("conflict", "fork", &conflict.ok_or_else(|| io::Error::other("a fork convicts"))?.to_bytes())?;

    let own = Memory::of(entries().iter().map(|entry| entry.to_bytes()));
    let checkpoint = own.checkpoint(13);
    let text = checkpoint.as_signed().note().text();
    let line = Line::cosign(witness_key(5).name(), &signing_key(5), text, Timestamp::from_millis(1_700_000_000_000));
    let cosigned = checkpoint.with_answer(&line.to_string(), &[witness_key(5)]).map_err(io::Error::other)?;
    seed("checkpoint", "cosigned", cosigned.as_signed().to_string().as_bytes())?;
    let path = tree::inclusion(4, 13, &own).map_err(missing)?;
    let proof = Proof::of_entry(&entries()[4], 4, path, cosigned.as_signed().clone());
    seed("proof", "entry", proof.to_string().as_bytes())?;

    let keys: String =
        (1..=4).map(|at| format!("witness w{at} {} https://w{at}.example/\n", witness_key(at))).collect();
    let groups = "group a 2 w1 w2 w3\ngroup b any w4\ngroup both all a b\nquorum both\n";
    seed("policy", "groups", format!("# A policy.\nlog {}\n{keys}{groups}", log_key(ORIGIN)).as_bytes())?;
    seed("policy", "none", b"quorum none\n")
}
