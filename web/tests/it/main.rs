//! The API, the pages and the client over a real server on loopback and on a unix socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod backends;
mod clients;
mod content;
mod early;
mod pages;
mod streams;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use web::{
    Access, Address, Client, Limits, Listener, Server,
    testing::{Fake, SampleJobs, sample},
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server over the sample network, on both kinds of listener.
struct Site {
    fake: Fake,
    jobs: SampleJobs,
    address: SocketAddr,
    socket: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

/// An HTTP answer, as read from the wire.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Site {
    async fn start(limits: Limits) -> Self {
        let (fake, jobs) = sample();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let server = Server::new(fake.clone(), limits, ["mirror.example".to_owned()]);
        let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = tcp.address().unwrap();
        let unix = Listener::unix(&socket).unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for (listener, access) in [(tcp, Access::Public), (unix, Access::Owner)] {
            let (server, stop) = (server.clone(), stop.clone());
            tasks.spawn(async move { server.serve(listener, access, stop).await });
        }
        Self { fake, jobs, address, socket, stop, tasks, _folder: folder }
    }

    fn tcp_client(&self) -> Client {
        Client::new(format!("http://{}", self.address).parse().unwrap())
    }

    fn unix_client(&self) -> Client {
        Client::new(Address::unix(&self.socket))
    }

    /// Sends bytes as they are and reads until the server ends the connection.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut bytes = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Asks with these header lines.
    async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n")).await
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, all).await.expect("the server stops");
        assert!(!self.socket.exists(), "the socket is removed");
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
