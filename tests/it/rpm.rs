//! RPMs: built by two operators under two profiles, compared unsigned, published signed, mirrored, and installed by the real
//! dnf; and built again from the source RPM that came out.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use attest::{
    bundle::Bundle,
    staple,
    trust::{Demands, Trust},
    verify,
};
use harness::{Ground, Network, Plan, Said, run, until};
use protocol::{Sha256, words::RelativePath};
use web::{
    Backend,
    api::{JobDetail, JobState, VerdictWord},
    backend::ByteRange,
};

use crate::ground;

const BUILD_WITHIN: Duration = Duration::from_secs(180);
const MIRROR_WITHIN: Duration = Duration::from_secs(40);
const POOL: &str = "pool/main/A/Artel-answer";
const SOURCE: &str = "Artel-answer-1.2^git3-1.art1.src.rpm";
const PROGRAM: &str = "Artel-answer-1.2^git3-1.art1.x86_64.rpm";
const DOC: &str = "Artel-answer-doc-1.2^git3-1.art1.noarch.rpm";

/// Downloads a file of the channel's repository from the mirror.
async fn get(network: &Network, path: &str) -> Vec<u8> {
    let path = RelativePath::new(path).unwrap();
    let mirror = network.public("mirror");
    let content = mirror.repository_file(network.channel.clone(), path, ByteRange::All);
    content.await.unwrap().collect(16 << 20).await.unwrap().to_vec()
}

/// Installs with dnf from a repository into a fresh root, and gives the root.
async fn dnf(network: &Network, url: &str, name: &str) -> (Said, PathBuf) {
    let key = network.folder().join("archive-key.asc");
    fs::write(&key, get(network, "archive-key.asc").await).unwrap();
    let root = network.folder().join(name);
    fs::create_dir_all(&root).unwrap();
    let arguments = [
        "-y".to_owned(),
        "--noplugins".into(),
        "--releasever=1".into(),
        "--repo=artel".into(),
        format!("--installroot={}", root.display()),
        "--setopt=reposdir=/nonexistent".into(),
        format!("--setopt=cachedir={}", root.join("cache").display()),
        format!("--repofrompath=artel,{url}"),
        "--setopt=artel.gpgcheck=1".into(),
        "--setopt=artel.repo_gpgcheck=1".into(),
        format!("--setopt=artel.gpgkey=file://{}", key.display()),
        "install".into(),
        "Artel-answer-doc".into(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    (run(Path::new("dnf"), network.folder(), &arguments).await, root)
}

/// Builds the fixture and waits until the mirror has it.
async fn mirrored(ground: &Ground) -> (Network, JobDetail) {
    let mut network = Network::found(ground, &Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) });
    network.start().await;
    let job = network.submit(&ground.rpm("artel-answer.spec", &["dist .art1"])).await;
    let detail = network.over(job, BUILD_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let generation = detail.published.as_ref().unwrap().generation;
    let mirror = network.client("mirror");
    until("the mirror has followed", MIRROR_WITHIN, async || {
        mirror.repositories().await.ok()?.into_iter().find(|view| view.generation == generation)
    })
    .await;
    (network, detail)
}

#[tokio::test]
async fn a_spec_goes_all_the_way_to_dnf() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&["rpm"]).await;
    let (network, detail) = mirrored(&ground).await;
    let verdict = detail.verdict.as_ref().unwrap();
    assert_eq!((verdict.word, verdict.agree.len(), verdict.dissent.len()), (VerdictWord::Reproduced, 2, 0));
    let profiles: BTreeSet<u16> = detail.attempts.iter().map(|a| a.profile).collect();
    assert_eq!(profiles.len(), 2, "the two that agree span two profiles");
    let outputs = &detail.attempts[0].outputs;
    assert_eq!(outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), [SOURCE, PROGRAM, DOC]);

    for output in outputs.iter().filter(|o| o.name != SOURCE) {
        let pool = format!("{POOL}/{}", output.name);
        let (package, evidence) = (get(&network, &pool).await, get(&network, &format!("{pool}.artel-bundle")).await);
        assert_ne!(Sha256::of(&package), output.sha256, "what is served is signed");
        assert_eq!(attest::rpm::attested(&package), output.sha256, "without its signature it is what was attested");
        let proof = verify::verify(&Bundle::from_bytes(&evidence).unwrap(), &network.id, artel::clock::now()).unwrap();
        proof.file(&output.name, &output.sha256).unwrap();
        let (file, beside) = (network.folder().join(&output.name), network.folder().join("bundle"));
        fs::write(&beside, &evidence).unwrap();
        let id = network.id.to_string();
        let arguments = ["--network", &id, beside.to_str().unwrap(), file.to_str().unwrap()];
        fs::write(&file, &package).unwrap();
        let said = run(&ground.verify, network.folder(), &arguments).await;
        assert_eq!(said.code, 0, "{said:?}");
        fs::write(&file, [package.as_slice(), b"!"].concat()).unwrap();
        let said = run(&ground.verify, network.folder(), &arguments).await;
        assert_eq!(said.code, 12, "a changed file is not proven: {said:?}");
    }
    by_staples(&network, &ground).await;
    rebuilt(&network, &ground, &detail).await;
    if may_install() {
        installed_and_refused(&network).await;
    }
}

