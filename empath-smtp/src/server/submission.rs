//! What becomes of the messages of users (RFC 6409 §8): fields that every message needs are added where they are
//! missing, and `From` must be the user's own. Nothing is changed or taken away.
//!
//! DEVIATION RFC 6409 §4.2: domains in other fields of the header need not be fully qualified; changing them would break
//! signatures, and nothing depends on them.

use empath_common::{Domain, MessageId, Reply, ReversePath};
use jiff::Timestamp;

use super::{auth::Identity, from, reply, trace};

/// Watches the header of a message go by and ends it with what is missing.
#[derive(Debug)]
pub(super) struct Mending {
    /// Who must own what is in `From`.
    owner: Option<Identity>,
    /// The line that is going on. Inspection bounds it.
    line: Vec<u8>,
    /// The value of `From`, once it has come.
    from: Option<Vec<u8>>,
    /// The next line may continue it.
    in_from: bool,
    /// The fields that are needed, until they are seen.
    missing: Vec<Missing>,
    /// There is a field that a line could continue.
    begun: bool,
}

#[derive(Debug)]
struct Missing {
    name: &'static str,
    value: String,
}

/// Most octets of a `From` field.
const MAX_FROM: usize = 16 * 1024;

impl Mending {
    /// For the message with this id. Its `From` must belong to `owner`.
    pub(super) fn new(
        owner: Option<Identity>,
        reverse_path: &ReversePath,
        id: MessageId,
        hostname: &Domain,
        now: Timestamp,
    ) -> Self {
        let from = reverse_path.mailbox().map(|mailbox| Missing { name: "From", value: mailbox.to_string() });
        let date = Missing { name: "Date", value: trace::date(now) };
        let message_id = Missing { name: "Message-ID", value: format!("<{id}@{hostname}>") };
        let missing = from.into_iter().chain([date, message_id]).collect();
        Self { owner, line: Vec::new(), from: None, in_from: false, missing, begun: false }
    }

    /// Takes the next octets of content. Those that may go on are appended to `out`; `Ok(true)` when the header has
    /// ended, and the rest is not looked at. `Err` is how to refuse the message.
    pub(super) fn take(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<bool, Reply> {
        let mut rest = octets;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (part, behind) = rest.split_at(end + 1);
            self.line.extend_from_slice(part);
            rest = behind;
            if self.line()? {
                self.end(out)?;
                out.extend_from_slice(rest);
                return Ok(true);
            }
            out.append(&mut self.line);
        }
        self.line.extend_from_slice(rest);
        Ok(false)
    }

    /// The content has ended, and the header with it.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Reply> {
        if !self.line.is_empty() && !self.line()? {
            out.append(&mut self.line);
        }
        self.end(out)
    }

    /// Looks at a line: whether it ends the header.
    fn line(&mut self) -> Result<bool, Reply> {
        if self.begun && matches!(self.line.first(), Some(b' ' | b'\t')) {
            self.continuation()?;
            return Ok(false);
        }
        let Some((name, value)) = field(&self.line) else {
            return Ok(true);
        };
        self.begun = true;
        self.in_from = name.eq_ignore_ascii_case(b"From");
        self.missing.retain(|missing| !name.eq_ignore_ascii_case(missing.name.as_bytes()));
        if self.in_from {
            // A second one could be the one that is shown.
            let first = self.from.replace(value.to_vec()).is_none();
            return if first || self.owner.is_none() { Ok(false) } else { Err(reply::BAD_FROM) };
        }
        Ok(false)
    }

    fn continuation(&mut self) -> Result<(), Reply> {
        if let Some(from) = self.from.as_mut().filter(|_| self.in_from) {
            if from.len() + self.line.len() > MAX_FROM {
                return Err(reply::BAD_FROM);
            }
            from.extend_from_slice(&self.line);
        }
        Ok(())
    }

    /// Ends the header: what is missing, then the line that ended it. If that is not the empty one, the header had
    /// stopped being one, and an empty line keeps others from reading on.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Reply> {
        self.check_from()?;
        for Missing { name, value } in self.missing.drain(..) {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !self.line.is_empty() && self.line != b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.append(&mut self.line);
        Ok(())
    }

    fn check_from(&self) -> Result<(), Reply> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        let Some(from) = &self.from else {
            // The reverse-path, which was checked, takes its place.
            let added = self.missing.iter().any(|missing| missing.name == "From");
            return if added { Ok(()) } else { Err(reply::BAD_FROM) };
        };
        let authors = from::mailboxes(from).filter(|authors| !authors.is_empty()).ok_or(reply::BAD_FROM)?;
        if authors.iter().all(|author| owner.owns(author)) { Ok(()) } else { Err(reply::NOT_YOUR_FROM) }
    }
}

