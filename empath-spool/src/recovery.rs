//! From the files of the journal to the index.

use std::{collections::BTreeMap, io, path::Path};

use crate::{
    damage::{Damage, DamageReason, quarantine},
    encoding,
    files::File,
    index::{Effect, Index, Place},
    record::{self, Kind, Read},
    scan::{Damaged, Found, scan},
    segment::{Begin, Journal, Name, OVERHEAD, Previous},
};

/// What was found at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages that are not removed.
    pub messages: usize,
    /// Ranges that could not be read; copies of them are in `damaged/`.
    pub damaged: Vec<Damage>,
    /// Octets of a last write that did not finish and were never acknowledged.
    pub unfinished: u64,
}

/// The journal as it was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) report: Report,
    /// The segment that was written last.
    pub(crate) previous: Option<Previous>,
    /// The number of the next segment.
    pub(crate) next: u32,
    /// Names of files kept for later use.
    pub(crate) spares: Vec<u32>,
}

/// What is known about a segment from its own first record or from that of the next.
#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: u64,
    /// Up to where the segment is valid; `None` if no later segment says so.
    end: Option<u64>,
}

struct Recovery<'a> {
    journal: &'a Journal,
    damaged: &'a Path,
    found: Recovered,
}

/// Reads the whole journal. What is damaged is copied to the directory `damaged` and passed over.
pub(crate) fn recover(journal: &Journal, damaged: &Path) -> io::Result<Recovered> {
    let mut segments = Vec::new();
    let mut found = Recovered { next: 1, ..Recovered::default() };
    for name in journal.files.list(&journal.directory)? {
        match Name::parse(&name) {
            Some(Name::Segment(number)) => segments.push(number),
            Some(Name::Spare(number)) => found.spares.push(number),
            None => tracing::warn!(file = name, "left alone: not a file of the journal"),
        }
    }
    segments.sort_unstable();
    if let Some(newest) = segments.last() {
        found.next = newest.saturating_add(1);
    }
    let known = chain(journal, &segments);
    let mut recovery = Recovery { journal, damaged, found };
    for number in segments {
        let known = known.get(&number).copied();
        match journal.files.open(&journal.segment(number)).and_then(|file| Ok((file.size()?, file))) {
            Ok((size, file)) => {
                recovery.found.index.begin(number);
                match known {
                    Some(Some(known)) => recovery.segment(number, &*file, size, known)?,
                    Some(None) => recovery.unknown(number, &*file, size)?,
                    // Void: a later segment says that nothing in it counts.
                    None => {}
                }
            }
            Err(failure) => match known {
                Some(known) => {
                    recovery.unreadable(number, known.and_then(|known| known.end).unwrap_or(0), &failure);
                }
                None if failure.kind() == io::ErrorKind::IsADirectory => {
                    tracing::warn!(segment = number, "left alone: a directory");
                }
                // Given up in its turn, for which it need not be opened.
                None => recovery.found.index.begin(number),
            },
        }
    }
    recovery.found.report.messages = recovery.found.index.len();
    Ok(recovery.found)
}

/// What is known about each segment; void segments are left out.
fn chain(journal: &Journal, segments: &[u32]) -> BTreeMap<u32, Option<Known>> {
    let mut known: BTreeMap<u32, Option<Known>> = BTreeMap::new();
    let mut youngest_void = None;
    for number in segments.iter().rev().copied() {
        if youngest_void.is_some_and(|previous| number > previous) {
            continue;
        }
        let begin = begin(journal, number);
        let from_next = known.get(&number).copied().flatten();
        let own = begin.map(|(epoch, _)| Known { epoch, end: None });
        known.insert(number, from_next.or(own));
        if let Some((_, Begin { previous: Some(previous), .. })) = begin {
            known.insert(previous.segment, Some(Known { epoch: previous.epoch, end: Some(previous.end) }));
            youngest_void = Some(previous.segment);
        }
    }
    known.retain(|number, _| segments.contains(number));
    known
}

