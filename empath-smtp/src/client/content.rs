use std::io;

use bytes::{Buf, Bytes};

use crate::pairs::{any_pair, is_bare, is_dot};

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

/// How a server learns where the content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By a dot on a line of its own; dots in front of lines are stuffed (RFC 5321 §4.5.2).
    Dots,
    /// It is told the octets of each chunk (RFC 3030 §2): nothing is stuffed.
    Chunks,
}

/// Content on its way out, in canonical form: every line ended by CRLF. Bare CR and bare LF become CRLF, so that no
/// server can see another end of data than ours, nor one behind it that the content comes to.
///
/// It takes the content piece by piece. A piece that is canonical goes out as it is; others are encoded block by block.
#[derive(Debug, Clone)]
pub struct Outbound {
    framing: Framing,
    rest: Bytes,
    /// Nothing in `rest` has to be changed.
    clean: bool,
    place: Place,
    last: bool,
}

/// Octets to write, in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Content.
    pub octets: Bytes,
    /// What ends an open line, and what ends dot-stuffed content.
    pub ending: &'static [u8],
    /// Nothing follows.
    pub last: bool,
}

/// Where what comes next stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// Behind a CR that ended a piece. CRLF was written for it: an LF that follows belongs to it, all else begins a line.
    AfterCr,
    InLine,
}

impl Block {
    /// Octets of both parts.
    pub fn len(&self) -> usize {
        self.octets.len() + self.ending.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Outbound {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, rest: Bytes::new(), clean: false, place: Place::LineStart, last: false }
    }

    /// Takes the next octets of content, once [`next_block`](Self::next_block) has given out what came before; `last` if
    /// none follow.
    pub fn push(&mut self, mut piece: Bytes, last: bool) {
        if !piece.is_empty() {
            if self.place == Place::AfterCr {
                self.place = Place::LineStart;
                piece.advance(usize::from(piece.starts_with(b"\n")));
            }
            self.clean = is_clean(&piece, self.framing, self.place == Place::LineStart);
        }
        (self.rest, self.last) = (piece, last);
    }

    /// The next octets to write; `None` when all are out that can be.
    pub fn next_block(&mut self) -> Option<Block> {
        if self.rest.is_empty() && !self.last {
            return None;
        }
        let octets = if self.rest.is_empty() {
            Bytes::new()
        } else if self.clean {
            self.place = if self.rest.ends_with(b"\n") { Place::LineStart } else { Place::InLine };
            std::mem::take(&mut self.rest)
        } else {
            self.encode()
        };
        let last = self.rest.is_empty() && std::mem::take(&mut self.last);
        // A line that was left open is closed; to one that is closed none is added.
        let ending: &[u8] = match (self.framing, self.place) {
            _ if !last => b"",
            (Framing::Dots, Place::InLine) => b"\r\n.\r\n",
            (Framing::Dots, _) => b".\r\n",
            (Framing::Chunks, Place::InLine) => b"\r\n",
            (Framing::Chunks, _) => b"",
        };
        Some(Block { octets, ending, last })
    }

