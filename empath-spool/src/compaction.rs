//! Writing the messages of the oldest segment again, at the end of the journal, so that the segment can be given up.
//!
//! A message goes as one batch: its `Accepted` and all its `Progress`, as they stand. Where the batch is durable it takes
//! the place of what stood before; where it is not, nothing has changed. The committer leaves it out if the message has
//! changed since it was read.

use std::{collections::VecDeque, time::Duration, vec};

use bytes::Bytes;
use empath_common::MessageId;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use crate::{
    CommitError, aside,
    backlog::{Class, Pending},
    committer::Shared,
    contents::Item,
    index::{Effect, Known, Message, Use},
    reader::{self, Damaged, Failure},
    record::{At, Kind, Record},
    scan::{Found, scan},
    segment::Previous,
    window::Window,
};

/// Octets that are read and written again at a time: what commits beside them may have to wait for.
const STEP: u64 = 512 << 10;

/// How long a segment that cannot be read is left alone.
const PAUSE: Duration = Duration::from_mins(1);

/// How far the oldest segment is done.
#[derive(Default)]
pub(crate) struct Compaction {
    segment: Option<u32>,
    items: vec::IntoIter<Item>,
    /// Whether the items are those of the index, because none of the segment's records led to a message that is left.
    stuck: bool,
    sent: usize,
    answers: VecDeque<oneshot::Receiver<Result<(), CommitError>>>,
    not_before: Option<Instant>,
}

impl Compaction {
    /// Reads some messages and hands them to the committer; true if there is more to do at once.
    pub(crate) fn step(&mut self, shared: &Shared) -> bool {
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
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return false;
        }
        let Some((number, used)) =
            shared.index().to_compact(shared.journal.segment_size, shared.is_starved())
        else {
            shared.index().stuck(None);
            *self = Self::default();
            return false;
        };
        if self.segment != Some(number) || self.items.len() == 0 {
            let stuck = self.segment == Some(number) && self.sent == 0;
            if stuck && self.stuck {
                self.give_up(shared, number, "its messages are not where they were");
                return false;
            }
            let items = if stuck { left(shared, number) } else { items(shared, number, used) };
            *self = Self { segment: Some(number), items, stuck, ..Self::default() };
        }
        self.some(shared, number);
        self.answers.is_empty()
    }

    fn some(&mut self, shared: &Shared, number: u32) {
        let mut octets = 0;
        while octets < STEP
            && let Some(item) = self.items.next()
        {
            let (id, Some(at)) = (item.effect.id(), At::new(number, item.offset)) else {
                continue;
            };
            let Some(known) = shared.index().message_and_gaps(id).filter(|known| known.0.accepted == at)
            else {
                continue;
            };
            octets += u64::from(known.0.octets);
            let read = again(shared, id, &known, Damaged::Fails);
            let read = if let Err(Failure::Record | Failure::Fields | Failure::Other) = read {
                again(shared, id, &known, Damaged::Ends)
            } else {
                read
            };
            let records = match read {
                Ok(records) => records,
                Err(_) if shared.index().message_and_gaps(id).as_ref() != Some(&known) => continue,
                Err(Failure::Io(failure)) => return self.give_up(shared, number, &failure.to_string()),
                Err(failure) => match self.bury(shared, number, &item, &known.0, failure) {
                    Some(records) => records,
                    None => return,
                },
            };
            let class = match records.first() {
                Some((_, Effect::Removed(_))) => Class::Outcome,
                _ => Class::Moved(id, known.0),
            };
            let octets = records.iter().map(|(record, _)| record.len()).sum();
            let (answer, answered) = oneshot::channel();
            let pending = Pending { records, octets, class, large: Vec::new(), answer };
            if shared.backlog.push(pending).is_ok() {
                shared.metrics.compacted.increment();
                self.sent += 1;
                self.answers.push_back(answered);
            }
        }
    }

    /// A message that is damaged where it stands: a copy goes to `damaged/`, and the message with it, as it would at the
    /// next start.
    fn bury(
        &mut self,
        shared: &Shared,
        number: u32,
        item: &Item,
        message: &Message,
        failure: Failure,
    ) -> Option<Vec<(Record, Effect)>> {
        let id = item.effect.id();
        let failure = failure.about(id);
        let copied = aside::keep(shared, id, message.accepted, Some(item.octets));
        match copied {
            Ok(copy) => {
                shared.metrics.damaged.increment();
                tracing::error!(message_id = %id, error = %failure, copy = %copy.display(), "a message is damaged and was taken out");
                let removed = crate::encoding::encode(crate::Entry::Removed(id), 0).last(true);
                Some(vec![(removed, Effect::Removed(id))])
            }
            Err(failure) => {
                self.give_up(shared, number, &failure.to_string());
                None
            }
        }
    }

    fn give_up(&mut self, shared: &Shared, segment: u32, why: &str) {
        // The next start reads all of it, and says what is wrong.
        let _ = shared.journal.remove_name(&shared.journal.contents(segment));
        tracing::error!(
            segment,
            why,
            "a segment of the journal cannot be read to free its space; it is tried again"
        );
        let mut index = shared.index();
        index.stuck(Some(segment));
        shared.metrics.holds(&index);
        drop(index);
        *self = Self { not_before: Some(Instant::now() + PAUSE), ..Self::default() };
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
    let progress = reader::progress(shared, id, known, damaged)?;
    let count = progress.len();
    let records = progress.into_iter().map(|(_, octets)| (octets, Bytes::new(), Effect::Progress(id)));
    let records = [(octets, body, Effect::Accepted(id))].into_iter().chain(records);
    let record = |(place, (octets, body, effect)): (u32, _)| {
        (Record::again(octets, body, place).last(crate::record::size(place) == count), effect)
    };
    Ok((0..).zip(records).map(record).collect())
}

/// The messages whose `Accepted` stands in a segment, as the index knows them.
fn left(shared: &Shared, number: u32) -> vec::IntoIter<Item> {
    let item = |(id, message): (MessageId, Message)| Item {
        effect: Effect::Accepted(id),
        offset: message.accepted.offset,
        octets: message.octets,
        previous: None,
    };
    shared.index().in_segment(number).into_iter().map(item).collect::<Vec<_>>().into_iter()
}

/// The `Accepted` records of a sealed segment, of messages that live and of others.
fn items(shared: &Shared, number: u32, used: Use) -> vec::IntoIter<Item> {
    let sealed = Previous { segment: number, epoch: used.epoch, end: used.end };
    let accepted = |item: &Item| matches!(item.effect, Effect::Accepted(_));
    if let Some(items) = shared.journal.read_contents(sealed) {
        return items.into_iter().filter(accepted).collect::<Vec<_>>().into_iter();
    }
    let Ok(file) = shared.journal.files.open_read(&shared.journal.segment(number)) else {
        return Vec::new().into_iter();
    };
    let mut items = Vec::new();
    for found in scan(&mut Window::new(&*file, used.end), used.epoch, true) {
        if let Found::Batch(batch) = found {
            let batch = batch.iter().filter(|record| record.header.kind == Kind::Accepted);
            items.extend(batch.filter_map(Item::of));
        }
    }
    items.into_iter()
}
