//! One daemon: its home folder and its process.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use artel::{
    config::{Config, Home},
    keys,
};
use protocol::NodeId;
use web::{Backend, api::Status};

use crate::wait::until;

/// How long a daemon may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(20);

/// One node of a test's network.
#[derive(Debug)]
pub struct Node {
    /// What the test calls it.
    pub name: String,
    /// Its folder.
    pub home: Home,
    /// Its id.
    pub id: NodeId,
    program: PathBuf,
    /// The network namespace that it runs in; that of the test when there is none.
    namespace: Option<String>,
    child: Option<Child>,
}

impl Node {
    /// Makes a node's folder and key below a test's folder.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn make(program: &Path, folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
        let home = Home::find(Some(path)).unwrap();
        let key = keys::create(&home.node_key()).unwrap();
        let id = NodeId::from(keys::public(&key));
        Self { name: name.to_owned(), home, id, program: program.to_owned(), namespace: None, child: None }
    }

    /// Has the daemon run in a network namespace from its next start on.
    pub fn move_to(&mut self, namespace: String) {
        self.namespace = Some(namespace);
    }

    /// Starts the daemon. It ends with the thread that calls this, whatever happens to the test.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        // Only the network is another one: `ip netns exec` would hide the cgroups that builds need.
        let mut command = match &self.namespace {
            None => Command::new("setpriv"),
            Some(name) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg("setpriv");
                command
            }
        };
        command.args(["--pdeathsig", "KILL"]).arg(&self.program).arg("--home").arg(self.home.path());
        command.args(["node", "run"]).env("RUST_LOG", "info,artel=debug");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until the daemon answers on its socket.
    ///
    /// # Panics
    /// When it ends, or does not answer in time.
    pub async fn up(&mut self) -> Status {
        let (client, what) = (self.client(), format!("{} answers", self.name));
        until(&what, START_WITHIN, async || {
            self.check();
            client.status().await.ok()
        })
        .await
    }

    /// Kills the daemon's process as a power cut would, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the daemon to stop and waits until it has.
    ///
    /// # Panics
    /// When it does not end, or ends with an error.
    pub async fn stop(&mut self) {
        self.client().shutdown().await.unwrap();
        let what = format!("{} stops", self.name);
        let status = until(&what, Duration::from_secs(15), async || {
            self.child.as_mut().expect("it answered").try_wait().unwrap()
        })
        .await;
        self.child = None;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.tail(8));
    }

    /// The way to the daemon, as its owner has it.
    pub fn client(&self) -> web::Client {
        web::Client::at_socket(self.home.socket())
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Says whether the daemon was started and not ended by the test.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// The configuration, to read or change before a start.
    ///
    /// # Panics
    /// When it is not valid.
    pub fn config(&self) -> Config {
        Config::load(&self.home).unwrap()
    }

    /// Everything that the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }

    fn check(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            panic!("{} ended with {status}:\n{}", self.name, self.tail(12));
        }
    }

    /// Kills the process when it still runs; the end of a test.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
