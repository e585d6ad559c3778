use empath_common::Reply;
use memchr::memchr3;

use super::{framing::Framed, reply};

/// What BDAT announces (RFC 3030 §2): so many octets of content, and whether they are the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) size: u64,
    pub(super) last: bool,
}

impl Chunk {
    /// Parses the argument of BDAT: `1*DIGIT [SP "LAST"]`. What does not fit 64 bits is larger than any limit.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, Reply> {
        let mut words = argument.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty());
        let digits = words.next().ok_or(reply::BAD_BDAT)?;
        let last = words.next().map(|word| word.eq_ignore_ascii_case(b"LAST"));
        if !digits.iter().all(u8::is_ascii_digit) || last == Some(false) || words.next().is_some() {
            return Err(reply::BAD_BDAT);
        }
        let size = digits
            .iter()
            .fold(0_u64, |size, digit| size.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        Ok(Self { size, last: last.is_some() })
    }
}

/// Finds the ends of chunks, and the lines of what is in them: a dot means nothing there, and nothing in there ends the
/// content (RFC 3030 §2).
///
/// Lines go on from chunk to chunk, so a CRLF may be cut in two. One that is open at the end of the last chunk is ended:
/// what is stored can be sent on with DATA. Like [`Framing`](super::framing::Framing) it can be resumed at any octet and
/// keeps none.
#[derive(Debug)]
pub(super) struct Chunks {
    chunk: Chunk,
    /// Octets of the chunk that are still to come.
    left: u64,
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// After a CRLF, or at the start.
    Start,
    /// Inside a line.
    Text,
    /// After a CR, which is not handed out yet.
    Cr,
}

impl Chunks {
    pub(super) fn new(first: Chunk) -> Self {
        Self { chunk: first, left: first.size, line: Line::Start }
    }

    /// The next chunk, once [`Framed::EndOfChunk`] has come.
    pub(super) fn begin(&mut self, chunk: Chunk) {
        (self.chunk, self.left) = (chunk, chunk.size);
    }

    /// Octets of the whole chunk.
    pub(super) fn size(&self) -> u64 {
        self.chunk.size
    }

    /// Octets of the chunk that are still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Looks at the input that was not consumed yet, and at no octet behind the chunk.
    pub(super) fn next(&mut self, input: &[u8]) -> Framed {
        let len = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        let input = input.get(..len).unwrap_or_default();
        let Some(first) = input.first() else {
            return self.end();
        };
        let (line, framed) = match (self.line, first) {
            (Line::Cr, b'\n') => (Line::Start, Framed::Crlf(1)),
            (Line::Cr, _) => (Line::Start, Framed::BareNewline(0)),
            (_, b'\n') => (Line::Start, Framed::BareNewline(1)),
            (_, 0) => (Line::Text, Framed::Nul(1)),
            _ => run(input),
        };
        self.line = line;
        self.left -= framed.len() as u64;
        framed
    }

    fn end(&mut self) -> Framed {
        if self.left > 0 {
            return Framed::More;
        }
        if !self.chunk.last {
            return Framed::EndOfChunk;
        }
        match std::mem::replace(&mut self.line, Line::Start) {
            Line::Cr => Framed::BareNewline(0),
            Line::Text => Framed::Crlf(0),
            Line::Start => Framed::End(0),
        }
    }
}

