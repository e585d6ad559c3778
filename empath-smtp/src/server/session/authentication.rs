use std::mem;

use bytes::Buf as _;
use empath_common::{Reply, ReversePath};
use zeroize::Zeroize as _;

use super::{
    super::{
        auth::{AuthAnswer, AuthQuery, Exchange, Mechanism, Secret, SenderCheck, Turn},
        line::{Line, MAX_AUTH_LINE},
        log, reply,
        submission::Mending,
        trace::Protocol,
        transaction::State,
    },
    Next, Session, Waiting,
};

impl Session {
    /// AUTH (RFC 4954 §4): once in a session, and not inside a transaction.
    pub(super) fn authenticate(
        &mut self,
        mechanism: Option<Mechanism>,
        initial: Option<&Secret>,
    ) -> Result<(), Reply> {
        let auth = &self.settings.auth;
        if auth.users_file.is_none() {
            return Err(reply::UNKNOWN_COMMAND);
        }
        if self.protocol == Protocol::Smtp || self.client.user.is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        self.state.check_between_transactions()?;
        if auth.require_tls && self.client.tls.is_none() {
            return Err(reply::ENCRYPTION_REQUIRED);
        }
        let mechanism = mechanism.filter(|mechanism| auth.mechanisms.contains(mechanism));
        let mechanism = mechanism.ok_or(reply::UNKNOWN_MECHANISM)?;
        self.turn(mechanism, "", Exchange::begin(mechanism, initial.map(Secret::octets)));
        Ok(())
    }

    /// Takes a response to a challenge from the input. Whatever it is, no command is in it.
    pub(super) fn response(&mut self) -> Option<Next> {
        let line = match self.lines.next(&self.input, MAX_AUTH_LINE) {
            Line::Partial => return Some(Next::Read),
            Line::Skip(len) => {
                self.input.advance(len);
                return None;
            }
            Line::TooLong(len) => {
                self.input.advance(len);
                None
            }
            Line::Whole(len) => Some(self.input.split_to(len)),
        };
        self.progress = true;
        if let State::Auth(exchange) = mem::replace(&mut self.state, State::Ready) {
            let (mechanism, name) = (exchange.mechanism(), exchange.name().to_owned());
            let turn = match line {
                None => Turn::Refused(reply::RESPONSE_TOO_LONG),
                Some(mut line) => {
                    let turn = exchange.response(line.strip_suffix(b"\r\n").unwrap_or_default());
                    line.zeroize();
                    turn
                }
            };
            self.turn(mechanism, &name, turn);
        }
        None
    }

    /// What [`authenticated`](Self::authenticated) must answer.
    pub(super) fn auth_query(&self) -> Option<AuthQuery<'_>> {
        match &self.waiting {
            Waiting::Auth(exchange) => exchange.query(),
            _ => None,
        }
    }

    /// The answer to [`Step::Authenticate`](super::Step::Authenticate).
    pub fn authenticated(&mut self, answer: AuthAnswer) {
        match mem::take(&mut self.waiting) {
            Waiting::Auth(exchange) => {
                let (mechanism, name) = (exchange.mechanism(), exchange.name().to_owned());
                self.turn(mechanism, &name, exchange.answer(answer));
            }
            other => self.waiting = other,
        }
    }

    /// Goes on in an exchange; `name` is what is known of the user so far.
    fn turn(&mut self, mechanism: Mechanism, name: &str, turn: Turn) {
        let authentications = &self.settings.metrics.authentications;
        match turn {
            Turn::Challenge(exchange, challenge) => {
                self.state = State::Auth(exchange);
                // It may be longer than the line of a reply (RFC 4954 §4).
                self.output.extend_from_slice(format!("334 {challenge}\r\n").as_bytes());
            }
            Turn::Ask(exchange) => self.waiting = Waiting::Auth(exchange),
            Turn::Accepted(identity) => {
                authentications.with("accepted").increment();
                self.client.user = Some(identity.name.clone());
                self.identity = Some(identity);
                log::authenticated(&self.client, mechanism);
                self.reply(&reply::AUTHENTICATED);
            }
            Turn::Refused(reply) => {
                authentications.with("refused").increment();
                self.refuse("AUTH", &name, &reply);
            }
            Turn::Hopeless => {
                authentications.with("blocked").increment();
                log::refused(&self.client, "AUTH", &name, &reply::TOO_MANY_FAILURES);
                self.close_with(&reply::TOO_MANY_FAILURES);
            }
        }
    }

    /// Whether a user may use this reverse-path. The null one belongs to everybody (RFC 5321 §4.5.5); whom a proxy has
    /// named is the proxy's business.
    pub(super) fn may_send_as(&self, reverse_path: &ReversePath) -> bool {
        match (&self.identity, reverse_path.mailbox()) {
            (Some(owner), Some(mailbox)) => {
                self.settings.auth.sender_check == SenderCheck::Off || owner.owns(mailbox)
            }
            _ => true,
        }
    }

    /// What is to become of the header of the message that is starting, if it is here that a user submits it.
    pub(super) fn mending(&mut self, reverse_path: &ReversePath) -> Option<Mending> {
        let (id, now) = self.starting.take()?;
        if self.identity.is_none() && !self.mode.is_submission() {
            return None;
        }
        let full = self.settings.auth.sender_check == SenderCheck::Full;
        let owner = self.identity.clone().filter(|_| full);
        Some(Mending::new(owner, reverse_path, id, &self.settings.hostname, now))
    }
}
