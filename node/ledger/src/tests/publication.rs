//! From the verdict into the repository.

use protocol::JobId;

use crate::{
    Cause, Command, Effect, Left,
    testing::{Bench, builder, channel},
    view::VerdictView,
};

fn reproduce(bench: &mut Bench, number: u8) -> JobId {
    let job = bench.submit("deb", number);
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    job
}

#[test]
fn publications_come_one_after_another_and_generations_grow() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let first = reproduce(&mut bench, 1);
    assert_eq!(bench.published(), [1]);
    let second = reproduce(&mut bench, 2);
    assert_eq!(bench.published(), [0u64; 0]);
    assert!(bench.ledger.job(second).unwrap().waiting.is_some());
    bench.apply(Command::Published { job: first, generation: 9 });
    assert_eq!(bench.state(first), "publishing", "another generation is not this one");
    bench.apply(Command::Published { job: first, generation: 1 });
    assert_eq!(bench.published(), [2]);
    bench.apply(Command::Published { job: first, generation: 1 });
    assert_eq!(bench.published(), [0u64; 0], "said twice is done once");
    bench.apply(Command::Published { job: second, generation: 2 });
    let VerdictView::Reproduced { generation, .. } = bench.ledger.job(second).unwrap().verdict else { panic!() };
    assert_eq!((generation, bench.state(first).as_str()), (Some(2), "published"));
    bench.assert_replays();
}

fn failed(job: JobId, cause: Cause) -> Command {
    Command::PublishFailed { job, cause, left: Left::Nothing, why: "disk full".into() }
}

fn failed_leaving(job: JobId, left: Left) -> Command {
    Command::PublishFailed { job, cause: Cause::Transient, left, why: "disk full".into() }
}

#[test]
fn what_passes_is_tried_again_until_the_jobs_time_is_over() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let job = reproduce(&mut bench, 1);
    for (try_, rest) in (1..).zip([2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]) {
        bench.apply(failed(job, Cause::Transient));
        let waiting = bench.ledger.job(job).unwrap().waiting.unwrap();
        let times = if try_ == 1 { "once".to_owned() } else { format!("{try_} times") };
        let says = format!("publishing failed {times} (disk full); it is tried again at ");
        assert!(waiting.starts_with(&says), "{waiting}");
        bench.wait(rest - 1);
        assert_eq!(bench.published(), [0u64; 0]);
        bench.wait(1);
        assert_eq!(bench.published(), [1]);
    }
    assert_eq!(bench.state(job), "publishing");
    bench.now = bench.now.after(std::time::Duration::from_secs(40 * 24 * 3600));
    bench.apply(failed(job, Cause::Transient));
    assert_eq!(bench.state(job), "failed-to-publish", "its time is over");
    bench.assert_replays();
}

#[test]
fn what_lasts_ends_the_job_at_once_and_its_generation_is_not_used_again() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let (job, next) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
    bench.apply(failed(job, Cause::Permanent));
    assert_eq!(bench.state(job), "failed-to-publish");
    let VerdictView::Reproduced { unpublished, .. } = bench.ledger.job(job).unwrap().verdict else { panic!() };
    assert_eq!(unpublished.unwrap(), "disk full");
    assert_eq!(bench.published(), [2]);
    bench.apply(Command::Published { job: next, generation: 2 });
    assert_eq!(bench.state(next), "published");
    bench.assert_replays();
}

#[test]
fn what_failed_for_now_holds_up_nobody_and_never_goes_back() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let (first, second, third) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2), reproduce(&mut bench, 3));
    bench.apply(failed(first, Cause::Transient));
    assert_eq!(bench.published(), [2], "the second does not wait for the first");
    bench.wait(2);
    assert_eq!(bench.published(), [0u64; 0], "one at a time");
    bench.apply(Command::Published { job: second, generation: 2 });
    assert_eq!(bench.published(), [3]);
    bench.apply(Command::Published { job: third, generation: 3 });
    assert_eq!(bench.ledger.released(&channel(1, 1, 1).name), 3);
    bench.wait(10);
    assert_eq!(bench.published(), [4], "a new generation, since others were published");
    bench.apply(Command::Published { job: first, generation: 1 });
    assert_eq!(bench.state(first), "publishing");
    bench.apply(Command::Published { job: first, generation: 4 });
    assert_eq!(bench.state(first), "published");
    bench.assert_replays();
}

/// Something that happens to a job.
type Does = fn(JobId) -> Command;

