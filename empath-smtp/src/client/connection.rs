mod opening;

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use empath_common::TlsSession;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Instant, timeout},
};

use super::{
    Block, Chunks, Extensions, FailureKind, Framing, GarbledReason, Outgoing, Protocol, Sent, Source, Stage,
    Step, Target, Timeouts, Transaction,
    content::Feed,
    reply::{RawReply, ReplyParser},
    stream::Stream,
};

/// Octets of replies that are read at a time, and at most kept while something is being written.
const INPUT: usize = 8 * 1024;

/// How long the first reply after an idle time is waited for: on a connection that a firewall has forgotten, or whose server
/// has vanished, nothing ever comes back. A server that is there and slower finds the client gone before it has any content,
/// and a fresh connection can wait as long as the timeouts say.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

const UNEXPECTED: FailureKind = FailureKind::Garbled(GarbledReason::Unexpected);

/// A greeted connection to a server. It takes one transaction after another.
///
/// Dropping a future of [`send`](Self::send) leaves the dialogue in the middle: the connection then fails every
/// further transaction.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Target,
    protocol: Protocol,
    timeouts: Arc<Timeouts>,
    offered: Extensions,
    tls: Option<TlsSession>,
    input: BytesMut,
    parser: ReplyParser,
    /// MAIL commands so far.
    mails: u32,
    chunks: Chunks,
    /// The server waits for a command.
    idle: bool,
    /// It was idle, and the server has said nothing since.
    in_doubt: bool,
    /// When the content of the present transaction must be written.
    deadline: Option<Instant>,
}

impl Connection {
    /// What the server offers.
    pub fn offered(&self) -> &Extensions {
        &self.offered
    }

    /// From here on does without PIPELINING or CHUNKING, even if they are offered.
    pub fn forgo(&mut self, pipelining: bool, chunking: bool) {
        self.offered.pipelining &= !pipelining;
        self.offered.chunking &= !chunking;
    }

    /// Whether the server has accepted a chunk.
    pub fn takes_chunks(&self) -> bool {
        self.chunks == Chunks::Taken
    }

