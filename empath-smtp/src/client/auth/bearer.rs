//! The client's side of OAUTHBEARER (RFC 7628), and of XOAUTH2, which Google and Microsoft had before it: a token says who we are.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::sasl::Secret;

/// Most octets of a [`Token`].
///
/// Tokens that say themselves what they are good for (JWT) have some KiB. In base64, with a name and a host, this many still fit
/// into the line of 12288 octets that RFC 4954 §4 finds sufficient.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Longest status of a refusal that is shown.
const MAX_STATUS: usize = 64;

/// An access token (RFC 6750): whoever has it is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Secret);

/// The octets are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There are too many.
    #[error("a token has at most {MAX_TOKEN} octets")]
    TooLong,
    /// Something in it would end the field that it stands in, and begin another one.
    #[error("a token has letters, digits and -._~+/ only, then perhaps = (RFC 6750 §2.1)")]
    Malformed,
}

/// How a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 7628.
    OauthBearer,
    /// What there was before.
    Xoauth2,
}

/// Why a server refuses a token, in its own words (RFC 7628 §3.2.2): `invalid_token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus(Box<str>);

impl Token {
    /// The token itself.
    pub fn octets(&self) -> &[u8] {
        self.0.octets()
    }
}

impl TryFrom<Secret> for Token {
    type Error = TokenError;

    fn try_from(secret: Secret) -> Result<Self, TokenError> {
        let octets = secret.octets();
        if octets.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let is_inner = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(octet);
        let padding = octets.iter().position(|octet| !is_inner(octet)).unwrap_or(octets.len());
        match octets.split_at(padding) {
            ([], _) => Err(TokenError::Malformed),
            (_, padding) if padding.iter().any(|octet| *octet != b'=') => Err(TokenError::Malformed),
            _ => Ok(Self(secret)),
        }
    }
}

impl Mechanism {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// What is said first. `server` is the name and the port of whom it is said to (RFC 7628 §3.1), if they are known.
    pub(super) fn message(
        self,
        user: &str,
        token: &Token,
        server: Option<(&str, u16)>,
    ) -> Zeroizing<Vec<u8>> {
        let before = match (self, server) {
            (Self::OauthBearer, Some((host, port))) => {
                format!("n,a={},\x01host={host}\x01port={port}\x01", super::saslname(user))
            }
            (Self::OauthBearer, None) => format!("n,a={},\x01", super::saslname(user)),
            (Self::Xoauth2, _) => format!("user={user}\x01"),
        };
        Zeroizing::new([before.as_bytes(), b"auth=Bearer ", token.octets(), b"\x01\x01"].concat())
    }

    /// What is said when a challenge has told why the token is refused: only then the server fails the AUTH
    /// (RFC 7628 §3.2.3).
    pub(super) fn acknowledgement(self) -> &'static [u8] {
        match self {
            Self::OauthBearer => b"\x01",
            Self::Xoauth2 => b"",
        }
    }
}

impl TokenStatus {
    /// Reads the challenge of a server that refuses a token. It is only for people: none is had of one that is something else.
    pub(super) fn read(challenge: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Refusal {
            status: Box<str>,
        }
        let json = STANDARD.decode(challenge.trim_ascii()).ok()?;
        let Refusal { status } = serde_json::from_slice(&json).ok()?;
        // The characters are those of errors in RFC 6750 §3.
        let is_shown = |octet: u8| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
        let fits = (1..=MAX_STATUS).contains(&status.len()) && status.bytes().all(is_shown);
        fits.then_some(Self(status))
    }
}

impl fmt::Display for TokenStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Result<Token, TokenError> {
        Token::try_from(Secret::from(text.as_bytes()))
    }

    fn message(mechanism: Mechanism, user: &str, text: &str, server: Option<(&str, u16)>) -> String {
        let message = mechanism.message(user, &token(text).unwrap(), server);
        String::from_utf8(message.to_vec()).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_7628() {
        let shown = token("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==").unwrap();
        for (port, expected) in [
            // §4.1
            (
                143,
                "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
            ),
            // §4.4
            (
                587,
                "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
            ),
        ] {
            let server = Some(("server.example.com", port));
            let message = Mechanism::OauthBearer.message("user@example.com", &shown, server);
            assert_eq!(STANDARD.encode(&*message), expected);
        }
        let challenge = "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIiwib3BlbmlkLWNvbmZpZ3VyYXRpb24iOiJodHRwczovL2V4YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9uIn0=";
        assert_eq!(TokenStatus::read(challenge.as_bytes()).unwrap().to_string(), "invalid_token");
        assert_eq!(STANDARD.encode(Mechanism::OauthBearer.acknowledgement()), "AQ==");
    }

    #[test]
    fn the_example_of_google() {
        let shown = token("ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg").unwrap();
        let message = Mechanism::Xoauth2.message("someuser@example.com", &shown, Some(("smtp.test", 587)));
        assert_eq!(
            STANDARD.encode(&*message),
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
        );
        assert_eq!(Mechanism::Xoauth2.acknowledgement(), b"");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_field() {
        let shown = message(Mechanism::OauthBearer, "a,b=c", "t", None);
        assert_eq!(shown, "n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01");
    }

    #[test]
    fn what_would_break_out_of_the_message_is_no_token() {
        for text in
            ["ya29.A-b_c~d+e/f", "a==", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", &"x".repeat(MAX_TOKEN)]
        {
            assert!(token(text).is_ok(), "{text:?}");
        }
        for text in
            ["", "=", "a=b", "a b", " a", "a ", "a\x01", "a\x01host=x", "a\r\nMAIL", "a,b", "\u{e9}", "\"a\""]
        {
            assert_eq!(token(text), Err(TokenError::Malformed), "{text:?}");
        }
        assert_eq!(token(&"x".repeat(MAX_TOKEN + 1)), Err(TokenError::TooLong));
    }

    #[test]
    fn the_longest_token_fits_into_a_line_of_rfc_4954() {
        let (user, host) = ("u".repeat(320), "h".repeat(253));
        let text = "x".repeat(MAX_TOKEN);
        let message = message(Mechanism::OauthBearer, &user, &text, Some((host.as_str(), 65535)));
        assert!(STANDARD.encode(message).len() + 2 <= 12288);
    }

    #[test]
    fn a_status_is_read_of_a_refusal_and_of_nothing_else() {
        let read =
            |json: &str| TokenStatus::read(STANDARD.encode(json).as_bytes()).map(|status| status.to_string());
        let google = r#"{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}"#;
        assert_eq!(read(google).as_deref(), Some("401"));
        let long = |octets| format!(r#"{{"status":"{}"}}"#, "x".repeat(octets));
        assert_eq!(read(&long(64)), Some("x".repeat(64)));
        for wrong in [
            "",
            "{}",
            "[]",
            "invalid_token",
            r#"{"status":400}"#,
            r#"{"status":""}"#,
            r#"{"status":"a\r\nb"}"#,
            r#"{"status":"\u001b[2J"}"#,
            r#"{"status":"a","status":"b"}"#,
            &long(65),
            &"[".repeat(1500),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(TokenStatus::read(b"not base64"), None);
    }
}
