//! Which recipes and runs are kept, in which order, and what is refused.

use protocol::{
    Signed, Verified,
    envelope::Record,
    message::{Refusal, Response},
    recipe::{Decision, Recipe, RecipeRun, RunState},
    testing::{node, samples, signing_key},
};

use super::BYTES_MAX;
use crate::{Command, Duty, Ledger, testing::Bench};

fn sign<T: Record>(bench: &Bench, record: &T, seed: u8) -> Verified<T> {
    Signed::sign(record, Some(&bench.network), &[&signing_key(seed)]).verify(Some(&bench.network)).unwrap()
}

fn keep(bench: &mut Bench, recipe: &Recipe) -> Response {
    let recipe = sign(bench, recipe, samples::MAINTAINER_SEED);
    bench.apply(Command::Recipe(recipe)).unwrap()
}

fn tell(bench: &mut Bench, run: &RecipeRun) -> Response {
    let run = sign(bench, run, samples::MAINTAINER_SEED);
    bench.apply(Command::RecipeRun(run)).unwrap()
}

fn tell_state(bench: &mut Bench, number: u64, state: RunState) -> Response {
    let run = run(bench, number, state);
    tell(bench, &run)
}

fn refused(answer: Response) -> String {
    let Response::Refused(refusal) = answer else { panic!("{answer:?} is no refusal") };
    refusal.to_string()
}

fn run(bench: &Bench, number: u64, state: RunState) -> RecipeRun {
    let open = bench.ledger.recipe(&"shop".parse().unwrap()).and_then(|(_, runs)| runs.last().copied().cloned());
    let step = open.filter(|run| run.run == number).map_or(0, |run| run.step + 1);
    RecipeRun { run: number, at: bench.now, step, state, ..samples::recipe_run(bench.network) }
}

#[test]
fn recipes_are_counted_and_no_old_one_comes_back() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let first = samples::recipe(bench.network);
    assert_eq!(keep(&mut bench, &first), Response::Done);
    assert_eq!(keep(&mut bench, &first), Response::Done, "the same again is no harm");
    let second = Recipe { number: 2, ..first.clone() };
    assert_eq!(keep(&mut bench, &second), Response::Done);
    assert!(refused(keep(&mut bench, &first)).contains("has number 2: sign it again as number 3"));
    let gone = Recipe { number: 3, plan: None, ..first.clone() };
    assert_eq!(keep(&mut bench, &gone), Response::Done);
    assert_eq!(bench.ledger.recipes().count(), 0);
    assert!(refused(keep(&mut bench, &second)).contains("sign it again as number 4"), "removed is removed");
    assert!(matches!(keep(&mut bench, &Recipe { number: 4, ..gone }), Response::Refused(Refusal::Unknown(_))));
    assert_eq!(keep(&mut bench, &Recipe { number: 4, ..first }), Response::Done);
}

#[test]
fn only_a_maintainer_of_the_channel_has_recipes_there() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let recipe = samples::recipe(bench.network);
    let stranger = sign(&bench, &recipe, 99);
    assert!(refused(bench.apply(Command::Recipe(stranger)).unwrap()).contains("no maintainer"));
    let elsewhere = Recipe { channel: "testing".parse().unwrap(), ..recipe.clone() };
    assert!(refused(keep(&mut bench, &elsewhere)).contains("may not submit to channel testing"));
    let mut early = recipe;
    early.at = bench.now.after(std::time::Duration::from_secs(3600));
    assert!(refused(keep(&mut bench, &early)).contains("in the future"));
}

#[test]
fn runs_follow_each_other_and_an_open_one_is_continued() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let recipe = samples::recipe(bench.network);
    assert!(refused(tell_state(&mut bench, 1, RunState::Open)).contains("recipe shop"));
    keep(&mut bench, &recipe);
    assert!(refused(tell_state(&mut bench, 2, RunState::Open)).contains("is run 1 of number 1"));
    let open = run(&bench, 1, RunState::Open);
    assert_eq!(tell(&mut bench, &open), Response::Done);
    assert!(refused(tell_state(&mut bench, 2, RunState::Open)).contains("run 1 of the recipe is not over"));
    bench.wait(1);
    let mut late = RecipeRun { at: bench.now, ..open.clone() };
    assert!(refused(tell(&mut bench, &late)).contains("went on meanwhile"), "the same step twice");
    late.step = 2;
    assert!(refused(tell(&mut bench, &late)).contains("went on meanwhile"), "a step is missing");
    assert_eq!(tell_state(&mut bench, 1, RunState::Ended), Response::Done);
    assert!(refused(tell(&mut bench, &open)).contains("is run 2"), "an older record changes nothing");
    for number in 2..60 {
        bench.wait(1);
        let mut skipped = run(&bench, number, RunState::Ended);
        skipped.decision = Some(Decision::Skip("same commit, skipped".to_owned()));
        assert_eq!(tell(&mut bench, &skipped), Response::Done);
    }
    let (_, runs) = bench.ledger.recipe(&recipe.name).unwrap();
    assert_eq!((runs.len(), runs[0].run, runs[1].run), (12, 1, 49), "the last that built is never forgotten");
    let again = Ledger::from_bytes(&bench.ledger.to_bytes()).unwrap();
    assert_eq!(again.recipe(&recipe.name), bench.ledger.recipe(&recipe.name));
    assert!(again.to_bytes() == bench.ledger.to_bytes());
    bench.assert_replays();
}

