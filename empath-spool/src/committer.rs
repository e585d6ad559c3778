//! The thread that makes batches durable: it takes all that wait, writes them at one go, syncs once, answers.

mod begin;

use std::{
    collections::{HashMap, HashSet},
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
    vec,
};

use bytes::Bytes;
use empath_common::MessageId;
use tokio::{sync::watch, time::Instant};

use crate::{
    CommitError,
    backlog::{Backlog, Class, Pending, Work},
    contents::{Item, Items},
    index::{Effect, Index},
    keeper::Keeper,
    metrics::Metrics,
    reader::Open,
    record::{At, Kind, Record},
    segment::{self, Journal, Previous, Segment},
    settling::Unsettled,
};

/// What the committer, the keeper and the spool's readers share.
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) backlog: Backlog,
    pub(crate) index: Mutex<Index>,
    pub(crate) open: Open,
    pub(crate) healthy: AtomicBool,
    /// Whether the last try to begin a segment of the full size failed.
    pub(crate) starved: AtomicBool,
    pub(crate) metrics: Metrics,
}

impl Shared {
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Relaxed)
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
    /// What the start could not make durable. No segment begins before.
    pub(crate) unsettled: Option<Unsettled>,
    /// Messages that the start has not found, and whose files go when that is durable.
    pub(crate) orphans: Vec<MessageId>,
    /// Becomes true at the end.
    pub(crate) done: watch::Sender<bool>,
}

/// The segment that is written, and up to where it is durable.
pub(crate) struct Current {
    segment: Segment,
    end: u64,
    items: Items,
}

/// Octets of a segment that its batches can't use.
const OVERHEAD: u64 = segment::OVERHEAD as u64;

type Batches = vec::IntoIter<Pending>;

/// How long an idle committer waits before it tries again whether the disk works.
const RETRY: Duration = Duration::from_secs(1);

impl Committer {
    pub(crate) fn run(mut self) {
        loop {
            let broken = self.current.is_none() || self.shared.is_starved();
            match self.shared.backlog.take(broken.then_some(RETRY)) {
                Work::Batches(batches) => self.commit(batches),
                Work::Timeout => self.retry(),
                Work::Closed => return self.end(),
            }
        }
    }

    /// Handles what waits; as `run` does, but without waiting for more.
    #[cfg(test)]
    pub(crate) fn turn(&mut self) {
        let batches = self.shared.backlog.take_now();
        self.commit(batches);
    }

    /// Tries whether the disk works again.
    pub(crate) fn retry(&mut self) {
        // Failure was reported when it happened; here only success is news.
        let class = if self.current.is_some() { Class::Content } else { Class::Outcome };
        drop(self.begin(0, class));
    }

    /// Handles batches in their order.
    pub(crate) fn commit(&mut self, batches: Vec<Pending>) {
        let mut batches = batches.into_iter();
        while let Some(Pending { octets, class, .. }) = batches.as_slice().first() {
            let (needed, class) = (*octets, *class);
            if let Err(failure) = self.make_room(needed, class) {
                // What needs less, or may take what others may not, can still find room.
                let refused = |batch: &Pending| match class {
                    Class::Outcome => true,
                    Class::Content => batch.class == Class::Content && batch.octets >= needed,
                    Class::Moved(..) => matches!(batch.class, Class::Moved(..)),
                };
                let (refused, rest): (Vec<_>, Vec<_>) = batches.partition(refused);
                self.refuse(refused, &failure.into());
                batches = rest.into_iter();
                continue;
            }
            let group = self.group(&mut batches);
            self.write(group);
        }
    }

    /// Sees to it that a batch of this size fits into the current segment.
    fn make_room(&mut self, needed: u64, class: Class) -> io::Result<()> {
        if needed <= self.room(class) { Ok(()) } else { self.begin(needed, class) }
    }

