use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was not done: the `error` of the protocol and of `empathctl --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// The kinds of failure that programs can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request is no request.
    BadRequest,
    /// The request is of another version of the protocol.
    UnsupportedVersion,
    /// The message that was asked about does not exist (any more).
    NotFound,
    /// The request can't be granted as things are.
    Refused,
    /// The daemon failed to do it.
    Failed,
    /// The request or an answer is larger than the protocol allows.
    TooLarge,
    /// Too many control clients.
    Busy,
    /// The client was too slow, or went away.
    Gone,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl Failure {
    /// A failure with a message for people.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn gone() -> Self {
        Self::new(FailureCode::Gone, "the control client is gone")
    }
}

/// The name in the protocol: `not_found`.
impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
