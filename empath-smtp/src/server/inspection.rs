use empath_common::Reply;
use memchr::{memchr, memrchr};

use super::{Limits, reply};

/// Watches content go by, in whatever pieces, and says when it passes a limit.
#[derive(Debug)]
pub(super) struct Inspection {
    /// Octets so far.
    size: u64,
    /// Octets of the line that is going on.
    line: usize,
    /// What is known of the header section; `None` in the body.
    header: Option<Header>,
}

/// A limit is passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// By the octet with this number, of those that were given; the ones before it were within all limits. So what is
    /// said of content is the same in whatever pieces it comes.
    pub(super) at: usize,
    /// How to refuse the message.
    pub(super) reply: Reply,
}

#[derive(Debug, Default)]
struct Header {
    fields: usize,
    hops: usize,
    place: Place,
}

/// Where in a line of the header section.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    LineStart,
    /// Behind so many octets of a field's name, which are those of [`RECEIVED`] or not.
    Name(usize, bool),
    /// Between the name and the colon.
    Space(bool),
    /// Behind what matters.
    Rest,
}

/// The name of the field that every host on the way adds (RFC 5321 §4.4).
const RECEIVED: &[u8] = b"received";

impl Default for Inspection {
    fn default() -> Self {
        Self { size: 0, line: 0, header: Some(Header::default()) }
    }
}

impl Inspection {
    /// Octets of content so far (RFC 1870 §3: CRLF counts, dot-stuffing does not).
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next octets of content.
    pub(super) fn take(&mut self, octets: &[u8], limits: &Limits) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(rest) = octets.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(lines) = self.body_lines(rest, limits) {
                self.size += lines as u64;
                self.line = 0;
                at += lines;
                continue;
            }
            let newline = memchr(b'\n', rest);
            let part = rest.get(..newline.map_or(rest.len(), |at| at + 1)).unwrap_or(rest);
            self.part(part, limits).map_err(|fault| Fault { at: at + fault.at, ..fault })?;
            at += part.len();
            if newline.is_some() {
                self.end_line();
            }
        }
        Ok(())
    }

    /// How many octets those lines of the body take that end so soon that none of them can be too long, nor the message too
    /// large.
    fn body_lines(&self, rest: &[u8], limits: &Limits) -> Option<usize> {
        if self.header.is_some() {
            return None;
        }
        let room = limits.content_line.saturating_sub(self.line).min(rest.len());
        let lines = memrchr(b'\n', rest.get(..room)?)? + 1;
        (self.size.saturating_add(lines as u64) <= limits.message_size.0).then_some(lines)
    }

    /// Takes octets of one line. Of several limits that they pass, the one that is passed first counts.
    fn part(&mut self, part: &[u8], limits: &Limits) -> Result<(), Fault> {
        let before = self.size;
        let beyond = |limit: u64, reply| {
            let room = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
            (part.len() > room).then_some(Fault { at: room, reply })
        };
        let size = beyond(limits.message_size.0, reply::TOO_LARGE);
        let room = limits.content_line.saturating_sub(self.line);
        let line = (part.len() > room).then_some(Fault { at: room, reply: reply::LINE_TOO_LONG });
        self.size += part.len() as u64;
        self.line += part.len();
        let in_header = self.header.is_some();
        let (header, len) = self.header(part, limits);
        // A line may be as long as the body's; a header is not.
        let header_size = beyond(limits.header_size.0, reply::HEADER_TOO_LARGE);
        let header_size = header_size.filter(|fault| in_header && fault.at < len);
        let first = [size, line, header, header_size].into_iter().flatten().min_by_key(|fault| fault.at);
        first.map_or(Ok(()), Err)
    }

    /// Counts fields and `Received` fields by their names, which may come in pieces. A line that is none ends the header
    /// section too, as every server has it: people do send mail without one. Returns how much of the part is header.
    fn header(&mut self, part: &[u8], limits: &Limits) -> (Option<Fault>, usize) {
        let Some(header) = &mut self.header else {
            return (None, 0);
        };
        for (at, octet) in part.iter().enumerate() {
            match header.next(*octet) {
                Some(Place::Rest) if header.hops > limits.hops => {
                    return (Some(Fault { at, reply: reply::TOO_MANY_HOPS }), part.len());
                }
                Some(Place::Rest) if header.fields > limits.header_fields => {
                    return (Some(Fault { at, reply: reply::TOO_MANY_FIELDS }), part.len());
                }
                Some(Place::Rest) => break,
                Some(_) => {}
                None => {
                    self.header = None;
                    return (None, at);
                }
            }
        }
        (None, part.len())
    }

    /// An empty line ends the header section (RFC 5322 §2.1).
    fn end_line(&mut self) {
        let empty = self.line == b"\r\n".len();
        self.line = 0;
        match &mut self.header {
            Some(header) if !empty => header.place = Place::LineStart,
            header => *header = None,
        }
    }
}