    /// Octets that still fit into the current segment. All but outcomes leave the end of it, and so all of a small one,
    /// to what frees space.
    fn room(&self, class: Class) -> u64 {
        let Some(Current { segment, end, .. }) = &self.current else {
            return 0;
        };
        let kept = if class == Class::Outcome { 0 } else { self.shared.journal.small() };
        segment.size.saturating_sub(end + OVERHEAD + kept)
    }

    /// Takes the batches that fit into the current segment, at least one.
    fn group(&self, batches: &mut Batches) -> Vec<Pending> {
        let mut taken = 0;
        let fits = batches.as_slice().iter().take_while(|batch| {
            taken += batch.octets;
            taken <= self.room(batch.class)
        });
        let count = fits.count().max(1);
        batches.take(count).collect()
    }

    /// Writes and syncs batches, and answers them.
    fn write(&mut self, group: Vec<Pending>) {
        let mut group = self.without_moot(group);
        if group.is_empty() {
            // The keeper waits for answers, and nothing else will tell it that they are there.
            self.keeper.bury(Vec::new(), Vec::new(), true);
        }
        let Some(Current { segment, end, .. }) = self.current.as_mut().filter(|_| !group.is_empty()) else {
            return;
        };
        let started = Instant::now();
        let octets = seal(&self.shared, segment, *end, &mut group);
        let records = group.iter().flat_map(|batch| batch.records.iter().map(|(record, _)| record));
        match append(&self.shared.journal, segment, *end, records) {
            Ok(()) => {
                self.shared.metrics.sync.observe(started.elapsed().as_secs_f64());
                let (number, start) = (segment.number, *end);
                *end += octets;
                if *end > segment.size / 2 && !self.shared.is_starved() {
                    self.keeper.want_spare();
                }
                self.committed(group, number, start, octets);
            }
            Err(failure) => self.poison(group, failure),
        }
    }

    /// Takes out messages to be written again that have changed since, or change before.
    fn without_moot(&self, mut group: Vec<Pending>) -> Vec<Pending> {
        if !group.iter().any(|batch| matches!(batch.class, Class::Moved(..))) {
            return group;
        }
        let index = self.shared.index();
        let mut changed = HashSet::new();
        let mut moot = Vec::new();
        for (place, batch) in group.iter().enumerate() {
            match batch.class {
                Class::Moved(id, then) if changed.contains(&id) || index.message(id) != Some(then) => {
                    moot.push(place);
                }
                _ => changed.extend(batch.records.iter().map(|(_, effect)| effect.id())),
            }
        }
        for place in moot.into_iter().rev() {
            let _ = group.remove(place).answer.send(Ok(()));
        }
        group
    }

    /// Enters durable batches in the index and wakes those who wait.
    fn committed(&mut self, group: Vec<Pending>, segment: u32, start: u64, octets: u64) {
        let mut at = start;
        let mut index = self.shared.index();
        for batch in &group {
            for (record, effect) in &batch.records {
                if let Some(at) = At::new(segment, offset(at)) {
                    index.apply(*effect, at, record.len());
                    if let Some(current) = &mut self.current {
                        current.items.push(&Item::written(*effect, at, record));
                    }
                }
                at += record.len();
            }
            for large in &batch.large {
                large.named();
                index.has_large(large.id(), large.length());
            }
        }
        index.written(segment, at);
        let (dead, ended_large) = (index.take_dead(), index.take_ended_large());
        let compact = index.wants_compaction(self.shared.journal.segment_size, self.shared.is_starved());
        self.shared.metrics.holds(&index);
        drop(index);
        let metrics = &self.shared.metrics;
        metrics.batches.increment();
        metrics.commits.add(group.len() as u64);
        metrics.written.add(octets);
        for batch in group {
            // Whoever does not wait any more has the batch committed all the same.
            let _ = batch.answer.send(Ok(()));
        }
        // After the answers, some of which it may wait for: if none comes after this, nobody wakes it again.
        self.keeper.bury(dead, ended_large, compact);
    }

