use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, UnixStream},
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

/// How to get to a server.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// Where it listens.
    pub target: &'a Target,
    /// The address that the connection comes from, if the system doesn't choose.
    pub from: Option<IpAddr>,
}

impl<'a> From<&'a Target> for Way<'a> {
    fn from(target: &'a Target) -> Self {
        Self { target, from: None }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Connects to servers. Whoever calls bounds the time.
pub trait Dial: Send + Sync {
    /// Connects to this server, from this address if there is one.
    fn dial<'a>(&'a self, target: &'a Target, from: Option<IpAddr>) -> Dialing<'a>;
}

/// Over the sockets of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets;

impl Dial for Sockets {
    fn dial<'a>(&'a self, target: &'a Target, from: Option<IpAddr>) -> Dialing<'a> {
        Box::pin(async move {
            match target {
                Target::Tcp(address) => {
                    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                    if let Some(from) = from {
                        // Ports of connections that have just ended are taken too: there is one address for all servers.
                        socket.set_reuseaddr(true)?;
                        socket.bind((from, 0).into())?;
                    }
                    let stream = socket.connect(*address).await?;
                    // Every write is a whole group of commands or a whole message: there is nothing to wait for.
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as BoxStream)
                }
                Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as BoxStream),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(listener.local_addr().unwrap());
        for from in ["127.0.0.2", "127.0.0.3", "127.0.0.2"] {
            let from: IpAddr = from.parse().unwrap();
            let _ours = Sockets.dial(&target, Some(from)).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip(), from);
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_from_an_address_that_the_machine_lacks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(listener.local_addr().unwrap());
        let failed = Sockets.dial(&target, Some("192.0.2.99".parse().unwrap())).await.err().unwrap();
        assert_eq!(failed.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
