//! A second, simpler opinion of what a session may do: it reads what the client said beside what was answered.

/// A client's view of its session.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Users must authenticate before they send.
    submission: bool,
    greeted: bool,
    authenticated: bool,
    mail: bool,
    recipients: usize,
    /// Chunks were sent in this transaction.
    chunked: bool,
    closed: bool,
    messages: usize,
}

/// What the client's next octets are.
#[derive(Debug, PartialEq, Eq)]
enum Expects {
    Command,
    /// The response to a challenge.
    Response,
    Content,
}

impl Model {
    pub(crate) fn new(submission: bool) -> Self {
        Self { submission, ..Self::default() }
    }

    /// Follows a session that the client has sent `stream` in and got `output` from; the server closed it or did not.
    /// Returns how many messages it must have taken. A handshake ends what can be followed.
    pub(crate) fn follow(mut self, mut stream: &[u8], output: &str, closed: bool) -> Option<usize> {
        let replies = replies(output);
        let mut replies = replies.iter();
        self.closed = replies.next().expect("a greeting").0 != 220;
        let mut expects = Expects::Command;
        while !self.closed {
            let (line, rest) = match expects {
                Expects::Content => split_content(stream),
                _ => split(stream, b"\r\n"),
            };
            // A server that has enough says so whenever it likes.
            let Some(line) = line else {
                self.closed = replies.next().is_some_and(|(code, _)| [421, 501].contains(code));
                break;
            };
            stream = rest;
            let chunk = (expects == Expects::Command).then(|| chunk(line)).flatten();
            if chunk.is_some_and(|(size, _)| size > stream.len()) {
                // The answer comes behind it, unless the server has enough.
                self.closed = replies.next().is_some_and(|(code, _)| *code >= 400);
                break;
            }
            let (code, text) =
                replies.next().unwrap_or_else(|| panic!("no reply to {}", line.escape_ascii()));
            let context = || format!("{code} {text:?} to {} in {self:?}", line.escape_ascii());
            if *code == 421 {
                self.closed = true;
                break;
            }
            expects = match expects {
                Expects::Command => {
                    let verb = line.split(|octet| b" \t".contains(octet)).next().unwrap_or_default();
                    match (verb.to_ascii_uppercase().as_slice(), code) {
                        (b"STARTTLS", 220) => return None,
                        (b"EHLO" | b"HELO", 250) => {
                            self.greeted = true;
                            self.end_transaction();
                        }
                        (b"RSET", 250) => self.end_transaction(),
                        (b"QUIT", 221) => self.closed = true,
                        (b"MAIL", 250) => {
                            assert!(self.greeted && !self.mail, "{}", context());
                            assert!(!self.submission || self.authenticated, "{}", context());
                            self.mail = true;
                        }
                        (b"RCPT", 250..260) => {
                            assert!(self.mail && !self.chunked, "{}", context());
                            self.recipients += 1;
                        }
                        (b"BDAT", code) => {
                            let Some((size, last)) = chunk else {
                                // What follows may be commands or not.
                                assert_eq!(*code, 501, "{}", context());
                                self.closed = true;
                                break;
                            };
                            stream = stream.get(size..).unwrap_or_default();
                            if *code == 250 {
                                assert!(self.mail && self.recipients > 0, "{}", context());
                                self.chunked = true;
                            }
                            self.messages += usize::from(*code == 250 && last);
                            if last || *code != 250 {
                                self.end_transaction();
                            }
                        }
                        (b"AUTH", 334) => {
                            assert!(self.greeted && !self.mail && !self.authenticated, "{}", context());
                        }
                        (b"AUTH", 235) => self.authenticate(&context()),
                        (b"DATA", 354) => assert!(self.recipients > 0 && !self.chunked, "{}", context()),
                        (_, 200..400) => {
                            let harmless =
                                matches!(verb.to_ascii_uppercase().as_slice(), b"NOOP" | b"HELP" | b"VRFY");
                            assert!(harmless, "{}", context());
                        }
                        (_, 400..600) => {}
                        _ => panic!("{}", context()),
                    }
                    match (verb.to_ascii_uppercase().as_slice(), code) {
                        (b"AUTH", 334) => Expects::Response,
                        (b"DATA", 354) => Expects::Content,
                        _ => Expects::Command,
                    }
                }
                Expects::Response => match code {
                    334 => Expects::Response,
                    235 => {
                        self.authenticate(&context());
                        Expects::Command
                    }
                    400..600 => Expects::Command,
                    _ => panic!("{}", context()),
                },
                Expects::Content => {
                    assert!(*code == 250 || *code >= 400, "{}", context());
                    self.messages += usize::from(*code == 250);
                    self.end_transaction();
                    Expects::Command
                }
            };
        }
        assert_eq!(replies.next(), None, "a reply to nothing");
        assert_eq!(self.closed, closed, "{self:?}");
        Some(self.messages)
    }
}

impl Model {
    fn end_transaction(&mut self) {
        (self.mail, self.recipients, self.chunked) = (false, 0, false);
    }

    fn authenticate(&mut self, context: &str) {
        assert!(self.greeted && !self.mail && !self.authenticated, "{context}");
        self.authenticated = true;
    }
}

/// Octets of the chunk that a line announces, and whether it is the last (RFC 3030 §2).
fn chunk(line: &[u8]) -> Option<(usize, bool)> {
    let (verb, rest) = str::from_utf8(line).ok()?.split_once([' ', '\t'])?;
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let (size, last) = (words.next()?, words.next());
    let right = verb.eq_ignore_ascii_case("BDAT")
        && size.bytes().all(|octet| octet.is_ascii_digit())
        && last.is_none_or(|last| last.eq_ignore_ascii_case("LAST"))
        && words.next().is_none();
    right.then(|| (size.parse().unwrap_or(usize::MAX), last.is_some()))
}

/// What is before the first `border`, if there is one, and what is behind it.
fn split<'a>(stream: &'a [u8], border: &[u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    match stream.windows(border.len()).position(|window| window == border) {
        Some(at) => (stream.get(..at), stream.get(at + border.len()..).unwrap_or_default()),
        None => (None, &[]),
    }
}

/// The content that CRLF.CRLF ends (RFC 5321 §4.1.1.4), the first CRLF being that of `DATA` at the earliest.
fn split_content(stream: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match stream.strip_prefix(b".\r\n") {
        Some(rest) => (Some(&[]), rest),
        None => split(stream, b"\r\n.\r\n"),
    }
}

/// The code of each reply and the text of its last line.
fn replies(output: &str) -> Vec<(u16, &str)> {
    let mut replies = Vec::new();
    let mut open = None;
    for line in output.split_inclusive('\n') {
        // RFC 5321 §4.2 and §4.5.3.1.5.
        let shape =
            line.strip_suffix("\r\n").filter(|_| line.len() <= 512).and_then(|line| line.split_at_checked(3));
        let (code, text) = shape.unwrap_or_else(|| panic!("not a reply: {line:?}"));
        let code: u16 = code.parse().unwrap();
        assert!(
            (200..600).contains(&code) && text.bytes().all(|octet| (32..127).contains(&octet)),
            "{line:?}"
        );
        assert!(open.is_none_or(|first| first == code), "one reply has one code: {line:?}");
        match text.split_at_checked(1) {
            Some(("-", _)) => open = Some(code),
            Some((" ", text)) => {
                open = None;
                replies.push((code, text));
            }
            _ => panic!("not a reply: {line:?}"),
        }
    }
    assert_eq!(open, None, "the last reply has an end");
    replies
}
