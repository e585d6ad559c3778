use base64::{Engine as _, engine::general_purpose::STANDARD};
use empath_common::Reply;
use zeroize::Zeroizing;

use super::{
    Identity, Mechanism, Secret, Verifier, plain, prepare, reply,
    scram::{Challenged, ClientFirst},
};

/// One authentication from AUTH to its result (RFC 4954 §4). It owns what it knows; the end forgets that.
#[derive(Debug)]
pub(in super::super) struct Exchange {
    mechanism: Mechanism,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The client's first message is waited for.
    First,
    /// LOGIN: the password is waited for.
    LoginPassword(Box<str>),
    /// PLAIN and LOGIN: whether this is the password is asked.
    Password(Box<str>, Secret),
    /// SCRAM: the keys of a user are asked for.
    Keys(ClientFirst),
    /// SCRAM: the proof is waited for.
    Proof(Box<Challenged>),
    /// SCRAM: the result is told, with our final message if the proof is right.
    Proven(Box<str>, Option<String>),
    /// SCRAM: the client is to take note of our final message.
    Acknowledgement(Identity),
}

/// What comes next in an exchange.
#[derive(Debug)]
pub(in super::super) enum Turn {
    /// Send this challenge (before it is written in base64), then wait for a response.
    Challenge(Exchange, String),
    /// Put [`Exchange::query`] to the users file.
    Ask(Exchange),
    /// The client is who it says.
    Accepted(Identity),
    /// It has failed.
    Refused(Reply),
    /// It has failed, as others have before: the session is to end.
    Hopeless,
}

