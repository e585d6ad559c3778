//! What a failure means: bounce, defer, or try the next host.

use std::net::IpAddr;

use empath_common::{EnhancedStatus, Escaped, Reply};
use empath_smtp::client::{self, FailureKind, Feature, Stage};

use crate::{config::SecretError, maildir::MaildirError, resolve::ResolveError, source::Origin};

/// Why a recipient did not get the message in one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the failure is about.
    pub scope: Scope,
    /// Whether it can pass.
    pub class: Class,
    /// The status of RFC 3463; its class is that of the failure.
    pub status: EnhancedStatus,
    /// What the host said, if it said something.
    pub reply: Option<Reply>,
    /// One line for people, untrusted octets escaped.
    pub detail: String,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This recipient; the others of the transaction are not affected.
    Recipient,
    /// This message, whoever the recipient.
    Message,
    /// This host; another one may take the message.
    Host,
    /// The next hop as a whole: there is no host to try.
    Destination,
}

/// Whether a failure can pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It will be the same next time.
    Permanent,
    /// Another attempt may succeed.
    Transient,
}

/// What to do with a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Go on with the next host in this attempt.
    TryNextHost,
    /// It has failed for good: tell the sender.
    Bounce,
    /// Keep it for another attempt.
    Defer,
}

/// On what footing we are with a host. What it has against that is not about the mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Footing {
    /// It is the configuration that names it.
    pub(crate) configured: bool,
    /// In clear text, though it offers STARTTLS: that has failed, now or lately.
    pub(crate) bare: bool,
}

impl Footing {
    /// Whether a host refuses what it would hear inside TLS: it says 530 (RFC 3207 §4), or 5.7.10, or names TLS
    /// where its status is one of security. Else such a status says that the mail is unwanted.
    pub(crate) fn wants_tls(self, failure: &client::Failure) -> bool {
        let FailureKind::Refused(reply) = &failure.kind else { return false };
        let names_tls = || reply.text.to_ascii_lowercase().contains("tls");
        let security = |status: EnhancedStatus| status.subject == 7 && (status.detail == 10 || names_tls());
        self.bare
            && reply.code.is_permanent()
            && (reply.code.get() == 530 || reply.enhanced.is_some_and(security))
    }

    /// Whether a configured host refuses us, and not the message: it wants AUTH (RFC 4954 §6), or hears nothing from us.
    pub(crate) fn refuses_us(self, failure: &client::Failure) -> bool {
        let FailureKind::Refused(reply) = &failure.kind else { return false };
        let unheard = matches!(failure.stage, Stage::Greeting | Stage::Ehlo);
        self.configured && reply.code.is_permanent() && (unheard || reply.code.get() == 530)
    }
}

/// What to do with a recipient after `failure`.
pub fn disposition(failure: &Failure, more_hosts: bool) -> Disposition {
    match (failure.scope, failure.class) {
        (Scope::Host, _) | (_, Class::Transient) if more_hosts => Disposition::TryNextHost,
        (_, Class::Permanent) => Disposition::Bounce,
        (_, Class::Transient) => Disposition::Defer,
    }
}

impl Failure {
    /// What a failure means at a host with which we are on this footing.
    pub(crate) fn at(footing: Footing, failure: client::Failure) -> Self {
        let (wants_tls, refuses_us) = (footing.wants_tls(&failure), footing.refuses_us(&failure));
        let failure = Self::from(failure);
        if wants_tls {
            // Whoever makes one STARTTLS fail on the way must not make mail bounce.
            let detail = format!("{} (said in clear text, since TLS had failed)", failure.detail);
            return Self::new(Scope::Host, (4, 7, 4), detail);
        }
        if refuses_us {
            // Mail doesn't bounce for our own mistakes, nor because we are blocked.
            return Self::new(Scope::Host, (4, 7, 0), failure.detail);
        }
        failure
    }

    /// A failure without a reply; the class follows from the status. The detail is escaped.
    pub fn new(scope: Scope, status: (u8, u16, u16), detail: impl AsRef<str>) -> Self {
        Self {
            scope,
            class: if status.0 == 5 { Class::Permanent } else { Class::Transient },
            status: EnhancedStatus::new(status.0, status.1, status.2),
            reply: None,
            detail: Escaped(detail.as_ref().as_bytes()).to_string(),
        }
    }

    /// Whether this remains of the failures of two hosts, `later` being of the one that was tried later.
    ///
    /// A host that turns us away for good must not bounce what another host may take another time, and that a host is dead
    /// says less than what another one has said, of the mail or of itself.
    pub fn outweighs(&self, later: &Self) -> bool {
        let answered = !self.is_no_answer() && later.is_no_answer();
        let says_more = later.class == Class::Permanent || self.scope != Scope::Host || answered;
        self.class == Class::Transient && later.scope == Scope::Host && says_more
    }

