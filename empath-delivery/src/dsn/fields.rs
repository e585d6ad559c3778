use std::fmt::{self, Write as _};

use super::News;

/// Most octets of a line that a fold is made for (RFC 5322 §2.1.1 allows 998).
const WIDTH: usize = 76;
/// Most octets of text from a host in one field, at most and when there are many recipients.
const MAX_TEXT: usize = 2048;
const MIN_TEXT: usize = 128;
/// Octets of such text in a whole report, twice in it.
const ALL_TEXT: usize = 256 * 1024;

/// Most octets of text from a host about each recipient.
pub(super) fn most_text(news: &News) -> usize {
    let recipients = news.failed.len() + news.delayed.len() + news.arrived.len();
    (ALL_TEXT / recipients.max(1)).clamp(MIN_TEXT, MAX_TEXT)
}

/// Text for people as one line of printable ASCII, cut behind `most` octets. What a host said is escaped already: its
/// backslashes stay single.
pub(super) fn ascii(text: &str, most: usize) -> String {
    let mut safe = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        if safe.len() >= most {
            safe.push_str("...");
            break;
        }
        match c {
            ' '..='~' => safe.push(c),
            c => safe.extend(c.escape_default()),
        }
    }
    safe
}

/// The address type and the address, in ASCII: what isn't is written as `\x{…}` (RFC 6533 §3).
pub(super) fn utf8_address(address: &str) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    let mut encoded = String::from("utf-8; ");
    for c in address.chars() {
        match c {
            '!'..='~' if !matches!(c, '\\' | '+' | '=') => encoded.push(c),
            c => drop(write!(encoded, "\\x{{{:X}}}", u32::from(c))),
        }
    }
    encoded
}

/// An address with what is written as `\x{…}` in UTF-8 (RFC 6533 §3).
pub(super) fn unicode(address: &str) -> String {
    let mut decoded = String::with_capacity(address.len());
    let mut rest = address;
    while let Some((before, escape)) = rest.split_once("\\x{") {
        decoded.push_str(before);
        let character = escape.split_once('}').and_then(|(digits, behind)| {
            let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
            Some((c, behind)).filter(|_| !c.is_control())
        });
        let Some((c, behind)) = character else {
            decoded.push_str("\\x{");
            rest = escape;
            continue;
        };
        decoded.push(c);
        rest = behind;
    }
    decoded + rest
}

/// Text broken into lines, those behind the first indented. Words too long for a line are broken.
pub(super) struct Folded<'a> {
    pub(super) text: &'a str,
    pub(super) indent: &'a str,
}

impl fmt::Display for Folded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text.trim();
        while rest.len() > WIDTH {
            let (line, _) = rest.split_at_checked(WIDTH).unwrap_or((rest, ""));
            let end = line.rfind(' ').filter(|at| *at > 0).unwrap_or(line.len());
            let (line, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            write!(f, "{}\r\n{}", line.trim_end(), self.indent)?;
            rest = after.trim_start();
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_host_becomes_one_line_of_ascii() {
        let text = "550 a\r\nb \x1b[31m\u{202e}é\u{0}--boundary";
        let safe = ascii(text, MAX_TEXT);
        assert_eq!(safe, "550 a\\r\\nb \\u{1b}[31m\\u{202e}\\u{e9}\\u{0}--boundary");
        assert_eq!(ascii("a\\x1bb", MAX_TEXT), "a\\x1bb", "what is escaped is not escaped again");
        assert!(ascii(&"x".repeat(1 << 20), MAX_TEXT).len() <= MAX_TEXT + 3);
    }

    #[test]
    fn folded_lines_are_short_and_keep_every_word() {
        let text = format!("{} {} end", "word ".repeat(40), "x".repeat(200));
        let folded = Folded { text: &text, indent: " " }.to_string();
        assert!(folded.split("\r\n").all(|line| line.len() <= WIDTH + 1 && !line.is_empty()));
        assert!(folded.split("\r\n").skip(1).all(|line| line.starts_with(' ')));
        let squeezed = |text: &str| text.replace([' ', '\r', '\n'], "");
        assert_eq!(squeezed(&folded), squeezed(&text));
    }

    #[test]
    fn an_address_in_utf8_is_written_in_ascii() {
        assert_eq!(unicode("\\x{3B4}\\x{2B}a@\\x{}\\x{D800}\\x{1F600}"), "δ+a@\\x{}\\x{D800}\u{1f600}");
        assert_eq!(utf8_address("u@example.test"), "rfc822; u@example.test");
        assert_eq!(utf8_address("δ+a@example.test"), "utf-8; \\x{3B4}\\x{2B}a@example.test");
    }
}
