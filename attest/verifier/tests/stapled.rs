//! The program on packages with their evidence beside them: files, names, repositories; what is changed is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot lay out its files has failed")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use attest::{
    testing::{
        DEB,
        deb::deb,
        staple::{BEFORE, Sample},
    },
    trust::Demands,
};
use protocol::{
    Timestamp,
    policy::{Channel, Policy},
    testing::samples,
};
use serde_json::Value;

const IDENTITY: (&str, &str, &str) = ("base-files", "12.4", "amd64");

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Lays out a package, what operators attested of it, the proof from the log and the policy file.
    fn new(contents: &[&str]) -> Self {
        Self::under(&Sample::policy(2), contents)
    }

    fn under(policy: &Policy, contents: &[&str]) -> Self {
        let sample = Sample::of(policy, contents);
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        bench.write(DEB, contents[0].as_bytes());
        bench.write(&format!("{DEB}.intoto.jsonl"), &sample.lines());
        bench.write(&format!("{DEB}.tlog-proof"), &sample.proof(&[0, 1]));
        bench.write("verify.policy", sample.trust(Demands::default()).to_string().as_bytes());
        bench
    }

    fn honest() -> Self {
        let good = deb(IDENTITY, "a");
        Self::new(&[&good, &good, "lie"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_artel-verify"));
        command.current_dir(self.folder.path()).args(["--policy", "verify.policy"]).args(words).output().unwrap()
    }

    fn code(&self, words: &[&str]) -> i32 {
        self.run(words).status.code().unwrap()
    }

    /// Changes one byte in the middle of a file, and gives the exit code.
    fn spoilt(&self, name: &str) -> i32 {
        let kept = fs::read(self.path(name)).unwrap();
        let mut changed = kept.clone();
        changed[kept.len() / 2] ^= 1;
        self.write(name, &changed);
        let code = self.code(&[DEB]);
        self.write(name, &kept);
        code
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn a_file_with_its_evidence_is_proven_and_told_by_whom() {
    let bench = Bench::honest();
    let output = bench.run(&[DEB]);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "signed by maintainer maria",
        "2 operators agree, 2 needed by channel stable",
        "op-a signed with node",
        "(node 0b513ad9b4924015ca0902ed079044d3ac5dbec2306f06948c10da8eb6e39f2d) signed something else",
        "entry 40 of 81",
        "seen by op-b at 2026-11-21T00:00:00Z",
        "ok base-files_12.4_amd64.deb: base-files 12.4 amd64, for channel stable",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let json: Value = serde_json::from_slice(&bench.run(&["--json", DEB]).stdout).unwrap();
    assert_eq!((&json["proven"], &json["exit"]), (&Value::Bool(true), &Value::from(0)));
    let result = &json["results"][0];
    assert_eq!(result["package"]["version"], "12.4");
    assert_eq!(result["log"]["index"], 40);
    assert_eq!(result["log"]["witnesses"].as_array().unwrap().len(), 2);
}

#[test]
fn what_was_changed_is_refused_with_its_exit_code() {
    let bench = Bench::honest();
    assert_eq!(bench.spoilt(DEB), 12);
    assert_eq!(bench.spoilt(&format!("{DEB}.tlog-proof")), 13);
    assert_eq!(bench.spoilt("verify.policy"), 13);
    assert_ne!(bench.spoilt(&format!("{DEB}.intoto.jsonl")), 0);
    assert_eq!(bench.code(&["--agree", "3", DEB]), 11);
    assert_eq!(bench.code(&["--log", "3", DEB]), 13);
    assert_eq!(bench.code(&["--channel", "other", DEB]), 13);
    fs::remove_file(bench.path(&format!("{DEB}.tlog-proof"))).unwrap();
    assert_eq!((bench.code(&[DEB]), bench.code(&["--log", "none", DEB])), (13, 0));
    fs::remove_file(bench.path(&format!("{DEB}.intoto.jsonl"))).unwrap();
    let output = bench.run(&[DEB]);
    assert_eq!(output.status.code(), Some(10));
    assert!(words(&output).contains("has no evidence beside it"), "{}", words(&output));
    fs::remove_file(bench.path("verify.policy")).unwrap();
    let output = bench.run(&[DEB]);
    assert_eq!(output.status.code(), Some(3));
    assert!(words(&output).contains("artel policy export"), "{}", words(&output));
    let good = deb(IDENTITY, "a");
    assert_eq!(Bench::new(&[&good]).code(&["--log", "none", DEB]), 11);
    assert_eq!(Bench::new(&[&good, "other"]).code(&["--log", "none", DEB]), 12);
}

/// The newest sign of life is what witnesses signed, two hours ago.
#[test]
fn what_witnesses_saw_too_long_ago_is_refused() {
    let good = deb(IDENTITY, "a");
    let (bench, sample) = (Bench::honest(), Sample::of(&Sample::policy(2), &[&good, &good, "lie"]));
    // Witnesses sign whole seconds.
    let seen = Timestamp::from_millis((verifier::now().as_secs() - 2 * 3600) * 1000);
    let checkpoint = sample.checkpoint(&[0, 1], seen);
    bench.write(&format!("{DEB}.tlog-proof"), &sample.proof_of(&sample.verdict, BEFORE, checkpoint));
    let code = |age: &str| bench.code(&["--max-age", age, DEB]);
    assert_eq!([code("3h"), code("30d"), code("119m"), code("1s")], [0, 0, 13, 13]);
    let said = words(&bench.run(&["--max-age", "1h", DEB]));
    assert!(said.contains("at most 3600 s are allowed"), "{said}");
}

/// The name of a file proves nothing: what is inside must be what was attested under its own name.
#[test]
fn a_package_is_what_its_control_file_says() {
    let bench = Bench::honest();
    for end in ["", ".intoto.jsonl", ".tlog-proof"] {
        bench.rename(&format!("{DEB}{end}"), &format!("evil_1_amd64.deb{end}"));
    }
    let output = bench.run(&["evil_1_amd64.deb"]);
    assert_eq!(output.status.code(), Some(12), "whoever names it asks for evil: {}", words(&output));
    assert!(words(&output).contains("it is base-files 12.4 amd64, not evil_1_amd64.deb"), "{}", words(&output));
    assert_eq!(bench.code(&["--is", "base-files=12.4/amd64", "evil_1_amd64.deb"]), 0, "the caller knows better");
    for end in ["", ".intoto.jsonl", ".tlog-proof"] {
        bench.rename(&format!("evil_1_amd64.deb{end}"), &format!("download.deb{end}"));
    }
    let json: Value = serde_json::from_slice(&bench.run(&["--json", "download.deb"]).stdout).unwrap();
    assert_eq!(json["results"][0]["package"]["name"], "base-files", "a name that says nothing");
    for other in [("other", "12.4", "amd64"), ("base-files", "12.5", "amd64"), ("base-files", "12.4", "arm64")] {
        let mislabelled = deb(other, "a");
        assert_eq!(Bench::new(&[&mislabelled, &mislabelled]).code(&[DEB]), 10, "{other:?}");
    }
    let epoch = deb(("base-files", "1:12.4", "amd64"), "a");
    assert_eq!(Bench::new(&[&epoch, &epoch]).code(&[DEB]), 0, "file names have no epoch");
    assert_eq!(Bench::new(&["no deb", "no deb"]).code(&[DEB]), 1, "attested, and no package");
}

#[test]
fn evidence_may_lie_elsewhere() {
    let bench = Bench::honest();
    bench.rename(&format!("{DEB}.intoto.jsonl"), "stem.intoto.jsonl");
    bench.rename(&format!("{DEB}.tlog-proof"), "stem.tlog-proof");
    assert_eq!(bench.code(&[DEB]), 10);
    assert_eq!(bench.code(&["--evidence", "stem", DEB]), 0);
    assert_eq!(bench.code(&["--evidence", "stem", DEB, DEB]), 2);
}

#[test]
fn packages_are_found_and_repositories_checked_whole() {
    let bench = Bench::honest();
    let index = "dists/stable/main/binary-amd64/Packages";
    let paragraph = |name: &str, version: &str| {
        format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{DEB}\nSize: 1\n\n")
    };
    for end in ["", ".intoto.jsonl", ".tlog-proof"] {
        fs::create_dir_all(bench.path("repository/pool")).unwrap();
        bench.rename(&format!("{DEB}{end}"), &format!("repository/pool/{DEB}{end}"));
    }
    let lay = |text: &str| bench.write(&format!("repository/{index}"), text.as_bytes());
    lay(&paragraph("base-files", "12.4"));
    let output = bench.run(&["repository"]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(words(&output).contains("1 of 1 packages are proven"), "{}", words(&output));
    let named = |what: &str| bench.code(&["--in", "repository", what]);
    assert_eq!([named("base-files"), named("base-files=12.4"), named("base-files=1"), named("x")], [0, 0, 10, 10]);
    lay(&(paragraph("base-files", "12.4") + &paragraph("evil", "12.4")));
    let output = bench.run(&["--json", "repository"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["results"].as_array().unwrap().len()), (Some(12), 2));
    assert!(json["results"][1]["error"].as_str().unwrap().contains("it is base-files 12.4 amd64, not evil"), "{json}");
    lay(&(paragraph("base-files", "12.4") + &paragraph("base-files", "12.5")));
    assert_eq!((bench.code(&["repository"]), named("base-files=12.4"), named("base-files=12.5")), (12, 0, 12));
}

/// What one operator built for a weak channel lies in the folder that is served as the strong one's.
#[test]
fn a_folder_is_checked_for_the_channel_that_it_is_said_to_be_of() {
    let good = deb(IDENTITY, "a");
    let strong = Channel { name: "strong".parse().unwrap(), ..samples::channel(2, 2) };
    let mut policy = Policy { channels: vec![samples::channel(1, 1), strong], ..Sample::policy(0) };
    policy.maintainers[0].channels.push("strong".parse().unwrap());
    let bench = Bench::under(&policy, &[&good]);
    let of_file = |more: &[&str]| bench.code(&[more, &[DEB]].concat());
    assert_eq!([of_file(&[]), of_file(&["--channel", "stable"]), of_file(&["--channel", "strong"])], [13, 0, 13]);
    assert_eq!(of_file(&["--from", "http://mirror.example/repo/strong/"]), 13);
    for what in [&["."][..], &["base-files"]] {
        let of = |more: &[&str]| bench.run(&[more, what].concat());
        let said = words(&of(&[]));
        assert!(of(&[]).status.code() == Some(13) && said.contains("name it with --channel"), "{said}");
        let proven = of(&["--channel", "stable"]);
        assert!(proven.status.success() && words(&proven).contains("agree, for channel stable"), "{}", words(&proven));
        assert!(of(&["--from", "http://mirror.example/repo/stable/"]).status.success());
        assert_eq!(of(&["--channel", "strong"]).status.code(), Some(13));
        let said = words(&of(&["--from", "http://mirror.example/repo/strong/"]));
        assert!(said.contains("only those of strong are accepted"), "{said}");
        for other in [["--is", "base-files=12.4/amd64"], ["--evidence", "stem"]] {
            assert_eq!(of(&other).status.code(), Some(2), "it would say nothing: {other:?}");
        }
    }
}

#[test]
fn a_name_is_of_what_was_proven_and_not_of_a_file() {
    let bench = Bench::honest();
    for end in ["", ".intoto.jsonl", ".tlog-proof"] {
        bench.rename(&format!("{DEB}{end}"), &format!("hello_2.10-3_amd64.deb{end}"));
    }
    for what in ["hello", "hello=2.10-3"] {
        let output = bench.run(&[what]);
        assert_eq!(output.status.code(), Some(12), "{}", words(&output));
        assert!(words(&output).contains("it is base-files 12.4 amd64, not hello"), "{}", words(&output));
    }
}

#[test]
fn files_that_are_none_and_names_that_look_like_options() {
    let bench = Bench::honest();
    let pipe = bench.path("pipe_1_amd64.deb");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output = bench.run(&["pipe_1_amd64.deb"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(bench.run(&["./pipe_1_amd64.deb"]).status.code() == Some(1), "nobody waits for its other end");
    for name in ["--help", "-h", "--json"] {
        let output = bench.run(&["--", name]);
        assert!(!output.status.success() && !words(&output).contains("usage:"), "{name}: {}", words(&output));
    }
    let odd: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"\xff.deb".to_vec());
    let output = Command::new(env!("CARGO_BIN_EXE_artel-verify")).arg(odd).output().unwrap();
    assert!(output.status.code() == Some(2) && words(&output).contains("no UTF-8"), "{}", words(&output));
}
