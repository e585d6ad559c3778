//! Mail comes in, and is read back from what was stored.

use super::*;

impl Model {
    pub(super) fn accept(
        &mut self,
        queue: &mut Queue,
        recipients: &[u8],
        priority: Priority,
        (sender, wait): (usize, u16),
    ) {
        self.accepted += 1;
        let domains: BTreeSet<_> = recipients.iter().map(|n| format!("u@{n}.test")).collect();
        let addresses: Vec<_> = domains.iter().map(String::as_str).collect();
        for index in 0..u32::try_from(addresses.len()).unwrap() {
            let due = self.now + i64::from(wait);
            let known = Known { due, attempts: 0, flying: false, scheduled: wait > 0 };
            self.known.insert((id(self.accepted), index), known);
        }
        let mut envelope = Envelope::clone(&envelope(at(self.now), &addresses));
        envelope.priority = priority;
        envelope.future_release = (wait > 0).then_some(FutureRelease::For(wait.into()));
        envelope.reverse_path = SENDERS[sender].parse().unwrap();
        let envelope = Arc::new(envelope);
        self.envelopes.insert(id(self.accepted), Arc::clone(&envelope));
        queue.accept(id(self.accepted), envelope, &Bytes::from_static(b"x\r\n").into(), at(self.now));
    }

    pub(super) fn restart(&mut self, queue: &mut Queue) {
        self.config = reload::another(0);
        *queue = configured(&self.config);
        for ((id, _), known) in &mut self.known {
            known.flying = false;
            if known.attempts == 0 {
                // That somebody wanted it sooner is not stored.
                known.due = self.envelopes[id].released_at().as_second();
                known.scheduled = self.envelopes[id].future_release.is_some();
            }
        }
        self.sent_early.clear();
        self.untold.restart();
        self.flying.clear();
        self.idle.clear();
        self.removing.clear();
        self.hops.clear();
        self.away.clear();
        self.stopped = false;
        for (id, envelope) in &self.envelopes {
            let state = |index| match self.known.get(&(*id, index)) {
                None => RecipientState {
                    status: Status::Ended(Ended::Delivered),
                    untold: self.untold.contains((*id, index)).then_some(Untold::Delivered),
                    ..RecipientState::default()
                },
                Some(Known { attempts: 0, .. }) => RecipientState {
                    told_of_delay: self.told_of_delay.contains(&(*id, index)),
                    ..RecipientState::default()
                },
                Some(known) => RecipientState {
                    status: Status::Deferred,
                    attempts: known.attempts,
                    next_attempt_at: Some(at(known.due)),
                    told_of_delay: self.told_of_delay.contains(&(*id, index)),
                    ..RecipientState::default()
                },
            };
            let recipients: Vec<_> = (0..).take(envelope.recipients().len()).map(state).collect();
            let stored =
                Stored { envelope: Arc::clone(envelope), recipients, size: 3, held: self.held.contains(id) };
            let known = self.known.range((*id, 0)..=(*id, u32::MAX)).next().is_some();
            let outstanding = known || !self.untold.of(*id).is_empty();
            assert_eq!(queue.restore(*id, &stored, at(self.now)), outstanding);
        }
    }
}
