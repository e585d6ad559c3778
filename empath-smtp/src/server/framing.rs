use memchr::{memchr3, memrchr};

use crate::pairs::{any_pair, is_bare, is_dot};

/// Octets that are looked at together.
const BLOCK: usize = 256;

/// Finds the end of content that follows DATA, and takes dot-stuffing away (RFC 5321 §4.5.2).
///
/// The end is exactly CRLF "." CRLF, the CRLF before the dot being that of the line before, or of the DATA command
/// (RFC 5321 §4.1.1.4). It can be resumed at any octet and keeps none: what it can't decide yet is in its state.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// After a CRLF, or at the start.
    #[default]
    LineStart,
    /// After a dot at the start of a line. It is content in no case, so it was dropped.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
    /// Inside a line.
    Text,
    /// After a CR inside a line, which is not handed out yet.
    Cr,
}

/// What stands at the start of the input, with the octets that it takes there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// Content, exactly these octets: neither NUL nor CR nor LF is in it but as CRLF.
    Content(usize),
    /// The CRLF of a line whose CR came earlier.
    Crlf(usize),
    /// A CR or LF that is not part of a CRLF.
    BareNewline(usize),
    /// A NUL.
    ///
    /// DEVIATION RFC 5321 §4.5.2: it is no content, and neither is it in chunks; software behind us would take it for an end.
    Nul(usize),
    /// Octets that are not content, or not yet.
    Skip(usize),
    /// The end of a chunk that others follow.
    EndOfChunk,
    /// The end of the content.
    End(usize),
    /// Everything was consumed.
    More,
}

impl Framed {
    /// The octets that it takes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Content(len)
            | Self::Crlf(len)
            | Self::BareNewline(len)
            | Self::Nul(len)
            | Self::Skip(len)
            | Self::End(len) => *len,
            Self::EndOfChunk | Self::More => 0,
        }
    }
}

impl Framing {
    /// Looks at the input that was not consumed yet.
    pub(super) fn next(&mut self, input: &[u8]) -> Framed {
        let Some(first) = input.first() else {
            return Framed::More;
        };
        let (state, framed) = match (self.state, first) {
            (State::LineStart, b'.') => (State::Dot, Framed::Skip(1)),
            (State::Dot, b'\r') => (State::DotCr, Framed::Skip(1)),
            (State::DotCr, b'\n') => (State::LineStart, Framed::End(1)),
            (State::Cr, b'\n') => (State::LineStart, Framed::Crlf(1)),
            // The CR was bare. What follows is inside the line still: only CRLF begins a new one.
            (State::Cr | State::DotCr, _) => (State::Text, Framed::BareNewline(0)),
            (_, b'\n') => (State::Text, Framed::BareNewline(1)),
            (_, 0) => (State::Text, Framed::Nul(1)),
            _ => run(input),
        };
        self.state = state;
        framed
    }
}

/// The longest run of content at the start of `input`, over as many lines as possible, and the state behind it.
fn run(input: &[u8]) -> (State, Framed) {
    let mut len = 0;
    loop {
        let rest = input.get(len..).unwrap_or_default();
        if let Some(lines) = plain_lines(rest) {
            len += lines;
            continue;
        }
        let Some(text) = memchr3(b'\r', b'\n', 0, rest) else {
            return (State::Text, Framed::Content(input.len()));
        };
        match rest.get(text..).unwrap_or_default() {
            [b'\r', b'\n', b'.', ..] | [b'\r', b'\n'] => {
                return (State::LineStart, Framed::Content(len + text + 2));
            }
            [b'\r', b'\n', ..] => len += text + 2,
            _ if len + text > 0 => return (State::Text, Framed::Content(len + text)),
            // Only a CR can be here: `next` has seen to the others.
            _ => return (State::Cr, Framed::Skip(1)),
        }
    }
}