    fn encode(&mut self) -> Bytes {
        let mut block = Vec::with_capacity(BLOCK.min(self.rest.len() + self.rest.len() / 8 + 16));
        while block.len() < BLOCK && !self.rest.is_empty() {
            let at_dot = self.place == Place::LineStart && self.rest.first() == Some(&b'.');
            if at_dot && self.framing == Framing::Dots {
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

/// Whether every line ends in CRLF and none has to be stuffed.
fn is_clean(content: &[u8], framing: Framing, line_start: bool) -> bool {
    let dots = framing == Framing::Dots;
    let first = content.first();
    first != Some(&b'\n')
        && !(dots && line_start && first == Some(&b'.'))
        && content.last() != Some(&b'\r')
        && !any_pair(content, |one, next| is_bare(one, next) || dots && is_dot(one, next))
}

/// Reads content and makes blocks of it. Two pieces of it are in memory at a time.
#[derive(Debug)]
pub(super) struct Feed<S> {
    source: S,
    outbound: Outbound,
    following: Option<Bytes>,
    /// The rest of a block.
    rest: Option<Block>,
    begun: bool,
    ended: bool,
}

impl<S: Source> Feed<S> {
    pub(super) fn new(source: S, framing: Framing) -> Self {
        let outbound = Outbound::new(framing);
        Self { source, outbound, following: None, rest: None, begun: false, ended: false }
    }

    /// The next block, of at most so many octets of content; `None` behind the last one.
    pub(super) async fn next(&mut self, most: usize) -> io::Result<Option<Block>> {
        let block = match self.rest.take() {
            None => self.block().await?,
            rest => rest,
        };
        Ok(match block {
            Some(mut block) if block.octets.len() > most => {
                let octets = block.octets.split_to(most);
                self.rest = Some(block);
                Some(Block { octets, ending: b"", last: false })
            }
            block => block,
        })
    }

    /// The last piece is known to be the last, and to be right, before any of it is given out.
    async fn block(&mut self) -> io::Result<Option<Block>> {
        loop {
            if let Some(block) = self.outbound.next_block() {
                return Ok(Some(block));
            }
            if self.ended {
                return Ok(None);
            }
            let piece = match self.following.take() {
                None if !std::mem::replace(&mut self.begun, true) => self.source.next().await?,
                following => following,
            };
            self.following = if piece.is_some() { self.source.next().await? } else { None };
            self.ended = self.following.is_none();
            self.outbound.push(piece.unwrap_or_default(), self.ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8]) -> Vec<u8> {
        encode_pieces(&[content])
    }

    /// What goes out of content that comes in these pieces.
    fn encode_pieces(pieces: &[&[u8]]) -> Vec<u8> {
        blocks(pieces, Framing::Dots).concat()
    }

    fn blocks(pieces: &[&[u8]], framing: Framing) -> Vec<Vec<u8>> {
        let (mut outbound, mut blocks) = (Outbound::new(framing), Vec::new());
        let mut ended = false;
        for (number, piece) in (1..).zip(pieces) {
            outbound.push(Bytes::copy_from_slice(piece), number == pieces.len());
            while let Some(block) = outbound.next_block() {
                assert!(!ended, "a block behind the last one");
                ended = block.last;
                blocks.push([&block.octets, block.ending].concat());
            }
        }
        assert!(ended, "no last block");
        blocks
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
        for (framing, end) in [(Framing::Dots, &b".\r\n"[..]), (Framing::Chunks, b"")] {
            let mut outbound = Outbound::new(framing);
            outbound.push(content.clone(), true);
            let Block { octets, ending, last } = outbound.next_block().unwrap();
            assert_eq!((octets.as_ptr(), octets.len()), (content.as_ptr(), content.len()));
            assert_eq!((ending, last), (end, true));
            assert_eq!(outbound.next_block(), None);
        }
    }

    #[test]
    fn in_chunks_lines_are_ended_and_nothing_is_stuffed() {
        for (content, wire) in [
            ("", ""),
            ("a\r\n", "a\r\n"),
            ("a", "a\r\n"),
            (".\r\n..\r\n", ".\r\n..\r\n"),
            ("a\n.\rb", "a\r\n.\r\nb\r\n"),
            ("a\r\n.\r\nMAIL", "a\r\n.\r\nMAIL\r\n"),
        ] {
            assert_eq!(
                blocks(&[content.as_bytes()], Framing::Chunks).concat(),
                wire.as_bytes(),
                "{content:?}"
            );
        }
    }

    #[test]
    fn large_content_is_encoded_in_bounded_blocks() {
        let content = [b".".repeat(3 * BLOCK), b"\n.\n".repeat(BLOCK)].concat();
        let blocks = blocks(&[&content], Framing::Dots);
        assert!(blocks.iter().all(|block| block.len() <= 2 * BLOCK + 3));
        assert!(blocks.len() > 3);
    }

    #[test]
    fn only_canonical_lines_without_a_dot_in_front_go_out_unchanged() {
        for clean in ["a\r\n", "a", "a.\r\nb", "\r\n\r\n"] {
            assert!(is_clean(clean.as_bytes(), Framing::Dots, true), "{clean:?}");
        }
        for dirty in ["a\nb", "a\rb", "a\r", "\n", ".", "a\r\n.b\r\n", "a\r\r\n", "a\n\r"] {
            assert!(!is_clean(dirty.as_bytes(), Framing::Dots, true), "{dirty:?}");
        }
        assert!(is_clean(b".b\r\n", Framing::Dots, false));
        assert!(is_clean(b".b\r\n.\r\n", Framing::Chunks, true));
        assert!(!is_clean(b"a\n", Framing::Chunks, true));
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
        fn chunks_and_dots_carry_the_same_content(
            content in r"([.a\r\n]|\r\n){0,40}",
            lengths in proptest::collection::vec(0..6_usize, 0..12),
        ) {
            let pieces = cut(content.as_bytes(), &lengths);
            prop_assert_eq!(decode(&encode_pieces(&pieces)), Some(blocks(&pieces, Framing::Chunks).concat()));
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
