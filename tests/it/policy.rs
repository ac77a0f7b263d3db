//! The policy as a chain: roots on several machines, versions that the network refuses, keys that are revoked while it builds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use artel::{
    charter::{Charter, RevokedEntry},
    clock,
    config::Home,
    keys,
};
use ed25519_dalek::SigningKey;
use harness::{Copycat, Forker, Ground, Network, Plan, Said, processes_of, run, until};
use protocol::{
    OperatorName, PublicKey,
    envelope::Signed,
    lease::Term,
    message::{Octets, Request, Response},
    release::{Manifest, Release},
};
use web::{
    Backend,
    api::{ApiError, JobState},
};

use crate::{SITE, ground};

const WITHIN: Duration = Duration::from_secs(120);
/// How soon nothing of a lease may run on a builder whose key is revoked.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// Roots on machines of their own: on the first is the coordinator, the others have keys and no daemon.
struct Roots {
    homes: Vec<PathBuf>,
    keys: Vec<SigningKey>,
}

impl Roots {
    fn make(network: &mut Network) -> Self {
        let first = network.node("coordinator").home.path().to_owned();
        let alone = ["second", "third"].map(|name| network.folder().join(name));
        let homes: Vec<PathBuf> = [first].into_iter().chain(alone).collect();
        let key = |home: &PathBuf| {
            let path = Home::find(Some(home.clone())).unwrap().key("root");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            keys::create(&path).unwrap()
        };
        let keys = homes.iter().map(key).collect();
        Self { homes, keys }
    }

    fn public(&self) -> Vec<PublicKey> {
        self.keys.iter().map(keys::public).collect()
    }

    async fn says(&self, machine: usize, arguments: &[&str]) -> Said {
        run(Path::new(SITE.artel), &self.homes[machine], arguments).await
    }

