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
mod tests {
    use std::io::{self, IoSlice};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{fields, files::File, record::Record};

    /// A file that can be read.
    struct Octets(Vec<u8>);

    impl File for Octets {
        fn allocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let some = rest.len().min(octets.len());
            octets[..some].copy_from_slice(&rest[..some]);
            Ok(some)
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }

        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    const EPOCH: u64 = 0x0102_0304_0506_0708;

    /// A batch of so many records, as on disk, behind all other writes.
    fn batch(records: u32) -> Vec<u8> {
        batch_of(u32::MAX, records)
    }

    /// A batch of the write that began at `start`.
    fn batch_of(start: u32, records: u32) -> Vec<u8> {
        let record = |place| {
            let mut record = Record::new(Kind::Removed, place, Bytes::from_static(b"body"), |out| {
                fields::put(out, encoding::ID, &[7; 16]);
            })
            .last(place + 1 == records);
            record.seal(EPOCH, start, None);
            [&record.head[..], &record.body[..]].concat()
        };
        (0..records).flat_map(record).collect()
    }

    /// What was found, in short: records of a batch, or the range of what is none.
    fn scan(octets: &[u8], complete: bool) -> Vec<String> {
        let file = Octets(octets.to_vec());
        let mut window = Window::new(&file, octets.len() as u64);
        let mut found = Vec::new();
        for stretch in super::scan(&mut window, EPOCH, complete) {
            match stretch {
                Found::Record(record) if record.header.last => {
                    found.push((record.header.place + 1).to_string());
                }
                Found::Record(_) => {}
                Found::Senseless { damaged, .. } => found.push(format!("senseless {:?}", damaged.range)),
                Found::Damage(damaged) => found.push(format!("damage {:?}", damaged.range)),
                Found::Unfinished(tail) => found.push(format!("unfinished {:?}", tail.range)),
            }
        }
        found
    }

    #[test]
    fn a_batch_with_one_bad_record_is_damage_as_a_whole() {
        let length = batch(1).len();
        for bad in 0..3 {
            let mut octets = [batch(1), batch(3), batch(2)].concat();
            octets[length * (bad + 1) + 20] ^= 1;
            let expected = ["1".to_owned(), format!("damage {length}..{}", length * 4), "2".to_owned()];
            assert_eq!(scan(&octets, false), expected, "bad record {bad}");
        }
    }

    #[test]
    fn empty_space_is_nothing_unless_the_segment_was_full_to_there() {
        let octets = [batch(1), vec![0; 10_000]].concat();
        let length = batch(1).len();
        assert_eq!(scan(&octets, false), ["1"]);
        assert_eq!(scan(&octets, true), ["1".to_owned(), format!("damage {length}..{}", octets.len())]);
    }

    #[test]
    fn zeros_between_batches_are_damage() {
        let octets = [batch(1), vec![0; 10_000], batch(1)].concat();
        let length = batch(1).len();
        assert_eq!(
            scan(&octets, false),
            ["1".to_owned(), format!("damage {length}..{}", length + 10_000), "1".to_owned()]
        );
    }

    #[test]
    fn batches_behind_a_gap_in_the_last_write_are_not_taken() {
        let length = batch(1).len();
        let second = u32::try_from(2 * length).unwrap();
        // Two writes of two and three batches.
        let whole =
            [batch_of(0, 1), batch_of(0, 1), batch_of(second, 1), batch_of(second, 1), batch_of(second, 1)];
        let broken = |at: usize| {
            let mut octets = whole.concat();
            octets[at * length..][..length].fill(0);
            octets
        };
        let (range, all) = (|what, from, to| format!("{what} {}..{}", from * length, to * length), 5);
        // The first write was synced before the second began: its gap is damage.
        assert_eq!(scan(&broken(0), false)[1..], ["1"; 4]);
        assert_eq!(scan(&broken(1), false)[1..], [range("damage", 1, 2), "1".into(), "1".into(), "1".into()]);
        assert_eq!(scan(&broken(2), false)[2..], [range("unfinished", 2, all)]);
        assert_eq!(scan(&broken(3), false)[3..], [range("unfinished", 3, all)]);
        // A later segment says that all of them were finished.
        assert_eq!(scan(&broken(3), true)[3..], [range("damage", 3, 4), "1".into()]);
    }

    #[test]
    fn a_batch_of_more_records_than_are_held_in_memory_is_found_whole() {
        let count = u32::try_from(MAX_RECORDS).unwrap() + 10;
        let octets = [batch(count), batch(1)].concat();
        assert_eq!(scan(&octets, true), [count.to_string(), "1".to_owned()]);
        assert_eq!(scan(&octets, false), [count.to_string(), "1".to_owned()]);
    }

    #[test]
    fn a_damaged_batch_names_some_of_its_messages_and_counts_the_others() {
        let mut octets = batch(3000);
        let end = octets.len();
        octets[end - 1] ^= 1;
        octets.extend(batch(1));
        let file = Octets(octets);
        let mut window = Window::new(&file, file.0.len() as u64);
        let found: Vec<_> = super::scan(&mut window, EPOCH, true).collect();
        let [Found::Damage(damaged), Found::Record(_)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((damaged.range.end, damaged.ids.len(), damaged.more_ids), (end as u64, MAX_IDS, 2000));
    }

    #[test]
    fn a_batch_that_makes_no_sense_is_one_stretch_and_no_gap_in_the_last_write() {
        let mut senseless = Record::new(Kind::Removed, 0, Bytes::new(), |_| {}).last(true);
        senseless.seal(EPOCH, 0, None);
        let (first, length) = (batch_of(0, 1), senseless.head.len());
        let octets = [first.clone(), senseless.head.clone(), first.clone()].concat();
        let expected =
            ["1".to_owned(), format!("senseless {}..{}", first.len(), first.len() + length), "1".to_owned()];
        assert_eq!(scan(&octets, false), expected);
    }

    #[test]
    fn records_of_another_epoch_are_leftovers() {
        let mut old = batch(1);
        old[8] ^= 1;
        assert_eq!(scan(&[batch(2), old].concat(), false), ["2"]);
    }

    proptest! {
        #[test]
        fn no_octets_make_the_scan_panic_or_spin(octets: Vec<u8>, cut in 0_usize..500, complete: bool) {
            let records = batch(4);
            let octets = [records.clone(), octets, records[cut.min(records.len())..].to_vec()].concat();
            let found = scan(&octets, complete);
            prop_assert_eq!(&found[0], "4");
            prop_assert!(found.len() <= 4);
        }
    }
}
