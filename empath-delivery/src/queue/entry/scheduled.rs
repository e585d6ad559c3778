//! Messages that their senders want to be sent later (RFC 4865).

use empath_common::Envelope;
use jiff::{SignedDuration, Timestamp};

use super::{Entry, Moment, Place};

impl Entry {
    /// When delivery may begin, to a second. The time that it may take counts from then.
    pub(super) fn released_at(&self) -> Timestamp {
        let received_at = Timestamp::from(self.received_at);
        received_at.checked_add(SignedDuration::from_secs(self.wait.into())).unwrap_or(Timestamp::MAX)
    }

    /// Whether some recipient waits for the time that its sender asked for.
    pub(in crate::queue) fn is_scheduled(&self) -> bool {
        self.recipients.as_slice().iter().any(|recipient| recipient.place == Place::Scheduled)
    }

    /// The time that the sender asked for does not count any more: who waits for it is due now. Nobody is while the message
    /// is held.
    pub(in crate::queue) fn unschedule(&mut self, now: Moment) {
        for recipient in self.recipients.as_mut_slice().iter_mut().filter(|_| !self.held) {
            if recipient.place == Place::Scheduled {
                (recipient.place, recipient.due) = (Place::Waiting, recipient.due.min(now));
            }
        }
    }
}

/// Seconds from reception until delivery may begin, rounded up.
pub(super) fn wait(envelope: &Envelope) -> u32 {
    let wait = envelope.released_at().duration_since(envelope.received_at);
    let seconds = wait.as_secs() + i64::from(wait.subsec_nanos() > 0);
    // More than a century is as good as never.
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
