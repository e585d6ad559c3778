//! The message that tells the sender about recipients that failed (RFC 3464, RFC 6522).
//!
//! It is ASCII whatever it reports, so that every host takes it; only an address of the sender that needs UTF-8
//! makes it an SMTPUTF8 message.

mod fields;
mod part;

use std::{fmt::Write as _, net::IpAddr};

use bytes::Bytes;
use empath_common::{Body, Domain, EnhancedStatus, Envelope, ForwardPath, Mailbox, MessageId, Reply};
use jiff::{Timestamp, tz::TimeZone};

use crate::config::HostAddr;
use fields::{Folded, ascii, utf8_address};
use part::Part;

/// A report about one message.
#[derive(Debug)]
pub struct Report<'a> {
    /// The id of the report.
    pub id: MessageId,
    /// The message that it is about.
    pub about: MessageId,
    /// The envelope of that message.
    pub envelope: &'a Envelope,
    /// Its header, which is returned.
    pub header: &'a [u8],
    /// Who failed; one at least.
    pub failed: &'a [Failed],
    /// The name of this host.
    pub reporting_mta: &'a Domain,
    /// Whom the report is from.
    pub postmaster: Option<&'a Mailbox>,
    /// Now.
    pub now: Timestamp,
}

/// A recipient that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Who.
    pub recipient: ForwardPath,
    /// Why, as a status.
    pub status: EnhancedStatus,
    /// The host that said so.
    pub host: Option<HostAddr>,
    /// What it said.
    pub reply: Option<Reply>,
    /// What happened, for people.
    pub detail: String,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
    /// Whether it was given up because of its time in the queue.
    pub expired: bool,
}

/// The report as a message: its envelope, with the null reverse-path (RFC 5321 §4.5.5), and its content. `None` if
/// the sender is null too: nobody is told (RFC 5321 §6.1).
pub fn report(report: &Report<'_>) -> Option<(Envelope, Bytes)> {
    let sender = report.envelope.reverse_path.mailbox()?;
    let mut envelope = Envelope::new(empath_common::ReversePath::Null, ForwardPath::Mailbox(sender.clone()));
    envelope.received_at = report.now;
    envelope.smtputf8 = sender.needs_utf8();
    envelope.body = if envelope.smtputf8 { Body::EightBitMime } else { Body::SevenBit };
    Some((envelope, content(report, sender).into()))
}

fn content(report: &Report<'_>, sender: &Mailbox) -> Vec<u8> {
    let parts = [explanation(report), status(report), header(report)];
    let mut boundary = format!("=_{}", report.id);
    while parts.iter().any(|part| part.contains(&boundary)) {
        boundary.push('_');
    }
    let mut text = String::with_capacity(4096);
    let mta = report.reporting_mta;
    let _ = write!(text, "From: Mail Delivery System <");
    let _ = match report.postmaster {
        Some(postmaster) => write!(text, "{postmaster}"),
        None => write!(text, "MAILER-DAEMON@{mta}"),
    };
    let _ = write!(
        text,
        ">\r\nTo: <{sender}>\r\nSubject: Undelivered mail returned to sender\r\nDate: {}\r\n\
         Message-ID: <{}@{mta}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n\
         This is a MIME-encapsulated message.\r\n",
        date(report.now),
        report.id,
    );
    let mut octets = text.into_bytes();
    for part in &parts {
        part.write(&boundary, &mut octets);
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
}

/// For people.
fn explanation(report: &Report<'_>) -> Part {
    let mut text = format!(
        "This is the mail system at {}.\r\n\r\n\
         Your message could not be delivered to the recipients below.\r\n\
         It will not be tried again.\r\n",
        report.reporting_mta
    );
    for failed in report.failed {
        let _ = write!(text, "\r\n<{}>\r\n", failed.recipient.as_str());
        if failed.expired {
            let _ = write!(text, "    was not delivered in time; the last attempt ended with\r\n");
        }
        if let Some(host) = &failed.host {
            // A timeout, say, or what we found missing is nothing that the host said.
            let said = if failed.reply.is_some() { " said" } else { "" };
            let _ = write!(text, "    host {host}{said}:\r\n");
        }
        let _ = write!(text, "    {}\r\n", Folded { text: &ascii(&failed.detail), indent: "    " });
    }
    Part { media_type: "text/plain; charset=utf-8", octets: text.into_bytes() }
}

/// For programs (RFC 3464 §2).
fn status(report: &Report<'_>) -> Part {
    let mut text = format!(
        "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n",
        report.reporting_mta,
        date(report.envelope.received_at)
    );
    for failed in report.failed {
        let _ = write!(text, "\r\nFinal-Recipient: {}\r\n", utf8_address(failed.recipient.as_str()));
        let _ = write!(text, "Action: failed\r\nStatus: {}\r\n", failed.status);
        match &failed.host {
            Some(HostAddr::Name(name)) => drop(write!(text, "Remote-MTA: dns; {name}\r\n")),
            // An address literal (RFC 5321 §4.1.3).
            Some(HostAddr::Ip(IpAddr::V6(ip))) => drop(write!(text, "Remote-MTA: dns; [IPv6:{ip}]\r\n")),
            Some(HostAddr::Ip(ip)) => drop(write!(text, "Remote-MTA: dns; [{ip}]\r\n")),
            None => {}
        }
        let (kind, diagnostic) = match &failed.reply {
            Some(reply) => ("smtp", ascii(&reply.to_string())),
            None => ("x-empath", ascii(&failed.detail)),
        };
        let _ = write!(text, "Diagnostic-Code: {kind}; {}\r\n", Folded { text: &diagnostic, indent: " " });
        if let Some(at) = failed.last_attempt {
            let _ = write!(text, "Last-Attempt-Date: {}\r\n", date(at));
        }
    }
    Part { media_type: "message/delivery-status", octets: text.into_bytes() }
}

/// What the sender knows the message by.
fn header(report: &Report<'_>) -> Part {
    let header = report.header;
    // RFC 6533 §4: a header in UTF-8 has a type of its own.
    let internationalized = !header.is_ascii() && str::from_utf8(header).is_ok() && report.envelope.smtputf8;
    let media_type = if internationalized { "message/global-headers" } else { "text/rfc822-headers" };
    Part { media_type, octets: header.to_vec() }
}

/// RFC 5322 §3.3.
fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
