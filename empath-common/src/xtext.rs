//! The encoding of what SMTP parameters can't hold as it is (RFC 3461 §4).

/// Decodes `xtext` (RFC 3461 §4): visible ASCII without `=`, anything else as `+` and two hexadecimal digits.
///
/// DEVIATION RFC 3461 §4: lower-case digits are taken too.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(octet) = rest.next() {
        decoded.push(match octet {
            b'+' => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            b'=' => return None,
            octet if octet.is_ascii_graphic() => *octet,
            _ => return None,
        });
    }
    Some(decoded)
}

fn digit(octet: u8) -> Option<u8> {
    u8::try_from(char::from(octet).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_visible_ascii_and_pairs_of_hexadecimal_digits() {
        for (text, decoded) in [
            ("", Some(&b""[..])),
            ("a.b@c", Some(b"a.b@c")),
            ("a+2Bb+3D+20", Some(b"a+b= ")),
            ("+c3+A9", Some("\u{e9}".as_bytes())),
            ("+", None),
            ("+2", None),
            ("+2G", None),
            ("++2B", None),
            ("a=b", None),
            ("a b", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), decoded, "{text:?}");
        }
    }
}
