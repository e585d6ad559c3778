use empath_common::Reply;
use memchr::memchr;

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

    /// Takes the next octets of content; `Err` is how to refuse the message.
    pub(super) fn take(&mut self, mut octets: &[u8], limits: &Limits) -> Result<(), Reply> {
        self.size += octets.len() as u64;
        if self.size > limits.message_size.0 {
            return Err(reply::TOO_LARGE);
        }
        while !octets.is_empty() {
            let newline = memchr(b'\n', octets);
            let (part, rest) =
                octets.split_at_checked(newline.map_or(octets.len(), |at| at + 1)).unwrap_or((octets, &[]));
            octets = rest;
            self.line += part.len();
            if self.line > limits.content_line {
                return Err(reply::LINE_TOO_LONG);
            }
            self.header(part, limits)?;
            // A line may be as long as the body's; a header is not.
            if self.header.is_some() && self.size - rest.len() as u64 > limits.header_size.0 {
                return Err(reply::HEADER_TOO_LARGE);
            }
            if newline.is_some() {
                self.end_line();
            }
        }
        Ok(())
    }

    /// Counts fields and `Received` fields by their names, which may come in pieces. A line that is none ends the header
    /// section too, as every server has it: people do send mail without one.
    fn header(&mut self, part: &[u8], limits: &Limits) -> Result<(), Reply> {
        let Some(header) = &mut self.header else {
            return Ok(());
        };
        for octet in part {
            match header.next(*octet) {
                Some(Place::Rest) => break,
                Some(_) => {}
                None => {
                    self.header = None;
                    return Ok(());
                }
            }
        }
        if header.hops > limits.hops {
            return Err(reply::TOO_MANY_HOPS);
        }
        if header.fields > limits.header_fields { Err(reply::TOO_MANY_FIELDS) } else { Ok(()) }
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
        let split = content.as_bytes().chunks(1).try_for_each(|octet| pieces.take(octet, limits));
        assert_eq!(whole, split, "octet by octet is the same as in one piece");
        whole.map_err(|reply| reply.code.get())
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
