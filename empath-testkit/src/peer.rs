//! The scripted SMTP server that every crate delivers to in its tests.

mod script;
mod session;

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub use script::{Act, At, Script};

/// How long [`Peer::wait_for_messages`] and [`Peer::wait_for_connections`] wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that a [`Peer`] answered 2yz for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The address of MAIL, without brackets; empty for the null reverse-path.
    pub from: String,
    /// The parameters of MAIL as they were written, for example `SIZE=120`.
    pub params: Vec<String>,
    /// The addresses of the accepted RCPTs, without brackets.
    pub to: Vec<String>,
    /// The content, unstuffed.
    pub content: Vec<u8>,
    /// Which connection it came over; the first is 0.
    pub connection: usize,
}

/// A TLS handshake that a [`Peer`] has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// Whether it resumed an earlier session.
    pub resumed: bool,
}

/// A scripted SMTP server on a port of its own. Without a script it accepts everything.
///
/// ```
/// # use empath_testkit::peer::{Act, At, Peer, Script};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let script = Script::new()
///     .offer(["PIPELINING", "SIZE 1000"])
///     .on(At::Recipient("bob@example.test".into()), Act::reply("550 5.1.1 no such user"))
///     .nth(At::EndOfData, 1, Act::Close);
/// let peer = Peer::start(script).await?;
/// # peer.address(); Ok(()) }
/// ```
///
/// Stops when it is dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    log: Log,
    script: Arc<Script>,
    listening: Option<JoinHandle<()>>,
}

/// What a peer has seen, shared by its connections.
#[derive(Debug, Clone)]
struct Log(watch::Sender<Seen>);

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    open: usize,
    messages: Vec<ReceivedMessage>,
    handshakes: Vec<Handshake>,
    transcript: String,
    violations: Vec<String>,
}

impl Peer {
    /// Starts a peer on a free port of 127.0.0.1.
    pub async fn start(script: Script) -> std::io::Result<Self> {
        let mut peer = Self::unlisted(script);
        peer.restart().await?;
        Ok(peer)
    }

    /// A peer without a port, which speaks to those alone that [`serve`](Self::serve) gives it.
    pub fn unlisted(script: Script) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            log: Log(watch::Sender::new(Seen::default())),
            script: Arc::new(script),
            listening: None,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes offline: the port refuses connections, and open connections end.
    pub async fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            // The socket is closed when the task has ended.
            let _ = listening.await;
        }
    }

    /// Goes online again, at the same address.
    pub async fn restart(&mut self) -> std::io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        let (log, script) = (self.log.clone(), self.script.clone());
        self.listening = Some(tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // An error means that the client is gone.
                let _ = stream.set_nodelay(true);
                sessions.spawn(session::serve(stream, log.clone(), script.clone()));
            }
        }));
        Ok(())
    }

    /// Goes online again with another script. Occurrences count anew.
    pub async fn restart_with(&mut self, script: Script) -> std::io::Result<()> {
        self.follow(script.into());
        self.restart().await
    }

    /// Follows another script on connections that [`serve`](Self::serve) is given from now on. Its occurrences are
    /// counted over all connections that follow it.
    pub fn follow(&mut self, script: Arc<Script>) {
        self.script = script;
    }

    /// Speaks to a client at the other end of `stream` until it ends, as if it had connected.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        session::serve(stream, self.log.clone(), self.script.clone())
    }

    /// The messages that it accepted, in order.
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        self.log.0.borrow().messages.clone()
    }

    /// The handshakes that it finished, in order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.log.0.borrow().handshakes.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.log.0.borrow().connections
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.log.0.borrow().open
    }

    /// Everything that was said: `0 C: EHLO …`, `0 S: 250 …`, with the number of the connection, and `0 TLS`.
    pub fn transcript(&self) -> String {
        self.log.0.borrow().transcript.clone()
    }

    /// What clients said before they were allowed to (RFC 5321 §4.3.1, RFC 2920 §3.1).
    pub fn violations(&self) -> Vec<String> {
        self.log.0.borrow().violations.clone()
    }

    /// Waits until it has accepted `count` messages.
    ///
    /// # Panics
    /// After half a minute, showing the transcript.
    pub async fn wait_for_messages(&self, count: usize) -> Vec<ReceivedMessage> {
        self.wait(&format!("{count} messages"), |seen| seen.messages.len() >= count).await;
        self.messages()
    }

    /// Waits until there have been `count` connections.
    ///
    /// # Panics
    /// After half a minute, showing the transcript.
    pub async fn wait_for_connections(&self, count: usize) {
        self.wait(&format!("{count} connections"), |seen| seen.connections >= count).await;
    }

    /// Waits until no connection is open.
    ///
    /// # Panics
    /// After half a minute, showing the transcript.
    pub async fn wait_until_left(&self) {
        self.wait("all clients to leave", |seen| seen.open == 0).await;
    }

    async fn wait(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        let mut log = self.log.0.subscribe();
        let waited = tokio::time::timeout(PATIENCE, log.wait_for(condition)).await.is_ok();
        assert!(waited, "the peer waited for {what} in vain\n{}", self.transcript());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

impl Log {
    fn connected(&self) -> usize {
        let mut number = 0;
        self.0.send_modify(|seen| {
            number = seen.connections;
            seen.connections += 1;
            seen.open += 1;
        });
        number
    }

    fn open(&self) -> usize {
        self.0.borrow().open
    }

    fn left(&self) {
        self.0.send_modify(|seen| seen.open -= 1);
    }

    fn said(&self, connection: usize, who: char, octets: &[u8]) {
        self.0.send_modify(|seen| {
            for line in String::from_utf8_lossy(octets).lines() {
                // Text takes everything.
                let _ = writeln!(seen.transcript, "{connection} {who}: {line}");
            }
        });
    }

    fn received(&self, message: ReceivedMessage) {
        self.0.send_modify(|seen| seen.messages.push(message));
    }

    fn secured(&self, connection: usize, handshake: Handshake) {
        self.0.send_modify(|seen| {
            seen.handshakes.push(handshake);
            // Text takes everything.
            let _ = writeln!(seen.transcript, "{connection} TLS");
        });
    }

    fn violation(&self, what: String) {
        self.0.send_modify(|seen| seen.violations.push(what));
    }
}

/// How often a rule has matched.
#[derive(Debug, Default)]
struct Count(Mutex<usize>);

impl Count {
    /// The number of this occurrence; the first is 1.
    fn next(&self) -> usize {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        *count
    }
}
