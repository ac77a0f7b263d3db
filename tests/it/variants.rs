//! One request for several jobs, the same once more, the outputs of one job in another, and the results by one command; all of
//! it as people do it, on the command line.

use std::{fs, path::Path, time::Duration};

use harness::{Ground, Network, Plan, run};
use web::{
    Backend,
    api::{JobFilter, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

/// Runs `artel job` on the coordinator and gives what it printed.
async fn job(ground: &Ground, network: &mut Network, arguments: &[&str], code: i32) -> String {
    let home = network.node("coordinator").home.path().to_owned();
    let all: Vec<&str> = ["--home", home.to_str().unwrap(), "job"].iter().chain(arguments).copied().collect();
    let said = run(&ground.artel, network.folder(), &all).await;
    assert_eq!(said.code, code, "{arguments:?}: {said:?}");
    format!("{}{}", said.talk, said.out)
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Starts a network whose coordinator may use the packages of this machine's tests.
async fn network(ground: &Ground) -> Network {
    let mut network = Network::found(ground, &Plan { lend: true, ..Plan::builders(2) });
    network.start().await;
    let (key, path) = (network.maintainer.clone(), network.node("coordinator").home.key("maintainer"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    artel::keys::save(&path, &key).unwrap();
    network
}

#[tokio::test]
async fn an_output_of_one_job_is_an_input_of_another_and_both_are_brought() {
    let Some(ground) = ground().await else { return };
    let mut network = network(&ground).await;
    let folder = network.folder().to_owned();
    let write = |name: &str, script: &str| {
        let text = format!("name = \"{name}\"\nargv = [\"sh\", \"-euc\", \"{script}\"]\noutputs = [\"out\"]\n");
        let path = folder.join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (part, whole) = (write("part", "echo part > out"), write("whole", "cat in/part > out; echo whole >> out"));
    let into = folder.join("one");
    let first = job(&ground, &mut network, &["queue", &part], 0).await;
    let first = first.lines().last().unwrap().to_owned();
    let input = format!("job:{}/out=in/part", &first[..12]);
    let arguments = ["run", &whole, "--input", &input, "--wait", "--download", into.to_str().unwrap()];
    job(&ground, &mut network, &arguments, 0).await;
    assert_eq!(read(&into, "out"), "part\nwhole\n");
    let newest = network.coordinator().jobs(JobFilter::default()).await.unwrap().jobs.remove(0);
    let detail = network.job(newest.id).await;
    let before: Vec<String> = detail.links.iter().map(|link| format!("{} {}", link.relation, link.job)).collect();
    assert_eq!(before, [format!("waits for {first}")]);
    // It comes again, from the job's name, and what is not there is named.
    let again = folder.join("two");
    job(&ground, &mut network, &["fetch", &first, "--into", again.to_str().unwrap()], 0).await;
    assert_eq!(read(&again, "out"), "part\n");
    let missing = format!("job:{first}/other");
    let said = job(&ground, &mut network, &["run", &whole, "--input", &missing], 1).await;
    assert!(said.contains("made no other; it made out"), "{said}");
}

#[tokio::test]
async fn variants_are_a_group_that_is_asked_for_again() {
    let Some(ground) = ground().await else { return };
    let mut network = network(&ground).await;
    let dsc = ground.fixture("deb/artel-tiny_1.0.dsc");
    let variants = ["--variant", "terse=option:terse", "--variant", "quick=option:nocheck"];
    let queue: Vec<&str> = ["queue", dsc.to_str().unwrap()].into_iter().chain(variants).collect();
    let said = job(&ground, &mut network, &queue, 0).await;
    let group = said.lines().find_map(|line| line.strip_prefix("group ")).unwrap().to_owned();
    let listed = job(&ground, &mut network, &["ls", "--group", &group[..8]], 0).await;
    assert!(listed.contains("[amd64-terse of ") && listed.contains("[amd64-quick of "), "{listed}");
    let other = job(&ground, &mut network, &["ls", "--arch", "riscv64"], 0).await;
    assert!(!other.contains("terse"), "{other}");
    let into = network.folder().join("all");
    job(&ground, &mut network, &["fetch", &group, "--into", into.to_str().unwrap()], 0).await;
    let deb = "artel-tiny_1.0_amd64.deb";
    let of = |variant: &str| fs::read(into.join(variant).join(deb)).unwrap();
    assert!(of("amd64-terse") == of("amd64-quick") && of("amd64-quick").starts_with(b"!<arch>"));

    let said = job(&ground, &mut network, &["respin", &group, "--queue"], 0).await;
    assert_eq!(said.lines().filter(|line| line.contains(" accepted, as ")).count(), 2, "{said}");
    let page =
        network.coordinator().jobs(JobFilter { kind: Some("deb".into()), ..JobFilter::default() }).await.unwrap();
    let groups: Vec<_> = page.jobs.iter().filter_map(|job| job.group.clone()).collect();
    assert_eq!((page.jobs.len(), groups.len()), (4, 4));
    assert!(groups[0].id == groups[1].id && groups[0].id != groups[2].id && groups[2].id.to_string() == group);
    for job in &page.jobs[..2] {
        assert_eq!(network.over(job.id, WITHIN).await.summary.state, JobState::Published);
    }
}
