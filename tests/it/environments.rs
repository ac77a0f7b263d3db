//! Environments that jobs name: of RPMs, and attested ones.
//!
//! A channel that takes jobs in attested environments only: refused, made as an image by two operators, accepted.

mod rpms;

use std::{
    fs,
    path::{Path, PathBuf},
};

use artel::keys;
use harness::{Ground, Network, Plan, Said};
use protocol::JobId;
use web::Backend;

use crate::ground;

/// The first locking fetches packages, an image of them is installed twice.
const WITHIN: &str = "400";

/// The command line of the maintainer, in the coordinator's home.
struct Owner<'a> {
    artel: &'a Path,
    home: PathBuf,
}

impl<'a> Owner<'a> {
    /// Gives the coordinator's home the maintainer's key and what this machine's tests have of the archive.
    fn of(ground: &'a Ground, network: &mut Network) -> Self {
        let home = network.node("coordinator").home.clone();
        fs::create_dir_all(home.path().join("keys")).unwrap();
        keys::save(&home.key("maintainer"), &network.maintainer).unwrap();
        std::os::unix::fs::symlink(ground.cache.join("archive"), home.archive()).unwrap();
        Self { artel: &ground.artel, home: home.path().to_owned() }
    }

    async fn say(&self, words: &[&str]) -> Said {
        let mut command = tokio::process::Command::new("timeout");
        command.arg(WITHIN).arg(self.artel).args(words).env("ARTEL_HOME", &self.home).kill_on_drop(true);
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), talk: text(&output.stderr) }
    }
}

#[tokio::test]
async fn an_environment_is_attested_before_a_job_runs_in_it() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let owner = Owner::of(&ground, &mut network);
    network.change_policy(|charter| charter.channels[0].attested_environments = true).await;

    let lock = network.folder().join("environment.lock");
    let lock = lock.to_str().unwrap();
    let said = owner.say(&["env", "lock", "--out", lock]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let environment = said.out.trim().to_owned();
    let command = network.folder().join("answer.toml");
    fs::write(&command, "name = \"answer\"\nargv = [\"sh\", \"-c\", \"echo 42 > answer\"]\noutputs = [\"answer\"]\n")
        .unwrap();
    let submit = ["job", "run", command.to_str().unwrap(), "--environment", lock];
    let said = owner.say(&submit).await;
    assert!(said.code != 0 && said.talk.contains("attested environments only"), "{said:?}");
    assert!(said.talk.contains(&format!("of environment {environment} 0 operators")), "{said:?}");

    let said = owner.say(&["--json", "env", "build", lock, "--memory", "2048"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let made: web::api::JobDetail = serde_json::from_str(&said.out).unwrap();
    let verdict = made.verdict.as_ref().unwrap();
    assert_eq!((verdict.agree.len(), verdict.dissent.len()), (2, 0), "{made:#?}");
    println!(
        "figure: {} {} bytes, sha256 {}",
        made.attempts[0].outputs[0].name, made.attempts[0].outputs[0].size, made.attempts[0].outputs[0].sha256
    );
    let said = owner.say(&submit).await;
    assert_eq!(said.code, 0, "{said:?}");
    let made: JobId = made.summary.id;
    assert!(network.coordinator().job(made).await.is_ok());
}
