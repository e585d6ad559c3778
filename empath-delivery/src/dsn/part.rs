/// Longest line that goes out as it is (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// The media type of a message without UTF-8 in its header.
const MESSAGE: &str = "message/rfc822";

/// The media types of a message that is returned and of its header alone: without UTF-8 in it, and with (RFC 6533 §4).
pub(super) const PLAIN: [&str; 2] = [MESSAGE, "text/rfc822-headers"];
pub(super) const GLOBAL: [&str; 2] = ["message/global", "message/global-headers"];

/// A part of the report.
pub(super) struct Part {
    pub(super) media_type: &'static str,
    pub(super) octets: Vec<u8>,
}

impl Part {
    /// Whether the octets could be taken for the end of the part.
    pub(super) fn contains(&self, boundary: &str) -> bool {
        self.octets.windows(boundary.len()).any(|octets| octets == boundary.as_bytes())
    }

    /// How the part is encoded: what isn't short lines of plain ASCII as quoted-printable (RFC 2045 §6.7), but a message
    /// not at all (RFC 2046 §5.2.1).
    pub(super) fn encoding(&self) -> &'static str {
        match self.media_type {
            _ if is_plain(&self.octets) => "7bit",
            MESSAGE => "8bit",
            _ => "quoted-printable",
        }
    }

    /// Appends the part.
    pub(super) fn write(&self, boundary: &str, to: &mut Vec<u8>) {
        let encoding = self.encoding();
        let header = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n",
            self.media_type
        );
        to.extend_from_slice(header.as_bytes());
        if encoding == "quoted-printable" {
            to.extend_from_slice(&quoted_printable::encode(&self.octets));
        } else {
            to.extend_from_slice(&self.octets);
        }
    }
}

/// Whether the octets may go out unencoded where 8-bit octets may: lines that are not too long, without NUL.
pub(super) fn is_lines(octets: &[u8]) -> bool {
    octets.split(|octet| *octet == b'\n').all(|line| line.len() <= MAX_LINE + 1 && !line.contains(&0))
}

fn is_plain(octets: &[u8]) -> bool {
    let plain = |octet: &u8| matches!(octet, b'\t' | b' '..=b'~');
    octets.split(|octet| *octet == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.len() <= MAX_LINE && line.iter().all(plain)
    })
}
