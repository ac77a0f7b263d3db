//! People who sign with keys of OpenSSH: an agent has the secret half, `ssh-keygen` judges what was signed, and what `ssh-keygen`
//! signs is let in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use artel::{charter::Charter, clock};
use harness::{Ground, Network, Plan, Said, Scratch, run, until};
use protocol::{
    PublicKey,
    envelope::{Signature, Unsigned},
    job::JobRequest,
    ssh,
};
use web::{Backend, api::JobState};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

/// A running `ssh-agent`, and the folder in which only public halves lie.
struct Agent {
    folder: PathBuf,
    process: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended just now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    /// Starts an agent with keys, whose files are removed.
    async fn start(folder: &Path, keys: &[&str]) -> Self {
        let socket = folder.join("agent.sock");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self { folder: folder.to_owned(), process: command.spawn().unwrap() };
        until("the agent listens", WITHIN, async || socket.exists().then_some(())).await;
        for key in keys {
            make(folder, key, "ed25519");
            done(&agent.program("ssh-add", &["-q", key], None));
            fs::remove_file(folder.join(key)).unwrap();
        }
        agent
    }

    /// Runs a program of OpenSSH that may ask the agent, with a file as its input.
    fn program(&self, name: &str, arguments: &[&str], input: Option<&Path>) -> Output {
        let mut command = Command::new(name);
        command.current_dir(&self.folder).args(arguments).env("SSH_AUTH_SOCK", self.folder.join("agent.sock"));
        command.stdin(input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into()));
        command.output().unwrap()
    }

    /// Gives the path of a key's `.pub` file.
    fn public(&self, name: &str) -> String {
        self.folder.join(format!("{name}.pub")).to_str().unwrap().to_owned()
    }

    fn line(&self, name: &str) -> String {
        fs::read_to_string(self.public(name)).unwrap().trim().to_owned()
    }

    fn key(&self, name: &str) -> PublicKey {
        ssh::Key::parse(&self.line(name)).unwrap().public
    }
}