impl Header {
    /// Goes on by one octet; `None` if the line is no field (RFC 5322 §2.2, and space in front of the colon, §4.5).
    fn next(&mut self, octet: u8) -> Option<Place> {
        self.place = match (self.place, octet) {
            (Place::Rest, _) | (Place::LineStart, b' ' | b'\t' | b'\r') => Place::Rest,
            (Place::Name(len, received), b':') => self.field(received && len == RECEIVED.len()),
            (Place::Space(received), b':') => self.field(received),
            (Place::Name(len, received), b' ' | b'\t') => Place::Space(received && len == RECEIVED.len()),
            (Place::Space(received), b' ' | b'\t') => Place::Space(received),
            (Place::LineStart, b'!'..=b'9' | b';'..=b'~') => Place::Name(1, is_received(0, octet)),
            (Place::Name(len, received), b'!'..=b'~') => {
                Place::Name(len + 1, received && is_received(len, octet))
            }
            _ => return None,
        };
        Some(self.place)
    }

    fn field(&mut self, received: bool) -> Place {
        self.fields += 1;
        self.hops += usize::from(received);
        Place::Rest
    }
}

fn is_received(at: usize, octet: u8) -> bool {
    RECEIVED.get(at).is_some_and(|expected| octet.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use empath_common::ByteSize;

    use super::*;

    fn inspect(content: &str, limits: &Limits) -> Result<(), u16> {
        let whole = Inspection::default().take(content.as_bytes(), limits);
        let mut pieces = Inspection::default();
        let octets = content.as_bytes().chunks(1).enumerate();
        let split = octets.into_iter().try_for_each(|(before, octet)| {
            pieces.take(octet, limits).map_err(|fault| Fault { at: before + fault.at, ..fault })
        });
        assert_eq!(whole, split, "octet by octet is the same as in one piece: {content:?}");
        whole.map_err(|fault| fault.reply.code.get())
    }

    #[test]
    fn received_fields_are_counted_by_name_in_the_header_only() {
        let limits = Limits { hops: 2, ..Limits::default() };
        let two = "Received: a\r\nRECEIVED : b\r\n\tfolded\r\nReceived-SPF: c\r\nX-Received: d\r\n";
        assert_eq!(inspect(two, &limits), Ok(()));
        assert_eq!(inspect(&format!("{two}\r\nReceived: body\r\n"), &limits), Ok(()));
        assert_eq!(inspect(&format!("{two}received:\r\n"), &limits), Err(554));
    }

    #[test]
    fn fields_are_counted_however_they_are_folded_and_the_body_has_none() {
        let limits = Limits { header_fields: 2, ..Limits::default() };
        let two = "Subject: a\r\n folded\r\n\tfolded\r\nX:\r\n b\r\n";
        assert_eq!(inspect(two, &limits), Ok(()));
        assert_eq!(inspect(&format!("{two}\r\nbody\r\nbody\r\n"), &limits), Ok(()));
        assert_eq!(inspect(&format!("{two}To: c\r\n"), &limits), Err(552));
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        let limits = Limits { header_fields: 1, hops: 1, ..Limits::default() };
        for line in ["no field", "From a@b.test", ": x", "caf\u{e9}: x", "X"] {
            let content = format!("Received: a\r\n{line}\r\nReceived: b\r\nX: y\r\n");
            assert_eq!(inspect(&content, &limits), Ok(()), "{line}");
        }
    }

    #[test]
    fn of_several_limits_the_one_that_is_passed_first_counts() {
        let limits = Limits {
            message_size: ByteSize(24),
            header_size: ByteSize(16),
            content_line: 10,
            header_fields: 2,
            hops: 1,
            ..Limits::default()
        };
        for (content, code) in [
            ("X: 1\r\n\r\n1234567890\r\n12345678\r\n", 554),
            ("X: 1\r\n\r\n12345678\r\n123456789012\r\n", 552),
            ("Received: long line\r\n", 554),
            ("A:\r\nB:\r\nC: 678901234\r\n", 552),
            ("X: 23456\r\nY: 3\r\n7890\r\n", 552),
            ("X: 23456\r\n12 no field\r\n", 554),
        ] {
            assert_eq!(inspect(content, &limits), Err(code), "{content:?}");
        }
        // No header goes on behind the octet that makes a line no field, however much of it there is.
        let limits = Limits { header_size: ByteSize(12), ..limits };
        assert_eq!(inspect("X: 23456\r\n1 2\r\n", &limits), Ok(()));
    }

    #[test]
    fn size_counts_every_octet() {
        let limits = Limits { message_size: ByteSize(10), ..Limits::default() };
        assert_eq!(inspect("12345678\r\n", &limits), Ok(()));
        assert_eq!(inspect("123456789\r\n", &limits), Err(552));
    }

    #[test]
    fn the_header_size_does_not_count_the_body() {
        let limits = Limits { header_size: ByteSize(12), ..Limits::default() };
        assert_eq!(inspect("X: 23456\r\n\r\nbody of any length\r\n", &limits), Ok(()));
        assert_eq!(inspect("X: 234567\r\n\r\n", &limits), Err(552));
        assert_eq!(inspect("X: 2345678901", &limits), Err(552), "a line without end is not waited for");
    }

    #[test]
    fn a_line_counts_with_its_crlf() {
        let limits = Limits { content_line: 6, ..Limits::default() };
        assert_eq!(inspect("1234\r\n1234\r\n", &limits), Ok(()));
        assert_eq!(inspect("1234\r\n12345\r\n", &limits), Err(554));
    }
}
