//! The queue knows what the model knows, and tells of what takes long.

use super::*;

impl Model {
    /// Somebody tells of what takes long.
    pub(super) fn tell(&mut self, queue: &mut Queue) {
        queue.poll(at(self.now));
        self.perform(queue);
        while let Some(job) = queue.take_late() {
            for recipient in &job.recipients {
                let key = (job.id, recipient.index);
                assert!(self.is_late(job.id) && !self.known[&key].flying, "{key:?}");
                assert!(self.told_of_delay.insert(key), "{key:?} was told already");
                let back = Settlement {
                    index: recipient.index,
                    attempts: recipient.attempts,
                    fate: Fate::Due(recipient.due),
                };
                queue.settle(job.id, &[back], at(self.now));
            }
            queue.poll(at(self.now));
            self.perform(queue);
        }
        for (key, known) in &self.known {
            let waits = !known.flying && !self.held.contains(&key.0);
            let patience = if self.is_flying(key.0) { TELL_WITHIN } else { Duration::ZERO };
            let late = self.late_at(key.0, patience) <= at(self.now);
            assert!(!waits || !late || self.told_of_delay.contains(key), "{key:?} is untold");
        }
    }

    fn is_late(&self, id: MessageId) -> bool {
        self.late_at(id, Duration::ZERO) <= at(self.now)
    }

    fn late_at(&self, id: MessageId, patience: Duration) -> Timestamp {
        let early = self.sent_early.get(&id).map_or(Timestamp::MAX, |early| at(*early));
        schedule::after(self.envelopes[&id].released_at().min(early), DELAY_AFTER.unwrap() + patience)
    }

    /// Every recipient is in exactly one place, and the queue knows of each what the model knows.
    pub(super) fn check(&self, queue: &Queue) {
        let mut seen = 0;
        for message in queue.page(None, usize::MAX) {
            for (index, (status, attempts, due)) in (0..).zip(&message.recipients) {
                let Some(known) = self.known.get(&(message.id, index)) else {
                    assert!(status.is_end());
                    continue;
                };
                seen += 1;
                assert_eq!(*attempts, known.attempts);
                let expected = if known.flying {
                    (RecipientStatus::InProgress, None)
                } else if self.held.contains(&message.id) {
                    (RecipientStatus::Held, None)
                } else if known.scheduled && known.due > self.now {
                    (RecipientStatus::Pending, Some(at(known.due)))
                } else if known.attempts == 0 {
                    (RecipientStatus::Pending, None)
                } else {
                    (RecipientStatus::Deferred, Some(at(known.due)))
                };
                if *status == RecipientStatus::Deferred && expected.1 != *due {
                    // An operator wanted it sooner.
                    assert!(due.is_some_and(|due| due >= at(known.due)));
                } else {
                    assert_eq!((*status, *due), expected);
                }
            }
        }
        assert_eq!(seen, self.known.len(), "one is lost");
        let counted: usize = MessageStatus::ALL.iter().map(|status| queue.count_of(*status)).sum();
        assert_eq!(counted, queue.len());
    }
}
