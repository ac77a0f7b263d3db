//! The gate: a SOCKS 5 server (RFC 1928) on a socket in a fetch's sandbox, without authentication, which connects to listed
//! hosts only.
//!
//! A name is looked up here, not in the sandbox, and an address that is private, local or otherwise not of the public
//! internet is used only where the owner lists that very address: a name of somebody else's must not lead into the owner's
//! own network. What passes is not looked into.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use protocol::{
    job::{Endpoint, reaches},
    words::{HostRule, Url},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::build::{LogSink, Rig, sandbox::Network};

const SOCKET: &str = "socks";
/// Connections at one time: git and curl need one or two.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to say where it wants to go.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

/// Why somebody is not let through: a code of RFC 1928 and words for the log.
struct Refusal {
    code: u8,
    why: String,
}

const FAILED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const UNREACHABLE: u8 = 4;
const NO_COMMAND: u8 = 7;
const NO_ADDRESS: u8 = 8;

/// A gate that nobody passes before it is served.
pub(in crate::build) struct Gate {
    listener: UnixListener,
    rules: Arc<[HostRule]>,
    log: LogSink,
}

impl Gate {
    /// Makes the socket, which the build user may use.
    pub(in crate::build) fn open(rig: &Rig, attempt: &Path, rules: Vec<HostRule>, log: LogSink) -> io::Result<Self> {
        let folder = attempt.join(Network::FOLDER);
        rig.make_folder(&folder)?;
        // The path of a socket is at most 107 bytes long; this one always is.
        let here = std::fs::File::open(&folder)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&here);
        let listener = UnixListener::bind(format!("/proc/self/fd/{number}/{SOCKET}"))?;
        let socket = folder.join(SOCKET);
        rig.give(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, rules: rules.into(), log })
    }

    /// Serves until it is dropped, which ends every connection.
    pub(in crate::build) async fn serve(self) -> Infallible {
        let mut passing = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let client = tokio::select! {
                Some(_) = passing.join_next(), if !passing.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((client, _)) = client else {
                // No descriptor is left for a moment.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (rules, log) = (Arc::clone(&self.rules), self.log.clone());
            passing.spawn(async move {
                let _permit = permit;
                pass(client, &rules, &log).await;
            });
        }
    }
}

/// Lets one client through, or says why not.
async fn pass(mut client: UnixStream, rules: &[HostRule], log: &LogSink) {
    let asked = match timeout(ASKED_WITHIN, ask(&mut client)).await {
        Ok(Ok(asked)) => asked,
        // It went away, or speaks something else.
        Ok(Err(_)) | Err(_) => return,
    };
    let connected = match asked {
        Ok(endpoint) => connect(&endpoint, rules).await.map(|stream| (endpoint, stream)),
        Err(refusal) => Err(refusal),
    };
    match connected {
        Ok((endpoint, mut server)) => {
            log.note(&format!("connected to {endpoint}"));
            if answer(&mut client, 0).await.is_ok() {
                // Either side may break off: the client sees it.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Err(refusal) => {
            // As a line of the build's own, so that it is what the failure quotes.
            let line = format!("error: {}\n", refusal.why);
            if log.append(line.as_bytes()).is_err() {
                tracing::debug!(why = refusal.why, "the log is full");
            }
            // Nobody may be there any more.
            let _ = answer(&mut client, refusal.code).await;
        }
    }
}

/// Reads where a client wants to go.
async fn ask(client: &mut UnixStream) -> io::Result<Result<Endpoint, Refusal>> {
    let [version, methods] = read(client).await?;
    if version != 5 {
        return Err(io::Error::other("not SOCKS 5"));
    }
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered).await?;
    if !offered.contains(&0) {
        client.write_all(&[5, 0xff]).await?;
        return Err(io::Error::other("wants a password"));
    }
    client.write_all(&[5, 0]).await?;
    let [_, command, _, kind] = read(client).await?;
    let host = match kind {
        1 => Ipv4Addr::from(read::<4>(client).await?).to_string(),
        3 => {
            let [length] = read(client).await?;
            let mut name = vec![0; length.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        }
        4 => Ipv6Addr::from(read::<16>(client).await?).to_string(),
        _ => return Ok(Err(Refusal { code: NO_ADDRESS, why: "an address of an unknown kind was asked for".into() })),
    };
    let port = u16::from_be_bytes(read(client).await?);
    if command != 1 {
        return Ok(Err(Refusal { code: NO_COMMAND, why: "something else than a connection was asked for".into() }));
    }
    // The same words as in a job: nothing strange gets into the log or the resolver.
    Ok(match Url::new(format!("http://{host}:{port}/")) {
        Ok(url) => Ok(url.endpoint()),
        Err(_) => Err(Refusal { code: NO_ADDRESS, why: "a host whose name is not plain was asked for".into() }),
    })
}

async fn read<const N: usize>(client: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn answer(client: &mut UnixStream, code: u8) -> io::Result<()> {
    client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

async fn connect(endpoint: &Endpoint, rules: &[HostRule]) -> Result<TcpStream, Refusal> {
    if !reaches(rules, endpoint) {
        let why = format!("{endpoint} is not among the hosts that this builder's owner lists");
        return Err(Refusal { code: NOT_ALLOWED, why });
    }
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let found: Vec<SocketAddr> = match timeout(CONNECTED_WITHIN, found).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => {
            return Err(Refusal { code: UNREACHABLE, why: format!("{} has no address", endpoint.host) });
        }
    };
    let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| may_use(*address, rules)).collect();
    if allowed.is_empty() {
        let why = format!("{endpoint} leads into a private network, and its address is not listed");
        return Err(Refusal { code: NOT_ALLOWED, why });
    }
    match timeout(CONNECTED_WITHIN, TcpStream::connect(&allowed[..])).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Refusal { code: FAILED, why: format!("{endpoint} cannot be reached: {error}") }),
        Err(_) => Err(Refusal { code: FAILED, why: format!("{endpoint} did not answer") }),
    }
}

