//! Server jobs, and publications as jobs.

use std::time::Duration;

use protocol::{
    ChannelName, Hash, JobId, Signed,
    job::{Diff, Promote, Prune, ServerJob, Side},
    message::{Refusal, Response},
    testing::{samples, signing_key},
};

use crate::{
    Cause, Command, Doubt, Effect, Left,
    service::{Account, Step, publication_id},
    testing::{Bench, builder, channel, policy},
    view::{Relation, VerdictView},
};

/// Gives a network with the channels `stable` and `testing`.
fn bench() -> Bench {
    let mut policy = policy(1, 1, channel(1, 1, 1));
    policy.channels.push(protocol::policy::Channel { name: testing(), ..channel(1, 1, 1) });
    Bench::new(&policy)
}

fn testing() -> ChannelName {
    "testing".parse().unwrap()
}

fn promote() -> ServerJob {
    ServerJob::Promote(Promote { from: testing(), packages: Vec::new() })
}

fn prune() -> ServerJob {
    ServerJob::Prune(Prune { keep: 1, before: None, packages: Vec::new() })
}

fn diff() -> ServerJob {
    let side = |channel: ChannelName| Side { channel, generation: None };
    ServerJob::Diff(Diff { left: side(testing()), right: side("stable".parse().unwrap()) })
}

fn account(bench: &Bench) -> Account {
    let step = Step { name: "write".into(), began: bench.now, ended: bench.now };
    Account { log: Some(Hash::of(b"log")), steps: vec![step], result: None, summary: "2 packages".into() }
}

fn done(bench: &mut Bench, job: JobId, generation: u64) {
    let account = account(bench);
    bench.apply(Command::Ran { job, account });
    bench.apply(Command::Published { job, generation });
}

fn package(bench: &mut Bench, number: u8) -> JobId {
    let job = bench.submit("deb", number);
    let lease = bench.lease(builder(0, 0), job);
    bench.reveal(&lease, "a");
    job
}

#[test]
fn server_jobs_and_publications_share_one_line() {
    let mut bench = bench();
    let build = package(&mut bench, 1);
    assert_eq!(bench.published(), [1]);
    let promote = bench.serve(1, promote());
    let prune = bench.serve(2, prune());
    assert_eq!(bench.served(), [], "the publication is first");
    assert_eq!([promote, prune].map(|job| bench.state(job)), ["queued", "queued"]);
    assert!(bench.ledger.job(promote).unwrap().waiting.unwrap().contains("one after another"));
    bench.apply(Command::Published { job: build, generation: 1 });
    assert_eq!(bench.served(), [(promote, 2)]);
    assert_eq!([promote, prune].map(|job| bench.state(job)), ["running", "queued"]);
    done(&mut bench, promote, 9);
    assert_eq!(bench.state(promote), "running", "another generation is not this one");
    done(&mut bench, promote, 2);
    assert_eq!(bench.served(), [(prune, 3)]);
    let VerdictView::Served { generation, summary } = bench.ledger.job(promote).unwrap().verdict else { panic!() };
    assert_eq!((generation, summary.as_str()), (2, "2 packages"));
    let run = bench.ledger.service_run(promote).unwrap();
    assert_eq!((run.steps.len(), run.log), (1, Some(Hash::of(b"log"))));
    bench.assert_replays();
}

#[test]
fn a_comparison_needs_no_turn_and_makes_no_generation() {
    let mut bench = bench();
    package(&mut bench, 1);
    let diff = bench.serve(1, diff());
    assert_eq!(bench.served(), [(diff, 0)]);
    done(&mut bench, diff, 0);
    assert_eq!(bench.state(diff), "done");
    assert_eq!(bench.ledger.generation(&"stable".parse().unwrap()), 1);
    bench.assert_replays();
}

#[test]
fn a_server_job_is_tried_again_and_given_up_like_a_publication() {
    let mut bench = bench();
    let job = bench.serve(1, promote());
    let failed =
        |cause| Command::PublishFailed { job, generation: None, cause, left: Left::Nothing, why: "disk full".into() };
    for rest in [2, 4, 8, 16, 32] {
        bench.apply(failed(Cause::Transient));
        let waiting = bench.ledger.job(job).unwrap().waiting.unwrap();
        assert!(waiting.contains("(disk full); it is tried again at"), "{waiting}");
        bench.wait(rest);
        assert_eq!(bench.served(), [(job, 1)]);
    }
    let behind = bench.submit_after("command", 9, &[job]);
    bench.apply(failed(Cause::Permanent));
    assert_eq!([job, behind].map(|job| bench.state(job)), ["failed-to-run", "skipped"]);
    let VerdictView::Unserved { why } = bench.ledger.job(job).unwrap().verdict else { panic!() };
    assert_eq!(why, "disk full");
    bench.assert_replays();
}

