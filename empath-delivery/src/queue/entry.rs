mod times;
mod untold;

use std::sync::Arc;

use empath_common::{Envelope, ForwardPath, MessageId, Priority};
use empath_spool::{Ended, RecipientState, Status};
use jiff::Timestamp;

use super::{
    JobRecipient, MessageStatus, Queued, RecipientStatus,
    destinations::{Destination, Destinations},
    few::Few,
    fresh::Fresh,
    moment::Moment,
};
use crate::route::SenderClass;

/// A message in the queue: what scheduling needs, and no more, for there may be a million. The rest is in the spool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) received_at: Moment,
    pub(super) size: u64,
    /// When the queue looks at the message next.
    pub(super) timer: Moment,
    /// Until its first attempt, if there is room.
    pub(super) fresh: Option<Box<Fresh>>,
    recipients: Few<Recipient>,
    pub(super) priority: Priority,
    /// Which route its sender has.
    pub(super) sender: SenderClass,
    /// Seconds from its reception until it may be sent, rounded up: in them it neither takes long nor expires.
    wait: u32,
    /// An operator has stopped it: nothing becomes ready, and it does not expire.
    held: bool,
    /// An operator removes it: what is in flight and fails is not tried again.
    pub(super) removing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Recipient {
    /// When it is or was due. After its end: when the sender is told at the latest.
    due: Moment,
    destination: Destination,
    attempts: u32,
    place: Place,
    /// It does not share a transaction with others.
    alone: bool,
    /// Nobody is to be told any more that it takes long.
    told_of_delay: bool,
    /// It stands in a lane, even if it is not ready any more.
    listed: bool,
    /// How often it went from lane to lane since its last attempt.
    moves: u8,
}

/// Where a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// For the time that its sender asked for.
    Scheduled,
    /// For its due time to come.
    Waiting,
    /// In the lane of its next hop.
    Ready,
    /// With a connection, or with someone who ends it.
    InFlight,
    /// It has come to its end, and the sender is to be told.
    Untold(Ended),
    /// The same, with someone who tells him.
    Telling(Ended),
    /// It has come to its end.
    Ended(Ended),
}

impl Entry {
    /// A message of which no recipient was tried.
    pub(super) fn new(envelope: &Envelope, size: u64, sender: SenderClass, to: &mut Destinations) -> Self {
        let (received_at, wait) = (envelope.received_at.into(), times::wait(envelope));
        let due = envelope.released_at().into();
        let place = if wait > 0 { Place::Scheduled } else { Place::Waiting };
        let nobody_to_tell = envelope.reverse_path.mailbox().is_none();
        let recipient = |(number, path): (usize, &ForwardPath)| Recipient {
            due,
            destination: to.enter(path.host()),
            attempts: 0,
            place,
            alone: false,
            told_of_delay: nobody_to_tell || !envelope.notification_of(number).on_delay(),
            listed: false,
            moves: 0,
        };
        Self {
            received_at,
            size,
            timer: Moment::NEVER,
            fresh: None,
            recipients: envelope.recipients().iter().enumerate().map(recipient).collect(),
            priority: envelope.priority,
            sender,
            wait,
            held: false,
            removing: false,
        }
    }

    /// Takes over what was stored.
    pub(super) fn restore(&mut self, states: &[RecipientState], held: bool) {
        self.held = held;
        for (recipient, state) in self.recipients.as_mut_slice().iter_mut().zip(states) {
            recipient.attempts = state.attempts;
            recipient.told_of_delay |= state.told_of_delay;
            match state.status {
                // Its sender is told at once, whatever the others wait for.
                Status::Ended(ended) if state.untold.is_some() => {
                    (recipient.place, recipient.due) = (Place::Untold(ended), self.received_at);
                }
                Status::Ended(ended) => recipient.place = Place::Ended(ended),
                Status::Pending | Status::Deferred => {
                    if let Some(due) = state.next_attempt_at {
                        (recipient.place, recipient.due) = (Place::Waiting, due.into());
                    }
                }
            }
        }
    }

    /// Waiting recipients whose due time is chosen become ready, and scheduled ones whose time has come.
    pub(super) fn make_ready(&mut self, now: Moment, chosen: impl Fn(Moment) -> bool) -> Vec<u32> {
        self.make_ready_where(now, |_, due| chosen(due))
    }

    /// Whoever waits or is ready is due now, whatever keeps it from starting. Nothing is while the message is held.
    pub(super) fn hasten(&mut self, now: Moment) {
        for recipient in self.recipients.as_mut_slice().iter_mut().filter(|_| !self.held) {
            if matches!(recipient.place, Place::Waiting | Place::Ready) {
                recipient.due = recipient.due.min(now);
            }
        }
    }

