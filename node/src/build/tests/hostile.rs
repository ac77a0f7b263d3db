//! The hostile suite: everything that a stranger's build may try, one after the other in one workshop. Each attack has the
//! end that the table says; after each, no process, mount, control group or file of it is left and an honest job succeeds.
//!
//! `cargo nextest run -p artel build::tests::hostile --no-capture` prints the figures.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Instant};

use protocol::{
    blame::{Blame, Fault},
    job::BuildLimits,
};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, Job, limits},
    census::{Census, Left},
    honest,
};

/// What attacks in C are compiled to, in the root file system.
const PROGRAM: &str = "usr/bin/attack";
/// The longest that any attack may go on, in seconds; a limit of time is one of them.
const SECONDS_MAX: f64 = 20.0;

/// How an attack ends.
enum End {
    /// With a failure that counts as the job's, at a step, in these words.
    Fails(&'static str, &'static str),
    /// Stopped, but nobody can say whose fault it is.
    Stops,
    /// With its time limit, in these words.
    TimesOut(&'static str),
    /// As if it were honest: it had no effect.
    Builds,
}
use End::{Builds, Fails, Stops, TimesOut};

struct Attack {
    name: &'static str,
    script: &'static str,
    arguments: Vec<String>,
    outputs: &'static [&'static str],
    limits: BuildLimits,
    end: End,
    /// What its log holds.
    says: &'static [&'static str],
}

fn attack(name: &'static str, script: &'static str, end: End) -> Attack {
    Attack { name, script, arguments: Vec::new(), outputs: &["out.txt"], limits: limits(), end, says: &[] }
}

impl Attack {
    fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }

    fn outputs(self, outputs: &'static [&'static str]) -> Self {
        Self { outputs, ..self }
    }

    fn limits(self, limits: BuildLimits) -> Self {
        Self { limits, ..self }
    }

    fn arguments(self, arguments: impl IntoIterator<Item = String>) -> Self {
        Self { arguments: arguments.into_iter().collect(), ..self }
    }
}

macro_rules! script {
    ($name:literal) => {
        include_str!(concat!("../../../../fixtures/command/hostile/", $name, ".sh"))
    };
}

/// Attacks that use up what the machine has.
fn greedy() -> Vec<Attack> {
    vec![
        attack("fork bomb", script!("fork-bomb"), Fails("build", "process limit of 64 reached")),
        attack("memory", script!("memory-hog"), Fails("build", "memory limit of 256 MiB reached")),
        attack("memory nobody has mapped", "attack hidden", Fails("build", "memory limit of 256 MiB reached")),
        attack("shared memory", script!("shared-memory"), Fails("build", "ended with exit code 7"))
            .says(&["No space left on device", "67108864 bytes"]),
        attack("disk", script!("disk-filler"), Fails("build", "disk limit of 64 MiB reached")),
        attack("disk, without names", script!("unlinked"), Fails("build", "disk limit of 64 MiB reached")),
        attack(
            "disk, without names or accounts",
            "attack unnamed 4096",
            Fails("build", "disk limit of 64 MiB reached"),
        )
        .says(&["room without writing: Operation not supported\n", "room in another way: Function not implemented\n"]),
        attack("disk, in one thread", "attack thread 4096", Fails("build", "disk limit of 64 MiB reached")),
        attack("disk, mapped only", "attack mapped 4096", Stops),
        attack("disk, queued only", "attack queued 4096", Stops),
        attack("disk, counted with trouble", script!("restless"), Fails("build", "disk limit of 64 MiB reached")),
        attack(
            "a million empty files",
            "attack files 1000000; sleep 300",
            Fails("build", "file count limit of 4096 reached"),
        )
        .limits(BuildLimits { disk_mib: 16, ..limits() }),
        attack("10 GiB of log", script!("log-flood"), Fails("build", "log limit of 256 KiB reached")),
        attack("silence", "sleep 300", TimesOut("no output for 1 s"))
            .limits(BuildLimits { silence_secs: 1, ..limits() }),
        attack("time, with output", script!("talk"), TimesOut("time limit of 1 s reached"))
            .limits(BuildLimits { wall_secs: 1, ..limits() }),
        attack("time, busy", script!("spin"), TimesOut("time limit of 1 s reached"))
            .limits(BuildLimits { wall_secs: 1, ..limits() }),
        attack("stubborn processes", "attack stubborn 86391", TimesOut("time limit of 1 s reached"))
            .limits(BuildLimits { wall_secs: 1, ..limits() })
            .says(&["stubborn\n"]),
    ]
}

