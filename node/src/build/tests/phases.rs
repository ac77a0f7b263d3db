//! Each phase of an attempt may take too long and may be cancelled, and leaves nothing then.

use std::{
    fs,
    time::{Duration, Instant},
};

use protocol::{
    Sha256,
    blame::{Blame, Fault},
    job::{BuildLimits, JobKind},
};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, Job, limits},
    census::{Census, Left},
    honest,
};
use crate::build::{Phase, Task, phases::Patience};

/// So short that a phase with work to do is late.
const INSTANT: Duration = Duration::from_millis(1);
/// How soon a phase that was told to stop has stopped, and nothing of it is left.
const STOPS_WITHIN: Duration = Duration::from_secs(2);
/// A busy machine may keep a phase from stopping as soon, and not so often.
const STOPS_MAX: usize = 3;

/// Runs a task to its failure; gives that, and how long it took to end after `when`, if that came.
async fn fails(bench: &Bench, task: Task, when: Option<Phase>) -> (Blame, String, String, Duration) {
    let (census, log, stop) = (Census::begin(&bench.folder), bench.log(), CancellationToken::new());
    let (mut progress, begun) = (log.progress(), Instant::now());
    let attempt = bench.workshop.attempt(task, log.clone(), stop.clone());
    let told = async {
        let Some(phase) = when else { return begun };
        progress.wait_for(|now| now.phase >= phase).await.unwrap();
        stop.cancel();
        Instant::now()
    };
    let (result, told) = tokio::join!(attempt, told);
    let took = told.elapsed();
    let failure = result.unwrap_err().failure();
    assert_eq!(census.left(), Left::default());
    (failure.blame, failure.step, failure.what, took)
}

/// Makes the task's only input a file of a GiB without content, which takes longer than any test to be hashed.
fn with_large_input(bench: &Bench, task: Task) -> Task {
    let mut task = task;
    let size = 16 << 30;
    fs::File::create(bench.folder.join("inputs/in/name.txt")).unwrap().set_len(size).unwrap();
    if let JobKind::Command(job) = &mut task.request.kind {
        job.inputs[0].size = size;
        job.inputs[0].sha256 = Sha256::of(b"never reached");
    }
    task
}

fn with_large_output() -> Job<'static> {
    let script = "dd if=/dev/zero of=out.txt bs=1 count=0 seek=8589934592";
    Job { script, outputs: &["out.txt"], arguments: &[], limits: BuildLimits { disk_mib: 16 << 10, ..limits() } }
}

async fn late(
    patience: Patience,
    job: &Job<'_>,
    change: impl FnOnce(&Bench, Task) -> Task,
    expect: (Blame, &str, &str),
) {
    let Some(bench) = Bench::open().await else { return };
    let bench = bench.with_patience(patience);
    let task = change(&bench, bench.task(job));
    let (blame, step, what, took) = fails(&bench, task, None).await;
    println!("figure: late in {step}: ended after {:.2} s", took.as_secs_f64());
    assert_eq!((blame, step.as_str(), what.as_str()), expect);
    let bench = bench.with_patience(Patience::default());
    let next = bench.workshop.attempt(bench.task(&honest()), bench.log(), CancellationToken::new()).await;
    assert_eq!(next.unwrap().outputs.len(), 1, "the node carries on");
}

#[tokio::test]
async fn inputs_that_take_too_long_are_the_builders_fault() {
    let patience = Patience { inputs: INSTANT, ..Patience::default() };
    let expect = (Blame::Builder(Fault::Other), "inputs", "not done within 0.001 s");
    late(patience, &honest(), with_large_input, expect).await;
}

#[tokio::test]
async fn an_environment_that_does_not_come_is_the_builders_fault() {
    let Some(bench) = Bench::open().await else { return };
    let bench = bench.with_patience(Patience { environment: Duration::from_millis(200), ..Patience::default() });
    // Somebody installs it, and does not come to an end.
    let id = bench.task(&honest()).request.environment;
    let path = bench.folder.join(format!("cache/environments/{id}.lock"));
    let installing = fs::File::create(path).unwrap();
    installing.lock().unwrap();
    let (blame, step, what, took) = fails(&bench, bench.task(&honest()), None).await;
    println!("figure: late in {step}: ended after {:.2} s", took.as_secs_f64());
    let expect = (Blame::Builder(Fault::Sandbox), "environment", "not done within 0.2 s");
    assert_eq!((blame, step.as_str(), what.as_str()), expect);
    installing.unlock().unwrap();
    let next = bench.workshop.attempt(bench.task(&honest()), bench.log(), CancellationToken::new()).await;
    assert_eq!(next.unwrap().outputs.len(), 1, "the node carries on");
}

#[tokio::test]
async fn a_sandbox_that_does_not_start_is_the_builders_fault() {
    let patience = Patience { start: INSTANT, ..Patience::default() };
    let job = Job { script: "sleep 300", ..honest() };
    let expect = (Blame::Builder(Fault::Sandbox), "sandbox", "the sandbox did not start in time");
    late(patience, &job, |_, task| task, expect).await;
}

#[tokio::test]
async fn outputs_that_take_too_long_are_the_builders_fault() {
    let patience = Patience { outputs: INSTANT, ..Patience::default() };
    let expect = (Blame::Builder(Fault::Other), "outputs", "not done within 0.001 s");
    late(patience, &with_large_output(), |_, task| task, expect).await;
}

#[tokio::test]
async fn a_cancelled_attempt_ends_in_whatever_phase_it_is() {
    let Some(bench) = Bench::open_with(super::hostile::compile).await else { return };
    let asleep = Job { script: "attack stubborn 86392", arguments: &[], outputs: &["out.txt"], limits: limits() };
    let phases = [Phase::Inputs, Phase::Sandbox, Phase::Build, Phase::Outputs];
    for phase in phases {
        let mut times = Vec::new();
        while times.last().is_none_or(|took| *took >= STOPS_WITHIN) {
            assert!(times.len() < STOPS_MAX, "{} took {times:?}", phase.word());
            let task = match phase {
                Phase::Inputs => with_large_input(&bench, bench.task(&honest())),
                Phase::Outputs => bench.task(&with_large_output()),
                Phase::Sandbox | Phase::Build | Phase::Waiting | Phase::Environment | Phase::Done => {
                    bench.task(&asleep)
                }
            };
            let (blame, step, what, took) = fails(&bench, task, Some(phase)).await;
            println!("figure: cancelled in {}: nothing left after {:.3} s", phase.word(), took.as_secs_f64());
            assert_eq!((blame, what.as_str()), (Blame::Cancelled, "cancelled"), "in {} ({step})", phase.word());
            times.push(took);
        }
    }
}
