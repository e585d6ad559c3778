//! We show a server who we are (RFC 4954), inside TLS.

mod bearer;
mod scram;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{Extensions, FailureKind, Feature, GarbledReason};
use crate::sasl::Secret;
use bearer::Mechanism;
pub use bearer::{MAX_TOKEN, Token, TokenError, TokenStatus};
use scram::{Challenged, First};

/// Longest command with its CRLF (RFC 5321 §4.5.3.1.4), which AUTH has to keep to (RFC 4954 §4).
const MAX_COMMAND: usize = 512;

/// Who we are to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, without control characters.
    pub user: Box<str>,
    /// What shows that it is ours.
    pub proof: Proof,
}

/// What shows who we are. Each has mechanisms of its own: none is ever shown as if it were the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// SCRAM-SHA-256, PLAIN and LOGIN.
    Password(Secret),
    /// OAUTHBEARER and XOAUTH2.
    Token(Token),
}

/// The mechanisms that a server offers, of those that we know.
#[expect(clippy::struct_excessive_bools, reason = "a mechanism is offered or not")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mechanisms {
    /// RFC 7677: the password stays here, and the server shows that it knows it too.
    pub scram_sha_256: bool,
    /// RFC 4616.
    pub plain: bool,
    /// What there was before PLAIN.
    pub login: bool,
    /// RFC 7628.
    pub oauthbearer: bool,
    /// What there was before OAUTHBEARER.
    pub xoauth2: bool,
}

/// One authentication. It takes challenges and says what to answer; the server's last word is its reply.
#[derive(Debug)]
pub(super) struct Exchange(State);

/// An AUTH in the making: the state after the first message, the name of the mechanism, and the message if it has one.
type Opening = (State, &'static str, Option<Zeroizing<Vec<u8>>>);

#[derive(Debug)]
enum State {
    /// Any mechanism that speaks first: the server has to ask for the message, since it is too long for the command.
    Unsaid {
        message: Zeroizing<String>,
        then: Box<State>,
    },
    /// LOGIN: the name is asked for, then the password.
    LoginName {
        user: Box<str>,
        password: Secret,
    },
    LoginPassword(Secret),
    /// SCRAM: the server's first message is waited for.
    First(First, Secret),
    /// SCRAM: the server's signature is waited for.
    Signature(Challenged),
    /// A token is shown: a challenge refuses it.
    Shown(Mechanism),
    /// The token is refused, and the server is about to say so.
    Refused(Option<TokenStatus>),
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
                b"OAUTHBEARER" => offered.oauthbearer = true,
                b"XOAUTH2" => offered.xoauth2 = true,
                _ => {}
            }
        }
        offered
    }
}

/// Their names, as they are written behind AUTH.
impl fmt::Display for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.scram_sha_256, "SCRAM-SHA-256"),
            (self.plain, "PLAIN"),
            (self.login, "LOGIN"),
            (self.oauthbearer, "OAUTHBEARER"),
            (self.xoauth2, "XOAUTH2"),
        ];
        let offered: Vec<_> = names.iter().filter(|(offered, _)| *offered).map(|(_, name)| *name).collect();
        match *offered {
            [] => f.write_str("no mechanism that is known here"),
            _ => f.write_str(&offered.join(", ")),
        }
    }
}

impl Exchange {
    /// Begins with the strongest mechanism that is offered: the command, without its CRLF. `nonce` is random, and has only
    /// visible ASCII without commas. `server` is the name and the port that the server has for us.
    pub(super) fn begin(
        Credentials { user, proof }: Credentials,
        offered: &Extensions,
        nonce: &str,
        server: Option<(&str, u16)>,
    ) -> Result<(Self, Zeroizing<String>), FailureKind> {
        let (state, name, message) = match proof {
            Proof::Password(password) => by_password(user, password, offered.auth, nonce)?,
            Proof::Token(token) => by_token(&user, &token, offered.auth, server)?,
        };
        let Some(message) = message else {
            return Ok((Self(state), Zeroizing::new(format!("AUTH {name}"))));
        };
        let message = Zeroizing::new(STANDARD.encode(&*message));
        let command = Zeroizing::new(["AUTH ", name, " ", message.as_str()].concat());
        if command.len() + 2 <= MAX_COMMAND {
            return Ok((Self(state), command));
        }
        let state = State::Unsaid { message, then: Box::new(state) };
        Ok((Self(state), Zeroizing::new(format!("AUTH {name}"))))
    }