/// How many octets the lines take that end in the next block, if there is nothing in it to be looked at more closely.
fn plain_lines(rest: &[u8]) -> Option<usize> {
    // One octet more, for the CRLF and the dot at its end.
    let block = rest.get(..=BLOCK)?;
    let is_special = |one, next| is_bare(one, next) || is_dot(one, next) || one == 0;
    if block.first() == Some(&b'\n') || any_pair(block, is_special) {
        return None;
    }
    Some(memrchr(b'\n', block.get(..BLOCK)?)? + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one pass over the chunks gives: content with bare newlines as `<bare>` and NULs as `<nul>`, and the
    /// octets behind the end.
    fn decode(chunks: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut framing, mut content) = (Framing::default(), Vec::new());
        let mut chunks = chunks.iter();
        while let Some(mut input) = chunks.next().copied() {
            loop {
                let len = match framing.next(input) {
                    Framed::Content(len) => {
                        content.extend_from_slice(&input[..len]);
                        len
                    }
                    Framed::Crlf(len) => {
                        content.extend_from_slice(b"\r\n");
                        len
                    }
                    Framed::BareNewline(len) => {
                        content.extend_from_slice(b"<bare>");
                        len
                    }
                    Framed::Nul(len) => {
                        content.extend_from_slice(b"<nul>");
                        len
                    }
                    Framed::Skip(len) => len,
                    Framed::More => break,
                    Framed::EndOfChunk => panic!("DATA has no chunks"),
                    Framed::End(len) => {
                        let rest = chunks.fold(input[len..].to_vec(), |rest, chunk| [&rest, *chunk].concat());
                        return (content, Some(rest));
                    }
                };
                input = &input[len..];
            }
        }
        (content, None)
    }

    fn check(stream: &[u8], content: &[u8], rest: Option<&[u8]>) {
        let expected = (content.to_vec(), rest.map(<[u8]>::to_vec));
        assert_eq!(decode(&[stream]), expected, "in one piece: {:?}", stream.escape_ascii().to_string());
        let octets: Vec<_> = stream.chunks(1).collect();
        assert_eq!(decode(&octets), expected, "octet by octet: {:?}", stream.escape_ascii().to_string());
        for at in 0..=stream.len() {
            let (one, two) = stream.split_at(at);
            assert_eq!(
                decode(&[one, two]),
                expected,
                "split at {at}: {:?}",
                stream.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn content_ends_at_crlf_dot_crlf_however_it_is_split() {
        check(b"a\r\n.\r\nQUIT\r\n", b"a\r\n", Some(b"QUIT\r\n"));
        check(b".\r\n", b"", Some(b""));
        check(b"\r\n.\r\n", b"\r\n", Some(b""));
        check(b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n", Some(b""));
        check(b"a\r\nb\r\n", b"a\r\nb\r\n", None);
    }

    #[test]
    fn one_dot_at_the_start_of_a_line_is_taken_away() {
        check(b"..\r\n.a\r\n...b\r\nc.\r\n.\r\n", b".\r\na\r\n..b\r\nc.\r\n", Some(b""));
    }

    #[test]
    fn no_other_sequence_ends_content() {
        let variants: &[(&[u8], &[u8])] = &[
            (b"\n.\n", b"<bare>.<bare>"),
            (b"\n.\r\n", b"<bare>.\r\n"),
            (b"\n.\r", b"<bare>.<bare>"),
            (b"\r.\r", b"<bare>.<bare>"),
            (b"\r.\n", b"<bare>.<bare>"),
            (b"\r.\r\n", b"<bare>.\r\n"),
            (b"\r\n.\n", b"\r\n<bare>"),
            (b"\r\n.\r", b"\r\n<bare>"),
            (b"\r\n.\0\r\n", b"\r\n<nul>\r\n"),
            (b"\r\n\0.\r\n", b"\r\n<nul>.\r\n"),
            (b"\r\0\n.\r\n", b"<bare><nul><bare>.\r\n"),
            (b"\r\n..\r\n", b"\r\n.\r\n"),
            (b"\r\n.\r\r\n", b"\r\n<bare>\r\n"),
            (b"\r\n. \r\n", b"\r\n \r\n"),
            (b"\n\n.\r\n", b"<bare><bare>.\r\n"),
            (b"\r\r.\r\n", b"<bare><bare>.\r\n"),
            (b"\n\r.\r\n", b"<bare><bare>.\r\n"),
        ];
        for (sequence, becomes) in variants {
            let stream = [b"x", *sequence, b"MAIL\r\n.\r\n"].concat();
            check(&stream, &[b"x", *becomes, b"MAIL\r\n"].concat(), Some(b""));
        }
    }

    #[test]
    fn a_bare_cr_before_a_true_end_does_not_hide_it() {
        check(b"x\r\r\n.\r\nNOOP\r\n", b"x<bare>\r\n", Some(b"NOOP\r\n"));
    }

    proptest! {
        #[test]
        fn content_is_the_same_octet_by_octet_and_in_blocks(
            mut content in "([a-z ]{0,70}\r\n){5,30}",
            changes in proptest::collection::vec((any::<prop::sample::Index>(), "[\r\n.\\x00]|\r\n[.]|\n\r\n"), 0..4),
        ) {
            for (place, change) in changes {
                content.insert_str(place.index(content.len()), &change);
            }
            let octets: Vec<_> = content.as_bytes().chunks(1).collect();
            prop_assert_eq!(decode(&[content.as_bytes()]), decode(&octets));
        }
    }

    #[test]
    fn what_is_odd_is_seen_wherever_it_is_in_a_block() {
        let lines = "0123456789abcd\r\n".repeat(4 * BLOCK / 16);
        for odd in ["\r", "\n", "\0", "\r\n.\r\n", "\n.\r\n", "\r.\r\n", "\r\n.x"] {
            for at in BLOCK - 20..2 * BLOCK + 20 {
                let (before, behind) = lines.split_at(at);
                let content = [before, odd, behind].concat();
                let octets: Vec<_> = content.as_bytes().chunks(1).collect();
                assert_eq!(decode(&[content.as_bytes()]), decode(&octets), "{odd:?} at {at}");
            }
        }
    }

    #[test]
    fn many_lines_are_handed_out_in_one_piece() {
        assert_eq!(Framing::default().next(b"a\r\nb\r\n\r\nc\r\n.\r\n"), Framed::Content(11));
    }
}