/// Gives how the jobs that are to be run stand: what of them may be out.
fn doubts(bench: &Bench) -> Vec<(u64, Doubt)> {
    let one =
        |e: &Effect| if let Effect::Serve(service) = e { Some((service.generation, service.doubt)) } else { None };
    bench.effects.iter().filter_map(one).collect()
}

#[test]
fn what_may_be_out_and_depends_on_another_channel_is_never_made_again_under_its_number() {
    let mut bench = bench();
    let job = bench.serve(1, promote());
    assert_eq!(doubts(&bench), [(1, Doubt::Nothing)]);
    bench.apply(Command::Restarted);
    assert_eq!(doubts(&bench), [(2, Doubt::Since(1))], "the source may have moved meanwhile");
    done(&mut bench, job, 1);
    assert_eq!(bench.state(job), "running", "the first number proves nothing");
    let failed = |left| Command::PublishFailed {
        job,
        generation: Some(2),
        cause: Cause::Transient,
        left,
        why: "disk full".into(),
    };
    bench.apply(failed(Left::Nothing));
    bench.wait(2);
    assert_eq!(doubts(&bench), [(3, Doubt::Since(1))], "nor in the same term");
    bench.apply(failed(Left::Perhaps));
    assert_eq!(bench.ledger.job(job).unwrap().waiting, None, "that was the try before");
    done(&mut bench, job, 3);
    assert_eq!(bench.state(job), "done");
    bench.apply(Command::Restarted);
    assert_eq!(bench.served(), []);
    let prune = bench.serve(2, prune());
    assert_eq!(bench.served(), [(prune, 4)]);
    bench.assert_replays();
}

#[test]
fn one_that_rests_may_be_cancelled_and_in_doubt_only_when_it_is_not_out() {
    let mut bench = bench();
    let (first, second) = (bench.serve(1, promote()), bench.serve(2, prune()));
    let failed = |job, generation, left| Command::PublishFailed {
        job,
        generation: Some(generation),
        cause: Cause::Transient,
        left,
        why: "disk full".into(),
    };
    bench.apply(failed(first, 1, Left::Nothing));
    assert_eq!(bench.served(), [(second, 2)]);
    assert_eq!(bench.cancel(first, samples::MAINTAINER_SEED), Some(Response::Done));
    bench.apply(failed(second, 2, Left::Perhaps));
    let third = bench.serve(3, prune());
    let answer = bench.cancel(second, samples::MAINTAINER_SEED);
    assert!(matches!(answer, Some(Response::Refused(Refusal::Busy(_)))), "{answer:?}");
    assert_eq!((bench.withdrawn(), bench.state(second)), (vec![(second, 3, (2, 3))], "running".to_owned()));
    bench.apply(Command::Withdrawn { job: second, generation: 3 });
    assert_eq!([first, second].map(|job| bench.state(job)), ["cancelled", "cancelled"]);
    assert_eq!(bench.served(), [(third, 4)]);
    let diff = bench.serve(4, diff());
    bench.apply(Command::Restarted);
    bench.apply(failed(diff, 0, Left::Perhaps));
    assert_eq!(bench.cancel(diff, samples::MAINTAINER_SEED), Some(Response::Done), "a comparison leaves nothing");
    bench.assert_replays();
}

#[test]
fn one_that_waits_may_be_cancelled_and_one_that_runs_not() {
    let mut bench = bench();
    let (first, second) = (bench.serve(1, promote()), bench.serve(2, prune()));
    let third = bench.serve(3, prune());
    assert!(matches!(bench.cancel(first, samples::MAINTAINER_SEED), Some(Response::Refused(_))));
    assert_eq!(bench.cancel(second, samples::MAINTAINER_SEED), Some(Response::Done));
    done(&mut bench, first, 1);
    assert_eq!(bench.served(), [(third, 2)]);
    bench.assert_replays();
}

