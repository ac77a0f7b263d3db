//! Light commands: builders' own programs instead of an environment, where their owners allow it.

use std::{fs, time::Duration};

use harness::{Network, Plan, run, until};
use protocol::job::Isolation;
use web::{
    Backend,
    api::{JobFilter, JobState},
};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(60);
const FILE: &str = "name = \"sum\"\nargv = [\"sh\", \"-euc\", \"seq 1000 | sha256sum > out; test ! -e /home/*\"]\n\
                    outputs = [\"out\"]\nisolation = \"light\"\n";

#[tokio::test]
async fn a_light_command_is_reproduced_without_any_package_where_owners_allow_it() {
    let Some(ground) = ground().await else { return };
    for isolation in [Isolation::Rootfs, Isolation::Light] {
        let mut network = Network::found(&ground, &Plan { isolation, ..Plan::builders(2) });
        network.start().await;
        let home = network.node("coordinator").home.clone();
        fs::create_dir_all(home.path().join("keys")).unwrap();
        artel::keys::save(&home.key("maintainer"), &network.maintainer).unwrap();
        std::os::unix::fs::symlink(ground.cache.join("archive"), home.archive()).unwrap();
        let file = network.folder().join("sum.toml");
        fs::write(&file, FILE).unwrap();
        let said =
            run(&ground.artel, home.path(), &["job", "queue", file.to_str().unwrap(), "--channel", "main"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let job = network.coordinator().jobs(JobFilter::default()).await.unwrap().jobs[0].id;
        if isolation.is_rootfs() {
            let why = until("it says what it waits for", WITHIN, async || {
                let detail = network.job(job).await;
                detail.summary.why.contains("isolation = \"light\"").then_some(detail)
            })
            .await;
            assert!(why.attempts.is_empty(), "{why:#?}");
        } else {
            let detail = until("it is over", WITHIN, async || {
                let detail = network.job(job).await;
                detail.summary.state.is_over().then_some(detail)
            })
            .await;
            assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
            assert!(detail.attempts.len() >= 2, "{detail:#?}");
        }
    }
}