/// The longest run of content at the start of `input`, over as many lines as possible, and where it ends.
fn run(input: &[u8]) -> (Line, Framed) {
    let mut len = 0;
    loop {
        let rest = input.get(len..).unwrap_or_default();
        if rest.is_empty() {
            return (Line::Start, Framed::Content(len));
        }
        let Some(text) = memchr3(b'\r', b'\n', 0, rest) else {
            return (Line::Text, Framed::Content(input.len()));
        };
        match rest.get(text..).unwrap_or_default() {
            [b'\r', b'\n', ..] => len += text + 2,
            // Only a CR can be here: `next` has seen to the others.
            _ if len + text == 0 => return (Line::Cr, Framed::Skip(1)),
            _ if text == 0 => return (Line::Start, Framed::Content(len)),
            _ => return (Line::Text, Framed::Content(len + text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_digits_and_last_may_follow() {
        let chunk = |size, last| Ok(Chunk { size, last });
        for (argument, parsed) in [
            ("0", chunk(0, false)),
            ("86 LAST", chunk(86, true)),
            ("007 \t last", chunk(7, true)),
            ("4294967301", chunk(4_294_967_301, false)),
            ("18446744073709551615", chunk(u64::MAX, false)),
            ("18446744073709551616", chunk(u64::MAX, false)),
            (&"9".repeat(400), chunk(u64::MAX, false)),
            ("", Err(501)),
            ("LAST", Err(501)),
            ("-1", Err(501)),
            ("+5", Err(501)),
            ("0x10", Err(501)),
            ("1e3", Err(501)),
            ("5LAST", Err(501)),
            ("5 FIRST", Err(501)),
            ("5 LAST LAST", Err(501)),
            ("5 5", Err(501)),
            ("\u{0663}", Err(501)),
        ] {
            assert_eq!(
                Chunk::parse(argument.as_bytes()).map_err(|reply| reply.code.get()),
                parsed,
                "{argument}"
            );
        }
    }

    /// What one pass over chunks gives that are read in these pieces, as `framing` shows it.
    fn decode(chunks: &[&[u8]], size: usize) -> Vec<u8> {
        let mut reader: Option<Chunks> = None;
        let mut content = Vec::new();
        for (number, octets) in (1..).zip(chunks) {
            let chunk = Chunk { size: octets.len() as u64, last: number == chunks.len() };
            match &mut reader {
                Some(reader) => reader.begin(chunk),
                None => reader = Some(Chunks::new(chunk)),
            }
            let reader = reader.as_mut().unwrap();
            // What follows the chunk is not looked at.
            let stream = [*octets, b"\r\n.\r\n\0"].concat();
            let (mut at, mut seen) = (0, size.min(stream.len()));
            loop {
                let framed = reader.next(&stream[at..seen]);
                match framed {
                    Framed::Content(len) => content.extend_from_slice(&stream[at..at + len]),
                    Framed::Crlf(_) => content.extend_from_slice(b"\r\n"),
                    Framed::BareNewline(_) => content.extend_from_slice(b"<bare>"),
                    Framed::Nul(_) => content.extend_from_slice(b"<nul>"),
                    Framed::Skip(_) => {}
                    Framed::More => seen = (seen + size).min(stream.len()),
                    Framed::EndOfChunk | Framed::End(_) => break,
                }
                at += framed.len();
            }
            assert_eq!(at, octets.len(), "all of the chunk is consumed, and nothing behind it");
        }
        content
    }

    fn check(octets: &[u8], content: &[u8]) {
        for size in [1, 2, usize::MAX / 2] {
            assert_eq!(
                decode(&[octets], size),
                content,
                "{:?} in reads of {size}",
                octets.escape_ascii().to_string()
            );
        }
        for at in 0..=octets.len() {
            let (one, two) = octets.split_at(at);
            for chunks in [&[one, two][..], &[one, b"", two], &[one, two, b""]] {
                assert_eq!(decode(chunks, 3), content, "{:?} cut at {at}", octets.escape_ascii().to_string());
            }
        }
        assert_eq!(decode(&octets.chunks(1).chain([&b""[..]]).collect::<Vec<_>>(), 1), content);
    }

    #[test]
    fn lines_are_taken_as_they_are_however_chunks_and_reads_cut_them() {
        for content in
            [&b""[..], b"\r\n", b"a\r\n\r\n.\r\n..\r\nb\r\n", b".\r\n", b"\r\n.\r\nMAIL FROM:<x@y>\r\n"]
        {
            check(content, content);
        }
    }

    #[test]
    fn a_line_that_is_open_at_the_end_is_ended() {
        check(b"a", b"a\r\n");
        check(b"a\r\n.", b"a\r\n.\r\n");
    }

    #[test]
    fn what_is_no_line_is_told() {
        check(b"a\rb\r\n", b"a<bare>b\r\n");
        check(b"a\nb\r\n", b"a<bare>b\r\n");
        check(b"a\0b\r\n", b"a<nul>b\r\n");
        check(b"a\r\r\n", b"a<bare>\r\n");
        check(b"a\r\n\r", b"a\r\n<bare>");
        check(b"\n.\n", b"<bare>.<bare>");
        check(b"a\r", b"a<bare>");
        check(b"\0", b"<nul>\r\n");
    }

    #[test]
    fn many_lines_are_handed_out_in_one_piece() {
        let octets = b"a\r\n.\r\n\r\nb";
        let mut chunks = Chunks::new(Chunk { size: 10, last: true });
        assert_eq!(chunks.next(octets), Framed::Content(octets.len()));
    }
}
