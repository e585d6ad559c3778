use std::{fmt, io};

use empath_common::Reply;

use super::{Mechanisms, TokenStatus};

/// Why a delivery to a server failed: where in the dialogue, and how.
///
/// Displays as one line for people: `RCPT TO: 550 5.1.1 no such user`, `greeting: timed out`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{stage}: {kind}")]
pub struct Failure {
    /// How far the dialogue had come.
    pub stage: Stage,
    /// What happened there.
    pub kind: FailureKind,
}

/// A step of the dialogue with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The TCP connection.
    Connect,
    /// The server speaks first (RFC 5321 §3.1).
    Greeting,
    /// EHLO, or HELO after EHLO was not understood.
    Ehlo,
    /// EHLO once more, inside TLS that was begun by STARTTLS (RFC 3207 §4.2).
    EhloAgain,
    /// LHLO, which LMTP has in place of EHLO (RFC 2033 §4.1).
    Lhlo,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// AUTH (RFC 4954).
    Auth,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA, until 354.
    Data,
    /// The content on its way.
    Content,
    /// The final dot or the last chunk is written, its reply is awaited. After a failure here the server may have the message.
    EndOfData,
    /// RSET after a message that was refused.
    Rset,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FailureKind {
    /// The server answered 4yz or 5yz, 421 included.
    #[error("{0}")]
    Refused(Reply),
    /// The server answered 5yz to a token, and has said why it does not take it.
    #[error("{reply} ({status})")]
    TokenRefused {
        /// Its answer.
        reply: Reply,
        /// Why.
        status: TokenStatus,
    },
    /// No answer in time.
    #[error("timed out")]
    Timeout,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// What the server said is not a reply, or not one to what was asked.
    #[error("garbled reply: {0}")]
    Garbled(GarbledReason),
    /// The network failed.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The two ends can't agree on TLS, or the server's certificate is not what was expected.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The server has not shown that it knows our password (RFC 5802 §3): somebody stands in its place.
    #[error("the server does not know the password")]
    Impostor,
    /// The server doesn't offer what is needed. Nothing was asked.
    #[error("the server {0}")]
    Unsupported(Feature),
    /// The content could not be read to its end. It has nothing to do with the server, which has not got the message.
    #[error("the content could not be read")]
    Unreadable,
}

/// What is wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GarbledReason {
    /// A line doesn't start with three digits and a space or hyphen.
    #[error("no reply code")]
    NoCode,
    /// A code outside 200 to 599.
    #[error("a code that is none")]
    Code,
    /// Lines of one reply with different codes (RFC 5321 §4.2.1).
    #[error("different codes in one reply")]
    MixedCodes,
    /// A line of more than [`MAX_LINE`](super::MAX_LINE) octets.
    #[error("an endless line")]
    LineTooLong,
    /// More than [`MAX_LINES`](super::MAX_LINES) lines, or [`MAX_REPLY`](super::MAX_REPLY) octets.
    #[error("an endless reply")]
    TooLong,
    /// More than the reply to STARTTLS, in clear text. Whoever wrote it, it must not count inside TLS.
    #[error("something behind the reply")]
    BehindStartTls,
    /// What is asked in the course of AUTH is nothing that the mechanism asks.
    #[error("a challenge that is none")]
    Challenge,
    /// A code that can't be the answer here: 3yz to RCPT, 2yz to DATA.
    #[error("a code that doesn't fit the command")]
    Unexpected,
}

/// What can be needed of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Feature {
    /// An address or the header has UTF-8 (RFC 6531).
    #[error("does not support SMTPUTF8")]
    Smtputf8,
    /// The content has octets above 127 (RFC 6152).
    #[error("does not support 8BITMIME")]
    EightBitMime,
    /// The content is larger than the server's SIZE (RFC 1870).
    #[error("does not take messages of this size")]
    Size,
    /// The connection has to be encrypted (RFC 3207).
    #[error("does not offer STARTTLS")]
    StartTls,
    /// We have to show who we are by a password (RFC 4954).
    #[error("does not take a password: it offers {0}")]
    Password(Mechanisms),
    /// We have to show who we are by a token (RFC 7628).
    #[error("does not take a token: it offers {0}")]
    Token(Mechanisms),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::EhloAgain => "EHLO inside TLS",
            Self::Lhlo => "LHLO",
            Self::StartTls => "STARTTLS",
            Self::Handshake => "TLS handshake",
            Self::Auth => "AUTH",
            Self::MailFrom => "MAIL FROM",
            Self::RcptTo => "RCPT TO",
            Self::Data => "DATA",
            Self::Content => "content",
            Self::EndOfData => "end of data",
            Self::Rset => "RSET",
        })
    }
}

impl Stage {
    pub(super) fn refused(self, reply: Reply) -> Failure {
        self.failed(FailureKind::Refused(reply))
    }

    pub(super) fn garbled(self, reason: GarbledReason) -> Failure {
        self.failed(FailureKind::Garbled(reason))
    }

    pub(super) fn failed(self, kind: FailureKind) -> Failure {
        Failure { stage: self, kind }
    }
}

impl From<rustls::Error> for FailureKind {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for FailureKind {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The server went away in the middle: to the sender it is all the same how.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Self::Closed,
            io::ErrorKind::TimedOut => Self::Timeout,
            kind => Self::Io(kind),
        }
    }
}
