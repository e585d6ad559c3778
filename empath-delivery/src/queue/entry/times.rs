//! When something is to be done about a message.

use std::time::Duration;

use empath_common::Envelope;
use empath_spool::RecipientState;
use jiff::{SignedDuration, Timestamp};

use super::{Entry, Moment, Place};
use crate::{queue::TELL_WITHIN, schedule};

impl Entry {
    /// When delivery may begin (RFC 4865) or an operator let it begin before, to a second. The time that it may take counts
    /// from then.
    pub(super) fn released_at(&self) -> Timestamp {
        let received_at = Timestamp::from(self.received_at);
        received_at.checked_add(SignedDuration::from_secs(self.wait.into())).unwrap_or(Timestamp::MAX)
    }

    /// When the message is given up.
    pub(in crate::queue) fn expires_at(&self, expire_after: Duration) -> Moment {
        schedule::after(self.released_at(), expire_after).into()
    }

    /// When the sender is told that the message takes long, if it takes so long. While recipients are in flight there may
    /// soon be more to tell.
    pub(in crate::queue) fn late_at(
        &self,
        delay_after: Option<Duration>,
        expire_after: Duration,
    ) -> Option<Moment> {
        let delay_after = delay_after.filter(|delay_after| *delay_after < expire_after)?;
        let flying = self.recipients.as_slice().iter().any(|recipient| recipient.place == Place::InFlight);
        let patience = if flying { TELL_WITHIN } else { Duration::ZERO };
        Some(schedule::after(self.released_at(), delay_after + patience).into())
    }

    /// The next moment when something is to be done without an outside event: a due time, news of a delay, or the expiry.
    pub(in crate::queue) fn next_event(
        &self,
        delay_after: Option<Duration>,
        expire_after: Duration,
        now: Moment,
    ) -> Moment {
        let mut next = self.tell_at();
        if self.held {
            return next;
        }
        let (mut outstanding, mut untold) = (false, false);
        for recipient in self.recipients.as_slice() {
            outstanding |= recipient.is_outstanding();
            untold |= recipient.is_untold();
            if matches!(recipient.place, Place::Scheduled | Place::Waiting) {
                next = next.min(recipient.due);
            }
        }
        // After the expiry only what could not be ended then is left, to be tried again at its due time.
        let expires_at = self.expires_at(expire_after);
        if !outstanding || expires_at <= now {
            return next;
        }
        let late_at = self.late_at(delay_after, expire_after).filter(|_| untold);
        next.min(expires_at).min(late_at.unwrap_or(Moment::NEVER))
    }

    /// Whether some recipient waits for the time that its sender asked for.
    pub(in crate::queue) fn is_scheduled(&self) -> bool {
        self.recipients.as_slice().iter().any(|recipient| recipient.place == Place::Scheduled)
    }

    /// The time that the sender asked for does not count any more: who waits for it is due now, and has as much time from
    /// now on as any other mail. Nobody is while the message is held.
    pub(in crate::queue) fn unschedule(&mut self, now: Moment) {
        if self.held || !self.is_scheduled() {
            return;
        }
        self.wait = self.wait.min(seconds(self.received_at.into(), now.into()));
        for recipient in self.recipients.as_mut_slice() {
            if recipient.place == Place::Scheduled {
                (recipient.place, recipient.due) = (Place::Waiting, recipient.due.min(now));
            }
        }
    }

    /// What was tried before its time was sent early.
    pub(super) fn restore_release(&mut self, states: &[RecipientState]) {
        let first = states.iter().filter_map(|state| state.history.first()).map(|attempt| attempt.at).min();
        if let Some(first) = first.filter(|first| *first < self.released_at()) {
            self.unschedule(first.into());
        }
    }
}

/// Seconds from reception until delivery may begin, rounded up.
pub(super) fn wait(envelope: &Envelope) -> u32 {
    seconds(envelope.received_at, envelope.released_at())
}

fn seconds(from: Timestamp, to: Timestamp) -> u32 {
    let wait = to.duration_since(from).max(SignedDuration::ZERO);
    let seconds = wait.as_secs() + i64::from(wait.subsec_nanos() > 0);
    // More than a century is as good as never.
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
