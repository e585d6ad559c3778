use std::time::Duration;

use empath_common::MessageId;
use empath_spool::Ended;
use jiff::Timestamp;

use super::{JobRecipient, Queue, Queued};

/// How long the end of a recipient waits to be told together with others of the message that are being tried. By then most
/// hosts have answered, and those that make us wait longer keep the sender from hearing of the others no longer.
pub const TELL_WITHIN: Duration = Duration::from_mins(1);

/// Ends of which the sender is to be told, all of a message together: when nothing of it is in flight or about to be any
/// more, and after [`TELL_WITHIN`] at the latest.
impl Queue {
    /// Recipients of whose end the sender is to be told. Settle them when he has been, as ended; as due they are told again
    /// then. Either way they stay what they are.
    pub fn take_untold(&mut self) -> Option<Queued> {
        self.untold.pop_front()
    }

    /// Whether so many recipients of a message in flight are all that there may be news about before long. Then there is
    /// nothing to wait for.
    pub fn is_all_news(&self, id: MessageId, recipients: usize) -> bool {
        self.messages.get(&id).is_none_or(|entry| entry.unsettled() == recipients)
    }

    /// Recipients of a message that have ended and of which the sender does not know yet.
    pub fn untold(&self, id: MessageId) -> Vec<(JobRecipient, Ended)> {
        self.messages.get(&id).map(super::Entry::untold).unwrap_or_default()
    }

    pub(super) fn claim_untold(&mut self, id: MessageId, now: Timestamp) {
        if self.messages.get(&id).is_none_or(|entry| entry.tell_at() > now.into()) {
            return;
        }
        let job = self.claim_with(id, now, super::Entry::claim_untold);
        self.untold.extend(job.filter(|job| !job.recipients.is_empty()));
    }
}