    /// Whether the network or the host itself failed (RFC 3463 §3.5), and it said nothing.
    pub(crate) fn is_no_answer(&self) -> bool {
        let transient = self.scope == Scope::Host && self.class == Class::Transient;
        transient && self.reply.is_none() && self.status.subject == 4
    }

    /// Whether the host does not know us by the credentials that we have for it, and will not the next time.
    pub(crate) fn is_denied(&self) -> bool {
        // RFC 4954 §6, made transient. A host that says so before AUTH means something else.
        self.reply.is_none() && self.status == EnhancedStatus::new(4, 7, 8)
    }

    /// Whether the host has no time for us at present (421).
    pub(crate) fn is_busy(&self) -> bool {
        match &self.reply {
            Some(reply) => reply.code.get() == 421,
            // To AUTH.
            None => self.status == EnhancedStatus::new(4, 3, 2),
        }
    }

    /// Every MX host is this host, or comes after it (RFC 5321 §5.1).
    pub fn loops_back() -> Self {
        Self::new(Scope::Destination, (5, 4, 6), "mail for this destination loops back to this host")
    }

    /// The configuration names this host as the next hop: mail doesn't bounce for our own mistakes.
    pub fn configured_loop() -> Self {
        Self::new(Scope::Destination, (4, 3, 5), "the configured next hop is this host itself")
    }

    /// There is no password or token for a host that wants one: mail doesn't bounce for our own mistakes.
    pub fn without_secret(error: &SecretError) -> Self {
        Self::new(Scope::Destination, (4, 3, 5), error.to_string())
    }

    /// The source of a message has no address of the family of any host's.
    pub fn out_of_reach(source: &Origin) -> Self {
        Self::new(
            Scope::Destination,
            (4, 3, 5),
            format!("no host can be reached from the source {source}: it has no address of their family"),
        )
    }

    /// The machine lacks the address that a message is to leave from: no host can help.
    pub fn absent_source(source: IpAddr) -> Self {
        Self::new(
            Scope::Destination,
            (4, 3, 5),
            format!("no connection can come from {source}: is it an address of this machine?"),
        )
    }

    /// One MX host could not be resolved to addresses; the others may.
    pub fn of_host(error: &ResolveError) -> Self {
        match error {
            ResolveError::NoSuchDomain(_) => Self::new(Scope::Host, (5, 4, 4), error.to_string()),
            _ => Self { scope: Scope::Host, ..error.into() },
        }
    }

    /// A host that the configuration names could not be resolved: mail doesn't bounce for our own mistakes.
    pub fn of_configured_host(error: &ResolveError) -> Self {
        match error {
            error if error.is_permanent() => Self::new(Scope::Destination, (4, 3, 5), error.to_string()),
            _ => error.into(),
        }
    }

    /// A local storage failed.
    pub fn local(detail: impl AsRef<str>) -> Self {
        Self::new(Scope::Destination, (4, 3, 0), detail)
    }

    /// Our own content is not what was accepted, and never will be again (RFC 3463 §3.4, other mail system status).
    pub fn lost() -> Self {
        Self::new(Scope::Destination, (5, 3, 0), "the message was damaged in the spool of this host")
    }

    /// Our own content could not be read: whoever was to get it has nothing to do with it.
    pub fn unreadable() -> Self {
        Self::local("the content cannot be read back from the spool")
    }
}

