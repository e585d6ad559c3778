use std::fmt;

use empath_common::MessageId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Status;

/// Why a message is still in the queue: the answer of `queue.why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueWhy {
    /// Its id.
    pub id: MessageId,
    /// Its recipients that have not ended or whose end their sender does not know, in the order of the envelope.
    pub recipients: Vec<WhyEntry>,
}

/// Why a recipient has not got its message yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEntry {
    /// The forward-path without brackets.
    pub address: String,
    /// How far it is.
    pub state: Status,
    /// What it waits for.
    pub because: Because,
    /// When that is over; `None` where nobody knows.
    pub until: Option<Timestamp>,
    /// The same for people.
    pub detail: String,
}

/// What a recipient waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// Nothing: an attempt is being made.
    InProgress,
    /// Nothing: its attempt is about to start.
    Ready,
    /// A connection to its destination.
    LaneBusy,
    /// A rate limit.
    RateLimited,
    /// The circuit breaker of its destination.
    BreakerOpen,
    /// The time of its next attempt.
    Deferred,
    /// An operator, who holds the message.
    Held,
    /// An operator, who has stopped its destination or the queue.
    Frozen,
    /// The time that its sender asked for.
    Scheduled,
    /// Name servers.
    Resolving,
    /// Nothing: it has ended, and its sender is about to be told.
    Untold,
}

/// The name in the protocol: `lane_busy`.
impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