    /// How the connection is encrypted.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_ref()
    }

    /// Where the server listens.
    pub fn peer(&self) -> &Target {
        &self.peer
    }

    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Gives one message to the server, with the content that was surveyed. Two pieces of it are in memory at a time.
    pub async fn send(&mut self, message: &Outgoing, content: impl Source) -> Sent {
        let framing = if self.offered.chunking { Framing::Chunks } else { Framing::Dots };
        let mut feed = Feed::new(content, framing);
        let mut transaction = Transaction::new(message, self.offered, self.protocol, self.chunks);
        if !std::mem::replace(&mut self.idle, false) {
            transaction.failed(Stage::MailFrom, FailureKind::Closed);
        }
        let patience = self.timeouts.of_transaction(message.survey.octets);
        self.deadline = Instant::now().checked_add(patience);
        loop {
            let (stage, outcome) = match transaction.step() {
                Step::Write(stage, commands) => {
                    self.mails += u32::from(stage == Stage::MailFrom);
                    (stage, self.write_commands(stage, &commands).await)
                }
                Step::Content => (Stage::Content, self.write_content(&mut feed).await),
                Step::Chunk(most) => {
                    (Stage::Content, self.write_chunk(&mut transaction, &mut feed, most).await)
                }
                Step::Read(stage) => {
                    (stage, self.read(stage).await.map(|reply| transaction.reply(reply.into())))
                }
                Step::Done(mut sent) => {
                    // More than was asked for: no telling what the next reply would belong to.
                    sent.reusable &= self.input.is_empty();
                    sent.reusable &= self.offered.limits.mails.is_none_or(|most| self.mails < most);
                    self.idle = sent.reusable;
                    self.chunks = transaction.chunks();
                    self.deadline = None;
                    return sent;
                }
            };
            match outcome {
                Ok(()) => {}
                // Without a sign of life the connection had ended before the transaction.
                Err(FailureKind::Timeout) if self.in_doubt => transaction.failed(stage, FailureKind::Closed),
                Err(kind) => transaction.failed(stage, kind),
            }
        }
    }

    /// Completes when the server closes the idle connection or speaks unasked (421): it must not be used again.
    /// May be dropped and called again. If the next transaction meets silence, it fails as on a closed connection, and soon.
    pub async fn closed(&mut self) {
        self.in_doubt = true;
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
                self.write([b"QUIT\r\n", b"", b""], patience).await?;
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
        match self.write([commands, b"", b""], self.patience(stage)).await {
            // The server may have said why before it closed: reading the replies will tell.
            Err(FailureKind::Closed) => Ok(()),
            outcome => outcome,
        }
    }

    /// Writes all of it. The end of data goes out behind the last piece, and only when that is known to be the last.
    async fn write_content(&mut self, feed: &mut Feed<impl Source>) -> Result<(), FailureKind> {
        self.untimely().await?;
        while let Some(block) = next(feed, usize::MAX).await? {
            self.write_block(&block).await?;
        }
        Ok(())
    }

    async fn write_block(&mut self, block: &Block) -> Result<(), FailureKind> {
        match self.write([&block.octets, block.ending, b""], self.timeouts.data_block).await {
            Ok(()) => self.untimely().await,
            Err(FailureKind::Closed) => Err(self.refusal().await.unwrap_or(FailureKind::Closed)),
            Err(kind) => Err(kind),
        }
    }

    async fn write_chunk(
        &mut self,
        transaction: &mut Transaction<'_>,
        feed: &mut Feed<impl Source>,
        most: usize,
    ) -> Result<(), FailureKind> {
        let Some(block) = next(feed, most).await? else {
            // The last one says that it is.
            return Err(FailureKind::Unreadable);
        };
        let alone = !transaction.awaits_replies();
        if alone {
            self.unsolicited()?;
        }
        let command = transaction.chunk(block.len(), block.last);
        match self.write([&command, &block.octets, block.ending], self.timeouts.data_block).await {
            // As in `write_commands`.
            Err(FailureKind::Closed) => {
                transaction.broken_off();
                Ok(())
            }
            Ok(()) if alone => self.untimely().await,
            outcome => outcome,
        }
    }

    /// Fails if there is a reply to content that the server doesn't have: it refuses, or it is out of step. What it says
    /// can't be an acceptance.
    async fn untimely(&mut self) -> Result<(), FailureKind> {
        if self.input.is_empty() {
            return Ok(());
        }
        Err(self.refusal().await.unwrap_or(UNEXPECTED))
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
            stage => self.patience(stage).min(self.left()),
        };
        let reply = timeout(patience, self.read_reply()).await.unwrap_or(Err(FailureKind::Timeout))?;
        self.in_doubt = false;
        Ok(reply)
    }

    fn patience(&self, stage: Stage) -> Duration {
        let configured = self.timeouts.of(stage);
        if self.in_doubt { configured.min(SIGN_OF_LIFE) } else { configured }
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

    /// Writes the parts one after the other, waiting at most `patience` for the server to take more of them.
    async fn write(&mut self, parts: [&[u8]; 3], patience: Duration) -> Result<(), FailureKind> {
        let mut left = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut slices = parts.map(IoSlice::new);
        let mut slices = slices.as_mut_slice();
        while left > 0 {
            let patience = patience.min(self.left());
            // What comes before the last octets are written can't be a reply to them.
            self.look().await?;
            let progress = poll_fn(|cx| {
                self.poll_while_reading(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
            });
            let written = timeout(patience, progress).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
            if written == 0 {
                return Err(FailureKind::Closed);
            }
            IoSlice::advance_slices(&mut slices, written);
            left -= written;
        }
        let flushed = poll_fn(|cx| self.poll_while_reading(cx, AsyncWrite::poll_flush));
        timeout(patience, flushed).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    /// Reads what has come by now.
    async fn look(&mut self) -> io::Result<()> {
        let come = |cx: &mut Context<'_>| match self.poll_while_reading(cx, |_, _| Poll::Pending) {
            Poll::Pending => Poll::Ready(Ok(())),
            failed @ Poll::Ready(_) => failed,
        };
        poll_fn(come).await
    }

    /// Reads as long as `write` waits: a server that waits for us to read its replies doesn't read what we write.
    fn poll_while_reading<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
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

async fn next(feed: &mut Feed<impl Source>, most: usize) -> Result<Option<Block>, FailureKind> {
    feed.next(most).await.map_err(|_| FailureKind::Unreadable)
}
