//! Real attempts in real sandboxes: honest ones, hostile ones, late, cancelled and killed ones. Skipped, with the reason, where
//! the machine cannot make sandboxes.

mod bench;
mod census;
mod classes;
mod hostile;
mod images;
mod light;
mod packages;
mod phases;
mod root;

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use protocol::{
    blame::Blame,
    lease::{LeaseNumber, Profile},
};
use tokio_util::sync::CancellationToken;

use self::bench::{Bench, Job, limits, lives};
use super::{Error, InputError, Phase};

const HONEST: &str = include_str!("../../../fixtures/command/honest.sh");
const VICTIM: &str = "ARTEL_TEST_VICTIM";

fn honest() -> Job<'static> {
    Job { script: HONEST, arguments: &[], outputs: &["out/result.txt"], limits: limits() }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn an_honest_command_gives_its_output_and_leaves_nothing() {
    let Some(bench) = Bench::open().await else { return };
    let log = bench.log();
    let task = bench.task(&honest());
    let built = bench.workshop.attempt(task, log.clone(), CancellationToken::new()).await.unwrap();
    let [output] = &built.outputs[..] else { panic!("{:?}", built.outputs) };
    assert_eq!(fs::read_to_string(&output.path).unwrap(), "artel\nbuilt\n");
    assert!(log.tail(1000).contains("hello from artel\n"), "{}", log.tail(1000));
    assert_eq!(log.progress().borrow().phase, Phase::Done);
    for (key, value) in [("profile", "0"), ("TZ", "UTC"), ("kernel", "6."), ("umask", "0022")] {
        assert!(built.node_info.get(key).is_some_and(|told| told.starts_with(value)), "{key} {:?}", built.node_info);
    }
    bench.workshop.discard(&built).unwrap();
    assert!(!output.path.exists());
    assert_eq!(bench.attempts(), 0);
}

#[tokio::test]
async fn the_build_has_no_rights_and_sees_its_profile() {
    let Some(bench) = Bench::open().await else { return };
    let script = "id -u; cat /proc/self/status; umask; hostname; pwd; nproc; date +%Y; cat /etc/hostname; touch /x; :";
    let job = Job { script, arguments: &[], outputs: &[], limits: limits() };
    let log = bench.log();
    bench.workshop.attempt(bench.task(&job), log.clone(), CancellationToken::new()).await.unwrap();
    let text = log.tail(8000);
    for line in ["1000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "0022\n"] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert!(text.contains("\nartel\n/build/reproducible-path\n") && text.contains("/x': Permission denied"), "{text}");
    let mut varied = bench.task(&job);
    varied.lease.profile = Profile(1);
    // The small root file system has no libfaketime, which every lock has.
    let error = bench.workshop.attempt(varied, log.clone(), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Job);
    assert!(log.tail(8000).contains("no libfaketime"));
}

#[tokio::test]
async fn a_varied_build_sees_another_system_and_says_so() {
    let Some(bench) = Bench::open().await else { return };
    // The loader says that it cannot preload a file that is no library, and goes on: here only the clock stays.
    bench.place("usr/lib/any/faketime/libfaketime.so.1", b"");
    // The small environment has no `nice`; the kernel says it in the 19th word.
    let script = "read -r stat < /proc/self/stat; set -- $stat; uname -r; domainname; hostname; umask; id -u; \
                  readlink /bin/sh; cat /etc/passwd; echo $TZ $TERM $COLUMNS $LINES $(nproc) ${19}";
    let job = Job { script, arguments: &[], outputs: &[], limits: limits() };
    let (log, mut task) = (bench.log(), bench.task(&job));
    task.lease.profile = Profile(1);
    let built = bench.workshop.attempt(task, log.clone(), CancellationToken::new()).await.unwrap();
    let (text, told) = (log.tail(16_000), built.node_info);
    let text: String = text.lines().filter(|line| !line.contains("ld.so")).flat_map(|line| [line, "\n"]).collect();
    let seen = ["kernel", "domain", "hostname", "umask", "uid", "sh"].map(|key| told[key].as_str()).join("\n");
    assert!(text.contains(&seen), "{seen} is not in {text}");
    assert!(text.contains(":varied builder 1:/nonexistent/varied1:/bin/bash\n"), "{text}");
    let own = rustix::process::getpriority_process(None).unwrap();
    let nice = (own + told["nice"].parse::<i32>().unwrap()).min(19);
    let seen = ["TZ", "TERM", "COLUMNS", "LINES", "cpu_count"].map(|key| told[key].as_str()).join(" ");
    assert!(text.contains(&format!("\n{seen} {nice}\n")), "{seen} {nice} is not in {text}");
    assert!(told["kernel"].starts_with("2.6.") && told["sh"] == "bash" && told["domain"] == "domain-1.invalid");
    assert_eq!(told["LC_ALL"], "C.UTF-8", "this small environment has no sources of locales");
}

#[tokio::test]
async fn a_failed_build_quotes_what_its_tools_complained_of_first() {
    let Some(bench) = Bench::open().await else { return };
    let script = "echo fine; echo \"a.c:3:1: error: expected ';'\"; echo 'make: *** [all] Error 1'; exit 2";
    let job = Job { script, arguments: &[], outputs: &[], limits: limits() };
    let error = bench.workshop.attempt(bench.task(&job), bench.log(), CancellationToken::new()).await.unwrap_err();
    let failure = error.failure();
    assert!(failure.what.starts_with("ended with exit code 2; first error in line "), "{failure}");
    assert!(failure.what.ends_with(": a.c:3:1: error: expected ';'"), "{failure}");
}

#[tokio::test]
async fn a_tampered_input_is_refused_by_name() {
    let Some(bench) = Bench::open().await else { return };
    let task = bench.task(&honest());
    fs::write(task.inputs.join("in/name.txt"), b"artem\n").unwrap();
    let error = bench.workshop.attempt(task, bench.log(), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Input(InputError::Tampered { name, .. }) if name == "in/name.txt"), "{error}");
    assert_eq!(error.blame(), Blame::InputMismatch);
    let mut other = bench.task(&honest());
    other.lock.epoch += 1;
    let error = bench.workshop.attempt(other, bench.log(), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.blame(), Blame::InputMismatch, "another lock than the request names");
}

