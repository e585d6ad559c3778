//! What a spool is asked for, made from a seed.

use std::sync::Arc;

use bytes::Bytes;
use empath_common::{
    EnhancedStatus, Envelope, ForwardPath, FutureRelease, MessageId, MtPriority, Reply, ReversePath,
};
use fastrand::Rng;
use jiff::Timestamp;

use super::model::{Change, Changes, Message, Messages};
use crate::{Attempt, Ended, Progress, RecipientState, RecipientUpdate, Status, Untold, index::MAX_LINKS};

/// Messages that are there at a time, about.
const MESSAGES: usize = 10;

/// Makes batches.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    rng: Rng,
    serial: u64,
    segment_size: usize,
    /// What will be there when all that was asked for has happened.
    ids: Vec<(MessageId, u32)>,
}

impl Workload {
    pub(super) fn new(seed: u64, segment_size: usize) -> Self {
        Self { rng: Rng::with_seed(seed), serial: 0, segment_size, ids: Vec::new() }
    }

    /// Goes on from these messages.
    pub(super) fn resume(&mut self, messages: &Messages) {
        let count = |message: &Message| u32::try_from(message.recipients.len()).unwrap_or(0);
        self.ids = messages.iter().map(|(id, message)| (*id, count(message))).collect();
    }

    /// Changes of one batch.
    pub(super) fn batch(&mut self) -> Changes {
        let more = usize::from(self.rng.usize(..2 * MESSAGES) >= self.ids.len());
        match self.rng.usize(..10) + 3 * more {
            0..2 => self.any().map(|at| self.removed(at)).into_iter().collect(),
            2..4 => {
                // The last outcome and the end, as delivery commits them.
                let Some(at) = self.any() else { return vec![self.accepted()] };
                vec![self.progress(at), self.removed(at)]
            }
            4 if self.rng.u8(..3) == 0 => {
                // A message that has waited for long.
                let Some(at) = self.any() else { return vec![self.accepted()] };
                (0..self.rng.usize(4..16)).map(|_| self.progress(at)).collect()
            }
            4 => self.any().map(|at| self.held(at)).into_iter().collect(),
            5..8 => self.any().map(|at| self.progress(at)).into_iter().collect(),
            8 => {
                // A bounce and its DSN.
                let Some(at) = self.any() else { return vec![self.accepted()] };
                vec![self.accepted(), self.progress(at)]
            }
            9 if self.rng.bool() => {
                let unknown = self.id();
                vec![Change::Removed(unknown)]
            }
            _ => vec![self.accepted()],
        }
    }

    /// A message of about a thousand octets.
    pub(super) fn letter(&mut self) -> Changes {
        let (id, message) = (self.id(), self.message());
        let content = content(&mut self.rng, 1000);
        self.ids.push((id, u32::try_from(message.recipients.len()).unwrap_or(0)));
        vec![Change::Accepted(id, Message { content, ..message })]
    }

    /// A message with a file of its own.
    pub(super) fn large(&mut self) -> Changes {
        let (id, message) = (self.id(), self.message());
        let content = content(&mut self.rng, 2 * self.segment_size);
        vec![Change::Accepted(id, Message { content, ..message })]
    }

    /// The last outcome and the end of each message, oldest first.
    pub(super) fn ends(&mut self) -> Vec<Changes> {
        let progress: Vec<_> = (0..self.ids.len()).map(|at| self.progress(at)).collect();
        let ends = self.ids.drain(..).map(|(id, _)| Change::Removed(id));
        progress.into_iter().zip(ends).map(|(progress, end)| vec![progress, end]).collect()
    }

    /// More progress of the oldest message than is left alone, a batch for each.
    pub(super) fn attempts(&mut self) -> Vec<Changes> {
        let many = 0..=MAX_LINKS;
        if self.ids.is_empty() { Vec::new() } else { many.map(|_| vec![self.progress(0)]).collect() }
    }

    /// The removal of all messages but some, a batch for each.
    pub(super) fn removals(&mut self, but: usize) -> Vec<Changes> {
        self.ids.drain(but.min(self.ids.len())..).map(|(id, _)| vec![Change::Removed(id)]).collect()
    }

    fn any(&mut self) -> Option<usize> {
        (!self.ids.is_empty()).then(|| self.rng.usize(..self.ids.len()))
    }

