/// Longest line that goes out as it is (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

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

    /// Appends the part. What isn't short lines of plain ASCII is encoded (RFC 2045 §6.7).
    pub(super) fn write(&self, boundary: &str, to: &mut Vec<u8>) {
        let plain = is_plain(&self.octets);
        let encoding = if plain { "7bit" } else { "quoted-printable" };
        let header = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n",
            self.media_type
        );
        to.extend_from_slice(header.as_bytes());
        if plain {
            to.extend_from_slice(&self.octets);
        } else {
            to.extend_from_slice(&quoted_printable::encode(&self.octets));
        }
    }
}

fn is_plain(octets: &[u8]) -> bool {
    let plain = |octet: &u8| matches!(octet, b'\t' | b' '..=b'~');
    octets.split(|octet| *octet == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.len() <= MAX_LINE && line.iter().all(plain)
    })
}
