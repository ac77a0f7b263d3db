//! From the verdict into the repository.

use attest::log::entry::{Entry, Event};
use protocol::{
    ChannelName, Hash, JobId, Signed, Timestamp, Verified,
    lease::Term,
    message::{Refusal, Response},
    release::Release,
    testing::signing_key,
};

use crate::{
    Cause, Command, Effect, Left,
    testing::{Bench, builder, channel},
    view::VerdictView,
};

/// The seed of the key of who coordinates.
const COORDINATOR: u8 = 10;

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
    Command::PublishFailed { job, generation: None, cause, left: Left::Nothing, why: "disk full".into() }
}

fn failed_leaving(job: JobId, left: Left) -> Command {
    Command::PublishFailed { job, generation: None, cause: Cause::Transient, left, why: "disk full".into() }
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
fn what_may_be_out_and_will_never_be_whole_frees_its_line_once_a_newer_generation_says_so() {
    // Nobody within reach has it, or somebody has.
    for found in [false, true] {
        let mut bench = Bench::of(1, 1, 1, 1);
        let (first, second) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2));
        bench.apply(failed_leaving(first, Left::Perhaps));
        bench.wait(2);
        assert_eq!(bench.published(), [1]);
        bench.apply(failed(first, Cause::Permanent));
        assert_eq!((bench.state(first).as_str(), bench.published().len()), ("publishing", 0), "it may be out");
        assert_eq!(bench.withdrawn(), [(first, 2, (1, 2))]);
        bench.apply(failed_leaving(first, Left::Perhaps));
        let waiting = bench.ledger.job(first).unwrap().waiting.unwrap();
        assert!(
            waiting.starts_with("it is taken back (disk full), and may be out already, as generation 1"),
            "{waiting}"
        );
        bench.apply(Command::Resign { channel: channel(1, 1, 1).name });
        assert!(!bench.effects.iter().any(|e| matches!(e, Effect::Resign { .. })), "nothing comes between");
        bench.wait(8);
        assert_eq!(bench.withdrawn(), [(first, 3, (1, 2))], "another try is another generation");
        bench.apply(Command::Restarted);
        assert_eq!(bench.withdrawn(), [(first, 4, (1, 2))], "so is that of the next leader");
        if found {
            bench.apply(Command::Found { job: first, generation: 4 });
            bench.apply(Command::Restarted);
            let holds =
                |e: &Effect| if let Effect::Withdraw(w) = e { Some((w.has_job(4), w.has_job(2))) } else { None };
            assert_eq!(bench.effects.iter().find_map(holds), Some((true, false)), "4 would have it, 2 has not");
        }
        let current = bench.ledger.generation(&channel(1, 1, 1).name);
        let old = Command::PublishFailed {
            job: first,
            generation: Some(3),
            cause: Cause::Permanent,
            left: Left::Nothing,
            why: "older".into(),
        };
        bench.apply(old);
        assert_eq!(bench.ledger.job(first).unwrap().waiting, None, "what an older try says is not about this one");
        let (end, word) = if found {
            (Command::Published { job: first, generation: current }, "published")
        } else {
            (Command::Withdrawn { job: first, generation: current }, "failed-to-publish")
        };
        bench.apply(Command::Withdrawn { job: first, generation: 3 });
        assert_eq!(bench.state(first), "publishing", "another generation is not this one");
        bench.apply(end);
        assert_eq!((bench.state(first).as_str(), bench.published()), (word, vec![current + 1]));
        bench.apply(Command::Published { job: second, generation: current + 1 });
        assert_eq!(bench.state(second), "published");
        bench.assert_replays();
    }
}

#[test]
fn a_policy_that_no_longer_allows_it_does_not_end_what_may_be_out() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let first = reproduce(&mut bench, 1);
    bench.apply(failed_leaving(first, Left::Perhaps));
    bench.adopt(|p| p.channels = vec![crate::testing::channel(2, 2, 2)]);
    bench.wait(2);
    assert_eq!((bench.state(first).as_str(), bench.withdrawn()), ("publishing", vec![(first, 2, (1, 2))]));
    bench.apply(Command::Withdrawn { job: first, generation: 2 });
    assert_eq!((bench.state(first).as_str(), bench.ledger.released(&channel(1, 1, 1).name)), ("failed-to-publish", 2));
    bench.assert_replays();
}

#[test]
fn a_withdrawal_ends_with_its_channel() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let first = reproduce(&mut bench, 1);
    bench.apply(failed_leaving(first, Left::Perhaps));
    bench.adopt(|p| p.channels = vec![crate::testing::channel(2, 2, 2)]);
    bench.wait(2);
    assert_eq!(bench.withdrawn(), [(first, 2, (1, 2))]);
    bench.apply(failed_leaving(first, Left::Perhaps));
    bench.adopt(|p| p.channels[0].name = ChannelName::new("other").unwrap());
    bench.wait(10);
    assert_eq!(bench.state(first), "failed-to-publish", "nobody follows the channel any more");
    bench.assert_replays();
}

