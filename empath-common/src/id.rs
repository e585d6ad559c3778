use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The name of a message everywhere: in `queued as <id>`, the log, the queue, the spool. A ULID, so ids sort by
/// the time of reception.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Ulid);

/// The text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: 26 characters of Crockford's base 32 were expected")]
pub struct MessageIdError;

impl MessageId {
    /// A new id of this moment.
    pub fn generate(now: Timestamp, rng: &mut fastrand::Rng) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(milliseconds, rng.u128(..)))
    }

    /// The moment of the id, in milliseconds since 1970.
    pub fn milliseconds(self) -> u64 {
        self.0.timestamp_ms()
    }

    /// The id as sixteen octets, big-endian.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// The id from its sixteen octets.
    pub fn from_bytes(octets: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(octets))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.0)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;
    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        // 26 characters hold 130 bits: a first character above 7 overflows, and would be a second name of
        // another message.
        match text.as_bytes() {
            [b'0'..=b'7', ..] => Ulid::from_string(text).map(Self).map_err(|_| MessageIdError),
            _ => Err(MessageIdError),
        }
    }
}

impl TryFrom<String> for MessageId {
    type Error = MessageIdError;
    fn try_from(text: String) -> Result<Self, MessageIdError> {
        text.parse()
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.to_string()
    }
}
