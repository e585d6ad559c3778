use std::fmt;

/// Untrusted octets made safe for one line of a log, a reply, a header or a terminal.
///
/// Printable characters stay. Controls (C0, DEL, C1), line and paragraph separators, bidirectional controls,
/// backslashes and octets that are not UTF-8 become escapes (`\n`, `\x1b`, `\u{202e}`).
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            // Each piece ends with the only one of its characters that may have to be escaped.
            for piece in chunk.valid().split_inclusive(is_escaped) {
                let plain = piece.trim_end_matches(is_escaped);
                f.write_str(plain)?;
                match piece.strip_prefix(plain).and_then(|rest| rest.chars().next()) {
                    None => (),
                    Some('\\') => f.write_str("\\\\")?,
                    Some('\n') => f.write_str("\\n")?,
                    Some('\r') => f.write_str("\\r")?,
                    Some('\t') => f.write_str("\\t")?,
                    Some(c) if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                    Some(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
            }
            for octet in chunk.invalid() {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        Ok(())
    }
}

fn is_escaped(c: char) -> bool {
    if c.is_ascii() {
        return c == '\\' || c.is_ascii_control();
    }
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}
