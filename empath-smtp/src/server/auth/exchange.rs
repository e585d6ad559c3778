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
