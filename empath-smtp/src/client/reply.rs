use std::fmt::Write as _;

use bytes::{Buf, BytesMut};
use empath_common::{EnhancedStatus, Escaped, Reply, ReplyCode};

use super::{Extensions, GarbledReason};

/// Longest line of a reply that is read. RFC 5321 §4.5.3.1.5 allows 512 octets; some servers write more.
pub const MAX_LINE: usize = 2048;
/// Most lines of a reply, and so one more than the most keywords in a reply to EHLO.
pub const MAX_LINES: usize = 100;
/// Most octets of a reply's text, over all its lines.
pub const MAX_REPLY: usize = 32 * 1024;
/// Most octets of a reply's text that are kept in a [`Reply`].
const MAX_TEXT: usize = 1024;

/// Reads one reply at a time from octets as they arrive (RFC 5321 §4.2).
///
/// Strict about codes, since they decide what becomes of a message; lenient about the rest: a bare LF ends a
/// line, and the text may be missing or have any octets.
#[derive(Debug, Default)]
pub(super) struct ReplyParser {
    code: Option<ReplyCode>,
    lines: usize,
    text: Vec<u8>,
}

/// A reply as it was sent: its code, and its lines joined by `\n`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawReply {
    pub(super) code: ReplyCode,
    text: Vec<u8>,
}

impl ReplyParser {
    /// Takes whole lines from `input` up to the end of a reply. `None` when more octets are needed.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<RawReply>, GarbledReason> {
        loop {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return if input.len() > MAX_LINE { Err(GarbledReason::LineTooLong) } else { Ok(None) };
            };
            if end > MAX_LINE {
                return Err(GarbledReason::LineTooLong);
            }
            let line = input.get(..end).unwrap_or_default();
            let last = self.line(line.strip_suffix(b"\r").unwrap_or(line))?;
            input.advance(end + 1);
            if last && let Some(code) = self.code.take() {
                self.lines = 0;
                return Ok(Some(RawReply { code, text: std::mem::take(&mut self.text) }));
            }
        }
    }

    /// Takes one line; whether it is the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, GarbledReason> {
        let (digits, rest) = line.split_first_chunk::<3>().ok_or(GarbledReason::NoCode)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(GarbledReason::NoCode);
        }
        let number = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        let code = ReplyCode::new(number).map_err(|_| GarbledReason::Code)?;
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(GarbledReason::NoCode),
        };
        if self.code.is_some_and(|first| first != code) {
            return Err(GarbledReason::MixedCodes);
        }
        if self.lines == MAX_LINES || self.text.len() + text.len() > MAX_REPLY {
            return Err(GarbledReason::TooLong);
        }
        if self.lines > 0 {
            self.text.push(b'\n');
        }
        self.lines += 1;
        self.code = Some(code);
        self.text.extend_from_slice(text);
        Ok(last)
    }
}

impl RawReply {
    /// What a reply 334 asks, in base64.
    pub(super) fn challenge(&self) -> &[u8] {
        &self.text
    }

    /// What a reply to EHLO offers.
    pub(super) fn extensions(&self) -> Extensions {
        Extensions::parse(&self.text)
    }
}

impl From<RawReply> for Reply {
    /// The text is escaped and bounded. An enhanced status counts only if its class is the code's (RFC 2034 §4).
    fn from(raw: RawReply) -> Self {
        let mut lines = raw.text.split(|octet| *octet == b'\n');
        let class = raw.code.get() / 100;
        let first = lines.clone().next().and_then(split_status).map(|(status, _)| status);
        let enhanced = first.filter(|status| u16::from(status.class) == class);
        let mut text = String::new();
        if let Some(line) = lines.next() {
            push(&mut text, line, enhanced);
        }
        for line in lines {
            text.push('\n');
            push(&mut text, line, enhanced);
        }
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        Self { code: raw.code, enhanced, text: text.into() }
    }
}

/// Appends a line without the status that all lines of a reply repeat (RFC 2034 §4).
fn push(text: &mut String, line: &[u8], enhanced: Option<EnhancedStatus>) {
    let line = match split_status(line) {
        Some((status, rest)) if Some(status) == enhanced => rest,
        _ => line,
    };
    // Writing to a string does not fail.
    let _ = write!(text, "{}", Escaped(line));
}

