use std::time::Duration;

use super::Count;
use crate::tls::Identity;

/// What a [`Peer`](super::Peer) does where. Without rules it accepts everything.
#[derive(Debug)]
pub struct Script {
    pub(super) keywords: Vec<String>,
    pub(super) keywords_in_tls: Option<Vec<String>>,
    pub(super) identity: Option<Identity>,
    /// Whether TLS comes before the greeting.
    pub(super) tls_first: bool,
    /// Most connections at the same time.
    pub(super) most: usize,
    pub(super) lmtp: bool,
    /// The name and the password that it wants before mail.
    pub(super) login: Option<(String, String)>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    at: At,
    act: Act,
    /// Only at this occurrence; the first is 1.
    only: Option<usize>,
    seen: Count,
}

/// A step of the dialogue, seen from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A client has connected and waits for the greeting.
    Greeting,
    /// EHLO, or LHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// The client has begun the TLS handshake; anything but a delay comes in place of it.
    Handshake,
    /// The end of AUTH.
    Auth,
    /// The challenge that says why a token is refused; only a reply can stand in its place.
    Challenge,
    /// MAIL.
    MailFrom,
    /// Any RCPT.
    RcptTo,
    /// RCPT with this address.
    Recipient(String),
    /// DATA.
    Data,
    /// BDAT, its octets read, but not the last.
    Chunk,
    /// Content is about to come; a reply here is sent before any of it is read. [`Act::Close`] waits for its
    /// first octets.
    Content,
    /// The end of data, or the last chunk, has been read.
    EndOfData,
    /// Over LMTP, the reply to the end of data about the recipient with this address; [`At::EndOfData`] is about any.
    Delivery(String),
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
    /// The reply to the end of data has been written; [`Act::Raw`] says something unasked.
    Idle,
}

/// What to do in place of the usual reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Answer this; lines are separated by `\n`.
    Reply(String),
    /// Answer this, then close.
    ReplyAndClose(String),
    /// Write these octets, then go on as after a refusal.
    Raw(Vec<u8>),
    /// Close without an answer.
    Close,
    /// Answer as usual after this time.
    Delay(Duration),
    /// Never answer, and read no more.
    Stall,
}

impl Act {
    /// Answer this.
    pub fn reply(text: impl Into<String>) -> Self {
        Self::Reply(text.into())
    }

    /// Answer this, then close.
    pub fn reply_and_close(text: impl Into<String>) -> Self {
        Self::ReplyAndClose(text.into())
    }

    /// Write these octets.
    pub fn raw(octets: impl Into<Vec<u8>>) -> Self {
        Self::Raw(octets.into())
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// Accepts everything and offers PIPELINING, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES and SIZE.
    pub fn new() -> Self {
        let keywords = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE"];
        Self {
            keywords: keywords.map(String::from).into(),
            rules: Vec::new(),
            keywords_in_tls: None,
            identity: None,
            tls_first: false,
            most: usize::MAX,
            lmtp: false,
            login: None,
        }
    }

    /// Offers STARTTLS too, and shows this certificate.
    #[must_use]
    pub fn tls(self, identity: Identity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// Speaks TLS from the first octet (RFC 8314 §3), and shows this certificate.
    #[must_use]
    pub fn tls_first(self, identity: Identity) -> Self {
        Self { identity: Some(identity), tls_first: true, ..self }
    }

    /// Offers these extensions inside TLS, instead of those that it offers in clear text.
    #[must_use]
    pub fn offer_in_tls<'a>(self, keywords: impl IntoIterator<Item = &'a str>) -> Self {
        Self { keywords_in_tls: Some(keywords.into_iter().map(String::from).collect()), ..self }
    }

    /// Offers these extensions only.
    #[must_use]
    pub fn offer<'a>(self, keywords: impl IntoIterator<Item = &'a str>) -> Self {
        Self { keywords: keywords.into_iter().map(String::from).collect(), ..self }
    }

    /// Speaks LMTP (RFC 2033): LHLO in place of EHLO, and after the content a reply for each accepted recipient.
    #[must_use]
    pub fn lmtp(self) -> Self {
        Self { lmtp: true, ..self }
    }

    /// Takes mail only after AUTH with this name and password, by PLAIN or LOGIN, or by OAUTHBEARER or XOAUTH2 with the password as
    /// the token. Which of them is offered is one of the keywords.
    #[must_use]
    pub fn login(self, user: &str, password: &str) -> Self {
        Self { login: Some((user.into(), password.into())), ..self }
    }

    /// Greets connections that are more than this many at the same time with 421, and closes them.
    #[must_use]
    pub fn at_most(self, connections: usize) -> Self {
        Self { most: connections, ..self }
    }

    /// Does this every time. The first rule that matches decides.
    #[must_use]
    pub fn on(self, at: At, act: Act) -> Self {
        self.rule(at, act, None)
    }

    /// Does this at one occurrence only, counted over all connections from 1.
    #[must_use]
    pub fn nth(self, at: At, occurrence: usize, act: Act) -> Self {
        self.rule(at, act, Some(occurrence))
    }

    fn rule(mut self, at: At, act: Act, only: Option<usize>) -> Self {
        self.rules.push(Rule { at, act, only, seen: Count::default() });
        self
    }

    /// The rule for this step. What is about one recipient is looked up by the address and as about any.
    pub(super) fn act(&self, at: &At) -> Option<&Act> {
        let any = match at {
            At::Recipient(_) => Some(At::RcptTo),
            At::Delivery(_) => Some(At::EndOfData),
            _ => None,
        };
        let matches = |rule: &&Rule| rule.at == *at || Some(&rule.at) == any.as_ref();
        let mut found = None;
        for rule in self.rules.iter().filter(matches) {
            let occurrence = rule.seen.next();
            if found.is_none() && rule.only.is_none_or(|only| only == occurrence) {
                found = Some(&rule.act);
            }
        }
        found
    }
}