fn make(folder: &Path, name: &str, kind: &str) {
    let mut command = Command::new("ssh-keygen");
    command.current_dir(folder).args(["-q", "-t", kind, "-N", "", "-C", "someone@example", "-f", name]);
    done(&command.stdin(Stdio::null()).output().unwrap());
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Runs `artel` on the coordinator as somebody whose agent is there.
async fn artel(ground: &Ground, network: &mut Network, agent: &Agent, words: &[&str]) -> Said {
    let home = network.node("coordinator").home.path().to_owned();
    let socket = format!("SSH_AUTH_SOCK={}", agent.folder.join("agent.sock").display());
    let first = [&socket, ground.artel.to_str().unwrap(), "--home", home.to_str().unwrap()];
    run(Path::new("env"), network.folder(), &[&first, words].concat()).await
}

/// A network in whose policy alice is a maintainer and a root, as her `.pub` file says.
async fn network(ground: &Ground, agent: &Agent) -> Network {
    let mut network = Network::found(ground, &Plan { lend: true, ..Plan::builders(2) });
    network.start().await;
    let line = agent.line("alice");
    network
        .change_policy(|charter| {
            let mut text = charter.to_toml();
            text = text.replacen(
                "[roots]\nthreshold = 1\nkeys = [",
                &format!("[roots]\nthreshold = 1\nkeys = [{line:?}, "),
                1,
            );
            text.push_str(&format!("\n[[maintainers]]\nname = \"alice\"\nkey = {line:?}\nchannels = [\"main\"]\n"));
            *charter = Charter::parse(&text).unwrap();
        })
        .await;
    let adopted = network.coordinator().policy().await.unwrap();
    for name in ["b1", "b2"] {
        let client = network.client(name);
        let same = async || client.policy().await.is_ok_and(|policy| policy == adopted).then_some(());
        until("a builder has the new policy", WITHIN, same).await;
    }
    let written = network.charter.to_toml();
    assert_eq!(written.matches(&agent.key("alice").to_string()).count(), 2, "in our own form: {written}");
    network
}

#[tokio::test]
async fn a_maintainer_whose_key_an_agent_has_builds_and_publishes_and_openssh_judges_it() {
    let Some(ground) = ground().await else { return };
    let folder = Scratch::make();
    let agent = Agent::start(folder.path(), &["alice"]).await;
    let mut network = network(&ground, &agent).await;
    let (alice, dsc) = (agent.public("alice"), ground.fixture("deb/artel-tiny_1.0.dsc"));
    let words = ["--json", "job", "run", dsc.to_str().unwrap(), "--key", &alice];
    let said = artel(&ground, &mut network, &agent, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
    let jobs = network.coordinator().jobs(web::api::JobFilter::default()).await.unwrap().jobs;
    let published = jobs.iter().find(|job| job.state == JobState::Published && job.maintainer.as_str() == "alice");
    let job = published.unwrap_or_else(|| panic!("alice's package is not published: {jobs:?}")).id;

    let bundle = folder.path().join("bundle");
    fs::write(&bundle, network.coordinator().bundle(job).await.unwrap()).unwrap();
    let said =
        run(&ground.verify, folder.path(), &["--network", &network.id.to_string(), bundle.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");

    judged(&ground, &mut network, &agent, &job.to_string()).await;
    // An order, and a policy signed as a root.
    let later = folder.path().join("later.toml");
    fs::write(&later, "name = \"later\"\nargv = [\"sh\", \"-euc\", \"echo > out\"]\noutputs = [\"out\"]\n").unwrap();
    let words = ["job", "queue", later.to_str().unwrap(), "--not-before", "1h", "--key", &alice];
    let said = artel(&ground, &mut network, &agent, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
    let words = ["job", "cancel", said.out.trim(), "--key", &alice];
    let said = artel(&ground, &mut network, &agent, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
    let policy = folder.path().join("policy.toml");
    network.charter.number += 1;
    fs::write(&policy, network.charter.to_toml()).unwrap();
    let words = ["policy", "sign", policy.to_str().unwrap(), "--publish", "--key", &alice];
    let said = artel(&ground, &mut network, &agent, &words).await;
    assert!(said.code == 0 && said.out.ends_with("policy 3 is in force\n"), "{said:?}");
}

/// Exports the signature of a job and has `ssh-keygen -Y verify` judge it, and what was changed.
async fn judged(ground: &Ground, network: &mut Network, agent: &Agent, job: &str) {
    let into = agent.folder.join("signature");
    let said = artel(ground, network, agent, &["job", "signature", job, "--into", into.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let command = "ssh-keygen -Y verify -f allowed_signers -I alice -n job@artel -s request.sig <request";
    assert_eq!(said.out.trim(), command);
    let judge = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&into).stdin(Stdio::null()).output().unwrap()
    };
    done(&judge(command));
    for other in [command.replace("job@artel", "policy@artel"), command.replace("alice", "mallory")] {
        assert_eq!(judge(&other).status.code(), Some(255), "{other}");
    }
    let mut message = fs::read(into.join("request")).unwrap();
    *message.last_mut().unwrap() ^= 1;
    fs::write(into.join("request"), message).unwrap();
    assert_eq!(judge(command).status.code(), Some(255));
}

#[tokio::test]
async fn what_ssh_keygen_signs_is_let_in_and_other_purposes_and_keys_are_refused_in_words() {
    let Some(ground) = ground().await else { return };
    let folder = Scratch::make();
    let agent = Agent::start(folder.path(), &["alice", "mallory"]).await;
    let mut network = network(&ground, &agent).await;
    let prepared = ground.script("hello", "echo hello > out");
    prepared.upload(&network.coordinator()).await.unwrap();
    let request = prepared.sign(&network.wish(), network.id, clock::now(), &network.maintainer).unwrap();
    let request = request.verify(Some(&network.id)).unwrap().into_inner();
    let by_hand = |name: &str, namespace: &str, key: &str| {
        let unsigned = Unsigned::<JobRequest>::new(&request, Some(&network.id));
        let message = folder.path().join("message");
        fs::write(&message, unsigned.message()).unwrap();
        let made =
            agent.program("ssh-keygen", &["-Y", "sign", "-n", namespace, "-f", &agent.public(name)], Some(&message));
        done(&made);
        let sig = ssh::Signature::parse(str::from_utf8(&made.stdout).unwrap()).unwrap().to_blob();
        unsigned.with(vec![Signature { key: agent.key(key), sig }]).to_bytes()
    };
    for (name, namespace, key, words) in [
        ("alice", "order@artel", "alice", "is for the namespace \"order@artel\", not for \"job@artel\""),
        ("mallory", "job@artel", "alice", "the SSH signature is by key"),
        ("mallory", "job@artel", "mallory", "is no maintainer of this network"),
    ] {
        let error = network.coordinator().submit(by_hand(name, namespace, key).into()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
    let submitted = network.coordinator().submit(by_hand("alice", "job@artel", "alice").into()).await.unwrap();
    assert_eq!(network.over(submitted.job, WITHIN).await.summary.state, JobState::Reproduced);

    make(folder.path(), "rsa", "rsa");
    let command = folder.path().join("command.toml");
    fs::write(&command, "name = \"x\"\nargv = [\"true\"]\noutputs = [\"out\"]\n").unwrap();
    make(folder.path(), "gone", "ed25519");
    fs::remove_file(folder.path().join("gone")).unwrap();
    for (key, words) in [
        ("rsa", "a key of type ssh-rsa cannot sign here; use one of type ssh-ed25519 (`ssh-keygen -t ed25519`)"),
        ("gone", "ssh-keygen did not sign with"),
    ] {
        let words_typed = ["job", "cancel", &submitted.job.to_string(), "--key", &agent.public(key)];
        let said = artel(&ground, &mut network, &agent, &words_typed).await;
        assert!(said.code == 3 && said.talk.contains(words), "{said:?}");
    }
}
