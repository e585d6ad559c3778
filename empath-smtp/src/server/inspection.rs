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
    hops: usize,
    /// How much of [`RECEIVED`] the line matches so far; `None` when it is another field.
    name: Option<usize>,
}

/// The name of the field that every host on the way adds (RFC 5321 §4.4).
const RECEIVED: &[u8] = b"received";

impl Default for Inspection {
    fn default() -> Self {
        Self { size: 0, line: 0, header: Some(Header { hops: 0, name: Some(0) }) }
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
            if newline.is_some() {
                self.end_line(limits, rest.len())?;
            }
        }
        Ok(())
    }

    /// Counts `Received` fields by their names, which may come in pieces.
    fn header(&mut self, part: &[u8], limits: &Limits) -> Result<(), Reply> {
        let Some(header) = &mut self.header else {
            return Ok(());
        };
        for octet in part {
            let Some(matched) = header.name else { break };
            header.name = match RECEIVED.get(matched) {
                Some(expected) if octet.eq_ignore_ascii_case(expected) => Some(matched + 1),
                Some(_) => None,
                None => {
                    header.hops += usize::from(matches!(octet, b':' | b' ' | b'\t'));
                    None
                }
            };
        }
        if header.hops > limits.hops { Err(reply::TOO_MANY_HOPS) } else { Ok(()) }
    }

    /// An empty line ends the header section (RFC 5322 §2.1). `behind` octets of `size` come after this line.
    fn end_line(&mut self, limits: &Limits, behind: usize) -> Result<(), Reply> {
        let empty = self.line == b"\r\n".len();
        self.line = 0;
        let Some(header) = &mut self.header else {
            return Ok(());
        };
        header.name = Some(0);
        if self.size - behind as u64 > limits.header_size.0 {
            return Err(reply::HEADER_TOO_LARGE);
        }
        if empty {
            self.header = None;
        }
        Ok(())
    }
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
    }

    #[test]
    fn a_line_counts_with_its_crlf() {
        let limits = Limits { content_line: 6, ..Limits::default() };
        assert_eq!(inspect("1234\r\n1234\r\n", &limits), Ok(()));
        assert_eq!(inspect("1234\r\n12345\r\n", &limits), Err(554));
    }
}