    /// As [`Roots::says`], for what must work.
    async fn does(&self, machine: usize, arguments: &[&str]) -> String {
        let said = self.says(machine, arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }
}

/// A network of three operators, whose policy 2 names three roots, of which two must sign.
async fn network_of_three_roots(ground: &Ground) -> (Network, Roots) {
    let mut network = Network::found(ground, &Plan::builders(3));
    network.start_some(&["coordinator", "b1", "b2"]).await;
    let roots = Roots::make(&mut network);
    let view =
        network.change_policy(|charter| (charter.roots.keys, charter.roots.threshold) = (roots.public(), 2)).await;
    assert_eq!(view.number, 2);
    (network, roots)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn roots_on_several_machines_revoke_an_operator_while_it_builds() {
    let Some(ground) = ground().await else { return };
    let (mut network, roots) = network_of_three_roots(&ground).await;
    let before = network.submit(&ground.script("before", "echo before > out")).await;
    assert_eq!(network.over(before, WITHIN).await.summary.state, JobState::Reproduced);

    // The first root asks for it; that is not enough, and the network says so.
    let (current, next) = (network.folder().join("current"), network.folder().join("next.signed"));
    roots.does(0, &["policy", "export", "--signed", "--out", text(&current)]).await;
    let revoke = ["policy", "revoke", "o1", "--reason", "its disk was sold", "--out", text(&next)];
    let said = roots.does(0, &revoke).await;
    assert!(said.starts_with("1 of 2 roots signed: hand "), "{said}");
    let early = roots.says(0, &["policy", "publish", text(&next)]).await;
    let words = "1 of the previous policy's roots signed, 2 are needed";
    assert!(early.code == 1 && early.talk.contains(words), "{early:?}");
    let told = roots.does(0, &["policy", "diff", text(&next)]).await;
    assert!(told.contains("removed operator o1") && told.contains("revoked operator o1's node"), "{told}");

    // The second one has neither daemon nor network, only the two files. What is changed comes before the key is asked.
    let blind = roots.says(1, &["policy", "sign", text(&next)]).await;
    assert!(blind.code != 0 && !blind.talk.contains("wrote"), "nobody signs what cannot be shown: {blind:?}");
    let keyless = ["policy", "sign", text(&next), "--current", text(&current), "--key", "nobody"];
    let keyless = roots.says(1, &keyless).await;
    assert!(keyless.code != 0 && keyless.talk.contains("its disk was sold"), "{keyless:?}");
    let sign = ["policy", "sign", text(&next), "--current", text(&current)];
    let signed = roots.says(1, &sign).await;
    assert!(signed.out.starts_with("policy 3: 2 roots signed, 2 must"), "{signed:?}");
    assert!(signed.talk.contains("its disk was sold"), "who signs reads what is changed: {signed:?}");
    // What others signed is not written over by another change of the same number.
    let kept = fs::read(&next).unwrap();
    let node = keys::public(&keys::generate().unwrap()).to_string();
    let over = roots.says(0, &["policy", "admit", "o9", &node, "--out", text(&next)]).await;
    assert!(over.code != 0 && over.talk.contains("holds another policy"), "{over:?}");
    assert_eq!(fs::read(&next).unwrap(), kept);

    // It comes into force while the operator builds.
    let during = network.submit(&ground.script("during", "sleep 20; echo during > out")).await;
    let attempts = network.node("b1").home.build().join("attempts");
    let asleep = async || processes_of(&attempts).into_iter().find(|p| p.command.starts_with("sleep 20"));
    until("the first builder builds", WITHIN, asleep).await;
    assert_eq!(roots.does(0, &["policy", "publish", text(&next)]).await, "policy 3 is in force\n");

    let ended = async || processes_of(&attempts).is_empty().then_some(());
    until("nothing runs on the builder whose key is revoked", REVOKED_WITHIN, ended).await;
    network.charter = Charter::parse(&roots.does(0, &["policy", "show"]).await).unwrap();
    network.start_some(&["b3"]).await;
    let detail = network.over(during, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let agree: Vec<&str> = detail.verdict.as_ref().unwrap().agree.iter().map(OperatorName::as_str).collect();
    assert_eq!(agree, ["o2", "o3"], "the revoked one has no vote");
    assert_eq!(network.job(before).await.summary.state, JobState::Reproduced, "what was decided stays");

    told_by_history(&roots).await;
    let listed = roots.does(0, &["log", "ls", "--from", "0"]).await;
    let revoked = network.id_of("b1").to_string();
    let is_its = |line: &&str| line.contains(" revocation ") && line.contains(&revoked);
    assert_eq!(listed.lines().filter(is_its).count(), 1, "the log has it: {listed}");
}

/// Looks at what the history tells of the three versions.
async fn told_by_history(roots: &Roots) {
    let history = roots.does(0, &["policy", "history", "--json"]).await;
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    let [first, second, third] = &history.as_array().unwrap()[..] else { panic!("{history}") };
    assert_eq!((&first["number"], &first["place"]), (&1.into(), &0.into()));
    let place = |version: &serde_json::Value| version["place"].as_u64().unwrap();
    assert!(0 < place(second) && place(second) < place(third), "{history}");
    let signers: Vec<PublicKey> = serde_json::from_value(third["signers"].clone()).unwrap();
    let mut wanted = roots.public()[..2].to_vec();
    wanted.sort();
    assert_eq!(signers, wanted);
    let verifiers = roots.does(0, &["policy", "export"]).await;
    assert!(verifiers.starts_with("artel verify policy 1\n"), "{verifiers}");
    let trust = attest::trust::Trust::read(verifiers.as_bytes(), clock::now()).unwrap();
    assert_eq!(trust.newest().number, 3, "verifiers read what is exported");
    assert_eq!(trust.newest().revoked.len(), 1);
}

async fn refused(network: &Network, signed: Vec<u8>, words: &str) {
    let error = network.coordinator().adopt_policy(signed.into()).await.unwrap_err();
    assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
    assert!(!matches!(error, ApiError::Internal | ApiError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn the_network_never_goes_back() {
    let Some(ground) = ground().await else { return };
    let (mut network, roots) = network_of_three_roots(&ground).await;
    let stolen = keys::public(&network.maintainer);
    let entry = RevokedEntry { key: stolen, from: 1, reason: "stolen".to_owned() };
    let mut charter = network.charter.clone();
    (charter.number, charter.revoked) = (3, vec![entry]);
    charter.maintainers.clear();
    let both: Vec<&SigningKey> = roots.keys[..2].iter().collect();
    let sign = |charter: &Charter, by: &[&SigningKey]| {
        Signed::sign(&charter.to_policy().unwrap(), charter.network.as_ref(), by).to_bytes()
    };
    let third = sign(&charter, &both);
    refused(&network, sign(&charter, &both[..1]), "1 of the previous policy's roots signed, 2 are needed").await;
    let waiting = network.submit(&ground.script("waiting", "sleep 600; echo > out")).await;
    assert_eq!(network.coordinator().adopt_policy(third.clone().into()).await.unwrap().number, 3);

    let detail = network.over(waiting, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Cancelled, "{detail:#?}");
    assert!(detail.summary.why.contains("stolen"), "{}", detail.summary.why);
    let error = network.try_submit(&ground.script("late", "echo > out")).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("revoked"), "{error}");

    // Nobody takes it back, nor the network to an earlier policy, nor past one.
    let older = Charter { number: 2, ..network.charter.clone() };
    refused(&network, sign(&older, &both), "policy number 2 is not above 3").await;
    let next = Charter { number: 4, ..charter.clone() };
    refused(&network, sign(&Charter { revoked: Vec::new(), ..next.clone() }, &both), "must stay so").await;
    let mut later = next.clone();
    later.revoked[0].from = 2;
    refused(&network, sign(&later, &both), "may become earlier").await;
    refused(&network, sign(&Charter { number: 5, ..next.clone() }, &both), "number it 4").await;
    let over = Charter { expires: clock::rfc3339(clock::now()), ..next.clone() };
    refused(&network, sign(&over, &both), "expired").await;
    let (own, thief) = (keys::generate().unwrap(), Charter { number: 4, ..charter.clone() });
    refused(&network, sign(&thief, &[&own]), "0 of the previous policy's roots signed").await;

    // A daemon that comes back has what it knew, and every node has the same.
    network.node("b1").stop().await;
    network.start_some(&["b1"]).await;
    for name in ["coordinator", "b1", "b2"] {
        let client = network.client(name);
        until(&format!("{name} has the policy"), WITHIN, async || {
            (client.policy().await.ok()? == third[..]).then_some(())
        })
        .await;
    }
    let followed = [sign(&next, &both[..1]), sign(&next, &both)];
    members_follow_the_roots_alone(&mut network, third, followed).await;
}

/// Gives the chain of policies that the coordinator hands out, as a member that does not run is told it.
async fn handed_out(network: &mut Network, member: &str) -> Vec<Octets> {
    let folder = network.folder().join("member");
    let answer = Copycat::join(network, member, &folder).await.ask(Request::Policy).await;
    let Response::Records(known) = answer else { panic!("{answer:?}") };
    known
}

/// A coordinator that lies hands out a policy that too few roots signed: members stay with what they have, and take the one that enough
/// signed.
async fn members_follow_the_roots_alone(network: &mut Network, newest: Vec<u8>, [few, enough]: [Vec<u8>; 2]) {
    let known = handed_out(network, "b3").await;
    assert_eq!(known.last().map(|record| &record.0), Some(&newest));
    network.node("coordinator").kill();
    let liar = Forker::take_over(network, &BTreeMap::new()).await;
    let told = |next: Vec<u8>| Response::Records(known.iter().cloned().chain([Octets(next)]).collect());
    liar.tell(Request::Policy, told(few));
    let both = ["b1", "b2"].map(|name| network.id_of(name)).into();
    until("both asked", WITHIN, async || liar.answered(&Request::Policy).is_superset(&both).then_some(())).await;
    for name in ["b1", "b2"] {
        let policy = network.client(name).policy().await.unwrap();
        assert_eq!(policy, newest[..], "{name} stays with what enough roots signed");
    }
    // Who took the first after all, if only now, would not take another one of the same number.
    liar.tell(Request::Policy, told(enough.clone()));
    for name in ["b1", "b2"] {
        let client = network.client(name);
        let has = async || (client.policy().await.ok()? == enough[..]).then_some(());
        until(&format!("{name} takes what enough roots signed"), WITHIN, has).await;
    }
}

#[tokio::test]
async fn under_an_expired_policy_nothing_is_accepted_and_the_next_one_goes_on() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let end = clock::now().after(Duration::from_secs(20));
    network.change_policy(|charter| charter.expires = clock::rfc3339(end)).await;
    until("the policy has ended", WITHIN, async || (clock::now() > end).then_some(())).await;
    let error = network.try_submit(&ground.script("late", "echo > out")).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("policy has expired"), "{error}");
    let year = clock::rfc3339(clock::now().after(Duration::from_secs(365 * 86_400)));
    network.change_policy(|charter| charter.expires = year).await;
    let job = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    assert_eq!(network.over(job, WITHIN).await.summary.state, JobState::Published);
}

/// A coordinator that overlooks the end of its policy may sign what it likes: mirrors take nothing before the roots have signed the next.
#[tokio::test]
async fn under_an_expired_policy_mirrors_take_nothing_whatever_a_coordinator_signs() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(2) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "mirror"]).await;
    let before = clock::now();
    let end = before.after(Duration::from_secs(20));
    let ending = network.next_policy(|charter| charter.expires = clock::rfc3339(end));
    network.coordinator().adopt_policy(ending.clone().into()).await.unwrap();
    let client = network.client("mirror");
    let knows = async || (client.policy().await.ok()? == ending[..]).then_some(());
    until("the mirror has the policy that ends soon", WITHIN, knows).await;
    let mut chain = handed_out(&mut network, "b1").await;
    until("the policy has ended", WITHIN, async || (clock::now() > end).then_some(())).await;