/// Name and value of a field (RFC 5322 §2.2; space before the colon is obsolete, §4.5).
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at(colon);
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    good.then(|| (name, value.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mending(owner: bool, reverse_path: &str) -> Mending {
        let owner = owner.then(|| Identity {
            name: "alice@a.test".into(),
            senders: ["@alice.test".parse().unwrap()].into(),
        });
        let hostname = Domain::parse("mx.test").unwrap();
        let now = "2026-11-21T09:08:07Z".parse().unwrap();
        Mending::new(owner, &reverse_path.parse().unwrap(), MessageId::from_bytes([0; 16]), &hostname, now)
    }

    /// In one piece and octet by octet.
    fn mend(owner: bool, reverse_path: &str, content: &str) -> Result<String, u16> {
        let mended = [content.len().max(1), 1].map(|size| {
            let (mut mending, mut out, mut over) = (mending(owner, reverse_path), Vec::new(), false);
            for piece in content.as_bytes().chunks(size) {
                if over {
                    out.extend_from_slice(piece);
                } else {
                    over = mending.take(piece, &mut out).map_err(|reply| reply.code.get())?;
                }
            }
            if !over {
                mending.finish(&mut out).map_err(|reply| reply.code.get())?;
            }
            Ok(String::from_utf8(out).unwrap())
        });
        assert_eq!(mended[0], mended[1], "{content:?}");
        mended[0].clone()
    }

    const FROM: &str = "From: alice@a.test\r\n";
    const DATE: &str = "Date: Sat, 21 Nov 2026 09:08:07 +0000\r\n";
    const MESSAGE_ID: &str = "Message-ID: <00000000000000000000000000@mx.test>\r\n";

    #[test]
    fn missing_fields_are_added_at_the_end_of_the_header() {
        for (content, mended) in [
            (
                format!("{FROM}Bcc: x@x.test\r\n\r\nbody\r\n"),
                format!("{FROM}Bcc: x@x.test\r\n{DATE}{MESSAGE_ID}\r\nbody\r\n"),
            ),
            (
                format!("{FROM}date : x\r\nMESSAGE-ID: y\r\n\r\n"),
                format!("{FROM}date : x\r\nMESSAGE-ID: y\r\n\r\n"),
            ),
            (
                "Subject: x\r\n date: y\r\n\r\n".to_owned(),
                format!("Subject: x\r\n date: y\r\n{FROM}{DATE}{MESSAGE_ID}\r\n"),
            ),
            (
                "\r\nDate: in the body\r\n".to_owned(),
                format!("{FROM}{DATE}{MESSAGE_ID}\r\nDate: in the body\r\n"),
            ),
            (FROM.to_owned(), format!("{FROM}{DATE}{MESSAGE_ID}")),
            (String::new(), format!("{FROM}{DATE}{MESSAGE_ID}")),
        ] {
            assert_eq!(mend(true, "<alice@a.test>", &content), Ok(mended), "{content:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_field_begins_the_body() {
        for body in [
            "hello\r\n",
            " hello\r\n",
            "Not a field: x\r\n",
            ": x\r\n",
            "\u{e9}: x\r\n",
            "Hi\r\nFrom: boss@b.test\r\n",
        ] {
            let mended = format!("{FROM}{DATE}{MESSAGE_ID}\r\n{body}");
            assert_eq!(mend(true, "<alice@a.test>", body), Ok(mended), "{body:?}");
        }
    }

    #[test]
    fn every_author_must_be_the_users_own() {
        for (from, expected) in [
            ("From: alice@a.test", Ok(())),
            ("FROM : Alice <ALICE@A.test>, \r\n\tx@alice.test", Ok(())),
            ("From: bob@a.test", Err(550)),
            ("From: alice@a.test,\r\n bob@a.test", Err(550)),
            ("From: alice@a.test\r\nSubject: x\r\nFrom: bob@a.test", Err(550)),
            ("From: <alice@a.test> <bob@a.test>", Err(550)),
            ("From:", Err(550)),
            ("From: Nobody:;", Err(550)),
        ] {
            let content = format!("{from}\r\n{DATE}{MESSAGE_ID}\r\n");
            assert_eq!(mend(true, "<>", &content), expected.map(|()| content.clone()), "{from}");
            assert_eq!(mend(false, "<>", &content), Ok(content), "{from}: unchecked");
        }
        assert_eq!(mend(true, "<>", "Subject: x\r\n\r\n"), Err(550), "there is nobody to put into From");
        assert_eq!(mend(false, "<>", "\r\n"), Ok(format!("{DATE}{MESSAGE_ID}\r\n")));
    }

    proptest! {
        #[test]
        fn what_the_client_sent_stays_and_only_fields_are_added(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "From: alice@a.test\r\n", "date:x\r\n", "Message-ID: y\r\n", " folded\r\n", "text\r\n", "\r\n", "A: b\r\n", ":\r\n",
            ]), 0..8),
        ) {
            let content = pieces.concat();
            let mended = mend(true, "<alice@a.test>", &content);
            prop_assume!(mended.is_ok());
            let mended = mended.unwrap();
            let mut rest = mended.lines();
            prop_assert!(content.lines().all(|line| rest.any(|other| other == line)), "{mended}");
            let header = mended.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
            for name in ["from", "date", "message-id"] {
                prop_assert!(header.lines().any(|line| line.starts_with(&format!("{name}:"))), "{mended}");
            }
        }
    }

    #[test]
    fn a_from_field_has_a_bounded_length() {
        let line = format!("{},\r\n", " alice@a.test".repeat(100).replace("t ", "t, "));
        let content = |lines| format!("From:{}{}alice@a.test\r\n\r\n", line.repeat(lines), " ");
        assert!(mend(true, "<>", &content(5)).is_ok());
        assert_eq!(mend(true, "<>", &content(50)), Err(550));
    }
}
