use std::{borrow::Cow, fmt};

use empath_common::{EnhancedStatus, Envelope, ForwardPath, OriginalRecipient, Reply, Ret};
use jiff::Timestamp;

use super::{Local, addressee::is_report};
use crate::config::HostAddr;

/// What the sender is told of.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Who failed.
    pub failed: Vec<Failed>,
    /// Who is still tried.
    pub delayed: Vec<Delayed>,
    /// Who has the message, as far as we know.
    pub arrived: Vec<Success>,
}

impl News {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.delayed.is_empty() && self.arrived.is_empty()
    }

    /// Whether the message failed for what was in it, so that less of it may do.
    pub(crate) fn is_of_too_much(&self) -> bool {
        self.failed.iter().any(Failed::is_too_much)
    }

    /// Whether the sender wants all of the message back, which is for failures only (RFC 3461 §4.3). The postmaster
    /// sees what the sender did not get, but of the message in that the header alone.
    pub(crate) fn returns_all(&self, envelope: &Envelope) -> bool {
        !self.failed.is_empty() && (envelope.notification().ret == Some(Ret::Full) || is_report(envelope))
    }
}

/// A recipient that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Who.
    pub recipient: ForwardPath,
    /// Whom the sender meant (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
    /// Why, as a status.
    pub status: EnhancedStatus,
    /// The host that said so.
    pub host: Option<HostAddr>,
    /// What it said.
    pub reply: Option<Reply>,
    /// What happened, for our own people.
    pub detail: String,
    /// What others are told instead, if that is our own affair.
    pub local: Option<Local>,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
    /// Whether it was given up because of its time in the queue.
    pub expired: bool,
}

impl Failed {
    /// Whether the host may take the message with less in it: it is too large, or not of 7-bit octets alone.
    fn is_too_much(&self) -> bool {
        let EnhancedStatus { class, subject, detail } = self.status;
        let code = self.reply.as_ref().map(|reply| reply.code.get());
        code == Some(552) || matches!((class, subject, detail), (5, 2, 3) | (5, 3, 4) | (5, 6, 1 | 3))
    }

    /// What happened, for outsiders.
    pub(super) fn told(&self) -> Cow<'_, str> {
        self.local.map_or(Cow::Borrowed(&*self.detail), |local| local.to_string().into())
    }
}

/// A recipient that takes long.
#[derive(Debug, Clone)]
pub struct Delayed {
    /// What the last attempt came to.
    pub last: Failed,
    /// When it is given up.
    pub retry_until: Timestamp,
}

/// A recipient who has the message.
#[derive(Debug, Clone)]
pub struct Success {
    /// Who.
    pub recipient: ForwardPath,
    /// Whom the sender meant (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
    /// How far we know that.
    pub how: Arrived,
    /// The host that took the message.
    pub host: Option<HostAddr>,
    /// What was said to it.
    pub reply: Reply,
}

/// How a message arrived (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// In the recipient's mailbox.
    Delivered,
    /// At a host that may not tell the sender (RFC 3461 §5.2.2).
    Relayed,
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        })
    }
}