/// Cancels a build that sleeps, and gives how long it took to end.
async fn cancelled_after(bench: &Bench, job: &Job<'_>) -> Duration {
    let (stop, log) = (CancellationToken::new(), bench.log());
    let running = bench.workshop.attempt(bench.task(job), log.clone(), stop.clone());
    let mut progress = log.progress();
    let begun = async {
        progress.wait_for(|p| p.phase == Phase::Build).await.unwrap();
        let folder = bench.folder.join("state/attempts/1");
        let mode = fs::metadata(folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "what it leaves with the owner's rights is out of others' reach");
        stop.cancel();
        Instant::now()
    };
    let (result, cancelled) = tokio::join!(running, begun);
    assert_eq!(result.unwrap_err().blame(), Blame::Cancelled);
    let took = cancelled.elapsed();
    assert!(!lives("86397"));
    took
}

#[tokio::test]
async fn cancelling_and_dropping_end_everything() {
    let Some(bench) = Bench::open().await else { return };
    let job = Job { script: "setsid sleep 86397 & sleep 86397", arguments: &[], outputs: &[], limits: limits() };
    // A busy machine may keep one from being so quick, and not each of them.
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took >= Duration::from_secs(2)) {
        assert!(took.len() < 3, "ended after {took:?}");
        took.push(cancelled_after(&bench, &job).await);
    }
    let log = bench.log();
    let mut progress = log.progress();
    tokio::select! {
        _ = bench.workshop.attempt(bench.task(&job), log, CancellationToken::new()) => panic!("it sleeps"),
        _ = progress.wait_for(|p| p.phase == Phase::Build) => {}
    }
    wait_until("what was dropped is gone", || !lives("86397"));
    assert_eq!(bench.attempts(), 0);
}

/// Not a test of its own: the process that [`a_killed_daemon_leaves_nothing`] starts and kills.
#[tokio::test]
async fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else { return };
    let bench = Bench::open_in(Path::new(&folder)).expect("the parent could");
    bench.install(|_| ()).await;
    let script = "setsid sleep 86396 & sleep 86396 & echo running; wait";
    let job = Job { script, arguments: &[], outputs: &[], limits: limits() };
    let log = bench.log();
    let mut reader = log.follow(0);
    let say = async {
        loop {
            let piece = reader.next().await.unwrap().unwrap();
            if piece.windows(8).any(|w| w == b"running\n") {
                println!("running");
            }
        }
    };
    tokio::select! {
        _ = bench.workshop.attempt(bench.task(&job), log.clone(), CancellationToken::new()) => panic!("it sleeps"),
        () = say => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("nobody killed this"),
    }
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing() {
    let keep = tempfile::tempdir().unwrap();
    let Some(bench) = Bench::open_in(keep.path()) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["build::tests::victim", "--exact", "--nocapture"]).env(VICTIM, keep.path());
    let mut victim = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut output) = (Vec::new(), victim.stdout.take().unwrap());
    while !String::from_utf8_lossy(&said).contains("\nrunning\n") {
        let mut piece = [0; 4096];
        let count = output.read(&mut piece).unwrap();
        assert!(count > 0, "the victim ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..count]);
    }
    wait_until("the build sleeps", || lives("86396"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(bench.workshop.sweep().unwrap(), [LeaseNumber(1)], "the attempt is known as interrupted");
    wait_until("no process is left", || !lives("86396"));
    assert_eq!(bench.attempts(), 0, "no folder is left");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(keep.path().to_str().unwrap()), "no mount is left");
    assert_eq!(bench.workshop.sweep().unwrap(), [], "once");
    let next = bench.workshop.attempt(bench.task(&honest()), bench.log(), CancellationToken::new()).await;
    assert_eq!(next.unwrap().outputs.len(), 1, "the environment is still good");
}
