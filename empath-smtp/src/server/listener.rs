use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use empath_common::Client;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Admitted, Intake, ListenerConfig, Mode, Network, Refused, Server, Session, Timeouts, connection, log,
    proxy::{self, Origin, ProxyError},
    reply,
    throttle::Throttle,
};

/// A bound address that clients connect to.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    mode: Mode,
    context: Arc<BTreeMap<String, String>>,
    timeouts: Arc<Timeouts>,
    /// Who must speak the PROXY protocol.
    proxies: Vec<Network>,
    failures: Throttle,
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

/// Connections that wait to be accepted; the system may allow less. When they are too many, those of all clients are lost
/// and tried again by the client after a second, so a flood from one address must not fill it.
const BACKLOG: u32 = 4096;

/// What the system keeps of replies that a client does not read. It would be megabytes for each otherwise.
const SEND_BUFFER: u32 = 64 * 1024;

/// How long to wait when accepting fails: descriptors are used up, and only the end of a session brings some back.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is logged that accepting fails.
const ACCEPT_FAILURE_LINES: Duration = Duration::from_secs(10);

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
            proxies: config.proxy_protocol.clone(),
            failures: Throttle::new(ACCEPT_FAILURE_LINES),
        })
    }

    /// The address that it is bound to, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop` is cancelled, then waits for the sessions that are inside a message. A session keeps to its
    /// end what `server` was when it began. Dropping the future ends them at once.
    pub async fn serve<I: Intake>(self, server: watch::Receiver<Arc<Server<I>>>, stop: CancellationToken) {
        log::listening(self.address);
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = sessions.join_next() => note(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let server = Arc::clone(&server.borrow());
                        self.admit(stream, peer, server, &stop, &mut sessions);
                    }
                    // The client went away while it waited.
                    Err(failure) if failure.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(failure) => {
                        if self.failures.pass().is_some() {
                            log::accept_failed(self.address, &failure);
                        }
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
        server: Arc<Server<I>>,
        stop: &CancellationToken,
        sessions: &mut JoinSet<()>,
    ) {
        let proxied = Network::any(&self.proxies, peer.ip());
        let speaks_for_others = proxied || Network::any(&server.settings.xclient, peer.ip());
        let connections = &server.connections;
        let admitted =
            if speaks_for_others { connections.admit_proxy() } else { connections.admit(peer.ip()) };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return turn_away(&stream, peer, refused, self.mode, &server),
        };
        // Without it, a reply waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(self.address);
        let client = Client { context: Arc::clone(&self.context), ..Client::new(peer, local) };
        let arrival = Arrival { stream, client, admitted, mode: self.mode };
        let (server, timeouts, stop) = (server, Arc::clone(&self.timeouts), stop.clone());
        sessions.spawn(async move {
            let identified = if proxied {
                tokio::select! {
                    () = stop.cancelled() => None,
                    identified = Box::pin(arrival.identify(&server, &timeouts)) => identified,
                }
            } else {
                Some(arrival)
            };
            if let Some(arrival) = identified {
                arrival.serve(&server, &timeouts, &stop).await;
            }
        });
    }
}

/// A connection that was accepted.
struct Arrival {
    stream: TcpStream,
    client: Client,
    admitted: Admitted,
    mode: Mode,
}

impl Arrival {
    /// Hears from the proxy whose connection it is. `None` ends it.
    async fn identify<I>(mut self, server: &Server<I>, timeouts: &Timeouts) -> Option<Self> {
        let proxy = self.client.peer;
        let read = timeout(timeouts.handshake, proxy::read(&mut self.stream)).await;
        let origin = read.map_err(|_| ProxyError::Io(io::ErrorKind::TimedOut.into())).flatten();
        match origin {
            Ok(Origin::Local) => {}
            Ok(Origin::Client { peer, local }) => {
                (self.client.peer, self.client.local) = (peer, local);
                log::proxied(&self.client);
                if !Network::any(&server.settings.xclient, peer.ip())
                    && let Err(refused) = self.admitted.identify(peer.ip())
                {
                    turn_away(&self.stream, peer, refused, self.mode, server);
                    return None;
                }
            }
            Err(error) => {
                server.settings.metrics.connections.increment();
                if let Some(more) = server.refusals.pass() {
                    log::connection_refused(proxy, &error, more);
                }
                return None;
            }
        }
        Some(self)
    }

    async fn serve<I: Intake>(self, server: &Server<I>, timeouts: &Timeouts, stop: &CancellationToken) {
        let session = Session::new(Arc::clone(&server.settings), self.mode, self.client);
        connection::serve(self.stream, session, server, timeouts, stop).await;
        drop(self.admitted);
    }
}

/// Tells the client to come later. The socket's buffer is empty, so nothing needs to be waited for. Where TLS comes
/// first, nothing can be said.
fn turn_away<I>(stream: &TcpStream, peer: SocketAddr, refused: Refused, mode: Mode, server: &Server<I>) {
    let metrics = &server.settings.metrics;
    metrics.connections.increment();
    metrics.errors.with("421").increment();
    if let Some(more) = server.refusals.pass() {
        log::connection_refused(peer, &refused, more);
    }
    if mode == Mode::Submissions {
        return;
    }
    let reply = match refused {
        Refused::Total => reply::TOO_MANY_CONNECTIONS,
        Refused::Address => reply::TOO_MANY_FROM_ADDRESS,
    };
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
    // Sessions inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::socket_send_buffer_size;

    use super::*;

    #[tokio::test]
    async fn the_system_keeps_little_of_replies_that_nobody_reads() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        // Linux doubles it, for its own needs.
        assert!(socket_send_buffer_size(&accepted).unwrap() <= 2 * SEND_BUFFER as usize);
    }
}
