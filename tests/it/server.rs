//! Server jobs in a whole network: a publication is a job, packages are promoted to another channel with evidence that a mirror
//! believes, compared, and taken out.

use std::time::Duration;

use harness::{Network, Plan, run, until};
use protocol::job::{Diff, Promote, Prune, ServerJob, Side};
use web::{
    Backend,
    api::{JobFilter, JobState},
    backend::ByteRange,
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_package_is_promoted_compared_and_taken_out_by_jobs() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) };
    let mut network = Network::found(&ground, &plan);
    let (main, stable) = (network.channel.clone(), "stable".parse::<protocol::ChannelName>().unwrap());
    let mut config = network.node("mirror").config();
    config.mirror.as_mut().unwrap().channels.push(stable.clone());
    config.save(&network.node("mirror").home).unwrap();
    network.start().await;
    network
        .change_policy(|charter| {
            let mut channel = charter.channels[0].clone();
            channel.name = stable.clone();
            charter.channels.push(channel);
            charter.maintainers[0].channels.push(stable.clone());
        })
        .await;

    // What waits for a package begins when it is published; its publication is a job of its own.
    let build = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let promote = ServerJob::Promote(Promote { from: main.clone(), packages: Vec::new() });
    let promoted = network.serve(&stable, promote, &[build]).await;
    let detail = network.over(promoted, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Done, "{detail:#?}");
    assert!(detail.summary.why.starts_with("2 packages taken over from main"), "{detail:#?}");
    assert_eq!(network.job(build).await.summary.state, JobState::Published);
    let filter = JobFilter { kind: Some("publish".into()), ..JobFilter::default() };
    let page = network.coordinator().jobs(filter).await.unwrap();
    let publication = network.job(page.jobs[0].id).await;
    assert_eq!((page.jobs.len(), publication.summary.state), (1, JobState::Done), "{publication:#?}");
    assert_eq!(publication.links.iter().map(|l| l.job).collect::<Vec<_>>(), [build]);
    let service = publication.service.as_ref().unwrap();
    let steps: Vec<_> = service.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["catch up", "fetch", "bundle evidence", "log", "write", "release"], "{publication:#?}");
    assert!(service.log.is_some(), "{publication:#?}");
    let home = network.node("mirror").home.path().to_owned();
    let arguments = ["--home", home.to_str().unwrap(), "job", "log", &promoted.to_string()];
    let said = run(&ground.artel, network.folder(), &arguments).await;
    assert!(said.code == 0 && said.out.contains("artel-tiny") && said.out.contains("taken over"), "{said:?}");

    // The mirror believes nobody: it has taken the other channel's release because its evidence holds.
    let mirror = network.client("mirror");
    until("the mirror has the promoted packages", WITHIN, async || {
        let views = mirror.repositories().await.ok()?;
        views.into_iter().find(|view| view.channel == stable && view.packages == 2)
    })
    .await;

    let side = |channel: &protocol::ChannelName| Side { channel: channel.clone(), generation: None };
    let prune = ServerJob::Prune(Prune { keep: 0, before: None, packages: vec!["artel-tiny-doc".parse().unwrap()] });
    let pruned = network.serve(&stable, prune, &[]).await;
    assert_eq!(network.over(pruned, WITHIN).await.summary.state, JobState::Done);
    let diff = ServerJob::Diff(Diff { left: side(&main), right: side(&stable) });
    let compared = network.over(network.serve(&stable, diff, &[]).await, WITHIN).await;
    assert_eq!(compared.summary.why, "0 added, 1 removed, 0 changed", "{compared:#?}");
    let result = compared.service.unwrap().result.unwrap();
    let content = network.coordinator().blob(result, ByteRange::All).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&content.collect(1 << 20).await.unwrap()).unwrap();
    assert_eq!(json["removed"][0]["name"], "artel-tiny-doc", "{json}");

    let missing = ServerJob::Promote(Promote { from: main, packages: vec!["nothing".parse().unwrap()] });
    let failed = network.over(network.serve(&stable, missing, &[]).await, WITHIN).await;
    assert_eq!(
        (failed.summary.state, failed.summary.why.as_str()),
        (JobState::Failed, "channel main has no package nothing")
    );
}
