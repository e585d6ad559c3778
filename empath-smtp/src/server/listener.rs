use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use empath_common::Client;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Intake, ListenerConfig, Mode, Refused, Server, Session, Timeouts, connection, log, reply};

/// A bound address that clients connect to.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    mode: Mode,
    context: Arc<BTreeMap<String, String>>,
    timeouts: Arc<Timeouts>,
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long to wait when accepting fails: descriptors are used up, and only the end of a session brings some back.
const PAUSE: Duration = Duration::from_millis(500);

impl Listener {
    /// Binds the address of `config`. Clients wait until [`serve`](Self::serve) runs.
    pub fn bind(config: &ListenerConfig) -> Result<Self, BindError> {
        let bound = bind(config.socket).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|source| BindError { address: config.socket, source })?;
        Ok(Self {
            socket,
            address,
            mode: config.mode,
            context: Arc::new(config.context.clone()),
            timeouts: Arc::new(config.timeouts.clone()),
        })
    }

    /// The address that it is bound to, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop` is cancelled, then waits for the sessions that are inside a message.
    /// Dropping the future ends them at once.
    pub async fn serve<I: Intake>(self, server: Arc<Server<I>>, stop: CancellationToken) {
        log::listening(self.address);
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = sessions.join_next() => note(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &server, &stop, &mut sessions),
                    // The client went away while it waited.
                    Err(failure) if failure.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(failure) => {
                        log::accept_failed(self.address, &failure);
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = sleep(PAUSE) => {}
                        }
                    }
                },
            }
        }
        drop(self.socket);
        while let Some(ended) = sessions.join_next().await {
            note(ended);
        }
    }

    fn admit<I: Intake>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        server: &Arc<Server<I>>,
        stop: &CancellationToken,
        sessions: &mut JoinSet<()>,
    ) {
        let admitted = match server.connections.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(refused) => return turn_away(&stream, peer, refused, server),
        };
        // Without it, a reply waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(self.address);
        let client = Client { context: Arc::clone(&self.context), ..Client::new(peer, local) };
        let session = Session::new(Arc::clone(&server.settings), self.mode, client);
        let (server, timeouts, stop) = (Arc::clone(server), Arc::clone(&self.timeouts), stop.clone());
        sessions.spawn(async move {
            connection::serve(stream, session, &server, &timeouts, &stop).await;
            drop(admitted);
        });
    }
}

/// Tells the client to come later. The socket's buffer is empty, so nothing needs to be waited for.
fn turn_away<I>(stream: &TcpStream, peer: SocketAddr, refused: Refused, server: &Server<I>) {
    let reply = match refused {
        Refused::Total => reply::TOO_MANY_CONNECTIONS,
        Refused::Address => reply::TOO_MANY_FROM_ADDRESS,
    };
    let metrics = &server.settings.metrics;
    metrics.connections.increment();
    metrics.errors.with("421").increment();
    log::connection_refused(peer, &refused);
    let mut octets = Vec::new();
    reply::encode(&reply, &mut octets);
    let _ = stream.try_write(&octets);
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        log::panicked(&failure);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 clients too, whatever the system's default is.
        set_ipv6_v6only(&socket, false)?;
    }
    // A restart must not wait for the last sessions' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