#[test]
fn what_may_be_out_keeps_its_generation_and_its_place() {
    let nothing = |job| failed_leaving(job, Left::Nothing);
    let perhaps = |job| failed_leaving(job, Left::Perhaps);
    // What happens to the first publication before it rests, and whether its generation may be out then.
    let stories: [(&str, Vec<Does>, bool); 5] = [
        ("the try wrote nothing", vec![nothing], false),
        ("the try failed after it began to write", vec![perhaps], true),
        ("its success was lost with the leader", vec![|_| Command::Restarted, nothing], true),
        (
            "it failed, and was said again in two terms",
            vec![|_| Command::Restarted, |_| Command::Restarted, nothing],
            true,
        ),
        ("it rested when the term ended", vec![nothing, |_| Command::Restarted], false),
    ];
    for (story, commands, out) in stories {
        let mut bench = Bench::of(1, 1, 1, 1);
        let (first, second) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
        let mut said = Vec::new();
        for command in commands {
            bench.apply(command(first));
            said.extend(bench.published());
        }
        assert_eq!(said.contains(&2), !out, "{story}: the second begins only when the first left nothing");
        if !out {
            continue;
        }
        let waiting = bench.ledger.job(second).unwrap().waiting.unwrap();
        assert!(waiting.ends_with("it may be out already, and is tried again until that is known"), "{waiting}");
        bench.apply(Command::Resign { channel: channel(1, 1, 1).name });
        assert!(!bench.effects.iter().any(|e| matches!(e, Effect::Resign { .. })), "{story}");
        bench.wait(2);
        assert_eq!(bench.published(), [1], "{story}: the same generation again");
        bench.apply(nothing(first));
        assert_eq!(bench.published(), [0u64; 0], "{story}: what was left is not taken back");
        bench.wait(4);
        assert_eq!(bench.published(), [1], "{story}");
        bench.apply(Command::Published { job: first, generation: 1 });
        assert_eq!((bench.state(first).as_str(), bench.published()), ("published", vec![2]), "{story}");
        bench.assert_replays();
    }
}

#[test]
fn what_may_be_out_and_will_never_be_whole_frees_its_line() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let (first, second) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
    bench.apply(failed_leaving(first, Left::Perhaps));
    bench.wait(2);
    assert_eq!(bench.published(), [1]);
    bench.apply(failed(first, Cause::Permanent));
    assert_eq!((bench.state(first).as_str(), bench.published()), ("failed-to-publish", vec![2]));
    bench.apply(Command::Published { job: second, generation: 2 });
    assert_eq!(bench.state(second), "published");
    bench.assert_replays();
}

#[test]
fn an_index_is_signed_anew_while_a_publication_rests() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let (first, second) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
    bench.apply(Command::Published { job: first, generation: 1 });
    bench.apply(failed(second, Cause::Transient));
    bench.apply(Command::Resign { channel: channel(1, 1, 1).name });
    let resigned = bench.effects.iter().any(|e| matches!(e, Effect::Resign { generation: 3, .. }));
    assert!(resigned, "{:?}", bench.effects);
    bench.wait(2);
    assert_eq!(bench.published(), [4]);
    bench.assert_replays();
}

#[test]
fn a_restart_publishes_again_under_the_same_generation() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let job = reproduce(&mut bench, 1);
    bench.apply(Command::Restarted);
    assert_eq!(bench.published(), [1]);
    bench.apply(Command::Published { job, generation: 1 });
    bench.apply(Command::Restarted);
    assert_eq!(bench.published(), [0u64; 0]);
    bench.assert_replays();
}

#[test]
fn an_expired_policy_publishes_nothing_until_there_is_a_new_one() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let soon = bench.now.after(std::time::Duration::from_secs(60));
    bench.adopt(|p| p.expires = soon);
    let job = bench.submit("deb", 1);
    let lease = bench.lease(builder(0, 0), job);
    bench.wait(20);
    bench.renew(&[&lease]);
    bench.wait(20);
    bench.renew(&[&lease]);
    bench.wait(20);
    bench.reveal(&lease, "a");
    assert_eq!((bench.state(job).as_str(), bench.published().len()), ("publishing", 0));
    let later = bench.now.after(std::time::Duration::from_secs(3600));
    bench.adopt(|p| p.expires = later);
    assert_eq!(bench.published(), [1]);
    bench.assert_replays();
}

#[test]
fn a_stricter_policy_holds_for_what_waits_to_be_published() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let (first, second) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
    bench.adopt(|p| p.channels = vec![crate::testing::channel(2, 2, 2)]);
    bench.apply(Command::Published { job: first, generation: 1 });
    assert_eq!((bench.state(second).as_str(), bench.published().len()), ("failed-to-publish", 0));
    let VerdictView::Reproduced { unpublished, .. } = bench.ledger.job(second).unwrap().verdict else { panic!() };
    assert_eq!(unpublished.unwrap(), "the policy in force wants 2 operators that agree, it names 1 of them");
    bench.assert_replays();
}

#[test]
fn an_index_is_signed_anew_between_publications_and_never_beside_one() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let resigned = |bench: &Bench| {
        let one = |e: &Effect| if let Effect::Resign { generation, .. } = e { Some(*generation) } else { None };
        bench.effects.iter().find_map(one)
    };
    let resign = || Command::Resign { channel: channel(1, 1, 1).name };
    bench.apply(resign());
    assert_eq!(resigned(&bench), None, "nothing was published");
    let job = reproduce(&mut bench, 1);
    bench.apply(resign());
    assert_eq!(resigned(&bench), None, "the publication under way signs the index");
    bench.apply(Command::Published { job, generation: 1 });
    bench.apply(resign());
    assert_eq!(resigned(&bench), Some(2));
    reproduce(&mut bench, 2);
    assert_eq!(bench.published(), [3], "the next publication comes after it");
    bench.assert_replays();
}
