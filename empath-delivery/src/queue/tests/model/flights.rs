//! Jobs in flight and their connections.

use super::*;
use crate::route::{Mail, NextHop};

/// A next hop, and the address that its mail leaves from.
fn named(next_hop: &NextHop) -> String {
    let source = next_hop.terms().and_then(|terms| terms.source.as_ref());
    source.map_or_else(|| next_hop.to_string(), |source| format!("{next_hop} {source}"))
}

impl Model {
    fn took(&mut self, connection: ConnectionId, job: Queued) {
        assert!(!self.held.contains(&job.id) && !self.stopped, "nothing starts");
        for recipient in &job.recipients {
            let path = self.envelopes[&job.id].recipients()[recipient.index as usize].to_string();
            assert!(!self.frozen.iter().any(|n| path.contains(&format!("@{n}.test"))), "frozen");
            let known = self.known.get_mut(&(job.id, recipient.index)).expect("it has not ended");
            assert!(!known.flying, "{recipient:?} is in flight twice");
            assert!(known.due <= self.now, "{recipient:?} is too early");
            assert_eq!((recipient.attempts, known.attempts), (known.attempts, recipient.attempts));
            (known.flying, known.scheduled) = (true, false);
        }
        self.flying.push((connection, job));
    }

    pub(super) fn perform(&mut self, queue: &mut Queue) {
        for action in queue.take_actions() {
            match action {
                Action::Open { connection, next_hop, job } => {
                    self.hops.insert(connection, named(&next_hop));
                    self.took(connection, job);
                }
                Action::Resume { connection, job } => {
                    assert!(self.idle.remove(&connection));
                    self.took(connection, job);
                }
                Action::Close { connection } => {
                    assert!(self.idle.remove(&connection));
                    self.hops.remove(&connection);
                }
            }
        }
        assert!(queue.connections() <= MAX_CONCURRENT);
        assert_eq!(queue.connections(), self.hops.len() - self.away.len());
        let mut per_hop: HashMap<&str, usize> = HashMap::new();
        for hop in self.hops.values() {
            *per_hop.entry(hop).or_default() += 1;
        }
        assert!(per_hop.values().all(|count| *count <= MAX_PER_SERVER));
    }

