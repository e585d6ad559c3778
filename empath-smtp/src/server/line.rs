use memchr::memchr_iter;

/// Longest line of an authentication in octets, CRLF included (RFC 4954 §4).
pub(super) const MAX_AUTH_LINE: usize = 12288;

/// Finds command lines. Only CRLF ends one (RFC 5321 §2.3.8).
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Inside a line that is too long, of which nothing is kept.
    skipping: bool,
}

/// What stands at the start of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// No whole line yet.
    Partial,
    /// A line of this many octets, CRLF included.
    Whole(usize),
    /// The end of a line that was too long; it takes this many octets.
    TooLong(usize),
    /// This many octets belong to a line that is too long.
    Skip(usize),
}

impl Lines {
    /// Looks at the input that was not consumed yet, for a line of at most that many octets.
    pub(super) fn next(&mut self, input: &[u8], most: usize) -> Line {
        let end = memchr_iter(b'\n', input)
            .find(|at| at.checked_sub(1).and_then(|cr| input.get(cr)) == Some(&b'\r'));
        if let Some(end) = end {
            let len = end + 1;
            let long = std::mem::take(&mut self.skipping) || len > most;
            return if long { Line::TooLong(len) } else { Line::Whole(len) };
        }
        if !self.skipping && input.len() < most {
            return Line::Partial;
        }
        self.skipping = true;
        // A CR at the end may be half of the CRLF that ends the line.
        match input.len() - usize::from(input.last() == Some(&b'\r')) {
            0 => Line::Partial,
            len => Line::Skip(len),
        }
    }

    /// Whether the input that was not consumed yet begins with the start of a line.
    pub(super) fn is_at_start(&self) -> bool {
        !self.skipping
    }

    /// Whether a line has begun that has not ended, `input` being what was not consumed yet.
    pub(super) fn is_inside(&self, input: &[u8]) -> bool {
        self.skipping || !input.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LINE: usize = 512;

    #[test]
    fn only_crlf_ends_a_line() {
        for partial in [&b"NOOP"[..], b"NOOP\n", b"NOOP\r", b"NOOP\n\r", b"\n", b"\r", b""] {
            assert_eq!(Lines::default().next(partial, MAX_LINE), Line::Partial, "{partial:?}");
        }
        assert_eq!(Lines::default().next(b"NOOP\r\nQUIT\r\n", MAX_LINE), Line::Whole(6));
        assert_eq!(Lines::default().next(b"NOOP\nNOOP\r\n", MAX_LINE), Line::Whole(11));
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_one_octet_more_is_too_long() {
        let line = |len: usize| [&vec![b'x'; len - 2][..], b"\r\n"].concat();
        assert_eq!(Lines::default().next(&line(MAX_LINE), MAX_LINE), Line::Whole(MAX_LINE));
        assert_eq!(Lines::default().next(&line(MAX_LINE + 1), MAX_LINE), Line::TooLong(MAX_LINE + 1));
    }

    #[test]
    fn a_long_line_is_skipped_without_keeping_it_and_the_next_line_is_found() {
        let mut lines = Lines::default();
        assert_eq!(lines.next(&[b'x'; MAX_LINE], MAX_LINE), Line::Skip(MAX_LINE));
        assert_eq!(lines.next(b"xx\r", MAX_LINE), Line::Skip(2));
        assert_eq!(lines.next(b"\r", MAX_LINE), Line::Partial);
        assert_eq!(lines.next(b"\r\nNOOP\r\n", MAX_LINE), Line::TooLong(2));
        assert_eq!(lines.next(b"NOOP\r\n", MAX_LINE), Line::Whole(6));
    }
}
