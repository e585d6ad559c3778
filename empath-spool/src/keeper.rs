//! The thread that prepares space in advance, gives up what is dead and writes down what is in sealed segments, so that
//! commits wait for none of it.

mod desk;

use std::{
    io::{self, IoSlice},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use empath_common::MessageId;
use tokio::time::Instant;

use desk::{Desk, MAX_KNOWN, MAX_SEALED, Next, PAUSE, Preparing, Reserve, Task};

use crate::{
    committer::Shared,
    contents::{Item, Writing},
    deletions::Schedule,
    files::File,
    kept,
    recovery::Recovered,
    scan::{Found, scan},
    segment::{BLANK, Journal, Previous},
    window::Window,
};

/// What the keeper and the committer share.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    schedule: Schedule,
    desk: Mutex<Desk>,
    changed: Condvar,
    /// Whether the committer waits for the file that is being prepared.
    awaited: AtomicBool,
}

/// A file full of zeros or leftovers, to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) number: u32,
    pub(crate) file: Box<dyn File>,
}

impl Keeper {
    /// A keeper that may use the first of the spare files that fits; the others are removed.
    pub(crate) fn new(shared: Arc<Shared>, schedule: Schedule, found: &Recovered) -> Arc<Self> {
        let (journal, spares) = (&shared.journal, &found.spares);
        let mut desk = Desk::new(schedule, found.next_spare);
        for number in spares.iter().copied() {
            let path = journal.spare(number);
            let file = journal.files.open(&path).and_then(|file| Ok((file.size()?, file)));
            // It may have become a spare in the last moment, with its first record still there.
            match file {
                Ok((size, file))
                    if size == journal.segment_size
                        && desk.spare.is_none()
                        && blank(journal, &*file).is_ok() =>
                {
                    desk.spare = Some(Spare { number, file });
                }
                Ok((size, file))
                    if size == journal.reserve()
                        && !matches!(desk.reserve, Reserve::Ready(_))
                        && blank(journal, &*file).is_ok() =>
                {
                    desk.reserve = Reserve::Ready(Spare { number, file });
                }
                _ => {
                    if let Err(failure) = journal.files.remove(&path) {
                        tracing::warn!(error = %failure, file = %path.display(), "a spare file could not be removed");
                    }
                }
            }
        }
        desk.kept.add(shared.index().kept().map(|(number, _)| number));
        Arc::new(Self {
            shared,
            schedule,
            desk: Mutex::new(desk),
            changed: Condvar::new(),
            awaited: AtomicBool::new(false),
        })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<thread::JoinHandle<()>> {
        let keeper = Arc::clone(self);
        thread::Builder::new().name("spool-keeper".into()).spawn(move || keeper.run())
    }

    /// Says that a spare will soon be needed.
    pub(crate) fn want_spare(&self) {
        let mut desk = self.desk();
        if desk.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        if desk.preparing == Preparing::Not && desk.spare.is_none() {
            desk.preparing = Preparing::Wanted;
            self.changed.notify_all();
        }
        if matches!(desk.reserve, Reserve::Absent) {
            desk.reserve = Reserve::Missing;
            self.changed.notify_all();
        }
    }

    /// Segments to give up, oldest first; messages whose files can go; and whether there is a segment to compact.
    pub(crate) fn bury(&self, dead: Vec<u32>, large: Vec<MessageId>, compact: bool) {
        if !dead.is_empty() || !large.is_empty() || compact {
            let mut desk = self.desk();
            desk.dead.add(dead);
            desk.large.add(large);
            desk.compact |= compact;
            self.changed.notify_all();
        }
    }

    /// The file of a message that was never committed.
    pub(crate) fn remove_large(&self, id: MessageId) {
        self.bury(Vec::new(), vec![id], false);
    }

    /// A segment to which nothing is added any more, and what is in it, if that is known.
    pub(crate) fn sealed(&self, segment: Previous, items: Option<Vec<u8>>) {
        let mut desk = self.desk();
        if desk.sealed.len() < MAX_SEALED {
            let items = items.filter(|_| desk.sealed.len() < MAX_KNOWN);
            desk.sealed.push_back((segment, items));
            self.changed.notify_all();
        }
    }

    /// A file of at least `size` octets: one that is ready, else a new one.
    pub(crate) fn spare(&self, size: u64) -> io::Result<Spare> {
        let journal = &self.shared.journal;
        let mut desk = self.desk();
        if size <= journal.segment_size {
            while desk.preparing == Preparing::Going {
                self.awaited.store(true, Relaxed);
                desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            self.awaited.store(false, Relaxed);
            if let Some(spare) = desk.spare.take() {
                return Ok(spare);
            }
        }
        let number = desk.take_number();
        drop(desk);
        let file = journal.prepare(&journal.spare(number), size.max(journal.segment_size), || false)?;
        Ok(Spare { number, file })
    }

    /// A file of at least `size` octets for when the disk has no space for one of the full size.
    pub(crate) fn small(&self, size: u64) -> io::Result<Spare> {
        let journal = &self.shared.journal;
        let mut desk = self.desk();
        let number = desk.take_number();
        drop(desk);
        journal
            .prepare(&journal.spare(number), size, || false)
            .map(|file| Spare { number, file })
            .or_else(|failure| self.desk().reserve.take(size, journal.reserve()).ok_or(failure))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.desk().stop = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut desk = self.desk();
        loop {
            let now = Instant::now();
            desk = match desk.next(now) {
                Next::Stop => return,
                Next::Task(task) => {
                    drop(desk);
                    self.perform(task, now);
                    self.desk()
                }
                Next::Wait(None) => self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Next::Wait(Some(due)) => {
                    let patience = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(desk, patience).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Does one thing that is due at `now`; false if there is none.
    #[cfg(test)]
    pub(crate) fn turn(&self, now: Instant) -> bool {
        let next = self.desk().next(now);
        match next {
            Next::Task(task) => {
                self.perform(task, now);
                true
            }
            Next::Wait(_) | Next::Stop => false,
        }
    }

    fn perform(&self, task: Task, now: Instant) {
        match task {
            Task::Remove(segment) => self.remove(segment),
            Task::RemoveLarge(id) => {
                let path = self.shared.journal.large(id);
                let removed = self.shared.journal.remove_name(&path);
                self.removed(&path, removed, |desk, failed| desk.large.done(id, failed));
            }
            Task::Release(number) => self.release(number),
            Task::Prepare(number) => self.prepare(number),
            Task::PrepareReserve(number) => {
                let journal = &self.shared.journal;
                // Without one the disk has space for outcomes, or has none for anything.
                let prepared = journal.prepare(&journal.spare(number), journal.reserve(), || true);
                let mut desk = self.desk();
                match prepared {
                    Ok(file) => desk.reserve = Reserve::Ready(Spare { number, file }),
                    Err(_) => desk.not_before = Some(Instant::now() + PAUSE),
                }
            }
            Task::WriteDown(segment, items) => self.write_down(segment, items.as_deref()),
            Task::Compact(mut compaction) => {
                let again = compaction.step(&self.shared, now);
                let mut desk = self.desk();
                desk.compaction = compaction;
                desk.compact |= again;
            }
        }
    }

    fn prepare(&self, number: u32) {
        let journal = &self.shared.journal;
        let time = || !self.awaited.load(Relaxed);
        let prepared = journal.prepare(&journal.spare(number), journal.segment_size, time);
        let mut desk = self.desk();
        desk.preparing = Preparing::Not;
        match prepared {
            Ok(file) => desk.spare = Some(Spare { number, file }),
            // The committer tries again when it needs one, and answers for it.
            Err(failure) => {
                desk.not_before = Some(Instant::now() + PAUSE);
                tracing::warn!(error = %failure, "no space could be prepared for the journal");
            }
        }
        drop(desk);
        self.changed.notify_all();
    }

    /// Gives a segment up: as a spare if none is there, for good otherwise. One at a time, each durable before the
    /// next, so that a crash never leaves an older one without the younger that says what in it is over.
    fn remove(&self, segment: u32) {
        let journal = &self.shared.journal;
        let path = journal.segment(segment);
        self.shared.open.close(segment);
        // Best effort: the next start removes it.
        let _ = journal.remove_name(&journal.contents(segment));
        let reuse = {
            let mut desk = self.desk();
            (desk.spare.is_none() && !desk.stop).then(|| desk.take_number())
        };
        let reuse = reuse.and_then(|number| {
            let file = journal.files.open(&path).ok()?;
            (file.size().ok()? == journal.segment_size).then_some(Spare { number, file })
        });
        let removed = match &reuse {
            Some(spare) => journal.rename(&path, &journal.spare(spare.number)),
            None => journal.remove(&path),
        };
        let spare = reuse.filter(|spare| removed.is_ok() && blank(journal, &*spare.file).is_ok());
        self.removed(&path, removed, |desk, failed| {
            desk.spare = spare.or(desk.spare.take());
            desk.dead.done(segment, failed)
        });
    }

    /// Tries again what keeps a segment from being given up.
    fn release(&self, segment: u32) {
        let tried = kept::again(&self.shared, segment);
        let failed = tried.as_ref().err().map(|_| Instant::now());
        let failures = self.desk().kept.done(segment, failed);
        match tried {
            Ok(()) => {
                let mut index = self.shared.index();
                let dead = index.take_dead();
                self.shared.metrics.holds(&index);
                drop(index);
                self.bury(dead, Vec::new(), true);
            }
            Err(failure) if failures == self.schedule.max_attempts => {
                tracing::error!(segment, error = %failure, attempts = failures, "a segment stays, and all younger ones with it: its space does not come back");
            }
            Err(failure) if failures < self.schedule.max_attempts => {
                tracing::warn!(segment, error = %failure, attempts = failures, "a segment stays; it is tried again");
            }
            Err(_) => {}
        }
    }

    /// Notes whether something was deleted; what failed is tried again.
    fn removed(
        &self,
        path: &std::path::Path,
        removed: io::Result<()>,
        done: impl FnOnce(&mut Desk, Option<Instant>) -> u32,
    ) {
        let failed = removed.as_ref().err().map(|_| Instant::now());
        let mut desk = self.desk();
        let failures = done(&mut desk, failed);
        let undeleted = desk.dead.alarming() + desk.large.alarming();
        drop(desk);
        let metrics = &self.shared.metrics;
        metrics.undeleted.set(i64::try_from(undeleted).unwrap_or(i64::MAX));
        if let Err(failure) = removed {
            metrics.deletion_failures.increment();
            let file = path.display();
            if failures == self.schedule.max_attempts {
                tracing::error!(%file, error = %failure, attempts = failures, "a file of the spool cannot be deleted and takes space");
            } else if failures < self.schedule.max_attempts {
                tracing::warn!(%file, error = %failure, attempts = failures, "a file of the spool could not be deleted; it is tried again");
            }
        }
    }

    /// Writes down what is in a segment, and cuts off what is not used of it.
    fn write_down(&self, sealed: Previous, items: Option<&[u8]>) {
        let journal = &self.shared.journal;
        let segment = self.shared.index().segment(sealed.segment);
        // One without messages goes as soon as those before it have gone.
        let Some(known) = segment.filter(|known| !known.kept && known.messages > 0) else {
            return;
        };
        let written = journal.files.open(&journal.segment(sealed.segment)).and_then(|file| {
            // Less than an eighth is not worth an inode's journal entry, and keeps the file fit to be used again.
            if known.size.saturating_sub(sealed.end) > known.size / 8 {
                file.truncate(sealed.end)?;
                self.shared.index().resized(sealed.segment, sealed.end);
            }
            journal.write_contents(sealed, |out| match items {
                Some(items) => out.octets(items).map(|()| true),
                None => read_items(&*file, sealed, out),
            })
        });
        let octets = written.unwrap_or_else(|failure| {
            tracing::warn!(segment = sealed.segment, error = %failure, "the contents of a segment were not written down; the next start reads all of it");
            0
        });
        self.shared.index().has_contents(sealed.segment, octets);
    }
}

/// Writes down all records of a segment; false if it has damage, of which the next start will say what it is.
fn read_items(file: &dyn File, sealed: Previous, out: &mut Writing) -> io::Result<bool> {
    let mut window = Window::new(file, sealed.end);
    for found in scan(&mut window, sealed.epoch, true) {
        let Found::Record(record) = found else {
            return Ok(false);
        };
        Item::of(&record).map_or(Ok(()), |item| out.push(&item))?;
    }
    Ok(!window.is_unreadable())
}

/// Takes away the first record, so that a file which was renamed and not yet written looks unused. What is behind
/// it belongs to another epoch.
fn blank(journal: &Journal, file: &dyn File) -> io::Result<()> {
    file.write_all_at(&mut [IoSlice::new(&[0; BLANK])], 0)?;
    journal.sync(file)
}