#[test]
fn recipes_and_runs_are_bounded_in_bytes() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let recipe = samples::recipe(bench.network);
    keep(&mut bench, &recipe);
    tell_state(&mut bench, 1, RunState::Open);
    let stored = Ledger::from_bytes(&bench.ledger.to_bytes()).unwrap().book.bytes;
    assert_eq!((bench.ledger.book.bytes, stored > 500), (stored, true));
    bench.ledger.book.bytes = BYTES_MAX;
    let other = Recipe { name: "cellar".parse().unwrap(), ..recipe.clone() };
    assert!(matches!(keep(&mut bench, &other), Response::Refused(Refusal::Busy(_))));
    let why = RunState::Failed("why".repeat(100));
    bench.wait(1);
    assert!(matches!(tell_state(&mut bench, 1, why), Response::Refused(Refusal::Busy(_))));
    let gone = Recipe { number: 2, plan: None, ..recipe };
    assert_eq!(keep(&mut bench, &gone), Response::Done, "what is removed makes room");
    bench.ledger.book.bytes -= BYTES_MAX - stored;
    assert_eq!(Ledger::from_bytes(&bench.ledger.to_bytes()).unwrap().book.bytes, bench.ledger.book.bytes);
}

#[test]
fn a_fetch_goes_only_to_builders_whose_owner_lists_its_hosts() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let job = bench.submit("fetch", 1);
    let arch = protocol::Arch::Amd64;
    let lists = |bench: &mut Bench, seed: u8, rules: &[&str]| {
        let fetch = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let capacity = protocol::peer::Capacity {
            fetch,
            isolation: protocol::job::Isolation::Rootfs,
            slots: 2,
            arches: vec![arch],
            disk_mib: 1 << 20,
            memory_mib: 1 << 20,
        };
        bench.apply(Command::Card { node: node(seed), capacity: Some(capacity), duty: Duty::Ready });
    };
    for seed in [10, 11] {
        bench.card(node(seed), arch, (2, 1 << 20), Duty::Ready);
        bench.offer(node(seed), 2);
        assert!(bench.granted().is_empty());
    }
    assert!(bench.why(job).contains("fetch from example.org:443"), "{}", bench.why(job));
    assert!(refused(bench.bid(node(10), job).unwrap()).contains("this node's owner does not let it fetch from"));
    lists(&mut bench, 10, &["git.example"]);
    assert!(bench.granted().is_empty(), "one host of two is not enough");
    lists(&mut bench, 11, &["*.example", "example.org"]);
    assert_eq!(bench.granted().iter().map(|lease| lease.node).collect::<Vec<_>>(), vec![node(11)]);
    bench.assert_replays();
}

#[test]
fn a_light_command_goes_only_to_builders_whose_owner_allows_it() {
    let mut bench = Bench::of(2, 1, 1, 1);
    let job = bench.submit("light", 1);
    let arch = protocol::Arch::Amd64;
    for seed in [10, 11] {
        bench.card(node(seed), arch, (2, 1 << 20), Duty::Ready);
        bench.offer(node(seed), 2);
        assert!(bench.granted().is_empty());
    }
    assert!(bench.why(job).contains("its machine's own programs: `isolation = \"light\"`"), "{}", bench.why(job));
    assert!(refused(bench.bid(node(10), job).unwrap()).contains("this node's owner does not let it run commands"));
    let capacity = protocol::peer::Capacity {
        fetch: Vec::new(),
        isolation: protocol::job::Isolation::Light,
        slots: 2,
        arches: vec![arch],
        disk_mib: 1 << 20,
        memory_mib: 1 << 20,
    };
    bench.apply(Command::Card { node: node(11), capacity: Some(capacity), duty: Duty::Ready });
    assert_eq!(bench.granted().iter().map(|lease| lease.node).collect::<Vec<_>>(), vec![node(11)]);
    bench.assert_replays();
}
