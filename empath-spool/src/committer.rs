//! The thread that makes batches durable: it takes all that wait, writes them at one go, syncs once, answers.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
    vec,
};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use crate::{
    CommitError,
    backlog::{Backlog, Pending, Work},
    index::{Index, Place},
    keeper::{Keeper, Spare},
    metrics::Metrics,
    record::{Kind, Record},
    segment::{self, Begin, Journal, Previous, Segment},
};

/// What the committer and the spool's readers share.
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) backlog: Backlog,
    pub(crate) index: Mutex<Index>,
    pub(crate) healthy: AtomicBool,
    pub(crate) metrics: Metrics,
}

impl Shared {
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Arc<Keeper>,
    /// The segment that is written; `None` after a failure that may have harmed it.
    pub(crate) current: Option<Current>,
    /// How far the journal is valid without `current`.
    pub(crate) previous: Option<Previous>,
    /// The number of the next segment.
    pub(crate) next: u32,
    /// Whether the last try to begin a segment of the full size failed.
    pub(crate) starved: bool,
    /// Becomes true at the end.
    pub(crate) done: watch::Sender<bool>,
}

/// The segment that is written, and up to where it is durable.
pub(crate) struct Current {
    segment: Segment,
    end: u64,
}

impl Current {
    fn as_previous(&self) -> Previous {
        Previous { segment: self.segment.number, epoch: self.segment.epoch, end: self.end }
    }
}

/// Octets of a segment that its batches can't use.
const OVERHEAD: u64 = segment::OVERHEAD as u64;

type Batches = vec::IntoIter<Pending>;

/// How long an idle committer waits before it tries again whether the disk works.
const RETRY: Duration = Duration::from_secs(1);

impl Committer {
    pub(crate) fn run(mut self) {
        loop {
            let broken = self.current.is_none() || self.starved;
            match self.shared.backlog.take(broken.then_some(RETRY)) {
                Work::Batches(batches) => self.commit(batches),
                // Failure was reported when it happened; here only success is news.
                Work::Timeout => drop(self.begin(0, self.current.is_some())),
                Work::Closed => return self.end(),
            }
        }
    }

    fn commit(&mut self, batches: Vec<Pending>) {
        let mut batches = batches.into_iter();
        while let Some(Pending { octets, content, .. }) = batches.as_slice().first() {
            let (needed, content) = (*octets, *content);
            if let Err(failure) = self.make_room(needed, content) {
                // What has no content may still find room where content finds none.
                let refused = |batch: &Pending| !content || (batch.content && batch.octets >= needed);
                let (refused, rest): (Vec<_>, Vec<_>) = batches.partition(refused);
                self.refuse(refused, failure);
                batches = rest.into_iter();
                continue;
            }
            let group = self.group(&mut batches);
            self.write(group);
        }
    }

    /// Sees to it that a batch of this size fits into the current segment.
    fn make_room(&mut self, needed: u64, content: bool) -> io::Result<()> {
        if needed <= self.room(content) { Ok(()) } else { self.begin(needed, content) }
    }

    /// Octets that still fit into the current segment. Content leaves the end of it, and so all of a small one, to
    /// what frees space.
    fn room(&self, content: bool) -> u64 {
        let Some(Current { segment, end }) = &self.current else {
            return 0;
        };
        let kept = if content { self.shared.journal.small() } else { 0 };
        segment.size.saturating_sub(end + OVERHEAD + kept)
    }

    /// Takes the batches that fit into the current segment, at least one.
    fn group(&self, batches: &mut Batches) -> Vec<Pending> {
        let (room, room_for_content) = (self.room(false), self.room(true));
        let mut taken = 0;
        let fits = batches.as_slice().iter().take_while(|batch| {
            taken += batch.octets;
            taken <= if batch.content { room_for_content } else { room }
        });
        let count = fits.count().max(1);
        batches.take(count).collect()
    }

    /// Writes and syncs batches, and answers them.
    fn write(&mut self, mut group: Vec<Pending>) {
        let Some(Current { segment, end }) = &mut self.current else {
            return;
        };
        let records = group.iter_mut().flat_map(|batch| batch.records.iter_mut().map(|(record, _)| record));
        let started = Instant::now();
        match append(segment, *end, records) {
            Ok(octets) => {
                self.shared.metrics.sync.observe(started.elapsed().as_secs_f64());
                let (number, start) = (segment.number, *end);
                *end += octets;
                if *end > segment.size / 2 && !self.starved {
                    self.keeper.want_spare();
                }
                self.committed(group, number, start, octets);
            }
            Err(failure) => {
                self.poison();
                // The refusal must be durable before it is spoken: after a crash nothing of the batches may appear.
                if self.begin(0, false).is_ok() {
                    tracing::error!(error = %failure, "the journal could not be written; a new segment was begun");
                }
                self.refuse(group, failure);
            }
        }
    }

    /// Enters durable batches in the index and wakes those who wait.
    fn committed(&mut self, group: Vec<Pending>, segment: u32, start: u64, octets: u64) {
        let mut offset = start;
        let mut index = self.shared.index();
        for (record, effect) in group.iter().flat_map(|batch| &batch.records) {
            index.apply(*effect, place(segment, offset, record));
            offset += record.len();
        }
        let (dead, messages) = (index.take_dead(), index.len());
        drop(index);
        let metrics = &self.shared.metrics;
        metrics.batches.increment();
        metrics.commits.add(group.len() as u64);
        metrics.written.add(octets);
        metrics.messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.keeper.bury(dead);
        for batch in group {
            // Whoever does not wait any more has the batch committed all the same.
            let _ = batch.answer.send(Ok(()));
        }
    }

