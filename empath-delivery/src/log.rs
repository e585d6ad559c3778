//! One line for each event in a message's life. Text of peers is escaped before it comes here: replies by the client,
//! the rest by `Failure`.

use std::{error::Error, fmt, time::Duration};

use empath_common::{Domain, Envelope, Escaped, ForwardPath, MessageId, Reply, TlsSession};
use empath_smtp::client;
use empath_spool::CommitError;
use jiff::Timestamp;
use tracing::{
    error,
    field::{DisplayValue, display},
    info, warn,
};

use crate::{
    dsn::Failed,
    failure::Failure,
    open::Peer,
    queue::{BreakerState, Event},
    route::NextHop,
    source::Origin,
};

/// What every line about an attempt for a recipient says.
pub(crate) struct Line<'a> {
    pub(crate) id: MessageId,
    pub(crate) recipient: &'a ForwardPath,
    pub(crate) next_hop: &'a NextHop,
    pub(crate) peer: Option<&'a Peer>,
    /// The first is 1.
    pub(crate) attempt: u32,
    pub(crate) delays: Delays,
}

/// Where the time went: from reception to its being due, in the queue, connecting, in transfer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delays {
    pub(crate) received: Duration,
    pub(crate) queued: Duration,
    pub(crate) connect: Duration,
    pub(crate) transfer: Duration,
}

/// Seconds, as Postfix writes them.
impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, queued, connect, transfer } = self;
        let [received, queued, connect, transfer] =
            [received, queued, connect, transfer].map(Duration::as_secs_f64);
        write!(f, "{received:.3}/{queued:.3}/{connect:.3}/{transfer:.3}")
    }
}

fn host(peer: Option<&Peer>) -> &str {
    peer.map_or("none", |peer| &peer.shown)
}

fn tls(peer: Option<&Peer>) -> Option<&TlsSession> {
    peer.and_then(|peer| peer.tls.as_ref())
}

/// Where connections come from, if the configuration says so.
fn source(next_hop: &NextHop) -> Option<DisplayValue<&Origin>> {
    next_hop.terms()?.source.as_deref().map(display)
}

fn domain(recipient: &ForwardPath) -> Option<&str> {
    recipient.domain().map(Domain::as_str)
}

fn code(failure: &Failure) -> Option<u16> {
    failure.reply.as_ref().map(|reply| reply.code.get())
}

pub(crate) fn delivered(line: &Line<'_>, reply: &Reply) {
    info!(
        message_id = %line.id,
        recipient = line.recipient.as_str(),
        domain = domain(line.recipient),
        next_hop = %line.next_hop,
        host = host(line.peer),
        source = source(line.next_hop),
        tls = tls(line.peer).map(|tls| tls.version),
        cipher = tls(line.peer).map(|tls| tls.cipher),
        smtp_code = reply.code.get(),
        status = %reply.enhanced.unwrap_or(empath_common::EnhancedStatus::new(2, 0, 0)),
        reply = %reply,
        delivery_attempt = line.attempt,
        delays = %line.delays,
        "delivered"
    );
}

pub(crate) fn deferred(line: &Line<'_>, failure: &Failure, due: Timestamp) {
    info!(
        message_id = %line.id,
        recipient = line.recipient.as_str(),
        domain = domain(line.recipient),
        next_hop = %line.next_hop,
        host = host(line.peer),
        source = source(line.next_hop),
        tls = tls(line.peer).map(|tls| tls.version),
        cipher = tls(line.peer).map(|tls| tls.cipher),
        smtp_code = code(failure),
        status = %failure.status,
        reply = %failure.detail,
        delivery_attempt = line.attempt,
        delays = %line.delays,
        next_attempt_at = %due,
        "deferred"
    );
}

pub(crate) fn bounced(line: &Line<'_>, failure: &Failure, told: Told) {
    info!(
        message_id = %line.id,
        recipient = line.recipient.as_str(),
        domain = domain(line.recipient),
        next_hop = %line.next_hop,
        host = host(line.peer),
        source = source(line.next_hop),
        tls = tls(line.peer).map(|tls| tls.version),
        cipher = tls(line.peer).map(|tls| tls.cipher),
        smtp_code = code(failure),
        status = %failure.status,
        reply = %failure.detail,
        delivery_attempt = line.attempt,
        delays = %line.delays,
        dsn = %told,
        "bounced"
    );
}

/// `last` is what the last attempt came to.
pub(crate) fn expired(id: MessageId, recipient: &ForwardPath, attempts: u32, last: &str, told: Told) {
    info!(
        message_id = %id,
        recipient = recipient.as_str(),
        domain = domain(recipient),
        status = "4.4.7",
        reply = last,
        delivery_attempt = attempts,
        dsn = %told,
        "expired"
    );
}

