//! Finding the batches of a segment, and what is not one.

use std::{ops::Range, vec};

use empath_common::MessageId;

use crate::{
    contents::Item,
    encoding,
    record::{self, HEADER, Header, Kind, MAGIC, RecordError},
    window::Window,
};

/// A record of a whole batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanned {
    pub(crate) at: u64,
    pub(crate) header: Header,
    /// The message that it is about; `None` where it is about none, or says nothing that makes sense.
    pub(crate) id: Option<MessageId>,
}

/// A stretch of a segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// The next record of a whole batch.
    Record(Scanned),
    /// A whole batch that verifies, with a record about a message that makes no sense. Its write began at `start`.
    Senseless { start: u64, damaged: Damaged },
    /// Octets that are not a whole batch, with valid batches behind them.
    Damage(Damaged),
    /// Octets behind the last whole batch that begin like one: a write that did not finish.
    Unfinished(Damaged),
}

/// What can be said about octets that do not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub(crate) range: Range<u64>,
    pub(crate) reason: RecordError,
    /// The messages that the records seem to be about: the first of them.
    pub(crate) ids: Vec<MessageId>,
    /// How many more there seem to be.
    pub(crate) more_ids: u64,
}

/// Most messages that are named for a damaged range.
const MAX_IDS: usize = 1000;
/// Most records of a batch in memory. The others are read again when the batch is known to be whole.
const MAX_RECORDS: usize = 1000;

/// Finds the batches of a segment, and what else is there. `complete` says that every octet belongs to a batch.
///
/// The last write may not have finished: its blocks reach the disk in any order. Batches behind a gap in it are not
/// taken, since whoever committed them relies on those before. Where that can be, all is read to find the last write
/// first.
pub(crate) fn scan<'a, 'w>(window: &'a mut Window<'w>, epoch: u64, complete: bool) -> Scan<'a, 'w> {
    let last_write = if complete { None } else { Scan::new(window, epoch, complete).last_write() };
    Scan { last_write, ..Scan::new(window, epoch, complete) }
}

impl Damaged {
    pub(crate) fn new(range: Range<u64>, reason: RecordError) -> Self {
        Self { range, reason, ids: Vec::new(), more_ids: 0 }
    }

    fn about(&mut self, id: Option<MessageId>) {
        match id {
            Some(id) if self.ids.len() < MAX_IDS => self.ids.push(id),
            Some(_) => self.more_ids += 1,
            None => {}
        }
    }
}

impl Scanned {
    /// The first octet behind it.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.header.len()
    }

    /// Whether it is about a message, or should be.
    fn concerns_a_message(&self) -> bool {
        matches!(self.header.kind, Kind::Accepted | Kind::Progress | Kind::Removed)
    }
}

/// Walks through a segment with little of it in memory, whatever it looks like.
pub(crate) struct Scan<'a, 'w> {
    pub(crate) window: &'a mut Window<'w>,
    epoch: u64,
    /// Whether every octet belongs to a batch, so that what does not is damage.
    complete: bool,
    at: u64,
    /// The damage that is being passed.
    damage: Option<Damaged>,
    /// The last write, where it may have gaps.
    last_write: Option<Range<u64>>,
    /// The first records of the batch that is being handed out, and where it ends.
    records: vec::IntoIter<Scanned>,
    batch_end: u64,
}

enum Stretch {
    Batch(Batch),
    Damage(Damaged),
    Unfinished(Damaged),
}

/// A whole batch.
struct Batch {
    range: Range<u64>,
    /// Where its write began.
    start: u64,
    /// Not more than fit into memory.
    records: Vec<Scanned>,
    /// Whether each record that concerns a message says which.
    sense: bool,
}

impl<'a, 'w> Scan<'a, 'w> {
    fn new(window: &'a mut Window<'w>, epoch: u64, complete: bool) -> Self {
        let records = Vec::new().into_iter();
        Self { window, epoch, complete, at: 0, damage: None, last_write: None, records, batch_end: 0 }
    }

    fn read(&mut self, at: u64) -> Result<Scanned, RecordError> {
        /// Heads of more octets are not held in memory as a whole. The id is the first field.
        const LONG: usize = 64 << 10;
        let header = Header::parse(self.window.get(at, HEADER), Some(self.epoch))?;
        let end = at + header.len();
        if end > self.window.end() {
            return Err(RecordError::CutOff);
        }
        let head = HEADER + record::size(header.head);
        let body = at + head as u64;
        let id = if head <= LONG {
            encoding::id(header.verify_head(self.window.get(at, head))?)
        } else {
            let checksum = self.window.checksum(at + HEADER as u64..body);
            let octets = self.window.get(at, LONG);
            header.verify_head_checksum(octets, checksum)?;
            encoding::id(octets.get(HEADER..).unwrap_or_default())
        };
        header.verify_checksum(self.window.checksum(body..end))?;
        Ok(Scanned { at, header, id: id.ok() })
    }