/// Says whether an address is public, or listed itself.
fn may_use(address: SocketAddr, rules: &[HostRule]) -> bool {
    let ip = address.ip().to_canonical();
    let itself = Endpoint { host: ip.to_string(), port: address.port() };
    is_public(ip) || reaches(rules, &itself)
}

/// Says whether an address belongs to the public internet (RFC 6890 and its registries).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation();
            !special
                && a != 0
                && a < 224
                && (a, b & 0xc0) != (100, 64)
                && (a, b, c) != (192, 0, 0)
                && (a, b & 0xfe) != (198, 18)
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            // Only 2000::/3 is given out; of it, tunnels and documentation lead elsewhere.
            (first & 0xe000) == 0x2000
                && first != 0x2002
                && !(first == 0x2001 && ip.segments()[1] < 0x200)
                && !(first == 0x2001 && ip.segments()[1] == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[&str]) -> Vec<HostRule> {
        words.iter().map(|word| HostRule::new(word).unwrap()).collect()
    }

    #[test]
    fn private_addresses_are_used_only_when_they_are_listed_themselves() {
        for public in ["8.8.8.8", "151.101.2.132", "2a04:4e42::644", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.31.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert!(!may_use(mapped, &rules(&["localhost"])) && may_use(mapped, &rules(&["127.0.0.1"])));
    }

    /// Asks a gate for a connection and gives its code.
    async fn code(rules: &[HostRule], host: &str, port: u16) -> u8 {
        let dir = tempfile::tempdir().unwrap();
        let log = LogSink::create(dir.path().join("log"), 1 << 20).unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        let passing = pass(server, rules, &log);
        let asking = async move {
            let length = u8::try_from(host.len()).unwrap();
            client.write_all(&[5, 1, 0]).await.unwrap();
            assert_eq!(read::<2>(&mut client).await.unwrap(), [5, 0]);
            client.write_all(&[&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat()).await.unwrap();
            read::<10>(&mut client).await.unwrap()[1]
        };
        // Who is let through stays connected as long as the server wants.
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            code = &mut asking => code,
            () = passing => asking.await,
        }
    }

    #[tokio::test]
    async fn only_listed_hosts_are_connected_to() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let own = format!("127.0.0.1:{port}");
        assert_eq!(code(&rules(&[&own]), "127.0.0.1", port).await, 0);
        assert_eq!(code(&rules(&["127.0.0.1"]), "127.0.0.1", port).await, NOT_ALLOWED, "another port");
        assert_eq!(code(&[], "127.0.0.1", port).await, NOT_ALLOWED);
        let by_name = format!("localhost:{port}");
        assert_eq!(code(&rules(&[&by_name]), "localhost", port).await, NOT_ALLOWED, "a name that leads inside");
        assert_eq!(code(&rules(&[&by_name, &own]), "localhost", port).await, 0);
        assert_eq!(code(&rules(&[&own]), "a b", port).await, NO_ADDRESS);
    }
}