/// The first record of a segment with its epoch, if it is this segment's.
fn begin(journal: &Journal, number: u32) -> Option<(u64, Begin)> {
    let mut octets = vec![0; 512];
    let file = journal.files.open(&journal.segment(number)).ok()?;
    let length = file.read_all_at(&mut octets, 0).ok()?;
    octets.truncate(length);
    let read = record::read(&octets, None).ok()?;
    let begin = Begin::decode(&read).ok().filter(|begin| begin.segment == number);
    begin.map(|begin| (read.header.epoch, begin))
}

impl Recovery<'_> {
    /// A segment whose epoch is known.
    fn segment(&mut self, number: u32, file: &dyn File, size: u64, known: Known) -> io::Result<()> {
        if known.end.is_none() {
            // After a mere crash of the process the page cache may hold batches that are not on disk. They count from
            // now on, so they must be.
            file.sync()?;
        }
        let end = known.end.unwrap_or(size);
        let (octets, readable) = self.contents(number, file, end.min(size));
        let mut valid = if readable { 0 } else { octets.len() };
        for found in scan(&octets, known.epoch, known.end.is_some()) {
            match found {
                Found::Batch(batch) => {
                    valid = batch.last().map_or(valid, |(at, read)| valid.max(at + read.header.len()));
                    self.batch(number, known.epoch, &octets, &batch);
                }
                Found::Damage(damaged) => self.damage(number, known.epoch, &octets, damaged),
                Found::Unfinished(tail) => self.unfinished(number, known.epoch, &octets, tail),
            }
        }
        if end > size {
            self.report(describe(number, size, end - size, DamageReason::CutOff));
        }
        let end = known.end.unwrap_or(valid as u64);
        self.found.previous = Some(Previous { segment: number, epoch: known.epoch, end });
        Ok(())
    }

    /// A segment of which nothing says what belongs to it.
    fn unknown(&mut self, number: u32, file: &dyn File, size: u64) -> io::Result<()> {
        let (octets, _) = self.contents(number, file, size);
        if octets.iter().take(record::HEADER).all(|octet| *octet == 0) {
            // The power failed between naming the file and the first write to it.
            return Ok(());
        }
        // The first record is damaged; the one behind it knows the epoch too.
        let behind = (1..OVERHEAD).find_map(|at| record::read(octets.get(at..)?, None).ok());
        if let Some(read) = behind {
            return self.segment(number, file, size, Known { epoch: read.header.epoch, end: None });
        }
        let damage = describe(number, 0, size, DamageReason::Begin);
        self.quarantine(damage, 0, &octets);
        self.found.previous = Some(Previous { segment: number, epoch: 0, end: size });
        Ok(())
    }

    /// A segment that cannot even be opened. It stays where it is.
    fn unreadable(&mut self, number: u32, end: u64, failure: &io::Error) {
        tracing::error!(segment = number, error = %failure, "a segment of the journal cannot be opened");
        self.report(describe(number, 0, end, DamageReason::Unreadable));
        // A directory is none of ours and never becomes a segment.
        if failure.kind() != io::ErrorKind::IsADirectory {
            // Perhaps it can be read another day: younger segments say what in it is over, and the next one must
            // not say that nothing in it counts.
            self.found.index.keep(number);
            self.found.previous = None;
        }
    }

    /// Reads a segment; a block that the disk refuses to read is damage and reads as zeros.
    fn contents(&mut self, number: u32, file: &dyn File, size: u64) -> (Vec<u8>, bool) {
        const BLOCK: usize = 4096;
        let mut octets = vec![0; usize::try_from(size.min(u32::MAX.into())).unwrap_or(0)];
        if file.read_all_at(&mut octets, 0).is_ok() {
            return (octets, true);
        }
        let mut offset = 0;
        for block in octets.chunks_mut(BLOCK) {
            if file.read_all_at(block, offset).is_err() {
                block.fill(0);
                // Perhaps it can be read another day.
                self.found.index.keep(number);
                self.report(describe(number, offset, block.len() as u64, DamageReason::Unreadable));
            }
            offset += block.len() as u64;
        }
        (octets, false)
    }

    fn batch(&mut self, number: u32, epoch: u64, octets: &[u8], batch: &[(usize, Read<'_>)]) {
        let effects: Result<Vec<_>, _> = batch.iter().map(|(at, read)| effect(number, *at, read)).collect();
        match effects {
            Ok(effects) => {
                effects
                    .into_iter()
                    .flatten()
                    .for_each(|(effect, place)| self.found.index.apply(effect, place));
            }
            Err(reason) => {
                let from = batch.first().map_or(0, |(at, _)| *at);
                let to = batch.last().map_or(from, |(at, read)| at + read.header.len());
                let damage = describe(number, from as u64, (to - from) as u64, reason);
                self.quarantine(damage, epoch, octets.get(from..to).unwrap_or_default());
            }
        }
    }

    fn damage(&mut self, number: u32, epoch: u64, octets: &[u8], damaged: Damaged) {
        let Damaged { range, reason, ids } = damaged;
        let damage =
            Damage { ids, ..describe(number, range.start as u64, range.len() as u64, reason.into()) };
        self.quarantine(damage, epoch, octets.get(range).unwrap_or_default());
    }

    /// A write that did not finish was never acknowledged and is dropped. A copy is kept all the same: nobody can tell
    /// it from a finished one that was damaged.
    fn unfinished(&mut self, number: u32, epoch: u64, octets: &[u8], tail: Damaged) {
        let Damaged { range, ids, .. } = tail;
        let (offset, length) = (range.start as u64, range.len() as u64);
        self.found.report.unfinished += length;
        let damage = Damage { ids, ..describe(number, offset, length, DamageReason::Unfinished) };
        let octets = octets.get(range).unwrap_or_default();
        match quarantine(&*self.journal.files, self.damaged, &damage, epoch, octets) {
            Ok(copy) => {
                tracing::info!(segment = number, length, copy = %copy.display(), "an unfinished write was dropped");
            }
            Err(failure) => {
                tracing::warn!(segment = number, length, error = %failure, "an unfinished write was dropped");
            }
        }
    }

    fn quarantine(&mut self, mut damage: Damage, epoch: u64, octets: &[u8]) {
        match quarantine(&*self.journal.files, self.damaged, &damage, epoch, octets) {
            Ok(copy) => damage.copy = Some(copy),
            Err(failure) => {
                // What is not copied is not given up.
                self.found.index.keep(damage.segment);
                tracing::error!(error = %failure, directory = %self.damaged.display(), "damage could not be copied");
            }
        }
        self.report(damage);
    }

    fn report(&mut self, damage: Damage) {
        let Damage { segment, offset, length, reason, ids, .. } = &damage;
        tracing::error!(segment, offset, length, %reason, ?ids, "the journal is damaged; going on behind it");
        self.found.report.damaged.push(damage);
    }
}

fn describe(segment: u32, offset: u64, length: u64, reason: DamageReason) -> Damage {
    Damage { segment, offset, length, reason, ids: Vec::new(), copy: None }
}

/// What a record does to the index; `None` for records that are not about a message.
fn effect(segment: u32, at: usize, read: &Read<'_>) -> Result<Option<(Effect, Place)>, DamageReason> {
    let effect = match read.header.kind {
        Kind::Accepted => Effect::Accepted,
        Kind::Progress => Effect::Progress,
        Kind::Removed => Effect::Removed,
        Kind::Begin | Kind::End | Kind::Unknown(_) => return Ok(None),
    };
    let id = encoding::id(read.head).map_err(|_| DamageReason::Fields)?;
    let offset = u32::try_from(at).map_err(|_| DamageReason::Fields)?;
    Ok(Some((effect(id), Place { segment, offset, head: read.header.head, body: read.header.body })))
}
