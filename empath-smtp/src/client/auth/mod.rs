//! We show a server who we are (RFC 4954), inside TLS.

mod scram;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{Extensions, FailureKind, Feature, GarbledReason};
use crate::sasl::Secret;
use scram::{Challenged, First};

/// Who we are to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: Box<str>,
    /// The password.
    pub password: Secret,
}

/// The mechanisms that a server offers, of those that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mechanisms {
    /// RFC 7677: the password stays here, and the server shows that it knows it too.
    pub scram_sha_256: bool,
    /// RFC 4616.
    pub plain: bool,
    /// What there was before PLAIN.
    pub login: bool,
}

/// One authentication. It takes challenges and says what to answer; the server's last word is its reply.
#[derive(Debug)]
pub(super) struct Exchange {
    credentials: Credentials,
    state: State,
}

#[derive(Debug)]
enum State {
    /// LOGIN: the name is asked for, then the password.
    LoginName,
    LoginPassword,
    /// SCRAM: the server's first message is waited for.
    First(First),
    /// SCRAM: the server's signature is waited for.
    Signature(Challenged),
    /// The server may say that we are who we say.
    Over,
}

impl Mechanisms {
    pub(super) fn parse<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut offered = Self::default();
        for name in names {
            match name.to_ascii_uppercase().as_slice() {
                b"SCRAM-SHA-256" => offered.scram_sha_256 = true,
                b"PLAIN" => offered.plain = true,
                b"LOGIN" => offered.login = true,
                _ => {}
            }
        }
        offered
    }
}

impl Exchange {
    /// Begins with the strongest mechanism that is offered: the command, without its CRLF. `nonce` is random, and has only
    /// visible ASCII without commas.
    pub(super) fn begin(
        credentials: Credentials,
        offered: &Extensions,
        nonce: &str,
    ) -> Result<(Self, Zeroizing<String>), FailureKind> {
        let Mechanisms { scram_sha_256, plain, login } = offered.auth;
        let (state, command) = if scram_sha_256 {
            let (first, message) = First::new(&credentials.user, nonce);
            (State::First(first), format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(message)))
        } else if plain {
            let message = [b"\0", credentials.user.as_bytes(), b"\0", credentials.password.octets()].concat();
            let message = Zeroizing::new(message);
            (State::Over, format!("AUTH PLAIN {}", STANDARD.encode(&*message)))
        } else if login {
            (State::LoginName, "AUTH LOGIN".to_owned())
        } else {
            return Err(FailureKind::Unsupported(Feature::Auth));
        };
        Ok((Self { credentials, state }, Zeroizing::new(command)))
    }

    /// The response to a challenge, both in base64. SCRAM takes time.
    pub(super) fn respond(self, challenge: &[u8]) -> Result<(Self, Zeroizing<String>), FailureKind> {
        let Self { credentials, state } = self;
        let garbled = FailureKind::Garbled(GarbledReason::Challenge);
        let decode = || STANDARD.decode(challenge.trim_ascii()).map_err(|_| garbled.clone());
        let (state, response) = match state {
            // What is asked there is never looked at: servers ask in many words.
            State::LoginName => (State::LoginPassword, STANDARD.encode(credentials.user.as_bytes())),
            State::LoginPassword => (State::Over, STANDARD.encode(credentials.password.octets())),
            State::First(first) => {
                let (challenged, message) =
                    first.respond(&credentials.password, &decode()?).ok_or(garbled)?;
                (State::Signature(challenged), STANDARD.encode(message))
            }
            State::Signature(challenged) if challenged.is_signature(&decode()?) => {
                (State::Over, String::new())
            }
            State::Signature(_) => return Err(FailureKind::Impostor),
            State::Over => return Err(garbled),
        };
        Ok((Self { credentials, state }, Zeroizing::new(response)))
    }

    /// What it means that the server is content: with SCRAM nothing, before it has shown that it knows the password.
    pub(super) fn accepted(&self) -> Result<(), FailureKind> {
        match self.state {
            State::Over => Ok(()),
            State::First(_) | State::Signature(_) => Err(FailureKind::Impostor),
            State::LoginName | State::LoginPassword => Err(FailureKind::Garbled(GarbledReason::Unexpected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(keywords: &str) -> Result<(Exchange, Zeroizing<String>), FailureKind> {
        let credentials = Credentials { user: "user".into(), password: Secret::from(&b"pencil"[..]) };
        let offered = Extensions::parse(format!("mx.test\n{keywords}").as_bytes());
        Exchange::begin(credentials, &offered, "rOprNGfwEbeRWgbNEkqO")
    }

    #[test]
    fn the_strongest_mechanism_that_is_offered_is_used() {
        for (keywords, command) in [
            (
                "AUTH LOGIN PLAIN SCRAM-SHA-256",
                "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=",
            ),
            ("AUTH LOGIN plain CRAM-MD5", "AUTH PLAIN AHVzZXIAcGVuY2ls"),
            ("auth Login", "AUTH LOGIN"),
        ] {
            assert_eq!(*begin(keywords).unwrap().1, command, "{keywords}");
        }
        for keywords in ["", "AUTH", "AUTH CRAM-MD5 XOAUTH2", "AUTHENTICATE PLAIN"] {
            assert_eq!(begin(keywords).err(), Some(FailureKind::Unsupported(Feature::Auth)), "{keywords}");
        }
    }

    #[test]
    fn login_tells_name_and_password_and_nothing_more() {
        let (exchange, _) = begin("AUTH LOGIN").unwrap();
        assert!(exchange.accepted().is_err());
        let (exchange, name) = exchange.respond(b"VXNlcm5hbWU6").unwrap();
        let (exchange, password) = exchange.respond(b"not base64").unwrap();
        assert_eq!((name.as_str(), password.as_str()), ("dXNlcg==", "cGVuY2ls"));
        assert_eq!(exchange.accepted(), Ok(()));
        assert_eq!(exchange.respond(b"").err(), Some(FailureKind::Garbled(GarbledReason::Challenge)));
    }

    #[test]
    fn with_scram_a_server_that_does_not_know_the_password_is_not_believed() {
        let first = STANDARD.encode(scram::tests::SERVER_FIRST);
        let (exchange, _) = begin("AUTH SCRAM-SHA-256").unwrap();
        assert_eq!(exchange.accepted(), Err(FailureKind::Impostor));
        let (exchange, response) = exchange.respond(first.as_bytes()).unwrap();
        assert_eq!(*response, STANDARD.encode(scram::tests::CLIENT_FINAL));
        assert_eq!(exchange.accepted(), Err(FailureKind::Impostor));
        let wrong = STANDARD.encode("v=AAAA");
        assert_eq!(exchange.respond(wrong.as_bytes()).err(), Some(FailureKind::Impostor));

        let (exchange, _) = begin("AUTH SCRAM-SHA-256").unwrap();
        let (exchange, _) = exchange.respond(first.as_bytes()).unwrap();
        let (exchange, response) =
            exchange.respond(STANDARD.encode(scram::tests::SERVER_FINAL).as_bytes()).unwrap();
        assert_eq!((response.as_str(), exchange.accepted()), ("", Ok(())));
    }

    #[test]
    fn nothing_shows_the_password() {
        let (exchange, _) = begin("AUTH PLAIN").unwrap();
        assert!(!format!("{exchange:?}").contains("pencil"));
    }
}
