use empath_common::{Domain, Host, MessageId};
use jiff::Timestamp;

use super::{Queue, count, entry::Entry};

/// Messages that an operator has stopped.
impl Queue {
    /// Stops a message: what is in flight is finished, nothing else starts, and it does not expire. Whether that is
    /// new; `None` if there is no such message.
    pub fn hold(&mut self, id: MessageId, now: Timestamp) -> Option<bool> {
        let entry = self.messages.get_mut(&id)?;
        let before = entry.status();
        let held = entry.hold();
        let after = entry.status();
        self.calm(id);
        count(&mut self.counts, before, Some(after));
        self.rearm(id, now);
        Some(held)
    }

    /// Lets a message go on: what is due is ready, and what has expired meanwhile is tried once more. Whether it was held;
    /// `None` if there is no such message.
    pub fn release(&mut self, id: MessageId, now: Timestamp) -> Option<bool> {
        let entry = self.messages.get_mut(&id)?;
        let before = entry.status();
        let released = entry.release();
        let expired = entry.expires_at(self.limits.expire_after) <= now.into();
        let due = entry.make_ready(now.into(), |due| released && (expired || due <= now.into()));
        let after = entry.status();
        count(&mut self.counts, before, Some(after));
        self.ready(id, &due, now);
        if released && expired {
            self.expire_unlisted(id, now);
        }
        self.rearm(id, now);
        Some(released)
    }

    /// Lets a message go before the time that its sender asked for, with [`retry`](Self::retry); not while it is held.
    pub fn unschedule(&mut self, id: MessageId, now: Timestamp) {
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.unschedule(now.into());
        }
    }

    /// Whether an operator holds a message.
    pub fn is_held(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(Entry::is_held)
    }
}

/// Domains to which nothing starts. What is due for them is ready and waits outside of the lanes; it expires in its time.
impl Queue {
    /// Starts nothing more to a domain; what is in flight is finished, and what is ready leaves its lanes, which others may
    /// share. False if it was frozen already.
    pub fn freeze(&mut self, domain: &Domain, now: Timestamp) -> bool {
        let new = self.destinations.freeze(domain, true);
        if new {
            self.withdraw(domain, now);
        }
        new
    }

    /// Lets mail to a domain start again, message by message with [`thawed`](Self::thawed): there may be many. False if it
    /// was not frozen.
    pub fn thaw(&mut self, domain: &Domain) -> bool {
        self.destinations.freeze(domain, false)
    }

    /// Puts recipients of a message into their lanes that a frozen domain has kept from there.
    pub fn thawed(&mut self, id: MessageId, now: Timestamp) {
        let unlisted = self.messages.get(&id).map(Entry::unlisted).unwrap_or_default();
        self.ready(id, &unlisted, now);
    }

    /// Whether nothing starts to recipients there.
    pub fn is_frozen(&self, host: Option<&Host>) -> bool {
        self.destinations.is_frozen_host(host)
    }

    /// The domains that are frozen.
    pub fn frozen(&self) -> Vec<Domain> {
        self.destinations.frozen().cloned().collect()
    }
}
