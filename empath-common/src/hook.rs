use std::{pin::Pin, sync::Arc};

use crate::{Client, Envelope, ForwardPath, Metadata, Reply, ReversePath};

/// A question that the protocol puts to policy before it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Query<'a> {
    /// A client has connected; nothing has been said.
    Connect(&'a Client),
    /// EHLO or HELO; the name is in [`Client::helo`].
    Ehlo(&'a Client),
    /// MAIL FROM.
    MailFrom(&'a Client, &'a ReversePath),
    /// RCPT TO, with the reverse-path and the recipient asked about.
    RcptTo(&'a Client, &'a ReversePath, &'a ForwardPath),
    /// DATA: the envelope is complete, the content is still to come.
    Data(&'a Client, &'a Envelope),
}

/// What policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Accept,
    /// Refuse with this 4yz or 5yz reply. A reply of another class counts as 451 4.3.0.
    Refuse(Reply),
}

/// A verdict, and what the hook wants remembered about the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What to do.
    pub verdict: Verdict,
    /// Travels with the message until its end; ignored outside a mail transaction.
    pub metadata: Metadata,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, metadata: Metadata::default() }
    }
}

/// An answer that is there, or one to wait for.
pub enum Asked<'a> {
    /// The hook needed nobody else.
    Now(Answer),
    /// The hook waits for something.
    Later(Pin<Box<dyn Future<Output = Answer> + Send + 'a>>),
}

/// Something that has a say in what is accepted: core policy, or a plugin module.
pub trait Hook: Send + Sync {
    /// Answers `query`. Must not block the thread; what takes time is [`Asked::Later`], with a deadline of its own.
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a>;
}

/// Hooks in their order: the first that refuses decides; metadata of all before it is kept.
#[derive(Clone, Default)]
pub struct Hooks(Arc<[Arc<dyn Hook>]>);

impl Hooks {
    /// Hooks that are asked in this order.
    pub fn new(hooks: Vec<Arc<dyn Hook>>) -> Self {
        Self(hooks.into())
    }

    /// Asks one after another until one refuses.
    pub async fn ask(&self, query: Query<'_>) -> Answer {
        let mut metadata = Metadata::default();
        for hook in self.0.iter() {
            let answer = match hook.ask(query) {
                Asked::Now(answer) => answer,
                Asked::Later(answer) => answer.await,
            };
            let full = metadata.merge(answer.metadata).is_err();
            match answer.verdict {
                Verdict::Refuse(reply) => {
                    return Answer { verdict: Verdict::Refuse(refusal(reply)), metadata };
                }
                Verdict::Accept if full => {
                    return Verdict::Refuse(Reply::new(451, (4, 3, 0), "Too much metadata for one message"))
                        .into();
                }
                Verdict::Accept => {}
            }
        }
        Answer { verdict: Verdict::Accept, metadata }
    }
}

/// A refusal is 4yz or 5yz. Anything else says that the hook is broken, and must not look like acceptance.
fn refusal(reply: Reply) -> Reply {
    if reply.code.is_transient() || reply.code.is_permanent() {
        reply
    } else {
        Reply::new(451, (4, 3, 0), "Local error in processing")
    }
}
