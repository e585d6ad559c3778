use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use empath_common::Reply;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Extensions, Failure, FailureKind, GarbledReason, Outbound, Outgoing, Sent, Source, Stage, Step, Timeouts,
    Transaction,
    reply::{RawReply, ReplyParser},
};

/// Octets of replies that are read at a time, and at most kept while something is being written.
const INPUT: usize = 8 * 1024;

const UNEXPECTED: FailureKind = FailureKind::Garbled(GarbledReason::Unexpected);

/// A greeted connection to a server. It takes one transaction after another.
///
/// Dropping a future of [`send`](Self::send) leaves the dialogue in the middle: the connection then fails every
/// further transaction.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: S,
    peer: SocketAddr,
    timeouts: Arc<Timeouts>,
    offered: Extensions,
    input: BytesMut,
    parser: ReplyParser,
    /// The server waits for a command.
    idle: bool,
    /// When the content of the present transaction must be written.
    deadline: Option<Instant>,
}

impl Connection {
    /// Connects, waits for the greeting and says EHLO, or HELO to a server that doesn't know it
    /// (RFC 5321 §3.2). `helo` is our name or address literal.
    pub async fn open(address: SocketAddr, helo: &str, timeouts: Arc<Timeouts>) -> Result<Self, Failure> {
        let stream = match timeout(timeouts.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Stage::Connect.failed(error.into())),
            Err(_) => return Err(Stage::Connect.failed(FailureKind::Timeout)),
        };
        // Every write is a whole group of commands or a whole message: there is nothing to wait for.
        stream.set_nodelay(true).map_err(|error| Stage::Connect.failed(error.into()))?;
        Self::greet(stream, address, helo, timeouts).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The same over a stream that is already connected to `peer`.
    pub async fn greet(
        stream: S,
        peer: SocketAddr,
        helo: &str,
        timeouts: Arc<Timeouts>,
    ) -> Result<Self, Failure> {
        let mut connection = Self {
            stream,
            peer,
            timeouts,
            offered: Extensions::default(),
            input: BytesMut::with_capacity(INPUT),
            parser: ReplyParser::default(),
            idle: false,
            deadline: None,
        };
        positive(Stage::Greeting, connection.read(Stage::Greeting).await)?;
        let reply = connection.say(Stage::Ehlo, format!("EHLO {helo}\r\n").as_bytes()).await;
        connection.offered = match reply {
            Ok(reply) if reply.code.is_permanent() => {
                let reply = connection.say(Stage::Ehlo, format!("HELO {helo}\r\n").as_bytes()).await;
                positive(Stage::Ehlo, reply)?;
                Extensions::default()
            }
            reply => positive(Stage::Ehlo, reply)?.extensions(),
        };
        connection.idle = true;
        Ok(connection)
    }

    /// The server's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Gives one message to the server, with the content that was surveyed. Two pieces of it are in memory at a time.
    pub async fn send(&mut self, message: &Outgoing, mut content: impl Source) -> Sent {
        let mut transaction = Transaction::new(message, self.offered);
        if !std::mem::replace(&mut self.idle, false) {
            transaction.failed(Stage::MailFrom, FailureKind::Closed);
        }
        let patience = self.timeouts.of_transaction(message.survey.octets);
        self.deadline = Instant::now().checked_add(patience);
        loop {
            let (stage, outcome) = match transaction.step() {
                Step::Write(stage, commands) => (stage, self.write_commands(stage, &commands).await),
                Step::Content => (Stage::Content, self.write_content(&mut content).await),
                Step::Read(stage) => {
                    (stage, self.read(stage).await.map(|reply| transaction.reply(reply.into())))
                }
                Step::Done(mut sent) => {
                    // More than was asked for: no telling what the next reply would belong to.
                    sent.reusable &= self.input.is_empty();
                    self.idle = sent.reusable;
                    self.deadline = None;
                    return sent;
                }
            };
            if let Err(kind) = outcome {
                transaction.failed(stage, kind);
            }
        }
    }

    /// Completes when the server closes the idle connection or speaks unasked (421): it must not be used again.
    /// May be dropped and called again.
    pub async fn closed(&mut self) {
        if self.input.is_empty() {
            // An error ends the connection as well as octets or the end do.
            let _ = self.stream.read_buf(&mut self.input).await;
        }
        self.idle = false;
    }

    /// Says QUIT and waits for the reply, but not for long.
    pub async fn quit(mut self) {
        if self.idle {
            let patience = self.timeouts.quit;
            let goodbye = async {
                self.write(b"QUIT\r\n", b"", patience).await?;
                self.read_reply().await
            };
            // Whatever the answer, the connection ends here.
            let _ = timeout(patience, goodbye).await;
        }
    }