/// What lies beside each package proves it to a stranger with a policy file, as it was signed.
async fn by_staples(network: &Network, ground: &Ground) {
    let folder = network.folder().join("stranger");
    fs::create_dir_all(&folder).unwrap();
    let bundle = Bundle::from_bytes(&get(network, &format!("{POOL}/{PROGRAM}.artel-bundle")).await).unwrap();
    let policies: Vec<_> = bundle.policies.iter().map(|policy| (policy.0.clone(), None)).collect();
    let trust = Trust::new(network.id, &policies, Demands::default(), artel::clock::now()).unwrap();
    let policy = folder.join("verify.policy");
    fs::write(&policy, trust.to_string()).unwrap();
    for name in [PROGRAM, DOC] {
        for suffix in ["", staple::SUFFIX, staple::PROOF_SUFFIX] {
            fs::write(folder.join(format!("{name}{suffix}")), get(network, &format!("{POOL}/{name}{suffix}")).await)
                .unwrap();
        }
        let package = folder.join(name);
        let words = ["--policy", policy.to_str().unwrap(), package.to_str().unwrap()];
        let said = run(&ground.verify, &folder, &words).await;
        assert!(said.code == 0 && said.out.contains("2 operators agree"), "{said:?}");
        let signed = fs::read(&package).unwrap();
        fs::write(&package, [signed.as_slice(), b"!"].concat()).unwrap();
        assert_eq!(run(&ground.verify, &folder, &words).await.code, 12, "a changed package is not proven");
        fs::write(&package, signed).unwrap();
        fs::remove_file(folder.join(format!("{name}{}", staple::SUFFIX))).unwrap();
        assert_eq!(run(&ground.verify, &folder, &words).await.code, 10, "nothing beside it proves it");
    }
}

/// Says whether dnf is here, and may install into a root of its own.
fn may_install() -> bool {
    let (dnf, user) = (Path::new("/usr/bin/dnf").exists(), fs::metadata("/proc/self").unwrap().uid());
    match (dnf, user) {
        (true, 0) => return true,
        (true, _) => println!("SKIPPED: only root may have dnf install into a root of its own"),
        (false, _) => {
            assert!(std::env::var("ARTEL_TESTS").as_deref() != Ok("required"), "dnf is not installed");
            println!("SKIPPED: dnf is not installed");
        }
    }
    false
}

/// The source RPM that came out gives the same packages again.
async fn rebuilt(network: &Network, ground: &Ground, first: &JobDetail) {
    let outputs = &first.attempts[0].outputs;
    let source = network.coordinator().blob(outputs[0].hash.unwrap(), ByteRange::All).await.unwrap();
    let path = network.folder().join(SOURCE);
    fs::write(&path, source.collect(1 << 20).await.unwrap()).unwrap();
    let job = network.submit(&ground.rpm_at(&path, &["dist .art1"])).await;
    let detail = network.over(job, BUILD_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let named = |detail: &JobDetail| {
        let rpms = detail.attempts[0].outputs.iter().filter(|o| o.name != SOURCE);
        rpms.map(|o| (o.name.clone(), o.sha256)).collect::<Vec<_>>()
    };
    assert_eq!(named(&detail), named(first));
}

async fn installed_and_refused(network: &Network) {
    let web = network.public_address("mirror");
    let (said, root) = dnf(network, &format!("http://{web}/repo/{}/", network.channel), "root").await;
    assert_eq!(said.code, 0, "{said:?}");
    let installed = fs::read_to_string(root.join("usr/share/doc/Artel-answer/answer.c")).unwrap();
    assert!(installed.contains("printf(\"%d, from %s\\n\", 42"), "the patch was applied: {installed}");

    // The same bytes from elsewhere, but for the file that names the others.
    let copy = network.folder().join("copy");
    let mut files =
        vec!["repodata/repomd.xml".to_owned(), "repodata/repomd.xml.asc".to_owned(), format!("{POOL}/{DOC}")];
    let repomd = String::from_utf8(get(network, "repodata/repomd.xml").await).unwrap();
    files.extend(repomd.split("href=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    for path in &files {
        let place = copy.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, get(network, path).await).unwrap();
    }
    let url = format!("file://{}/", copy.display());
    let (said, _) = dnf(network, &url, "again").await;
    assert_eq!(said.code, 0, "{said:?}");
    fs::write(copy.join("repodata/repomd.xml"), repomd.replace("<revision>", "<revision>9")).unwrap();
    let (said, root) = dnf(network, &url, "changed").await;
    assert!(said.code != 0 && said.talk.contains("GPG"), "a changed repomd.xml is refused: {said:?}");
    assert!(!root.join("usr/share/doc/Artel-answer").exists());
}
