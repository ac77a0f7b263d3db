//! From the verdict into the repository.

use protocol::JobId;

use crate::{
    Command, Effect,
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

#[test]
fn a_failed_publication_is_tried_again_and_then_stays_visible() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let job = reproduce(&mut bench, 1);
    for rest in [2, 4, 8, 16, 32] {
        bench.apply(Command::PublishFailed { job, why: "disk full".into() });
        bench.wait(rest - 1);
        assert_eq!(bench.published(), [0u64; 0]);
        bench.wait(1);
        assert_eq!(bench.published(), [1]);
    }
    let next = reproduce(&mut bench, 2);
    bench.apply(Command::PublishFailed { job, why: "disk full".into() });
    assert_eq!(bench.state(job), "failed-to-publish");
    assert_eq!(bench.published(), [2], "the next one is not held up, and the generation is not used again");
    bench.apply(Command::Published { job: next, generation: 2 });
    assert_eq!(bench.state(next), "published");
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
