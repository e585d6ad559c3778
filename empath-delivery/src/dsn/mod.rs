//! The message that tells the sender what became of a message (RFC 3461, RFC 3464, RFC 6522).
//!
//! It is ASCII whatever it reports, so that every host takes it. Only an address of the sender that needs UTF-8
//! makes it an SMTPUTF8 message, and only a message that comes back as a whole makes it 8-bit.
//!
//! There are no loops: the sender is told of a message, once more with less if that was too much, the postmaster of a report
//! that did not reach the sender, and nobody of one that did not reach the postmaster. Which of them a message is, is stored
//! with it.

mod addressee;
mod fields;
mod local;
mod news;
mod part;
mod shorter;
mod status;

use std::fmt::Write as _;

use bytes::Bytes;
use empath_common::{Body, Domain, Envelope, ForwardPath, Mailbox, MessageId, ReversePath};
use jiff::{Timestamp, tz::TimeZone};

use addressee::{Addressee, ascii_address};
pub(crate) use addressee::{is_report, is_told, returns_whole};
use fields::{Folded, ascii, most_text};
pub use local::Local;
pub use news::{Arrived, Delayed, Failed, News, Success};
use part::{GLOBAL, PLAIN, Part, is_lines};
pub(crate) use shorter::shortened;
use status::status;

/// Most octets of a message that is returned as a whole; of a larger one the header is.
pub(crate) const MAX_RETURNED: u64 = 256 << 10;

/// Most octets of a report: it returns a message, maybe encoded, and has a line or so for each recipient.
pub(crate) const MAX_REPORT: u64 = 8 * MAX_RETURNED;

/// What the header says of a report with 8-bit octets.
const EIGHT_BIT: &str = "Content-Transfer-Encoding: 8bit\r\n";

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
    /// Whom the report is from, and who gets those that do not reach the sender.
    pub postmaster: Option<&'a Mailbox>,
    /// Now.
    pub now: Timestamp,
}

/// The report as a message: its envelope, with the null reverse-path (RFC 5321 §4.5.5), and its content. `None` if
/// there is nobody to tell: the sender is null too (RFC 5321 §6.1), and it is no report of ours to a sender.
pub fn report(report: &Report<'_>) -> Option<(Envelope, Bytes)> {
    let addressee = Addressee::of(report.envelope, report.postmaster)?;
    let mailbox = addressee.mailbox();
    let mut envelope = Envelope::new(ReversePath::Null, ForwardPath::Mailbox(mailbox.clone()));
    envelope.received_at = report.now;
    envelope.smtputf8 = ascii_address(mailbox).is_none();
    // RFC 6710: a report is as urgent as what it is about.
    (envelope.priority, envelope.mt_priority) = (report.envelope.priority, report.envelope.mt_priority);
    let parts = [explanation(report, &addressee), status(report), returned(report)];
    addressee.mark(&mut envelope, is_whole(&parts));
    let eight_bit = parts.iter().any(|part| part.encoding() == "8bit");
    envelope.body = if envelope.smtputf8 || eight_bit { Body::EightBitMime } else { Body::SevenBit };
    Some((envelope, content(report, &addressee, &parts, eight_bit).into()))
}

/// Whether the message is in the report, and not its header alone.
fn is_whole([_, _, returned]: &[Part; 3]) -> bool {
    [PLAIN, GLOBAL].iter().any(|[of_whole, _]| returned.media_type == *of_whole)
}

fn content(report: &Report<'_>, addressee: &Addressee<'_>, parts: &[Part; 3], eight_bit: bool) -> Vec<u8> {
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
    let News { failed, delayed, .. } = report.news;
    let subject = match addressee {
        Addressee::Postmaster(_) => "Undelivered report",
        Addressee::Sender(_) if !failed.is_empty() => "Undelivered mail returned to sender",
        Addressee::Sender(_) if !delayed.is_empty() => "Your mail is delayed",
        Addressee::Sender(_) => "Your mail has arrived",
    };
    let mailbox = addressee.mailbox();
    let to = ascii_address(mailbox).unwrap_or_else(|| mailbox.as_str().to_owned());
    // RFC 6522 §3: the subtype of the second part.
    let [_, status, _] = parts;
    let report_type = status.media_type.trim_start_matches("message/");
    // RFC 2045 §6.4: what holds a part in 8 bits says so.
    let encoding = if eight_bit { EIGHT_BIT } else { "" };
    let _ = write!(
        text,
        ">\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {}\r\n\
         Message-ID: <{}@{mta}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={report_type};\r\n boundary=\"{boundary}\"\r\n{encoding}\r\n\
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
fn explanation(report: &Report<'_>, addressee: &Addressee<'_>) -> Part {
    let mut text = format!("This is the mail system at {}.\r\n", report.reporting_mta);
    let News { failed, delayed, .. } = report.news;
    let most = most_text(report.news);
    match addressee {
        Addressee::Postmaster(_) => text.push_str(
            "\r\nThe report below could not be delivered to the sender of the message that it is about.\r\n\
             It will not be tried again, and nobody else is told.\r\n",
        ),
        Addressee::Sender(_) if !failed.is_empty() => text.push_str(
            "\r\nYour message could not be delivered to the recipients below.\r\n\
             It will not be tried again.\r\n",
        ),
        Addressee::Sender(_) => {}
    }
    for failed in failed {
        let _ = write!(text, "\r\n<{}>\r\n", failed.recipient.as_str());
        if failed.expired {
            text.push_str(match failed.last_attempt {
                Some(_) => "    was not delivered in time; the last attempt ended with\r\n",
                None => "    was not delivered in time:\r\n",
            });
        }
        trouble(&mut text, failed, most);
    }
    if let Some(first) = delayed.first() {
        let _ = write!(
            text,
            "\r\nYour message could not be delivered yet to the recipients below. There is nothing that\r\n\
             you need to do: it will be tried until {}.\r\n",
            date(first.retry_until)
        );
    }
    for delayed in delayed {
        let _ = write!(text, "\r\n<{}>\r\n", delayed.last.recipient.as_str());
        trouble(&mut text, &delayed.last, most);
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

/// What the last attempt came to.
fn trouble(text: &mut String, failed: &Failed, most: usize) {
    if let Some(host) = &failed.host {
        // A timeout, say, or what we found missing is nothing that the host said.
        let said = if failed.reply.is_some() { " said" } else { "" };
        let _ = write!(text, "    host {host}{said}:\r\n");
    }
    let _ = write!(text, "    {}\r\n", Folded { text: &ascii(&failed.told(), most), indent: "    " });
}

/// What the sender knows the message by: all of it if that was asked and can be (RFC 3461 §4.3), else the header.
fn returned(report: &Report<'_>) -> Part {
    let header = report.header;
    let internationalized = !header.is_ascii() && str::from_utf8(header).is_ok() && report.envelope.smtputf8;
    let [of_whole, of_header] = if internationalized { GLOBAL } else { PLAIN };
    match report.whole.filter(|whole| internationalized || is_lines(whole)) {
        Some(whole) => Part { media_type: of_whole, octets: whole.to_vec() },
        None => Part { media_type: of_header, octets: header.to_vec() },
    }
}

/// RFC 5322 §3.3.
fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
