use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use empath_common::{Envelope, MessageId};
use empath_spool::{Ended, RecipientState, Status};
use jiff::Timestamp;

use super::{Fate, Job, JobRecipient, Settlement, Snapshot};
use crate::schedule;

/// A message in the queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) envelope: Arc<Envelope>,
    size: u64,
    pub(super) content: Option<Bytes>,
    pub(super) expires_at: Timestamp,
    /// When the queue looks at the message next.
    pub(super) timer: Option<Timestamp>,
    /// An operator removes it: what is in flight and fails is not tried again.
    pub(super) removing: bool,
    recipients: Box<[Recipient]>,
}

#[derive(Debug, Clone, Copy)]
struct Recipient {
    place: Place,
    attempts: u32,
    /// It does not share a transaction with others.
    alone: bool,
    /// Nobody is to be told any more that it takes long.
    told_of_delay: bool,
}

/// Where a recipient is, with its due time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// For its due time to come.
    Waiting(Timestamp),
    /// In the lane of its next hop.
    Ready(Timestamp),
    /// With a connection, or with someone who ends it.
    InFlight,
    /// It has come to its end.
    Ended(Ended),
}

/// How far a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientStatus {
    /// Not tried yet.
    Pending,
    /// An attempt is being made.
    InProgress,
    /// Tried without success, to be tried again.
    Deferred,
    /// Delivered.
    Completed,
    /// Bounced, or removed by an operator.
    Failed,
    /// Too long in the queue.
    Expired,
}

/// How far a message is: in progress if any recipient is, else deferred if any is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageStatus {
    /// No recipient was tried yet.
    Pending,
    /// An attempt is being made.
    InProgress,
    /// Some recipient was tried without success.
    Deferred,
}

impl MessageStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::InProgress, Self::Deferred];

    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Deferred => "deferred",
        }
    }
}

impl Entry {
    /// A message of which no recipient was tried.
    pub(super) fn new(envelope: Arc<Envelope>, size: u64, expire_after: Duration) -> Self {
        let nobody_to_tell = envelope.reverse_path.mailbox().is_none();
        let recipient = |number| Recipient {
            place: Place::Waiting(envelope.received_at),
            attempts: 0,
            alone: false,
            told_of_delay: nobody_to_tell || !envelope.notification_of(number).on_delay(),
        };
        let recipients = (0..envelope.recipients().len()).map(recipient).collect();
        Self {
            expires_at: schedule::after(envelope.received_at, expire_after),
            envelope,
            size,
            content: None,
            timer: None,
            removing: false,
            recipients,
        }
    }

    /// Takes over what was stored.
    pub(super) fn restore(&mut self, states: &[RecipientState]) {
        for (recipient, state) in self.recipients.iter_mut().zip(states) {
            recipient.attempts = state.attempts;
            recipient.told_of_delay |= state.told_of_delay;
            recipient.place = match state.status {
                Status::Ended(ended) => Place::Ended(ended),
                Status::Pending | Status::Deferred => match state.next_attempt_at {
                    Some(due) => Place::Waiting(due),
                    None => recipient.place,
                },
            };
        }
    }

    /// Waiting recipients whose due time is chosen become ready.
    pub(super) fn make_ready(&mut self, chosen: impl Fn(Timestamp) -> bool) -> Vec<u32> {
        self.make_ready_where(|_, due| chosen(due))
    }

    /// Waiting recipients without any attempt become ready.
    pub(super) fn make_untried_ready(&mut self) -> Vec<u32> {
        self.make_ready_where(|attempts, _| attempts == 0)
    }

    fn make_ready_where(&mut self, chosen: impl Fn(u32, Timestamp) -> bool) -> Vec<u32> {
        let mut ready = Vec::new();
        for (index, recipient) in (0..).zip(&mut self.recipients) {
            if let Place::Waiting(due) = recipient.place
                && chosen(recipient.attempts, due)
            {
                recipient.place = Place::Ready(due);
                ready.push(index);
            }
        }
        ready
    }

    /// A recipient that is ready goes in flight.
    pub(super) fn take_off(&mut self, index: u32) -> Option<JobRecipient> {
        let recipient = self.recipients.get_mut(index as usize)?;
        let Place::Ready(due) = recipient.place else {
            return None;
        };
        recipient.place = Place::InFlight;
        Some(JobRecipient { index, attempts: recipient.attempts, due })
    }

    /// Recipients with a chosen number of attempts that wait or are ready go in flight.
    pub(super) fn claim(&mut self, chosen: impl Fn(u32) -> bool) -> Vec<JobRecipient> {
        let mut taken = Vec::new();
        for (index, recipient) in (0..).zip(&mut self.recipients) {
            if let Place::Waiting(due) | Place::Ready(due) = recipient.place
                && chosen(recipient.attempts)
            {
                recipient.place = Place::InFlight;
                taken.push(JobRecipient { index, attempts: recipient.attempts, due });
            }
        }
        taken
    }

