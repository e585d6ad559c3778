//! From the files of the journal to the index.

use std::{collections::BTreeMap, io, ops::Range};

use empath_common::MessageId;

use crate::{
    OpenError,
    chain::{Known, chain, never_used},
    content::PIECE,
    contents::Item,
    damage::{Damage, DamageReason},
    directory::failed,
    files::File,
    index::{Effect, Index},
    kept::KeptReason,
    large,
    listing::Listing,
    record::{At, RecordError},
    scan::{Damaged, Found, scan},
    segment::{Journal, OVERHEAD, Previous},
    settling::Unsettled,
    window::Window,
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
    /// Names of files kept for later use, and the next such name.
    pub(crate) spares: Vec<u32>,
    pub(crate) next_spare: u32,
    /// Segments of whose contents nothing is written down.
    pub(crate) without_contents: Vec<u32>,
    /// Files in `large/` that belong to no message.
    pub(crate) orphans: Vec<MessageId>,
    /// What must be made durable before anything is built on all this, if that failed.
    pub(crate) unsettled: Option<Unsettled>,
}

struct Recovery<'a> {
    journal: &'a Journal,
    found: Recovered,
    unsettled: Unsettled,
}

/// Reads the whole journal. What is damaged is copied to the directory `damaged` and passed over.
///
/// What cannot be written now is for later. Only where a directory cannot be listed nothing is known, and an error is
/// better than an empty spool.
pub(crate) fn recover(journal: &Journal) -> Result<Recovered, OpenError> {
    let listing = Listing::of(journal)?;
    let found = Recovered { next: listing.next(), next_spare: listing.next_spare(), ..Recovered::default() };
    let mut recovery = Recovery { journal, found, unsettled: Unsettled::default() };
    let Listing { segments, contents, spares, strays } = listing;
    recovery.found.spares = spares;
    let known = chain(journal, &segments);
    for number in contents.into_iter().filter(|number| !segments.contains(number)) {
        // Best effort: it is in nobody's way.
        let _ = journal.remove_name(&journal.contents(number));
    }
    for number in strays {
        recovery.stray(number);
    }
    for number in segments {
        recovery.visit(number, &known);
    }
    recovery.settle();
    recovery.large()?;
    recovery.found.report.messages = recovery.found.index.len();
    Ok(recovery.found)
}

