//! What an attempt has come to, for its recipients and for the destination.

use std::{sync::Arc, time::Duration};

use empath_common::Reply;
use empath_smtp::client::{self, FailureKind, Stage};

use crate::{
    dsn::Arrived,
    failure::{Class, Failure, Footing, Scope},
    open::{Open, Peer},
    queue::{Job, JobRecipient, Outcome},
};

/// What one attempt has come to.
pub(crate) struct Attempted {
    /// One for each recipient of the job.
    pub(crate) results: Vec<Tried>,
    /// Places of recipients that should not share a transaction again: it failed as a whole, maybe by the fault of one.
    pub(crate) alone: Vec<u32>,
    /// Time spent on finding and connecting to hosts.
    pub(crate) connect: Duration,
    /// Time spent in transactions.
    pub(crate) transfer: Duration,
    /// Connections of no more use, to take leave of.
    pub(crate) spare: Vec<Open>,
    /// What it says about the destination.
    pub(crate) outcome: Outcome,
    /// Whether a host came to hear of the recipients.
    begun: bool,
}

impl Attempted {
    /// Without any result yet.
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            results: Vec::with_capacity(job.recipients.len()),
            alone: Vec::new(),
            connect: Duration::ZERO,
            transfer: Duration::ZERO,
            spare: Vec::new(),
            outcome: Outcome::Unknown,
            begun: false,
        }
    }

    /// The same failure for all, before any host was asked.
    pub(crate) fn all(job: &Job, failure: &Failure) -> Self {
        let failed = |recipient: &JobRecipient| Tried {
            recipient: *recipient,
            result: Err(failure.clone()),
            peer: None,
            arrived: None,
        };
        Self { results: job.recipients.iter().map(failed).collect(), ..Self::new(job) }
    }

    /// Learns what a host answered about a recipient.
    pub(crate) fn hear(&mut self, result: &Result<Reply, client::Failure>, footing: Footing) {
        self.learn(said(result, footing));
        let refused =
            matches!(result, Err(client::Failure { stage: Stage::MailFrom, kind: FailureKind::Refused(_) }));
        self.begun |= !refused;
    }

    /// Learns what a host did.
    pub(crate) fn learn(&mut self, outcome: Outcome) {
        // One host that listens is enough. Of those that don't, one that takes MAIL at least is there; one that has too many
        // of our connections says more than one that fails, and one that doesn't know us more than both.
        let rank = |outcome| match outcome {
            Outcome::Unknown => 0,
            Outcome::Failed => 1,
            Outcome::TurnedAway => 2,
            Outcome::Denied => 3,
            Outcome::Interrupted => 4,
            Outcome::Good => 5,
        };
        if rank(outcome) > rank(self.outcome) {
            self.outcome = outcome;
        }
    }

    /// Whether a host has listened, whatever it said.
    pub(crate) fn has_listened(&self) -> bool {
        self.outcome == Outcome::Good
    }

    /// Whether there was no transaction, because the destination wants no more connections at present.
    pub(crate) fn is_turned_away(&self) -> bool {
        self.outcome == Outcome::TurnedAway && !self.begun
    }

    /// Whether a recipient did not get the message because it could not be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.results
            .iter()
            .any(|tried| tried.result.as_ref().is_err_and(|found| *found == Failure::unreadable()))
    }

    /// Says what has become of a message that could not be read.
    pub(crate) fn unreadable_is(&mut self, failure: &Failure) {
        for tried in &mut self.results {
            if let Err(found) = &mut tried.result
                && *found == Failure::unreadable()
            {
                *found = failure.clone();
            }
        }
    }
}

/// What one attempt has come to for one recipient.
pub(crate) struct Tried {
    pub(crate) recipient: JobRecipient,
    pub(crate) result: Result<Reply, Failure>,
    /// Who said so.
    pub(crate) peer: Option<Arc<Peer>>,
    /// How the message arrived, unless the next hop sees to telling the sender.
    pub(crate) arrived: Option<Arrived>,
}

/// What a connection that did not come about says about the host. One that never wants us is not ill.
pub(crate) fn turned_down(failure: &Failure) -> Outcome {
    if failure.is_denied() {
        Outcome::Denied
    } else if failure.class == Class::Permanent || failure.scope == Scope::Destination {
        Outcome::Unknown
    } else if failure.is_busy() {
        Outcome::TurnedAway
    } else {
        Outcome::Failed
    }
}

/// What a host's answer about a recipient says about the host.
fn said(result: &Result<Reply, client::Failure>, footing: Footing) -> Outcome {
    match result {
        Ok(_) => Outcome::Good,
        Err(failure) if footing.refuses_us(failure) => Outcome::Failed,
        Err(client::Failure { kind, stage }) => match kind {
            FailureKind::Unreadable => Outcome::Unknown,
            FailureKind::Unsupported(_) => Outcome::Good,
            FailureKind::Refused(reply) if reply.code.get() != 421 => Outcome::Good,
            FailureKind::Refused(_) if *stage == Stage::MailFrom => Outcome::TurnedAway,
            FailureKind::Refused(_) => Outcome::Failed,
            _ if *stage == Stage::MailFrom => Outcome::Failed,
            // It has taken MAIL: what breaks the connection then may be the message, and others are to have their turn.
            _ => Outcome::Interrupted,
        },
    }
}

/// The peer had given the connection up before it saw the message.
pub(crate) fn is_stale(result: &Result<Reply, client::Failure>) -> bool {
    match result {
        Err(client::Failure { stage: Stage::MailFrom, kind }) => match kind {
            FailureKind::Closed | FailureKind::Io(_) => true,
            FailureKind::Refused(reply) => reply.code.get() == 421,
            _ => false,
        },
        _ => false,
    }
}

/// The transaction failed without an answer that says whom it is about.
pub(crate) fn is_unclear(failure: &client::Failure) -> bool {
    matches!(failure.stage, Stage::RcptTo | Stage::Data | Stage::EndOfData)
        && matches!(failure.kind, FailureKind::Garbled(_) | FailureKind::Closed | FailureKind::Timeout)
}

/// RFC 5321 §4.5.3.1.10: more recipients than a transaction may have.
pub(crate) fn is_too_many(failure: &client::Failure) -> bool {
    match failure {
        client::Failure { stage: Stage::RcptTo, kind: FailureKind::Refused(reply) } => {
            matches!(reply.code.get(), 452 | 552)
        }
        _ => false,
    }
}

/// A chunk was not understood (RFC 5321 §4.2.4), or broke the dialogue before any was accepted, which says nothing about the
/// message.
pub(crate) fn is_about_chunks(failure: &client::Failure, takes_chunks: bool) -> bool {
    match (failure.stage, &failure.kind) {
        (Stage::Content | Stage::EndOfData, FailureKind::Refused(reply)) => {
            matches!(reply.code.get(), 500..=504)
        }
        (
            Stage::Content,
            FailureKind::Garbled(_) | FailureKind::Closed | FailureKind::Io(_) | FailureKind::Timeout,
        ) => !takes_chunks,
        _ => false,
    }
}
