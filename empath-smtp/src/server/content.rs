use bytes::{Buf, BytesMut};
use empath_common::{Envelope, Reply};

use super::{
    BareNewlines, Limits,
    framing::{Framed, Framing},
    inspection::Inspection,
    reply,
};

/// The state between 354 and the end of the content.
#[derive(Debug)]
pub(super) struct Content {
    /// Whose content it is.
    pub(super) envelope: Envelope,
    framing: Framing,
    inspection: Inspection,
    refusal: Option<Reply>,
    begun: bool,
}

/// What the next octets are.
#[derive(Debug)]
pub(super) enum Piece {
    /// This many octets at the start of the input are content.
    Octets(usize),
    /// A CRLF of the content that does not stand in the input.
    Crlf,
    /// The message is refused from here on; what was handed out can be forgotten.
    Refused,
    /// More input is needed.
    More,
    /// The content has ended.
    End,
}

impl Content {
    pub(super) fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            framing: Framing::default(),
            inspection: Inspection::default(),
            refusal: None,
            begun: false,
        }
    }

    /// Goes on in `input`, consuming all that is not handed out.
    ///
    /// After a refusal the rest is read to its end all the same: stopping earlier would hand content to the
    /// command parser.
    pub(super) fn next(&mut self, input: &mut BytesMut, limits: &Limits, newlines: BareNewlines) -> Piece {
        loop {
            self.begun |= !input.is_empty();
            let (taken, fault) = match self.framing.next(input) {
                Framed::Content(len) if self.refusal.is_none() => {
                    match self.inspection.take(input.get(..len).unwrap_or_default(), limits) {
                        Ok(()) => return Piece::Octets(len),
                        Err(fault) => (len, Some(fault)),
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
            Err(fault) => {
                self.refusal = Some(fault);
                Piece::Refused
            }
        }
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

    /// Whose content it was, and how to refuse it if it is to be refused.
    pub(super) fn finish(self) -> (Envelope, Option<Reply>) {
        (self.envelope, self.refusal)
    }
}