/// What is asked about a user, who need not exist.
#[derive(Debug, Clone, Copy)]
pub enum AuthQuery<'a> {
    /// Whether this is the user's password.
    Password(&'a str, &'a Secret),
    /// What SCRAM-SHA-256 needs to know about the user.
    Keys(&'a str),
    /// The user has shown a right or a wrong proof. Neither is final before the answer.
    Proof(&'a str, bool),
}

/// The answer to an [`AuthQuery`].
#[derive(Debug)]
pub enum AuthAnswer {
    /// Password or proof are right.
    Accepted(Identity),
    /// The verifier of the user, who need not exist, and a fresh nonce of visible ASCII without commas.
    Keys(Verifier, String),
    /// Password or proof are wrong, or there is no such user.
    Refused,
    /// It can't be known at present.
    Unavailable,
    /// Too many have failed before this.
    TooMany,
}

/// Why an exchange fails, apart from what the users file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not base64, or not a message of the mechanism.
    Malformed,
    /// The client wants to act as another user than it authenticates as.
    OtherIdentity,
    /// A value of `server-error` (RFC 5802 §7). It goes out with our reply: a final message with it is optional, and
    /// would cost a round trip.
    Scram(&'static str),
}

impl Exchange {
    /// Starts with the initial response that the client may have sent: base64, or `=` for an empty one.
    pub(in super::super) fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Turn {
        let exchange = Self { mechanism, stage: Stage::First };
        match (initial, mechanism) {
            (Some(b"="), _) => exchange.message(Vec::new().into()),
            (Some(response), _) => exchange.response(response),
            (None, Mechanism::Login) => exchange.challenge("Username:"),
            (None, Mechanism::Plain | Mechanism::ScramSha256) => exchange.challenge(""),
        }
    }

    /// Takes the client's response to a challenge, a line without its CRLF.
    pub(in super::super) fn response(self, line: &[u8]) -> Turn {
        if line == b"*" {
            return Turn::Refused(reply::AUTHENTICATION_CANCELLED);
        }
        match decode(line) {
            Some(message) => self.message(message),
            None => Turn::Refused(Fault::Malformed.into()),
        }
    }

    /// What [`answer`](Self::answer) must answer.
    pub(in super::super) fn query(&self) -> Option<AuthQuery<'_>> {
        match &self.stage {
            Stage::Password(name, password) => Some(AuthQuery::Password(name, password)),
            Stage::Keys(first) => Some(AuthQuery::Keys(&first.name)),
            Stage::Proven(name, server_final) => Some(AuthQuery::Proof(name, server_final.is_some())),
            _ => None,
        }
    }

    /// Who it is about, once that is known.
    pub(in super::super) fn name(&self) -> &str {
        match &self.stage {
            Stage::First => "",
            Stage::LoginPassword(name) | Stage::Password(name, _) | Stage::Proven(name, _) => name,
            Stage::Keys(first) => &first.name,
            Stage::Proof(challenged) => &challenged.name,
            Stage::Acknowledgement(identity) => &identity.name,
        }
    }

    /// The mechanism in use.
    pub(in super::super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the answer to [`query`](Self::query).
    pub(in super::super) fn answer(self, answer: AuthAnswer) -> Turn {
        match (self.stage, answer) {
            (_, AuthAnswer::Unavailable) => Turn::Refused(reply::AUTHENTICATION_UNAVAILABLE),
            (_, AuthAnswer::TooMany) => Turn::Hopeless,
            (Stage::Password(..), AuthAnswer::Accepted(identity)) => Turn::Accepted(identity),
            (Stage::Keys(first), AuthAnswer::Keys(verifier, nonce)) => {
                let (challenged, challenge) = first.challenge(verifier, &nonce);
                Self { stage: Stage::Proof(Box::new(challenged)), ..self }.challenge(&challenge)
            }
            (Stage::Proven(_, Some(server_final)), AuthAnswer::Accepted(identity)) => {
                Self { stage: Stage::Acknowledgement(identity), ..self }.challenge(&server_final)
            }
            (Stage::Proven(..), _) => Turn::Refused(Fault::Scram("invalid-proof").into()),
            _ => Turn::Refused(reply::BAD_CREDENTIALS),
        }
    }

    fn challenge(self, text: &str) -> Turn {
        Turn::Challenge(self, STANDARD.encode(text))
    }

    fn message(self, message: Secret) -> Turn {
        let next = match self.stage {
            Stage::First => match self.mechanism {
                Mechanism::Plain => {
                    plain::parse(message.octets()).map(|(name, password)| Stage::Password(name, password))
                }
                Mechanism::ScramSha256 => ClientFirst::parse(message.octets()).map(Stage::Keys),
                Mechanism::Login => match prepare::name(message.octets()) {
                    Some(name) => {
                        return Self { stage: Stage::LoginPassword(name), ..self }.challenge("Password:");
                    }
                    None => Err(Fault::Malformed),
                },
            },
            Stage::LoginPassword(name) => Ok(Stage::Password(name, message)),
            Stage::Proof(challenged) => challenged
                .prove(message.octets())
                .map(|proven| Stage::Proven(proven.name, proven.server_final)),
            Stage::Acknowledgement(identity) if message.octets().is_empty() => {
                return Turn::Accepted(identity);
            }
            _ => Err(Fault::Malformed),
        };
        match next {
            Ok(stage) => Turn::Ask(Self { mechanism: self.mechanism, stage }),
            Err(fault) => Turn::Refused(fault.into()),
        }
    }
}

/// Strict base64 (RFC 4648 §3.3, §3.5): padded, nothing else in between, no stray bits.
fn decode(line: &[u8]) -> Option<Secret> {
    let mut octets = Zeroizing::new(vec![0; line.len() / 4 * 3]);
    let len = STANDARD.decode_slice(line, &mut octets).ok()?;
    octets.get(..len).map(Secret::from)
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => reply::BAD_RESPONSE,
            Fault::OtherIdentity => reply::OTHER_IDENTITY,
            Fault::Scram(error) => {
                reply::BAD_CREDENTIALS.with_text(format!("Authentication failed: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(message: &str) -> String {
        STANDARD.encode(message)
    }

    fn identity() -> Identity {
        Identity { name: "u".into(), senders: [].into() }
    }

    /// What a turn is, in one line.
    fn shown(turn: &Turn) -> String {
        match turn {
            Turn::Challenge(_, challenge) => String::from_utf8(STANDARD.decode(challenge).unwrap()).unwrap(),
            Turn::Ask(exchange) => match exchange.query() {
                Some(AuthQuery::Password(name, password)) => {
                    format!("password {name} {}", password.octets().escape_ascii())
                }
                Some(AuthQuery::Keys(name)) => format!("keys {name}"),
                Some(AuthQuery::Proof(name, right)) => format!("proof {name} {right}"),
                None => "nothing".to_owned(),
            },
            Turn::Accepted(identity) => format!("accepted {}", identity.name),
            Turn::Refused(reply) => reply.code.to_string(),
            Turn::Hopeless => "hopeless".to_owned(),
        }
    }

    fn exchange(turn: Turn) -> Exchange {
        match turn {
            Turn::Challenge(exchange, _) | Turn::Ask(exchange) => exchange,
            other => panic!("over: {}", shown(&other)),
        }
    }

    #[test]
    fn the_first_turn_depends_on_mechanism_and_initial_response() {
        use Mechanism::{Login, Plain, ScramSha256};
        for (mechanism, initial, expected) in [
            (Plain, None, ""),
            (Plain, Some("="), "501"),
            (Plain, Some(""), "501"),
            (Plain, Some("*"), "501"),
            (Plain, Some(&*encode("\0u\0p\u{e9}")), "password u p\\xc3\\xa9"),
            (Login, None, "Username:"),
            (Login, Some("="), "501"),
            (Login, Some(&encode("u")), "Password:"),
            (Login, Some(&encode("u\0p")), "501"),
            (ScramSha256, None, ""),
            (ScramSha256, Some("="), "501"),
            (ScramSha256, Some(&encode("n,,n=u,r=x")), "keys u"),
            (ScramSha256, Some(&encode("n,a=v,n=u,r=x")), "535"),
        ] {
            let turn = Exchange::begin(mechanism, initial.map(str::as_bytes));
            assert_eq!(shown(&turn), expected, "{mechanism} {initial:?}");
        }
    }

    #[test]
    fn answers_that_do_not_fit_the_question_accept_nobody() {
        let keys = || {
            let verifier = Verifier::derive(b"p", b"saltsalt", 4096.try_into().unwrap());
            AuthAnswer::Keys(verifier, "y".to_owned())
        };
        let plain = || exchange(Exchange::begin(Mechanism::Plain, Some(encode("\0u\0p").as_bytes())));
        let scram =
            || exchange(Exchange::begin(Mechanism::ScramSha256, Some(encode("n,,n=u,r=x").as_bytes())));
        let wrong = || {
            let challenged = exchange(scram().answer(keys()));
            exchange(challenged.response(encode("c=biws,r=xy,p=AAAA").as_bytes()))
        };
        assert_eq!(shown(&plain().answer(AuthAnswer::Accepted(identity()))), "accepted u");
        for asked in [&plain as &dyn Fn() -> Exchange, &scram, &wrong] {
            assert_eq!(shown(&asked().answer(AuthAnswer::Refused)), "535");
            assert_eq!(shown(&asked().answer(AuthAnswer::Unavailable)), "454");
            assert_eq!(shown(&asked().answer(AuthAnswer::TooMany)), "hopeless");
        }
        assert_eq!(shown(&plain().answer(keys())), "535");
        assert_eq!(shown(&scram().answer(AuthAnswer::Accepted(identity()))), "535");
        assert_eq!(shown(&Turn::Ask(wrong())), "proof u false");
        assert_eq!(shown(&wrong().answer(AuthAnswer::Accepted(identity()))), "535");
    }

    #[test]
    fn passwords_are_not_in_debug() {
        let turn = Exchange::begin(Mechanism::Plain, Some(encode("\0u\0hunter2").as_bytes()));
        let shown = format!("{turn:?}") + &format!("{:?}", exchange(turn).query());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
