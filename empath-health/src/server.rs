use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Connections at a time; more are closed at once, so that idle ones never hold up a probe for long.
const MAX_CONNECTIONS: usize = 1024;

/// A client that takes longer than this for the head of a request, or between two, is disconnected.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection lasts no longer than this, whatever the client does with it.
const MAX_AGE: Duration = Duration::from_mins(5);

/// Octets of the head of a request.
const MAX_HEAD: usize = 16 << 10;

/// How long answers under way may take when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// How long nothing is accepted after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP server that is bound and does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    pages: Router,
}

/// The address can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP server can't listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl HttpServer {
    /// Binds `address`, to serve `pages` there.
    pub async fn bind(address: SocketAddr, pages: Router) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        Ok(Self { listener, pages })
    }

    /// The address that is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is cancelled, then finishes the answers under way.
    pub async fn serve(self, stop: CancellationToken) {
        self.serve_at_most(MAX_CONNECTIONS, stop).await;
    }

    async fn serve_at_most(self, connections_at_a_time: usize, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(connections_at_a_time));
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                            debug!(%peer, "HTTP connection closed: there are too many");
                            continue;
                        };
                        let pages = self.pages.clone();
                        let stop = stop.clone();
                        connections.spawn(async move {
                            converse(stream, peer, pages, stop).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "the HTTP server can't accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let _ = stop.run_until_cancelled(accept).await;
        connections.close();
        let _ = timeout(GRACE, connections.wait()).await;
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, pages: Router, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(GRACE, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
        () = sleep(MAX_AGE) => return,
    };
    if let Err(error) = result {
        debug!(%peer, %error, "HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_at_once() {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), Router::new()).await.unwrap();
        let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(server.serve_at_most(1, stop.clone()));
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let closed = timeout(HEAD_TIMEOUT / 2, second.read_u8()).await.unwrap();
        assert!(closed.is_err());
        first.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        first.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        stop.cancel();
        task.await.unwrap();
    }
}
