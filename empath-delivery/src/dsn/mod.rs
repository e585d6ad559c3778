//! The message that tells the sender what became of a message (RFC 3461, RFC 3464, RFC 6522).
//!
//! It is ASCII whatever it reports, so that every host takes it. Only an address of the sender that needs UTF-8
//! makes it an SMTPUTF8 message, and only a message that comes back as a whole makes it 8-bit.

mod fields;
mod news;
mod part;

use std::{fmt::Write as _, net::IpAddr};

use bytes::Bytes;
use empath_common::{
    Body, Domain, EnhancedStatus, Envelope, ForwardPath, Mailbox, MessageId, OriginalRecipient,
};
use jiff::{Timestamp, tz::TimeZone};

use crate::config::HostAddr;
use fields::{Folded, ascii, utf8_address};
pub use news::{Arrived, Failed, News, Success};
use part::{MESSAGE, Part, is_lines};

/// Most octets of a message that is returned as a whole; of a larger one the header is.
pub(crate) const MAX_RETURNED: u64 = 256 << 10;

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
    /// The whole message, if it is to be returned.
    pub whole: Option<&'a [u8]>,
    /// What is reported.
    pub news: &'a News,
    /// The name of this host.
    pub reporting_mta: &'a Domain,
    /// Whom the report is from.
    pub postmaster: Option<&'a Mailbox>,
    /// Now.
    pub now: Timestamp,
}

/// The report as a message: its envelope, with the null reverse-path (RFC 5321 §4.5.5), and its content. `None` if
/// the sender is null too: nobody is told (RFC 5321 §6.1).
pub fn report(report: &Report<'_>) -> Option<(Envelope, Bytes)> {
    let sender = report.envelope.reverse_path.mailbox()?;
    let mut envelope = Envelope::new(empath_common::ReversePath::Null, ForwardPath::Mailbox(sender.clone()));
    envelope.received_at = report.now;
    envelope.smtputf8 = sender.needs_utf8();
    let parts = [explanation(report), status(report), returned(report)];
    let eight_bit = parts.iter().any(|part| part.encoding() == "8bit");
    envelope.body = if envelope.smtputf8 || eight_bit { Body::EightBitMime } else { Body::SevenBit };
    Some((envelope, content(report, sender, &parts, eight_bit).into()))
}

