//! Why attempts differ: the coordinator compares their outputs in a sandbox, names what varied and shows, and is held up by
//! nothing that a hostile output does.

use std::time::Duration;

use artel::build::explain::TOOLS;
use harness::{Ground, Network, Plan, run};
use protocol::JobId;
use web::{
    Backend,
    api::{DifferenceForm, JobDetail, JobFilter, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(180);

async fn network(ground: &Ground, change: impl FnOnce(&mut artel::config::Explain)) -> Network {
    let tools = ground.with(&TOOLS).await;
    let mut explain = tools.explain();
    change(&mut explain);
    let plan = Plan { explain: Some(explain), ..Plan::builders(2) };
    let mut network = Network::found(ground, &plan);
    network.start().await;
    network
}

/// Waits until the one difference of a job was looked into.
async fn explained(network: &Network, job: JobId) -> JobDetail {
    let ended = |detail: &JobDetail| {
        detail.summary.state.is_over() && detail.explanations.iter().any(|known| known.ended.is_some())
    };
    network.job_until((job, "its difference was looked into"), WITHIN, ended).await
}

#[tokio::test]
async fn what_shows_in_the_outputs_is_named_and_quoted() {
    let Some(ground) = ground().await else { return };
    let mut network = network(&ground, |_| ()).await;
    let script = "printf 'built on %s\\nin the year %s\\nalways\\n' \"$(hostname)\" \"$(date +%Y)\" > out";
    let job = network.submit(&ground.script("dated", script)).await;
    let detail = explained(&network, job).await;
    assert_eq!(detail.summary.state, JobState::Unreproducible, "{detail:#?}");
    let [known] = &detail.explanations[..] else { panic!("{:#?}", detail.explanations) };
    let quote = |key: &str| known.quotes.iter().find(|quote| quote.variation == key);
    let host = quote("hostname").unwrap_or_else(|| panic!("{known:#?}"));
    let told = |lease| detail.attempts.iter().find(|a| a.number == lease).unwrap().builder.info["hostname"].clone();
    assert_eq!((host.left.clone(), host.place.as_str()), (format!("built on {}", told(known.left)), "out"));
    assert_eq!(host.right, format!("built on {}", told(known.right)));
    assert!(quote("date").is_some_and(|quote| quote.left.starts_with("in the year 20")), "{known:#?}");
    let varied = detail.variations(known);
    assert!(["hostname", "date", "TZ"].iter().all(|key| varied.iter().any(|name| name == key)), "{varied:?}");
    assert_eq!(known.sides().split(" and ").count(), 2, "{}", known.sides());

    // It is a job of the list, with steps and a log; its text and its page are served, the page as a hostile one.
    let filter = JobFilter { kind: Some("explain".into()), ..JobFilter::default() };
    let page = network.coordinator().jobs(filter).await.unwrap();
    assert_eq!((page.jobs.len(), page.jobs[0].id, page.jobs[0].state), (1, known.id, JobState::Done));
    let own = network.job(known.id).await;
    let steps: Vec<_> = own.service.iter().flat_map(|service| &service.steps).map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["tools", "fetch", "compare", "read"], "{own:#?}");
    let text = network.coordinator().difference(known.id, DifferenceForm::Text).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(&format!("-{}", host.left)) && text.contains(&format!("+{}", host.right)), "{text}");
    let html = network.client("b1").difference(known.id, DifferenceForm::Html).await.unwrap();
    assert!(html.starts_with(b"<!DOCTYPE html>"), "a node that did not make it has it, too");

    let home = network.node("coordinator").home.path().to_owned();
    let (home, id) = (home.to_str().unwrap(), job.to_string());
    let said = run(&ground.artel, network.folder(), &["--home", home, "job", "diff", &id]).await;
    assert!(said.code == 0 && said.out.contains("hostname, in out") && said.out.contains(&host.right), "{said:?}");
}

#[tokio::test]
async fn a_comparison_of_hostile_outputs_ends_at_its_limits_and_says_so() {
    let Some(ground) = ground().await else { return };
    let network = network(&ground, |explain| (explain.disk_mib, explain.wall_secs) = (256, 40)).await;
    let bomb = "(head -c 1G /dev/zero; hostname) | gzip -n1 > out";
    let heavy = "awk -v seed=$(hostname | cksum | cut -c1-6) \
        'BEGIN { srand(seed); for (i = 0; i < 6000000; i++) print int(rand() * 3) }' > out";
    for (name, script, limit) in
        [("bomb", bomb, "disk limit of 256 MiB reached"), ("heavy", heavy, "time limit of 40 s reached")]
    {
        let job = network.submit(&ground.script(name, script)).await;
        let detail = explained(&network, job).await;
        assert_eq!(detail.summary.state, JobState::Unreproducible, "{detail:#?}");
        let known = &detail.explanations[0];
        assert!(known.summary.starts_with("cannot explain here: ") && known.summary.contains(limit), "{known:#?}");
        assert!(known.summary.contains("left/out right/out differ: "), "{known:#?}");
        assert_eq!(network.job(known.id).await.summary.state, JobState::Failed);
        assert!(network.coordinator().difference(known.id, DifferenceForm::Text).await.is_err());
    }
}
