use std::collections::BTreeSet;

use empath_common::MessageId;
use jiff::Timestamp;

use super::moment::Moment;

/// When messages need attention: a recipient is due, or the message expires. One entry a message; the earliest is found
/// at once, and nothing is rounded.
#[derive(Debug)]
pub(super) struct Timers {
    set: BTreeSet<(Moment, MessageId)>,
    /// The time that the caller is known to wake up at.
    armed: Moment,
    wake: bool,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { set: BTreeSet::new(), armed: Moment::NEVER, wake: false }
    }

    /// Moves the timer of a message from `old`.
    pub(super) fn set(&mut self, id: MessageId, old: &mut Moment, at: Moment) {
        if *old == at {
            return;
        }
        self.clear(id, *old);
        *old = at;
        if at != Moment::NEVER {
            self.set.insert((at, id));
            if at < self.armed {
                (self.armed, self.wake) = (at, true);
            }
        }
    }

    pub(super) fn clear(&mut self, id: MessageId, old: Moment) {
        if old != Moment::NEVER {
            self.set.remove(&(old, id));
        }
    }

    /// The message whose time came first.
    pub(super) fn due(&self, now: Moment) -> Option<MessageId> {
        self.set.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// From now on the caller knows when to wake up: for these, or at `other`.
    pub(super) fn arm(&mut self, other: Moment) -> Timestamp {
        self.armed = self.set.first().map_or(other, |(at, _)| other.min(*at));
        self.wake = false;
        self.armed.into()
    }

    /// Whether something became due earlier than [`arm`](Self::arm) said, these or `other`. Asking resets it.
    pub(super) fn take_wake(&mut self, other: Moment) -> bool {
        if other < self.armed {
            (self.armed, self.wake) = (other, true);
        }
        std::mem::take(&mut self.wake)
    }
}