    pub(super) fn finish(&mut self, queue: &mut Queue, n: usize, fate: Fate, outcome: Outcome) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        if self.redirect(queue, connection, &job) {
            return self.next(queue, connection);
        }
        for recipient in &job.recipients {
            let place = (job.id, recipient.index);
            match fate {
                Fate::Due(due) if !self.removing.contains(&job.id) => {
                    let attempts = recipient.attempts + 1;
                    self.known.insert(
                        place,
                        Known { due: due.as_second(), attempts, flying: false, scheduled: false },
                    );
                }
                Fate::Untold(_) if !self.removing.contains(&job.id) => {
                    self.known.remove(&place);
                    self.untold.ended(place, self.now);
                }
                _ => drop(self.known.remove(&place)),
            }
        }
        if settle(queue, &job, fate, at(self.now)) {
            assert!(self.untold.of(job.id).is_empty(), "somebody is to be told");
            self.held.remove(&job.id);
        }
        queue.report(connection, outcome, Some(&"0.test".parse().unwrap()), at(self.now));
        self.next(queue, connection);
    }

    /// Whether the job went the wrong way, and is put back. What goes on goes the right one.
    fn redirect(&mut self, queue: &mut Queue, connection: ConnectionId, job: &Queued) -> bool {
        let envelope = Arc::clone(&self.envelopes[&job.id]);
        let job = job.clone().with(envelope);
        let began = self.former.remove(&connection);
        let Some(ended) = queue.redirect(&job, at(self.now)) else {
            let sender = queue.routes.sender_class(&job.envelope.reverse_path);
            for recipient in &job.recipients {
                let host = job.envelope.recipients()[recipient.index as usize].host();
                let mail = Mail { id: job.id, sender };
                let next_hop = named(&queue.routes().route_to(mail, host).next_hop);
                // Whose hosts are known, and whether they still are, is another matter.
                let hop = &self.hops[&connection];
                assert!(
                    began || *hop == next_hop || (hop.starts_with("mx:h") && next_hop.starts_with("mx:")),
                    "{hop} {next_hop}"
                );
            }
            return false;
        };
        let removing = self.removing.contains(&job.id);
        for recipient in &job.recipients {
            let place = (job.id, recipient.index);
            if removing {
                self.known.remove(&place);
            } else {
                self.known.get_mut(&place).unwrap().flying = false;
            }
        }
        assert_eq!(ended, self.known.range((job.id, 0)..=(job.id, u32::MAX)).next().is_none());
        if ended {
            self.held.remove(&job.id);
        }
        queue.refund(connection, at(self.now));
        queue.report(connection, Outcome::Unknown, None, at(self.now));
        true
    }

    fn next(&mut self, queue: &mut Queue, connection: ConnectionId) {
        self.away.remove(&connection);
        match queue.next(connection, at(self.now)) {
            Next::Job(job) => self.took(connection, job),
            Next::Idle => drop(self.idle.insert(connection)),
            Next::Close => drop(self.hops.remove(&connection)),
        }
    }

    pub(super) fn give_way(&mut self, queue: &mut Queue, n: usize) {
        let (connection, job) = &self.flying[n];
        let (connection, had) = (*connection, queue.connections());
        if !self.away.contains(&connection)
            && queue.give_way(connection, job.id, &job.recipients, at(self.now))
        {
            self.away.insert(connection);
            assert!(queue.connections() + 1 >= had);
        }
    }

    pub(super) fn come_back(&mut self, queue: &mut Queue, n: usize) {
        let connection = *self.away.iter().nth(n % self.away.len()).unwrap();
        let n = self.flying.iter().position(|(flying, _)| *flying == connection).unwrap();
        let (_, job) = self.flying[n].clone();
        match queue.come_back(connection, job.id, &job.recipients, at(self.now)) {
            Some(true) => drop(self.away.remove(&connection)),
            Some(false) => {
                self.flying.swap_remove(n);
                self.gone(connection);
                self.landed(job.id, &job.recipients);
            }
            None => assert!(self.removing.contains(&job.id)),
        }
    }

    fn gone(&mut self, connection: ConnectionId) {
        self.hops.remove(&connection);
        self.away.remove(&connection);
    }

    /// Recipients are back in the queue as they were.
    fn landed(&mut self, id: MessageId, recipients: &[JobRecipient]) {
        for recipient in recipients {
            self.known.get_mut(&(id, recipient.index)).unwrap().flying = false;
        }
    }

    pub(super) fn expel(&mut self, queue: &mut Queue, n: usize) {
        let (connection, mut job) = self.flying.swap_remove(n);
        let path = |recipient: &JobRecipient| {
            self.envelopes[&job.id].recipients()[recipient.index as usize].domain().cloned().unwrap()
        };
        let domain = path(&job.recipients[0]);
        let (out, rest) = job.recipients.iter().copied().partition::<Vec<_>, _>(|one| path(one) == domain);
        if queue.expel(connection, job.id, &out, &domain, at(self.now)) {
            assert!(self.hops[&connection].starts_with("mx:h"), "it was in its own lane");
            self.landed(job.id, &out);
            job.recipients = rest;
            if job.recipients.is_empty() {
                queue.refund(connection, at(self.now));
                queue.report(connection, Outcome::Unknown, None, at(self.now));
                return self.next(queue, connection);
            }
        }
        self.flying.push((connection, job));
    }

    pub(super) fn turn_away(&mut self, queue: &mut Queue, n: usize) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        if queue.put_back(connection, job.id, &job.recipients, at(self.now)) {
            self.gone(connection);
            self.landed(job.id, &job.recipients);
        } else {
            self.flying.push((connection, job));
        }
    }

    pub(super) fn roll_up(&mut self, queue: &mut Queue, n: usize, site: u8) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        let site = sites::site(site);
        if queue.roll_up(connection, job.id, &job.recipients, site, at(self.now)) {
            assert!(!self.hops[&connection].starts_with("mx:h"), "it was moved already");
            self.gone(connection);
            self.landed(job.id, &job.recipients);
        } else {
            self.flying.push((connection, job));
        }
    }

    pub(super) fn leave(&mut self, queue: &mut Queue, n: usize) {
        let connection = *self.idle.iter().nth(n % self.idle.len()).unwrap();
        if queue.leave(connection, at(self.now)) {
            self.idle.remove(&connection);
            self.hops.remove(&connection);
        }
    }
}