    /// Recipients that wait or are ready, and about whom the sender is to be told that it takes long, go in flight.
    pub(super) fn claim_late(&mut self) -> Vec<JobRecipient> {
        let mut taken = Vec::new();
        for (index, recipient) in (0..).zip(&mut self.recipients) {
            if let Place::Waiting(due) | Place::Ready(due) = recipient.place
                && !std::mem::replace(&mut recipient.told_of_delay, true)
            {
                recipient.place = Place::InFlight;
                taken.push(JobRecipient { index, attempts: recipient.attempts, due });
            }
        }
        taken
    }

    /// The sender could not be told about these recipients.
    pub(super) fn tell_again(&mut self, recipients: &[u32]) {
        for index in recipients {
            if let Some(recipient) = self.recipients.get_mut(*index as usize) {
                recipient.told_of_delay = false;
            }
        }
    }

    /// When the sender is told that the message takes long, if it takes so long.
    pub(super) fn late_at(&self, delay_after: Option<Duration>) -> Option<Timestamp> {
        let late_at = schedule::after(self.envelope.received_at, delay_after?);
        Some(late_at).filter(|late_at| *late_at < self.expires_at)
    }

    /// Whether a recipient is in its lane.
    pub(super) fn is_ready(&self, index: usize) -> bool {
        self.recipients.get(index).is_some_and(|recipient| matches!(recipient.place, Place::Ready(_)))
    }

    pub(super) fn job(&self, id: MessageId, recipients: Vec<JobRecipient>, ready_at: Timestamp) -> Job {
        Job { id, envelope: Arc::clone(&self.envelope), content: self.content.clone(), recipients, ready_at }
    }

    pub(super) fn isolate(&mut self, recipients: &[u32]) {
        for index in recipients {
            if let Some(recipient) = self.recipients.get_mut(*index as usize) {
                recipient.alone = true;
            }
        }
    }

    pub(super) fn is_alone(&self, index: u32) -> bool {
        self.recipients.get(index as usize).is_some_and(|recipient| recipient.alone)
    }

    /// A recipient in flight has come down: to its end, if that is returned.
    pub(super) fn settle(&mut self, settlement: &Settlement) -> Option<Ended> {
        let recipient = self.recipients.get_mut(settlement.index as usize)?;
        recipient.attempts = settlement.attempts;
        recipient.place = match settlement.fate {
            Fate::Ended(ended) => Place::Ended(ended),
            Fate::Due(_) if self.removing => Place::Ended(Ended::Removed),
            Fate::Due(due) => Place::Waiting(due),
        };
        match recipient.place {
            Place::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Recipients that have not ended.
    pub(super) fn outstanding(&self) -> usize {
        self.recipients.iter().filter(|recipient| !matches!(recipient.place, Place::Ended(_))).count()
    }

    /// Whether nobody is about to need the content.
    pub(super) fn is_quiet(&self) -> bool {
        let waits = |recipient: &Recipient| matches!(recipient.place, Place::Waiting(_) | Place::Ended(_));
        self.recipients.iter().all(waits)
    }

    /// The next moment when something is to be done without an outside event: a due time, news of a delay, or the expiry.
    pub(super) fn next_event(&self, delay_after: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        let (mut outstanding, mut untold) = (false, false);
        for recipient in &self.recipients {
            outstanding |= !matches!(recipient.place, Place::Ended(_));
            untold |=
                !recipient.told_of_delay && matches!(recipient.place, Place::Waiting(_) | Place::Ready(_));
            if let Place::Waiting(due) = recipient.place {
                next = Some(next.map_or(due, |next: Timestamp| next.min(due)));
            }
        }
        // After the expiry only what could not be ended then is left, to be tried again at its due time.
        if outstanding && self.expires_at > now {
            let late_at = self.late_at(delay_after).filter(|_| untold);
            next = [next, late_at, Some(self.expires_at)].into_iter().flatten().min();
        }
        next
    }

    pub(super) fn status(&self) -> MessageStatus {
        let mut status = MessageStatus::Pending;
        for recipient in &self.recipients {
            match recipient.place {
                Place::InFlight => return MessageStatus::InProgress,
                Place::Waiting(_) | Place::Ready(_) if recipient.attempts > 0 => {
                    status = MessageStatus::Deferred;
                }
                Place::Waiting(_) | Place::Ready(_) | Place::Ended(_) => {}
            }
        }
        status
    }

    pub(super) fn snapshot(&self, id: MessageId) -> Snapshot {
        let recipients = self.recipients.iter().map(|recipient| recipient.snapshot()).collect();
        Snapshot {
            id,
            envelope: Arc::clone(&self.envelope),
            size: self.size,
            recipients,
            status: self.status(),
        }
    }
}

impl Recipient {
    fn snapshot(self) -> (RecipientStatus, u32, Option<Timestamp>) {
        let (status, due) = match self.place {
            Place::Waiting(due) | Place::Ready(due) if self.attempts > 0 => {
                (RecipientStatus::Deferred, Some(due))
            }
            Place::Waiting(_) | Place::Ready(_) => (RecipientStatus::Pending, None),
            Place::InFlight => (RecipientStatus::InProgress, None),
            Place::Ended(Ended::Delivered) => (RecipientStatus::Completed, None),
            Place::Ended(Ended::Bounced | Ended::Removed) => (RecipientStatus::Failed, None),
            Place::Ended(Ended::Expired) => (RecipientStatus::Expired, None),
        };
        (status, self.attempts, due)
    }
}
