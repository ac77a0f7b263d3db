//! The command line as two people use it: one founds a network, the other joins it, and both see what they did. Then what
//! it says to mistakes.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use harness::{Ground, Place, Said, Scratch, network::free_port, run, until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(120);

/// A person with a node of their own.
struct Person<'a> {
    ground: &'a Ground,
    home: std::path::PathBuf,
    daemon: Option<std::process::Child>,
}

impl<'a> Person<'a> {
    fn new(ground: &'a Ground, scratch: &Scratch, name: &str) -> Self {
        let home = scratch.path().join(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).unwrap();
        // One environment for all builders of this machine, and the packages that it was made from.
        fs::create_dir(home.join("build")).unwrap();
        std::os::unix::fs::symlink(ground.environments(), home.join("build/environments")).unwrap();
        std::os::unix::fs::symlink(ground.cache.join("archive"), home.join("archive")).unwrap();
        Self { ground, home, daemon: None }
    }

    async fn types(&self, line: &str) -> Said {
        run(&self.ground.artel, &self.home, &line.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Types a line that works, and gives what it printed.
    async fn does(&self, line: &str) -> String {
        let said = self.types(line).await;
        assert_eq!(said.code, 0, "artel {line}: {said:?}");
        said.out.trim_end().to_owned()
    }

    /// Types a line that does not work: the exit code, and words that the error and its hint must hold.
    async fn fails(&self, line: &str, code: i32, words: &[&str]) {
        let said = self.types(line).await;
        assert_eq!(said.code, code, "artel {line}: {said:?}");
        assert_eq!(said.out, "", "errors are no data: artel {line}");
        for word in words {
            assert!(said.talk.contains(word), "artel {line}: {word:?} is not in {:?}", said.talk);
        }
    }

    async fn runs_the_daemon(&mut self) {
        self.begins_the_daemon();
        let what = format!("{} answers", self.home.display());
        until(&what, WITHIN, async || (self.types("status").await.code == 0).then_some(())).await;
    }

    fn begins_the_daemon(&mut self) {
        let log = fs::File::create(self.home.join("daemon.log")).unwrap();
        let mut command = std::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.ground.artel).args(["node", "run"]);
        command.env("ARTEL_HOME", &self.home).stdin(std::process::Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Waits for the daemon's end, and gives its exit code.
    async fn ended(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("it runs");
        let status = until("the daemon ends", WITHIN, async || daemon.try_wait().unwrap()).await;
        status.code()
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended just now.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn init_words() -> String {
    let (port, web) = (free_port(), free_port());
    format!("--listen /ip4/127.0.0.1/udp/{port}/quic-v1 --listen /ip4/127.0.0.1/tcp/{port} --web 127.0.0.1:{web}")
}

#[tokio::test]
async fn two_people_found_a_network_build_and_look_at_the_proof() {
    let Some(ground) = ground().await else { return };
    let (_place, scratch) = (Place::take(&ground.cache), Scratch::make());
    let (mut anna, mut bert) = (Person::new(&ground, &scratch, "anna"), Person::new(&ground, &scratch, "bert"));
    let said = anna.does(&format!("init --network guild --operator anna {}", init_words())).await;
    assert!(said.contains("node     ") && said.contains("network  "), "{said}");
    anna.runs_the_daemon().await;
    assert!(anna.does("status").await.contains("guild"));
    let ticket = anna.does("node ticket").await;
    assert!(ticket.starts_with("artel1"), "{ticket}");
    bert.does(&format!("init --join {ticket} --operator bert {}", init_words())).await;
    let id = bert.does("node id").await;
    bert.runs_the_daemon().await;
    let said = anna.does(&format!("policy admit bert {id}")).await;
    assert_eq!(said, "policy 2 is in force");
    assert!(anna.does("policy show").await.contains(&id));

    let command = scratch.path().join("greeting.toml");
    let file = "name = \"greeting\"\nargv = [\"sh\", \"-euc\", \"echo saying hello; echo hello > greeting.txt\"]\n\
                outputs = [\"greeting.txt\"]\n";
    fs::write(&command, file).unwrap();
    let job = anna.does(&format!("job queue --memory 512 {}", command.display())).await;
    assert_eq!(job.len(), 64, "the job's id alone, to paste: {job}");
    let short = &job[..8];
    let state = until("the job is over", WITHIN, async || {
        let detail: Value = serde_json::from_str(&anna.does(&format!("--json job show {short}")).await).unwrap();
        let state = detail["summary"]["state"].as_str().unwrap().to_owned();
        let why = detail["summary"]["why"].to_string();
        (!["waiting", "building"].contains(&state.as_str())).then_some((state, why))
    })
    .await;
    assert_eq!(state.0, "reproduced", "{}", state.1);
    let list = anna.does("job ls").await;
    assert!(list.contains("command greeting") && list.contains("reproduced"), "{list}");
    assert!(bert.does("job ls").await.contains("command greeting"), "a member sees the same list");
    let shown = anna.does(&format!("job show {short}")).await;
    assert!(shown.contains("agreement  2 of 2 needed") && shown.contains("greeting.txt"), "{shown}");
    assert!(anna.does(&format!("job log {short}")).await.contains("saying hello"));
    assert!(bert.does(&format!("job log {short}")).await.contains("saying hello"));
    let bundle = scratch.path().join("greeting.bundle");
    let proof = anna.does(&format!("attest show {short} --out {}", bundle.display())).await;
    assert!(proof.contains("anna") && proof.contains("bert"), "{proof}");
    bert.does(&format!("attest verify {}", bundle.display())).await;
    mistakes(&anna, &bert, scratch.path(), &bundle).await;
    bert.does("node stop").await;
}

/// What the command line says to mistakes, beside a network that runs.
async fn mistakes(anna: &Person<'_>, bert: &Person<'_>, folder: &Path, bundle: &Path) {
    let changed = folder.join("greeting.txt");
    fs::write(&changed, "hello?\n").unwrap();
    anna.fails(&format!("attest verify {} {}", bundle.display(), changed.display()), 12, &["greeting.txt"]).await;
    anna.fails("job show 00000000", 1, &["no job \"00000000\"", "hint: ", "artel job ls"]).await;
    anna.fails(&format!("job show {}", "ab".repeat(32)), 1, &["not found"]).await;
    anna.fails("job frobnicate", 2, &["frobnicate"]).await;
    anna.fails(&format!("init {}", init_words()), 3, &["exists already", "hint: "]).await;
    bert.fails("policy admit carl 00", 2, &["00"]).await;
    anna.fails("repo promote main main", 2, &["channel main cannot take packages over from itself"]).await;
    anna.fails("repo prune main --keep 0", 2, &["every package out"]).await;
    anna.fails("repo diff main@x main", 2, &["CHANNEL@GENERATION"]).await;
    bert.fails("job cancel 0123 --key maintainer", 1, &["no job"]).await;
}

#[tokio::test]
async fn who_joins_and_reaches_nobody_is_told_so_and_can_stop() {
    let Some(ground) = ground().await else { return };
    let scratch = Scratch::make();
    let (mut anna, mut bert) = (Person::new(&ground, &scratch, "anna"), Person::new(&ground, &scratch, "bert"));
    anna.does(&format!("init --network guild {}", init_words())).await;
    anna.runs_the_daemon().await;
    let ticket = anna.does("node ticket").await;
    anna.does("node stop").await;
    assert_eq!(anna.ended().await, Some(0));
    bert.does(&format!("init --join {ticket} --role mirror {}", init_words())).await;
    bert.begins_the_daemon();
    let waiting =
        ["does not know its network's policy yet", "no node has answered at the addresses of the ticket", "hint: "];
    until("the socket is there", WITHIN, async || bert.home.join("control.sock").exists().then_some(())).await;
    let asked = std::time::Instant::now();
    bert.fails("status", 6, &waiting).await;
    bert.fails("job ls", 6, &waiting).await;
    assert!(asked.elapsed() < Duration::from_secs(20), "it is said at once, not after {:?}", asked.elapsed());
    // Whom it waits for comes up, and it goes on with the same listeners.
    anna.runs_the_daemon().await;
    until("bert's node knows its network", WITHIN, async || (bert.types("status").await.code == 0).then_some(())).await;
    bert.does("node stop").await;
    assert_eq!(bert.ended().await, Some(0));
    // Without having known the network a node ends well, too.
    let mut carl = Person::new(&ground, &scratch, "carl");
    anna.does("node stop").await;
    assert_eq!(anna.ended().await, Some(0));
    carl.does(&format!("init --join {ticket} --role mirror {}", init_words())).await;
    carl.begins_the_daemon();
    until("the socket is there", WITHIN, async || carl.home.join("control.sock").exists().then_some(())).await;
    carl.does("node stop").await;
    assert_eq!(carl.ended().await, Some(0));
}

/// A second history under the same key would convict the node, and stop its network.
#[tokio::test]
async fn who_lost_its_database_does_not_begin_its_network_anew() {
    let Some(ground) = ground().await else { return };
    let scratch = Scratch::make();
    let mut anna = Person::new(&ground, &scratch, "anna");
    anna.does(&format!("init --network guild --operator anna {}", init_words())).await;
    anna.runs_the_daemon().await;
    anna.does("node stop").await;
    assert_eq!(anna.ended().await, Some(0));
    let (database, aside) = (anna.home.join("artel.redb"), anna.home.join("aside"));
    fs::rename(&database, &aside).unwrap();
    anna.fails("node run", 1, &["has coordinated", "put the database back", "new key"]).await;
    fs::rename(&aside, &database).unwrap();
    anna.runs_the_daemon().await;
    anna.does("node stop").await;
    assert_eq!(anna.ended().await, Some(0));
}

/// A process group, which does not outlive its test.
struct Group(String);

impl Group {
    fn signal(&self, signal: &str) -> bool {
        let mut kill = std::process::Command::new("kill");
        kill.args([signal, "--", &self.0]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal("-KILL");
    }
}

#[tokio::test]
async fn a_demonstration_that_is_interrupted_leaves_nothing() {
    let Some(ground) = ground().await else { return };
    let (cache, scratch) = (Scratch::make(), Scratch::make());
    fs::create_dir(cache.path().join("artel")).unwrap();
    std::os::unix::fs::symlink(ground.cache.join("archive"), cache.path().join("artel/archive")).unwrap();
    let mut command = tokio::process::Command::new(&ground.artel);
    command.args(["demo", "--package", "base-files"]).env("TMPDIR", scratch.path()).env("XDG_CACHE_HOME", cache.path());
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let (group, mut said) = (Group(format!("-{}", demo.id().unwrap())), Vec::new());
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let begun = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            said.push(line);
            if said.last().is_some_and(|line| line.contains("attempt 1 by")) {
                return;
            }
        }
    };
    // It has its sources and packages fetched first.
    tokio::time::timeout(Duration::from_secs(600), begun).await.expect("the demonstration begins to build");
    assert!(fs::read_dir(scratch.path()).unwrap().count() > 0, "its network lies there: {said:#?}");
    let pid = demo.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success(), "{said:#?}");
    let status = tokio::time::timeout(WITHIN, demo.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(130));
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!group.signal("-0"), "no process of it is left");
}

#[tokio::test]
async fn mistakes_without_a_network_are_told_with_what_to_do_next() {
    let Some(ground) = ground().await else { return };
    let scratch = Scratch::make();
    let carl = Person::new(&ground, &scratch, "carl");
    carl.fails("node run", 3, &["artel init"]).await;
    carl.fails("init --join artel1nonsense", 2, &["not a ticket", "artel node ticket"]).await;
    carl.fails("init --web nonsense", 2, &["nonsense", "127.0.0.1:4780, or off"]).await;
    carl.fails("init --announce example.org", 2, &["example.org", "not a multiaddr"]).await;
    carl.fails("init --listen 4700", 2, &["4700", "not a multiaddr"]).await;
    carl.does(&format!("init {}", init_words())).await;
    carl.fails("status", 6, &["no answer from the daemon", "artel node run"]).await;
    carl.fails("job show 0123", 6, &["no answer from the daemon", "artel node run"]).await;
    let key = carl.home.join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    carl.fails("node run", 3, &["others can read it", "chmod 600"]).await;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(carl.home.join("artel.toml"), "[network]\nname = 1\n").unwrap();
    carl.fails("node run", 3, &["artel.toml is not a valid configuration"]).await;
}
