//! The straight line: submitted, built by two operators, compared, published, mirrored, and checked by somebody else.

use std::{collections::BTreeSet, fs, time::Duration};

use attest::{
    bundle::Bundle,
    staple,
    trust::{Demands, Trust},
    verify,
};
use harness::{Network, Plan, run, until};
use protocol::{Sha256, words::RelativePath};
use web::{
    Backend,
    api::{AttemptState, JobState, VerdictWord},
    backend::ByteRange,
};

use crate::ground;

const BUILD_WITHIN: Duration = Duration::from_secs(120);
const MIRROR_WITHIN: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_package_goes_all_the_way_to_a_mirror_and_proves_itself() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) });
    network.start().await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(job, BUILD_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let verdict = detail.verdict.as_ref().unwrap();
    assert_eq!((verdict.word, verdict.agree.len(), verdict.dissent.len()), (VerdictWord::Reproduced, 2, 0));
    assert!(detail.attempts.iter().all(|a| a.state == AttemptState::Built), "{detail:#?}");
    let profiles: BTreeSet<u16> = detail.attempts.iter().map(|a| a.profile).collect();
    assert_eq!(profiles.len(), 2, "the two that agree span two profiles");
    let published = detail.published.as_ref().unwrap();
    let mirror = network.client("mirror");
    until("the mirror has followed", MIRROR_WITHIN, async || {
        let views = mirror.repositories().await.ok()?;
        views.into_iter().find(|view| view.generation == published.generation)
    })
    .await;

    // A node that neither built nor coordinates shows the log of an ended attempt, too.
    let home = network.node("mirror").home.path().to_owned();
    let arguments = ["--home", home.to_str().unwrap(), "job", "log", &job.to_string()];
    let said = run(&ground.artel, network.folder(), &arguments).await;
    assert!(said.code == 0 && said.out.contains("dpkg-buildpackage"), "{said:?}");

    let mirror = network.public("mirror");
    let attested: Vec<_> = detail.attempts[0].outputs.clone();
    assert_eq!(attested.len(), 2, "artel-tiny and artel-tiny-doc");
    for output in &attested {
        let pool = format!("pool/main/a/artel-tiny/{}", output.name);
        let get = async |path: &str| {
            let content =
                mirror.repository_file(network.channel.clone(), RelativePath::new(path).unwrap(), ByteRange::All);
            content.await.unwrap().collect(16 << 20).await.unwrap()
        };
        let (package, evidence) = (get(&pool).await, get(&format!("{pool}.artel-bundle")).await);
        assert_eq!(Sha256::of(&package), output.sha256, "the mirror serves what was attested");
        let bundle = Bundle::from_bytes(&evidence).unwrap();
        let proof = verify::verify(&bundle, &network.id, artel::clock::now()).unwrap();
        assert_eq!((proof.job, proof.agree.len()), (job, 2));
        proof.file(&output.name, &output.sha256).unwrap();

        let folder = network.folder().join("downloads");
        fs::create_dir_all(&folder).unwrap();
        let (file, beside) = (folder.join(&output.name), folder.join("bundle"));
        fs::write(&file, &package).unwrap();
        fs::write(&beside, &evidence).unwrap();
        let id = network.id.to_string();
        let arguments = ["--network", &id, beside.to_str().unwrap(), file.to_str().unwrap()];
        let said = run(&ground.verify, &folder, &arguments).await;
        assert_eq!(said.code, 0, "{said:?}");
        // What lies beside it proves it, too, to who trusts the network and nothing else.
        let lines = get(&format!("{pool}{}", staple::SUFFIX)).await;
        fs::write(folder.join(format!("{}{}", output.name, staple::SUFFIX)), &lines).unwrap();
        let logged = get(&format!("{pool}{}", staple::PROOF_SUFFIX)).await;
        fs::write(folder.join(format!("{}{}", output.name, staple::PROOF_SUFFIX)), &logged).unwrap();
        let policy = folder.join("verify.policy");
        fs::write(&policy, trust(&network, &bundle).to_string()).unwrap();
        let stapled = ["--policy", policy.to_str().unwrap(), "--json", file.to_str().unwrap()];
        let said = run(&ground.verify, &folder, &stapled).await;
        assert!(said.code == 0 && said.out.contains("\"wanted\":2"), "{said:?}");
        let same = run(&ground.artel, &folder, &[&["verify"], &stapled[..]].concat()).await;
        assert_eq!((same.code, same.out), (0, said.out), "both programs say the same");
        println!("{} bytes of {} lie beside {}", lines.len(), evidence.len(), output.name);
        fs::write(&file, [package.as_ref(), b"!"].concat()).unwrap();
        for arguments in [&arguments, &stapled] {
            let said = run(&ground.verify, &folder, arguments).await;
            assert_eq!(said.code, 12, "a changed file is not proven: {said:?}");
        }
    }
}

/// Gives what a verifier trusts of a network, by the policies of its evidence.
fn trust(network: &Network, bundle: &Bundle) -> Trust {
    let policies: Vec<_> = bundle.policies.iter().map(|policy| (policy.0.clone(), None)).collect();
    Trust::new(network.id, &policies, Demands::default(), artel::clock::now()).unwrap()
}