fn split_status(line: &[u8]) -> Option<(EnhancedStatus, &[u8])> {
    let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
    let (status, rest) = line.split_at_checked(end)?;
    let status = str::from_utf8(status).ok()?.parse().ok()?;
    Some((status, rest.strip_prefix(b" ").unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every reply in `octets`, then the error if there is one, when they arrive in pieces of `size`.
    fn parse(octets: &[u8], size: usize) -> (Vec<Reply>, Option<GarbledReason>) {
        let (mut parser, mut input, mut replies) = (ReplyParser::default(), BytesMut::new(), Vec::new());
        for piece in octets.chunks(size) {
            input.extend_from_slice(piece);
            loop {
                match parser.take(&mut input) {
                    Ok(Some(raw)) => replies.push(raw.into()),
                    Ok(None) => break,
                    Err(reason) => return (replies, Some(reason)),
                }
            }
        }
        (replies, None)
    }

    fn one(octets: &str) -> Reply {
        match parse(octets.as_bytes(), usize::MAX) {
            (mut replies, None) if replies.len() == 1 => replies.remove(0),
            other => panic!("{octets:?}: {other:?}"),
        }
    }

    #[test]
    fn replies_are_read_with_and_without_text_and_over_several_lines() {
        assert_eq!(one("250\r\n"), Reply::plain(250, ""));
        assert_eq!(one("250 \r\n"), Reply::plain(250, ""));
        assert_eq!(one("250-\r\n250 \r\n"), Reply::plain(250, "\n"));
        assert_eq!(one("299 fine\n"), Reply::plain(299, "fine"));
        assert_eq!(
            one("550-5.1.1 no\r\n550 5.1.1 such user\r\n"),
            Reply::new(550, (5, 1, 1), "no\nsuch user")
        );
    }

    #[test]
    fn the_code_wins_over_an_enhanced_status_of_another_class() {
        assert_eq!(one("250 5.1.1 user unknown\r\n"), Reply::plain(250, "5.1.1 user unknown"));
        assert_eq!(one("550 OK\r\n"), Reply::plain(550, "OK"));
        assert_eq!(one("550 5.1.1\r\n"), Reply::new(550, (5, 1, 1), ""));
        assert_eq!(one("550 5.1.1000 x\r\n"), Reply::plain(550, "5.1.1000 x"));
    }

    #[test]
    fn what_is_not_a_reply_is_garbled() {
        let endless = "250-more\r\n".repeat(MAX_LINES + 1);
        let vast = format!("250-{}\r\n", "x".repeat(1000)).repeat(MAX_REPLY / 1000 + 1);
        let long = format!("250 {}", "x".repeat(MAX_LINE));
        for (octets, reason) in [
            ("hello\r\n", GarbledReason::NoCode),
            ("\r\n", GarbledReason::NoCode),
            ("25\r\n", GarbledReason::NoCode),
            ("25x ok\r\n", GarbledReason::NoCode),
            ("250ok\r\n", GarbledReason::NoCode),
            ("100 wait\r\n", GarbledReason::Code),
            ("600 odd\r\n", GarbledReason::Code),
            ("999 odd\r\n", GarbledReason::Code),
            ("250-one\r\n550 two\r\n", GarbledReason::MixedCodes),
            ("250-one\r\n250one\r\n", GarbledReason::NoCode),
            ("250-one\r\n\r\n", GarbledReason::NoCode),
            ("250-one\r\n 250 two\r\n", GarbledReason::NoCode),
            ("250\tone\r\n", GarbledReason::NoCode),
            ("+50 one\r\n", GarbledReason::NoCode),
            (endless.as_str(), GarbledReason::TooLong),
            (vast.as_str(), GarbledReason::TooLong),
            (long.as_str(), GarbledReason::LineTooLong),
        ] {
            assert_eq!(parse(octets.as_bytes(), usize::MAX).1, Some(reason), "{octets:?}");
        }
    }

    #[test]
    fn the_text_is_bounded_and_has_no_controls() {
        let reply = one("550 a\u{7}\u{1b}[31m\rb\u{202e}\r\n");
        assert_eq!(reply.text, "a\\x07\\x1b[31m\\rb\\u{202e}");
        let long = one(&format!("550 {}\r\n", "é".repeat(1000)));
        assert_eq!(long.text, "é".repeat(MAX_TEXT / 2));
    }

    #[test]
    fn a_reply_of_exactly_the_bounds_is_read() {
        let most = "250-more\r\n".repeat(MAX_LINES - 1) + "250 end\r\n";
        assert_eq!(parse(most.as_bytes(), 7).1, None);
        let line = format!("250 {}\r\n", "x".repeat(MAX_LINE - 5));
        assert_eq!(parse(line.as_bytes(), 7).1, None);
    }

    proptest! {
        #[test]
        fn any_octets_parse_alike_however_they_are_split(
            octets in r"([2-6][0-5][0-9][ -]?(4\.[0-9]\.[0-9] )?[a-zé\x00\r]{0,8}\r?\n|.{0,3}){0,6}",
            size in 1_usize..9,
        ) {
            prop_assert_eq!(parse(octets.as_bytes(), size), parse(octets.as_bytes(), usize::MAX));
        }

        #[test]
        fn no_octets_make_the_parser_panic(octets in proptest::collection::vec(any::<u8>(), 0..4096)) {
            for reply in parse(&octets, 512).0 {
                prop_assert!(reply.text.chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }
}
