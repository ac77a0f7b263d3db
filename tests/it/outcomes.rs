//! How every attempt ended, failures included: told and proven to whoever asks any node, and to whoever installs.

use std::{fs, time::Duration};

use attest::{
    bundle::Bundle,
    staple,
    trust::{Demands, Trust},
    verify::{
        attempts,
        attempts::{Bound, Ended},
    },
};
use harness::{Hostile, Manner, Network, Plan, run, until};
use protocol::words::RelativePath;
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobState, LoggedAttempt},
    backend::ByteRange,
};

use crate::{clients::get, ground};

const WITHIN: Duration = Duration::from_secs(120);
const MIRROR_WITHIN: Duration = Duration::from_secs(40);

/// Operator, what the log says, and whether something signed is named.
fn told(logged: &[LoggedAttempt]) -> Vec<(String, String, bool)> {
    let one = |it: &LoggedAttempt| (it.who(), it.words().to_owned(), it.statement.is_some());
    let mut told: Vec<_> = logged.iter().map(one).collect();
    told.sort();
    told
}

#[tokio::test]
async fn strangers_see_who_failed_and_why_beside_those_who_agree() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(3) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "mirror"]).await;
    let failing = Hostile::join(&mut network, "b3", Manner::Trickles).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let failed = |detail: &JobDetail| detail.attempts.iter().any(|attempt| attempt.state == AttemptState::Failed);
    let detail = network.job_until((job, "the third operator says that it fails"), WITHIN, failed).await;
    assert_eq!(told(&detail.logged), [("o3".into(), "failed".into(), true)], "it is seen while the job goes on");
    network.start_some(&["b1", "b2"]).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let wanted = [("o1", "built"), ("o2", "built"), ("o3", "failed")].map(|(who, end)| (who.into(), end.into(), true));
    assert_eq!(told(&detail.logged), wanted);
    drop(failing);

    // A node that is no coordinator hands the proof on.
    let bundle = network.public("mirror").bundle(job).await.unwrap();
    let folder = network.folder().join("stranger");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("job.artel-bundle");
    fs::write(&file, &bundle).unwrap();
    let arguments = ["--network", &network.id.to_string(), file.to_str().unwrap()];
    let said = run(&ground.verify, &folder, &arguments).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("attempts: 2 agreed, 1 failed (by entries of the log, of "), "{}", said.out);
    assert!(said.out.contains("  o3, lease 1: failed in build (job-failed, job): said so"), "{}", said.out);
    assert!(said.out.contains("  2 results are what their builders had committed to in the log"), "{}", said.out);

    let bundle = Bundle::from_bytes(&bundle).unwrap();
    let all = attempts(&bundle, &network.id).unwrap();
    let opened = |ended: &Ended| matches!(ended, Ended::Built { bound: Bound::Opened, .. });
    assert_eq!(all.list().iter().filter(|attempt| opened(&attempt.ended)).count(), 2, "{all:?}");
    assert!(matches!(&all.list()[0].ended, Ended::Told(negative) if negative.job == job), "{all:?}");
    is_seen(&mut network, (&ground.artel, &ground.verify), (&detail, &bundle)).await;
    withheld(&network, bundle);
}

/// The command line, the page and what lies beside the package say so, too.
async fn is_seen(
    network: &mut Network,
    (artel, program): (&std::path::Path, &std::path::Path),
    (detail, bundle): (&JobDetail, &Bundle),
) {
    let job = detail.summary.id.to_string();
    let home = network.node("mirror").home.path().to_owned();
    let said = run(artel, network.folder(), &["--home", home.to_str().unwrap(), "job", "show", &job]).await;
    assert!(said.code == 0 && said.out.contains("o3: failed, signed "), "{said:?}");
    let (status, page) = get(&network.public_address("mirror"), &format!("/jobs/{job}"));
    assert!(status == 200 && page.contains("What the log says of each attempt"), "{page}");

    let generation = detail.published.as_ref().unwrap().generation;
    let mirror = network.client("mirror");
    until("the mirror has followed", MIRROR_WITHIN, async || {
        let views = mirror.repositories().await.ok()?;
        views.into_iter().find(|view| view.generation == generation)
    })
    .await;
    let (name, folder) = ("artel-tiny_1.0_amd64.deb", network.folder().join("stranger"));
    for suffix in ["", staple::SUFFIX, staple::PROOF_SUFFIX] {
        let path = RelativePath::new(format!("pool/main/a/artel-tiny/{name}{suffix}")).unwrap();
        let file = mirror.repository_file(network.channel.clone(), path, ByteRange::All).await.unwrap();
        fs::write(folder.join(format!("{name}{suffix}")), file.collect(16 << 20).await.unwrap()).unwrap();
    }
    let policies: Vec<_> = bundle.policies.iter().map(|policy| (policy.0.clone(), None)).collect();
    let trust = Trust::new(network.id, &policies, Demands::default(), artel::clock::now()).unwrap();
    let policy = folder.join("verify.policy");
    fs::write(&policy, trust.to_string()).unwrap();
    let package = folder.join(name);
    let said = run(program, &folder, &["--policy", policy.to_str().unwrap(), package.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("attempts: 2 agreed, 1 failed (by what builders signed)"), "{}", said.out);
}

/// What somebody leaves out of a bundle is missed; what somebody changes in it is found.
fn withheld(network: &Network, mut bundle: Bundle) {
    let course = bundle.course.as_mut().unwrap();
    let negatives = std::mem::take(&mut course.negatives);
    let lines = attempts(&bundle, &network.id).unwrap().lines(None).join("\n");
    assert!(lines.contains("o3, lease 1: failed; what its builder signed, "), "{lines}");
    let course = bundle.course.as_mut().unwrap();
    course.negatives = negatives;
    let salts = &mut course.salts;
    (salts[0].salt, salts[1].salt) = (salts[1].salt, salts[0].salt);
    let why = attempts(&bundle, &network.id).unwrap_err();
    assert_eq!(why.exit_code(), 13, "{why}: another salt does not open the commitment");
}
