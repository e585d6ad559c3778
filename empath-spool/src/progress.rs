use empath_common::{EnhancedStatus, MessageId, Reply};
use jiff::Timestamp;

/// How far the delivery to one recipient has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Not tried yet.
    #[default]
    Pending,
    /// Tried without success, to be tried again at `next_attempt_at`.
    Deferred,
    /// The end: delivered, bounced, expired or removed by an operator.
    Ended(Ended),
}

/// The one end that a recipient reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The next hop has taken responsibility.
    Delivered,
    /// A permanent failure; the sender was told, where there is one to tell.
    Bounced,
    /// Too long in the queue; the sender was told, where there is one to tell.
    Expired,
    /// Removed by an operator.
    Removed,
}

/// What the sender is still to be told about a recipient that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// That it failed.
    Failed,
    /// That it has the message.
    Delivered,
    /// That a host has the message which sends no reports (RFC 3461 §5.2.2).
    Relayed,
}

/// The result of one attempt for one recipient, as it is shown and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When the attempt ended.
    pub at: Timestamp,
    /// The next hop as it is shown: `mx:example.test`, `smtp:127.0.0.1:2525`, `maildir`.
    pub next_hop: String,
    /// The host that gave the reply or failed: `mx1.example.test[192.0.2.1]:25`.
    pub host: Option<String>,
    /// The reply of the next hop; `None` when the attempt failed without one.
    pub reply: Option<Reply>,
    /// The status of the attempt, from the reply or from the kind of failure (RFC 3463).
    pub status: EnhancedStatus,
    /// One line that says what happened: `connection to … refused`, the reply's text.
    pub detail: String,
}

/// Attempts of a recipient that are kept: the first and the last.
pub(crate) const HISTORY: usize = 8;

/// The state of one recipient after all updates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientState {
    /// How far it is.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due again; `None` when it has ended or was not tried yet.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the sender was told that it takes long.
    pub told_of_delay: bool,
    /// What the sender does not know of its end yet; the message stays until he does.
    pub untold: Option<Untold>,
    /// The first attempt and the last seven, oldest first.
    pub history: Vec<Attempt>,
}

/// What one attempt, or an operator, changed for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientUpdate {
    /// The recipient's place in [`empath_common::Envelope::recipients`].
    pub recipient: u32,
    /// The status from now on.
    pub status: Status,
    /// The attempts from now on.
    pub attempts: u32,
    /// The due time from now on.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the sender has now been told that it takes long; he stays so.
    pub told_of_delay: bool,
    /// What the sender is to be told from now on; `None` when there is nothing, or he has been.
    pub untold: Option<Untold>,
    /// The attempt that led here; `None` when something else did.
    pub attempt: Option<Attempt>,
}

/// A change of the delivery state of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The message.
    pub id: MessageId,
    /// What changed; recipients that are not named stay as they were.
    pub updates: Vec<RecipientUpdate>,
}

impl Progress {
    /// Brings the states of the message's recipients up to date. An update for a recipient that the message does
    /// not have changes nothing.
    pub fn apply(self, recipients: &mut [RecipientState]) {
        for update in self.updates {
            let place = usize::try_from(update.recipient).ok();
            let Some(state) = place.and_then(|place| recipients.get_mut(place)) else {
                continue;
            };
            state.status = update.status;
            state.attempts = update.attempts;
            state.next_attempt_at = update.next_attempt_at;
            state.told_of_delay |= update.told_of_delay;
            state.untold = update.untold;
            state.history.extend(update.attempt);
            if state.history.len() > HISTORY {
                state.history.remove(1);
            }
        }
    }
}