/// The recipient has got the message as another one, or is about to.
pub(crate) fn duplicate(id: MessageId, recipient: &ForwardPath, other: MessageId) {
    info!(
        message_id = %id,
        recipient = recipient.as_str(),
        domain = domain(recipient),
        duplicate_of = %other,
        "duplicate"
    );
}

/// The sender was told that it takes long; `last` is what the last attempt came to.
pub(crate) fn delayed(id: MessageId, last: &Failed, retry_until: Timestamp, told: Told) {
    info!(
        message_id = %id,
        recipient = last.recipient.as_str(),
        domain = domain(&last.recipient),
        status = %last.status,
        reply = last.detail,
        retry_until = %retry_until,
        dsn = %told,
        "delayed"
    );
}

/// A report of ours reached neither the sender nor the postmaster.
pub(crate) fn report_dropped(id: MessageId) {
    warn!(message_id = %id, "a report could not be delivered, and there is nobody else to send it to: it is dropped");
}

/// Since recipients ended the configuration came to forbid that the sender is told.
pub(crate) fn untold(id: MessageId, recipients: usize) {
    warn!(
        message_id = %id,
        recipients,
        "nobody is told of recipients that have ended: the configuration of reports has changed since"
    );
}

/// `recipient` is not known when the spool has not given it back.
pub(crate) fn removed(id: MessageId, recipient: Option<&ForwardPath>, attempts: u32) {
    info!(
        message_id = %id,
        recipient = recipient.map(ForwardPath::as_str),
        domain = recipient.and_then(domain),
        delivery_attempt = attempts,
        "removed"
    );
}

/// By an operator: nothing starts for it from now on.
pub(crate) fn held(id: MessageId) {
    info!(message_id = %id, "held");
}

pub(crate) fn released(id: MessageId) {
    info!(message_id = %id, "released");
}

/// By an operator: nothing starts to the domain from now on.
pub(crate) fn frozen(domain: &Domain) {
    info!(%domain, "frozen");
}

pub(crate) fn thawed(domain: &Domain) {
    info!(%domain, "thawed");
}

pub(crate) fn not_frozen(path: &std::path::Path) {
    error!(path = %path.display(), "a line of the file of frozen domains is no domain; it is left out");
}

/// A DSN is a message of its own.
pub(crate) fn reported(id: MessageId, envelope: &Envelope, size: u64, about: MessageId) {
    let recipient = envelope.recipients().first();
    info!(
        message_id = %id,
        sender = envelope.reverse_path.as_str(),
        recipient = recipient.map_or("", ForwardPath::as_str),
        size,
        about = %about,
        "received"
    );
}

/// How the sender was told about the end of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    /// By this message.
    By(MessageId),
    /// Together with other recipients of the message.
    Later,
    /// Not at all: there is nobody to tell, or the configuration forbids it.
    Nobody,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(id) => id.fmt(f),
            Self::Later => f.write_str("later"),
            Self::Nobody => f.write_str("none"),
        }
    }
}

/// A host can't do the STARTTLS that it offers.
pub(crate) fn in_clear(host: &str, failure: &client::Failure) {
    let reason = failure.to_string();
    warn!(host, reason = %Escaped(reason.as_bytes()), "TLS failed; mail goes to the host in clear text for an hour");
}

/// A host refuses our credentials. This is said once for each that it refuses.
pub(crate) fn denied(host: &str, failure: &Failure) {
    warn!(host, status = %failure.status, reply = %failure.detail, "the host refuses our credentials; mend the password or renew the token");
}

/// Rate limits are counted and not logged: that mail waits is what they are for.
pub(crate) fn happened(event: &Event) {
    let Event::Breaker { next_hop, domain, state } = event else { return };
    match state {
        BreakerState::Open { until } => {
            warn!(%next_hop, domain, %until, "the circuit breaker of the destination has opened; its mail waits");
        }
        BreakerState::HalfOpen => {
            info!(%next_hop, domain, "the circuit breaker of the destination is half open; it is probed");
        }
        BreakerState::Closed => {
            info!(%next_hop, domain, "the circuit breaker of the destination is closed again");
        }
    }
}

pub(crate) fn not_stored(id: MessageId, failure: &CommitError) {
    error!(message_id = %id, error = %failure, "the spool did not take the outcome; the queue goes on in memory and repeats it");
}

pub(crate) fn not_read(id: MessageId, failure: &dyn Error) {
    error!(message_id = %id, error = %failure, "the spool did not give the message back");
}
