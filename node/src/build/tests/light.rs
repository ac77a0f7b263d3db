//! Light commands: the builder's own programs behind the same walls, where its owner allows them.

use std::fs;

use protocol::{
    blame::{Blame, Fault},
    job::{Isolation, JobKind},
    lease::Profile,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::Task,
    bench::{Bench, Job, limits},
};

/// Says what stands where, and leaves its one output.
const LOOK: &str = "id -u; grep Cap /proc/self/status; for at in /home /root /etc/shadow /usr/local/bin /var/log /boot; do \
                    echo \"$at: $(ls $at 2>/dev/null | wc -l)\"; done; LC_ALL=C touch /usr/mark /etc/mark /mark; \
                    ls /sys/class/net; cat in/name.txt; mkdir out; echo light > out/result.txt";

fn light(bench: &Bench, script: &str) -> Task {
    let job = Job { script, arguments: &[], outputs: &["out/result.txt"], limits: limits() };
    let mut task = bench.task(&job);
    let JobKind::Command(command) = &mut task.request.kind else { panic!("the bench makes commands") };
    command.isolation = Isolation::Light;
    task
}

#[tokio::test]
async fn a_light_command_finds_the_machines_programs_and_nothing_else_of_it() {
    let Some(bench) = Bench::open().await else { return };
    let task = light(&bench, LOOK);
    let refused = bench.workshop.attempt(task, bench.log(), CancellationToken::new()).await.unwrap_err();
    assert_eq!(refused.blame(), Blame::Builder(Fault::Other), "its owner allows none: {refused}");

    let bench = bench.allowing(Isolation::Light);
    let mut packed = light(&bench, LOOK);
    packed.lock.packages = protocol::testing::samples::lock().packages;
    packed.request.environment = packed.lock.id();
    let refused = bench.workshop.attempt(packed, bench.log(), CancellationToken::new()).await.unwrap_err();
    assert_eq!(refused.blame(), Blame::Job, "{refused}");

    for profile in [0, 1, 2] {
        let mut task = light(&bench, LOOK);
        task.lease.profile = Profile(profile);
        let log = bench.log();
        let built = bench.workshop.attempt(task, log.clone(), CancellationToken::new()).await;
        let built = built.unwrap_or_else(|error| panic!("{}\n{}", error.failure(), log.tail(4000)));
        assert_eq!(fs::read_to_string(&built.outputs[0].path).unwrap(), "light\n");
        let text = log.tail(8000);
        for line in
            ["/home: 0\n", "/root: 0\n", "/etc/shadow: 0\n", "/usr/local/bin: 0\n", "/var/log: 0\n", "/boot: 0\n"]
        {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(text.contains("CapEff:\t0000000000000000\n") && !text.contains("CapBnd:\t000001"), "{text}");
        for refused in ["/usr/mark': Read-only", "/etc/mark': Permission denied", "/mark': Permission denied"] {
            assert!(text.contains(refused), "{refused:?} is not in {text}");
        }
        bench.workshop.discard(&built).unwrap();
    }
    assert_eq!(bench.attempts(), 0);
}