    /// The response to a challenge, both in base64. SCRAM takes time.
    pub(super) fn respond(self, challenge: &[u8]) -> Result<(Self, Zeroizing<String>), FailureKind> {
        let garbled = FailureKind::Garbled(GarbledReason::Challenge);
        let decode = || STANDARD.decode(challenge.trim_ascii()).map_err(|_| garbled.clone());
        let (state, response) = match self.0 {
            State::Unsaid { message, then } => return Ok((Self(*then), message)),
            // What is asked there is never looked at: servers ask in many words.
            State::LoginName { user, password } => {
                (State::LoginPassword(password), STANDARD.encode(user.as_bytes()))
            }
            State::LoginPassword(password) => (State::Over, STANDARD.encode(password.octets())),
            State::First(first, password) => {
                let (challenged, message) = first.respond(&password, &decode()?).ok_or(garbled)?;
                (State::Signature(challenged), STANDARD.encode(message))
            }
            State::Signature(challenged) if challenged.is_signature(&decode()?) => {
                (State::Over, String::new())
            }
            State::Signature(_) => return Err(FailureKind::Impostor),
            // Whatever it says: nothing is left to say but that we have heard it, and only then the reply comes.
            State::Shown(mechanism) => {
                let status = TokenStatus::read(challenge);
                (State::Refused(status), STANDARD.encode(mechanism.acknowledgement()))
            }
            State::Refused(_) | State::Over => return Err(garbled),
        };
        Ok((Self(state), Zeroizing::new(response)))
    }

    /// What it means that the server is content: with SCRAM nothing, before it has shown that it knows the password.
    pub(super) fn accepted(&self) -> Result<(), FailureKind> {
        match self.0 {
            State::Over | State::Shown(_) => Ok(()),
            State::First(..) | State::Signature(_) => Err(FailureKind::Impostor),
            State::Unsaid { .. } | State::LoginName { .. } | State::LoginPassword(_) | State::Refused(_) => {
                Err(FailureKind::Garbled(GarbledReason::Unexpected))
            }
        }
    }

    /// The failure that a refusal is: the server may have said more of it before.
    pub(super) fn refused(self, kind: FailureKind) -> FailureKind {
        match (self.0, kind) {
            (State::Refused(Some(status)), FailureKind::Refused(reply)) if reply.code.is_permanent() => {
                FailureKind::TokenRefused { reply, status }
            }
            (_, kind) => kind,
        }
    }
}

/// The strongest mechanism for a password that is offered.
fn by_password(
    user: Box<str>,
    password: Secret,
    offered: Mechanisms,
    nonce: &str,
) -> Result<Opening, FailureKind> {
    if offered.scram_sha_256 {
        let (first, message) = First::new(&user, nonce);
        Ok((State::First(first, password), "SCRAM-SHA-256", Some(Zeroizing::new(message.into_bytes()))))
    } else if offered.plain {
        let message = [b"\0", user.as_bytes(), b"\0", password.octets()].concat();
        Ok((State::Over, "PLAIN", Some(Zeroizing::new(message))))
    } else if offered.login {
        Ok((State::LoginName { user, password }, "LOGIN", None))
    } else {
        Err(FailureKind::Unsupported(Feature::Password(offered)))
    }
}

/// The mechanism for a token that is offered, the standard's before that of some.
fn by_token(
    user: &str,
    token: &Token,
    offered: Mechanisms,
    server: Option<(&str, u16)>,
) -> Result<Opening, FailureKind> {
    let mechanism = match offered {
        Mechanisms { oauthbearer: true, .. } => Mechanism::OauthBearer,
        Mechanisms { xoauth2: true, .. } => Mechanism::Xoauth2,
        _ => return Err(FailureKind::Unsupported(Feature::Token(offered))),
    };
    Ok((State::Shown(mechanism), mechanism.name(), Some(mechanism.message(user, token, server))))
}

