use empath_common::{Domain, Host};
use jiff::Timestamp;

use super::{Fate, Job, JobRecipient, Queue, Settlement, count, ready::Ready};
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
        // Its mail stands in as many lanes as there are ways for senders.
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

    /// Puts a job back that went the wrong way: its sender has another route by now, as only its envelope shows. No attempt
    /// is counted. `None` if the way was right, else whether the message has ended, for an operator removed it.
    pub fn redirect(&mut self, job: &Job, now: Timestamp) -> Option<bool> {
        let sender = self.routes.sender_class(&job.envelope.reverse_path);
        if sender == job.sender {
            return None;
        }
        let entry = self.messages.get_mut(&job.id)?;
        entry.sender = sender;
        if entry.removing {
            let settlement = |recipient: &JobRecipient| {
                let JobRecipient { index, attempts, due } = *recipient;
                Settlement { index, attempts, fate: Fate::Due(due) }
            };
            let settlements: Vec<_> = job.recipients.iter().map(settlement).collect();
            return Some(self.settle(job.id, &settlements, now));
        }
        let before = entry.status();
        entry.put_back(&job.recipients, now);
        // Now, and not by its timer: it may have expired, and is to be tried once more.
        let recipients = entry.make_ready(now.into(), |due| due <= now.into());
        count(&mut self.counts, before, Some(entry.status()));
        self.ready(job.id, &recipients, now);
        self.rearm(job.id, now);
        Some(false)
    }
}
