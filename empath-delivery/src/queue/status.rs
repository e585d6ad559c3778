use empath_spool::Ended;

/// How far a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientStatus {
    /// Not tried yet; it has a due time if its sender asked for one.
    Pending,
    /// An attempt is being made.
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

/// How far a message is: in progress if any recipient is, else held, else deferred if any is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageStatus {
    /// No recipient was tried yet.
    Pending,
    /// An attempt is being made, or all recipients have ended and the sender is about to be told.
    InProgress,
    /// Some recipient was tried without success.
    Deferred,
    /// An operator has stopped it.
    Held,
}

impl From<Ended> for RecipientStatus {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Delivered => Self::Completed,
            Ended::Bounced | Ended::Removed => Self::Failed,
            Ended::Expired => Self::Expired,
        }
    }
}

impl RecipientStatus {
    /// Whether nothing more happens to it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired)
    }
}

impl MessageStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::InProgress, Self::Deferred, Self::Held];

    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Deferred => "deferred",
            Self::Held => "held",
        }
    }
}
