//! Looks at all octets of content at once, which is many times faster than to go from line to line.

/// Whether there is such an octet with such a next one. Nothing branches, so that the compiler can compare many at a time.
pub(crate) fn any_pair(octets: &[u8], is: impl Fn(u8, u8) -> bool) -> bool {
    let next = octets.get(1..).unwrap_or_default();
    octets.iter().zip(next).fold(false, |found, (one, next)| found | is(*one, *next))
}

/// Whether a CR or LF between two octets is not part of a CRLF.
pub(crate) fn is_bare(one: u8, next: u8) -> bool {
    (one == b'\r') != (next == b'\n')
}

/// Whether a dot begins a line.
pub(crate) fn is_dot(one: u8, next: u8) -> bool {
    one == b'\n' && next == b'.'
}
