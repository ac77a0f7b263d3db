//! Where callers come in: a TCP address or a unix socket that only its owner can open.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP address cannot be used.
    #[error("cannot listen on {address}; choose another address or end what uses it")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {}; its folder must exist and be writable", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon answers there.
    #[error("another daemon answers on {}; end it first, or choose another home", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket, which is removed when the listener is dropped.
    Unix(OwnedSocket),
}

/// A unix socket with its file.
#[derive(Debug)]
pub struct OwnedSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// One accepted connection.
pub(super) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket, by the owner.
    Unix(UnixStream),
    /// Over a unix socket, by somebody else.
    Stranger,
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// # Errors
    /// [`BindError::Tcp`].
    pub async fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?;
        Ok(Self::Tcp(listener))
    }

    /// Listens on a unix socket of mode 0600. A socket that nobody answers on is replaced.
    ///
    /// # Errors
    /// [`BindError::InUse`] when a daemon answers there, [`BindError::Unix`] when the system refuses.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        let listener = bind_private(path).map_err(|source| BindError::Unix { path: path.to_owned(), source })?;
        let owner = fs::metadata(path).map_err(|source| BindError::Unix { path: path.to_owned(), source })?.uid();
        Ok(Self::Unix(OwnedSocket { listener, path: path.to_owned(), owner }))
    }

    /// Gives the TCP address, with the port that the system chose.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let caller = stream.peer_cred()?.uid();
                Ok(if caller == socket.owner || caller == 0 { Stream::Unix(stream) } else { Stream::Stranger })
            }
        }
    }
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        // Already gone is as good: nobody can be told here, and the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds inside a folder of mode 0700 and moves the socket into place, so that it is never open to others.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = parent.join(format!(".{}", std::process::id()));
    if let Err(error) = fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    fs::remove_dir_all(&folder)?;
    bound
}
