use empath_common::{Domain, Host};
use jiff::Timestamp;

use super::{Queue, ready::Ready};
use crate::route::Routes;

/// Changes of next hops while there is mail.
impl Queue {
    /// Changes where mail for a domain goes, and takes along what is ready for it: behind a host that is dead it would be
    /// tried there all the same.
    pub fn reroute<T>(
        &mut self,
        domain: &Domain,
        now: Timestamp,
        change: impl FnOnce(&mut Routes) -> T,
    ) -> T {
        let host = Host::Domain(domain.clone());
        let before = self.routes.next_hops(Some(&host));
        let changed = change(&mut self.routes);
        if self.routes.next_hops(Some(&host)) != before {
            let drained: Vec<_> = before.iter().flat_map(|before| self.lanes.drain(before, now)).collect();
            for Ready { id, recipients, .. } in drained {
                let recipients = self.messages.get_mut(&id).map(|entry| entry.unlist(recipients.as_slice()));
                self.ready(id, &recipients.unwrap_or_default(), now);
            }
        }
        changed
    }
}