    /// Recipients without any attempt become ready, unless they are scheduled for later.
    pub(super) fn make_untried_ready(&mut self, now: Moment) -> Vec<u32> {
        self.make_ready_where(now, |attempts, _| attempts == 0)
    }

    fn make_ready_where(&mut self, now: Moment, chosen: impl Fn(u32, Moment) -> bool) -> Vec<u32> {
        let mut ready = Vec::new();
        if self.held {
            return ready;
        }
        for (index, recipient) in (0..).zip(self.recipients.as_mut_slice()) {
            let is_ready = match recipient.place {
                Place::Scheduled => recipient.due <= now,
                Place::Waiting => chosen(recipient.attempts, recipient.due),
                _ => false,
            };
            if is_ready {
                recipient.place = Place::Ready;
                ready.push(index);
            }
        }
        ready
    }

    /// Nothing starts from now on; what is ready waits again. False if it was held already.
    pub(super) fn hold(&mut self) -> bool {
        for recipient in self.recipients.as_mut_slice() {
            if recipient.place == Place::Ready {
                recipient.place = Place::Waiting;
            }
        }
        !std::mem::replace(&mut self.held, true)
    }

    /// It goes on where it was. False if it was not held.
    pub(super) fn release(&mut self) -> bool {
        std::mem::take(&mut self.held)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Notes that a recipient is put into a lane. `None` if it stands in one already or where it goes is frozen, else
    /// where it goes and whether it travels alone.
    pub(super) fn list(&mut self, index: u32, destinations: &Destinations) -> Option<(Destination, bool)> {
        let recipient = self.recipients.as_mut_slice().get_mut(index as usize)?;
        if destinations.is_frozen(recipient.destination) {
            return None;
        }
        let listed = std::mem::replace(&mut recipient.listed, true);
        (!listed).then_some((recipient.destination, recipient.alone))
    }

    /// Whether there was an attempt for one of these.
    pub(super) fn was_tried(&self, indexes: &[u32]) -> bool {
        let all = self.recipients.as_slice();
        indexes.iter().any(|index| all.get(*index as usize).is_some_and(|one| one.attempts > 0))
    }

    /// Recipients that are ready and stand in no lane, because where they go is or was frozen.
    pub(super) fn unlisted(&self) -> Vec<u32> {
        let recipients = (0..).zip(self.recipients.as_slice());
        let unlisted = recipients.filter(|(_, one)| one.place == Place::Ready && !one.listed);
        unlisted.map(|(index, _)| index).collect()
    }

    /// Recipients that are ready and stand in no lane go in flight.
    pub(super) fn claim_unlisted(&mut self) -> Vec<JobRecipient> {
        let unlisted = self.unlisted();
        let recipients = self.recipients.as_mut_slice();
        unlisted
            .into_iter()
            .filter_map(|index| Some(recipients.get_mut(index as usize)?.fly(index)))
            .collect()
    }

    /// Notes that recipients stand in no lane any more; returns those that are still ready.
    pub(super) fn unlist(&mut self, indexes: &[u32]) -> Vec<u32> {
        let recipients = self.recipients.as_mut_slice();
        let ready = |index: &&u32| {
            recipients.get_mut(**index as usize).is_some_and(|recipient| {
                recipient.listed = false;
                recipient.place == Place::Ready
            })
        };
        indexes.iter().filter(ready).copied().collect()
    }

    /// A recipient leaves its lane, and goes in flight if it is still ready and where it goes is not frozen.
    pub(super) fn take_off(&mut self, index: u32, destinations: &Destinations) -> Option<JobRecipient> {
        let recipient = self.recipients.as_mut_slice().get_mut(index as usize)?;
        recipient.listed = false;
        let goes = recipient.place == Place::Ready && !destinations.is_frozen(recipient.destination);
        goes.then(|| recipient.fly(index))
    }

    /// Recipients with a chosen number of attempts that wait or are ready go in flight.
    pub(super) fn claim(&mut self, chosen: impl Fn(u32) -> bool) -> Vec<JobRecipient> {
        let mut taken = Vec::new();
        for (index, recipient) in (0..).zip(self.recipients.as_mut_slice()) {
            if matches!(recipient.place, Place::Scheduled | Place::Waiting | Place::Ready)
                && chosen(recipient.attempts)
            {
                taken.push(recipient.fly(index));
            }
        }
        taken
    }

    /// Recipients that wait or are ready, and about whom the sender is to be told that it takes long, go in flight.
    pub(super) fn claim_late(&mut self) -> Vec<JobRecipient> {
        let mut taken = Vec::new();
        for (index, recipient) in (0..).zip(self.recipients.as_mut_slice()) {
            if recipient.is_untold() {
                recipient.told_of_delay = true;
                taken.push(recipient.fly(index));
            }
        }
        taken
    }

    /// The sender could not be told about these recipients.
    pub(super) fn tell_again(&mut self, recipients: &[u32]) {
        for index in recipients {
            if let Some(recipient) = self.recipients.as_mut_slice().get_mut(*index as usize) {
                recipient.told_of_delay = false;
            }
        }
    }

    /// Where a recipient goes that is ready.
    pub(super) fn ready_for(&self, index: usize) -> Option<Destination> {
        let recipient = self.recipients.as_slice().get(index)?;
        (recipient.place == Place::Ready).then_some(recipient.destination)
    }

    pub(super) fn job(&self, id: MessageId, recipients: Vec<JobRecipient>, ready_at: Timestamp) -> Queued {
        let fresh = self.fresh.as_deref();
        Queued {
            id,
            envelope: fresh.map(|fresh| Arc::clone(&fresh.envelope)),
            content: fresh.and_then(|fresh| fresh.content.clone()),
            recipients,
            ready_at,
            sender: self.sender,
        }
    }

    pub(super) fn isolate(&mut self, recipients: &[u32]) {
        for index in recipients {
            if let Some(recipient) = self.recipients.as_mut_slice().get_mut(*index as usize) {
                recipient.alone = true;
            }
        }
    }

    /// Notes that recipients go from lane to lane. How often one of them has since its last attempt.
    pub(super) fn moved(&mut self, recipients: &[JobRecipient]) -> u8 {
        let moved = |JobRecipient { index, .. }: &JobRecipient| {
            let recipient = self.recipients.as_mut_slice().get_mut(*index as usize)?;
            recipient.moves = recipient.moves.saturating_add(1);
            Some(recipient.moves)
        };
        recipients.iter().filter_map(moved).max().unwrap_or_default()
    }

    /// Recipients that have not ended, or of whose end the sender is to be told.
    pub(super) fn outstanding(&self) -> usize {
        let recipients = self.recipients.as_slice().iter();
        recipients.filter(|recipient| !matches!(recipient.place, Place::Ended(_))).count()
    }

    /// Whether nobody is about to need the content.
    pub(super) fn is_quiet(&self) -> bool {
        let waits = |recipient: &Recipient| !matches!(recipient.place, Place::Ready | Place::InFlight);
        self.recipients.as_slice().iter().all(waits)
    }

    pub(super) fn status(&self) -> MessageStatus {
        let mut status = None;
        for recipient in self.recipients.as_slice() {
            match recipient.place {
                Place::InFlight => return MessageStatus::InProgress,
                Place::Waiting | Place::Ready if recipient.attempts > 0 && !self.held => {
                    status = Some(MessageStatus::Deferred);
                }
                Place::Scheduled | Place::Waiting | Place::Ready => {
                    let untried = if self.held { MessageStatus::Held } else { MessageStatus::Pending };
                    status.get_or_insert(untried);
                }
                Place::Untold(_) | Place::Telling(_) | Place::Ended(_) => {}
            }
        }
        // What is left is to tell the sender of those that have ended.
        status.unwrap_or(MessageStatus::InProgress)
    }

    /// Each recipient with its attempts and its due time.
    pub(super) fn recipients(&self) -> impl Iterator<Item = (RecipientStatus, u32, Option<Timestamp>)> {
        self.recipients.as_slice().iter().map(|recipient| recipient.snapshot(self.held))
    }

    /// Where each recipient goes.
    pub(super) fn destinations(&self) -> impl Iterator<Item = Destination> {
        self.recipients.as_slice().iter().map(|recipient| recipient.destination)
    }
}

impl Recipient {
    /// Whether it has not ended.
    fn is_outstanding(&self) -> bool {
        matches!(self.place, Place::Scheduled | Place::Waiting | Place::Ready | Place::InFlight)
    }

    /// Whether its sender is to be told when it takes long.
    fn is_untold(&self) -> bool {
        !self.told_of_delay && matches!(self.place, Place::Waiting | Place::Ready)
    }

    fn fly(&mut self, index: u32) -> JobRecipient {
        self.place = Place::InFlight;
        JobRecipient { index, attempts: self.attempts, due: self.due.into() }
    }

    fn snapshot(self, held: bool) -> (RecipientStatus, u32, Option<Timestamp>) {
        let (status, due) = match self.place {
            Place::Scheduled | Place::Waiting | Place::Ready if held => (RecipientStatus::Held, None),
            Place::Scheduled => (RecipientStatus::Pending, Some(self.due.into())),
            Place::Waiting | Place::Ready if self.attempts > 0 => {
                (RecipientStatus::Deferred, Some(self.due.into()))
            }
            Place::Waiting | Place::Ready => (RecipientStatus::Pending, None),
            Place::InFlight => (RecipientStatus::InProgress, None),
            Place::Untold(ended) | Place::Telling(ended) | Place::Ended(ended) => (ended.into(), None),
        };
        (status, self.attempts, due)
    }
}