/// Attacks on whoever reads what a build left.
fn left_behind() -> Vec<Attack> {
    let outputs = |words| Fails("outputs", words);
    vec![
        attack("no output", "true", outputs("output of the build: output out.txt is missing")),
        attack(
            "a link",
            script!("output-link"),
            outputs("output of the build: output out.txt is or lies behind a symbolic link"),
        ),
        attack(
            "behind a link",
            script!("outside"),
            outputs("output of the build: output out/passwd is or lies behind a symbolic link"),
        )
        .outputs(&["out/passwd"]),
        attack(
            "a pipe",
            script!("output-pipe"),
            outputs("output of the build: output out.txt is a pipe, not a regular file"),
        ),
        attack(
            "a socket",
            "attack socket || true",
            outputs("output of the build: output out.txt is a socket, not a regular file"),
        ),
        attack(
            "a folder",
            "mkdir out.txt",
            outputs("output of the build: output out.txt is a directory, not a regular file"),
        ),
        attack(
            "a hard link",
            script!("hard-link"),
            outputs("output of the build: output out.txt is a hard link with 2 names"),
        ),
        attack(
            "eight TiB of holes",
            script!("sparse"),
            outputs(
                "output of the build: output out.txt has 8796093022208 bytes, over the 67108864 that are left of the limit",
            ),
        ),
        attack(
            "two that are too large together",
            script!("two-large"),
            outputs(
                "output of the build: output more.txt has 41943040 bytes, over the 25165824 that are left of the limit",
            ),
        )
        .outputs(&["out.txt", "more.txt"]),
        attack("odd names", script!("odd-names"), outputs("output of the build: output out.txt is missing")),
        attack(
            "folders without end",
            "attack deep 3000 || true",
            outputs("output of the build: output out.txt is missing"),
        )
        .says(&["deep 3000\n"]),
        attack("modes", script!("modes"), Builds).outputs(&["closed/deeper/out.txt"]),
        attack("a session that stays", script!("survivor"), Builds),
        attack("the helpers' words", script!("control"), Builds),
    ]
}

/// Attacks on the walls.
fn breakers(port: u16, secrets: Vec<String>) -> Vec<Attack> {
    let refused = || Fails("build", "ended with exit code 7");
    vec![
        attack("a device", script!("device"), refused()).says(&["Operation not permitted"]),
        attack("namespaces below", script!("nested-namespace"), refused()).says(&[
            "unshare failed: Function not implemented",
            "mount(2) system call failed: Function not implemented",
        ]),
        attack("network", script!("network"), refused()).arguments([port.to_string()]),
        attack("system calls", "attack calls", refused()).says(&[
            "mount: Function not implemented",
            "clone3: Function not implemented",
            "io_uring_setup: Function not implemented",
            "keyctl: Function not implemented",
            "bpf: Function not implemented",
            "setuid: Operation not permitted",
            "works: fork, unshare of files\n",
            "works: socketpair\n",
            "works: sockets\n",
            "works: ptrace of a child\n",
        ]),
        attack("another ABI", "attack abi", refused()).says(&["i386 call: Bad system call"]),
        attack("the first process", "attack first", refused()).says(&[
            "ptrace: Operation not permitted",
            "kill: Operation not permitted",
            "memory: Permission denied",
        ]),
        attack("everybody", script!("kill-all"), Fails("build", "ended with exit code 1"))
            .says(&["kill: (-1) - No such process"]),
        attack("a view of the machine", script!("machine"), refused()).arguments(halved(secrets)).says(&[
            "boot 00000000-0000-0000-0000-000000000000\n",
            "MemTotal:         262144 kB\n",
            "filter Seccomp:\t2\n",
            "descriptors self/fd/0 self/fd/1 self/fd/2 self/fd/3\n",
        ]),
    ]
}

/// Cuts words in two: the command line, which is looked at too, must not hold them whole.
fn halved(words: Vec<String>) -> Vec<String> {
    let halves = words.iter().map(|word| word.split_at(word.len() / 2));
    halves.flat_map(|(first, second)| [first.to_owned(), second.to_owned()]).collect()
}

