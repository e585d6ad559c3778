//! Recipients that have ended, and of whose end the sender is to be told.

use empath_spool::Ended;
use jiff::Timestamp;

use super::{Entry, Place};
use crate::{
    queue::{Fate, JobRecipient, Settlement, TELL_WITHIN, moment::Moment},
    schedule,
};

impl Entry {
    /// Recipients in flight have come down; how many of them were removed. Those of which the sender was to be told have
    /// been told of, or are to be at their due time.
    pub(in crate::queue) fn settle(&mut self, settlements: &[Settlement], now: Moment) -> u64 {
        let (mut removed, mut put_off) = (0, false);
        for settlement in settlements {
            let place = self.settle_one(settlement, now);
            removed += u64::from(place == Some(Place::Ended(Ended::Removed)));
            put_off |= matches!((place, settlement.fate), (Some(Place::Untold(_)), Fate::Due(_)));
        }
        if !put_off {
            self.tell_now(now);
        }
        removed
    }

    /// Recipients in flight wait again, and are due.
    pub(in crate::queue) fn put_back(&mut self, recipients: &[JobRecipient], now: Timestamp) {
        for JobRecipient { index, attempts, due } in recipients.iter().copied() {
            self.settle_one(&Settlement { index, attempts, fate: Fate::Due(due.min(now)) }, now.into());
        }
    }

    /// Where the recipient is then; `None` if its end was there before.
    fn settle_one(&mut self, settlement: &Settlement, now: Moment) -> Option<Place> {
        let (removing, scheduled) = (self.removing, self.wait > 0);
        let recipient = self.recipients.as_mut_slice().get_mut(settlement.index as usize)?;
        if recipient.attempts != settlement.attempts {
            (recipient.attempts, recipient.moves) = (settlement.attempts, 0);
        }
        let before = recipient.place;
        let (place, due) = match (before, settlement.fate) {
            (Place::Untold(ended) | Place::Telling(ended), Fate::Due(due)) if !removing => {
                (Place::Untold(ended), due.into())
            }
            (Place::Untold(ended) | Place::Telling(ended) | Place::Ended(ended), _) => {
                (Place::Ended(ended), recipient.due)
            }
            (_, Fate::Due(_)) if removing => (Place::Ended(Ended::Removed), recipient.due),
            // An operator's removal that could not be stored leaves everything as it was.
            (_, Fate::Due(due)) if scheduled && settlement.attempts == 0 && recipient.due == due.into() => {
                (Place::Scheduled, recipient.due)
            }
            (_, Fate::Due(due)) => (Place::Waiting, due.into()),
            // Of what an operator removes nobody is told.
            (_, Fate::Untold(ended)) if removing => (Place::Ended(ended), recipient.due),
            (_, Fate::Untold(ended)) => {
                (Place::Untold(ended), schedule::after(now.into(), TELL_WITHIN).into())
            }
            (_, Fate::Ended(ended)) => (Place::Ended(ended), recipient.due),
        };
        (recipient.place, recipient.due) = (place, due);
        (!matches!(before, Place::Ended(_))).then_some(place)
    }

    /// Recipients that are neither waiting for a later attempt nor at their end with nobody left to tell.
    pub(in crate::queue) fn unsettled(&self) -> usize {
        let recipients = self.recipients.as_slice().iter();
        let later = |one: &&super::Recipient| {
            matches!(one.place, Place::Scheduled | Place::Waiting | Place::Ended(_))
        };
        recipients.filter(|one| !later(one)).count()
    }

    /// When the sender is told of those that have ended: never if the message is being removed.
    pub(in crate::queue) fn tell_at(&self) -> Moment {
        let untold = self.recipients.as_slice().iter().filter(|one| matches!(one.place, Place::Untold(_)));
        let at = untold.map(|one| one.due).min().filter(|_| !self.removing);
        at.unwrap_or(Moment::NEVER)
    }

    /// There is nothing more to wait for: the sender is told now, unless something is still in flight or about to be.
    fn tell_now(&mut self, now: Moment) {
        let recipients = self.recipients.as_mut_slice();
        if recipients
            .iter()
            .any(|one| matches!(one.place, Place::Ready | Place::InFlight | Place::Telling(_)))
        {
            return;
        }
        for one in recipients.iter_mut().filter(|one| matches!(one.place, Place::Untold(_))) {
            one.due = one.due.min(now);
        }
    }

    /// Those that have ended go to someone who tells the sender.
    pub(in crate::queue) fn claim_untold(&mut self) -> Vec<JobRecipient> {
        let mut taken = Vec::new();
        for (index, one) in (0..).zip(self.recipients.as_mut_slice()) {
            if let Place::Untold(ended) = one.place {
                one.place = Place::Telling(ended);
                taken.push(JobRecipient { index, attempts: one.attempts, due: one.due.into() });
            }
        }
        taken
    }

    /// Those of which the sender does not know yet.
    pub(in crate::queue) fn untold(&self) -> Vec<(JobRecipient, Ended)> {
        let recipients = (0..).zip(self.recipients.as_slice());
        let untold = |(index, one): (u32, &super::Recipient)| match one.place {
            Place::Untold(ended) | Place::Telling(ended) => {
                Some((JobRecipient { index, attempts: one.attempts, due: one.due.into() }, ended))
            }
            _ => None,
        };
        recipients.filter_map(untold).collect()
    }
}