    /// Writes a command and reads its reply.
    async fn say(&mut self, stage: Stage, command: &[u8]) -> Result<RawReply, FailureKind> {
        self.write_commands(stage, command).await?;
        self.read(stage).await
    }

    async fn write_commands(&mut self, stage: Stage, commands: &[u8]) -> Result<(), FailureKind> {
        self.unsolicited()?;
        match self.write(commands, b"", self.timeouts.of(stage)).await {
            // The server may have said why before it closed: reading the replies will tell.
            Err(FailureKind::Closed) => Ok(()),
            outcome => outcome,
        }
    }

    async fn write_content(&mut self, content: &mut impl Source) -> Result<(), FailureKind> {
        self.unsolicited()?;
        let mut outbound = Outbound::new();
        let mut piece = read_on(content).await?;
        loop {
            // The end of data goes out behind the last piece, and only when that is known to be the last.
            let following = if piece.is_some() { read_on(content).await? } else { None };
            outbound.push(piece.unwrap_or_default(), following.is_none());
            while let Some((block, ending)) = outbound.next_block() {
                self.write_block(&block, ending).await?;
            }
            if following.is_none() {
                return Ok(());
            }
            piece = following;
        }
    }

    async fn write_block(&mut self, block: &[u8], ending: &[u8]) -> Result<(), FailureKind> {
        // A reply to content that the server doesn't have: it refuses, or it is out of step. What it says can't be
        // an acceptance.
        match self.write(block, ending, self.timeouts.data_block).await {
            Ok(()) if self.input.is_empty() => Ok(()),
            Ok(()) => Err(self.refusal().await.unwrap_or(UNEXPECTED)),
            Err(FailureKind::Closed) => Err(self.refusal().await.unwrap_or(FailureKind::Closed)),
            Err(kind) => Err(kind),
        }
    }

    /// Why the server broke off, if it says so.
    async fn refusal(&mut self) -> Option<FailureKind> {
        match timeout(self.timeouts.quit, self.read_reply()).await {
            Ok(Ok(raw)) if raw.code.is_transient() || raw.code.is_permanent() => {
                Some(FailureKind::Refused(raw.into()))
            }
            _ => None,
        }
    }

    /// Fails if the server has spoken although it was not asked anything.
    fn unsolicited(&mut self) -> Result<(), FailureKind> {
        if self.input.is_empty() {
            return Ok(());
        }
        Err(match self.parser.take(&mut self.input) {
            Ok(Some(raw)) if raw.code.get() == 421 => FailureKind::Refused(raw.into()),
            _ => UNEXPECTED,
        })
    }

    async fn read(&mut self, stage: Stage) -> Result<RawReply, FailureKind> {
        let patience = match stage {
            // The server has the message: giving up now would make it arrive twice.
            Stage::EndOfData => self.timeouts.data_termination,
            stage => self.timeouts.of(stage).min(self.left()),
        };
        timeout(patience, self.read_reply()).await.unwrap_or(Err(FailureKind::Timeout))
    }

    /// What is left of the time of the transaction.
    fn left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    async fn read_reply(&mut self) -> Result<RawReply, FailureKind> {
        loop {
            if let Some(reply) = self.parser.take(&mut self.input).map_err(FailureKind::Garbled)? {
                return Ok(reply);
            }
            self.input.reserve(INPUT);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(FailureKind::Closed);
            }
        }
    }

    /// Writes both parts, waiting at most `patience` for the server to take more of them.
    async fn write(
        &mut self,
        mut first: &[u8],
        mut second: &[u8],
        patience: Duration,
    ) -> Result<(), FailureKind> {
        while !first.is_empty() || !second.is_empty() {
            let patience = patience.min(self.left());
            let progress = poll_fn(|cx| self.poll_write(cx, first, second));
            let written = timeout(patience, progress).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
            if written == 0 {
                return Err(FailureKind::Closed);
            }
            let of_first = written.min(first.len());
            first.advance(of_first);
            second.advance(written - of_first);
        }
        timeout(patience, self.stream.flush()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &parts);
        // A server that waits for us to read its replies doesn't read what we write.
        while written.is_pending() && self.input.len() < INPUT {
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        written
    }
}

async fn read_on(content: &mut impl Source) -> Result<Option<Bytes>, FailureKind> {
    content.next().await.map_err(|_| FailureKind::Unreadable)
}

/// The reply, if it is 2yz.
fn positive(stage: Stage, reply: Result<RawReply, FailureKind>) -> Result<RawReply, Failure> {
    match reply {
        Ok(raw) if raw.code.is_positive() => Ok(raw),
        Ok(raw) if raw.code.is_intermediate() => Err(stage.garbled(GarbledReason::Unexpected)),
        Ok(raw) => Err(stage.refused(Reply::from(raw))),
        Err(kind) => Err(stage.failed(kind)),
    }
}
