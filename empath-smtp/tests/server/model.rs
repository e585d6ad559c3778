//! A second, simpler opinion of what a session may do: it reads what the client said beside what was answered.

/// What a client knows of its session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    /// Users must authenticate before they send.
    submission: bool,
    authenticated: bool,
    state: State,
    messages: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Fresh,
    Greeted,
    Mail,
    Rcpt,
    Chunks,
}

/// What the client's next octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Command,
    /// The response to a challenge.
    Response,
    Content,
    /// The server listens no more.
    Nothing,
}

impl Model {
    pub(crate) fn new(submission: bool) -> Self {
        Self { submission, authenticated: false, state: State::Fresh, messages: 0 }
    }

    /// Follows a session that the client has sent `stream` in and got `output` from; the server closed it or did not.
    /// Returns how many messages it must have taken. A handshake ends what can be followed.
    pub(crate) fn follow(mut self, mut stream: &[u8], output: &str, closed: bool) -> Option<usize> {
        let mut replies = replies(output).into_iter();
        let greeted = replies.next().is_some_and(|(code, _)| code == 220);
        let mut next = if greeted { Next::Command } else { Next::Nothing };
        while next != Next::Nothing {
            let (line, rest) =
                if next == Next::Content { split_content(stream) } else { split(stream, b"\r\n") };
            let chunk = line.filter(|_| next == Next::Command).and_then(chunk);
            let size = chunk.map_or(0, |(size, _)| size);
            let Some(line) = line.filter(|_| size <= rest.len()) else {
                // Not all of it has come. There is only the answer of a server that has enough.
                if replies.next().is_some() {
                    next = Next::Nothing;
                }
                break;
            };
            stream = rest.get(size..).unwrap_or_default();
            let Some((code, text)) = replies.next() else {
                panic!("no reply to {} in {self:?}", line.escape_ascii());
            };
            let before = self;
            let then = match (next, code) {
                (_, 421) => Some(Next::Nothing),
                (Next::Command, _) => {
                    let verb = line.split(|octet| b" \t".contains(octet)).next().unwrap_or_default();
                    let verb = verb.to_ascii_uppercase();
                    if (verb.as_slice(), code) == (b"STARTTLS", 220) {
                        return None;
                    }
                    self.command(&verb, code, chunk)
                }
                (Next::Response, 334) => Some(Next::Response),
                (Next::Response, 235) => self.authenticate(),
                (Next::Content, 250) => Some(self.message()),
                (Next::Content, 400..) => Some(self.end_transaction()),
                (_, code) => (code >= 400).then_some(Next::Command),
            };
            next = then.unwrap_or_else(|| panic!("{code} {text} to {} in {before:?}", line.escape_ascii()));
        }
        assert_eq!(replies.next(), None, "a reply to nothing");
        assert_eq!(next == Next::Nothing, closed, "{self:?}");
        Some(self.messages)
    }

    /// What comes after a command that was answered so; `None` if that was wrong.
    fn command(&mut self, verb: &[u8], code: u16, chunk: Option<(usize, bool)>) -> Option<Next> {
        match (verb, code) {
            (b"EHLO" | b"HELO", 250) => {
                self.state = State::Greeted;
                Some(Next::Command)
            }
            (b"RSET", 250) => Some(self.end_transaction()),
            (b"QUIT", 221) => Some(Next::Nothing),
            (b"MAIL", 250) if !self.submission || self.authenticated => {
                self.step(State::Greeted, State::Mail)
            }
            (b"RCPT", 250..260) if self.state == State::Mail => self.step(State::Mail, State::Rcpt),
            (b"RCPT", 250..260) => self.step(State::Rcpt, State::Rcpt),
            (b"DATA", 354) if self.state == State::Rcpt => Some(Next::Content),
            (b"BDAT", 250) if self.state >= State::Rcpt => {
                let (_, last) = chunk?;
                self.state = State::Chunks;
                Some(if last { self.message() } else { Next::Command })
            }
            (b"BDAT", 400..) if chunk.is_some() => Some(self.end_transaction()),
            // What follows it may be commands or not.
            (verb, 501) if verb.starts_with(b"BDAT") => Some(Next::Nothing),
            (b"AUTH", 334) if self.state == State::Greeted && !self.authenticated => Some(Next::Response),
            (b"AUTH", 235) => self.authenticate(),
            (b"NOOP" | b"HELP" | b"VRFY", 200..300) => Some(Next::Command),
            (_, code) => (code >= 400).then_some(Next::Command),
        }
    }

    fn step(&mut self, from: State, to: State) -> Option<Next> {
        (std::mem::replace(&mut self.state, to) == from).then_some(Next::Command)
    }

    fn authenticate(&mut self) -> Option<Next> {
        let allowed = self.state == State::Greeted && !std::mem::replace(&mut self.authenticated, true);
        allowed.then_some(Next::Command)
    }

    fn message(&mut self) -> Next {
        self.messages += 1;
        self.end_transaction()
    }

    fn end_transaction(&mut self) -> Next {
        self.state = self.state.min(State::Greeted);
        Next::Command
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
