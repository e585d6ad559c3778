use std::mem;

use empath_common::{Answer, Metadata, Query, Reply, ReversePath, Verdict};
use jiff::Timestamp;

use super::{
    super::{
        future_release, priority, reply,
        trace::Protocol,
        transaction::{Mail, State},
    },
    Session, Waiting,
};

/// The metadata of a message that has its authenticated user.
const USER: &str = "auth_user";

impl Session {
    /// What [`decide`](Self::decide) must answer.
    pub(super) fn question(&self) -> Option<Query<'_>> {
        let client = &self.client;
        match (&self.waiting, &self.state) {
            (Waiting::Connect, _) => Some(Query::Connect(client)),
            (Waiting::Ehlo(..), _) => Some(Query::Ehlo(client)),
            (Waiting::Mail(mail), _) => Some(Query::MailFrom(client, &mail.reverse_path)),
            (Waiting::Rcpt(path, _), state) => Some(Query::RcptTo(client, state.reverse_path()?, path)),
            (Waiting::Data(_), State::Rcpt(envelope)) => Some(Query::Data(client, envelope)),
            _ => None,
        }
    }

    /// The answer to [`Step::Ask`](super::Step::Ask), and the time: EHLO and MAIL may speak of it.
    pub fn decide(&mut self, answer: Answer, now: Timestamp) {
        let waiting = mem::take(&mut self.waiting);
        match answer.verdict {
            Verdict::Accept => self.accepted(waiting, answer.metadata, now),
            Verdict::Refuse(reply) => self.refused(waiting, &reply),
        }
    }

    fn accepted(&mut self, waiting: Waiting, metadata: Metadata, now: Timestamp) {
        match waiting {
            Waiting::Connect => self.reply(&reply::greeting(&self.settings.hostname)),
            Waiting::Ehlo(protocol, _) => {
                self.protocol = protocol;
                self.state = State::Ready;
                self.reply(&match protocol {
                    Protocol::Smtp => reply::helo(&self.settings.hostname),
                    Protocol::Esmtp => reply::ehlo(&self.settings.hostname, &self.keywords(now)),
                });
            }
            Waiting::Mail(mail) => {
                if let (Some(request), Some(longest)) = (mail.future_release, self.longest_wait())
                    && let Err(reply) = future_release::check(request, longest, now)
                {
                    return self.reply(&reply);
                }
                let (mt_priority, changed) = priority::that_counts(mail.mt_priority, self.is_trusted());
                let mut metadata = metadata;
                if let Some(user) = &self.client.user
                    && metadata.insert(USER.to_owned(), user.to_string()).is_err()
                {
                    return self.reply(&reply::TOO_MUCH_METADATA);
                }
                self.state = State::Mail(Mail { mt_priority, metadata, ..mail });
                self.reply(&changed.unwrap_or(reply::SENDER_OK));
            }
            Waiting::Rcpt(path, notification) => {
                let state = mem::take(&mut self.state);
                let max = self.settings.limits.recipients;
                let (state, reply) = state.rcpt(path, notification, metadata, max);
                self.state = state;
                self.reply(&reply);
            }
            Waiting::Data(chunk) => {
                if let State::Rcpt(envelope) = &mut self.state
                    && envelope.metadata.merge(metadata).is_err()
                {
                    self.state.reset();
                    return self.refuse_content("DATA", &"", reply::TOO_MUCH_METADATA, chunk);
                }
                self.waiting = Waiting::Begin(chunk);
            }
            other @ (Waiting::Nothing
            | Waiting::StartTls
            | Waiting::Auth(_)
            | Waiting::Begin(_)
            | Waiting::Commit(_)) => {
                self.waiting = other;
            }
        }
    }

    fn refused(&mut self, waiting: Waiting, reply: &Reply) {
        match waiting {
            Waiting::Connect => {
                self.refuse("connect", &"", reply);
                self.closing = true;
            }
            Waiting::Ehlo(_, previous) => {
                let name = mem::replace(&mut self.client.helo, previous);
                self.refuse("EHLO", &name.unwrap_or_default(), reply);
            }
            Waiting::Mail(mail) => self.refuse("MAIL", &mail.reverse_path, reply),
            Waiting::Rcpt(path, _) => self.refuse("RCPT", &path, reply),
            Waiting::Data(chunk) => {
                let sender = self.state.reverse_path().cloned().unwrap_or(ReversePath::Null);
                self.state.reset();
                self.refuse_content("DATA", &sender, reply.clone(), chunk);
            }
            other @ (Waiting::Nothing
            | Waiting::StartTls
            | Waiting::Auth(_)
            | Waiting::Begin(_)
            | Waiting::Commit(_)) => {
                self.waiting = other;
            }
        }
    }
}