impl From<client::Failure> for Failure {
    fn from(failure: client::Failure) -> Self {
        let detail = failure.to_string();
        let client::Failure { stage, kind } = failure;
        let connecting = stage == Stage::Connect;
        match kind {
            // RFC 3463 §3.8. Only under a policy that requires TLS does it come to this, and never for good: the host may be
            // mended, and an attacker must not make mail bounce.
            FailureKind::Unsupported(Feature::StartTls) => Self::new(Scope::Host, (4, 7, 4), detail),
            // What the host says there is not about the message: it stands in the detail alone.
            FailureKind::Refused(reply) if stage == Stage::StartTls && reply.code.get() != 421 => {
                Self::new(Scope::Host, (4, 7, 4), detail)
            }
            // It has taken EHLO in clear text: it is TLS that it does not want from us.
            FailureKind::Refused(reply) if stage == Stage::EhloAgain && reply.code.is_permanent() => {
                Self::new(Scope::Host, (4, 7, 4), detail)
            }
            // What the configuration names speaks no LMTP: mail doesn't bounce for our own mistakes.
            FailureKind::Refused(reply) if stage == Stage::Lhlo && reply.code.get() != 421 => {
                Self::new(Scope::Host, (4, 3, 5), detail)
            }
            FailureKind::Tls(_) => Self::new(Scope::Host, (4, 7, 5), detail),
            _ if stage == Stage::Handshake => Self::new(Scope::Host, (4, 7, 5), detail),
            // RFC 4954 §6. The password may be mended: nothing bounces for it. Nor is this about the message: what the host
            // says stands in the detail alone.
            FailureKind::Refused(reply) if stage == Stage::Auth && reply.code.is_permanent() => {
                Self::new(Scope::Host, (4, 7, 8), detail)
            }
            FailureKind::Refused(reply) if stage == Stage::Auth => {
                let busy = reply.code.get() == 421;
                Self::new(Scope::Host, if busy { (4, 3, 2) } else { (4, 7, 0) }, detail)
            }
            FailureKind::TokenRefused { .. } | FailureKind::Impostor => {
                Self::new(Scope::Host, (4, 7, 8), detail)
            }
            FailureKind::Unsupported(Feature::Password(_) | Feature::Token(_)) => {
                Self::new(Scope::Host, (4, 7, 4), detail)
            }
            FailureKind::Refused(reply) => refused(stage, reply, detail),
            // 4.4.1: no answer from the host. 4.4.2: a connection that failed.
            FailureKind::Timeout | FailureKind::Closed | FailureKind::Io(_) => {
                Self::new(Scope::Host, (4, 4, if connecting { 1 } else { 2 }), detail)
            }
            FailureKind::Garbled(_) => Self::new(Scope::Host, (4, 5, 0), detail),
            // Another MX host may have the feature.
            FailureKind::Unsupported(Feature::EightBitMime) => Self::new(Scope::Host, (5, 6, 3), detail),
            FailureKind::Unsupported(Feature::Smtputf8) => Self::new(Scope::Host, (5, 6, 7), detail),
            FailureKind::Unsupported(Feature::Size) => Self::new(Scope::Host, (5, 3, 4), detail),
            FailureKind::Unreadable => Self::unreadable(),
        }
    }
}

fn refused(stage: Stage, reply: Reply, detail: String) -> Failure {
    // RFC 5321 §4.5.3.1.10: 552 to RCPT is 452, too many recipients, from older servers.
    let too_many = stage == Stage::RcptTo && reply.code.get() == 552;
    let class = if reply.code.is_permanent() && !too_many { Class::Permanent } else { Class::Transient };
    let scope = match stage {
        _ if reply.code.get() == 421 => Scope::Host,
        Stage::Connect
        | Stage::Greeting
        | Stage::Ehlo
        | Stage::EhloAgain
        | Stage::Lhlo
        | Stage::Auth
        | Stage::StartTls
        | Stage::Handshake => Scope::Host,
        Stage::RcptTo => Scope::Recipient,
        Stage::MailFrom | Stage::Data | Stage::Content | Stage::EndOfData | Stage::Rset => Scope::Message,
    };
    let digit = if class == Class::Permanent { 5 } else { 4 };
    // The code decides, whatever the enhanced status says (RFC 5321 §4.2).
    let status = match reply.enhanced {
        Some(enhanced) => EnhancedStatus { class: digit, ..enhanced },
        None => EnhancedStatus::new(digit, 0, 0),
    };
    Failure { scope, class, status, reply: Some(reply), detail }
}

/// A domain that could not be resolved to hosts.
impl From<&ResolveError> for Failure {
    fn from(error: &ResolveError) -> Self {
        let status = match error {
            // RFC 7505 §4.
            ResolveError::NullMx(_) => (5, 1, 10),
            ResolveError::NoSuchDomain(_) => (5, 1, 2),
            ResolveError::NoAddress(_) => (5, 4, 4),
            ResolveError::Unusable(_) | ResolveError::NoHost(_) => (4, 4, 4),
            ResolveError::ServerFailure(_) | ResolveError::Refused(_) | ResolveError::Timeout(_) => (4, 4, 3),
            // Congestion, on our side.
            ResolveError::Busy(_) => (4, 4, 5),
        };
        Self::new(Scope::Destination, status, error.to_string())
    }
}

impl From<&MaildirError> for Failure {
    fn from(error: &MaildirError) -> Self {
        let status = match error {
            MaildirError::Unreadable => return Self::unreadable(),
            MaildirError::Stopped => return Self::local(error.to_string()),
            MaildirError::NameTooLong { .. } => (5, 1, 3),
            MaildirError::Full { .. } => (4, 3, 1),
            MaildirError::Io { .. } => (4, 3, 0),
        };
        Self::new(Scope::Recipient, status, error.to_string())
    }
}

#[cfg(test)]
mod tests;
