use std::collections::BTreeMap;

use empath_common::{
    ForwardPath, Host, MessageId, MessageNotification, Priority, RecipientNotification, Reply,
};
use empath_spool::{Attempt, RecipientState, Stored};
use jiff::Timestamp;

use crate::queue::{MessageStatus, RecipientStatus, Snapshot};

/// A message as an operator sees it.
#[derive(Debug, Clone)]
pub struct MessageView {
    /// Its id.
    pub id: MessageId,
    /// The reverse-path; empty when it is null.
    pub sender: String,
    /// Octets of content.
    pub size: u64,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// How far it is.
    pub status: MessageStatus,
    /// How urgent it is.
    pub priority: Priority,
    /// What its sender asked of reports.
    pub notification: MessageNotification,
    /// Every recipient, those that have ended too.
    pub recipients: Vec<RecipientView>,
}

/// A recipient as an operator sees it.
#[derive(Debug, Clone)]
pub struct RecipientView {
    /// The forward-path without brackets.
    pub address: String,
    /// How far it is.
    pub status: RecipientStatus,
    /// What the sender asked about it.
    pub notification: RecipientNotification,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due, if it is deferred or its sender has scheduled it.
    pub next_attempt_at: Option<Timestamp>,
    /// Where it goes by the present configuration; where it went, if it has ended.
    pub next_hop: Option<String>,
    /// The host of the last attempt.
    pub host: Option<String>,
    /// The reply to the last attempt, or what happened instead of one.
    pub last_reply: Option<ReplyView>,
}

/// A reply as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyView {
    /// The code; `None` when there was no reply.
    pub code: Option<u16>,
    /// The enhanced status, of the reply or of the failure.
    pub enhanced: Option<String>,
    /// The text, or what happened.
    pub text: String,
}

/// One attempt for one recipient as an operator sees it.
#[derive(Debug, Clone)]
pub struct HistoryView {
    /// The forward-path without brackets.
    pub address: String,
    /// When the attempt ended.
    pub at: Timestamp,
    /// Where it went.
    pub next_hop: String,
    /// The host that gave the reply or failed.
    pub host: Option<String>,
    /// The status of the attempt.
    pub status: String,
    /// The reply, or what happened.
    pub reply: ReplyView,
}

/// The queue in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Messages.
    pub total: usize,
    /// Messages by status.
    pub by_status: BTreeMap<MessageStatus, usize>,
    /// Messages by the domains of the recipients that have not ended.
    pub by_domain: BTreeMap<String, usize>,
    /// Age of the oldest message.
    pub oldest_seconds: Option<u64>,
}

impl MessageView {
    pub(super) fn new(
        message: &Snapshot,
        stored: Option<&Stored>,
        route: impl Fn(usize) -> Option<String>,
    ) -> Self {
        let envelope = stored.map(|stored| &*stored.envelope);
        let views = (0..).zip(&message.recipients).zip(&message.hosts).map(|((index, recipient), host)| {
            let last = stored.and_then(|stored| stored.recipients.get(index)).and_then(last);
            let &(status, attempts, next_attempt_at) = recipient;
            let path = envelope.and_then(|envelope| envelope.recipients().get(index));
            let address = path.map_or_else(|| unread(host.as_ref()), |path| path.as_str().to_owned());
            let went = last.map(|last| last.next_hop.clone());
            let notification = envelope.map(|envelope| envelope.notification_of(index).clone());
            RecipientView {
                address,
                status,
                notification: notification.unwrap_or_default(),
                attempts,
                next_attempt_at,
                next_hop: if status.is_end() { went } else { route(index) },
                host: last.and_then(|last| last.host.clone()),
                last_reply: last.map(reply),
            }
        });
        Self {
            id: message.id,
            sender: envelope.map_or_else(String::new, |envelope| envelope.reverse_path.as_str().to_owned()),
            size: message.size,
            received_at: message.received_at,
            status: message.status,
            priority: message.priority,
            notification: envelope.map(|envelope| envelope.notification().clone()).unwrap_or_default(),
            recipients: views.collect(),
        }
    }
}

/// What is known of an address that the spool does not give back.
fn unread(host: Option<&Host>) -> String {
    host.map_or_else(|| "Postmaster".to_owned(), |host| format!("@{host}"))
}

fn last(state: &RecipientState) -> Option<&Attempt> {
    state.history.last()
}

fn reply(attempt: &Attempt) -> ReplyView {
    match &attempt.reply {
        Some(Reply { code, enhanced, text }) => ReplyView {
            code: Some(code.get()),
            enhanced: enhanced.map(|enhanced| enhanced.to_string()),
            text: text.to_string(),
        },
        None => {
            ReplyView { code: None, enhanced: Some(attempt.status.to_string()), text: attempt.detail.clone() }
        }
    }
}

/// The first and the last seven attempts for each recipient, oldest first.
pub(super) fn history(stored: &Stored) -> Vec<HistoryView> {
    let mut history: Vec<_> = stored
        .envelope
        .recipients()
        .iter()
        .zip(&stored.recipients)
        .flat_map(|(path, state)| state.history.iter().map(|attempt| view(path, attempt)))
        .collect();
    history.sort_by_key(|attempt| attempt.at);
    history
}

fn view(path: &ForwardPath, attempt: &Attempt) -> HistoryView {
    HistoryView {
        address: path.as_str().to_owned(),
        at: attempt.at,
        next_hop: attempt.next_hop.clone(),
        host: attempt.host.clone(),
        status: attempt.status.to_string(),
        reply: reply(attempt),
    }
}
