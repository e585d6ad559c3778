use bytes::Bytes;

/// Octets of encoded content made at a time, where the content can't go out as it is.
const BLOCK: usize = 64 * 1024;

/// What one look over some content tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    /// Every line ends in CRLF and none starts with a dot: nothing has to be changed on the way out.
    pub(super) clean: bool,
    /// Some octet is above 127.
    pub(super) eight_bit: bool,
    /// Some octet of the header is above 127.
    pub(super) eight_bit_header: bool,
}

impl Survey {
    pub(super) fn of(content: &[u8]) -> Self {
        let eight_bit = !content.is_ascii();
        Self {
            clean: is_clean(content),
            eight_bit,
            eight_bit_header: eight_bit && !header(content).is_ascii(),
        }
    }
}

fn is_clean(content: &[u8]) -> bool {
    if content.first() == Some(&b'.') {
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

/// The header: everything before the first empty line (RFC 5322 §2.1).
fn header(content: &[u8]) -> &[u8] {
    let mut start = 0;
    for lf in memchr::memchr_iter(b'\n', content) {
        if matches!(content.get(start..lf), Some(b"" | b"\r")) {
            return content.get(..start).unwrap_or_default();
        }
        start = lf + 1;
    }
    content
}

/// Content on its way out, in canonical form: every line ended by CRLF, dots stuffed (RFC 5321 §4.5.2), then the
/// end of data. Bare CR and bare LF become CRLF, so that no server can see another end of data than ours.
///
/// Clean content goes out as it is, in one piece; other content is encoded block by block.
#[derive(Debug, Clone)]
pub struct Outbound {
    rest: Bytes,
    clean: bool,
    line_start: bool,
    ended: bool,
}

impl Outbound {
    pub(super) fn new(content: Bytes, survey: Survey) -> Self {
        Self { rest: content, clean: survey.clean, line_start: true, ended: false }
    }

    /// The next octets to write, in two parts; `None` after the end of data.
    pub fn next_block(&mut self) -> Option<(Bytes, &'static [u8])> {
        if self.ended {
            return None;
        }
        let block = if self.clean {
            self.line_start = self.rest.is_empty() || self.rest.ends_with(b"\n");
            std::mem::take(&mut self.rest)
        } else {
            self.encode()
        };
        if !self.rest.is_empty() {
            return Some((block, b""));
        }
        self.ended = true;
        // A line that was left open is closed; to one that is closed none is added.
        Some((block, if self.line_start { b".\r\n" } else { b"\r\n.\r\n" }))
    }

    fn encode(&mut self) -> Bytes {
        let mut block = Vec::with_capacity(BLOCK.min(self.rest.len() + self.rest.len() / 8 + 16));
        while block.len() < BLOCK && !self.rest.is_empty() {
            if self.line_start && self.rest.first() == Some(&b'.') {
                block.push(b'.');
            }
            // A line may be endless: it is taken in parts.
            let part = self.rest.get(..BLOCK).unwrap_or(&self.rest);
            let end = memchr::memchr2(b'\r', b'\n', part);
            let text = self.rest.split_to(end.unwrap_or(part.len()));
            block.extend_from_slice(&text);
            self.line_start = end.is_some();
            if end.is_some() {
                block.extend_from_slice(b"\r\n");
                let ending = if self.rest.starts_with(b"\r\n") { 2 } else { 1 };
                self.rest = self.rest.slice(ending..);
            }
        }
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8]) -> Vec<u8> {
        let content = Bytes::copy_from_slice(content);
        let survey = Survey::of(&content);
        let mut outbound = Outbound::new(content, survey);
        let mut wire = Vec::new();
        while let Some((block, ending)) = outbound.next_block() {
            wire.extend_from_slice(&block);
            wire.extend_from_slice(ending);
        }
        wire
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
        let mut outbound = Outbound::new(content.clone(), Survey::of(&content));
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
        let survey = Survey::of(&content);
        let mut outbound = Outbound::new(content.into(), survey);
        let mut blocks = 0;
        while let Some((block, _)) = outbound.next_block() {
            assert!(block.len() <= 2 * BLOCK + 3, "{}", block.len());
            blocks += 1;
        }
        assert!(blocks > 3);
    }

    #[test]
    fn the_survey_tells_header_and_body_apart() {
        let survey = |content: &str| Survey::of(content.as_bytes());
        assert_eq!(
            survey("A: b\r\n\r\nc\r\n"),
            Survey { clean: true, eight_bit: false, eight_bit_header: false }
        );
        assert!(survey("A: b\r\n\r\né").eight_bit && !survey("A: b\r\n\r\né").eight_bit_header);
        assert!(survey("A: é\r\n\r\nc").eight_bit_header);
        assert!(survey("A: b\nB: é\n\nc").eight_bit_header);
        assert!(survey("A: b\r\n\r\nc").clean);
        for dirty in ["a\nb", "a\rb", "a\r", "\n", ".", "a\r\n.b\r\n", "a\r\r\n", "a\n\r"] {
            assert!(!survey(dirty).clean, "{dirty:?}");
        }
    }

    proptest! {
        #[test]
        fn unstuffing_what_was_stuffed_gives_canonical_content_back(lines in r"([.a\x00é]{0,4}\r\n){0,12}") {
            prop_assert_eq!(decode(&encode(lines.as_bytes())), Some(lines.into_bytes()));
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