impl Recovery<'_> {
    /// Leaves alone what is no segment.
    fn stray(&mut self, number: u32) {
        let path = self.journal.segment(number);
        let size = self.journal.files.open_read(&path).and_then(|file| file.size());
        tracing::error!(file = %path.display(), "left alone: no segment of this journal; move it away");
        self.report(Damage::new(number, 0..size.unwrap_or(0), DamageReason::Begin));
    }

    /// Takes in a segment. One that a later segment calls void is not `known`.
    fn visit(&mut self, number: u32, known: &BTreeMap<u32, Option<Known>>) {
        let known = known.get(&number);
        let path = self.journal.segment(number);
        match self.journal.files.open_read(&path).and_then(|file| Ok((file.size()?, file))) {
            Ok((size, file)) => {
                self.found.index.begin(number, 0, size);
                match known {
                    Some(Some(known)) => self.segment(number, &*file, size, *known),
                    Some(None) => self.unknown(number, &*file, size),
                    None => {}
                }
            }
            Err(failure) => match known {
                Some(known) => {
                    self.unreadable(number, known.and_then(|known| known.end).unwrap_or(0), &failure);
                }
                None if failure.kind() == io::ErrorKind::IsADirectory => {
                    tracing::warn!(segment = number, "left alone: a directory");
                }
                // Given up in its turn, for which it need not be opened.
                None => self.found.index.begin(number, 0, 0),
            },
        }
    }

    /// A segment whose epoch is known.
    fn segment(&mut self, number: u32, file: &dyn File, size: u64, known: Known) {
        let sealed = known.end.map(|end| Previous { segment: number, epoch: known.epoch, end });
        let contents = sealed.and_then(|sealed| self.journal.read_contents(sealed));
        let mut entered = 0;
        let whole = contents.is_some_and(|contents| {
            self.found.index.has_contents(number, contents.octets());
            contents.each(|item| {
                self.enter(number, item);
                entered = item.end();
            })
        });
        let end = if let (true, Some(end)) = (whole, known.end) {
            if end > size {
                self.report(Damage::new(number, size..end, DamageReason::CutOff));
            }
            end
        } else {
            let (last_write, end) = self.read(number, file, size, known, entered);
            if sealed.is_some() {
                self.found.without_contents.push(number);
            } else {
                self.last_write(number, file, last_write..end);
            }
            end
        };
        let previous = Previous { segment: number, epoch: known.epoch, end };
        self.found.index.bound(previous);
        self.found.previous = Some(previous);
    }

    /// Notes the last write to a segment, which is to be written once more.
    fn last_write(&mut self, number: u32, file: &dyn File, range: Range<u64>) {
        let mut octets = Vec::new();
        while let at = range.start + octets.len() as u64
            && at < range.end
        {
            let mut piece = vec![0; usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE)];
            // What cannot be read is not written over.
            match file.read_all_at(&mut piece, at) {
                Ok(read) if read == piece.len() => octets.append(&mut piece),
                Ok(_) => break,
                Err(failure) => {
                    tracing::error!(segment = number, error = %failure, "the end of the journal cannot be read again");
                    self.found.index.keep(number, KeptReason::Unreadable);
                    break;
                }
            }
        }
        self.unsettled.add(number, range.start, octets);
    }

    /// Makes durable what was found. If that fails, the committer tries again.
    fn settle(&mut self) {
        let unsettled = std::mem::take(&mut self.unsettled);
        if let Err(failure) = unsettled.settle(self.journal) {
            tracing::error!(error = %failure, "what was found may not be on disk; until it is, nothing is accepted");
            // What became a spare a moment ago can still be a segment again after a power loss.
            self.found.spares.clear();
            self.found.index.unsettled(true);
            self.found.unsettled = Some(unsettled);
        }
    }

    /// Reads all of a segment, and enters what has not been; returns where the last write to it began, and up to where
    /// it is valid.
    fn read(&mut self, number: u32, file: &dyn File, size: u64, known: Known, entered: u64) -> (u64, u64) {
        let end = known.end.unwrap_or(size);
        let mut window = Window::new(file, end.min(size));
        let (mut last_write, mut valid) = (0, 0);
        for found in scan(&mut window, known.epoch, known.end.is_some()) {
            match found {
                Found::Record(record) => {
                    (last_write, valid) = (record.header.start.into(), record.end());
                    if let Some(item) = Item::of(&record).filter(|_| record.at >= entered) {
                        self.enter(number, &item);
                    }
                }
                Found::Senseless { start, damaged } => {
                    (last_write, valid) = (start, damaged.range.end);
                    self.quarantine(Damage::of(number, damaged, DamageReason::Fields), known.epoch, file);
                }
                Found::Damage(damaged) => {
                    let reason = damaged.reason.into();
                    self.quarantine(Damage::of(number, damaged, reason), known.epoch, file);
                }
                Found::Unfinished(tail) => self.unfinished(number, known.epoch, file, tail),
            }
        }
        let unreadable = window.unreadable();
        if !unreadable.is_empty() {
            // Nobody knows how far it is valid; perhaps it can be read another day.
            self.found.index.keep(number, KeptReason::Unreadable);
            valid = end.min(size);
            last_write = valid;
        }
        for range in unreadable {
            self.report(Damage::new(number, range, DamageReason::Unreadable));
        }
        if end > size {
            self.report(Damage::new(number, size..end, DamageReason::CutOff));
        }
        (last_write, known.end.unwrap_or(valid))
    }

    /// A segment of which nothing says what belongs to it.
    fn unknown(&mut self, number: u32, file: &dyn File, size: u64) {
        let mut window = Window::new(file, size);
        let never_used = never_used(&mut window);
        if window.is_unreadable() {
            // What reads as zeros may be anything.
            self.unreadable(number, size, &io::Error::other("its first record cannot be read"));
            return;
        }
        match never_used {
            None => {}
            Some(0) => return,
            Some(begun) => {
                let tail = Damaged::new(0..begun, RecordError::Head);
                self.unfinished(number, 0, file, tail);
                return;
            }
        }
        // The first record is damaged; the one behind it knows the epoch too.
        let first = window.get(0, 2 * OVERHEAD);
        let headers =
            (1..OVERHEAD).filter_map(|at| crate::record::Header::parse(first.get(at..)?, None).ok());
        let epochs: Vec<u64> = headers.map(|header| header.epoch).collect();
        for epoch in epochs {
            // The first whole batch is enough, wherever the last write is.
            let mut found = scan(&mut window, epoch, true);
            if found.any(|found| matches!(found, Found::Record(_) | Found::Senseless { .. })) {
                return self.segment(number, file, size, Known { epoch, end: None });
            }
        }
        self.quarantine(Damage::new(number, 0..size, DamageReason::Begin), 0, file);
        self.found.previous = Some(Previous { segment: number, epoch: 0, end: size });
    }

    /// A segment that cannot even be opened. It stays where it is.
    fn unreadable(&mut self, number: u32, end: u64, failure: &io::Error) {
        tracing::error!(segment = number, error = %failure, "a segment of the journal cannot be opened");
        self.report(Damage::new(number, 0..end, DamageReason::Unreadable));
        // A directory is none of ours and never becomes a segment.
        if failure.kind() != io::ErrorKind::IsADirectory {
            // Perhaps it can be read another day: younger segments say what in it is over, and the next one must
            // not say that nothing in it counts.
            self.found.index.begin(number, 0, 0);
            self.found.index.keep(number, KeptReason::Unreadable);
            self.found.previous = None;
        }
    }

    fn enter(&mut self, number: u32, item: &Item) {
        if let Some(at) = At::new(number, item.offset) {
            if let Effect::Progress(id) = item.effect {
                self.found.index.follows(id, at, item.previous);
            }
            self.found.index.apply(item.effect, at, item.octets.into());
        }
    }

    /// A write that did not finish was never acknowledged and is dropped. A copy is kept all the same: nobody can tell
    /// it from a finished one that was damaged.
    fn unfinished(&mut self, number: u32, epoch: u64, file: &dyn File, tail: Damaged) {
        let length = tail.range.end - tail.range.start;
        self.found.report.unfinished += length;
        let damage = Damage::of(number, tail, DamageReason::Unfinished);
        match self.journal.damaged.keep(&damage, epoch, file) {
            Ok(copy) => {
                tracing::info!(segment = number, length, copy = %copy.display(), "an unfinished write was dropped");
            }
            Err(failure) => {
                tracing::warn!(segment = number, length, error = %failure, "an unfinished write was dropped");
            }
        }
    }

    fn quarantine(&mut self, mut damage: Damage, epoch: u64, file: &dyn File) {
        let directory = self.journal.damaged_directory();
        match self.journal.damaged.keep(&damage, epoch, file) {
            Ok(copy) => damage.copy = Some(copy),
            Err(failure) => {
                // What is not copied is not given up.
                self.found.index.keep_for(damage.clone(), epoch);
                tracing::error!(error = %failure, directory = %directory.display(), "damage could not be copied");
            }
        }
        self.report(damage);
    }

    fn report(&mut self, damage: Damage) {
        let Damage { segment, offset, length, reason, ids, .. } = &damage;
        tracing::error!(segment, offset, length, %reason, ?ids, "the journal is damaged; going on behind it");
        self.found.report.damaged.push(damage);
    }

    /// Finds out which files in `large/` belong to a message. The others are orphans: their message was never
    /// committed, or has ended. Where a record was damaged, an orphan may be what it named, and is kept beside it.
    ///
    /// Where a segment could not be read, nobody knows what it names, and every file stays where it is. None is moved
    /// while the end of its message may not be durable.
    fn large(&mut self) -> Result<(), OpenError> {
        let directory = self.journal.large_directory();
        let unread = self.found.report.damaged.iter().any(|damage| damage.reason == DamageReason::Unreadable);
        let names = self.journal.files.list(&directory).map_err(failed("list", &directory))?;
        let unsettled = self.found.unsettled.is_some();
        for name in names {
            let Some(id) = large::id_of(&name) else {
                tracing::warn!(file = name, "left alone: not the content of a message");
                continue;
            };
            if self.found.index.message(id).is_some() {
                let size = self.journal.files.open_read(&directory.join(&name)).and_then(|file| file.size());
                self.found.index.has_large(id, size.unwrap_or(0));
            } else if unread {
                tracing::warn!(file = name, "content without a record stays: a segment could not be read");
            } else if self.found.report.damaged.is_empty() {
                self.found.orphans.push(id);
            } else if unsettled {
                tracing::warn!(
                    file = name,
                    "content that seems to have lost its record stays until the next start"
                );
            } else {
                let kept = self.journal.damaged_directory().join(&name).with_extension("content");
                if let Err(failure) = self.journal.files.rename(&directory.join(&name), &kept) {
                    tracing::warn!(error = %failure, file = name, "content that seems to have lost its record stays");
                }
            }
        }
        Ok(())
    }
}
