use std::{fmt, mem};

use bytes::Buf as _;
use empath_common::{MessageId, Reply};
use jiff::Timestamp;

use super::{
    super::{
        IntakeError,
        chunk::Chunk,
        content::{Content, Piece},
        log, reply,
        trace::{self, Protocol},
        transaction::State,
    },
    DriverHas, Next, Session, Waiting,
};

/// Most octets of a refused chunk that are waited for. Whoever announces more is cut off.
const MAX_REFUSED: u64 = 1 << 30;

impl Session {
    /// The `Received` field of the message that [`Step::Begin`](super::Step::Begin) starts.
    pub fn received(&mut self, id: MessageId, now: Timestamp) -> String {
        let State::Rcpt(envelope) = &self.state else {
            return String::new();
        };
        self.starting = Some((id, now));
        trace::received(&self.client, self.protocol, &self.settings.hostname, envelope, id, now)
    }

    /// Whether the message that [`Step::Begin`](super::Step::Begin) asked for was started.
    pub fn begun(&mut self, begun: Result<(), IntakeError>) {
        let Waiting::Begin(chunk) = mem::take(&mut self.waiting) else {
            return;
        };
        match (mem::take(&mut self.state), begun) {
            (State::Rcpt(envelope), Ok(())) => {
                self.driver_has = DriverHas::Content;
                let mending = self.mending(&envelope.reverse_path);
                self.state = State::Content(Box::new(Content::new(envelope, chunk, mending)));
                if chunk.is_none() {
                    self.reply(&reply::SEND_CONTENT);
                }
            }
            (State::Rcpt(envelope), Err(error)) => {
                self.state = State::Ready;
                self.refuse_content("DATA", &envelope.reverse_path, error.into(), chunk);
            }
            (other, _) => self.state = other,
        }
    }

    /// The octets of [`Step::Content`](super::Step::Content) were not taken; the rest of the content is consumed all the same.
    pub fn refused_content(&mut self, error: IntakeError) {
        if let State::Content(content) = &mut self.state {
            content.refuse(error.into());
        }
    }

    /// Whether the message of [`Step::Commit`](super::Step::Commit) is durable.
    pub fn committed(&mut self, committed: Result<MessageId, IntakeError>) {
        let Waiting::Commit(size) = mem::take(&mut self.waiting) else {
            return;
        };
        match committed {
            Ok(id) => {
                self.messages += 1;
                self.errors = 0;
                self.idle_commands = 0;
                self.settings.metrics.messages.increment();
                #[expect(clippy::cast_precision_loss, reason = "a size for a histogram")]
                self.settings.metrics.message_size.observe(size as f64);
                self.reply(&reply::queued(id));
            }
            Err(error) => self.refuse("end of data", &"", &error.into()),
        }
    }

    /// The next piece of content.
    pub(super) fn content(&mut self) -> Option<Next> {
        let State::Content(content) = &mut self.state else {
            return None;
        };
        Some(match content.next(&mut self.input, &self.settings.limits, self.settings.bare_newlines) {
            Piece::Octets(len) => Next::Content(len),
            Piece::Crlf => Next::Crlf,
            Piece::Mended => Next::Mended,
            Piece::Refused => Next::Discard,
            Piece::More => Next::Read,
            Piece::EndOfChunk => {
                self.end_of_chunk();
                return None;
            }
            Piece::End => return self.end_of_content(),
        })
    }

    fn end_of_content(&mut self) -> Option<Next> {
        let State::Content(content) = mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let size = content.size();
        match content.finish() {
            (envelope, None) => {
                self.waiting = Waiting::Commit(size);
                Some(Next::Commit(envelope))
            }
            (envelope, Some(reply)) => {
                self.refuse("end of data", &envelope.reverse_path, &reply);
                None
            }
        }
    }

    /// BDAT (RFC 3030 §2). The first one stands where DATA would; between chunks no other command goes on with the
    /// transaction.
    pub(super) fn bdat(&mut self, chunk: Chunk) -> Result<(), Reply> {
        // It belongs to an extension, and those to EHLO (RFC 5321 §2.2.1).
        if self.protocol == Protocol::Smtp {
            return Err(reply::BAD_SEQUENCE);
        }
        // It brings no message nearer.
        if chunk == (Chunk { size: 0, last: false }) && self.too_many_commands() {
            return Ok(());
        }
        let room = match &self.state {
            State::Rcpt(_) => self.settings.limits.message_size.0,
            State::Chunks(content) => self.settings.limits.message_size.0.saturating_sub(content.size()),
            _ => return Err(reply::BAD_SEQUENCE),
        };
        if chunk.size > room {
            return Err(reply::TOO_LARGE);
        }
        match mem::take(&mut self.state) {
            State::Chunks(mut content) => {
                content.begin_chunk(chunk);
                self.state = State::Content(content);
            }
            other => {
                self.state = other;
                self.waiting = Waiting::Data(Some(chunk));
            }
        }
        Ok(())
    }

    /// A chunk that others follow has ended.
    fn end_of_chunk(&mut self) {
        let State::Content(content) = mem::replace(&mut self.state, State::Ready) else {
            return;
        };
        if let Some(reply) = content.refusal() {
            self.refuse("BDAT", &content.envelope.reverse_path, reply);
        } else {
            self.reply(&reply::chunk(content.chunk_size()));
            self.state = State::Chunks(content);
        }
    }

    /// Policy or the storage says no to DATA, or to the first chunk.
    pub(super) fn refuse_content(
        &mut self,
        what: &'static str,
        subject: &dyn fmt::Display,
        reply: Reply,
        chunk: Option<Chunk>,
    ) {
        match chunk {
            None => self.refuse(what, subject, &reply),
            Some(chunk) => {
                log::refused(&self.client, "BDAT", subject, &reply);
                self.refuse_chunk(chunk, reply);
            }
        }
    }

    /// A chunk is refused, once its octets have gone by.
    pub(super) fn refuse_chunk(&mut self, chunk: Chunk, reply: Reply) {
        if chunk.size > MAX_REFUSED {
            return self.close_with(&reply);
        }
        self.state.refuse_chunk(chunk.size, reply);
    }

    /// Lets the octets of a refused chunk go by.
    pub(super) fn refused_chunk(&mut self) -> Option<Next> {
        let State::Refused(refused) = &mut self.state else {
            return None;
        };
        let len = usize::try_from(refused.left).map_or(self.input.len(), |left| left.min(self.input.len()));
        self.input.advance(len);
        refused.left -= len as u64;
        if refused.left > 0 {
            return Some(Next::Read);
        }
        let after = if refused.greeted { State::Ready } else { State::Connected };
        if let State::Refused(refused) = mem::replace(&mut self.state, after) {
            self.reply(&refused.reply);
        }
        None
    }
}
