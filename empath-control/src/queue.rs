use std::{collections::BTreeMap, fmt};

use empath_common::{Domain, MessageId, Priority, Reply};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a message or a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not tried yet.
    Pending,
    /// An attempt is under way.
    InProgress,
    /// Tried without success, to be tried again.
    Deferred,
    /// Stopped by an operator.
    Held,
    /// Delivered.
    Completed,
    /// Bounced, or removed by an operator.
    Failed,
    /// Too long in the queue.
    Expired,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::InProgress,
        Self::Deferred,
        Self::Held,
        Self::Completed,
        Self::Failed,
        Self::Expired,
    ];

    /// The status of a message from those of its recipients: the first of in progress, deferred, pending, held
    /// that any of them has, then that of the first recipient.
    pub fn of_message(recipients: impl IntoIterator<Item = Self>) -> Self {
        let rank = |status: &Self| match status {
            Self::InProgress => 0,
            Self::Deferred => 1,
            Self::Pending => 2,
            Self::Held => 3,
            Self::Completed | Self::Failed | Self::Expired => 4,
        };
        recipients.into_iter().min_by_key(rank).unwrap_or(Self::Completed)
    }
}

/// The name in the protocol: `in_progress`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A message of the queue, as `queue.list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its id.
    pub id: MessageId,
    /// The reverse-path without brackets; empty when it is null.
    pub sender: String,
    /// Octets of content.
    pub size: u64,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// How far it is: [`Status::of_message`].
    pub status: Status,
    /// How urgent it is.
    pub priority: Priority,
    /// Its recipients in the order of the envelope, those that have ended too.
    pub recipients: Vec<RecipientEntry>,
}

/// A recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientEntry {
    /// The forward-path without brackets.
    pub address: String,
    /// How far it is.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due again, or for the first time if its sender has scheduled it.
    pub next_attempt_at: Option<Timestamp>,
    /// Where it goes, or went.
    pub next_hop: Option<String>,
    /// The host of the last attempt.
    pub host: Option<String>,
    /// What came of the last attempt.
    pub last_reply: Option<LastReply>,
}

/// What an attempt ended with: the reply of the next hop, or our own words when there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReply {
    /// The code; `None` when there was no reply.
    pub code: Option<u16>,
    /// The enhanced status.
    pub enhanced: Option<String>,
    /// The text of the reply, or what went wrong.
    pub text: String,
}

impl From<&Reply> for LastReply {
    fn from(reply: &Reply) -> Self {
        Self {
            code: Some(reply.code.get()),
            enhanced: reply.enhanced.map(|status| status.to_string()),
            text: reply.text.clone().into_owned(),
        }
    }
}

/// Everything about one message but its body: the answer of `queue.view`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// As in the list.
    #[serde(flatten)]
    pub entry: QueueEntry,
    /// Whether all of the message comes back with a report of failure: `FULL` or `HDRS` (RFC 3461 §4.3).
    pub ret: Option<String>,
    /// What the sender knows it by (RFC 3461 §4.4), as it was given.
    pub envid: Option<String>,
    /// What was asked about recipients, of those about whom anything was.
    pub notifications: Vec<NotificationEntry>,
    /// The fields of its header, in order.
    pub headers: Vec<(String, String)>,
    /// The first and the last seven attempts for each recipient, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// What the sender asked about a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationEntry {
    /// The recipient.
    pub address: String,
    /// When a report is wanted: `NEVER`, or a list (RFC 3461 §4.1).
    pub notify: Option<String>,
    /// Whom the sender meant, as it was given (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

/// One attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When the attempt ended.
    pub at: Timestamp,
    /// The recipient.
    pub address: String,
    /// Where it went.
    pub next_hop: Option<String>,
    /// The host that was tried.
    pub host: Option<String>,
    /// What came of it.
    pub reply: LastReply,
}

/// Numbers about the queue: the answer of `queue.stats`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueStats {
    /// Messages.
    pub total: u64,
    /// Messages by their status.
    pub by_status: BTreeMap<Status, u64>,
    /// Messages by the domain of recipients that have not ended; a message counts once for each domain.
    pub by_domain: BTreeMap<String, u64>,
    /// Age of the oldest message; `None` when there is none.
    pub oldest_seconds: Option<u64>,
    /// Domains to which nothing starts.
    #[serde(default)]
    pub frozen: Vec<Domain>,
}

/// What `queue.freeze` and `queue.thaw` came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Which domain.
    pub domain: Domain,
    /// Whether it is frozen now.
    pub frozen: bool,
    /// Whether it was otherwise before.
    pub changed: bool,
}

/// What a command did: the answer of `queue.retry`, `queue.delete`, `queue.hold` and `queue.release`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// Messages that the selection names.
    pub matched: u64,
    /// Messages among them that are different now.
    pub changed: u64,
}
