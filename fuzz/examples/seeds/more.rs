//! Seeds of what is not the log's and not golden: words, packages, sources, commands.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use artel_fuzz::targets::packages::{RELEASED, SIGNED_TEXT};
use attest::{
    log::entry::{End, Entry, Event},
    negative::Negative,
    testing::{bundle, log::entries},
};
use leaves::{publish::sign::RepositoryKey, recipe::form::Form, ticket::Ticket};
use ledger::{Command, Ledger, Opening};
use protocol::{
    Hash, Salt, Signed, Timestamp,
    lease::LeaseNumber,
    message::{Bid, Commitment, Failed, Renewal},
    testing::{node, samples, signing_key},
};

use super::{FIXTURES, seed};

pub(super) fn write() -> io::Result<()> {
    words()?;
    negatives()?;
    commands()?;
    story()?;
    packages()?;
    openpgp()?;
    sources()
}

fn words() -> io::Result<()> {
    let bootstrap = vec!["/ip4/192.0.2.7/udp/4700/quic-v1/p2p/12D3KooWexample".to_owned()];
    seed("ticket", "one", Ticket { network: samples::network(), bootstrap }.to_string().as_bytes())?;
    for (name, text) in [
        ("url", "https://host.example:8443/a/b.tar.gz?c=d"),
        ("rule", "*.example.org:8080"),
        ("version", "1:2.10-3+deb12u1"),
        ("version-rpm", "3:1.2^git3-1"),
        ("path", "pool/h/hello/hello_2.10-3_amd64.deb"),
        ("commit", "0123456789abcdef0123456789abcdef01234567"),
        ("reference", "refs/heads/debian/main"),
        ("arch", "amd64"),
    ] {
        seed("words", name, text.as_bytes())?;
    }
    seed("words", "hash", Hash::of(b"x").to_string().as_bytes())?;
    seed("version", "debian", b"1.0~rc1-1\n1:0.9\n1.0-1+b1")?;
    seed("version", "rpm", b"1.2^git3-1\n1.2~rc-1\n1.2-1")
}

fn negatives() -> io::Result<()> {
    let request = samples::signed_request(&samples::deb_request(samples::network()));
    for (name, log) in [("plain", None), ("with-log", Some(Hash::of(b"log")))] {
        let (network, job) = (samples::network(), protocol::job::job_id(&request));
        let said = Negative { network, job, node: node(10), lease: LeaseNumber(7), failure: samples::failure(), log };
        let bytes = said.sign(&signing_key(10)).map_err(io::Error::other)?;
        seed("negative", name, &bytes)?;
        let envelope = attest::dsse::Envelope::read(&bytes, bytes.len()).map_err(io::Error::other)?;
        seed("negative", &format!("{name}-statement"), envelope.payload())?;
    }
    seed("opening", "one", &[&7u64.to_be_bytes()[..], &[2; 32], b"{}"].concat())
}

fn commands() -> io::Result<()> {
    let (genesis, network) = samples::signed_genesis(&samples::genesis(3));
    let request = samples::signed_request(&samples::deb_request(network));
    let job = protocol::job::job_id(&request);
    let (bundle, _) = bundle(&samples::genesis(3), &["x", "x"]);
    let attestation = attest::statement::read(&bundle.attestations[0].0, &network).map_err(io::Error::other)?;
    let (lease, log) = (LeaseNumber(1), Hash::of(b"log"));
    let second = Signed::sign(&samples::second(network, 3), Some(&network), &[&signing_key(samples::ROOT_SEED)]);
    let second = second.verify(Some(&network)).map_err(io::Error::other)?;
    let report = Failed { log: None, lease, failure: samples::failure(), statement: None };
    let list = vec![
        ("adopt", Command::AdoptPolicy(second)),
        ("submit", Command::Submit(request)),
        ("bid", Command::Bid { node: node(10), bid: Bid { job, memory_mib: 8192 } }),
        ("offer", Command::Offer { node: node(11), offer: samples::offer() }),
        ("renewed", Command::Renewed { node: node(10), renewals: vec![Renewal { lease, phase: "build".into() }] }),
        ("started", Command::Started { node: node(10), lease }),
        (
            "committed",
            Command::Committed { node: node(10), commitment: Commitment { lease, digest: log, signature: None } },
        ),
        (
            "opened",
            Command::Revealed {
                node: node(10),
                lease,
                log,
                opening: Opening::Salt(Salt::from_bytes([5; 32])),
                attestation,
            },
        ),
        ("failed", Command::Failed { node: node(11), report }),
        ("lost", Command::Lost { node: node(12) }),
        ("woken", Command::Woken),
        ("published", Command::Published { job, generation: 1 }),
    ];
    let mut ledger = Ledger::new(network, genesis).map_err(io::Error::other)?;
    seed("snapshot", "empty", &ledger.to_bytes())?;
    for (at, (name, command)) in (0u64..).zip(list) {
        seed("command", name, &command.to_bytes())?;
        // The builder's offers and attestations are not this ledger's; what it makes of them is its matter.
        let _ = ledger.apply(Timestamp::from_millis(samples::NOW.as_millis() + at), command);
        if ["submit", "offer", "published"].contains(&name) {
            seed("snapshot", name, &ledger.to_bytes())?;
        }
        if name == "submit" {
            let twice =
                job_twice(&ledger.to_bytes()).ok_or_else(|| io::Error::other("a snapshot has jobs, then a pace"))?;
            seed("snapshot", "refused-job-twice", &twice)?;
        }
    }
    Ok(())
}