#[test]
fn who_may_ask_and_what_for() {
    let mut bench = bench();
    let network = bench.network;
    let submit = |bench: &mut Bench, key: u8, number: u8, server: ServerJob| {
        let wish = protocol::job::JobRequest { nonce: vec![number; 16], ..samples::server_request(network, server) };
        let signed = Signed::sign(&wish, Some(&network), &[&signing_key(key)]).verify(Some(&network)).unwrap();
        bench.apply(Command::Submit(signed))
    };
    let answer = submit(&mut bench, 9, 1, promote());
    assert!(matches!(answer, Some(Response::Refused(Refusal::NotAllowed(_)))), "{answer:?}");
    let answer = submit(&mut bench, samples::ROOT_SEED, 2, promote());
    let Some(Response::Receipt(job, _)) = answer else { panic!("{answer:?}") };
    assert_eq!(bench.ledger.job(job).unwrap().maintainer.as_str(), "root");
    let nowhere = ServerJob::Promote(Promote { from: "nowhere".parse().unwrap(), packages: Vec::new() });
    let answer = submit(&mut bench, samples::MAINTAINER_SEED, 3, nowhere);
    assert!(matches!(&answer, Some(Response::Refused(Refusal::Invalid(why))) if why.contains("no channel nowhere")));
    assert!(matches!(bench.bid(builder(0, 0), job), Some(Response::Refused(Refusal::Invalid(_)))));
    let waits = bench.serve(4, prune());
    bench.adopt(|policy| policy.maintainers.clear());
    done(&mut bench, job, 1);
    assert_eq!(bench.state(waits), "failed-to-run", "its maintainer was taken out meanwhile");
    bench.assert_replays();
}

#[test]
fn thousands_that_may_be_published_no_more_end_one_after_the_other() {
    const WAIT: u16 = 3000;
    let mut bench = bench();
    bench.adopt(|policy| policy.limits.open_jobs = 5000);
    let first = bench.serve(1, prune());
    let network = bench.network;
    let mut last = first;
    for number in 0..WAIT {
        let nonce = number.to_be_bytes().repeat(8);
        let wish = protocol::job::JobRequest { nonce, ..samples::server_request(network, prune()) };
        let answer = bench.apply(Command::Submit(samples::signed_request(&wish)));
        let Some(Response::Receipt(job, _)) = answer else { panic!("{answer:?}") };
        last = job;
    }
    bench.adopt(|policy| policy.maintainers.clear());
    done(&mut bench, first, 1);
    assert_eq!(bench.state(last), "failed-to-run");
    assert!(bench.served().is_empty());
}

#[test]
fn a_publication_is_a_job_of_the_list_that_leads_to_its_build_and_back() {
    let mut bench = bench();
    let build = package(&mut bench, 1);
    let id = publication_id(&build);
    let view = bench.ledger.job(id).unwrap();
    assert_eq!((view.kind.as_str(), view.state.as_str()), ("publish", "running"));
    assert_eq!(view.title, "publish deb base-files 12.4 amd64");
    assert_eq!(bench.ledger.briefs().len(), 2);
    let links = |id| bench.ledger.links(id).into_iter().map(|l| (l.relation, l.job)).collect::<Vec<_>>();
    assert_eq!(links(build), [(Relation::Publication, id)]);
    assert_eq!(links(id), [(Relation::Build, build)]);
    assert_eq!((bench.ledger.behind(id), bench.ledger.behind(build)), (build, build));
    assert!(bench.ledger.service_run(build).is_none());
    done(&mut bench, build, 1);
    let view = bench.ledger.job(id).unwrap();
    assert!(matches!(view.verdict, VerdictView::Served { generation: 1, .. }), "{view:?}");
    assert_eq!((view.state.as_str(), view.times.ended), ("done", Some(bench.now)));
    assert_eq!(bench.ledger.service_run(id).unwrap().steps.len(), 1);
    bench.assert_replays();
}

#[test]
fn the_end_is_expected_from_what_the_same_work_took() {
    let mut bench = bench();
    let first = bench.serve(1, prune());
    assert_eq!(bench.ledger.service_run(first).unwrap().expected, None, "nothing is known yet");
    bench.now = bench.now.after(Duration::from_secs(8));
    done(&mut bench, first, 1);
    let (second, third) = (bench.serve(2, prune()), bench.serve(3, prune()));
    let begun = bench.now;
    let expected = |bench: &Bench, job| bench.ledger.service_run(job).unwrap().expected.unwrap().since(begun).as_secs();
    assert_eq!((expected(&bench, second), expected(&bench, third)), (8, 16));
    bench.now = bench.now.after(Duration::from_secs(4));
    done(&mut bench, second, 2);
    assert_eq!(expected(&bench, third), 4 + 6, "half from the newest, half from before");
    bench.assert_replays();
}
