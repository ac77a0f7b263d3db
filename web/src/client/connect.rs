//! One connection to a daemon, over TCP or its unix socket.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::net::{TcpStream, UnixStream};
use tower::Service;

use super::Address;

/// How long dialling may take.
const DIAL_TIME: Duration = Duration::from_secs(5);

/// Dials one address, whatever the request's says.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Address,
}

impl Connector {
    /// Makes a connector.
    pub(super) fn new(address: Address) -> Self {
        Self { address }
    }
}

/// A dialled connection.
pub(super) enum Dialled {
    Tcp(TokioIo<TcpStream>),
    Unix(TokioIo<UnixStream>),
}

impl Service<Uri> for Connector {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.address.clone();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nobody took the connection");
            tokio::time::timeout(DIAL_TIME, dial(&address)).await.map_err(late)?
        })
    }
}

async fn dial(address: &Address) -> io::Result<Dialled> {
    match address {
        Address::Http(authority) => {
            let host = authority.host().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
            stream.set_nodelay(true)?;
            Ok(Dialled::Tcp(TokioIo::new(stream)))
        }
        Address::Unix(path) => Ok(Dialled::Unix(TokioIo::new(UnixStream::connect(path).await?))),
    }
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Dialled::Tcp(io) => Pin::new(io).poll_read(cx, buffer),
            Dialled::Unix(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl Write for Dialled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Dialled::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Dialled::Unix(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Dialled::Tcp(io) => Pin::new(io).poll_flush(cx),
            Dialled::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Dialled::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Dialled::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
