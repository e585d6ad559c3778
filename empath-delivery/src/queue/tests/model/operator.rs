//! What an operator does.

use super::*;

impl Model {
    pub(super) fn retry(&mut self, queue: &mut Queue, id: MessageId) {
        let known = queue.retry(id, at(self.now)).is_some() && !self.held.contains(&id);
        let meant = self.known.range_mut((id, 0)..=(id, u32::MAX));
        let meant = meant.map(|(_, known)| known).filter(|one| known && !one.scheduled);
        meant.for_each(|known| known.due = self.now.min(known.due));
    }

    pub(super) fn send_now(&mut self, queue: &mut Queue, id: MessageId) {
        queue.unschedule(id, at(self.now));
        let known = queue.retry(id, at(self.now)).is_some() && !self.held.contains(&id);
        let mut meant = self.known.range((id, 0)..=(id, u32::MAX));
        if known && meant.any(|(_, one)| one.scheduled && one.due > self.now) {
            self.sent_early.insert(id, self.now);
        }
        let meant = self.known.range_mut((id, 0)..=(id, u32::MAX));
        for (_, known) in meant.filter(|_| known) {
            (known.due, known.scheduled) = (self.now.min(known.due), false);
        }
    }

    pub(super) fn delete(&mut self, queue: &mut Queue, id: MessageId) {
        if let Some(mut job) = queue.delete(id, at(self.now)) {
            let untold: Vec<_> = queue.untold(job.id).into_iter().map(|(recipient, _)| recipient).collect();
            assert_eq!(untold.len(), self.untold.of(job.id).len());
            for recipient in &job.recipients {
                let known = self.known.remove(&(job.id, recipient.index));
                assert!(known.is_some_and(|known| !known.flying));
            }
            self.untold.forget(job.id);
            self.removing.insert(job.id);
            job.recipients.extend(untold);
            if settle(queue, &job, Fate::Ended(Ended::Removed), at(self.now)) {
                self.held.remove(&job.id);
            }
        }
    }

    pub(super) fn hold(&mut self, queue: &mut Queue, id: MessageId) {
        if let Some(new) = queue.hold(id, at(self.now)) {
            assert_eq!(self.held.insert(id), new);
        }
    }

    pub(super) fn release(&mut self, queue: &mut Queue, id: MessageId) {
        let released = self.held.remove(&id);
        assert_eq!(queue.release(id, at(self.now)).unwrap_or(false), released);
    }

    pub(super) fn freeze(&mut self, queue: &mut Queue, n: u8) {
        queue.freeze(&format!("{n}.test").parse().unwrap(), at(self.now));
        self.frozen.insert(n);
    }

    pub(super) fn thaw(&mut self, queue: &mut Queue, n: u8) {
        queue.thaw(&format!("{n}.test").parse().unwrap());
        self.frozen.remove(&n);
        self.envelopes.keys().for_each(|id| queue.thawed(*id, at(self.now)));
    }

    pub(super) fn reload(&mut self, queue: &mut Queue, n: u8) {
        self.former = self.flying.iter().map(|(connection, _)| *connection).collect();
        self.config = reload::another(n);
        reload::replace(queue, &self.config, at(self.now));
    }

    pub(super) fn reconfigure(&mut self, queue: &mut Queue, which: usize) {
        let routes: Vec<_> =
            (0..).zip(ROUTES).filter(|(n, _)| which >> n & 1 == 1).map(|(_, route)| route).collect();
        senders::reconfigure(queue, &senders::with_senders(&self.config, &routes));
    }

    pub(super) fn reclassify(&mut self, queue: &mut Queue) {
        for (id, envelope) in &self.envelopes {
            queue.reclassify(*id, &envelope.reverse_path);
        }
        queue.route_all_again(at(self.now));
        // What has not been routed by then is routed before anything else happens.
        let flying = self.flying.len();
        while queue.poll(at(self.now)) <= at(self.now) {}
        self.perform(queue);
        for (_, job) in self.flying.get(flying..).unwrap_or_default() {
            let path = &self.envelopes[&job.id].reverse_path;
            assert_eq!(job.sender, queue.routes.sender_class(path), "it goes the way of its sender");
        }
    }

    pub(super) fn stop(&mut self, queue: &mut Queue) {
        queue.stop(at(self.now));
        for action in queue.take_actions() {
            let Action::Close { connection } = action else { panic!("{action:?} after stop") };
            assert!(self.idle.remove(&connection));
            self.hops.remove(&connection);
        }
        self.stopped = true;
    }
}