    fn id(&mut self) -> MessageId {
        self.serial += 1;
        MessageId::from_bytes((u128::from(self.serial) << 64).to_be_bytes())
    }

    fn accepted(&mut self) -> Change {
        let (id, message) = (self.id(), self.message());
        self.ids.push((id, u32::try_from(message.recipients.len()).unwrap_or(0)));
        Change::Accepted(id, message)
    }

    fn message(&mut self) -> Message {
        let (rng, segment) = (&mut self.rng, self.segment_size);
        let size = match rng.u8(..16) {
            0 => 0,
            1..8 => rng.usize(..300),
            8..13 => rng.usize(..segment / 4),
            13 => segment - rng.usize(..600),
            14 => rng.usize(..segment),
            _ => rng.usize(segment..3 * segment),
        };
        let reverse_path = if rng.bool() { ReversePath::Null } else { path("alice") };
        let mut envelope = Envelope::new(reverse_path, recipient("bob"));
        for name in ["carol", "dave", "erin"].iter().take(rng.usize(..4)) {
            // The names differ and there is no limit.
            let _ = envelope.add(recipient(name), usize::MAX);
        }
        envelope.received_at = time(self.serial);
        if self.serial.is_multiple_of(4) {
            envelope.future_release = Some(FutureRelease::Until(time(self.serial + 60)));
            envelope.mt_priority = MtPriority::new(-3);
        }
        if rng.u8(..4) == 0 {
            let value = "x".repeat(rng.usize(..1500));
            // It fits.
            let _ = envelope.metadata.insert("note".to_owned(), value);
        }
        let recipients = vec![RecipientState::default(); envelope.recipients().len()];
        Message { envelope: Arc::new(envelope), content: content(rng, size), recipients, held: false }
    }

    fn progress(&mut self, at: usize) -> Change {
        let (id, recipients) = self.ids[at];
        let first = self.rng.u32(..recipients);
        let last = self.rng.u32(first..recipients);
        let updates = (first..=last).map(|recipient| self.update(recipient)).collect();
        Change::Progress(Progress { id, updates })
    }

    fn held(&mut self, at: usize) -> Change {
        Change::Held(self.ids[at].0, self.rng.bool())
    }

    fn update(&mut self, recipient: u32) -> RecipientUpdate {
        self.serial += 1;
        let at = time(self.serial);
        let statuses = [Status::Deferred, Status::Ended(Ended::Delivered), Status::Ended(Ended::Bounced)];
        let status = statuses[self.rng.usize(..statuses.len())];
        let attempt = Attempt {
            at,
            next_hop: "mx:example.test".to_owned(),
            host: None,
            reply: self.rng.bool().then(|| Reply::plain(451, "later")),
            status: EnhancedStatus::new(4, 3, 0),
            detail: format!("attempt {}", self.serial),
        };
        let next_attempt_at = (status == Status::Deferred).then_some(at);
        RecipientUpdate {
            recipient,
            status,
            attempts: self.rng.u32(..9),
            next_attempt_at,
            told_of_delay: self.serial.is_multiple_of(7),
            untold: self.serial.is_multiple_of(5).then_some(Untold::Failed),
            attempt: Some(attempt),
        }
    }

    fn removed(&mut self, at: usize) -> Change {
        Change::Removed(self.ids.swap_remove(at).0)
    }
}

fn time(serial: u64) -> Timestamp {
    Timestamp::new(1_700_000_000 + i64::try_from(serial).unwrap_or(0), 0).unwrap_or_default()
}

fn recipient(name: &str) -> ForwardPath {
    ForwardPath::Mailbox(format!("{name}@example.test").parse().expect("a mailbox"))
}

fn path(name: &str) -> ReversePath {
    ReversePath::Mailbox(format!("{name}@example.test").parse().expect("a mailbox"))
}

/// Octets, some of them like the beginning of a record.
fn content(rng: &mut Rng, size: usize) -> Bytes {
    let mut octets = vec![rng.u8(..); size];
    for _ in 0..size.div_ceil(1000) {
        let at = rng.usize(..size);
        let rest = &mut octets[at..];
        let sample = b"EMPR\x01\x02\x01\0\r\nSubject: 4711\r\n";
        let length = rest.len().min(sample.len());
        rest[..length].copy_from_slice(&sample[..length]);
    }
    rng.fill(octets.get_mut(..size.min(100)).unwrap_or_default());
    octets.into()
}