/// Names the only job of a snapshot for the second time.
fn job_twice(snapshot: &[u8]) -> Option<Vec<u8>> {
    let find = |what: &[u8]| snapshot.windows(what.len()).position(|part| part == what);
    let (list, next) = (find(b"\x64jobs\x81")? + 5, find(b"\x64pace")?);
    Some([&snapshot[..list], &[0x82], &snapshot[list + 1..next], &snapshot[list + 1..]].concat())
}

/// A log's beginning: a policy, a job, an attempt that ends well, a verdict, a release.
fn story() -> io::Result<()> {
    let order = ["policy", "accepted", "lease", "commitment", "outcome", "verdict", "release", "revocation"];
    let mut entries: Vec<Entry> = entries();
    entries.sort_by_key(|entry| order.iter().position(|word| *word == entry.event.word()));
    let is_lone = |entry: &Entry| !matches!(&entry.event, Event::Outcome(outcome) if outcome.end == End::Lost);
    let bytes = entries.iter().filter(|entry| is_lone(entry)).flat_map(|entry| {
        let bytes = entry.to_bytes();
        [&u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes()[..], &bytes].concat()
    });
    seed("story", "short", &bytes.collect::<Vec<u8>>())?;
    let mut story = attest::log::story::Story::default();
    entries.iter().for_each(|entry| drop(story.read(entry)));
    seed("story", "kept", &story.to_bytes())
}

const CONTROL: &str =
    "Package: tiny\nVersion: 1:0.5\nArchitecture: amd64\nMaintainer: M <m@x>\nDescription: a test\n of it\n";