    network.node("coordinator").kill();
    let hostile = Forker::take_over(&mut network, &BTreeMap::new()).await;
    let manifest = hostile.hold(Manifest { files: Vec::new(), packages: Vec::new() }.to_bytes()).await;
    let channel = network.channel.clone();
    // It says that it is from before the end.
    let release = Release { at: before, term: Term(1), channel, manifest, generation: 1 };
    hostile.offer(Signed::sign(&release, Some(&network.id), &[hostile.key()]).to_bytes());
    let seen = not_taken(&mut network, 0, |why| why.contains("has expired")).await;

    // Under the next policy it is looked at as any other: nobody proves that it was logged.
    let year = clock::rfc3339(clock::now().after(Duration::from_secs(365 * 86_400)));
    chain.push(Octets(network.next_policy(|charter| charter.expires = year)));
    hostile.tell(Request::Policy, Response::Records(chain));
    not_taken(&mut network, seen, |why| why.contains("nobody proves that the release was logged")).await;
}

/// Waits until the mirror says, after so many lines of its log, that it does not take a release, in such words. Gives how many lines
/// there are then.
async fn not_taken(network: &mut Network, seen: usize, words: fn(&str) -> bool) -> usize {
    let mirror = network.node("mirror");
    until("the mirror does not take the release", WITHIN, async || {
        let log = mirror.log();
        let said = log.lines().skip(seen).any(|line| line.contains("release not taken") && words(line));
        said.then(|| log.lines().count())
    })
    .await
}
