use empath_common::Domain;
use jiff::Timestamp;

use super::{Fate, Job, JobRecipient, Queue, Settlement};
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
        // Its mail stands in as many lanes as there are ways for senders.
        let before = self.lanes_to(domain);
        let changed = change(&mut self.routes);
        if self.lanes_to(domain) != before {
            let drained: Vec<_> = before.iter().flat_map(|before| self.lanes.drain(before, now)).collect();
            self.part(drained, now);
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
        // Now, and not by its timer: it may have expired, and is to be tried once more.
        self.again(job.id, &job.recipients, now);
        Some(false)
    }
}
