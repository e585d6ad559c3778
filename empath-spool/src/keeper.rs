//! The thread that prepares space in advance and gives up what is dead, so that commits wait for neither.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::{files::File, segment::Journal};

/// What the keeper and the committer share.
pub(crate) struct Keeper {
    journal: Journal,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// A file full of zeros or leftovers, to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) number: u32,
    pub(crate) file: Box<dyn File>,
}

#[derive(Debug, Default)]
struct Desk {
    spare: Option<Spare>,
    next_spare: u32,
    wanted: bool,
    making: bool,
    /// Segments without live messages, oldest first.
    dead: VecDeque<u32>,
    stop: bool,
}

enum Task {
    Remove(u32),
    Prepare(u32),
    Stop,
}

impl Keeper {
    /// A keeper that may use the first of `spares` that fits; the others are removed.
    pub(crate) fn new(journal: Journal, spares: &[u32]) -> Arc<Self> {
        let mut desk = Desk {
            next_spare: spares.iter().max().map_or(1, |max| max.saturating_add(1)),
            ..Desk::default()
        };
        for number in spares.iter().copied() {
            let path = journal.spare(number);
            let size = journal.segment_size;
            match journal.files.open(&path).ok().filter(|file| file.size().is_ok_and(|found| found == size)) {
                Some(file) if desk.spare.is_none() => desk.spare = Some(Spare { number, file }),
                _ => {
                    if let Err(failure) = journal.files.remove(&path) {
                        tracing::warn!(error = %failure, file = %path.display(), "a spare file could not be removed");
                    }
                }
            }
        }
        Arc::new(Self { journal, desk: Mutex::new(desk), changed: Condvar::new() })
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
        if !desk.wanted && desk.spare.is_none() {
            desk.wanted = true;
            self.changed.notify_all();
        }
    }

    /// Segments to give up, oldest first.
    pub(crate) fn bury(&self, dead: Vec<u32>) {
        if !dead.is_empty() {
            self.desk().dead.extend(dead);
            self.changed.notify_all();
        }
    }

    /// A file of at least `size` octets: one that is ready, else a new one.
    pub(crate) fn spare(&self, size: u64) -> io::Result<Spare> {
        let mut desk = self.desk();
        if size <= self.journal.segment_size {
            while desk.making {
                desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(spare) = desk.spare.take() {
                return Ok(spare);
            }
        }
        let number = desk.take_number();
        drop(desk);
        let file = self.journal.prepare(&self.journal.spare(number), size.max(self.journal.segment_size))?;
        Ok(Spare { number, file })
    }

    /// A new file of `size` octets, for when the disk has no space for one of the full size.
    pub(crate) fn small(&self, size: u64) -> io::Result<Spare> {
        let number = self.desk().take_number();
        let file = self.journal.prepare(&self.journal.spare(number), size)?;
        Ok(Spare { number, file })
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.desk().stop = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        loop {
            match self.next_task() {
                Task::Stop => return,
                Task::Prepare(number) => {
                    let prepared =
                        self.journal.prepare(&self.journal.spare(number), self.journal.segment_size);
                    let mut desk = self.desk();
                    desk.making = false;
                    match prepared {
                        Ok(file) => desk.spare = Some(Spare { number, file }),
                        // The committer tries again when it needs one, and answers for it.
                        Err(failure) => {
                            tracing::warn!(error = %failure, "no space could be prepared for the journal");
                        }
                    }
                    drop(desk);
                    self.changed.notify_all();
                }
                Task::Remove(segment) => self.remove(segment),
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut desk = self.desk();
        loop {
            if let Some(segment) = desk.dead.pop_front() {
                return Task::Remove(segment);
            }
            if desk.stop {
                return Task::Stop;
            }
            if mem::take(&mut desk.wanted) && desk.spare.is_none() {
                desk.making = true;
                return Task::Prepare(desk.take_number());
            }
            desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives a segment up: as a spare if none is there, for good otherwise. One at a time, each durable before the
    /// next, so that a crash never leaves an older one without the younger that says what in it is over.
    fn remove(&self, segment: u32) {
        let path = self.journal.segment(segment);
        let reuse = {
            let mut desk = self.desk();
            (desk.spare.is_none() && !desk.stop).then(|| desk.take_number())
        };
        let reuse = reuse.and_then(|number| {
            let file = self.journal.files.open(&path).ok()?;
            (file.size().ok()? == self.journal.segment_size).then_some(Spare { number, file })
        });
        let removed = match &reuse {
            Some(spare) => self.journal.rename(&path, &self.journal.spare(spare.number)),
            None => self.journal.remove(&path),
        };
        let spare = reuse.filter(|spare| removed.is_ok() && blank(&*spare.file).is_ok());
        let mut desk = self.desk();
        match removed {
            Ok(()) => desk.spare = spare.or(desk.spare.take()),
            Err(failure) => {
                tracing::warn!(segment, error = %failure, "a dead segment could not be removed; it is tried again");
                if desk.stop {
                    // The next start tries again.
                    desk.dead.clear();
                } else {
                    desk.dead.push_front(segment);
                    drop(self.changed.wait(desk));
                }
            }
        }
    }
}

/// Takes away the first record, so that a file which was renamed and not yet written looks unused. What is behind
/// it belongs to another epoch.
fn blank(file: &dyn File) -> io::Result<()> {
    file.write_all_at(&mut [IoSlice::new(&[0; 4096])], 0)?;
    file.sync()
}

impl Desk {
    fn take_number(&mut self) -> u32 {
        let number = self.next_spare;
        self.next_spare = number.wrapping_add(1);
        number
    }
}