/// A name as RFC 5802 §5.1 writes it, and RFC 7628 §3.1 too.
fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use empath_common::{EnhancedStatus, Reply, ReplyCode};

    use super::*;

    fn begin_with(proof: Proof, keywords: &str) -> Result<(Exchange, Zeroizing<String>), FailureKind> {
        let offered = Extensions::parse(format!("mx.test\n{keywords}").as_bytes());
        let server = Some(("mx.test", 587));
        Exchange::begin(Credentials { user: "user".into(), proof }, &offered, "rOprNGfwEbeRWgbNEkqO", server)
    }

    fn begin(keywords: &str) -> Result<(Exchange, Zeroizing<String>), FailureKind> {
        begin_with(Proof::Password(Secret::from(&b"pencil"[..])), keywords)
    }

    fn begin_by_token(token: &str, keywords: &str) -> Result<(Exchange, Zeroizing<String>), FailureKind> {
        begin_with(Proof::Token(Secret::from(token.as_bytes()).try_into().unwrap()), keywords)
    }

    #[test]
    fn the_strongest_mechanism_that_is_offered_is_used() {
        for (keywords, command) in [
            (
                "AUTH LOGIN PLAIN SCRAM-SHA-256 XOAUTH2 OAUTHBEARER",
                "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=",
            ),
            ("AUTH LOGIN plain CRAM-MD5", "AUTH PLAIN AHVzZXIAcGVuY2ls"),
            ("auth Login", "AUTH LOGIN"),
        ] {
            assert_eq!(*begin(keywords).unwrap().1, command, "{keywords}");
        }
        for (keywords, offered) in [
            ("", "no mechanism that is known here"),
            ("AUTH", "no mechanism that is known here"),
            ("AUTHENTICATE PLAIN", "no mechanism that is known here"),
            ("AUTH CRAM-MD5 XOAUTH2 oauthbearer", "OAUTHBEARER, XOAUTH2"),
        ] {
            let failure = begin(keywords).unwrap_err().to_string();
            assert_eq!(failure, format!("the server does not take a password: it offers {offered}"));
        }
    }

    #[test]
    fn a_token_is_shown_by_no_mechanism_for_passwords() {
        let bearer =
            "AUTH OAUTHBEARER bixhPXVzZXIsAWhvc3Q9bXgudGVzdAFwb3J0PTU4NwFhdXRoPUJlYXJlciBwZW5jaWwBAQ==";
        for (keywords, command) in [
            ("AUTH SCRAM-SHA-256 PLAIN LOGIN XOAUTH2 OAUTHBEARER", bearer),
            ("AUTH oauthbearer", bearer),
            ("AUTH PLAIN xoauth2 LOGIN", "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHBlbmNpbAEB"),
        ] {
            assert_eq!(*begin_by_token("pencil", keywords).unwrap().1, command, "{keywords}");
        }
        for (keywords, offered) in [
            ("", "no mechanism that is known here"),
            ("AUTH SCRAM-SHA-256 PLAIN LOGIN OAUTH10A", "SCRAM-SHA-256, PLAIN, LOGIN"),
        ] {
            let failure = begin_by_token("pencil", keywords).unwrap_err().to_string();
            assert_eq!(failure, format!("the server does not take a token: it offers {offered}"));
        }
    }

    #[test]
    fn a_refusal_of_a_token_is_acknowledged_and_told() {
        let reply = || {
            FailureKind::Refused(Reply {
                code: ReplyCode::new(535).unwrap(),
                enhanced: Some(EnhancedStatus::new(5, 7, 8)),
                text: "No".into(),
            })
        };
        for (mechanism, acknowledgement) in [("OAUTHBEARER", "AQ=="), ("XOAUTH2", "")] {
            for (challenge, told) in [
                ("eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=", "535 5.7.8 No (invalid_token)"),
                ("{}", "535 5.7.8 No"),
                ("", "535 5.7.8 No"),
            ] {
                let (exchange, _) = begin_by_token("pencil", &format!("AUTH {mechanism}")).unwrap();
                assert_eq!(exchange.accepted(), Ok(()));
                let (exchange, response) = exchange.respond(challenge.as_bytes()).unwrap();
                assert_eq!(*response, acknowledgement, "{mechanism}");
                // Who refuses it does not take it.
                assert_eq!(exchange.accepted(), Err(FailureKind::Garbled(GarbledReason::Unexpected)));
                assert_eq!(exchange.refused(reply()).to_string(), told);
            }
            let (exchange, _) = begin_by_token("pencil", &format!("AUTH {mechanism}")).unwrap();
            let (exchange, _) = exchange.respond(b"e30=").unwrap();
            let again = exchange.respond(b"e30=").err();
            assert_eq!(again, Some(FailureKind::Garbled(GarbledReason::Challenge)));
        }
    }

    #[test]
    fn a_message_that_is_too_long_for_a_command_waits_until_it_is_asked_for() {
        // Base64 grows by four octets.
        let of = |octets| begin_by_token(&"x".repeat(octets), "AUTH XOAUTH2").unwrap();
        let (_, command) = of(348);
        assert_eq!(command.len() + 2, 511);
        let (exchange, command) = of(349);
        assert_eq!(*command, "AUTH XOAUTH2");
        assert_eq!(exchange.accepted(), Err(FailureKind::Garbled(GarbledReason::Unexpected)));
        let (exchange, message) = exchange.respond(b"").unwrap();
        assert_eq!(
            *message,
            STANDARD.encode(format!("user=user\x01auth=Bearer {}\x01\x01", "x".repeat(349)))
        );
        assert_eq!(exchange.accepted(), Ok(()));

        let long = Proof::Password(Secret::from("x".repeat(1024).as_bytes()));
        let (exchange, command) = begin_with(long, "AUTH PLAIN").unwrap();
        assert_eq!(*command, "AUTH PLAIN");
        let (_, message) = exchange.respond(b"").unwrap();
        assert_eq!(*message, STANDARD.encode(format!("\0user\0{}", "x".repeat(1024))));
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
    fn nothing_shows_the_password_or_the_token() {
        for begun in [begin("AUTH PLAIN"), begin("AUTH LOGIN"), begin_by_token("pencil", "AUTH XOAUTH2")] {
            assert!(!format!("{:?}", begun.unwrap().0).contains("pencil"));
        }
    }
}