fn content(report: &Report<'_>, sender: &Mailbox, parts: &[Part], eight_bit: bool) -> Vec<u8> {
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
    let subject = match (&*report.news.failed, &*report.news.arrived) {
        ([], _) => "Your mail has arrived",
        _ => "Undelivered mail returned to sender",
    };
    // RFC 2045 §6.4: what holds a part in 8 bits says so.
    let encoding = if eight_bit { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
    let _ = write!(
        text,
        ">\r\nTo: <{sender}>\r\nSubject: {subject}\r\nDate: {}\r\n\
         Message-ID: <{}@{mta}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n{encoding}\r\n\
         This is a MIME-encapsulated message.\r\n",
        date(report.now),
        report.id,
    );
    let mut octets = text.into_bytes();
    for part in parts {
        part.write(&boundary, &mut octets);
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
}

/// For people.
fn explanation(report: &Report<'_>) -> Part {
    let mut text = format!("This is the mail system at {}.\r\n", report.reporting_mta);
    if !report.news.failed.is_empty() {
        text.push_str(
            "\r\nYour message could not be delivered to the recipients below.\r\n\
             It will not be tried again.\r\n",
        );
    }
    for failed in &report.news.failed {
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
    for (how, sentence) in [
        (Arrived::Delivered, "Your message was delivered to the recipients below."),
        (
            Arrived::Relayed,
            "Your message was passed on to a host that sends no reports, for the recipients below.",
        ),
    ] {
        let mut arrived = report.news.arrived.iter().filter(|success| success.how == how).peekable();
        if arrived.peek().is_some() {
            let _ = write!(text, "\r\n{sentence}\r\n\r\n");
        }
        for success in arrived {
            let _ = write!(text, "<{}>\r\n", success.recipient.as_str());
        }
    }
    Part { media_type: "text/plain; charset=utf-8", octets: text.into_bytes() }
}

/// For programs (RFC 3464 §2).
fn status(report: &Report<'_>) -> Part {
    let mut text = String::new();
    if let Some(envid) = &report.envelope.notification().envid {
        let _ = write!(text, "Original-Envelope-Id: {}\r\n", envid.decoded());
    }
    let _ = write!(
        text,
        "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n",
        report.reporting_mta,
        date(report.envelope.received_at)
    );
    for failed in &report.news.failed {
        recipient(&mut text, failed.orcpt.as_ref(), &failed.recipient);
        let _ = write!(text, "Action: failed\r\nStatus: {}\r\n", failed.status);
        remote_mta(&mut text, failed.host.as_ref());
        let (kind, diagnostic) = match &failed.reply {
            Some(reply) => ("smtp", ascii(&reply.to_string())),
            None => ("x-empath", ascii(&failed.detail)),
        };
        let _ = write!(text, "Diagnostic-Code: {kind}; {}\r\n", Folded { text: &diagnostic, indent: " " });
        if let Some(at) = failed.last_attempt {
            let _ = write!(text, "Last-Attempt-Date: {}\r\n", date(at));
        }
    }
    for success in &report.news.arrived {
        recipient(&mut text, success.orcpt.as_ref(), &success.recipient);
        let status = success.reply.enhanced.filter(|status| status.class == 2);
        let status = status.unwrap_or(EnhancedStatus::new(2, 0, 0));
        let _ = write!(text, "Action: {}\r\nStatus: {status}\r\n", success.how);
        remote_mta(&mut text, success.host.as_ref());
        if success.host.is_some() {
            let diagnostic = ascii(&success.reply.to_string());
            let _ = write!(text, "Diagnostic-Code: smtp; {}\r\n", Folded { text: &diagnostic, indent: " " });
        }
    }
    Part { media_type: "message/delivery-status", octets: text.into_bytes() }
}

/// The first fields of a recipient. Whom the sender meant is told as the sender did (RFC 3461 §6.3).
fn recipient(text: &mut String, orcpt: Option<&OriginalRecipient>, recipient: &ForwardPath) {
    text.push_str("\r\n");
    if let Some((kind, address)) = orcpt.map(OriginalRecipient::decoded) {
        let _ = write!(text, "Original-Recipient: {kind}; {address}\r\n");
    }
    let _ = write!(text, "Final-Recipient: {}\r\n", utf8_address(recipient.as_str()));
}

fn remote_mta(text: &mut String, host: Option<&HostAddr>) {
    let _ = match host {
        Some(HostAddr::Name(name)) => write!(text, "Remote-MTA: dns; {name}\r\n"),
        // An address literal (RFC 5321 §4.1.3).
        Some(HostAddr::Ip(IpAddr::V6(ip))) => write!(text, "Remote-MTA: dns; [IPv6:{ip}]\r\n"),
        Some(HostAddr::Ip(ip)) => write!(text, "Remote-MTA: dns; [{ip}]\r\n"),
        None => Ok(()),
    };
}

/// What the sender knows the message by: all of it if that was asked and can be (RFC 3461 §4.3), else the header.
fn returned(report: &Report<'_>) -> Part {
    let header = report.header;
    // RFC 6533 §4: what has a header in UTF-8 has types of its own.
    let internationalized = !header.is_ascii() && str::from_utf8(header).is_ok() && report.envelope.smtputf8;
    let media_types = if internationalized {
        ["message/global", "message/global-headers"]
    } else {
        [MESSAGE, "text/rfc822-headers"]
    };
    let [of_whole, of_header] = media_types;
    match report.whole.filter(|whole| internationalized || is_lines(whole)) {
        Some(whole) => Part { media_type: of_whole, octets: whole.to_vec() },
        None => Part { media_type: of_header, octets: header.to_vec() },
    }
}

/// RFC 5322 §3.3.
fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
