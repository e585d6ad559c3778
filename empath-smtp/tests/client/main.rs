//! The client's connection against the scripted peer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod chunks;
mod pace;
mod tls;
mod transactions;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use empath_common::{Body, MessageNotification, Reply};
use empath_smtp::client::{
    BoxStream, Connection, Dial, Dialing, Failure, FailureKind, GarbledReason, Hello, MAX_LINE, Outgoing,
    Sent, Sockets, Source, Stage, Survey, Target, Timeouts,
};
use empath_testkit::peer::{Act, At, Peer, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const CONTENT: &str = "Subject: hi\r\n\r\n.hello\r\n";

fn message(to: &[&str], survey: Survey) -> Outgoing {
    Outgoing {
        reverse_path: "<alice@home.test>".parse().unwrap(),
        recipients: to.iter().map(|to| format!("<{to}>").parse().unwrap()).collect(),
        body: Body::SevenBit,
        smtputf8: false,
        mt_priority: None,
        notification: MessageNotification::default(),
        notifications: Vec::new(),
        survey,
    }
}

async fn send(connection: &mut Connection, to: &[&str]) -> Sent {
    send_content(connection, to, CONTENT).await
}

async fn send_content(connection: &mut Connection, to: &[&str], content: impl Into<Bytes>) -> Sent {
    let content = content.into();
    let survey = Survey::of(content.clone()).await.unwrap();
    connection.send(&message(to, survey), content).await
}

async fn open(peer: &Peer) -> Result<Connection, Failure> {
    Connection::open(
        &Sockets,
        (&Target::from(peer.address())).into(),
        Hello::smtp("client.test"),
        Arc::default(),
    )
    .await
}

async fn send_to(script: Script, to: &[&str]) -> (Peer, Sent) {
    let peer = Peer::start(script).await.unwrap();
    let sent = send(&mut open(&peer).await.unwrap(), to).await;
    (peer, sent)
}

fn failure(stage: Stage, kind: FailureKind) -> Failure {
    Failure { stage, kind }
}

/// Over a pipe of 1 KiB. With time paused, whole minutes pass at once, and only when both sides wait.
async fn served(script: Script, timeouts: Timeouts) -> (Peer, Result<Connection, Failure>) {
    let peer = Peer::start(script).await.unwrap();
    let (ours, theirs) = tokio::io::duplex(1024);
    tokio::spawn(peer.serve(theirs));
    (peer, greet(ours, timeouts).await)
}

/// Connects once, to what is at the other end.
struct Pipe(Mutex<Option<DuplexStream>>);

impl From<DuplexStream> for Pipe {
    fn from(stream: DuplexStream) -> Self {
        Self(Mutex::new(Some(stream)))
    }
}

impl Dial for Pipe {
    fn dial<'a>(&'a self, _: &'a Target, _: Option<IpAddr>) -> Dialing<'a> {
        let stream = self.0.lock().unwrap().take();
        Box::pin(async { Ok(Box::new(stream.ok_or(io::ErrorKind::ConnectionRefused)?) as BoxStream) })
    }
}

async fn greet(stream: DuplexStream, timeouts: Timeouts) -> Result<Connection, Failure> {
    let address = SocketAddr::from(([192, 0, 2, 1], 25));
    Connection::open(
        &Pipe::from(stream),
        (&Target::from(address)).into(),
        Hello::smtp("client.test"),
        Arc::new(timeouts),
    )
    .await
}

/// Sends more than the pipe holds.
async fn send_long(connection: &mut Connection) -> Sent {
    send_content(connection, &["bob@example.test"], "x\r\n".repeat(10_000)).await
}

/// Content that comes in pieces.
struct Pieces(VecDeque<io::Result<Bytes>>);

impl Source for Pieces {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.pop_front().transpose()
    }
}
