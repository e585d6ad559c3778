use std::{io, net::SocketAddr, pin::Pin};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// What carries octets to a server and back.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Carrier for S {}

/// Some carrier. It costs one indirect call for each read or write, which is a system call each.
pub type BoxStream = Box<dyn Carrier>;

/// What comes of dialling.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Connects to servers. Whoever calls bounds the time.
pub trait Dial: Send + Sync {
    /// Connects to this address.
    fn dial(&self, address: SocketAddr) -> Dialing<'_>;
}

/// Over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: SocketAddr) -> Dialing<'_> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // Every write is a whole group of commands or a whole message: there is nothing to wait for.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
