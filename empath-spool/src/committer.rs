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
    keeper::Keeper,
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
    /// The segment that is written; `None` after a failure.
    pub(crate) current: Option<Current>,
    /// How far the journal is valid without `current`.
    pub(crate) previous: Option<Previous>,
    /// The number of the next segment.
    pub(crate) next: u32,
    /// Becomes true at the end.
    pub(crate) done: watch::Sender<bool>,
}

/// The segment that is written, and up to where it is durable.
pub(crate) struct Current {
    segment: Segment,
    end: u64,
}

/// Octets of a segment that its batches can't use.
const OVERHEAD: u64 = segment::OVERHEAD as u64;

type Batches = vec::IntoIter<Pending>;

/// How long an idle committer waits before it tries again whether the disk works.
const RETRY: Duration = Duration::from_secs(1);

impl Committer {
    pub(crate) fn run(mut self) {
        loop {
            let broken = self.current.is_none();
            match self.shared.backlog.take(broken.then_some(RETRY)) {
                Work::Batches(batches) => self.commit(batches),
                // Failure was reported when it happened; here only success is news.
                Work::Timeout => drop(self.begin(0)),
                Work::Closed => return self.end(),
            }
        }
    }

    fn commit(&mut self, batches: Vec<Pending>) {
        let mut batches = batches.into_iter();
        while let Some(needed) = batches.as_slice().first().map(|first| first.octets) {
            if let Err(failure) = self.make_room(needed) {
                self.refuse(batches.by_ref().collect(), failure);
                return;
            }
            let group = self.group(&mut batches);
            self.write(group);
        }
    }

    /// Sees to it that a batch of this size fits into the current segment.
    fn make_room(&mut self, needed: u64) -> io::Result<()> {
        if let Some(Current { segment, end }) = &self.current {
            if end + needed + OVERHEAD <= segment.size {
                return Ok(());
            }
            self.previous = Some(Previous { segment: segment.number, epoch: segment.epoch, end: *end });
            self.current = None;
        }
        self.begin(needed)
    }

    /// Takes the batches that fit into the current segment, at least one.
    fn group(&self, batches: &mut Batches) -> Vec<Pending> {
        let Some(Current { segment, end }) = &self.current else {
            return Vec::new();
        };
        let mut left = segment.size.saturating_sub(end + OVERHEAD);
        let fits = batches.as_slice().iter().take_while(|batch| {
            let rest = left.checked_sub(batch.octets);
            left = rest.unwrap_or(left);
            rest.is_some()
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
                if *end > segment.size / 2 {
                    self.keeper.want_spare();
                }
                self.committed(group, number, start, octets);
            }
            Err(failure) => {
                self.poison();
                // The refusal must be durable before it is spoken: after a crash nothing of the batches may appear.
                let resumed = self.begin(0);
                if resumed.is_ok() {
                    tracing::error!(error = %failure, "the journal could not be written; a new segment was begun");
                }
                self.refuse(group, failure);
                self.shared.healthy.store(resumed.is_ok(), Relaxed);
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
        self.shared.healthy.store(true, Relaxed);
        self.keeper.bury(dead);
        for batch in group {
            // Whoever does not wait any more has the batch committed all the same.
            let _ = batch.answer.send(Ok(()));
        }
    }

    fn refuse(&self, group: Vec<Pending>, failure: io::Error) {
        self.shared.metrics.refused.add(group.len() as u64);
        let failure = Arc::new(failure);
        let full = matches!(failure.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        for batch in group {
            let failure = Arc::clone(&failure);
            let refusal = if full { CommitError::Full(failure) } else { CommitError::Io(failure) };
            let _ = batch.answer.send(Err(refusal));
        }
    }

    /// Gives up the current segment from its durable end on: after a failed sync nobody knows what of it is on disk,
    /// and another sync would not say (the kernel may have dropped the pages and the error with them).
    fn poison(&mut self) {
        let Some(Current { segment, end }) = self.current.take() else {
            return;
        };
        // Should no new segment be written before the process ends, the refused batches are gone all the same.
        if let Err(failure) = segment.file.truncate(end) {
            tracing::warn!(segment = segment.number, error = %failure, "a refused write could not be taken back");
        }
        self.previous = Some(Previous { segment: segment.number, epoch: segment.epoch, end });
    }

    /// Begins a new segment with room for a batch of `needed` octets. Only when its first record is durable is it the
    /// current one; if that fails, nothing has begun.
    pub(crate) fn begin(&mut self, needed: u64) -> io::Result<()> {
        let number = self.next;
        let begun = self.try_begin(number, needed);
        match &begun {
            Ok(_) => self.shared.healthy.store(true, Relaxed),
            Err(failure) => {
                let unhealthy = !self.shared.healthy.swap(false, Relaxed);
                if !unhealthy {
                    tracing::error!(error = %failure, "no segment of the journal can be begun; commits are refused");
                }
            }
        }
        self.current = Some(begun?);
        Ok(())
    }

    fn try_begin(&mut self, number: u32, needed: u64) -> io::Result<Current> {
        let journal = &self.shared.journal;
        let spare = self.keeper.spare(needed + 2 * OVERHEAD)?;
        // From here on the number is used, whatever happens.
        self.next = number.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        let path = journal.segment(number);
        let begun = journal.rename(&journal.spare(spare.number), &path).and_then(|()| {
            let size = spare.file.size()?;
            let segment = Segment { number, epoch: journal.files.secret(), file: spare.file, size };
            let mut begin = Begin { segment: number, previous: self.previous }.record();
            let end = append(&segment, 0, [&mut begin].into_iter())?;
            Ok(Current { segment, end })
        });
        match begun {
            Ok(current) => {
                self.shared.index().begin(number);
                Ok(current)
            }
            Err(failure) => {
                // Nothing in it counts: the next segment that begins says so.
                if let Err(failure) = journal.remove(&path) {
                    tracing::warn!(segment = number, error = %failure, "a segment that did not begin stays");
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