    fn refuse(&self, group: Vec<Pending>, failure: io::Error) {
        self.shared.metrics.refused.add(group.len() as u64);
        let failure = Arc::new(failure);
        let full = no_space(&failure);
        for batch in group {
            let failure = Arc::clone(&failure);
            let refusal = if full { CommitError::Full(failure) } else { CommitError::Io(failure) };
            let _ = batch.answer.send(Err(refusal));
        }
    }

    /// Gives up the current segment from its durable end on: after a failed sync nobody knows what of it is on disk,
    /// and another sync would not say (the kernel may have dropped the pages and the error with them).
    fn poison(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.previous = Some(current.as_previous());
        let Current { segment, end } = current;
        // Should no new segment be written before the process ends, the refused batches are gone all the same.
        if let Err(failure) = segment.file.truncate(end) {
            tracing::warn!(segment = segment.number, error = %failure, "a refused write could not be taken back");
        }
    }

    /// Begins a new segment with room for a batch of `needed` octets. Only when its first record is durable is it the
    /// current one; if that fails, the one before goes on.
    ///
    /// On a full disk content gets none, and what frees space gets a small one: content must not eat what that needs.
    pub(crate) fn begin(&mut self, needed: u64, content: bool) -> io::Result<()> {
        let journal = &self.shared.journal;
        let small = needed + 2 * OVERHEAD;
        let size = if content { small + journal.small() } else { small };
        let (ordinary, small) = (size <= journal.segment_size, small.max(journal.small()));
        let begun = match self.keeper.spare(size).and_then(|spare| self.begin_in(spare)) {
            Ok(()) => {
                self.starved = false;
                Ok(())
            }
            Err(failure) => {
                // A single batch that is too large for the disk says nothing about the others.
                if ordinary && !self.starved {
                    self.starved = true;
                    tracing::error!(error = %failure, "no segment of the journal can be begun; messages are refused");
                }
                if !content && no_space(&failure) {
                    self.keeper.small(small).and_then(|spare| self.begin_in(spare))
                } else {
                    Err(failure)
                }
            }
        };
        self.shared.healthy.store(self.current.is_some() && !self.starved, Relaxed);
        begun
    }

    /// Makes a file the current segment.
    fn begin_in(&mut self, spare: Spare) -> io::Result<()> {
        let journal = &self.shared.journal;
        let number = self.next;
        // From here on the number is used, whatever happens.
        self.next = number.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        let previous = self.current.as_ref().map(Current::as_previous).or(self.previous);
        let (unnamed, path) = (journal.spare(spare.number), journal.segment(number));
        let begun = journal.rename(&unnamed, &path).and_then(|()| {
            let size = spare.file.size()?;
            let segment = Segment { number, epoch: journal.files.secret(), file: spare.file, size };
            let mut begin = Begin { segment: number, previous }.record();
            let end = append(&segment, 0, [&mut begin].into_iter())?;
            Ok(Current { segment, end })
        });
        match begun {
            Ok(current) => {
                self.shared.index().begin(number);
                self.current = Some(current);
                Ok(())
            }
            Err(failure) => {
                // Best effort: what stays is a spare file that the next start removes.
                let _ = journal.files.remove(&unnamed);
                if let Err(failure) = journal.remove(&path) {
                    tracing::warn!(segment = number, error = %failure, "a segment that did not begin stays");
                    // After a crash it could still say where the one before ends: nothing may be added there. What
                    // is in itself does not count: the next segment that begins says so.
                    self.previous = previous;
                    self.current = None;
                }
                Err(failure)
            }
        }
    }

    /// Says that the journal ends here, so that the next start knows damage from an unfinished write.
    fn end(mut self) {
        if let Some(Current { segment, end }) = self.current.take() {
            let mut record = Record::new(Kind::End, 0, Bytes::new(), |_| {}).last(true);
            if let Err(failure) = append(&segment, end, [&mut record].into_iter()) {
                tracing::warn!(error = %failure, "the end of the journal could not be written");
            }
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.backlog.abandon();
        self.keeper.stop();
        self.done.send_replace(true);
    }
}

fn no_space(failure: &io::Error) -> bool {
    matches!(failure.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes records to a segment and syncs it; returns the octets written.
fn append<'a>(segment: &Segment, at: u64, records: impl Iterator<Item = &'a mut Record>) -> io::Result<u64> {
    let mut slices = Vec::new();
    let mut octets = 0;
    let start = offset(at);
    for record in records {
        record.seal(segment.epoch, start);
        octets += record.len();
        let Record { head, body, .. } = record;
        slices.push(IoSlice::new(head));
        if !body.is_empty() {
            slices.push(IoSlice::new(body));
        }
    }
    segment.file.write_all_at(&mut slices, at)?;
    segment.file.sync()?;
    Ok(octets)
}

fn place(segment: u32, at: u64, record: &Record) -> Place {
    let (head, body) = record.lengths();
    Place { segment, offset: offset(at), head, body }
}

/// An offset as it is stored: segments are far smaller than 4 GiB.
fn offset(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