    fn refuse(&self, group: Vec<Pending>, refusal: &CommitError) {
        self.shared.metrics.refused.add(group.len() as u64);
        for batch in group {
            let _ = batch.answer.send(Err(refusal.clone()));
        }
    }

    /// Gives up the current segment from its durable end on: after a failed sync nobody knows what of it is on disk,
    /// and another sync would not say (the kernel may have dropped the pages and the error with them).
    ///
    /// The refusal must be durable before it is spoken: after a crash nothing of the batches may appear. A new segment
    /// says where this one ends; else this one is cut off there.
    fn poison(&mut self, group: Vec<Pending>, failure: io::Error) {
        let refusal = match self.current.take() {
            None => failure.into(),
            Some(Current { segment, end, items }) => {
                self.previous = Some(segment.until(end));
                self.keeper.sealed(segment.until(end), items.complete());
                let begun = self.begin(0, Class::Outcome).is_ok();
                tracing::error!(error = %failure, goes_on = begun, "the journal could not be written; the segment is given up");
                let cut = || segment.file.truncate(end).and_then(|()| segment.file.sync_all());
                if begun || cut().is_ok() {
                    failure.into()
                } else {
                    // Should the records be there after a crash, so must be what they name. The next start removes what
                    // no record names.
                    for large in group.iter().flat_map(|batch| &batch.large) {
                        large.named();
                    }
                    CommitError::Unsettled(Arc::new(failure))
                }
            }
        };
        self.refuse(group, &refusal);
    }

    /// Says that the journal ends here, so that the next start knows damage from an unfinished write.
    pub(crate) fn end(mut self) {
        if let Some(Current { segment, end, .. }) = self.current.take() {
            let mut record = Record::new(Kind::End, 0, Bytes::new(), |_| {}).last(true);
            record.seal(segment.epoch, offset(end), None);
            if let Err(failure) = append(&self.shared.journal, &segment, end, [&record].into_iter()) {
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

/// Makes batches part of one write to a segment; returns their octets.
fn seal(shared: &Shared, segment: &Segment, start: u64, group: &mut [Pending]) -> u64 {
    let records = || group.iter().flat_map(|batch| &batch.records);
    let chained = records().any(|(_, effect)| matches!(effect, Effect::Progress(_)));
    // What the index will say when the records before are entered.
    let mut last: HashMap<_, Option<At>> = HashMap::new();
    let index = chained.then(|| shared.index());
    let mut at = start;
    for (record, effect) in group.iter_mut().flat_map(|batch| &mut batch.records) {
        let previous = match (*effect, &index) {
            (Effect::Progress(id), Some(index)) => {
                let before = || index.message(id).and_then(|message| message.progress);
                let previous = last.get(&id).copied().unwrap_or_else(before);
                last.insert(id, At::new(segment.number, offset(at)));
                previous
            }
            (Effect::Condensed(id), Some(_)) => {
                last.insert(id, At::new(segment.number, offset(at)));
                None
            }
            (Effect::Accepted(id) | Effect::Removed(id), Some(_)) => {
                last.insert(id, None);
                None
            }
            _ => None,
        };
        record.seal(segment.epoch, offset(start), previous);
        at += record.len();
    }
    at - start
}

/// Writes sealed records to a segment and syncs it.
fn append<'a>(
    journal: &Journal,
    segment: &Segment,
    at: u64,
    records: impl Iterator<Item = &'a Record>,
) -> io::Result<()> {
    let mut slices = Vec::new();
    for Record { head, body, .. } in records {
        slices.push(IoSlice::new(head));
        if !body.is_empty() {
            slices.push(IoSlice::new(body));
        }
    }
    segment.file.write_all_at(&mut slices, at)?;
    journal.sync(&*segment.file)
}

/// An offset as it is stored: segments are far smaller than 4 GiB.
fn offset(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