fn packages() -> io::Result<()> {
    for name in ["source.rpm", "unsigned.rpm"] {
        let bytes = fs::read(Path::new(FIXTURES).join("rpm").join(name))?;
        for target in ["rpm", "rpm_entry", "spec"] {
            if (name, target) != ("source.rpm", "rpm_entry") && (name, target) != ("unsigned.rpm", "spec") {
                seed(target, name, &bytes)?;
            }
        }
    }
    let tar = [tar("./md5sums", b"x"), tar("./control", CONTROL.as_bytes()), vec![0; 1024]].concat();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar)?;
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar)?;
    let packed =
        [("tar.gz", gz.finish()?), ("tar.xz", xz.finish()?), ("tar.zst", zstd::encode_all(tar.as_slice(), 1)?)];
    for (end, bytes) in packed.into_iter().chain([("tar", tar.clone())]) {
        let control = format!("control.{end}");
        let members = [("debian-binary", &b"2.0\n"[..]), (control.as_str(), &bytes), ("data.tar", &[0; 1024])];
        seed("deb", &end.replace('.', "-"), &ar(&members))?;
    }
    let packages = format!("{CONTROL}Filename: pool/tiny_0.5_amd64.deb\nSize: 10\nSHA256: {}\n\n", "ab".repeat(32));
    seed("index", "packages", packages.repeat(2).as_bytes())?;
    let released =
        RELEASED.map(|file| format!("Package: x\nVersion: 1\nFilename: {file}\nDescription: x\n x\n\n")).concat();
    seed("release_index", "all", released.as_bytes())?;
    seed("release_index", "refused-other", format!("{released}filename: pool/evil.deb\n").as_bytes())?;
    let repomd = "<repomd>\n<data type=\"other\">\n<location href=\"repodata/o.xml.gz\"/></data>\n  <data type=\"primary\">\n\
                  <location href=\"repodata/p.xml.gz\"/>\n</data></repomd>";
    seed("index", "repomd", repomd.as_bytes())?;
    let primary = "<metadata packages=\"1\">\n<package type=\"rpm\"><name>Answer</name><arch>x86_64</arch>\
                   <version epoch=\"3\" ver=\"1.2\" rel=\"1\"/><location href=\"pool/Answer.rpm\"/></package></metadata>";
    seed("index", "primary", primary.as_bytes())?;
    let said = "VERSION 3\nAPT::Architecture=amd64\nDir=/\nDir::Etc=a%20b%0a\nDPkg::Pre-Install-Pkgs::=y\n\n\
                old 1 amd64 none > - - none **REMOVE**\ntiny - - none < 1:0.5 amd64 none /var/cache/apt/tiny_0.5_amd64.deb\n";
    seed("apt_input", "two", said.as_bytes())
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = [&header[..], content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

fn openpgp() -> io::Result<()> {
    let made = Timestamp::from_millis(1_780_000_000_000);
    let key = RepositoryKey::from_seed("fuzz", made, [7; 32]).map_err(io::Error::other)?;
    seed("openpgp", "certificate", key.certificate().map_err(io::Error::other)?.bytes())?;
    seed("openpgp", "clear", key.sign_clear(SIGNED_TEXT, made).map_err(io::Error::other)?.as_bytes())?;
    seed("openpgp", "packet", &key.sign_packet(SIGNED_TEXT.as_bytes()).map_err(io::Error::other)?)?;
    let detached = key.sign_detached(SIGNED_TEXT.as_bytes(), made).map_err(io::Error::other)?;
    seed("openpgp", "detached", detached.as_bytes())
}

fn sources() -> io::Result<()> {
    for name in ["artel-tiny_1.0.dsc", "artel-dated_1.0.dsc"] {
        seed("dsc", name, &fs::read(Path::new(FIXTURES).join("deb").join(name))?)?;
    }
    let files: String = (0..13_800).map(|at| format!(" {} 0 f{at}\n", "0".repeat(64))).collect();
    let files = format!("Source: x\nVersion: 1\nChecksums-Sha256:\n{files}");
    seed("dsc", "refused-many-files", files.as_bytes())?;
    let buildinfo = "Format: 1.0\nSource: hello\nBinary: hello\nArchitecture: amd64\nVersion: 2.10-3\nBuild-Architecture: amd64\n\
        Installed-Build-Depends:\n gcc-12 (= 12.2.0-14),\n libc6:amd64 (= 2.36-9)\n";
    seed("buildinfo", "small", buildinfo.as_bytes())?;
    let digest = protocol::Sha256::of(b"x");
    let changes = format!(
        "Format: 1.8\nSource: hello\nArchitecture: amd64\nVersion: 2.10-3\nChecksums-Sha1:\n {} 4 hello_2.10-3_amd64.deb\n\
         Checksums-Sha256:\n {digest} 4 hello_2.10-3_amd64.deb\n {digest} 5 hello_2.10-3_amd64.buildinfo\nFiles:\n {} 4 devel \
         optional hello_2.10-3_amd64.deb\n",
        "0".repeat(40),
        "0".repeat(32),
    );
    seed("changes", "small", changes.as_bytes())?;
    let twice = format!("Checksums-Sha256:\n {digest} 4 a.deb\n {digest} 4 a.deb\n");
    seed("changes", "refused-twice", twice.as_bytes())?;
    seed("changes", "rpms", b"a-1-1.src.rpm\na-1-1.x86_64.rpm\n")?;
    seed("spec", "artel-answer", &fs::read(Path::new(FIXTURES).join("rpm/artel-answer.spec"))?)?;
    let macros = "%global major 3\n%define minor 4\nName: cow-x\nVersion: %major.%{minor}%{?rc}\n\
                  Source0: https://a.example/%{name}-%{version}.tar.gz\nBuildRequires: (a or b) c\n%prep\n";
    seed("spec", "macros", macros.as_bytes())?;
    let unclosed = format!("Name: xy\nVersion: 1\nBuildRequires: ({}\n", " a".repeat(524_000));
    seed("spec", "unclosed", unclosed.as_bytes())?;
    let long =
        format!("%global a {}\nName: xy\nVersion: 1\n", "b".repeat(524_000)) + &"BuildRequires: %a\n".repeat(29_000);
    seed("spec", "refused-long-macro", long.as_bytes())?;
    let source = [tar("a.spec", b"Name: a\n"), tar("evr", b"0:1-1\n"), vec![0; 1024]].concat();
    seed("source_tar", "spec", &source)?;
    let commit = r#"{"commit":"0123456789abcdef0123456789abcdef01234567","time":1795219200,"ordinal":3}"#;
    seed("commit", "one", commit.as_bytes())?;
    for (name, recipe) in
        [("git", samples::recipe(samples::network())), ("named", samples::recipe_named(samples::network()))]
    {
        let form = Form::of(&recipe).ok_or_else(|| io::Error::other("the sample has a plan"))?;
        seed("form", name, form.to_toml().as_bytes())?;
    }
    let difference = "--- left\n+++ right\n│   --- left/out\n├── +++ right/out\n│ @@ -1 +1 @@\n│ -built on artel\n\
                      │ +built on varied-host-1\n";
    seed("difference", "hostname", difference.as_bytes())
}
