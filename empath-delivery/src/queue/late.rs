use empath_common::MessageId;
use jiff::Timestamp;

use super::{Queue, Queued, entry::Entry};

/// What takes long.
impl Queue {
    /// Recipients about whom the sender is to be told that it takes long, each once. They are in flight until they are
    /// settled, and due as before then.
    pub fn take_late(&mut self) -> Option<Queued> {
        self.late.pop_front()
    }

    /// The sender could not be told: [`take_late`](Self::take_late) will have them again.
    pub fn tell_again(&mut self, id: MessageId, recipients: &[u32], now: Timestamp) {
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.tell_again(recipients);
            self.rearm(id, now);
        }
    }

    /// Recipients that wait go in flight without a connection, for their sender to be told, if it is time.
    pub(super) fn claim_late(&mut self, id: MessageId, now: Timestamp) {
        let super::Limits { delay_after, expire_after, .. } = self.limits;
        let late_at = self.messages.get(&id).and_then(|entry| entry.late_at(delay_after, expire_after));
        if late_at.is_none_or(|at| at > now.into()) {
            return;
        }
        let job = self.claim_with(id, now, Entry::claim_late);
        self.late.extend(job.filter(|job| !job.recipients.is_empty()));
    }
}
