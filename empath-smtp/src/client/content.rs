use std::io;

use bytes::{Buf, Bytes};

/// Octets of encoded content made at a time, where the content can't go out as it is.
const BLOCK: usize = 64 * 1024;

/// Content that is read from its start to its end: header and body, not dot-stuffed.
pub trait Source: Send {
    /// The next octets; `None` when all have been read and are known to be right. Only then is the end of data written:
    /// after an error the server never gets a message that is cut off or damaged.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// Content in memory.
impl Source for Bytes {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let all = std::mem::take(self);
        Ok((!all.is_empty()).then_some(all))
    }
}

/// What one look over some content tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Octets of content.
    pub(super) octets: u64,
    /// Some octet is above 127.
    pub(super) eight_bit: bool,
    /// Some octet of the header is above 127.
    pub(super) eight_bit_header: bool,
}

impl Survey {
    /// Reads all of it.
    pub async fn of(mut content: impl Source) -> io::Result<Self> {
        let (mut survey, mut header) = (Self::default(), Header::default());
        while let Some(piece) = content.next().await? {
            survey.octets += piece.len() as u64;
            survey.eight_bit |= !piece.is_ascii();
            survey.eight_bit_header |= !header.part_of(&piece).is_ascii();
        }
        Ok(survey)
    }
}

/// Finds the end of the header, which is the first empty line (RFC 5322 §2.1), in content that comes in pieces.
#[derive(Debug, Default)]
struct Header {
    line: Line,
    ended: bool,
}

/// What there is of the present line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    #[default]
    Nothing,
    Cr,
    Text,
}

impl Line {
    fn with(self, more: &[u8]) -> Self {
        match (self, more) {
            (line, b"") => line,
            (Self::Nothing, b"\r") => Self::Cr,
            _ => Self::Text,
        }
    }
}

impl Header {
    /// As much of the next piece as belongs to the header.
    fn part_of<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.ended {
            return b"";
        }
        let mut start = 0;
        for lf in memchr::memchr_iter(b'\n', piece) {
            if self.line.with(piece.get(start..lf).unwrap_or_default()) != Line::Text {
                self.ended = true;
                return piece.get(..lf).unwrap_or_default();
            }
            (self.line, start) = (Line::Nothing, lf + 1);
        }
        self.line = self.line.with(piece.get(start..).unwrap_or_default());
        piece
    }
}

/// Content on its way out, in canonical form: every line ended by CRLF, dots stuffed (RFC 5321 §4.5.2), then the
/// end of data. Bare CR and bare LF become CRLF, so that no server can see another end of data than ours.
///
/// It takes the content piece by piece. A piece that is canonical goes out as it is; others are encoded block by block.
#[derive(Debug, Clone)]
pub struct Outbound {
    rest: Bytes,
    /// Nothing in `rest` has to be changed.
    clean: bool,
    place: Place,
    last: bool,
}

/// Where what comes next stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// Behind a CR that ended a piece. CRLF was written for it: an LF that follows belongs to it, all else begins a line.
    AfterCr,
    InLine,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self { rest: Bytes::new(), clean: false, place: Place::LineStart, last: false }
    }

    /// Takes the next octets of content, once [`next_block`](Self::next_block) has given out what came before; `last` if
    /// none follow.
    pub fn push(&mut self, mut piece: Bytes, last: bool) {
        if !piece.is_empty() {
            if self.place == Place::AfterCr {
                self.place = Place::LineStart;
                piece.advance(usize::from(piece.starts_with(b"\n")));
            }
            self.clean = is_clean(&piece, self.place == Place::LineStart);
        }
        (self.rest, self.last) = (piece, last);
    }

    /// The next octets to write, in two parts; `None` when all are out that can be.
    pub fn next_block(&mut self) -> Option<(Bytes, &'static [u8])> {
        if self.rest.is_empty() && !self.last {
            return None;
        }
        let block = if self.rest.is_empty() {
            Bytes::new()
        } else if self.clean {
            self.place = if self.rest.ends_with(b"\n") { Place::LineStart } else { Place::InLine };
            std::mem::take(&mut self.rest)
        } else {
            self.encode()
        };
        if !self.rest.is_empty() || !std::mem::take(&mut self.last) {
            return Some((block, b""));
        }
        // A line that was left open is closed; to one that is closed none is added.
        Some((block, if self.place == Place::InLine { b"\r\n.\r\n" } else { b".\r\n" }))
    }

    fn encode(&mut self) -> Bytes {
        let mut block = Vec::with_capacity(BLOCK.min(self.rest.len() + self.rest.len() / 8 + 16));
        while block.len() < BLOCK && !self.rest.is_empty() {
            if self.place == Place::LineStart && self.rest.first() == Some(&b'.') {
                block.push(b'.');
            }
            // A line may be endless: it is taken in parts.
            let part = self.rest.get(..BLOCK).unwrap_or(&self.rest);
            let end = memchr::memchr2(b'\r', b'\n', part);
            let text = self.rest.split_to(end.unwrap_or(part.len()));
            block.extend_from_slice(&text);
            self.place = Place::InLine;
            if end.is_some() {
                block.extend_from_slice(b"\r\n");
                self.place = if *self.rest == *b"\r" { Place::AfterCr } else { Place::LineStart };
                self.rest.advance(if self.rest.starts_with(b"\r\n") { 2 } else { 1 });
            }
        }
        block.into()
    }
}

