use empath_common::{Domain, MessageId};
use jiff::Timestamp;

use super::Queue;

/// Domains to which nothing starts. What is due for them is ready and waits outside of the lanes; it expires in its time.
impl Queue {
    /// Starts nothing more to a domain; what is in flight is finished. False if it was frozen already.
    pub fn freeze(&mut self, domain: &Domain) -> bool {
        self.destinations.freeze(domain, true)
    }

    /// Lets mail to a domain start again, message by message with [`thawed`](Self::thawed): there may be many. False if it
    /// was not frozen.
    pub fn thaw(&mut self, domain: &Domain) -> bool {
        self.destinations.freeze(domain, false)
    }

    /// Puts recipients of a message into their lanes that a frozen domain has kept from there.
    pub fn thawed(&mut self, id: MessageId, now: Timestamp) {
        let unlisted = self.messages.get(&id).map(super::Entry::unlisted).unwrap_or_default();
        self.ready(id, &unlisted, now);
    }

    /// The domains that are frozen.
    pub fn frozen(&self) -> Vec<Domain> {
        self.destinations.frozen().cloned().collect()
    }
}