#[test]
fn a_publication_that_rests_is_cancelled_and_one_that_may_be_out_only_when_it_is_not() {
    use protocol::{
        message::{Refusal, Response},
        testing::samples::MAINTAINER_SEED,
    };
    let mut bench = Bench::of(1, 1, 1, 1);
    let (first, second, third) = (reproduce(&mut bench, 1), reproduce(&mut bench, 2), reproduce(&mut bench, 3));
    let cancel = |bench: &mut Bench, job| bench.cancel(job, MAINTAINER_SEED);
    let busy = |answer: Option<Response>| matches!(answer, Some(Response::Refused(Refusal::Busy(why))) if why.contains("may be out"));
    let late = |answer: Option<Response>| matches!(answer, Some(Response::Refused(Refusal::Invalid(why))) if why.contains("too late"));
    assert!(late(cancel(&mut bench, first)), "the publisher works on it");
    assert_eq!(cancel(&mut bench, third), Some(Response::Done), "its turn has not come");
    bench.apply(failed(first, Cause::Transient));
    assert_eq!(bench.published(), [2]);
    assert_eq!(cancel(&mut bench, first), Some(Response::Done), "it left nothing");
    assert_eq!([first, third].map(|job| bench.state(job)), ["cancelled", "cancelled"]);
    bench.apply(failed_leaving(second, Left::Perhaps));
    assert!(busy(cancel(&mut bench, second)));
    assert_eq!((bench.state(second).as_str(), bench.withdrawn()), ("publishing", vec![(second, 3, (2, 3))]));
    assert!(busy(cancel(&mut bench, second)), "asked again");
    bench.apply(Command::Withdrawn { job: second, generation: 3 });
    assert_eq!(bench.state(second), "cancelled");
    assert_eq!(cancel(&mut bench, second), Some(Response::Done), "now it is known");
    let fourth = reproduce(&mut bench, 4);
    bench.apply(failed_leaving(fourth, Left::Perhaps));
    assert!(busy(cancel(&mut bench, fourth)));
    bench.apply(Command::Published { job: fourth, generation: 5 });
    assert_eq!(bench.state(fourth), "published");
    assert!(late(cancel(&mut bench, fourth)), "it was out");
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

#[test]
fn a_release_is_logged_once_before_anybody_is_told_and_never_goes_back() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let first = reproduce(&mut bench, 1);
    let network = bench.network;
    let release = |generation: u64, term: u64, seed: u8| {
        let (at, manifest) = (Timestamp::ZERO, Hash::of(b"manifest"));
        let channel = channel(1, 1, 1).name;
        let release = Release { at, term: Term(term), channel, manifest, generation };
        Signed::sign(&release, Some(&network), &[&signing_key(seed)]).verify(Some(&network)).unwrap()
    };
    let logged = |bench: &Bench| -> Vec<(u64, Hash)> {
        let release = |effect: &Effect| {
            let Effect::Append { entry, .. } = effect else { return None };
            let Event::Release(release) = Entry::from_bytes(entry).unwrap().event else { return None };
            Some((release.generation, release.envelope))
        };
        bench.effects.iter().filter_map(release).collect()
    };
    let id = |release: &Verified<Release>| Hash::of(&release.to_bytes());
    let (one, again) = (release(1, 1, COORDINATOR), release(1, 2, COORDINATOR));
    assert!(matches!(
        bench.apply(Command::Released(release(1, 1, 77))),
        Some(Response::Refused(Refusal::NotAllowed(_)))
    ));
    assert!(matches!(
        bench.apply(Command::Released(release(2, 1, COORDINATOR))),
        Some(Response::Refused(Refusal::Invalid(_)))
    ));
    assert_eq!(bench.apply(Command::Released(one.clone())), Some(Response::Done));
    assert_eq!(logged(&bench), [(1, id(&one))]);
    assert_eq!(bench.apply(Command::Released(one.clone())), Some(Response::Done));
    assert_eq!(logged(&bench), [], "once is enough");
    assert_eq!(bench.apply(Command::Released(again.clone())), Some(Response::Done));
    assert_eq!(logged(&bench), [(1, id(&again))], "a later term signs the same generation");
    bench.apply(Command::Published { job: first, generation: 1 });
    reproduce(&mut bench, 2);
    let two = release(2, 2, COORDINATOR);
    assert_eq!(bench.apply(Command::Released(two.clone())), Some(Response::Done));
    assert_eq!(logged(&bench), [(2, id(&two))]);
    assert!(matches!(bench.apply(Command::Released(one)), Some(Response::Refused(Refusal::Invalid(_)))), "never back");
    bench.assert_replays();
}
