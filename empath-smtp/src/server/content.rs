use bytes::{Buf, BytesMut};
use empath_common::{Envelope, Reply};

use super::{
    BareNewlines, Limits,
    chunk::{Chunk, Chunks},
    framing::{Framed, Framing},
    inspection::{Fault, Inspection},
    reply,
    submission::Mending,
};

/// The content of a transaction: what comes between 354 and its end, or in chunks.
#[derive(Debug)]
pub(super) struct Content {
    /// Whose content it is.
    pub(super) envelope: Envelope,
    reader: Reader,
    inspection: Inspection,
    refusal: Option<Reply>,
    begun: bool,
    /// While the header of a user's message goes by.
    mending: Option<Mending>,
    mended: Vec<u8>,
    ended: bool,
}

/// What tells content from what follows it.
#[derive(Debug)]
enum Reader {
    Data(Framing),
    Bdat(Chunks),
}

/// What the next octets are.
#[derive(Debug)]
pub(super) enum Piece {
    /// This many octets at the start of the input are content.
    Octets(usize),
    /// A CRLF of the content that does not stand in the input.
    Crlf,
    /// The next octets of content are [`Content::mended`].
    Mended,
    /// The message is refused from here on; what was handed out can be forgotten.
    Refused,
    /// More input is needed.
    More,
    /// A chunk has ended that others follow.
    EndOfChunk,
    /// The content has ended.
    End,
}

impl Reader {
    fn next(&mut self, input: &[u8]) -> Framed {
        match self {
            Self::Data(framing) => framing.next(input),
            Self::Bdat(chunks) => chunks.next(input),
        }
    }
}

impl Content {
    /// What follows DATA, or comes in chunks. `mending` is for the messages of users.
    pub(super) fn new(envelope: Envelope, first: Option<Chunk>, mending: Option<Mending>) -> Self {
        let data = || Reader::Data(Framing::default());
        Self {
            envelope,
            reader: first.map_or_else(data, |first| Reader::Bdat(Chunks::new(first))),
            inspection: Inspection::default(),
            refusal: None,
            begun: false,
            mending,
            mended: Vec::new(),
            ended: false,
        }
    }

    /// The next chunk.
    pub(super) fn begin_chunk(&mut self, chunk: Chunk) {
        if let Reader::Bdat(chunks) = &mut self.reader {
            chunks.begin(chunk);
        }
    }

    /// Goes on in `input`, consuming all that is not handed out.
    pub(super) fn next(&mut self, input: &mut BytesMut, limits: &Limits, newlines: BareNewlines) -> Piece {
        if self.mending.is_none() {
            self.mended = Vec::new();
        }
        self.mended.clear();
        loop {
            if self.ended {
                return Piece::End;
            }
            let piece = self.piece(input, limits, newlines);
            let Some(mending) = self.mending.as_mut().filter(|_| self.refusal.is_none()) else {
                return piece;
            };
            let over = match piece {
                Piece::Octets(len) => {
                    let over = mending.take(input.get(..len).unwrap_or_default(), &mut self.mended);
                    input.advance(len);
                    over
                }
                Piece::Crlf => mending.take(b"\r\n", &mut self.mended),
                Piece::End => {
                    self.ended = true;
                    mending.finish(&mut self.mended).map(|()| true)
                }
                other => return other,
            };
            match over {
                Ok(over) => self.mending = self.mending.take().filter(|_| !over),
                Err(reply) => {
                    self.refusal = Some(reply);
                    return Piece::Refused;
                }
            }
            if !self.mended.is_empty() {
                return Piece::Mended;
            }
        }
    }

    /// What [`Piece::Mended`] hands out.
    pub(super) fn mended(&self) -> &[u8] {
        &self.mended
    }

    /// The next piece as the client sent it.
    ///
    /// DEVIATION RFC 6531 §3.1: UTF-8 in a header is taken without SMTPUTF8 as well; much software just sends it, and it goes on
    /// as 8-bit content does.
    ///
    /// After a refusal the rest is read to its end all the same: stopping earlier would hand content to the
    /// command parser.
    fn piece(&mut self, input: &mut BytesMut, limits: &Limits, newlines: BareNewlines) -> Piece {
        loop {
            self.begun |= !input.is_empty();
            let (taken, fault) = match self.reader.next(input) {
                Framed::Content(len) if self.refusal.is_none() => {
                    match self.inspection.take(input.get(..len).unwrap_or_default(), limits) {
                        Ok(()) => return Piece::Octets(len),
                        Err(fault) => {
                            let reason = self.first_reason(input, fault);
                            (len, Some(reason))
                        }
                    }
                }
                Framed::Crlf(len) if self.refusal.is_none() => {
                    input.advance(len);
                    return self.crlf(limits);
                }
                Framed::BareNewline(len) if self.refusal.is_none() && newlines == BareNewlines::Normalize => {
                    input.advance(len);
                    return self.crlf(limits);
                }
                Framed::BareNewline(len) => (len, Some(reply::BARE_NEWLINE)),
                Framed::Nul(len) => (len, Some(reply::NUL)),
                Framed::Content(len) | Framed::Crlf(len) | Framed::Skip(len) => (len, None),
                Framed::End(len) => {
                    input.advance(len);
                    return Piece::End;
                }
                Framed::EndOfChunk => return Piece::EndOfChunk,
                Framed::More => return Piece::More,
            };
            input.advance(taken);
            if let Some(fault) = fault
                && self.refusal.is_none()
            {
                self.refusal = Some(fault);
                return Piece::Refused;
            }
        }
    }

    fn crlf(&mut self, limits: &Limits) -> Piece {
        match self.inspection.take(b"\r\n", limits) {
            Ok(()) => Piece::Crlf,
            Err(Fault { reply, .. }) => {
                self.refusal = Some(reply);
                Piece::Refused
            }
        }
    }

    /// Why to refuse the message: what stands in front of the octet that passes a limit may be a reason already.
    fn first_reason(&mut self, input: &[u8], fault: Fault) -> Reply {
        let before = input.get(..fault.at).unwrap_or_default();
        let earlier = self.mending.as_mut().and_then(|mending| mending.take(before, &mut self.mended).err());
        earlier.unwrap_or(fault.reply)
    }

    /// Refuses the message, unless it is refused already.
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refusal.get_or_insert(reply);
    }

    /// Whether any octet has come.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Octets of content so far.
    pub(super) fn size(&self) -> u64 {
        self.inspection.size()
    }

    /// Octets that may be expected: those that are announced, or as many again as have come.
    pub(super) fn expected(&self) -> u64 {
        match &self.reader {
            Reader::Data(_) => self.size(),
            Reader::Bdat(chunks) => self.size().max(chunks.left()),
        }
    }

    /// Octets of the chunk that goes on or has ended.
    pub(super) fn chunk_size(&self) -> u64 {
        match &self.reader {
            Reader::Data(_) => 0,
            Reader::Bdat(chunks) => chunks.size(),
        }
    }

    /// How to refuse the message if it is to be refused.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        self.refusal.as_ref()
    }

    /// Whose content it was, and how to refuse it if it is to be refused.
    pub(super) fn finish(self) -> (Envelope, Option<Reply>) {
        (self.envelope, self.refusal)
    }
}