    /// The whole batch that begins at `at`.
    fn batch(&mut self, at: u64) -> Result<Batch, RecordError> {
        let mut batch = Batch { range: at..at, start: 0, records: Vec::with_capacity(1), sense: true };
        for place in 0.. {
            let record = self.read(batch.range.end)?;
            // A record that misses those before it, or of the next batch.
            if record.header.place != place {
                return Err(RecordError::Batch);
            }
            batch.range.end = record.end();
            batch.start = record.header.start.into();
            batch.sense &= !record.concerns_a_message() || Item::of(&record).is_some();
            if batch.records.len() < MAX_RECORDS {
                batch.records.push(record);
            }
            if record.header.last {
                return Ok(batch);
            }
        }
        Err(RecordError::Batch)
    }

    /// The next stretch, whatever the last write was.
    fn stretch(&mut self) -> Option<Stretch> {
        loop {
            match self.batch(self.at) {
                Ok(batch) => {
                    if let Some(damage) = self.damage.take() {
                        return Some(Stretch::Damage(damage));
                    }
                    return Some(Stretch::Batch(batch));
                }
                Err(_) if self.at >= self.window.end() => {
                    let tail = self.damage.take()?;
                    let complete = self.complete;
                    return Some(if complete { Stretch::Damage(tail) } else { Stretch::Unfinished(tail) });
                }
                Err(reason) => match self.next_candidate(self.at + 1) {
                    Some(candidate) => self.pass(candidate, reason),
                    // Nothing of this epoch is left: the rest is empty space, or the end of a broken write.
                    None if self.complete || self.damage.is_some() || self.begins_here() => {
                        self.pass(self.window.end(), reason);
                    }
                    None => return None,
                },
            }
        }
    }

    /// From where the last write began to the end of its last whole batch.
    fn last_write(mut self) -> Option<Range<u64>> {
        let mut last = None;
        while let Some(stretch) = self.stretch() {
            if let Stretch::Batch(batch) = stretch {
                self.at = batch.range.end;
                last = Some(batch.start..batch.range.end);
            }
        }
        last
    }

    /// What is known about a batch that makes no sense.
    fn senseless(&mut self, range: Range<u64>) -> Damaged {
        let mut damaged = Damaged::new(range.clone(), RecordError::Batch);
        let mut at = range.start;
        while at < range.end
            && let Ok(record) = self.read(at)
        {
            damaged.about(record.id);
            at = record.end();
        }
        damaged
    }

    fn begins_here(&mut self) -> bool {
        Header::parse(self.window.get(self.at, HEADER), Some(self.epoch)).is_ok()
    }

    /// Notes that the octets up to `to` belong to no whole batch.
    fn pass(&mut self, to: u64, reason: RecordError) {
        let from = self.at;
        let id = self.seeming_id(from);
        let damage = self.damage.get_or_insert(Damaged::new(from..to, reason));
        damage.range.end = to;
        damage.about(id);
        self.at = to;
    }

    /// The message of a record whose header can be read, be it true or not.
    fn seeming_id(&mut self, at: u64) -> Option<MessageId> {
        // The id is the first field.
        let octets = self.window.get(at, HEADER + 64);
        let header = Header::parse(octets, Some(self.epoch)).ok()?;
        if matches!(header.kind, Kind::Begin | Kind::End) {
            return None;
        }
        encoding::id(octets.get(HEADER..)?).ok()
    }

    /// Where the next record of this epoch may begin.
    fn next_candidate(&mut self, mut at: u64) -> Option<u64> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let epoch = self.epoch.to_le_bytes();
        loop {
            let stretch = self.window.get(at, ZEROS.len());
            if stretch.is_empty() {
                return None;
            }
            // Preallocated space is passed quickly: no part of a magic number is zero.
            let first = if stretch == ZEROS { None } else { memchr::memchr(MAGIC[0], stretch) };
            let Some(found) = first else {
                at += stretch.len() as u64;
                continue;
            };
            at += found as u64;
            let candidate = self.window.get(at, 16);
            if candidate.starts_with(&MAGIC) && candidate.get(8..16) == Some(&epoch) {
                return Some(at);
            }
            at += 1;
        }
    }
}

impl Iterator for Scan<'_, '_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let record = self.records.next();
        if record.is_some() || self.at < self.batch_end {
            return Some(match record.map_or_else(|| self.read(self.at), Ok) {
                Ok(record) => {
                    self.at = record.end();
                    Found::Record(record)
                }
                // It was whole a moment ago: the disk fails.
                Err(reason) => {
                    let rest = self.at..self.batch_end;
                    self.at = rest.end;
                    Found::Damage(Damaged::new(rest, reason))
                }
            });
        }
        match self.stretch()? {
            Stretch::Batch(Batch { range, start, sense: false, .. }) => {
                self.at = range.end;
                Some(Found::Senseless { start, damaged: self.senseless(range) })
            }
            Stretch::Batch(batch) => {
                self.records = batch.records.into_iter();
                self.batch_end = batch.range.end;
                self.next()
            }
            Stretch::Damage(mut damage) => match &self.last_write {
                Some(last) if damage.range.end > last.start => {
                    damage.range.end = last.end;
                    self.at = self.window.end();
                    Some(Found::Unfinished(damage))
                }
                _ => Some(Found::Damage(damage)),
            },
            Stretch::Unfinished(tail) => Some(Found::Unfinished(tail)),
        }
    }
}

#[cfg(test)]
mod tests;
