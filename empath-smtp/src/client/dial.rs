use std::{fmt, io, net::SocketAddr, path::Path, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// What carries octets to a server and back.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Carrier for S {}

/// Some carrier. It costs one indirect call for each read or write, which is a system call each.
pub type BoxStream = Box<dyn Carrier>;

/// What comes of dialling.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// At an address.
    Tcp(SocketAddr),
    /// At a Unix socket of this machine.
    Unix(Arc<Path>),
}

/// As it is shown: `192.0.2.1:25`, `unix:/run/lmtp`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Connects to servers. Whoever calls bounds the time.
pub trait Dial: Send + Sync {
    /// Connects to this server.
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a>;
}

/// Over the sockets of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets;

impl Dial for Sockets {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a> {
        Box::pin(async move {
            match target {
                Target::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // Every write is a whole group of commands or a whole message: there is nothing to wait for.
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as BoxStream)
                }
                Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as BoxStream),
            }
        })
    }
}