/// Whether every line ends in CRLF and none starts with a dot.
fn is_clean(content: &[u8], line_start: bool) -> bool {
    if line_start && content.first() == Some(&b'.') {
        return false;
    }
    let mut crlfs = 0;
    for lf in memchr::memchr_iter(b'\n', content) {
        let after_cr = lf.checked_sub(1).and_then(|before| content.get(before)) == Some(&b'\r');
        if !after_cr || content.get(lf + 1) == Some(&b'.') {
            return false;
        }
        crlfs += 1;
    }
    // Each LF has a CR of its own, so any further CR is bare.
    memchr::memchr_iter(b'\r', content).count() == crlfs
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8]) -> Vec<u8> {
        encode_pieces(&[content])
    }

    /// What goes out of content that comes in these pieces.
    fn encode_pieces(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut outbound, mut wire) = (Outbound::new(), Vec::new());
        for (number, piece) in (1..).zip(pieces) {
            outbound.push(Bytes::copy_from_slice(piece), number == pieces.len());
            while let Some((block, ending)) = outbound.next_block() {
                wire.extend_from_slice(&block);
                wire.extend_from_slice(ending);
            }
        }
        wire
    }

    /// Content cut into pieces of these lengths, the last of which takes the rest.
    fn cut<'a>(mut content: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for length in lengths {
            let (piece, rest) = content.split_at(content.len().min(*length));
            pieces.push(piece);
            content = rest;
        }
        pieces.push(content);
        pieces
    }

    /// Pieces as a source.
    struct Pieces<'a>(std::slice::Iter<'a, &'a [u8]>);

    impl Source for Pieces<'_> {
        async fn next(&mut self) -> io::Result<Option<Bytes>> {
            Ok(self.0.next().map(|piece| Bytes::copy_from_slice(piece)))
        }
    }

    fn survey(pieces: &[&[u8]]) -> Survey {
        let mut surveying = pin!(Survey::of(Pieces(pieces.iter())));
        match surveying.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(survey) => survey.unwrap(),
            Poll::Pending => panic!("pieces in memory are there at once"),
        }
    }

    /// RFC 5321 §4.5.2 from the server's side; `None` unless the end of data comes exactly at the end.
    fn decode(wire: &[u8]) -> Option<Vec<u8>> {
        let (mut content, mut rest) = (Vec::new(), wire);
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")? + 2;
            let (line, after) = rest.split_at(end);
            if line == b".\r\n" {
                return after.is_empty().then_some(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            rest = after;
        }
    }

    #[test]
    fn content_goes_out_stuffed_with_crlf_only_and_one_end() {
        for (content, wire) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("..a\r\nb.\r\n.c\r\n", "...a\r\nb.\r\n..c\r\n.\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb\r", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r\r\n.\n\r", "a\r\n\r\n..\r\n\r\n.\r\n"),
            ("a\n\r\n.", "a\r\n\r\n..\r\n.\r\n"),
        ] {
            assert_eq!(encode(content.as_bytes()), wire.as_bytes(), "{content:?}");
        }
    }

    #[test]
    fn clean_content_is_one_block_that_is_not_copied() {
        let content = Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n");
        let mut outbound = Outbound::new();
        outbound.push(content.clone(), true);
        let (block, ending) = outbound.next_block().unwrap();
        assert_eq!(
            (block.as_ptr(), block.len(), ending),
            (content.as_ptr(), content.len(), b".\r\n".as_slice())
        );
        assert_eq!(outbound.next_block(), None);
    }

    #[test]
    fn large_content_is_encoded_in_bounded_blocks() {
        let content = [b".".repeat(3 * BLOCK), b"\n.\n".repeat(BLOCK)].concat();
        let mut outbound = Outbound::new();
        outbound.push(content.into(), true);
        let mut blocks = 0;
        while let Some((block, _)) = outbound.next_block() {
            assert!(block.len() <= 2 * BLOCK + 3, "{}", block.len());
            blocks += 1;
        }
        assert!(blocks > 3);
    }

    #[test]
    fn the_survey_tells_header_and_body_apart() {
        let survey = |content: &str| {
            let whole = survey(&[content.as_bytes()]);
            for at in 0..content.len() {
                let (one, other) = content.as_bytes().split_at(at);
                assert_eq!(survey(&[one, other]), whole, "{content:?} cut at {at}");
            }
            (whole.octets, whole.eight_bit, whole.eight_bit_header)
        };
        assert_eq!(survey("A: b\r\n\r\nc\r\n"), (11, false, false));
        assert_eq!(survey("A: b\r\n\r\né"), (10, true, false));
        assert_eq!(survey("A: b\n\né"), (8, true, false));
        assert_eq!(survey("\r\né"), (4, true, false));
        assert_eq!(survey("A: é\r\n\r\nc"), (10, true, true));
        assert_eq!(survey("A: b\nB: é\n\nc"), (13, true, true));
        assert_eq!(survey("A: b\r\r\né"), (9, true, true));
        assert_eq!(survey(""), (0, false, false));
    }

    #[test]
    fn only_canonical_lines_without_a_dot_in_front_go_out_unchanged() {
        for clean in ["a\r\n", "a", "a.\r\nb", "\r\n\r\n"] {
            assert!(is_clean(clean.as_bytes(), true), "{clean:?}");
        }
        for dirty in ["a\nb", "a\rb", "a\r", "\n", ".", "a\r\n.b\r\n", "a\r\r\n", "a\n\r"] {
            assert!(!is_clean(dirty.as_bytes(), true), "{dirty:?}");
        }
        assert!(is_clean(b".b\r\n", false));
    }

    proptest! {
        #[test]
        fn unstuffing_what_was_stuffed_gives_canonical_content_back(lines in r"([.a\x00é]{0,4}\r\n){0,12}") {
            prop_assert_eq!(decode(&encode(lines.as_bytes())), Some(lines.into_bytes()));
        }

        #[test]
        fn however_the_content_is_cut_the_same_octets_go_out(
            content in r"([.a\r\n]|\r\n){0,40}",
            lengths in proptest::collection::vec(0..6_usize, 0..12),
        ) {
            let content = content.as_bytes();
            prop_assert_eq!(encode_pieces(&cut(content, &lengths)), encode(content));
        }

        #[test]
        fn whatever_the_content_only_the_end_is_an_end_of_data(content in r"[.a\r\n]{0,40}") {
            let wire = encode(content.as_bytes());
            let decoded = decode(&wire).expect("one end of data, at the end");
            // Nothing that a lenient server would take for an end of line.
            for (i, octet) in wire.iter().enumerate() {
                prop_assert!(*octet != b'\n' || (i > 0 && wire[i - 1] == b'\r'));
                prop_assert!(*octet != b'\r' || wire.get(i + 1) == Some(&b'\n'));
            }
            let letters = |octets: &[u8]| octets.iter().filter(|o| !b"\r\n".contains(o)).copied().collect::<Vec<_>>();
            prop_assert_eq!(letters(&decoded), letters(content.as_bytes()));
        }
    }
}
