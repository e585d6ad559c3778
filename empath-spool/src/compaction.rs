//! Writing the messages of the oldest segment again, at the end of the journal, so that the segment can be given up.
//!
//! A message goes as one batch: its `Accepted` as it stands, and one `Progress` that says what all its `Progress` come to.
//! Where the batch is durable it takes the place of what stood before; where it is not, nothing has changed. The committer
//! leaves it out if the message has changed since it was read. Where only the `Progress` of a message have become too many,
//! the one that takes their place goes alone.

use std::{collections::VecDeque, io, time::Duration};

use empath_common::MessageId;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use crate::{
    CommitError, Entry, aside,
    backlog::{Class, Pending},
    committer::Shared,
    condensed::Sum,
    encoding,
    index::{Effect, Known, Message},
    reader::{self, Damaged, Failure},
    record::Record,
};

/// Octets that are read and written again at a time: what commits beside them may have to wait for.
const STEP: u64 = 512 << 10;

/// How long a segment that cannot be read is left alone.
const PAUSE: Duration = Duration::from_mins(1);

/// Messages that are looked at in the index at a time.
const LOOK: usize = 4096;

/// How long a message whose `Progress` have become too many is left alone after a try: as long as more come at once, each
/// try to condense them is in vain.
const ROUND: Duration = Duration::from_secs(1);

/// How far the oldest segment is done.
#[derive(Default)]
pub(crate) struct Compaction {
    segment: Option<u32>,
    /// The last message that was looked at, and how many were written again since the first.
    behind: Option<MessageId>,
    sent: usize,
    answers: VecDeque<oneshot::Receiver<Result<(), CommitError>>>,
    not_before: Option<Instant>,
    /// The last message whose `Progress` were condensed, and when the next round of that begins.
    condensed: Option<MessageId>,
    next_round: Option<Instant>,
}

impl Compaction {
    /// Reads some messages and hands them to the committer; true if there is more to do at once.
    pub(crate) fn step(&mut self, shared: &Shared, now: Instant) -> bool {
        while let Some(answer) = self.answers.front_mut() {
            match answer.try_recv() {
                Ok(Ok(())) => drop(self.answers.pop_front()),
                Err(TryRecvError::Empty) => return false,
                // The journal is full or broken. The committer says when it is time for the next try.
                Ok(Err(_)) | Err(TryRecvError::Closed) => {
                    *self = Self::default();
                    return false;
                }
            }
        }
        if self.not_before.is_some_and(|time| now < time) {
            return false;
        }
        self.condense(shared, now);
        let Some((number, _)) = shared.index().to_compact(shared.journal.segment_size, shared.is_starved())
        else {
            shared.index().stuck(None);
            self.turn_to(None);
            return self.answers.is_empty() && self.next_round.is_none() && shared.index().has_long();
        };
        if self.segment != Some(number) {
            self.turn_to(Some(number));
        }
        self.some(shared, number, now);
        self.answers.is_empty() && self.not_before.is_none()
    }

    fn turn_to(&mut self, segment: Option<u32>) {
        (self.segment, self.behind, self.sent) = (segment, None, 0);
    }

