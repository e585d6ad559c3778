//! A report that hosts take who did not take it with a whole message in it.

use empath_common::Envelope;
use quoted_printable::ParseMode;

use super::{
    EIGHT_BIT, addressee,
    part::{GLOBAL, PLAIN, Part},
};
use crate::content::header_of;

/// A report of ours with the header alone of the message that it returns as a whole: without 8-bit octets, and shorter.
/// `None` if it is no such report.
pub(crate) fn shortened(envelope: &Envelope, content: &[u8]) -> Option<(Envelope, Vec<u8>)> {
    let envelope = addressee::shortened(envelope)?;
    // No address can look like this: there is a line end in it.
    let (head, rest) = split(content, b";\r\n boundary=\"")?;
    let (boundary, rest) = split(rest, b"\"\r\n")?;
    let boundary = str::from_utf8(boundary).ok()?;
    let rest = rest.strip_prefix(EIGHT_BIT.as_bytes()).unwrap_or(rest);
    let (opening, closing) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let at = rest.windows(opening.len()).rposition(|octets| octets == opening.as_bytes())?;
    let (parts, last) = rest.split_at_checked(at)?;
    let last = last.get(opening.len()..)?.strip_suffix(closing.as_bytes())?;
    let (fields, octets) = split(last, b"\r\n\r\n")?;
    let fields = str::from_utf8(fields).ok()?;
    let types = if fields.starts_with("Content-Type: message/global\r\n") { GLOBAL } else { PLAIN };
    let returned = if fields.ends_with("quoted-printable") {
        quoted_printable::decode(octets, ParseMode::Robust).ok()?
    } else {
        octets.to_vec()
    };
    let [_, media_type] = types;
    let mut shorter = [head, b";\r\n boundary=\"", boundary.as_bytes(), b"\"\r\n", parts].concat();
    Part { media_type, octets: header_of(&returned).to_vec() }.write(boundary, &mut shorter);
    shorter.extend_from_slice(closing.as_bytes());
    Some((envelope, shorter))
}

fn split<'a>(octets: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = octets.windows(at.len()).position(|octets| octets == at)?;
    Some((octets.get(..place)?, octets.get(place + at.len()..)?))
}

#[cfg(test)]
mod tests {
    use empath_common::{Body, EnhancedStatus};

    use super::*;
    use crate::dsn::{Failed, News, Report, report};

    const HEADER: &str = "Subject: hello\r\nFrom: a@home.test\r\n";

    fn made(of: &Envelope, header: &[u8], whole: Option<&[u8]>) -> (Envelope, Vec<u8>) {
        let failed = Failed {
            recipient: "<bob@example.test>".parse().unwrap(),
            orcpt: None,
            status: EnhancedStatus::new(5, 1, 1),
            host: None,
            reply: None,
            detail: "no such user".to_owned(),
            local: None,
            last_attempt: None,
            expired: false,
        };
        let id = "01J00000000000000000000001".parse().unwrap();
        let (envelope, content) = report(&Report {
            id,
            about: id,
            envelope: of,
            header,
            whole,
            news: &News { failed: vec![failed], ..News::default() },
            reporting_mta: &"mx.home.test".parse().unwrap(),
            postmaster: None,
            now: "2026-01-02T03:06:00Z".parse().unwrap(),
        })
        .unwrap();
        (envelope, content.to_vec())
    }

    #[test]
    fn a_report_with_less_is_the_one_that_would_have_been_made_of_the_header() {
        let boundary = "\r\n--=_01J00000000000000000000001--\r\n";
        for (sender, utf8, header, body) in [
            ("<a@home.test>", false, HEADER, "body\r\n"),
            ("<a@home.test>", false, HEADER, "Gr\u{fc}\u{df}e\r\n"),
            ("<a@home.test>", false, "Subject: \u{fc}\r\n", "\r\n\r\nmore"),
            ("<a@home.test>", false, HEADER, boundary),
            ("<a@home.test>", false, HEADER, ""),
            ("<a@home.test>", false, "", "no header\r\n"),
            ("<\u{3b4}@home.test>", true, "Subject: \u{3b4}\r\n", "\u{3c0} = 3\r\n"),
            ("<\";\\\" boundary=\"@home.test>", false, HEADER, "body\r\n"),
        ] {
            let mut of = Envelope::new(sender.parse().unwrap(), "<bob@example.test>".parse().unwrap());
            of.smtputf8 = utf8;
            let message = format!("{header}\r\n{body}");
            let (envelope, whole) = made(&of, header.as_bytes(), Some(message.as_bytes()));
            let (shorter, content) = shortened(&envelope, &whole).unwrap();
            let (expected, text) = made(&of, header.as_bytes(), None);
            // The boundary was chosen with the whole message in sight.
            let text = String::from_utf8(text).unwrap();
            let text = if body == boundary {
                text.replace("0001", "0001_").replace("0001_@", "0001@")
            } else {
                text
            };
            assert_eq!(String::from_utf8(content.clone()).unwrap(), text, "{message}");
            assert_eq!((shorter.body, &shorter.metadata), (expected.body, &expected.metadata));
            assert_eq!(shorter.body == Body::SevenBit, content.is_ascii());
            assert_eq!(shortened(&shorter, &content), None, "there is no less");
        }
    }

    #[test]
    fn of_what_was_made_otherwise_nothing_is_made() {
        let of = Envelope::new("<a@home.test>".parse().unwrap(), "<b@example.test>".parse().unwrap());
        let (envelope, whole) = made(&of, HEADER.as_bytes(), Some(b"Subject: hello\r\n\r\nbody\r\n"));
        for end in 0..whole.len() {
            assert_eq!(shortened(&envelope, &whole[..end]), None, "{end}");
        }
        assert_eq!(shortened(&of, &whole), None, "it is no report");
    }
}
