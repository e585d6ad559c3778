use std::borrow::Cow;

use zeroize::Zeroizing;

use super::Secret;

/// Longest name of a user in octets.
pub(crate) const MAX_NAME: usize = 255;

/// A name as users are looked up by it (`SASLprep`, RFC 4013): not empty, bounded, without space and controls.
pub(crate) fn name(octets: &[u8]) -> Option<Box<str>> {
    let text = str::from_utf8(octets).ok()?;
    let name = stringprep::saslprep(text).ok()?;
    let good = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_whitespace);
    good.then(|| name.into())
}

/// A password as it is hashed: the same, however it was typed. What `SASLprep` forbids is in no stored password, so it
/// may stay as it is.
pub(crate) fn password(password: &Secret) -> Zeroizing<Vec<u8>> {
    let prepared = str::from_utf8(password.octets()).ok().and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(prepared.map_or_else(
        || password.octets().to_vec(),
        |prepared| match prepared {
            Cow::Borrowed(text) => text.as_bytes().to_vec(),
            Cow::Owned(text) => text.into_bytes(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_the_same_is_the_same() {
        // RFC 4013 §3: soft hyphen, compatibility characters.
        for (typed, prepared) in
            [("I\u{ad}X", "IX"), ("user", "user"), ("USER", "USER"), ("\u{aa}", "a"), ("\u{2168}", "IX")]
        {
            assert_eq!(name(typed.as_bytes()).as_deref(), Some(prepared));
            assert_eq!(&**password(&Secret::from(typed.as_bytes())), prepared.as_bytes());
        }
    }

    #[test]
    fn a_name_has_no_controls_no_space_and_a_bounded_length() {
        for bad in ["", "a\u{7}", "a b", "a\u{a0}b", "\u{627}1", &"x".repeat(256)] {
            assert_eq!(name(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(name(b"\xff"), None);
        assert!(name(&[b'x'; 255]).is_some());
    }
}