    /// When there may be something to do again.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.next_round, self.not_before].into_iter().flatten().min()
    }

    /// Begins what is due.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.next_round.is_some_and(|due| due <= now) {
            (self.condensed, self.next_round) = (None, None);
        }
        self.not_before.take_if(|due| *due <= now);
    }

    /// Writes what the `Progress` of some messages come to, where there are too many of them.
    fn condense(&mut self, shared: &Shared, now: Instant) {
        const SOME: usize = 64;
        if self.next_round.is_some() {
            return;
        }
        let long = shared.index().take_long(self.condensed, SOME);
        if let Some(last) = long.last() {
            self.condensed = Some(*last);
        } else if self.condensed.is_some() {
            self.next_round = Some(now + ROUND);
        }
        for id in long {
            let Some(known) = shared.index().message_and_gaps(id) else {
                continue;
            };
            // Where it fails, the next `Progress` brings the message back, and whoever loads it says what is wrong. What is
            // behind damage is left to the next start, which may find the way to it.
            if let Ok(sum) = reader::condensed(shared, id, &known, Damaged::Fails)
                && self.send(shared, id, known.0, vec![condensed(id, &sum, 0)])
            {
                shared.metrics.condensed.increment();
            }
        }
    }

    /// Goes on with the messages of a segment.
    fn some(&mut self, shared: &Shared, number: u32, now: Instant) {
        let (there, last) = shared.index().in_segment(number, self.behind, LOOK);
        if last.is_none() {
            if self.sent == 0 {
                self.give_up(shared, number, "its messages are not where they were", now);
            }
            (self.behind, self.sent) = (None, 0);
            return;
        }
        let mut octets = 0;
        for id in there {
            self.behind = Some(id);
            let known = shared.index().message_and_gaps(id);
            let Some(known) = known.filter(|known| known.0.accepted.segment.get() == number) else {
                continue;
            };
            octets += known.0.octets();
            let read = again(shared, id, &known, Damaged::Fails);
            let whole = read.is_ok();
            let records = match damaged_or(read, || again(shared, id, &known, Damaged::Passed)) {
                Ok(records) => {
                    if !whole && shared.index().message_and_gaps(id).as_ref() == Some(&known) {
                        tracing::error!(message_id = %id, "the history of a message is damaged; what is left of it counts");
                    }
                    records
                }
                Err(_) if shared.index().message_and_gaps(id).as_ref() != Some(&known) => continue,
                Err(Failure::Io(failure)) => return self.give_up(shared, number, &failure.to_string(), now),
                Err(failure) => match bury(shared, id, &known, failure) {
                    Ok(records) => records,
                    Err(failure) => return self.give_up(shared, number, &failure.to_string(), now),
                },
            };
            if self.send(shared, id, known.0, records) {
                shared.metrics.compacted.increment();
                self.sent += 1;
            }
            if octets >= STEP {
                return;
            }
        }
        self.behind = last;
    }

    fn send(
        &mut self,
        shared: &Shared,
        id: MessageId,
        then: Message,
        records: Vec<(Record, Effect)>,
    ) -> bool {
        let class = match records.first() {
            Some((_, Effect::Removed(_))) => Class::Outcome,
            _ => Class::Moved(id, then),
        };
        let octets = records.iter().map(|(record, _)| record.len()).sum();
        let (answer, answered) = oneshot::channel();
        let pending = Pending { records, octets, class, large: Vec::new(), answer };
        let sent = shared.backlog.push(pending).is_ok();
        if sent {
            self.answers.push_back(answered);
        }
        sent
    }

    fn give_up(&mut self, shared: &Shared, segment: u32, why: &str, now: Instant) {
        // The next start reads all of it, and says what is wrong.
        let _ = shared.journal.remove_name(&shared.journal.contents(segment));
        tracing::error!(
            segment,
            why,
            "a segment of the journal cannot be read to free its space; it is tried again"
        );
        let mut index = shared.index();
        index.stuck(Some(segment));
        index.has_contents(segment, 0);
        shared.metrics.holds(&index);
        drop(index);
        *self = Self { not_before: Some(now + PAUSE), ..Self::default() };
    }
}

/// A message that is damaged where it stands: a copy goes to `damaged/`. Where its envelope can be read it stays, without
/// its content, for its sender to be told when its turn comes; else nobody can be told, and it goes as it would at the
/// next start.
fn bury(
    shared: &Shared,
    id: MessageId,
    known: &Known,
    failure: Failure,
) -> io::Result<Vec<(Record, Effect)>> {
    let failure = failure.about(id);
    let copy = aside::keep(shared, id, &known.0)?;
    shared.metrics.damaged.increment();
    tracing::error!(message_id = %id, error = %failure, copy = %copy.display(), "a message is damaged; what there is of it was set aside");
    let left = reader::envelope(shared, id, known.0.accepted).and_then(|envelope| {
        let accepted = encoding::encode_lost(id, &envelope, 0);
        with_progress(shared, id, known, Damaged::Passed, accepted)
    });
    Ok(left.unwrap_or_else(|_| {
        let removed = encoding::encode(Entry::Removed(id), 0).last(true);
        vec![(removed, Effect::Removed(id))]
    }))
}

/// What was read, or what is left of it where it is damaged.
fn damaged_or<T>(read: Result<T, Failure>, left: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    match read {
        Err(Failure::Record | Failure::Fields | Failure::Other) => left(),
        read => read,
    }
}

/// The records of a message to be written again.
fn again(
    shared: &Shared,
    id: MessageId,
    known: &Known,
    damaged: Damaged,
) -> Result<Vec<(Record, Effect)>, Failure> {
    let (header, octets, body) = reader::whole(shared, id, known.0.accepted)?;
    header.verify_body(&body)?;
    with_progress(shared, id, known, damaged, Record::again(octets, body, 0))
}

/// The records of a message of which this is the first.
fn with_progress(
    shared: &Shared,
    id: MessageId,
    known: &Known,
    damaged: Damaged,
    accepted: Record,
) -> Result<Vec<(Record, Effect)>, Failure> {
    let sum = reader::condensed(shared, id, known, damaged)?;
    let accepted = accepted.last(sum.is_empty());
    let progress = (!sum.is_empty()).then(|| condensed(id, &sum, 1));
    Ok([(accepted, Effect::Accepted(id))].into_iter().chain(progress).collect())
}

/// The one `Progress` that takes the place of all before it, at the end of a batch.
fn condensed(id: MessageId, sum: &Sum, place: u32) -> (Record, Effect) {
    let record = encoding::encode_sum(id, sum, place);
    (record.last(true), Effect::Condensed(id))
}