#[tokio::test]
async fn every_attack_ends_as_it_must_and_leaves_nothing() {
    let Some(bench) = Bench::open_with(compile).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let secrets = vec![boot, bench.folder.to_string_lossy().into_owned(), "/environments/".into()];
    let census = Census::begin(&bench.folder);
    let limits_memory = !bench.workshop.rig().weaknesses().iter().any(|weak| weak.starts_with("no memory cgroup"));
    let breakers = breakers(listener.local_addr().unwrap().port(), secrets);
    let all = greedy().into_iter().chain(left_behind()).chain(breakers);
    let all: Vec<_> = all.filter(|attack| limits_memory || attack.name != "memory nobody has mapped").collect();
    println!("figure: {:<34} {:>6} {:>9}  end", "attack", "s", "log bytes");
    for attack in &all {
        try_one(&bench, &census, attack).await;
    }
    assert!(listener.accept().is_err(), "nobody came out of the sandbox");
    // Five hold each sandbox: or the count of what is left would say nothing.
    assert!(census.processes() > 5 * all.len(), "{} processes were seen", census.processes());
    println!(
        "figure: {} attacks, 0 processes, 0 mounts, 0 control groups, 0 files left of {} processes",
        all.len(),
        census.processes()
    );
}

async fn try_one(bench: &Bench, census: &Census, attack: &Attack) {
    let (name, log) = (attack.name, bench.log());
    let arguments: Vec<_> = attack.arguments.iter().map(String::as_str).collect();
    let (script, outputs, limits) = (attack.script, attack.outputs, attack.limits);
    let job = Job { script, arguments: &arguments, outputs, limits };
    let begun = Instant::now();
    let result = bench.workshop.attempt(bench.task(&job), log.clone(), CancellationToken::new()).await;
    let took = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&fs::read(log.path()).unwrap()).into_owned();
    let words = match (&attack.end, &result) {
        (Builds, Ok(built)) => {
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            let plain = built.outputs.iter().all(|output| mode(&output.path) & 0o7111 == 0);
            assert!(plain && !built.outputs.is_empty(), "{name}: {built:?}");
            bench.workshop.discard(built).unwrap();
            "no effect".to_owned()
        }
        (Fails(step, words), Err(error)) => {
            let failure = error.failure();
            // What the attack itself complained of comes after our own words.
            let own = failure.what.split("; first error in line ").next().unwrap_or_default().to_owned();
            assert_eq!(
                (failure.blame, failure.step.as_str(), own.as_str()),
                (Blame::Job, *step, *words),
                "{name}: {text}"
            );
            own
        }
        (Stops, Err(error)) => {
            let failure = error.failure();
            assert_eq!(failure.blame, Blame::Builder(Fault::DiskFull), "{name}: {failure}\n{text}");
            failure.what
        }
        (TimesOut(words), Err(error)) => {
            let failure = error.failure();
            assert_eq!(
                (failure.blame, failure.step.as_str(), failure.what.as_str()),
                (Blame::Timeout, "build", *words),
                "{name}: {text}"
            );
            failure.what
        }
        (Builds, Err(error)) => panic!("{name}: {}\n{text}", error.failure()),
        (Fails(..) | TimesOut(_) | Stops, Ok(built)) => panic!("{name} succeeded: {built:?}\n{text}"),
    };
    assert!(!text.contains("reached "), "{name} got through:\n{text}");
    for said in attack.says {
        assert!(text.contains(said), "{name} does not say {said:?}:\n{text}");
    }
    let kept = fs::metadata(log.path()).unwrap().len();
    assert!(kept <= u64::from(limits.log_kib) * 1024 + 1024, "{name}: {kept} bytes of log, our own lines included");
    assert!(took < SECONDS_MAX, "{name} took {took} s");
    let used = text.lines().find_map(|line| line.split_once("when it was stopped: ")).map_or("", |(_, used)| used);
    println!("figure: {name:<34} {took:>6.2} {kept:>9}  {words} {used}");
    assert_eq!(census.left(), Left::default(), "after {name}");
    let next = bench.workshop.attempt(bench.task(&honest()), bench.log(), CancellationToken::new()).await;
    let built = next.unwrap_or_else(|error| panic!("the honest job after {name}: {}", error.failure()));
    assert_eq!(fs::read_to_string(&built.outputs[0].path).unwrap(), "artel\nbuilt\n");
    bench.workshop.discard(&built).unwrap();
}

/// Compiles the attacks that no shell can make. They are linked statically: the root file system is small.
pub(super) fn compile(root: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/command/hostile/attack.c");
    let mut command = Command::new("cc");
    command.args(["-static", "-O1", "-o"]).arg(root.join(PROGRAM)).arg(&source);
    assert!(command.status().unwrap().success(), "attack.c compiles");
}
