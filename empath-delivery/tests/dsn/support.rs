//! Reports are made, and read by an independent parser.

use bytes::Bytes;
use empath_common::{EnhancedStatus, Envelope, Mailbox, MessageId, Reply};
use empath_delivery::{
    config::HostAddr,
    dsn::{Failed, News, Report, report},
};
use empath_spool::Content;
use jiff::Timestamp;
use mailparse::{MailHeaderMap as _, ParsedMail, parse_mail};

pub(crate) const CONTENT: &[u8] = b"Received: by x\r\nSubject: hello\r\nFrom: a@home.test\r\n\r\nbody\r\n";

pub(crate) fn envelope(sender: &str) -> Envelope {
    let mut envelope = Envelope::new(sender.parse().unwrap(), "<bob@example.test>".parse().unwrap());
    envelope.received_at = "2026-01-02T03:04:05Z".parse().unwrap();
    envelope
}

pub(crate) fn failed(recipient: &str, reply: &str) -> Failed {
    Failed {
        recipient: recipient.parse().unwrap(),
        orcpt: None,
        status: EnhancedStatus::new(5, 1, 1),
        host: Some(HostAddr::Name("mx1.example.test".parse().unwrap())),
        reply: Some(Reply::plain(550, "").with_text(reply.to_owned())),
        detail: format!("RCPT TO: 550 {reply}"),
        local: None,
        last_attempt: Some("2026-01-02T03:05:00Z".parse().unwrap()),
        expired: false,
    }
}

pub(crate) fn make(
    envelope: &Envelope,
    content: &[u8],
    failed: &[Failed],
    postmaster: Option<&Mailbox>,
) -> Option<(Envelope, Vec<u8>)> {
    let news = News { failed: failed.to_vec(), ..News::default() };
    make_of(envelope, content, &news, false, postmaster)
}

/// A report of any kind; with all of the message, if `whole`.
pub(crate) fn make_of(
    envelope: &Envelope,
    octets: &[u8],
    news: &News,
    whole: bool,
    postmaster: Option<&Mailbox>,
) -> Option<(Envelope, Vec<u8>)> {
    let content = Content::from(Bytes::copy_from_slice(octets));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let header = runtime.block_on(empath_delivery::header(&content)).unwrap();
    let report = report(&Report {
        id: "01J00000000000000000000001".parse().unwrap(),
        about: "01J00000000000000000000000".parse::<MessageId>().unwrap(),
        envelope,
        header: &header,
        whole: whole.then_some(octets),
        news,
        reporting_mta: &"mx.home.test".parse().unwrap(),
        postmaster,
        now: "2026-01-02T03:06:00Z".parse::<Timestamp>().unwrap(),
    });
    report.map(|(envelope, content)| (envelope, content.to_vec()))
}

/// What every report keeps to, whatever it is about.
pub(crate) fn check(content: &[u8]) -> ParsedMail<'_> {
    assert!(content.iter().all(|octet| matches!(octet, b'\r' | b'\n' | b'\t' | b' '..=b'~')), "only ASCII");
    let text = str::from_utf8(content).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "no bare CR or LF");
    assert!(text.split("\r\n").all(|line| line.len() <= 998));
    let mail = parse_mail(content).unwrap();
    for name in ["From", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Auto-Submitted"] {
        assert_eq!(mail.headers.get_all_values(name).len(), 1, "RFC 5322 §3.6: one {name}");
    }
    assert_eq!(mail.ctype.mimetype, "multipart/report");
    let kind = mail.ctype.params["report-type"].as_str();
    assert_eq!(mail.subparts[1].ctype.mimetype, format!("message/{kind}"), "RFC 6522 §3");
    assert_eq!(mail.subparts.len(), 3);
    assert_eq!(mail.subparts[0].ctype.mimetype, "text/plain");
    let encoding = mail.subparts[1].headers.get_first_value("Content-Transfer-Encoding");
    match kind {
        "delivery-status" => assert_eq!(encoding.as_deref(), Some("7bit"), "RFC 6522 §3"),
        kind => assert_eq!(kind, "global-delivery-status"),
    }
    mail
}

/// The fields of the delivery status: those of the message, then those of each recipient.
pub(crate) fn status(mail: &ParsedMail<'_>) -> Vec<Vec<(String, String)>> {
    let body = mail.subparts[1].get_body_raw().unwrap();
    let text = String::from_utf8(body).unwrap().replace("\r\n ", "");
    let group = |group: &str| {
        let field =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        group.trim().lines().map(|line| field(line).unwrap()).collect()
    };
    text.trim().split("\r\n\r\n").map(group).collect()
}

pub(crate) fn pairs(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
