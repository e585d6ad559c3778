//! Senders are told of each end once, of a message's together, and soon.

use super::*;

/// Ends of which nobody was told.
#[derive(Default)]
pub(super) struct UntoldEnds {
    /// Since when.
    since: BTreeMap<(MessageId, u32), i64>,
    /// Messages for which it failed, and until when that is left alone.
    put_off: BTreeMap<MessageId, i64>,
    /// It fails.
    pub(super) fails: bool,
}

const WITHIN: i64 = TELL_WITHIN.as_secs().cast_signed();

impl UntoldEnds {
    pub(super) fn ended(&mut self, place: (MessageId, u32), now: i64) {
        assert!(self.since.insert(place, now).is_none());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    pub(super) fn contains(&self, place: (MessageId, u32)) -> bool {
        self.since.contains_key(&place)
    }

    pub(super) fn of(&self, id: MessageId) -> Vec<(u32, i64)> {
        self.since.range((id, 0)..=(id, u32::MAX)).map(|((_, index), since)| (*index, *since)).collect()
    }

    /// An operator has removed the message.
    pub(super) fn forget(&mut self, id: MessageId) {
        self.since.retain(|(other, _), _| *other != id);
    }

    /// It is read back from the spool.
    pub(super) fn restart(&mut self) {
        self.since.values_mut().for_each(|since| *since = i64::MIN / 2);
        self.put_off.clear();
    }
}

impl Model {
    pub(super) fn tell_of_ends(&mut self, queue: &mut Queue) {
        queue.poll(at(self.now));
        self.perform(queue);
        while let Some(job) = queue.take_untold() {
            let untold = self.untold.of(job.id);
            let told: Vec<_> = job.recipients.iter().map(|recipient| recipient.index).collect();
            assert_eq!(told, untold.iter().map(|(index, _)| *index).collect::<Vec<_>>(), "all at once");
            assert!(!self.removing.contains(&job.id));
            let first = untold.iter().map(|(_, since)| *since).min().unwrap();
            assert!(!self.is_flying(job.id) || first + WITHIN <= self.now, "there will be more news");
            let again = self.now + WITHIN;
            let fate = if self.untold.fails {
                self.untold.put_off.insert(job.id, again);
                Fate::Due(at(again))
            } else {
                self.untold.forget(job.id);
                DELIVERED
            };
            if queue.settle(job.id, &settlements(&job, fate), at(self.now)) {
                self.held.remove(&job.id);
            }
            queue.poll(at(self.now));
            self.perform(queue);
        }
        self.untold.put_off.retain(|_, until| *until > self.now);
        for ((id, index), since) in &self.untold.since {
            let put_off = self.untold.put_off.contains_key(id);
            let awaited = self.is_flying(*id) || self.is_due(*id);
            assert!(put_off || (awaited && since + WITHIN > self.now), "{id} {index} is untold");
        }
    }

    pub(super) fn is_flying(&self, id: MessageId) -> bool {
        self.known.range((id, 0)..=(id, u32::MAX)).any(|(_, known)| known.flying)
    }

    /// Whether a recipient is ready, or would be.
    fn is_due(&self, id: MessageId) -> bool {
        self.known.range((id, 0)..=(id, u32::MAX)).any(|(_, known)| known.due <= self.now)
    }
}

fn settlements(job: &Queued, fate: Fate) -> Vec<Settlement> {
    let settlement =
        |recipient: &JobRecipient| Settlement { index: recipient.index, attempts: recipient.attempts, fate };
    job.recipients.iter().map(settlement).collect()
}
